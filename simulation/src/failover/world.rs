//! The world: one tick is half a second. In a tick the truth goes on, agents are heard, whoever leads says
//! what is due, its orders are applied, and calls and their answers travel.

use std::collections::BTreeMap;

use scheduler::ha::coordinator::{Call, Coordinator, Due, Lead, Told};
use scheduler::ha::host::{Fencer, Hello, HostId, HostSpec, PlaceNames};
use scheduler::ha::liveness::{Digest, Heard, Says, Timers};
use scheduler::ha::order::{Actor, Change, Done, Groups, Leader, Order, PermitCause, Role};
use scheduler::ha::planner::Targets;
use scheduler::ha::recovery::{Life, VmState};
use scheduler::ha::{Failover, Phase, Refusal};
use scheduler::{Batch, Command, Core, HostReport, InstanceReport, Inventory, Outcome, Proposer, level};
use uuid::Uuid;

use super::nova::{Nova, Server, Trouble};
use super::truth::{Bmc, TrueHost, host, machine, vm};

/// Milliseconds of a tick.
pub(super) const TICK: u64 = 500;
const ELECTION: u64 = 3_000;

/// When a leader dies: at its nth order or call that changes something, before or after it takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Which.
    pub nth: usize,
    /// After it took effect; nobody is told of it.
    pub after: bool,
}

/// A fault in the executor, built in on purpose: some check must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Calls are sent without their barrier.
    NoBarrier,
    /// A code of success counts as a state.
    BelieveCodes,
}

pub(super) enum Letter {
    Do(Call, Leader),
    Told(Leader, Told),
}

pub(super) struct Leading {
    pub id: Leader,
    pub coordinator: Coordinator,
}

/// The world.
pub struct World {
    /// The replicated state: one core stands for all members, which a property test holds together.
    pub core: Core,
    /// Milliseconds.
    pub now: u64,
    /// Hosts as they are.
    pub hosts: Vec<TrueHost>,
    /// Nova.
    pub nova: Nova,
    /// What is broken, in words.
    pub broken: Vec<String>,
    /// What happened.
    pub log: Vec<String>,
    /// A leader dies there.
    pub cut: Option<Cut>,
    /// A fault built in on purpose.
    pub flaw: Option<Flaw>,
    /// Orders and calls that changed something.
    pub effects: usize,
    /// Evacuations that Nova took.
    pub taken: BTreeMap<Uuid, u32>,
    /// Voters that the leader hears.
    pub voters: Vec<u64>,
    /// A paused leader's calls are kept until it goes on.
    pub paused: bool,
    pub(super) kept: Vec<(Call, Leader)>,
    pub(super) leader: Option<Leading>,
    pub(super) elect: Option<u64>,
    term: u64,
    pub(super) mail: BTreeMap<(u64, u64), Letter>,
    pub(super) posted: u64,
}

struct Least<'a>(&'a Core);

/// The emptiest first: stands for the filters and weighers, which are tested elsewhere.
impl Targets for Least<'_> {
    fn ranked(&self, _: Uuid, source: Life) -> Vec<Life> {
        let tables = self.0.state().tables();
        let ha = tables.failover();
        let mut lives: Vec<_> = ha
            .hosts
            .iter()
            .filter(|host| host.takes_instances() && host.id != source.host)
            .map(|host| {
                let life = Life { host: host.id, incarnation: host.incarnation };
                (ha.permits.iter().filter(|permit| permit.life == life).count(), host.id, life)
            })
            .collect();
        lives.sort_unstable_by_key(|&(count, id, _)| (count, id));
        lives.into_iter().map(|(_, _, life)| life).collect()
    }
}

