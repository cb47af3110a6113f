//! Calls to other systems as values, the barrier that stands in front of them, and what they came to.

use uuid::Uuid;

use super::Barrier;
use crate::ha::host::{Degraded, HostId};
use crate::ha::liveness::Stall;
use crate::ha::order::{Change, NovaRead};
use crate::ha::planner::Listed;
use crate::ha::proof::PowerRead;
use crate::ha::reentry::ComputeRead;
use crate::ha::trouble;
use crate::request::Group;

/// A call to another system. Reads need no barrier, and neither does the mark of the cluster, which is read before anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Power state and identity from a BMC, in one session.
    ReadPower(HostId),
    /// Power off, at once and hard.
    PowerOff {
        /// The host.
        host: HostId,
        /// What it must pass.
        barrier: Barrier,
    },
    /// Sets `forced_down`, then reads the service.
    ForceDown {
        /// The host.
        host: HostId,
        /// What it must pass.
        barrier: Barrier,
    },
    /// Disables the service with our reason, then reads it.
    Disable {
        /// The host.
        host: HostId,
        /// What it must pass.
        barrier: Barrier,
    },
    /// Disables the service of a living host for planned work, then reads it. Nothing else is marked: a host
    /// that counts as down could not be emptied.
    Cordon {
        /// The host.
        host: HostId,
        /// What it must pass.
        barrier: Barrier,
    },
    /// What Nova lists on a host.
    ListServers(HostId),
    /// All server groups.
    ListGroups,
    /// The clusters that the mark in Nova names.
    ReadMark,
    /// Names a cluster there, and another no more; then reads it. Two that do so at once each see both.
    SetMark {
        /// This one.
        cluster: Uuid,
        /// That it takes over from, as an operator says.
        over: Option<Uuid>,
    },
    /// An instance with all its migrations, beside a row that is known to be there.
    ReadServer(Uuid),
    /// Evacuates an instance.
    Evacuate {
        /// The instance.
        instance: Uuid,
        /// Where to.
        target: HostId,
        /// What it must pass.
        barrier: Barrier,
    },
    /// All domains that run on a host, by its agent.
    ListDomains(HostId),
    /// What Nova says of a host that comes back: its nova-compute, and evacuations away from it.
    ReadCompute(HostId),
    /// Power on.
    PowerOn {
        /// The host.
        host: HostId,
        /// What it must pass.
        barrier: Barrier,
    },
    /// Lets nova-compute of a host in quarantine start, by its agent.
    StartNova {
        /// The host.
        host: HostId,
        /// What it must pass.
        barrier: Barrier,
    },
    /// Takes `forced_down` back, then reads the service.
    Unforce {
        /// The host.
        host: HostId,
        /// What it must pass.
        barrier: Barrier,
    },
    /// Enables the service that was disabled for us, then reads it.
    Enable {
        /// The host.
        host: HostId,
        /// What it must pass.
        barrier: Barrier,
    },
    /// Migrates an instance away from a host that is drained: live, or stopped and confirmed.
    Migrate {
        /// The instance.
        instance: Uuid,
        /// Where to.
        target: HostId,
        /// It runs meanwhile.
        live: bool,
        /// What it must pass.
        barrier: Barrier,
    },
    /// How much of a live migration is left.
    ReadProgress {
        /// The instance.
        instance: Uuid,
        /// Its migration.
        migration: Uuid,
    },
    /// Says that an instance that was moved while it was stopped may stay where it is.
    Confirm {
        /// The instance.
        instance: Uuid,
        /// What it must pass.
        barrier: Barrier,
    },
    /// Finishes a live migration by force: the guest stands still for it.
    ForceComplete {
        /// The instance.
        instance: Uuid,
        /// Its migration.
        migration: Uuid,
        /// What it must pass.
        barrier: Barrier,
    },
    /// Gives a live migration up.
    AbortMigration {
        /// The instance.
        instance: Uuid,
        /// Its migration.
        migration: Uuid,
        /// What it must pass.
        barrier: Barrier,
    },
    /// Starts an instance again on its host: Nova's hard reboot.
    Restart {
        /// The instance.
        instance: Uuid,
        /// Its host.
        host: HostId,
        /// What it must pass.
        barrier: Barrier,
    },
    /// Migrates an instance that restarts did not help: stopped, and started on the target.
    MoveUnhelped {
        /// The instance.
        instance: Uuid,
        /// Its host.
        host: HostId,
        /// Where to.
        target: HostId,
        /// What it must pass.
        barrier: Barrier,
    },
    /// Stops an instance that was stopped before it was evacuated.
    Stop {
        /// The instance.
        instance: Uuid,
        /// What it must pass.
        barrier: Barrier,
    },
    /// Whether an instance is among the domains of a host, by its agent.
    ReadDomain {
        /// The host.
        host: HostId,
        /// The instance.
        instance: Uuid,
    },
}

impl Call {
    /// Whether it changes anything in the world.
    pub fn writes(&self) -> bool {
        !matches!(
            self,
            Self::ReadPower(_)
                | Self::ListServers(_)
                | Self::ListGroups
                | Self::ReadMark
                | Self::ReadServer(_)
                | Self::ListDomains(_)
                | Self::ReadCompute(_)
                | Self::ReadProgress { .. }
                | Self::ReadDomain { .. }
        )
    }

