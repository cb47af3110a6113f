//! Nova as far as failover meets it, with its documented rules and its dangers: an evacuation is refused
//! while the source's service counts as up; the migration is recorded before the call is answered; and a
//! second call for the same instance is taken as well (`task_state=None`, bug 1978983), so that nothing but
//! the caller keeps an instance from running twice.

use std::collections::{BTreeMap, BTreeSet};

use scheduler::ha::coordinator::Answer;
use scheduler::ha::host::HostId;
use scheduler::ha::planner::Asks;
use scheduler::ha::recovery::VmState;
use scheduler::request::Group;
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
    /// Answers come so late, milliseconds: later than their callers wait when it is more than ten seconds.
    Slow(u64),
}

/// A move that a person asks Nova for, past failover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByHand {
    /// A live migration.
    Live,
    /// It is stopped for it: a cold migration, or a resize. The target's libvirt asks since then whether it may start.
    Cold(Option<u64>),
}

/// A migration.
#[derive(Clone, Copy, Debug)]
pub struct Moving {
    /// Its uuid.
    pub id: Uuid,
    /// The instance.
    pub instance: Uuid,
    /// Where from.
    pub source: HostId,
    /// Where to.
    pub target: HostId,
    /// When it is done.
    pub done: u64,
    /// It is over, and whether it went well.
    pub over: Option<bool>,
    /// The source's nova-compute has cleaned up after it.
    pub clean: bool,
    /// A migration of what runs or could run on a living source, and no evacuation.
    pub live: bool,
    /// A person asked for it, and not failover.
    pub by_hand: Option<ByHand>,
    /// It is failover's evacuation.
    pub ours: bool,
    /// The boot of its target in which that took it up: with it it is lost.
    pub begun: Option<u128>,
}

/// An instance.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// Nova's host of it.
    pub host: HostId,
    /// Its state.
    pub vm: VmState,
    /// Its power state says that it runs.
    pub running: bool,
    /// A live migration is bringing it there.
    pub destination: Option<HostId>,
    /// Its last one was, and its source was started anew meanwhile.
    pub broken_off: Option<HostId>,
}

impl Server {
    /// One that runs there.
    pub fn on(host: HostId) -> Self {
        Self { host, vm: VmState::Active, running: true, destination: None, broken_off: None }
    }
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
    /// Their nova-compute fails what comes after the domain was begun, and leaves it there.
    pub halving: Vec<HostId>,
    /// Server groups.
    pub groups: Vec<Group>,
    /// What instances asked for, where that is anything.
    pub asks: BTreeMap<Uuid, Asks>,
    /// Migrations that stand still when they have arrived, until somebody says that their instances may stay.
    pub unconfirmed: BTreeSet<Uuid>,
    /// Instances whose live migration does not end by itself.
    pub stuck: Vec<Uuid>,
    /// Instances that it evacuates never (vTPM, shares).
    pub never: Vec<Uuid>,
    /// Clusters that the mark names; none: there is no aggregate.
    pub marks: Vec<Uuid>,
    /// How long a rebuild takes, milliseconds.
    pub takes: u64,
    pub(super) made: u128,
}

impl Nova {
    /// An evacuation arrives.
    pub fn evacuate(&mut self, instance: Uuid, target: HostId, up: bool, now: u64) -> Answer {
        let Some(server) = self.servers.get_mut(&instance) else { return Answer::Refused { forever: true } };
        // "The target host can't be the same one."
        if self.never.contains(&instance) || server.host == target {
            return Answer::Refused { forever: true };
        }
        let (forced_down, _) = self.services.get(&server.host).copied().unwrap_or_default();
        if up && !forced_down {
            return Answer::SourceUp;
        }
        self.made += 1;
        server.broken_off = None;
        let id = Uuid::from_u128(0x9000_0000 + self.made);
        let source = server.host;
        self.moving.push(Moving {
            id,
            instance,
            source,
            target,
            done: now + self.takes,
            over: None,
            clean: false,
            live: false,
            by_hand: None,
            ours: false,
            begun: None,
        });
        Answer::Taken
    }

    /// A migration away from a living host: `task_state` keeps a second one out.
    pub fn migrate(&mut self, instance: Uuid, target: HostId, by_hand: Option<ByHand>, now: u64) -> Answer {
        let stuck = self.stuck.contains(&instance);
        let Some(server) = self.servers.get_mut(&instance) else { return Answer::Refused { forever: true } };
        if server.destination.is_some() || server.host == target {
            return Answer::Refused { forever: false };
        }
        (server.destination, server.broken_off) = (Some(target), None);
        self.made += 1;
        let id = Uuid::from_u128(0x9000_0000 + self.made);
        let source = server.host;
        let done = if stuck { u64::MAX } else { now + self.takes };
        self.moving.push(Moving {
            id,
            instance,
            source,
            target,
            done,
            over: None,
            clean: true,
            live: true,
            by_hand,
            ours: false,
            begun: None,
        });
        Answer::Taken
    }

    /// An instance may stay where it was moved: its former host gives up what it has of it. Where that has arrived; none:
    /// nothing waits for a word.
    pub fn confirm(&mut self, instance: Uuid) -> Option<HostId> {
        let waits = |moving: &&mut Moving| {
            moving.instance == instance && moving.over.is_none() && self.unconfirmed.contains(&moving.id)
        };
        let moving = self.moving.iter_mut().find(waits)?;
        moving.over = Some(true);
        Some(moving.target)
    }

    /// A live migration is given up, or finished by force.
    pub fn press(&mut self, migration: Uuid, force: bool, now: u64) {
        let Some(moving) = self.moving.iter_mut().find(|moving| moving.id == migration && moving.over.is_none()) else {
            return;
        };
        if force {
            moving.done = now;
            return;
        }
        moving.over = Some(false);
        if let Some(server) = self.servers.get_mut(&moving.instance) {
            server.destination = None;
        }
    }

    /// A nova-compute starts: live migrations away from it are over, whatever became of their guests
    /// (`nova/compute/manager.py`, `_reset_live_migration`).
    pub fn break_off(&mut self, host: HostId) {
        let open = |moving: &&mut Moving| moving.source == host && moving.live && moving.over.is_none();
        for moving in self.moving.iter_mut().filter(|moving| moving.by_hand.is_none()).filter(open) {
            moving.over = Some(false);
            if let Some(server) = self.servers.get_mut(&moving.instance) {
                (server.destination, server.broken_off) = (None, Some(moving.target));
            }
        }
    }

    /// A nova-compute starts: guests of evacuations that were taken are deleted there, done or not.
    pub fn clean_up(&mut self, host: HostId) -> Vec<Uuid> {
        let begun = |moving: &&mut Moving| moving.source == host && !moving.clean && moving.over != Some(false);
        let begun = self.moving.iter_mut().filter(begun).map(|moving| {
            moving.clean = true;
            moving.instance
        });
        begun.collect()
    }

    /// Migrations of an instance.
    pub fn migrations(&self, instance: Uuid) -> impl Iterator<Item = &Moving> {
        self.moving.iter().filter(move |moving| moving.instance == instance)
    }
}