impl World {
    /// Hosts 1 to `hosts`, `vms` instances on host 1, room for `room` on each host.
    pub fn new(hosts: u128, vms: u128, room: u64) -> Self {
        let mut world = Self {
            core: Core::new(),
            now: 1_000,
            hosts: (1..=hosts).map(TrueHost::new).collect(),
            nova: Nova { takes: 20_000, ..Nova::default() },
            broken: Vec::new(),
            log: Vec::new(),
            cut: None,
            flaw: None,
            effects: 0,
            taken: BTreeMap::new(),
            voters: vec![1, 2, 3],
            paused: false,
            kept: Vec::new(),
            leader: None,
            elect: None,
            term: 0,
            mail: BTreeMap::new(),
            posted: 0,
        };
        world.apply(Command::Raise { level: level::FAILOVER });
        world.take_over();
        for n in 1..=hosts {
            let instances: Vec<Uuid> = if n == 1 { (1..=vms).map(vm).collect() } else { Vec::new() };
            let listed = instances.iter().map(|uuid| InstanceReport {
                uuid: *uuid,
                resources: Some(BTreeMap::from([("VCPU".to_owned(), 1)])),
                ..InstanceReport::default()
            });
            world.apply(Command::Report(Box::new(HostReport {
                name: format!("node-{n}"),
                inventories: Some(BTreeMap::from([("VCPU".to_owned(), Inventory::of(room))])),
                instances: Some(listed.collect()),
                ..HostReport::default()
            })));
            world.must(Change::HostUpsert(Box::new(spec(n))));
            world.hello(n);
            for instance in instances {
                let to = Life { host: host(n), incarnation: 1 };
                world.must(Change::PermitMove { instance, from: None, to, cause: PermitCause::Placed });
                world.nova.servers.insert(instance, Server { host: host(n), vm: VmState::Active });
                world.host_mut(n).guests.insert(instance);
            }
        }
        world.effects = 0;
        // The rhythm of each host is known before anything happens.
        world.run(60_000);
        world
    }

    /// Host `n`.
    pub fn host(&self, n: u128) -> &TrueHost {
        &self.hosts[n as usize - 1]
    }

    /// Host `n`.
    pub fn host_mut(&mut self, n: u128) -> &mut TrueHost {
        &mut self.hosts[n as usize - 1]
    }

    pub(super) fn by_id(&mut self, id: HostId) -> &mut TrueHost {
        self.host_mut(id.0.as_u128() - 0xA000)
    }

    /// The replicated state of failover.
    pub fn ha(&self) -> &Failover {
        self.core.state().tables().failover()
    }

    /// Phase of the open case of host `n`.
    pub fn phase(&self, n: u128) -> Option<Phase> {
        self.ha().cases.get(host(n)).map(|case| case.phase)
    }

    /// A host says Hello in the boot that it is in.
    pub fn hello(&mut self, n: u128) -> Done {
        let true_host = self.host(n);
        let hello = Hello {
            boot: true_host.boot(),
            previous: true_host.boots.checked_sub(1).map(|before| super::truth::boot(true_host.id, before)),
            machine: machine(true_host.id),
            permit_check: true,
            ..Hello::default()
        };
        self.must(Change::IncarnationOpen { host: host(n), hello: Box::new(hello) })
    }

    /// Host `n` has room for so many instances from now on.
    pub fn grow(&mut self, n: u128, room: u64) {
        self.apply(Command::Report(Box::new(HostReport {
            name: format!("node-{n}"),
            inventories: Some(BTreeMap::from([("VCPU".to_owned(), Inventory::of(room))])),
            ..HostReport::default()
        })));
    }

    /// Every member starts anew from its snapshot and log.
    pub fn restart_all(&mut self) {
        self.core = Core::restore(&self.core.freeze().encode()).expect("a snapshot restores");
        self.kill_leader();
    }

    fn apply(&mut self, command: Command) -> Outcome {
        let batch = Batch { proposer: Proposer::default(), now: self.now, wall: self.now, commands: vec![command] };
        self.core.apply(&batch).pop().expect("one for each command")
    }

