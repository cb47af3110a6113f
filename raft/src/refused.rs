//! Why a request was not decided: what the front doors turn into a status.

use serde::{Deserialize, Serialize};

/// Why there is no decision or outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refused {
    /// The queue in front of the owner thread is full, or so long that the request would not be reached
    /// before its deadline. Nothing was decided.
    #[error("overloaded: {waiting} requests are waiting, which takes about {wait} ms; ask again later")]
    Overloaded {
        /// Requests that wait.
        waiting: usize,
        /// Milliseconds until they are taken up, as things stand.
        wait: u64,
    },
    /// The deadline passed before the request was looked at. Nothing was decided.
    #[error("the deadline passed while the request was waiting; nothing was decided")]
    Deadline,
    /// This node does not lead. Nothing was decided.
    #[error("this node does not lead; ask the leader")]
    NotLeader,
    /// Nobody leads, or this node cannot reach who does. Nothing was decided.
    #[error("no leader: {0}; ask again")]
    NoLeader(String),
    /// The change of the cluster cannot be made now.
    #[error("{0}")]
    Conflict(String),
    /// The decision was proposed and its fate is not known.
    #[error("it is not known whether the decision was committed; ask again with the same id")]
    Unknown,
    /// The state changed under the decision again and again. Nothing was claimed.
    #[error("the state changed under the decision {tries} times; ask again")]
    Contended {
        /// How often it was decided.
        tries: u32,
    },
    /// The core refused the request.
    #[error(transparent)]
    Refusal(#[from] scheduler::Refusal),
    /// The node has stopped.
    #[error("the node has stopped: {0}")]
    Stopped(String),
}
