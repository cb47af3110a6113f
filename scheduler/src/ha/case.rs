//! A case: what is done about one host that is not seen, from the first doubt to its return.

use bitcode::{Decode, Encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::host::{Fencer, HostId, Incarnation, Machine};
use super::keyed::Entry;
use super::note::{FIRST, NOTES, Note};
use super::order::Leader;
use super::proof::Power;
use super::reentry::Reentry;

/// Names a case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct CaseId {
    /// The host.
    pub host: HostId,
    /// The life it is about.
    pub incarnation: Incarnation,
    /// Its number among the host's cases.
    pub seq: u64,
}

impl std::fmt::Display for CaseId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.host, self.incarnation, self.seq)
    }
}

/// Where a case stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It is silent to all; nothing was done.
    Unreachable,
    /// It is to be fenced; this can still be taken back.
    FencePending,
    /// It is being fenced: from here on there is no way back but a proof, or a person.
    Fencing,
    /// Every level was tried; it is tried again for ever.
    FenceFailed,
    /// Proven dead.
    Fenced,
    /// Nova is told.
    NovaDown,
    /// Targets are looked for.
    Planning,
    /// Instances are on their way.
    Evacuating,
    /// All run elsewhere.
    Recovered,
    /// What could not go stays with the host.
    PartiallyRecovered,
    /// Until the host comes back.
    AwaitReturn,
    /// It came back, and is let in step by step.
    Returning,
    /// Done.
    Closed,
    /// It was alive, or a person said so.
    Cleared,
}

/// Which right an edge needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// To fence.
    Kill,
    /// To start instances elsewhere.
    Recover,
}

impl std::fmt::Display for Act {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Recover => "recover",
        })
    }
}

impl Phase {
    /// Whether `CasePhase` may take a case from here to there. Three edges are of other orders alone:
    /// to `Fencing` goes a `FenceIntent`, to `Fenced` a proof, and from `FenceFailed` to `Cleared` a
    /// `CaseAbort`.
    pub fn leads_to(self, to: Self) -> bool {
        use Phase::{
            AwaitReturn, Cleared, Closed, Evacuating, FenceFailed, FencePending, Fenced, Fencing, NovaDown,
            PartiallyRecovered, Planning, Recovered, Returning, Unreachable,
        };
        matches!(
            (self, to),
            (Unreachable, FencePending | Cleared)
                | (FencePending, Cleared)
                | (Fencing, FenceFailed)
                | (Fenced, NovaDown | AwaitReturn)
                | (NovaDown, Planning)
                | (Planning, Evacuating | Recovered | PartiallyRecovered | NovaDown)
                | (Evacuating, Planning | Recovered | PartiallyRecovered | NovaDown)
                | (PartiallyRecovered, Planning | AwaitReturn)
                | (Recovered, AwaitReturn)
                | (AwaitReturn, Returning)
                | (Returning, Closed | AwaitReturn)
        )
    }

    /// Whether nothing comes after it.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Closed | Self::Cleared)
    }

    /// Whether the host is proven dead in it.
    pub fn is_proven(self) -> bool {
        !matches!(self, Self::Unreachable | Self::FencePending | Self::Fencing | Self::FenceFailed | Self::Cleared)
    }

    /// Whether its instances are not all back yet: the breaker counts the host.
    pub fn is_unrecovered(self) -> bool {
        use Phase::{AwaitReturn, Cleared, Closed, PartiallyRecovered, Recovered, Returning};
        !matches!(self, Recovered | PartiallyRecovered | AwaitReturn | Returning | Closed | Cleared)
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "Unreachable",
            Self::FencePending => "FencePending",
            Self::Fencing => "Fencing",
            Self::FenceFailed => "FenceFailed",
            Self::Fenced => "Fenced",
            Self::NovaDown => "NovaDown",
            Self::Planning => "Planning",
            Self::Evacuating => "Evacuating",
            Self::Recovered => "Recovered",
            Self::PartiallyRecovered => "PartiallyRecovered",
            Self::AwaitReturn => "AwaitReturn",
            Self::Returning => "Returning",
            Self::Closed => "Closed",
            Self::Cleared => "Cleared",
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What opened a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Nobody sees it.
    Unreachable,
    /// It is suspected, and its BMC says that it is off: a proof follows.
    PowerOff,
    /// A person.
    Operator,
    /// Others see it run, we do not, and that for so long that the policy says to fence it.
    Isolated,
    /// It came back in a new boot before anybody asked: its instances are to be started again.
    Rebooted,
}

