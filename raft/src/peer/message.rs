//! The letters between nodes and their answers: MessagePack with named fields, so that a newer node
//! may add a field that an older one does not know. A question that is new is asked from the feature
//! level on that it came with.

use std::io;

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use scheduler::core::Shadow;
use scheduler::decision::Explanation;
use scheduler::{Decision, Levels, Outcome, Request};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::acknowledged::Acknowledged;
use crate::ears::{Overheard, Relayed};
use crate::members::{Change, Changed, Report};
use crate::refused::Refused;
use crate::types::{LogId, SnapshotMeta, TypeConfig, Vote};

/// Who speaks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The [feature level](scheduler::level) that the letter is written at.
    #[serde(rename = "version")]
    pub level: u8,
    /// The sender's cluster.
    pub cluster: Uuid,
    /// The sender.
    pub from: u64,
    /// The sender's data folder.
    pub store: Uuid,
    /// The addressee.
    pub to: u64,
    /// The addressee's data folder, as the sender's membership knows it.
    pub to_store: Option<Uuid>,
}

/// A letter.
#[derive(Debug, Serialize, Deserialize)]
pub struct Letter<A = Ask> {
    /// Who speaks to whom.
    pub head: Head,
    /// What is asked.
    pub ask: A,
}

/// What one node asks another.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Who are you? Answered by any node, of whatever cluster.
    Hello,
    /// Become a member of the sender's cluster. For a node that is a member of none.
    Adopt,
    /// openraft's.
    Vote(VoteRequest<TypeConfig>),
    /// openraft's.
    PreVote(VoteRequest<TypeConfig>),
    /// openraft's.
    Append(AppendEntriesRequest<TypeConfig>),
    /// openraft's.
    Transfer(TransferLeaderRequest<TypeConfig>),
    /// A part of a snapshot file.
    Part(Part),
    /// Every part was sent: install it.
    Install {
        /// The leader's vote.
        vote: Vote,
        /// Which snapshot.
        meta: SnapshotMeta,
        /// Bytes of the file.
        bytes: u64,
        /// Its crc32c.
        crc: u32,
    },
    /// The log index that a linearizable read must have applied. For the leader.
    ReadIndex,
    /// Decide and claim. For the leader.
    Decide {
        /// The request.
        request: Box<Request>,
        /// Milliseconds until the answer is of no use any more.
        wait: u64,
    },
    /// Commit a command (a batch of one, encoded). For the leader.
    Propose(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Change the membership. For the leader.
    Change(Change),
    /// Tell of a decision what its maker remembers. For the leader.
    Explain {
        /// Its number.
        id: u64,
        /// Hosts whose story is told.
        hosts: Vec<String>,
    },
    /// How do candidate pipelines compare with the active ones? For the leader.
    Shadows,
    /// How are you?
    Report,
    /// What the sender has heard of hosts. For the leader, from failover's feature level on.
    Overheard(Box<Overheard>),
    /// An order of failover (its actor and its change, encoded). For the leader, which signs it.
    Order(#[serde(with = "serde_bytes")] Vec<u8>),
}

/// A part of a snapshot file. Without bytes it asks how much of the file is there already.
#[derive(Debug, Serialize, Deserialize)]
pub struct Part {
    /// The snapshot's last log id.
    pub last: Option<LogId>,
    /// Bytes of the whole file.
    pub total: u64,
    /// Where the part begins.
    pub offset: u64,
    /// Its crc32c.
    pub crc: u32,
    /// The part.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The letter was not for this node, or could not be read; in words.
    Rejected(String),
    /// The node has no use for it now, as it is starting or stopping.
    NotReady,
    /// To [`Ask::Hello`] and [`Ask::Adopt`].
    Hello(Hello),
    /// To [`Ask::Vote`] and [`Ask::PreVote`].
    Voted(VoteResponse<TypeConfig>),
    /// To [`Ask::Append`].
    Appended(AppendEntriesResponse<TypeConfig>),
    /// To each [`Ask::Append`] of a stream.
    Streamed(StreamAppendResult<TypeConfig>),
    /// To [`Ask::Transfer`]: why not, if not.
    Transferred(Option<String>),
    /// To [`Ask::Part`]: so many bytes are there.
    Here(u64),
    /// To [`Ask::Install`].
    Installed(SnapshotResponse<TypeConfig>),
    /// To [`Ask::ReadIndex`].
    Index(Result<u64, Refused>),
    /// To [`Ask::Decide`].
    Decided(Box<Result<Decision, Refused>>),
    /// To [`Ask::Propose`].
    Done(Result<Outcome, Refused>),
    /// To [`Ask::Change`].
    Changed(Result<Changed, Refused>),
    /// To [`Ask::Explain`].
    Explained(Result<Option<Box<Explanation>>, Refused>),
    /// To [`Ask::Shadows`].
    Shadows(Result<Vec<Shadow>, Refused>),
    /// To [`Ask::Report`].
    Report(Box<Report>),
    /// To [`Ask::Overheard`]: what goes to agents that speak to the sender; none: this node does not lead.
    Heard(Option<Relayed>),
}

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Its cluster; nil when it is a member of none.
    pub cluster: Uuid,
    /// Its number.
    pub node: u64,
    /// Its data folder.
    pub store: Uuid,
    /// True when its log holds anything.
    pub has_log: bool,
    /// What the asking node has acknowledged to it.
    pub acknowledged: Acknowledged,
    /// Feature levels that it supports.
    #[serde(default)]
    pub levels: Levels,
}

/// The bytes of a letter or an answer.
pub fn encode<T: Serialize>(message: &T) -> Result<Bytes, io::Error> {
    rmp_serde::to_vec_named(message).map(Bytes::from).map_err(io::Error::other)
}

/// Reads what [`encode`] wrote.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, io::Error> {
    rmp_serde::from_slice(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