    /// Whether it is Nova that is asked.
    pub fn asks_nova(&self) -> bool {
        !matches!(
            self,
            Self::ReadPower(_)
                | Self::PowerOff { .. }
                | Self::PowerOn { .. }
                | Self::StartNova { .. }
                | Self::ListDomains(_)
                | Self::ReadDomain { .. }
        )
    }

    /// What its sender must pass.
    pub fn barrier(&self) -> Option<Barrier> {
        match self {
            Self::PowerOff { barrier, .. }
            | Self::ForceDown { barrier, .. }
            | Self::Disable { barrier, .. }
            | Self::Cordon { barrier, .. }
            | Self::Evacuate { barrier, .. }
            | Self::PowerOn { barrier, .. }
            | Self::StartNova { barrier, .. }
            | Self::Unforce { barrier, .. }
            | Self::Enable { barrier, .. }
            | Self::Migrate { barrier, .. }
            | Self::Confirm { barrier, .. }
            | Self::ForceComplete { barrier, .. }
            | Self::AbortMigration { barrier, .. }
            | Self::Restart { barrier, .. }
            | Self::MoveUnhelped { barrier, .. }
            | Self::Stop { barrier, .. } => Some(*barrier),
            _ => None,
        }
    }
}

/// What is due.
#[derive(Clone, Debug, PartialEq)]
pub enum Due {
    /// A change to propose, as this leader.
    Propose(Change),
    /// A call.
    Call(Call),
}

/// A migration of an instance, as Nova has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Its uuid.
    pub id: Uuid,
    /// It is over, and whether it went well.
    pub over: Option<bool>,
    /// The host that it evacuates to, as far as that is known; none: it is no evacuation.
    pub evacuates: Option<Option<HostId>>,
}

/// What Nova answered to an evacuation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Taken.
    Taken,
    /// Refused, and nothing was taken.
    Refused {
        /// For good, or of this target only.
        forever: bool,
    },
    /// Refused because the source's service is up: `forced_down` was lost.
    SourceUp,
    /// No answer, or one that says nothing.
    Unknown,
    /// It was not sent: the barrier did not hold.
    NotSent,
}

/// What came back from a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// A power state.
    Power(HostId, PowerRead),
    /// There is none, and why.
    Unread(HostId, String),
    /// The marks of a service.
    Service {
        /// The host.
        host: HostId,
        /// It is forced down.
        forced_down: bool,
        /// It is disabled.
        disabled: bool,
    },
    /// What Nova lists on a host.
    Servers(HostId, Vec<Listed>),
    /// Server groups, of all projects.
    Groups(Vec<Group>),
    /// An instance; none: Nova has no such instance.
    Server {
        /// The instance.
        instance: Uuid,
        /// What Nova says.
        read: Option<(NovaRead, Vec<Migration>)>,
        /// The row that must be there was there.
        sentinel: bool,
    },
    /// The clusters that the mark in Nova names, or why that is not known.
    Mark(Result<Vec<Uuid>, String>),
    /// The answer to an evacuation.
    Evacuated {
        /// The instance.
        instance: Uuid,
        /// Names the intent.
        op: Uuid,
        /// The answer.
        answer: Answer,
    },
    /// All domains of a host.
    Domains {
        /// The host.
        host: HostId,
        /// What libvirt knows there, in whatever state.
        listed: Vec<Uuid>,
        /// What of it executes, and is not on its way here or away.
        running: Vec<Uuid>,
        /// Those that are shut off.
        off: Vec<Uuid>,
        /// Of when the list is, replicated milliseconds.
        at: u64,
    },
    /// What Nova says of a host that comes back.
    Compute(HostId, ComputeRead),
    /// The answer to a restart.
    Restarted {
        /// The instance.
        instance: Uuid,
        /// Names the intent.
        op: Uuid,
        /// The answer.
        answer: Answer,
    },
    /// The answer to a migration.
    Migrated {
        /// The instance.
        instance: Uuid,
        /// Names the intent.
        op: Uuid,
        /// The answer.
        answer: Answer,
    },
    /// How much of a live migration is left.
    Progress {
        /// The instance.
        instance: Uuid,
        /// Bytes.
        remaining: u64,
    },
    /// The answer to a stop.
    Stopped {
        /// The instance.
        instance: Uuid,
        /// Names the intent.
        op: Uuid,
        /// The answer.
        answer: Answer,
    },
    /// A guest crashed by itself, on a host that lives.
    Crashed {
        /// The host.
        host: HostId,
        /// The instance.
        instance: Uuid,
    },
    /// What befell guests, by their agents: all that is still so. A guest that was destroyed is told for a while.
    Troubles(Vec<(HostId, Uuid, trouble::Kind)>),
    /// Guests that begin, or run, where they have no permit: all of them, by their agents.
    Strangers(Vec<(HostId, Uuid)>),
    /// What is wrong with a host that lives, by its agent: all of it.
    Health(HostId, Degraded),
    /// Where guests of a host stand still for I/O errors: all of it.
    Stalls(HostId, Vec<Stall>),
    /// Requests to Nova since this was told last.
    Nova {
        /// Those that it answered, whatever it said.
        answered: u32,
        /// Those without an answer, or with one that says that Nova itself fails (5xx).
        failed: u32,
    },
    /// An agent's list of domains lacks an instance.
    Absent {
        /// The host.
        host: HostId,
        /// The instance.
        instance: Uuid,
        /// When the list was taken in, replicated milliseconds.
        at: u64,
    },
}
