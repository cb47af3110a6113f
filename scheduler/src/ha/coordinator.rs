//! The coordinator of one leadership: what to propose, and which calls to other systems are due, from the
//! replicated state, what this leader sees, and its own monotonic clock.
//!
//! It holds nothing that matters: what it was told (power states, Nova's answers) and when it asked. A new
//! leader begins with none of it, reads the phases and attempts in the state, and goes on from there. Every
//! call that changes the world names the intent behind it, and the barrier that its executor must pass.
//!
//! Never here: I/O, a clock, a decision that needs less than a replicated fact.

mod cases;
mod evacuation;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use uuid::Uuid;

use super::breaker::{Scope, ScopeName, Trips};
use super::case::{Case, Phase};
use super::host::{Detection, Host, HostId};
use super::liveness::{Liveness, Timers};
use super::order::{Change, Leader, NovaRead};
use super::planner::Targets;
use super::proof::PowerRead;
use super::recovery::{Life, Recorded};
use super::table::Failover;
use crate::names::Sym;
use crate::state::Tables;

/// Times, milliseconds.
pub(crate) mod pace {
    /// Between two reads of the power state of a host that is watched for it.
    pub const POWER: u64 = 3_000;
    /// The same while it is being fenced.
    pub const FENCING: u64 = 2_000;
    /// Between two hosts of a zone that are fenced, so many at first, so many at once everywhere.
    pub const FENCE_EVERY: u64 = 10_000;
    /// See `FENCE_EVERY`.
    pub const FENCE_BURST: usize = 2;
    /// See `FENCE_EVERY`.
    pub const FENCE_MOST: usize = 5;
    /// A power-off is sent again.
    pub const AGAIN: u64 = 10_000;
    /// A level of fencing is given up.
    pub const GIVE_UP: u64 = 30_000;
    /// What was read of a BMC in front of an intent is not older.
    pub const IDENTITY: u64 = 10_000;
    /// Between two reads of Nova for one thing.
    pub const NOVA: u64 = 3_000;
    /// What Nova said in front of an intent is not older.
    pub const READ: u64 = 3_000;
    /// The whole of a call that changes something.
    pub const DEADLINE: u64 = 10_000;
    /// A new leader evacuates nothing: calls of the former one may still be on their way.
    pub const QUIET: u64 = DEADLINE + 5_000;
    /// An ambiguous call that left no trace for so long, under this leader, may be sent to the same target.
    pub const HORIZON: u64 = 60_000;
    /// An attempt that is alive for so long is stuck.
    pub const STUCK: u64 = 300_000;
    /// Between two plans of a case with instances that wait.
    pub const REPLAN: u64 = 30_000;
    /// A second 404 counts after so long.
    pub const VANISHED: u64 = 10_000;
    /// Backoffs of a whole round of fencing.
    pub const ROUNDS: [u64; 4] = [10_000, 20_000, 40_000, 60_000];
    /// Between two looks at one breaker.
    pub const BREAKER: u64 = 5_000;
}

/// Evacuations at once: everywhere, from one source, to one target.
const MOST: usize = 64;
const MOST_SOURCE: usize = 32;
const MOST_TARGET: usize = 4;

/// What an executor must make sure of right before it writes to the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// It still leads, as exactly this leader.
    pub leader: Leader,
    /// The intent that is committed, under that leader.
    pub intent: Uuid,
    /// A majority has confirmed the leadership by a read index no longer ago, milliseconds; pauses and
    /// breakers are read again there.
    pub confirmed: u64,
    /// The connection is new, is tried once, and is closed after so long, milliseconds.
    pub deadline: u64,
}

