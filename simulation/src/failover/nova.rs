//! Nova as far as failover meets it, with its documented rules and its dangers: an evacuation is refused
//! while the source's service counts as up; the migration is recorded before the call is answered; and a
//! second call for the same instance is taken as well (`task_state=None`, bug 1978983), so that nothing but
//! the caller keeps an instance from running twice.

use std::collections::BTreeMap;

use scheduler::ha::coordinator::Answer;
use scheduler::ha::host::HostId;
use scheduler::ha::recovery::VmState;
use uuid::Uuid;

/// What is wrong with Nova, or with the way to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    #[default]
    None,
    /// It answers 503.
    Down,
    /// It takes evacuations, and the answers are lost.
    LostAnswers,
    /// Calls wait so long in front of it, milliseconds, and their callers give up.
    Late(u64),
    /// Lists lack a cell.
    Partial,
}

/// A migration.
#[derive(Clone, Copy, Debug)]
pub struct Moving {
    /// Its uuid.
    pub id: Uuid,
    /// The instance.
    pub instance: Uuid,
    /// Where to.
    pub target: HostId,
    /// When it is done.
    pub done: u64,
    /// It is over, and whether it went well.
    pub over: Option<bool>,
}

/// An instance.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// Nova's host of it.
    pub host: HostId,
    /// Its state.
    pub vm: VmState,
}

/// Nova.
#[derive(Clone, Debug, Default)]
pub struct Nova {
    /// Instances.
    pub servers: BTreeMap<Uuid, Server>,
    /// Forced down, disabled.
    pub services: BTreeMap<HostId, (bool, bool)>,
    /// Migrations.
    pub moving: Vec<Moving>,
    /// Trouble.
    pub trouble: Trouble,
    /// Targets whose libvirt fails what comes.
    pub refusing: Vec<HostId>,
    /// How long a rebuild takes, milliseconds.
    pub takes: u64,
    pub(super) made: u128,
}

impl Nova {
    /// An evacuation arrives.
    pub fn evacuate(&mut self, instance: Uuid, target: HostId, up: bool, now: u64) -> Answer {
        let Some(server) = self.servers.get(&instance) else { return Answer::Refused { forever: true } };
        let (forced_down, _) = self.services.get(&server.host).copied().unwrap_or_default();
        if up && !forced_down {
            return Answer::SourceUp;
        }
        self.made += 1;
        let id = Uuid::from_u128(0x9000_0000 + self.made);
        self.moving.push(Moving { id, instance, target, done: now + self.takes, over: None });
        Answer::Taken
    }

    /// Migrations of an instance.
    pub fn migrations(&self, instance: Uuid) -> impl Iterator<Item = &Moving> {
        self.moving.iter().filter(move |moving| moving.instance == instance)
    }
}
