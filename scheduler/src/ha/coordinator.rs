//! The coordinator of one leadership: what to propose, and which calls to other systems are due, from the
//! replicated state, what this leader sees, and its own monotonic clock.
//!
//! It holds nothing that matters: what it was told (power states, Nova's answers) and when it asked. A new
//! leader begins with none of it, reads the phases and attempts in the state, and goes on from there. Every
//! call that changes the world names the intent behind it, and the barrier that its executor must pass.
//!
//! Never here: I/O, a clock, a decision that needs less than a replicated fact.

mod barrier;
mod call;
mod cases;
mod drain;
mod evacuation;
mod follow;
mod gone;
pub mod lease;
mod mark;
mod planning;
mod reentry;
mod restart;
mod restraint;
mod trouble;
mod unhelped;
pub(in crate::ha) mod watch;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use uuid::Uuid;

use super::breaker::Scope;
use super::case::{Act, Case, Phase};
use super::host::{Degraded, Detection, Host, HostId};
use super::liveness::{Liveness, Timers};
use super::masakari::{Notification, Report};
use super::order::{Change, Leader, NovaRead};
use super::planner::Targets;
use super::planner::groups::ServerGroups;
use super::policy::{self, Mode};
use super::proof::PowerRead;
use super::recovery::Life;
use super::reentry::ComputeRead;
use super::restart::Restart;
use super::table::Failover;
use crate::ha::planner::Listed;
use crate::names::Sym;
use crate::state::Tables;

pub use barrier::Barrier;
pub use call::{Answer, Call, Due, Migration, Told};

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
    /// An ambiguous call that left no trace for so long, under this leader, may be sent to the same target.
    pub const HORIZON: u64 = 60_000;
    /// A read of a BMC says nothing of now after so long.
    pub const OLD: u64 = 60_000;
    /// An attempt that is alive for so long is stuck.
    pub const STUCK: u64 = 300_000;
    /// Between two plans of a case with instances that wait.
    pub const REPLAN: u64 = 30_000;
    /// A plan waits so long for what Nova lists on other hosts that are to be planned.
    pub const TOGETHER: u64 = 1_000;
    /// Nova has so long to say that it destroyed a guest.
    pub const UNASKED: u64 = 30_000;
    /// A second 404 counts after so long.
    pub const VANISHED: u64 = 10_000;
    /// Backoffs of a whole round of fencing.
    pub const ROUNDS: [u64; 4] = [10_000, 20_000, 40_000, 60_000];
    /// Between two tries to power a dead host on.
    pub const POWER_ON: u64 = 120_000;
    /// A restart that shows nothing for so long has failed.
    pub const RESTART: u64 = 120_000;
    /// A case that waits for a fence so long needs a person.
    pub const WAITS: u64 = 60_000;
    /// Between two intents to fence the same host: what refused the first may still do.
    pub const INTEND: u64 = 2_000;
    /// What Nova answered, and what not, counts for so long.
    pub const NOVA_FAILS: u64 = 30_000;
    /// What was notified before is not heard any more.
    pub const NOTIFIED: u64 = 10_000;
    /// Under a breaker the recovery of one host begins in so long, in each scope.
    pub const REDUCED: u64 = 30_000;
    /// Between two reads of the mark of the cluster, once it is its own.
    pub const MARK: u64 = 60_000;
    /// Between two looks at one breaker.
    pub const BREAKER: u64 = 5_000;
}

/// Evacuations at once everywhere. How many from one host and to one says its policy.
const MOST: usize = 64;
/// Evacuations at once from the hosts of one cell.
const FROM_CELL: usize = 24;
/// The part of all these limits that is used under a breaker.
const PART: usize = 4;
/// Requests to Nova that fail within half a minute before that is more than chance.
const NOVA_FAILED: u32 = 3;
/// Guests that crashed and wait for a look.
const GUESTS: usize = 4_096;