/// A call to another system. Reads need no barrier, and neither do marks in Nova: they are the same
/// however often and by whomever they are set, and only a proven case sets them.
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
    ForceDown(HostId),
    /// Disables the service with our reason, then reads it.
    Disable(HostId),
    /// What Nova lists on a host.
    ListServers(HostId),
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
    /// Whether an instance is among the domains of a host, by its agent.
    ReadDomain {
        /// The host.
        host: HostId,
        /// The instance.
        instance: Uuid,
    },
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
    Servers(HostId, Vec<(Uuid, Recorded)>),
    /// An instance; none: Nova has no such instance.
    Server {
        /// The instance.
        instance: Uuid,
        /// What Nova says.
        read: Option<(NovaRead, Vec<Migration>)>,
        /// The row that must be there was there.
        sentinel: bool,
    },
    /// The answer to an evacuation.
    Evacuated {
        /// The instance.
        instance: Uuid,
        /// Names the intent.
        op: Uuid,
        /// The answer.
        answer: Answer,
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

#[derive(Clone, Debug, Default)]
struct HostFacts {
    /// The life that they are of: what was read before says nothing of another.
    incarnation: u64,
    reads: VecDeque<(u64, PowerRead)>,
    asked: u64,
    /// The power-off that was sent, and when.
    off: Option<(Uuid, u64)>,
    service: Option<(bool, bool)>,
    asked_nova: u64,
    servers: Option<(u64, Vec<(Uuid, Recorded)>)>,
    planned: u64,
    rounds: usize,
    /// Since when this leader works at the present operation.
    working: Option<(Uuid, u64)>,
    failed: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct InstanceFacts {
    asked: u64,
    read: Option<(u64, NovaRead, Vec<Migration>)>,
    /// Since when Nova does not know it.
    missing: Option<u64>,
    sent: Option<(Uuid, u64)>,
    answer: Option<(Uuid, Answer)>,
    /// Since when this leader sees the attempt without a trace.
    traceless: Option<u64>,
    absent: Option<(HostId, u64)>,
}

/// What a step is made with.
pub struct Lead<'a> {
    /// The replicated tables, with all that this leader has committed.
    pub tables: &'a Tables,
    /// Voters that this leader hears.
    pub voters: &'a [u64],
    /// Where an instance may go.
    pub targets: &'a dyn Targets,
    /// Replicated time by this node's clock: what a batch that is proposed now would carry. That of the last
    /// batch stands still while nothing is proposed.
    pub clock: u64,
    /// The leader's monotonic clock, milliseconds.
    pub now: u64,
}

impl Lead<'_> {
    fn ha(&self) -> &Failover {
        self.tables.failover()
    }
}

/// One leadership's coordinator.
#[derive(Clone, Debug)]
pub struct Coordinator {
    leader: Leader,
    /// What it sees of hosts.
    pub liveness: Liveness,
    hosts: BTreeMap<HostId, HostFacts>,
    instances: BTreeMap<Uuid, InstanceFacts>,
    looked: BTreeMap<Scope, u64>,
    /// When hosts of a zone were fenced.
    fenced: BTreeMap<Sym, VecDeque<u64>>,
}

impl Coordinator {
    /// Of a leadership that begins now, when it has applied the entry that opened its term.
    pub fn new(leader: Leader, timers: Timers, now: u64) -> Self {
        let liveness = Liveness::new(timers, now);
        Self {
            leader,
            liveness,
            hosts: BTreeMap::new(),
            instances: BTreeMap::new(),
            looked: BTreeMap::new(),
            fenced: BTreeMap::new(),
        }
    }

    /// Takes in what a call came to.
    pub fn tell(&mut self, told: Told, now: u64) {
        match told {
            Told::Power(host, read) => {
                let reads = &mut self.hosts.entry(host).or_default().reads;
                reads.push_back((now, PowerRead { at: now, ..read }));
                while reads.len() > 2 {
                    reads.pop_front();
                }
            }
            Told::Service { host, forced_down, disabled } => {
                self.hosts.entry(host).or_default().service = Some((forced_down, disabled));
            }
            Told::Servers(host, list) => self.hosts.entry(host).or_default().servers = Some((now, list)),
            Told::Server { instance, read: Some((read, migrations)), .. } => {
                let facts = self.instances.entry(instance).or_default();
                facts.missing = None;
                facts.read = Some((now, read, migrations));
            }
            Told::Server { instance, read: None, sentinel } => {
                let facts = self.instances.entry(instance).or_default();
                facts.read = None;
                facts.missing = if sentinel { facts.missing.or(Some(now)) } else { None };
            }
            Told::Evacuated { instance, op, answer } => {
                self.instances.entry(instance).or_default().answer = Some((op, answer));
            }
            Told::Absent { host, instance, at } => {
                self.instances.entry(instance).or_default().absent = Some((host, at));
            }
        }
    }