    /// An order of whoever leads.
    pub fn order(&mut self, role: Role, change: Change) -> Result<Done, Refusal> {
        let Some(leading) = &self.leader else { panic!("nobody leads") };
        let leader = leading.id;
        let actor = Actor { role, name: "simulation".to_owned(), reason: "scenario".to_owned() };
        let name = change.name();
        let epoch = self.core.state().tables().counters().epoch;
        let command = Command::Failover(Box::new(Order { leader, epoch, actor, change }));
        let outcome = self.apply(command);
        let Outcome::Failover(result) = outcome else { panic!("{outcome:?}") };
        let said = match &result {
            Ok(done) => format!("{done:?}"),
            Err(why) => format!("refused: {why}"),
        };
        self.say(&format!("{name} by {leader}: {said}"));
        self.check_state();
        result
    }

    fn must(&mut self, change: Change) -> Done {
        let name = change.name();
        self.order(Role::Coordinator, change).unwrap_or_else(|why| panic!("{name}: {why}"))
    }

    pub(super) fn say(&mut self, what: &str) {
        self.log.push(format!("{:>8.1} s  {what}", self.now as f64 / 1_000.0));
    }

    /// The leader is gone; another leads after an election. Its answers are lost.
    pub fn kill_leader(&mut self) {
        self.leader = None;
        self.elect = Some(self.now + ELECTION);
        self.say("the leader dies");
    }

    fn take_over(&mut self) {
        self.term += 1;
        let id = Leader { term: self.term, node: 1 + self.term % 3 };
        self.leader = Some(Leading { id, coordinator: Coordinator::new(id, Timers::default(), self.now) });
        self.elect = None;
        self.say(&format!("{id} leads"));
    }

    /// Runs for so long.
    pub fn run(&mut self, millis: u64) {
        let end = self.now + millis;
        while self.now < end {
            self.tick();
        }
    }

    /// Runs until something holds, or for so long; whether it does.
    pub fn until(&mut self, millis: u64, holds: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + millis;
        while self.now < end {
            if holds(self) {
                return true;
            }
            self.tick();
        }
        holds(self)
    }

    fn tick(&mut self) {
        self.now += TICK;
        self.truth();
        if self.elect.is_some_and(|at| self.now >= at) {
            self.take_over();
        }
        self.deliver();
        self.listen();
        self.lead();
        self.check_truth();
    }

    /// The truth goes on by itself.
    fn truth(&mut self) {
        let now = self.now;
        for host in &mut self.hosts {
            if host.off_at.is_some_and(|at| now >= at) {
                host.cut();
            }
            if host.runs() && host.agent {
                for member in 0..3 {
                    let due = 2_000 + if host.jitter > 0 { (now * 7 + member as u64 * 13) % host.jitter } else { 0 };
                    if host.reaches[member] && now >= host.last_beat[member] + due {
                        host.last_beat[member] = now;
                        host.heard = now;
                    }
                }
            }
            if host.runs() {
                host.ran = now;
            }
            let stands = !(host.runs() && host.storage);
            host.still = if stands { host.still.or(Some(now)) } else { None };
        }
        for at in 0..self.nova.moving.len() {
            let moving = self.nova.moving[at];
            if moving.over.is_some() || now < moving.done {
                continue;
            }
            let target = self.by_id(moving.target);
            // The target's libvirt refuses a domain that it has.
            let fails = !target.runs() || target.guests.contains(&moving.instance);
            let well = !fails && !self.nova.refusing.contains(&moving.target);
            self.nova.moving[at].over = Some(well);
            if well {
                self.by_id(moving.target).guests.insert(moving.instance);
                if let Some(server) = self.nova.servers.get_mut(&moving.instance) {
                    server.host = moving.target;
                }
            }
        }
    }

