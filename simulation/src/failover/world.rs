//! The world: one tick is half a second. In a tick the truth goes on, agents are heard, whoever leads says
//! what is due, its orders are applied, and calls and their answers travel.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use scheduler::ha::coordinator::{Call, Coordinator, Told};
use scheduler::ha::host::{Fencer, Hello, HostId, HostSpec, PlaceNames, Watchdog};
use scheduler::ha::liveness::Timers;
use scheduler::ha::order::{Actor, Change, Done, Leader, Order, PermitCause, Role};
use scheduler::ha::planner::{Asked, Targets};
use scheduler::ha::recovery::Life;
use scheduler::ha::{Failover, Phase, Policy, Refusal};
use scheduler::{Batch, Command, Core, HostReport, InstanceReport, Inventory, Outcome, Proposer, level};
use uuid::Uuid;

use super::check::Memory;
use super::nova::{Nova, Server, Trouble};
use super::truth::{Bmc, TrueHost, boot, host, machine, vm};

/// Milliseconds of a tick.
pub(super) const TICK: u64 = 500;
const ELECTION: u64 = 3_000;
/// A leader that is replaced goes on granting leases for so long, milliseconds.
const OVERLAP: u64 = 9_000;
/// A watchdog that must fire.
pub(super) const SOUND: Watchdog =
    Watchdog { armed: true, hardware: true, nowayout: true, virtual_host: false, suspends: false, timeout: WATCHDOG };
/// After so long without being fed, milliseconds.
pub(super) const WATCHDOG: u64 = 10_000;

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
    /// What a BMC does not say counts as off: a proof that is none.
    NoProof,
    /// A host that does not answer a ping counts as off.
    TrustPing,
    /// A new leader does not wait until calls of the former one are dead.
    NoQuiet,
    /// The breakers stop nothing.
    NoBreaker,
    /// Nobody looks whose mark is in Nova.
    NoMark,
    /// Agents feed their watchdogs when their leases are over.
    FeedsAlways,
}

impl Flaw {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::NoBarrier,
        Self::BelieveCodes,
        Self::NoProof,
        Self::TrustPing,
        Self::NoQuiet,
        Self::NoBreaker,
        Self::NoMark,
        Self::FeedsAlways,
    ];

    /// Those that can be built into this program: the stops of the state can be taken out only where the
    /// feature `mutants` says so.
    pub fn possible() -> impl Iterator<Item = Self> {
        Self::ALL
            .into_iter()
            .filter(|flaw| cfg!(feature = "mutants") || !matches!(flaw, Self::NoBreaker | Self::NoMark))
    }

    /// Runs something with what a flaw takes out of the state's guards.
    pub fn with<T>(flaw: Option<Self>, run: impl FnOnce() -> T) -> T {
        #[cfg(feature = "mutants")]
        if flaw == Some(Self::NoBreaker) {
            use scheduler::ha::Stop;
            return Stop::BreakerOpen.without(|| Stop::BreakerCounted.without(run));
        }
        #[cfg(feature = "mutants")]
        if flaw == Some(Self::NoMark) {
            return scheduler::ha::Stop::Marked.without(run);
        }
        let _ = flaw;
        run()
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoBarrier => "no-barrier",
            Self::BelieveCodes => "believe-codes",
            Self::NoProof => "no-proof",
            Self::TrustPing => "trust-ping",
            Self::NoQuiet => "no-quiet",
            Self::NoBreaker => "no-breaker",
            Self::NoMark => "no-mark",
            Self::FeedsAlways => "feeds-always",
        }
    }
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
    /// Calls that change something, as they were sent.
    pub sent: Vec<(u64, Call)>,
    pub(super) memory: Memory,
    /// Instances that began on host 1: the first ones.
    pub vms: u128,
    /// Evacuations that Nova took.
    pub taken: BTreeMap<Uuid, u32>,
    /// Instances of which a call arrived, or will, when it counts as lost.
    pub overdue: BTreeSet<Uuid>,
    /// Voters that the leader hears.
    pub voters: Vec<u64>,
    /// A paused leader's calls are kept until it goes on.
    pub paused: bool,
    /// The leader is cut off in front of its next call with a barrier: it looked at the state, and did not write yet.
    pub ambush: bool,
    pub(super) kept: Vec<(Call, Leader)>,
    pub(super) leader: Option<Leading>,
    pub(super) elect: Option<u64>,
    term: u64,
    /// When the leadership began.
    pub(super) led: u64,
    /// Its id: a restore makes another.
    pub cluster: Uuid,
    /// The leader that was told last that the mark in Nova is its cluster's alone.
    pub(super) marked: Option<Leader>,
    /// Restarts that a host was asked for.
    pub restarted: BTreeMap<Uuid, u32>,
    /// How far wall clocks are off, milliseconds.
    pub skew: i64,
    /// Members that have lost most of their sessions.
    pub blind: [bool; 3],
    /// Agents stop what they are told to.
    pub stops: bool,
    /// A former leader goes on granting leases until then.
    pub(super) ghost: u64,
    pub(super) mail: BTreeMap<(u64, u64), Letter>,
    pub(super) posted: u64,
    /// It is made, and checked after every event since.
    made: bool,
}

