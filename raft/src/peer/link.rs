//! How a letter gets to a peer: the seam between what nodes say and the wire it goes over.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use uuid::Uuid;

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Its number.
    pub node: u64,
    /// Address of its peer port.
    pub addr: String,
    /// Its data folder; none when that is not known yet.
    pub store: Option<Uuid>,
}

/// Letters of one lane share a connection, so that a large one does not hold up those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Log entries.
    Log,
    /// Heartbeats, votes and other small letters.
    Control,
    /// Snapshots.
    Snapshot,
    /// Requests of clients.
    Forward,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The letter was certainly not delivered.
    #[error("{0}")]
    NotSent(String),
    /// It may have been delivered.
    #[error("{0}")]
    Unknown(String),
}

/// Carries letters.
pub trait Link: Send + Sync + 'static {
    /// Sends a letter and gives its answer, within a time.
    fn call(
        &self,
        to: &Target,
        lane: Lane,
        letter: Bytes,
        within: Duration,
    ) -> BoxFuture<'static, Result<Bytes, Broken>>;

    /// Sends letters in order and gives their answers in order; it ends when the letters end. A
    /// link that cannot do that sends them one by one.
    fn stream(
        &self,
        _to: &Target,
        _letters: BoxStream<'static, Bytes>,
    ) -> Option<BoxStream<'static, Result<Bytes, Broken>>> {
        None
    }
}