    /// What is due now. Called again and again: what was asked is not asked again before its pace says so,
    /// and what was proposed is in the state or is proposed again.
    pub fn step(&mut self, lead: &Lead<'_>) -> Vec<Due> {
        let mut due = Vec::new();
        self.liveness.look(lead.now);
        let ids: Vec<_> = lead.ha().hosts.iter().filter(|host| host.enabled).map(|host| host.id).collect();
        for id in ids {
            let Some(host) = lead.ha().hosts.get(id) else { continue };
            self.detect(host, lead, &mut due);
        }
        if lead.ha().small.epoch == lead.tables.counters().epoch {
            self.breakers(lead, &mut due);
            let cases: Vec<_> = lead.ha().cases.iter().cloned().collect();
            for case in &cases {
                let Some(host) = lead.ha().hosts.get(case.id.host) else { continue };
                self.case(case, host, lead, &mut due);
            }
        }
        self.forget(lead);
        due
    }

    /// What is of no open case, or of no host, any more.
    fn forget(&mut self, lead: &Lead<'_>) {
        self.liveness.keep(|id| lead.ha().hosts.get(id).is_some());
        self.looked.retain(|_, at| lead.now < *at + pace::BREAKER);
        self.instances.retain(|instance, _| lead.ha().recoveries.get(*instance).is_some());
        self.hosts.retain(|id, _| {
            let watched = |host: &Host| host.belief.detection != Detection::Alive;
            lead.ha().cases.get(*id).is_some() || lead.ha().hosts.get(*id).is_some_and(|host| watched(host))
        });
    }

    fn detect(&mut self, host: &Host, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let fenced = lead.ha().cases.get(host.id).is_some_and(|case| case.fences > 0);
        if !host.is_open() || fenced || host.greeted != Some(lead.tables.counters().epoch) {
            return;
        }
        let opinion = self.liveness.opinion(host, self.leader, lead.now);
        let from = host.belief.detection;
        let anew = from == opinion.detection && from == Detection::Suspect && host.belief.by != self.leader;
        if opinion.detection != from || anew {
            if opinion.detection == Detection::Suspect && from == Detection::Alive {
                self.liveness.suspected(host.id, lead.now);
            }
            due.push(Due::Propose(Change::DetectionSet {
                host: host.id,
                incarnation: host.incarnation,
                from,
                to: opinion.detection,
                groups: opinion.groups,
                age: opinion.age,
            }));
        }
        // Off is off, whoever has watched for how long.
        let open = lead.ha().cases.get(host.id).is_some();
        if from != Detection::Alive && !open && self.liveness.is_silent(host.id, lead.now) {
            self.read_power(host, pace::POWER, lead, due);
            let own = from == Detection::Unreachable && host.belief.by == self.leader;
            let cause = if self.off_twice(host).is_some() {
                Some(super::case::Cause::PowerOff)
            } else {
                own.then_some(super::case::Cause::Unreachable)
            };
            if let Some(cause) = cause.filter(|_| opinion.detection != Detection::Alive) {
                due.push(Due::Propose(Change::CaseOpen { host: host.id, incarnation: host.incarnation, cause }));
            }
        }
    }

