//! What goes through the log: batches of commands, and the outcome of each.

mod former;

use std::borrow::Cow;

use bitcode::{Decode, Encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::catalogue;
use crate::consumer::Purpose;
use crate::decision::Claim;
use crate::domain::Domain;
use crate::features::FeatureReport;
use crate::ha;
use crate::intent::Intent;
use crate::level::{self, Levels, Unsupported};
use crate::names::Text;
use crate::provider::{Amounts, Row};
use crate::report::HostReport;

/// Commands that one leader proposed together.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Batch {
    /// Who proposed it.
    pub proposer: Proposer,
    /// Replicated time in milliseconds; apply makes it monotonic.
    pub now: u64,
    /// Wall time, milliseconds since 1970; for people, and to compare with `observed_at`.
    pub wall: u64,
    /// Independent commands with one outcome each.
    pub commands: Vec<Command>,
}

/// The proposer of a batch: a node, a run of its process, a counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Proposer {
    /// Node id.
    pub node: u64,
    /// Random number of the process.
    pub run: u64,
    /// Counter of batches in that process.
    pub seq: u64,
}

/// One change of the state.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Command {
    /// A decision with its claims.
    Place(Box<Place>),
    /// Gives up the claims of a consumer, or the consumer itself.
    Release {
        /// Domain.
        domain: Domain,
        /// The consumer.
        consumer: Uuid,
        /// Only open claims; an instance that was seen stays.
        open_only: bool,
    },
    /// What a source says of one host.
    Report(Box<HostReport>),
    /// A host is gone: its consumers go with it.
    RemoveHost {
        /// Domain.
        domain: Domain,
        /// Provider uuid.
        provider: Uuid,
    },
    /// Expires what is due. Time itself is in the batch.
    Tick,
    /// Changes the pipelines.
    Pipeline(Box<catalogue::Change>),
    /// What a source of metrics says of one host.
    Features(Box<FeatureReport>),
    /// The cluster reaches a feature level, which every member supports.
    Raise {
        /// The level.
        level: u8,
    },
    /// A step of failover.
    Failover(Box<ha::Order>),
    /// Of the next level, to simulate an upgrade: remembers a number.
    #[cfg(feature = "next-level")]
    Note(u64),
}

impl Command {
    /// The level from which on it may be proposed.
    pub fn since(&self) -> u8 {
        match self {
            #[cfg(feature = "next-level")]
            Self::Note(_) => level::NEWEST,
            Self::Failover(_) => level::FAILOVER,
            _ => level::FIRST,
        }
    }
}

/// A decision: what it claims and what is remembered of it.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Place {
    /// Domain.
    pub domain: Domain,
    /// What it was for.
    pub intent: Intent,
    /// Owner project.
    pub project: Option<Text>,
    /// Owner user.
    pub user: Option<Text>,
    /// Flavor.
    pub flavor: Option<Text>,
    /// Server group.
    pub group: Option<Uuid>,
    /// The caller's request id.
    pub request: Option<Uuid>,
    /// Idempotency key and hash of the content.
    pub key: Option<(Uuid, u64)>,
    /// One for each consumer; all are done or none.
    pub parts: Vec<Part>,
    /// Life of the claims in milliseconds.
    pub life: u64,
    /// Node names that this request taught.
    pub learned: Vec<(Row, Text)>,
    /// What is remembered; `None` = nothing (skip_history).
    pub record: Option<Record>,
}

/// What happens to the claim of one consumer.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Part {
    /// The consumer.
    pub consumer: Uuid,
    /// Claim of the thing itself or of its move.
    pub purpose: Purpose,
    /// Ticket of the open claim that the leader saw; apply refuses when it is another by now.
    pub seen: Option<u64>,
    /// What to do.
    pub action: Action,
}

/// What to do with a claim.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Action {
    /// Claim nothing; an open claim stays as it is.
    Leave,
    /// The open claim stays and its life starts anew.
    Keep,
    /// An open claim is released.
    Release,
    /// An open claim is released and this one is made on the first target that still fits.
    Claim {
        /// Names the claim.
        ticket: u64,
        /// The chosen host, then alternates.
        targets: Vec<Row>,
        /// What it takes.
        amounts: Amounts,
    },
}

