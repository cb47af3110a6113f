//! What orders say of instances on their way: what Nova said, where to, how it ended, by what right.

use crate::ha::planner::{OnCrash, Rank};
use bitcode::{Decode, Encode};
use uuid::Uuid;

use crate::ha::host::HostId;
use crate::ha::recovery::{Life, Recorded, Stays, Waiting};

/// What was seen of a host that an instance was being brought to, newer than the proof or the end it is
/// compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Clear {
    /// Its agent's list of domains does not have the instance, or has it shut off: no process of it is there.
    Absent {
        /// When the list was taken in, replicated milliseconds.
        at: u64,
    },
    /// That life of it is proven over.
    Dead(Life),
}

/// What Nova said of an instance in front of an intent, all in one round.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NovaRead {
    /// The host that Nova names.
    pub host: HostId,
    /// As the plan recorded it, now.
    pub now: Recorded,
    /// An unfiltered list of the cell had a row that is known to be in it: the answer was whole.
    pub sentinel: bool,
    /// Uuids of all migrations of the instance, of every type.
    pub migrations: Vec<Uuid>,
    /// One of them is not over.
    pub moving: bool,
    /// A live migration was bringing it there when the source died, and whether it is clear.
    pub destination: Option<(HostId, Option<Clear>)>,
    /// What is to be done when it crashes; none: what the policy of its host says.
    pub on_crash: Option<OnCrash>,
}

/// What a plan says of one instance.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Assignment {
    /// The instance.
    pub instance: Uuid,
    /// As it is now.
    pub recorded: Recorded,
    /// How urgent it is.
    pub rank: Rank,
    /// Where to.
    pub to: To,
}

/// Where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum To {
    /// There, in that life.
    Target(Life),
    /// Nowhere yet.
    Waiting(Waiting),
    /// Nowhere.
    Stays(Stays),
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Ended {
    /// It runs there, whatever the target was.
    Succeeded {
        /// Nova's host of it.
        at: HostId,
        /// The migration, which is done.
        migration: Uuid,
    },
    /// The migration ended without success: another attempt may come.
    Failed {
        /// The migration.
        migration: Uuid,
    },
    /// Nova refused the call itself, and took nothing.
    Refused {
        /// For good, or of this target only.
        forever: bool,
    },
    /// The instance is gone: two reads of 404, 10 s apart, with the sentinel seen.
    Vanished {
        /// The sentinel was seen in both.
        sentinel: bool,
    },
    /// The migration does not end in Nova any more, for its target died over it: another attempt may come.
    Abandoned {
        /// The migration.
        migration: Uuid,
    },
}

/// What a person decides of an instance that is not on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Verdict {
    /// It is looked at and planned anew, with as many attempts as at first, and on hosts that refused it too.
    Retry,
    /// It is left where it is: the person sees to it.
    Skip,
    /// It goes to that host, if that takes instances, is like its own and has room.
    Retarget(HostId),
}

/// By what right the place of an instance changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum PermitCause {
    /// It was first placed there, or first seen.
    Placed,
    /// A migration that both sides were alive for is done.
    Migrated(Uuid),
    /// The attempt there failed, and the target is clear: back to the dead source.
    AttemptFailed(Clear),
    /// The same host in a new boot: the instance stays where its disk is.
    SameHostNewBoot,
    /// An agent sees it run there, where a migration was bringing it.
    Adopted {
        /// When the agent's list was taken in, replicated milliseconds.
        at: u64,
    },
    /// Nova had it moved there, and that host died before its place had followed: it is recovered from there.
    Followed {
        /// When Nova said that it belongs there, replicated milliseconds.
        read: u64,
        /// When the list of its former host that is without it was taken in.
        at: u64,
    },
}