pub(super) struct Least<'a>(pub &'a Core);

/// The emptiest first: stands for the filters and weighers, which are tested elsewhere.
impl Targets for Least<'_> {
    fn ranked(&self, asked: &Asked<'_>) -> Vec<Life> {
        let tables = self.0.state().tables();
        let ha = tables.failover();
        let mut counts: HashMap<Life, usize> = HashMap::new();
        for permit in ha.permits.iter() {
            *counts.entry(permit.life).or_default() += 1;
        }
        let mut lives: Vec<_> = ha
            .hosts
            .iter()
            .filter(|host| host.takes_instances() && host.id != asked.source.host)
            .map(|host| {
                let life = Life { host: host.id, incarnation: host.incarnation };
                (counts.get(&life).copied().unwrap_or(0), host.id, life)
            })
            .collect();
        lives.sort_unstable_by_key(|&(count, id, _)| (count, id));
        lives.into_iter().map(|(_, _, life)| life).collect()
    }
}

impl World {
    /// Hosts 1 to `hosts`, `vms` instances on host 1, room for `room` on each host.
    pub fn new(hosts: u128, vms: u128, room: u64) -> Self {
        Self::spread(hosts, vms, room, |_| 1)
    }

    /// The same, with each instance on the host that `on` says.
    pub fn spread(hosts: u128, vms: u128, room: u64, on: impl Fn(u128) -> u128) -> Self {
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
            sent: Vec::new(),
            memory: Memory::default(),
            vms: (1..=vms).filter(|v| on(*v) == 1).count() as u128,
            taken: BTreeMap::new(),
            overdue: BTreeSet::new(),
            voters: vec![1, 2, 3],
            paused: false,
            ambush: false,
            kept: Vec::new(),
            leader: None,
            elect: None,
            term: 0,
            led: 0,
            cluster: Uuid::from_u128(0xC1),
            marked: None,
            restarted: BTreeMap::new(),
            skew: 0,
            blind: [false; 3],
            stops: true,
            ghost: 0,
            mail: BTreeMap::new(),
            posted: 0,
            made: false,
        };
        world.apply(Command::Raise { level: level::FAILOVER });
        world.take_over();
        for n in 1..=hosts {
            let instances: Vec<Uuid> = (1..=vms).filter(|v| on(*v) == n).map(vm).collect();
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
                world.nova.servers.insert(instance, Server::on(host(n)));
                world.host_mut(n).guests.insert(instance);
            }
        }
        let policy = Policy { in_place: true, ..Policy::default() };
        world.order(Role::Operator, Change::Policy(policy)).ok();
        world.effects = 0;
        world.made = true;
        world.check_state();
        // The rhythm of each host is known before anything happens.
        world.run(60_000);
        world
    }

    /// The estate of the catalogue: 40 hosts in two zones of two racks, each with so many instances, and room to spare
    /// for more than one of them in its cell.
    pub fn estate(each: u128) -> Self {
        Self::spread(40, 40 * each, each as u64 + 4, |v| 1 + (v - 1) / each)
    }

    /// Another estate instead, with the fault that is built in.
    pub fn again(&mut self, hosts: u128, vms: u128, room: u64, on: impl Fn(u128) -> u128) {
        let flaw = self.flaw;
        *self = Self::spread(hosts, vms, room, on);
        self.flaw(flaw);
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
        let hello = self.hello_of(n);
        let done = self.must(Change::IncarnationOpen { host: host(n), hello: Box::new(hello) });
        let host = self.host_mut(n);
        host.answered = Some(host.boots);
        done
    }

    /// What the agent of host `n` says in the boot that it is in.
    pub(super) fn hello_of(&self, n: u128) -> Hello {
        let true_host = self.host(n);
        Hello {
            boot: true_host.boot(),
            previous: true_host
                .answered
                .filter(|known| *known != true_host.boots)
                .map(|known| boot(true_host.id, known)),
            machine: machine(true_host.id),
            permit_check: true,
            ..Hello::default()
        }
    }

    /// A guest of a host crashes by itself.
    pub fn crash(&mut self, n: u128, instance: u128) {
        let there = self.host_mut(n);
        if there.guests.remove(&vm(instance)) {
            there.crashed.insert(vm(instance));
        }
        self.tell(Told::Crashed { host: host(n), instance: vm(instance) });
    }

    /// Whoever leads is told something.
    pub fn tell(&mut self, told: Told) {
        let now = self.now;
        if let Some(leading) = &mut self.leader {
            leading.coordinator.tell(told, now);
        }
    }

    /// Host `n` has room for so many instances from now on.
    pub fn grow(&mut self, n: u128, room: u64) {
        self.apply(Command::Report(Box::new(HostReport {
            name: format!("node-{n}"),
            inventories: Some(BTreeMap::from([("VCPU".to_owned(), Inventory::of(room))])),
            ..HostReport::default()
        })));
    }

    /// What runs on host `n` is so large from now on.
    pub fn size(&mut self, n: u128, size: impl Fn(Uuid) -> u64) {
        let instances = self.host(n).guests.iter().map(|uuid| InstanceReport {
            uuid: *uuid,
            resources: Some(BTreeMap::from([("VCPU".to_owned(), size(*uuid))])),
            ..InstanceReport::default()
        });
        let instances = Some(instances.collect());
        self.apply(Command::Report(Box::new(HostReport {
            name: format!("node-{n}"),
            inventories: Some(BTreeMap::from([("VCPU".to_owned(), Inventory::of(1_000))])),
            instances,
            ..HostReport::default()
        })));
    }

    /// Every member starts anew from its snapshot and log.
    pub fn restart_all(&mut self) {
        self.core = Core::restore(&self.core.freeze().encode()).expect("a snapshot restores");
        self.kill_leader();
    }

    pub(super) fn term(&self) -> u64 {
        self.term
    }

    /// A fault is built in.
    pub fn flaw(&mut self, flaw: Option<Flaw>) {
        self.flaw = flaw;
        let (now, timers) = (self.now, self.timers());
        // What it saw of hosts begins anew with other timers.
        if flaw == Some(Flaw::NoQuiet)
            && let Some(leading) = &mut self.leader
        {
            leading.coordinator = Coordinator::new(leading.id, timers, now);
        }
    }

    fn timers(&self) -> Timers {
        let quiet = if self.flaw == Some(Flaw::NoQuiet) { 0 } else { Timers::default().quiet };
        Timers { quiet, ..Timers::default() }
    }

    /// An order of a person, if anybody leads.
    pub fn operate(&mut self, change: Change) {
        if self.leader.is_some() {
            self.order(Role::Operator, change).ok();
        }
    }

    /// The leader's process stops; with `elected` others choose another meanwhile.
    pub fn pause(&mut self, elected: bool) {
        let Some(leading) = &self.leader else { return };
        let id = leading.id;
        // What it was about to send, beside what one before it still holds.
        let sent = self.mail.extract_if(.., |_, letter| matches!(letter, Letter::Do(_, from) if *from == id));
        self.kept.extend(sent.filter_map(|(_, letter)| match letter {
            Letter::Do(call, from) => Some((call, from)),
            Letter::Told(..) => None,
        }));
        if elected {
            self.kill_leader();
        } else {
            self.paused = true;
        }
    }

    fn apply(&mut self, command: Command) -> Outcome {
        let batch = Batch {
            proposer: Proposer::default(),
            now: self.now,
            wall: self.now.saturating_add_signed(self.skew),
            commands: vec![command],
        };
        self.core.apply(&batch).pop().expect("one for each command")
    }

    /// An order of whoever leads.
    #[expect(clippy::needless_pass_by_value, reason = "an order is given away")]
    pub fn order(&mut self, role: Role, change: Change) -> Result<Done, Refusal> {
        let Some(leading) = &self.leader else { panic!("nobody leads") };
        let leader = leading.id;
        let actor = Actor { role, name: "simulation".to_owned(), reason: "scenario".to_owned() };
        let name = match &change {
            Change::DeathProof { host, incarnation, evidence } => {
                format!("DeathProof of {host}/{incarnation} {evidence:?}")
            }
            Change::IncarnationOpen { host, .. } | Change::Watchdog { host, .. } => {
                format!("{} of {host}", change.name())
            }
            Change::AttemptIntent { instance, .. } => format!("AttemptIntent {instance}"),
            Change::AttemptEnd { instance, .. } => format!("AttemptEnd {instance}"),
            Change::AttemptObserved { instance, .. } => format!("AttemptObserved {instance}"),
            Change::PermitMove { .. }
            | Change::DrainStep { .. }
            | Change::RestartOutcome { .. }
            | Change::CasePhase { .. } => format!("{change:?}"),
            _ => change.name().to_owned(),
        };
        let epoch = self.core.state().tables().counters().epoch;
        let command = Command::Failover(Box::new(Order { leader, epoch, actor, change: change.clone() }));
        let outcome = self.apply(command);
        let Outcome::Failover(result) = outcome else { panic!("{outcome:?}") };
        let said = match &result {
            Ok(done) => format!("{done:?}"),
            Err(why) => format!("refused: {why}"),
        };
        self.say(&format!("{name} by {leader}: {said}"));
        if self.made {
            self.check_state();
            self.check_order(&change, &result);
        }
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
        // It may believe in itself for a while, and grant what it can.
        self.ghost = self.now + OVERLAP;
        self.leader = None;
        self.elect = Some(self.now + ELECTION);
        self.say("the leader dies");
    }

    pub(super) fn take_over(&mut self) {
        self.term += 1;
        let id = Leader { term: self.term, node: 1 + self.term % 3 };
        self.leader = Some(Leading { id, coordinator: Coordinator::new(id, self.timers(), self.now) });
        self.elect = None;
        self.paused = false;
        self.led = self.now;
        self.say(&format!("{id} leads"));
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
        let now = self.now;
        let host = self.host_mut(n);
        host.strange = (bmc == Bmc::Strange).then_some(now);
        host.bmc = bmc;
    }
}

pub(super) fn spec(n: u128) -> HostSpec {
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
        fencers: vec![Fencer::Redfish, Fencer::WatchdogLease, Fencer::Manual],
        enabled: true,
        permit_check: true,
        unchecked: false,
        keeps_guests: false,
    }
}
