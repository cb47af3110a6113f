//! What proves that a life of a host is over. Silence of any length does not, nor does a BMC that cannot
//! be reached, a code of success, a vote, or what Nova or Kubernetes believe.

use bitcode::{Decode, Encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::case::{CaseId, Phase};
use super::host::{Incarnation, Machine};
use super::order::Leader;

/// Kinds of proof, by their numbers in the specification. P5, P6 and P8 are planned; P8 (fenced storage)
/// leaves the guest running and would be no proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
pub enum Kind {
    /// Its BMC says `Off`, twice.
    P1,
    /// The same after a fence operation of ours.
    P2,
    /// It says Hello with a new boot.
    P3,
    /// Its watchdog must have fired.
    P4,
    /// An operator says so.
    P7,
}

/// A power state. `PoweringOff` is not off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    /// Off, and nothing else.
    Off,
    /// On.
    On,
    /// On its way on.
    PoweringOn,
    /// On its way off: it may stay there for ever.
    PoweringOff,
    /// Anything else, or no answer.
    Unknown,
}

/// A power state as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PowerRead {
    /// The state.
    pub power: Power,
    /// As the BMC wrote it.
    pub raw: String,
    /// Who the BMC says it belongs to, in the same session.
    pub machine: Machine,
    /// When, by the leader's own monotonic clock, milliseconds.
    pub at: u64,
}

/// What an operator was asked to confirm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Token {
    /// The case, with the incarnation.
    pub case: CaseId,
    /// Its phase when the token was given.
    pub phase: Phase,
    /// When it was given, replicated milliseconds.
    pub at: u64,
}

/// What a proof rests on, as the leader measured it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Evidence {
    /// Two reads: P1.
    PowerOff(Box<[PowerRead; 2]>),
    /// Two reads after a fence operation: P2.
    FencedOff {
        /// The operation.
        op: Uuid,
        /// The reads.
        reads: Box<[PowerRead; 2]>,
    },
    /// P3. It comes with `IncarnationOpen` and never by itself.
    NewBoot(Uuid),
    /// P4.
    Lease {
        /// Milliseconds since this leader's last grant to the host, by its own clock; none: it never gave
        /// one.
        granted: Option<u64>,
        /// Milliseconds since it became leader.
        leader: u64,
    },
    /// P7.
    Operator {
        /// What was confirmed.
        token: Token,
        /// Age of the youngest sign of life of any kind, milliseconds; none: there is none.
        youngest: Option<u64>,
    },
}

impl Evidence {
    /// The kind of proof that it is for.
    pub fn kind(&self) -> Kind {
        match self {
            Self::PowerOff(_) => Kind::P1,
            Self::FencedOff { .. } => Kind::P2,
            Self::NewBoot(_) => Kind::P3,
            Self::Lease { .. } => Kind::P4,
            Self::Operator { .. } => Kind::P7,
        }
    }
}

/// A proof.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Proof {
    /// The life that is over.
    pub incarnation: Incarnation,
    /// What it rests on.
    pub evidence: Evidence,
    /// The epoch. In another it authorises nothing.
    pub epoch: u64,
    /// When, replicated milliseconds.
    pub at: u64,
    /// The leader that wrote it.
    pub by: Leader,
}

/// Whether leases are given, and how long they live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseMode {
    /// None are: P4 does not exist.
    #[default]
    Off,
    /// A host whose lease runs out is reset by its watchdog, whatever the reason.
    Strict,
}

/// Leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Lease {
    /// Mode.
    pub mode: LeaseMode,
    /// Life of a grant, milliseconds (L).
    pub ttl: u64,
    /// Bound of the drift of two clocks, thousandths (ρ).
    pub drift: u64,
    /// Milliseconds on top (δ).
    pub margin: u64,
    /// The longest that a former leader may have given grants after this one began, milliseconds.
    pub overlap: u64,
}

impl Default for Lease {
    fn default() -> Self {
        Self { mode: LeaseMode::Off, ttl: 20_000, drift: 10, margin: 5_000, overlap: 9_000 }
    }
}

impl Lease {
    /// Milliseconds after the last grant when a watchdog of `timeout` must have fired:
    /// L·(1+ρ) + W·(1+ρ) + δ, rounded up to whole seconds.
    pub fn fired(&self, timeout: u64) -> u64 {
        let spans = self.ttl.saturating_add(timeout);
        let drifted = spans.saturating_add(spans.saturating_mul(self.drift).div_ceil(1_000));
        drifted.saturating_add(self.margin).div_ceil(1_000).saturating_mul(1_000)
    }
}
