//! The return of a host that was proven dead: step by step, each an intent in the log first (section F.6
//! of the specification). Until the last step nothing is placed on it.

use bitcode::{Decode, Encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::host::Incarnation;
use super::order::Leader;

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// It may be powered on.
    PowerOn,
    /// Its nova-compute may start: that deletes guests of evacuations, and must find nothing to delete
    /// that is the only copy.
    StartNova,
    /// It need not be forced down any more.
    Unforce,
    /// Its service may be enabled.
    Enable,
    /// Instances may be placed on it.
    Admit,
}

/// A step that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Begun {
    /// What.
    pub step: Step,
    /// Names the intent.
    pub op: Uuid,
    /// The leader of the intent.
    pub by: Leader,
    /// When, replicated milliseconds.
    pub at: u64,
}

/// Domains that one list may name.
pub const DOMAINS: usize = 4_096;
/// A host whose `forced_down` was taken back is watched for so long before it is enabled, milliseconds.
pub const STABLE: u64 = 60_000;
/// A dead host is left alone for so long before it is powered on: its dump may be written, milliseconds.
pub const HOLD_OFF: u64 = 60_000;
/// Deaths within a day after which only an operator lets it back in.
pub const CRASHES: usize = 2;
/// A day, milliseconds.
pub const DAY: u64 = 86_400_000;

/// How far a return is.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Reentry {
    /// The life that comes back. In a case about that very life: it was lost on its way in.
    pub life: Incarnation,
    /// What was begun, the last intent of each step.
    pub begun: Vec<Begun>,
    /// When its `forced_down` was taken back, replicated milliseconds; 0: not yet.
    pub unforced: u64,
}

impl Reentry {
    /// The last intent of a step.
    pub fn begun(&self, step: Step) -> Option<&Begun> {
        self.begun.iter().find(|begun| begun.step == step)
    }

    /// How far the return of that life is: what was begun for another says nothing of it.
    pub(crate) fn of(&self, life: Incarnation) -> Self {
        if self.life == life { self.clone() } else { Self { life, ..Self::default() } }
    }

    pub(crate) fn begin(&mut self, begun: Begun) {
        self.begun.retain(|known| known.step != begun.step);
        self.begun.push(begun);
    }
}

/// What Nova says of a host that comes back, all in one round.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ComputeRead {
    /// Its nova-compute has reported since it was let start.
    pub fresh: bool,
    /// Evacuations away from it that were accepted and are not over: instances.
    pub open: Vec<Uuid>,
    /// Evacuations away from it that are done and that its nova-compute has not cleaned up: instances.
    pub done: Vec<Uuid>,
    /// A row that is known to be there was there.
    pub sentinel: bool,
}

/// What a step rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Seen {
    /// What Nova says.
    pub compute: Option<ComputeRead>,
    /// The domains that its agent lists, and when that list was taken in, replicated milliseconds.
    pub domains: Option<(Vec<Uuid>, u64)>,
}