/// What is remembered of a decision.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Record {
    /// Pipeline.
    pub pipeline: Text,
    /// Its version; 0 = the one that ships with the program. Apply refuses when another is active by
    /// now, so that no decision in the log is older than the pipeline it stands behind.
    pub version: u32,
    /// Candidates.
    pub candidates: u32,
    /// Sent but unknown hosts.
    pub unknown: u32,
    /// Hosts left.
    pub hosts_out: u32,
    /// Step → reason → hosts dropped.
    pub drops: Vec<(Text, Vec<(Text, u32)>)>,
    /// First hosts with their scores in units of 1e-9.
    pub top: Vec<(Row, i64)>,
    /// What the leader meant to do with the claim.
    pub claim: Claim,
    /// Trace id, at most 64 bytes.
    pub trace_id: String,
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// The decision stands.
    Placed {
        /// Its number; 0 when nothing was remembered.
        decision: u64,
        /// Wall time given to it.
        wall: u64,
        /// Row claimed or kept, for each part.
        rows: Vec<Option<Row>>,
    },
    /// The state has moved on since the leader looked: decide again.
    Stale(Cow<'static, str>),
    /// The key is known with the same content: this was the answer.
    Duplicate {
        /// Number of that decision.
        decision: u64,
        /// Its rows.
        rows: Vec<Option<Row>>,
    },
    /// The key is known with other content.
    KeyConflict,
    /// The key is older than what is remembered of keys.
    KeyExpired,
    /// Number of consumers that were released.
    Released(u32),
    /// What a report changed.
    Reported(Change),
    /// The host is gone; false: there was none.
    Removed(bool),
    /// Number of claims that expired.
    Expired(u32),
    /// What a change of the pipelines came to.
    Pipeline(catalogue::Changed),
    /// The cluster has this feature level now.
    Raised(u8),
    /// What a step of failover came to.
    Failover(Result<ha::order::Done, ha::Refusal>),
    /// The command cannot be done.
    Refused(String),
}

/// What a report changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A new host.
    Added,
    /// A known host differs now.
    Changed,
    /// Nothing differs.
    #[default]
    Unchanged,
    /// Older than what is known: ignored.
    Stale,
}

/// Why bytes are no batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Of a feature level that is not supported, or it raises the cluster to one.
    #[error("batch of {0}")]
    Level(#[from] Unsupported),
    /// Not a batch.
    #[error("not a batch: {0}")]
    Malformed(String),
}

impl Batch {
    /// The batch as bytes: the level, then bitcode. A command of a higher level raises it, for what
    /// it says has no form in a lower one.
    pub fn encode(&self, level: u8) -> Vec<u8> {
        let level = self.commands.iter().map(Command::since).fold(level, u8::max);
        let mut out = vec![level];
        if level < level::NEWEST {
            out.extend_from_slice(&former::encode(self));
            return out;
        }
        out.extend_from_slice(&bitcode::encode(self));
        out
    }

    /// Reads what [`Batch::encode`] wrote. A batch that raises the cluster to a level that is not
    /// supported is refused as a whole.
    pub fn decode(bytes: &[u8], levels: Levels) -> Result<Self, DecodeError> {
        let Some((&level, body)) = bytes.split_first() else {
            return Err(DecodeError::Malformed("empty".to_owned()));
        };
        levels.check(level)?;
        let batch = Self::body(level, body).map_err(|error| DecodeError::Malformed(error.to_string()))?;
        for command in &batch.commands {
            if let Command::Raise { level } = command {
                levels.check(*level)?;
            }
        }
        Ok(batch)
    }

    fn body(level: u8, body: &[u8]) -> Result<Self, bitcode::Error> {
        if level < level::NEWEST {
            return former::decode(body);
        }
        bitcode::decode(body)
    }

    /// The highest level that the batch raises the cluster to.
    pub fn raises(&self) -> Option<u8> {
        let level = |command: &Command| if let Command::Raise { level } = command { Some(*level) } else { None };
        self.commands.iter().filter_map(level).max()
    }
}