    /// What the leader hears of hosts.
    fn listen(&mut self) {
        let now = self.now;
        let silent = self.hosts.iter().filter(|host| host.power().is_none()).count();
        let Some(leading) = &mut self.leader else { return };
        let liveness = &mut leading.coordinator.liveness;
        for member in 0..3 {
            let heard: Vec<_> = self
                .hosts
                .iter()
                .filter(|host| host.last_beat[member] > 0)
                .map(|host| Heard { host: host.id, age: now - host.last_beat[member], boot: host.boot() })
                .collect();
            liveness.digest(&Digest { member: member as u64, in_quorum: true, blind: false, heard: &heard }, now);
        }
        for host in &self.hosts {
            let stands = host.still.map_or(0, |since| now - since);
            let storage = match stands {
                0 => Says::Runs,
                30_000.. => Says::Silent,
                _ => Says::Nothing,
            };
            liveness.observe(host.id, Groups::STORAGE, storage, now);
            let data = if host.runs() && host.data { Says::Runs } else { Says::Silent };
            liveness.observe(host.id, Groups::DATA, data, now);
            let lone = host.power().is_none() && self.hosts.len() - silent >= 3;
            let out_of_band = if lone { Says::Silent } else { Says::Runs };
            liveness.observe(host.id, Groups::OUT_OF_BAND, out_of_band, now);
        }
    }

    fn lead(&mut self) {
        let Some(leading) = &mut self.leader else { return };
        if self.paused {
            return;
        }
        let id = leading.id;
        let targets = Least(&self.core);
        let lead = Lead {
            tables: self.core.state().tables(),
            voters: &self.voters,
            targets: &targets,
            clock: self.now,
            now: self.now,
        };
        for due in leading.coordinator.step(&lead) {
            let changes = match &due {
                Due::Propose(change) => !matches!(change, Change::BreakerSet { .. }),
                Due::Call(call) => !matches!(
                    call,
                    Call::ReadPower(_) | Call::ReadServer(_) | Call::ListServers(_) | Call::ReadDomain { .. }
                ),
            };
            self.effects += usize::from(changes);
            let dies = self.cut.filter(|cut| changes && cut.nth == self.effects);
            if dies.is_none_or(|cut| cut.after) {
                match due {
                    Due::Propose(change) => drop(self.order(Role::Coordinator, change)),
                    Due::Call(call) => self.send(call, id),
                }
            }
            if dies.is_some() {
                self.kill_leader();
                return;
            }
        }
    }

    /// All of host 1's instances run, once each, and not on host 1.
    pub fn all_moved(&self, vms: u128) -> bool {
        (1..=vms).all(|n| {
            let hosts: Vec<_> =
                self.hosts.iter().filter(|host| host.guests.contains(&vm(n))).map(|host| host.id).collect();
            let permit = self.ha().permits.get(vm(n)).map(|permit| permit.life.host);
            hosts.len() == 1 && hosts[0] != host(1) && permit == Some(hosts[0])
        })
    }

    /// All of host 1's instances run there, and nowhere else.
    pub fn all_home(&self, vms: u128) -> bool {
        (1..=vms).all(|n| self.hosts.iter().all(|known| known.guests.contains(&vm(n)) == (known.id == host(1))))
    }

    /// Power-offs that reached a BMC.
    pub fn fences(&self) -> u32 {
        self.hosts.iter().map(|host| host.fences).sum()
    }

    /// Trouble with Nova begins, or ends.
    pub fn trouble(&mut self, trouble: Trouble) {
        self.nova.trouble = trouble;
    }

    /// How a host's BMC behaves from now on.
    pub fn bmc(&mut self, n: u128, bmc: Bmc) {
        self.host_mut(n).bmc = bmc;
    }
}

fn spec(n: u128) -> HostSpec {
    let rack = (n - 1) / 10;
    HostSpec {
        id: host(n),
        nova_host: format!("node-{n}"),
        nova_service: None,
        machine: machine(host(n)),
        bmc: Some(format!("bmc-{n}")),
        places: PlaceNames {
            az: format!("az-{}", rack / 2),
            cell: format!("cell-{}", rack / 2),
            cluster: format!("rack-{rack}"),
            power: format!("feed-{rack}"),
            chassis: format!("chassis-{n}"),
        },
        fencers: vec![Fencer::Redfish, Fencer::Manual],
        enabled: true,
        permit_check: true,
        unchecked: false,
        keeps_guests: false,
    }
}
