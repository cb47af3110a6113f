//! A consumer: what takes capacity. An instance, a volume, a move's second claim: one formula.

use std::sync::Arc;

use bitcode::{Decode, Encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::Domain;
use crate::intent::Intent;
use crate::names::Sym;
use crate::provider::{Amounts, Row};

/// Number of a consumer in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Slot(pub u32);

/// What a consumer of an instance stands for; (domain, uuid, purpose) is its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The thing itself.
    #[default]
    Instance,
    /// The place that a move of it has claimed.
    Move,
}

/// Where a consumer stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Claimed by a decision, not seen yet; goes at `expires` (replicated milliseconds).
    Claimed {
        /// End of the claim.
        expires: u64,
    },
    /// Claimed by a decision and seen on its host.
    Confirmed,
    /// Seen on its host without a claim of ours.
    Observed,
}

/// One consumer.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Consumer {
    /// Its domain.
    pub domain: Domain,
    /// Its uuid.
    pub uuid: Uuid,
    /// What it stands for.
    pub purpose: Purpose,
    /// The provider it takes from.
    pub row: Row,
    /// What it takes; shared by all that take the same.
    pub amounts: Arc<Amounts>,
    /// Where it stands.
    pub phase: Phase,
    /// Owner project.
    pub project: Option<Sym>,
    /// Owner user.
    pub user: Option<Sym>,
    /// Flavor name.
    pub flavor: Option<Sym>,
    /// Server group. Boxed, as few have one.
    pub group: Option<Box<Uuid>>,
    /// Intent of the decision that claimed it.
    pub intent: Intent,
    /// Id of that decision; 0 for an observed consumer.
    pub decision: u64,
    /// Names the claim; 0 for an observed consumer.
    pub ticket: u64,
    /// Caller's request id of that decision.
    pub request: Option<Box<Uuid>>,
    /// When it was claimed or first seen: replicated milliseconds.
    pub since: u64,
    /// The same as wall time, milliseconds since 1970.
    pub since_wall: u64,
}

/// There are millions of them: a chunk of 128 fills what the allocator gives for it.
const _: () = assert!(size_of::<Option<Consumer>>() == 112);

impl Consumer {
    /// True while it is a claim that was not seen yet.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Claimed { .. })
    }

    /// True when its host lists it.
    pub fn is_listed(&self) -> bool {
        !self.is_open()
    }
}