/// What an agent lists of its host.
#[derive(Clone, Debug)]
struct Domains {
    listed: Vec<Uuid>,
    running: Vec<Uuid>,
    off: Vec<Uuid>,
    at: u64,
}

impl Domains {
    /// No process of the host has the instance: it is not there, or shut off.
    fn is_without(&self, instance: Uuid) -> bool {
        !self.listed.contains(&instance) || self.off.contains(&instance)
    }
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
    servers: Option<(u64, Vec<Listed>)>,
    planned: u64,
    rounds: usize,
    /// Since when this leader works at the present operation.
    working: Option<(Uuid, u64)>,
    failed: Option<u64>,
    /// When an intent to fence it was proposed last.
    intended: Option<u64>,
    domains: Option<Domains>,
    asked_domains: u64,
    compute: Option<(u64, ComputeRead)>,
    /// Since when something that it had is not started, and may be.
    kept: Option<u64>,
    /// The step of its return that was called last, and when one was proposed last.
    called: Option<Uuid>,
    stepped: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct InstanceFacts {
    asked: u64,
    read: Option<(u64, NovaRead, Vec<Migration>)>,
    /// Since when Nova does not know it.
    missing: Option<u64>,
    sent: Option<(Uuid, u64)>,
    answer: Option<(Uuid, Answer)>,
    /// The intent to evacuate it that is to be written, and since when.
    wanted: Option<(Uuid, u64)>,
    /// The intent that this leader sees without a trace in Nova, and since when.
    traceless: Option<(Uuid, u64)>,
    absent: Option<(HostId, u64)>,
    /// The intent to stop it that was proposed last.
    stopping: Option<Uuid>,
}

impl InstanceFacts {
    /// Since when an intent is without a trace. What was seen of another one says nothing of it.
    fn traceless(&mut self, op: Uuid, read_at: u64) -> u64 {
        let since = self.traceless.filter(|(known, _)| *known == op).map_or(read_at, |(_, since)| since);
        self.traceless = Some((op, since));
        since
    }
}

/// What a step is made with.
pub struct Lead<'a> {
    /// The replicated tables, with all that this leader has committed.
    pub tables: &'a Tables,
    /// Voters that this leader hears.
    pub voters: &'a [u64],
    /// The cluster's id.
    pub cluster: Uuid,
    /// Where an instance may go.
    pub targets: &'a dyn Targets,
    /// The most that is done of what is decided, by the leader's own configuration.
    pub ceiling: Mode,
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