    /// Looks at the breakers that are open, and at those that the count would open.
    fn breakers(&mut self, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let ha = lead.ha();
        let mut scopes: BTreeSet<Scope> = ha.small.breakers.keys().copied().collect();
        let doubtful = ha.hosts.iter().filter(|host| host.belief.detection != Detection::Alive);
        scopes.extend(doubtful.flat_map(|host| Scope::all_of(host)));
        scopes.insert(Scope::Region);
        let now = lead.clock;
        for scope in scopes {
            let blind = scope == Scope::Region && self.liveness.is_blind();
            let seen = if blind { Trips::BLIND } else { Trips::default() };
            let asked = self.looked.get(&scope).copied();
            if asked.is_some_and(|at| lead.now < at + pace::BREAKER) {
                continue;
            }
            self.looked.insert(scope, lead.now);
            if ha.looked(scope, seen, now).as_ref() != ha.small.breakers.get(&scope) {
                let name = |sym| lead.tables.names.text(sym).to_owned();
                let scope = match scope {
                    Scope::Region => ScopeName::Region,
                    Scope::Az(az) => ScopeName::Az(name(az)),
                    Scope::Cell(cell) => ScopeName::Cell(name(cell)),
                    Scope::Cluster(cluster) => ScopeName::Cluster(name(cluster)),
                };
                due.push(Due::Propose(Change::BreakerSet { scope, seen }));
            }
        }
    }

    /// What is known of the present life of a host.
    fn facts(&mut self, host: &Host) -> &mut HostFacts {
        let facts = self.hosts.entry(host.id).or_default();
        if facts.incarnation != host.incarnation {
            *facts = HostFacts { incarnation: host.incarnation, ..HostFacts::default() };
        }
        facts
    }

    fn read_power(&mut self, host: &Host, every: u64, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let facts = self.facts(host);
        if host.bmc.is_some() && (facts.asked == 0 || lead.now >= facts.asked + every) {
            facts.asked = lead.now.max(1);
            due.push(Due::Call(Call::ReadPower(host.id)));
        }
    }

    /// Two reads of this leader that say off, far enough apart, of the right machine.
    fn off_twice(&self, host: &Host) -> Option<Box<[PowerRead; 2]>> {
        let reads = &self.hosts.get(&host.id)?.reads;
        let (first, second) = (&reads.front()?.1, &reads.get(1)?.1);
        let off = |read: &PowerRead| read.power == super::proof::Power::Off && host.machine.is(&read.machine);
        let apart = second.at.saturating_sub(first.at) >= super::APART;
        (off(first) && off(second) && apart).then(|| Box::new([first.clone(), second.clone()]))
    }

    /// Whether another host may be fenced now: few at once, and in a zone one after the other. The next
    /// intent of a host whose turn it is already takes no other turn.
    fn takes_turn(&mut self, case: &Case, host: &Host, lead: &Lead<'_>) -> bool {
        if case.phase == Phase::Fencing {
            return true;
        }
        let fencing = lead.ha().cases.iter().filter(|case| case.phase == Phase::Fencing).count();
        let turns = self.fenced.entry(host.places.az).or_default();
        turns.retain(|at| lead.now < *at + pace::FENCE_EVERY * pace::FENCE_BURST as u64);
        if fencing >= pace::FENCE_MOST || turns.len() >= pace::FENCE_BURST {
            return false;
        }
        turns.push_back(lead.now);
        true
    }

    fn barrier(&self, intent: Uuid) -> Barrier {
        Barrier { leader: self.leader, intent, confirmed: 1_000, deadline: pace::DEADLINE }
    }

    /// Names something that this leader does for the `nth` time in a case.
    fn name(&self, of: Uuid, case: &Case, what: &str, nth: u64) -> Uuid {
        let Leader { term, node } = self.leader;
        Uuid::new_v5(&of, format!("{}/{what}/{term}/{node}/{nth}", case.id).as_bytes())
    }

    fn go(case: &Case, to: Phase, due: &mut Vec<Due>) {
        due.push(Due::Propose(Change::CasePhase { case: case.id, from: case.phase, to }));
    }
}

fn source_of(case: &Case) -> Life {
    Life { host: case.id.host, incarnation: case.id.incarnation }
}