/// A fence operation.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct FenceOp {
    /// Names it.
    pub id: Uuid,
    /// Level of the host's fencers, from 0.
    pub level: u8,
    /// What does it.
    pub fencer: Fencer,
    /// Whom it is meant for.
    pub machine: Machine,
    /// The leader that wrote it. Another leader reads the state, and writes an intent of its own first.
    pub by: Leader,
    /// When, replicated milliseconds.
    pub at: u64,
    /// What became of it.
    pub outcome: Option<FenceOutcome>,
}

/// What a fence operation came to.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FenceOutcome {
    /// The state that was read back.
    pub power: Power,
    /// As the BMC wrote it, or why there is none.
    pub raw: String,
    /// Whom it was read from.
    pub machine: Machine,
    /// When, replicated milliseconds.
    pub at: u64,
}

/// A step of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Step {
    /// The phase that was entered.
    pub phase: Phase,
    /// When, replicated milliseconds.
    pub at: u64,
    /// The same for people.
    pub wall: u64,
    /// By which leader.
    pub by: Leader,
}

/// Steps of a case that are remembered: the first, and the last ones.
pub const STEPS: usize = 64;
/// Fence operations of a case that are remembered: the last ones.
pub const OPS: usize = 16;

/// A case.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Case {
    /// Its name.
    pub id: CaseId,
    /// The epoch it was opened in. In another it authorises nothing.
    pub epoch: u64,
    /// What opened it.
    pub cause: Cause,
    /// Where it stands.
    pub phase: Phase,
    /// Since when, replicated milliseconds.
    pub since: u64,
    /// What stands in the way of fencing.
    pub held_kill: Option<String>,
    /// What stands in the way of recovering.
    pub held_recover: Option<String>,
    /// A person must look.
    pub needs_operator: Option<String>,
    /// What would be done next, and is not: it is a dry run.
    pub would: Option<String>,
    /// Fence operations ever begun.
    pub fences: u32,
    /// The last of them.
    pub ops: Vec<FenceOp>,
    /// Plans committed.
    pub plans: u32,
    /// How far the host's return is.
    pub reentry: Reentry,
    /// What happened.
    pub steps: Vec<Step>,
    /// What was seen and done beside, and what persons ordered.
    pub notes: Vec<Note>,
}

impl Entry for Case {
    type Key = HostId;
    fn key(&self) -> HostId {
        self.id.host
    }
}

impl Case {
    /// What holds an act, if anything does.
    pub fn held(&self, act: Act) -> Option<&str> {
        match act {
            Act::Kill => self.held_kill.as_deref(),
            Act::Recover => self.held_recover.as_deref(),
        }
    }

    /// Names what is marked in Nova for it, by whichever leader.
    pub fn mark(&self) -> Uuid {
        Uuid::new_v5(&self.id.host.0, format!("{}/mark", self.id).as_bytes())
    }

    /// Fence operation of an id.
    pub fn op(&self, id: Uuid) -> Option<&FenceOp> {
        self.ops.iter().find(|op| op.id == id)
    }

    pub(crate) fn note(&mut self, note: Note) {
        if self.notes.len() >= NOTES {
            self.notes.remove(FIRST);
        }
        self.notes.push(note);
    }

    pub(crate) fn enter(&mut self, step: Step) {
        self.phase = step.phase;
        self.since = step.at;
        self.would = None;
        if self.steps.len() >= STEPS {
            self.steps.remove(1);
        }
        self.steps.push(step);
    }
}