    /// What is done of what is decided about a host: what its policy says, if this leader's configuration lets it.
    fn mode(&self, host: Option<HostId>) -> Mode {
        host.map_or(self.ceiling, |host| policy::mode(self.tables, host).min(self.ceiling))
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
    /// What is wrong with many hosts of a scope at once.
    common: BTreeMap<Scope, Degraded>,
    /// When hosts of a zone were fenced.
    fenced: BTreeMap<Sym, VecDeque<u64>>,
    /// The last host of a scope whose recovery began under a breaker, and when.
    begun: BTreeMap<Scope, (HostId, u64)>,
    /// When it began.
    led: u64,
    /// When each host was granted a lease last, in which life.
    granted: BTreeMap<HostId, (u64, u64)>,
    leases: u64,
    /// Guests that crashed by themselves.
    guests: BTreeMap<Uuid, HostId>,
    /// Guests that begin, or run, where they have no permit, and since when, replicated milliseconds.
    strangers: BTreeMap<(Uuid, HostId), Option<u64>>,
    /// Instances that may be deleted.
    gone: gone::Gone,
    /// What befell guests, and how far it is looked into.
    troubles: BTreeMap<trouble::Told, trouble::Look>,
    /// The life of each host up to which it was looked for instances of former lives.
    booted: BTreeMap<HostId, u64>,
    /// Requests to Nova of the last half minute: when, those that were answered, those that were not.
    nova: VecDeque<(u64, u32, u32)>,
    /// The mark was asked for last, and not read.
    unread: bool,
    progress: BTreeMap<Uuid, drain::Progress>,
    /// The last notification that was heard.
    notified: u64,
    /// Server groups, and when they were told.
    groups: Option<(u64, Arc<ServerGroups>)>,
    /// When they were asked for.
    asked_groups: Option<u64>,
    /// What was told of the mark of the cluster since the last step.
    mark: Option<Result<Vec<Uuid>, String>>,
    /// When it was asked for.
    asked_mark: Option<u64>,
    /// Cases that are to be planned in this step, all of them in one plan.
    ready: Vec<planning::Ready>,
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
            common: BTreeMap::new(),
            fenced: BTreeMap::new(),
            begun: BTreeMap::new(),
            led: now,
            granted: BTreeMap::new(),
            leases: 0,
            guests: BTreeMap::new(),
            strangers: BTreeMap::new(),
            gone: gone::Gone::default(),
            troubles: BTreeMap::new(),
            booted: BTreeMap::new(),
            nova: VecDeque::new(),
            unread: false,
            progress: BTreeMap::new(),
            notified: 0,
            groups: None,
            asked_groups: None,
            mark: None,
            asked_mark: None,
            ready: Vec::new(),
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
            // The executor follows whose BMCs cannot be read.
            Told::Unread(..) => {}
            Told::Service { host, forced_down, disabled } => {
                self.hosts.entry(host).or_default().service = Some((forced_down, disabled));
            }
            Told::Servers(host, list) => self.hosts.entry(host).or_default().servers = Some((now, list)),
            Told::Groups(groups) => {
                (self.groups, self.asked_groups) = (Some((now, Arc::new(ServerGroups::new(groups)))), None);
            }
            Told::Mark(read) => (self.unread, self.mark) = (read.is_err(), Some(read)),
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
            Told::Domains { host, listed, running, off, at } => {
                self.hosts.entry(host).or_default().domains = Some(Domains { listed, running, off, at });
            }
            Told::Compute(host, read) => self.hosts.entry(host).or_default().compute = Some((now, read)),
            Told::Progress { instance, remaining } => self.progress(instance, remaining, now),
            Told::Evacuated { instance, op, answer }
            | Told::Restarted { instance, op, answer }
            | Told::Migrated { instance, op, answer }
            | Told::Stopped { instance, op, answer } => {
                self.instances.entry(instance).or_default().answer = Some((op, answer));
            }
            Told::Crashed { host, instance } => self.stopped(host, instance),
            Told::Troubles(told) => self.troubled(told),
            Told::Strangers(strangers) => self.strange(strangers),
            Told::Health(host, ill) => self.liveness.health(host, ill, now),
            Told::Stalls(host, stalls) => self.liveness.stalls(host, stalls, now),
            Told::Nova { answered, failed } => {
                self.nova.retain(|(at, ..)| now < *at + pace::NOVA_FAILS);
                match self.nova.back_mut() {
                    Some((at, well, ill)) if *at == now => {
                        (*well, *ill) = (well.saturating_add(answered), ill.saturating_add(failed));
                    }
                    _ => self.nova.push_back((now, answered, failed)),
                }
            }
            Told::Absent { host, instance, at } => {
                self.instances.entry(instance).or_default().absent = Some((host, at));
            }
        }
    }

    /// More requests to Nova failed of late than were answered; those that failed.
    fn nova_fails(&self, now: u64) -> Option<u32> {
        let fresh = self.nova.iter().filter(|(at, ..)| now < at + pace::NOVA_FAILS);
        let (well, ill) = fresh.fold((0_u32, 0_u32), |(well, ill), (_, answered, failed)| {
            (well.saturating_add(*answered), ill.saturating_add(*failed))
        });
        (ill > well).then_some(ill)
    }

    /// T9: Nova fails. It is asked for the mark too, which is of no host and no instance, so that what is wrong with
    /// one of these alone stops nothing.
    fn is_nova_away(&self, now: u64) -> bool {
        self.unread && self.nova_fails(now).is_some_and(|failed| failed >= NOVA_FAILED)
    }

    /// A guest is said to have stopped by itself.
    fn stopped(&mut self, host: HostId, instance: Uuid) {
        if self.guests.len() < GUESTS {
            self.guests.insert(instance, host);
        }
    }

    /// What is due now. Called again and again: what was asked is not asked again before its pace says so,
    /// and what was proposed is in the state or is proposed again.
    pub fn step(&mut self, lead: &Lead<'_>) -> Vec<Due> {
        let mut due = Vec::new();
        self.look_for_mark(lead, &mut due);
        self.hear(lead);
        self.liveness.look(lead.now);
        self.look_for_common(lead);
        let ids: Vec<_> = lead.ha().hosts.iter().filter(|host| host.enabled).map(|host| host.id).collect();
        for id in ids {
            let Some(host) = lead.ha().hosts.get(id) else { continue };
            self.detect(host, lead, &mut due);
        }
        if lead.ha().small.epoch == lead.tables.counters().epoch {
            self.breakers(lead, &mut due);
            self.look_into_troubles(lead, &mut due);
            self.crashed(lead, &mut due);
            self.permits_follow(lead, &mut due);
            self.let_go(lead, &mut due);
            self.drains(lead, &mut due);
            let cases: Vec<_> = lead.ha().cases.iter().cloned().collect();
            for case in &cases {
                let Some(host) = lead.ha().hosts.get(case.id.host) else { continue };
                self.case(case, host, lead, &mut due);
            }
            self.plan(lead, &mut due);
            self.begin_in_turn(&cases, lead, &mut due);
        } else {
            self.read_to_the_end(lead, &mut due);
        }
        self.forget(lead);
        self.restrain(lead, due)
    }

    /// What monitors have notified since the last step goes to where signs of life go. What was said long before
    /// this leadership began is over.
    fn hear(&mut self, lead: &Lead<'_>) {
        let newest = lead.ha().small.notified;
        let unheard = |said: &&Notification| said.id > self.notified && lead.clock < said.at + pace::NOTIFIED;
        let mut said: Vec<_> = lead.ha().notified().take_while(unheard).collect();
        // Oldest first: the last word counts.
        said.reverse();
        for said in said {
            let Some(host) = said.host else { continue };
            match said.report {
                Report::Silent => self.liveness.report(host, false, lead.now),
                Report::Runs => self.liveness.report(host, true, lead.now),
                Report::ComputeDown => self.liveness.report_compute(host, false, lead.now),
                Report::ComputeUp => self.liveness.report_compute(host, true, lead.now),
                Report::Nothing => {
                    if let Some((host, instance)) = lead.ha().stopped(said) {
                        self.stopped(host, instance);
                    }
                }
            }
        }
        self.notified = newest;
    }

    /// What is of no open case, or of no host, any more.
    fn forget(&mut self, lead: &Lead<'_>) {
        self.liveness.keep(|id| lead.ha().hosts.get(id).is_some());
        self.looked.retain(|_, at| lead.now < *at + pace::BREAKER);
        self.begun.retain(|_, (_, at)| lead.now < *at + pace::REDUCED);
        self.granted.retain(|id, _| lead.ha().hosts.get(*id).is_some());
        self.booted.retain(|id, _| lead.ha().hosts.get(*id).is_some());
        let begun = |restart: &Restart| restart.well.is_none() || restart.is_to_move();
        let open = |instance| lead.ha().restarts.get(instance).is_some_and(begun);
        let guests = &self.guests;
        let asked: BTreeSet<_> =
            self.troubles.iter().filter(|(_, look)| !look.done).map(|((known, ..), _)| *known).collect();
        let (strangers, gone) = (&self.strangers, &self.gone);
        let strange = |instance| {
            strangers.range((instance, HostId::default())..).next().is_some_and(|((is, _), _)| *is == instance)
        };
        // Those of a host that comes back are read before anything is written about them.
        let returns = lead.ha().cases.iter().any(|case| case.phase == Phase::Returning);
        self.instances.retain(|instance, _| {
            let moving = lead.ha().moves.get(*instance).is_some();
            let known = moving || lead.ha().recoveries.get(*instance).is_some() || guests.contains_key(instance);
            known
                || returns
                || gone.asks(*instance)
                || open(*instance)
                || strange(*instance)
                || asked.contains(instance)
        });
        self.hosts.retain(|id, facts| {
            let watched = |host: &Host| host.belief.detection != Detection::Alive;
            let busy = lead.ha().restarts.iter().any(|known| begun(known) && known.life.host == *id);
            let case = lead.ha().cases.get(*id).is_some();
            let asked = facts.asked_domains > 0 && lead.now < facts.asked_domains + pace::REPLAN;
            let drained = lead.ha().drains.get(*id).is_some();
            busy || case || drained || asked || lead.ha().hosts.get(*id).is_some_and(|host| watched(host))
        });
    }

    /// The server groups, read once for all hosts that are planned. None: not yet. An answer that does not come is
    /// waited for as long as a call takes, and then the plan is made with those of before, or with none: whatever it
    /// says, Nova holds its own rule against each evacuation.
    fn groups(&mut self, lead: &Lead<'_>, due: &mut Vec<Due>) -> Option<Arc<ServerGroups>> {
        if let Some((_, groups)) = self.groups.as_ref().filter(|(at, _)| lead.now <= at + pace::REPLAN) {
            return Some(Arc::clone(groups));
        }
        match self.asked_groups {
            Some(asked) if lead.now < asked + pace::DEADLINE => None,
            Some(_) => {
                let groups = self.groups.take().map(|(_, groups)| groups).unwrap_or_default();
                (self.groups, self.asked_groups) = (Some((lead.now, Arc::clone(&groups))), None);
                Some(groups)
            }
            None => {
                self.asked_groups = Some(lead.now);
                due.push(Due::Call(Call::ListGroups));
                None
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

    /// Two reads of this leader that say off, far enough apart, of the right machine. An answer may be as late as a BMC may
    /// take for it: what came sooner after a sign of life, or long ago, is of another time.
    fn off_twice(&self, host: &Host, lead: &Lead<'_>) -> Option<Box<[PowerRead; 2]>> {
        let reads = &self.hosts.get(&host.id)?.reads;
        let (first, second) = (&reads.front()?.1, &reads.get(1)?.1);
        let heard = self.liveness.last(host.id);
        let of_now = |read: &PowerRead| {
            lead.now <= read.at.saturating_add(pace::OLD) && heard.is_none_or(|heard| read.at >= heard + super::SUSPECT)
        };
        let off =
            |read: &PowerRead| read.power == super::proof::Power::Off && host.machine.is(&read.machine) && of_now(read);
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
        // Those of this step are not in the state yet.
        let now = self.fenced.values().flatten().filter(|at| **at == lead.now).count();
        let turns = self.fenced.entry(host.places.az).or_default();
        turns.retain(|at| lead.now < *at + pace::FENCE_EVERY * pace::FENCE_BURST as u64);
        if fencing + now >= pace::FENCE_MOST || turns.len() >= pace::FENCE_BURST {
            return false;
        }
        turns.push_back(lead.now);
        true
    }

    /// Whether the recovery of a host may begin now. Where many are lost at once (T1 to T6) hosts are recovered one after
    /// another: those that are left are not flooded, and what was wrong about the deaths shows before all is moved.
    fn recovers_in_turn(&mut self, case: &Case, host: &Host, lead: &Lead<'_>) -> bool {
        let ha = lead.ha();
        let hindered = ha.paused(Act::Recover) > lead.clock || case.held(Act::Recover).is_some();
        if hindered || lead.mode(Some(host.id)) != Mode::Enforce {
            // It begins nothing, and takes no turn of another.
            return true;
        }
        let scopes = Scope::all_of(host).into_iter();
        let open: Vec<_> = scopes
            .filter(|scope| ha.is_reduced(*scope) || !scope.trips(ha.count(*scope, lead.clock)).is_empty())
            .collect();
        let free = |scope: &Scope| match self.begun.get(scope) {
            Some((other, at)) => *other == host.id || lead.now >= at + pace::REDUCED,
            None => true,
        };
        // One that a former leader began, or that began right before the breaker opened, is as close.
        let recent = |case: &&Arc<Case>| {
            let step = case.steps.iter().find(|step| step.phase == Phase::NovaDown);
            case.id.host != host.id && step.is_some_and(|step| lead.clock < step.at + pace::REDUCED)
        };
        let near = ha.cases.iter().filter(recent).filter_map(|case| ha.hosts.get(case.id.host));
        let near: Vec<_> = near.flat_map(|other| Scope::all_of(other)).collect();
        let begins = open.iter().all(|scope| free(scope) && !near.contains(scope));
        for scope in open.into_iter().filter(|_| begins) {
            if self.begun.get(&scope).is_none_or(|(other, _)| *other != host.id) {
                self.begun.insert(scope, (host.id, lead.now));
            }
        }
        begins
    }

    fn barrier(&self, intent: Uuid) -> Barrier {
        Barrier { leader: self.leader, intent, confirmed: 1_000, deadline: pace::DEADLINE }
    }

    /// Names something that this leader does for the `nth` time in a case.
    fn name(&self, of: Uuid, case: &Case, what: &str, nth: u64) -> Uuid {
        let Leader { term, node } = self.leader;
        Uuid::new_v5(&of, format!("{}/{what}/{term}/{node}/{nth}", case.id).as_bytes())
    }

    /// Asks a person, once for each reason.
    #[expect(clippy::unused_self, reason = "read beside the others")]
    fn ask(&self, case: &Case, reason: String, due: &mut Vec<Due>) {
        if case.needs_operator.is_none() {
            due.push(Due::Propose(Change::NeedsOperator { case: case.id, reason: Some(reason) }));
        }
    }

    /// The same, once it has stood where it stands for too long.
    fn ask_late(&self, case: &Case, lead: &Lead<'_>, due: &mut Vec<Due>, reason: &str) {
        if lead.clock > case.since.saturating_add(pace::STUCK) {
            self.ask(case, reason.to_owned(), due);
        }
    }

    fn go(case: &Case, to: Phase, due: &mut Vec<Due>) {
        due.push(Due::Propose(Change::CasePhase { case: case.id, from: case.phase, to }));
    }
}

fn source_of(case: &Case) -> Life {
    Life { host: case.id.host, incarnation: case.id.incarnation }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ha::liveness::{Digest, Heard, Timers};
    use crate::ha::policy::Mode;
    use crate::ha::proof::Power;
    use crate::ha::tests::bench::{Bench, boot, host, machine};

    /// Answers of a BMC, as each came: those that belong to a time when the host was heard prove nothing, nor do old ones.
    #[test]
    fn reads_of_a_bmc_are_of_their_time() {
        let bench = Bench::new();
        let cases = [
            ([20_000, 22_000], 22_500, true),
            ([20_000, 21_999], 22_500, false),
            ([15_999, 22_000], 22_500, false),
            ([8_000, 9_000], 22_500, false),
            ([20_000, 22_000], 80_001, false),
        ];
        for (reads, now, proves) in cases {
            let mut leader = Coordinator::new(bench.leader, Timers::default(), 0);
            let heard = [Heard { host: host(1), age: 0, boot: boot(1, 0), away: 0 }];
            leader.liveness.digest(&Digest { member: 1, in_quorum: true, blind: false, heard: &heard }, 10_000);
            for at in reads {
                let read = PowerRead { power: Power::Off, raw: "Off".to_owned(), machine: machine(1), at: 0 };
                leader.tell(Told::Power(host(1), read), at);
            }
            let proof = leader.off_twice(bench.host(1), &bench.lead(Mode::Enforce, now));
            assert_eq!(proof.is_some(), proves, "{reads:?} at {now}");
        }
    }
}
