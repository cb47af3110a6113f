//! The mark of the cluster in Nova: which cluster acts on this cloud. Two of them, or one and its restored copy, would
//! each fence and evacuate by what it knows alone.
//!
//! It is read before the first act of each leadership, and again and again after it. What was read is replicated: an
//! act needs that this leader has read its own cluster's mark, and no other's.

use bitcode::{Decode, Encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::order::Leader;
use super::stop::Stop;
use super::table::Failover;

/// The aggregate whose metadata it stands in.
pub const AGGREGATE: &str = "pallium-ha";

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// This cluster's, and no other.
    Ours,
    /// No cluster's yet.
    Absent,
    /// Another cluster's as well, or alone.
    Foreign(Uuid),
    /// Nova did not tell; why.
    Unknown(String),
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ours => write!(f, "Nova's aggregate '{AGGREGATE}' names this cluster"),
            Self::Absent => write!(f, "Nova's aggregate '{AGGREGATE}' does not name this cluster yet"),
            Self::Foreign(other) => write!(
                f,
                "Nova's aggregate '{AGGREGATE}' names cluster {other}, which may act on this cloud: once it surely does \
                 not any more, `pallium ctl ha release --after-restore` lets this one act in its place"
            ),
            Self::Unknown(why) => {
                write!(
                    f,
                    "it cannot be read from Nova's aggregate '{AGGREGATE}' which cluster acts on this cloud: {why}"
                )
            }
        }
    }
}

/// A mark, and by whom it was read.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Marked {
    /// What was read.
    pub mark: Mark,
    /// By whom.
    pub by: Leader,
    /// In which epoch of the state.
    pub epoch: u64,
}

impl Failover {
    /// Whether this leader has read that its own cluster acts here, and none else.
    pub fn is_marked(&self, leader: Leader, epoch: u64) -> bool {
        let ours = Marked { mark: Mark::Ours, by: leader, epoch };
        Stop::Marked.lets(self.small.marked.as_ref() == Some(&ours))
    }
}
