//! The loop of a leadership.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use raft::Node;
use raft::ears::Guests;
use scheduler::ha::HostId;
use scheduler::ha::coordinator::lease::{Ask, CONFIRMED};
use scheduler::ha::coordinator::{Answer, Barrier, Call, Coordinator, Due, Lead, Told};
use scheduler::ha::host::Detection;
use scheduler::ha::liveness::Timers;
use scheduler::ha::order::{Actor, Change, Done, Groups, Leader, Role};
use scheduler::ha::policy::Mode;
use scheduler::state::Tables;
use scheduler::{Core, Engine};
use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;

use super::bmcs::{Bmcs, Of, Path};
use super::targets::Ranked;
use super::{Gate, Hands, Settings, Tally, permits};

/// Between two steps.
const TICK: Duration = Duration::from_millis(500);
/// Steps that follow each other at once while each changes something.
const STEPS: usize = 16;
/// Orders that are proposed together.
const TOGETHER: usize = 256;
/// Calls at one time; what is more waits for its next turn.
const CALLS: usize = 256;
/// Answers that wait for the coordinator.
const ANSWERS: usize = 4_096;
/// Ticks between two looks at what runs where.
const PERMITS: u64 = 4;
/// A target's agent has so long to take a permit in before a migration is given up.
const PERMIT: Duration = Duration::from_secs(20);
/// An evacuation waits so long for it, and then goes on.
const EVACUATION: Duration = Duration::from_secs(3);
/// A guest that is still crashed is told again: a pause, or a former leader, may have lost it.
const CRASHED: u64 = 60_000;

/// Milliseconds of a clock that also counts while the machine sleeps.
fn boottime() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000
}

/// Runs until the node stops.
pub async fn run(node: Node, settings: Settings, hands: Arc<dyn Hands>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut leading: Option<Leading> = None;
    loop {
        interval.tick().await;
        if node.status().fatal.is_some() {
            return;
        }
        if !node.has_failover() {
            continue;
        }
        let Some(leader) = node.leadership() else {
            leading = None;
            node.tell_leader().await;
            continue;
        };
        if leading.as_ref().is_none_or(|leading| leading.leader != leader) {
            if settings.mode != Mode::Off {
                tracing::info!(term = leader.term, node = leader.node, "failover: this node's coordinator begins");
            }
            leading = Some(Leading::new(&node, leader, &settings, Arc::clone(&hands)));
        }
        if let Some(leads) = &mut leading
            && !leads.tick().await
        {
            leading = None;
        }
    }
}

/// A call, and what came of it.
type Answered = (Call, Option<Told>);

/// One leadership.
struct Leading {
    node: Node,
    leader: Leader,
    settings: Settings,
    hands: Arc<dyn Hands>,
    gate: Arc<Barriers>,
    coordinator: Option<Coordinator>,
    answers: (mpsc::Sender<Answered>, mpsc::Receiver<Answered>),
    calls: Arc<Semaphore>,
    bmcs: Bmcs,
    /// The tick in which it was seen which BMCs are to be read.
    surveyed: u64,
    /// Requests for leases, and the member that has each session.
    asks: Vec<(u64, Ask)>,
    /// It was told that hosts live on leases of a leader that does nothing else for them.
    warned: bool,
    /// Guests that are crashed, and when the coordinator was told.
    crashes: BTreeMap<(HostId, Uuid), u64>,
    ticks: u64,
    /// What had come of requests to Nova when the coordinator was told last.
    tally: Tally,
}

impl Leading {
    fn new(node: &Node, leader: Leader, settings: &Settings, hands: Arc<dyn Hands>) -> Self {
        let tally = hands.tally();
        Self {
            node: node.clone(),
            leader,
            settings: settings.clone(),
            hands,
            gate: Arc::new(Barriers { node: node.clone() }),
            coordinator: Some(Coordinator::new(leader, Timers::default(), boottime())),
            answers: mpsc::channel(ANSWERS),
            calls: Arc::new(Semaphore::new(CALLS)),
            bmcs: Bmcs::default(),
            surveyed: 0,
            asks: Vec::new(),
            warned: false,
            crashes: BTreeMap::new(),
            ticks: 0,
            tally,
        }
    }

    /// One round; false: this node leads no more.
    async fn tick(&mut self) -> bool {
        self.ticks += 1;
        self.listen();
        for _ in 0..STEPS {
            match self.step().await {
                None => return false,
                Some(false) => break,
                Some(true) => {}
            }
        }
        true
    }

    /// What was heard and answered goes to the coordinator.
    fn listen(&mut self) {
        let now = boottime();
        let Some(coordinator) = &mut self.coordinator else { return };
        while let Ok((call, told)) = self.answers.1.try_recv() {
            if let Call::ReadPower(host) = call {
                let read = match &told {
                    Some(Told::Power(_, read)) => Some(Ok(read.machine.clone())),
                    Some(Told::Unread(_, why)) => Some(Err(why.clone())),
                    _ => None,
                };
                self.bmcs.end(host, read, now);
            }
            if let Some(told) = told {
                coordinator.tell(told, now);
            }
        }
        let (before, tally) = (self.tally, self.hands.tally());
        let [answered, failed] = [tally.answered - before.answered, tally.failed - before.failed].map(|n| n as u32);
        coordinator.tell(Told::Nova { answered, failed }, now);
        self.tally = tally;
        let all = self.node.ears().all(self.leader.node);
        self.asks.extend(all.asks);
        if self.settings.mode == Mode::Off {
            return;
        }
        for (member, told) in &all.members {
            coordinator.liveness.digest(&told.digest(*member), now);
            for (host, ill) in told.health() {
                coordinator.tell(Told::Health(host, ill), now);
            }
            for (host, stalls) in told.stalled() {
                coordinator.tell(Told::Stalls(host, stalls), now);
            }
        }
        let crashed: BTreeSet<_> = all.members.iter().flat_map(|(_, told)| told.crashed.iter().copied()).collect();
        self.crashes.retain(|crash, _| crashed.contains(crash));
        for (host, instance) in crashed {
            let told = self.crashes.get(&(host, instance)).copied();
            if told.is_none_or(|at| now >= at + CRASHED) {
                self.crashes.insert((host, instance), now);
                coordinator.tell(Told::Crashed { host, instance }, now);
            }
        }
        let troubles = all.members.iter().flat_map(|(_, told)| told.troubles.iter().copied()).collect();
        coordinator.tell(Told::Troubles(troubles), now);
        let strangers = all.members.iter().flat_map(|(_, told)| told.strangers.iter().copied()).collect();
        coordinator.tell(Told::Strangers(strangers), now);
        for seen in all.seen {
            coordinator.liveness.sight(seen.by, seen.host, seen.group, seen.says, now);
        }
        for (host, says) in self.bmcs.say(now) {
            coordinator.liveness.observe(host, Groups::OUT_OF_BAND, says, now);
        }
    }

    /// One step; whether it changed anything. None: this node leads no more.
    async fn step(&mut self) -> Option<bool> {
        let off = self.settings.mode == Mode::Off;
        if off && self.asks.is_empty() {
            return Some(false);
        }
        let (tables, clock) = self.node.lead(|core, _| (core.state().tables().clone(), core.clock())).await.ok()?;
        let epoch = tables.counters().epoch;
        let mut due = Vec::new();
        if self.ticks % PERMITS == 1 && !off {
            due.extend(permits::first_seen(&tables, TOGETHER).into_iter().map(Due::Propose));
            due.extend(self.voters(&tables).map(Due::Propose));
            let known = tables.failover().clone();
            self.node.ears().keep(|host| known.hosts.get(host).is_some());
        }
        if self.surveyed != self.ticks && !off {
            self.surveyed = self.ticks;
            let hosts = tables.failover().hosts.iter().filter(|host| host.enabled && host.bmc.is_some());
            let hosts = hosts.map(|host| {
                let doubted = host.belief.detection != Detection::Alive;
                Of { host: host.id, cluster: host.places.cluster, doubted }
            });
            let reads = self.bmcs.due(&hosts.collect::<Vec<_>>(), boottime());
            due.extend(reads.into_iter().map(|host| Due::Call(Call::ReadPower(host))));
            let hosts = tables.failover().hosts.iter().map(|host| Path::of(host));
            due.extend(self.bmcs.paths(hosts, boottime()).into_iter().map(Due::Propose));
        }
        let asks = self.leases().await;
        // The coordinator looks at a consistent copy, away from the thread that decides.
        let mut coordinator = self.coordinator.take()?;
        let node = self.node.clone();
        let voters = voters_heard(&node);
        let (ceiling, cluster) = (self.settings.mode, node.identity().cluster);
        let stepped = tokio::task::spawn_blocking(move || {
            let targets = Ranked::new(&node, &tables);
            let (tables, voters, targets, now) = (&tables, &*voters, &targets, boottime());
            let lead = Lead { tables, voters, cluster, targets, ceiling, clock, now };
            // The leadership was confirmed for these just now; counted is from here, which is later.
            let granted = |(member, ask): (u64, Ask)| Some((member, ask.host, coordinator.grant(ask, 0, &lead)?));
            let grants: Vec<_> = asks.into_iter().filter_map(granted).collect();
            // Off is off: it grants, so that no host resets itself, and does nothing else.
            let due = if off { Vec::new() } else { coordinator.step(&lead) };
            (coordinator, due, grants)
        });
        let (coordinator, more, grants) = stepped.await.ok()?;
        if !grants.is_empty() && self.settings.mode != Mode::Enforce && !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(
                hosts = grants.len(),
                "hosts live on watchdog leases, and ha.mode of this node, which leads, is not enforce: they are granted, \
                 and nothing is done for a host that fails. Set ha.mode: enforce on every node, or end the leases first \
                 (leaseMode: off)"
            );
        }
        for (member, host, grant) in grants {
            self.node.ears().give(self.leader.node, member, host, grant);
        }
        self.coordinator = Some(coordinator);
        due.extend(more);
        let mut changes = Vec::new();
        for due in due {
            match due {
                Due::Propose(change) => changes.push(change),
                Due::Call(call) => self.call(call),
            }
        }
        self.propose(epoch, changes).await
    }

    /// Requests that may be granted: a majority has confirmed the leadership within a second.
    async fn leases(&mut self) -> Vec<(u64, Ask)> {
        let asks = std::mem::take(&mut self.asks);
        let confirmed = Duration::from_millis(CONFIRMED);
        if asks.is_empty() || !self.node.confirms(self.leader, confirmed).await {
            return Vec::new();
        }
        asks
    }

    /// Proposes in order, together; whether anything changed. None: this node leads no more.
    async fn propose(&self, epoch: u64, changes: Vec<Change>) -> Option<bool> {
        let mut anything = false;
        for together in changes.chunks(TOGETHER) {
            let orders = together.iter().map(|change| {
                let actor = Actor { role: Role::Coordinator, name: "coordinator".to_owned(), reason: String::new() };
                self.node.order_as(self.leader, epoch, actor, change.clone())
            });
            for (change, done) in together.iter().zip(futures::future::join_all(orders).await) {
                match done {
                    Ok(Ok(Done::Unchanged)) => {}
                    Ok(Ok(done)) => {
                        anything = true;
                        if let Change::WouldDo { case, what: Some(what) } = change {
                            tracing::info!(host = %case.host, would = what, "failover: not done in a dry run");
                        } else {
                            tracing::info!(change = change.name(), ?done, "failover");
                        }
                    }
                    Ok(Err(refusal)) => tracing::warn!(change = change.name(), %refusal, "failover: refused by apply"),
                    Err(refused) => {
                        tracing::warn!(change = change.name(), %refused, "failover: not committed");
                        if self.node.leadership() != Some(self.leader) {
                            return None;
                        }
                    }
                }
            }
        }
        Some(anything)
    }

    /// Begins a call. One that finds no place is asked for again by the coordinator.
    fn call(&mut self, call: Call) {
        let Ok(place) = Arc::clone(&self.calls).try_acquire_owned() else { return };
        if let Call::ReadPower(host) = call
            && !self.bmcs.begin(host, boottime())
        {
            return;
        }
        let (hands, tell) = (Arc::clone(&self.hands), self.answers.0.clone());
        let (node, gate): (Node, Arc<dyn Gate>) = (self.node.clone(), Arc::clone(&self.gate) as Arc<dyn Gate>);
        tokio::spawn(async move {
            let told = match call {
                Call::ListDomains(host) => domains(&node, host).await,
                Call::Migrate { instance, target, barrier, .. } if !may_arrive(&node, target, instance).await => {
                    Some(Told::Migrated { instance, op: barrier.intent, answer: Answer::Refused { forever: false } })
                }
                Call::Evacuate { instance, target, .. } => {
                    // Its own check would refuse the guest; the evacuation's time is not this one's to stop.
                    let _ = tokio::time::timeout(EVACUATION, may_arrive(&node, target, instance)).await;
                    hands.act(call, gate).await
                }
                call => hands.act(call, gate).await,
            };
            drop(place);
            let _ = tell.send((call, told)).await;
        });
    }

    /// What the voters stand on, if it is configured and not known yet.
    fn voters(&self, tables: &Tables) -> Option<Change> {
        let known = &tables.failover().small.voters;
        let same = known.len() == self.settings.voters.len()
            && known.iter().zip(&self.settings.voters).all(|(seat, voter)| {
                let text = |sym| tables.names.text(sym);
                seat.node == voter.node
                    && seat.host == voter.host
                    && text(seat.chassis) == voter.chassis
                    && text(seat.power) == voter.power
            });
        (!same && !self.settings.voters.is_empty()).then(|| Change::Voters(self.settings.voters.clone()))
    }
}

/// Voters that this leader hears: itself, and those that have acknowledged entries lately.
fn voters_heard(node: &Node) -> Vec<u64> {
    let status = node.status();
    let mut heard: Vec<u64> = status.lags.iter().map(|(node, _)| *node).collect();
    heard.push(status.node);
    heard.sort_unstable();
    heard.dedup();
    heard
}

/// Waits until the agent of a target lets an instance begin there: its check is asked by libvirt as soon as Nova
/// moves the guest. False: it has not said so in time, and nothing may be moved there.
async fn may_arrive(node: &Node, target: HostId, instance: Uuid) -> bool {
    let look = move |core: &mut Core, _: &mut Engine| {
        let tables = core.state().tables();
        let host = tables.failover().hosts.get(target)?;
        Some((host.boot?, host.unchecked))
    };
    let deadline = tokio::time::Instant::now() + PERMIT;
    while tokio::time::Instant::now() < deadline {
        match node.lead(look).await.ok().flatten() {
            Some((_, true)) => return true,
            Some((boot, _)) if node.ears().is_held(target, boot, instance) => return true,
            Some(_) => tokio::time::sleep(TICK / 2).await,
            None => return false,
        }
    }
    tracing::warn!(%target, %instance, "the target's agent has not taken the permit in: nothing is moved there");
    false
}

/// What a host's agent lists, in the host's present life.
async fn domains(node: &Node, host: HostId) -> Option<Told> {
    let look = move |core: &mut Core, _: &mut Engine| {
        Some((core.state().tables().failover().hosts.get(host)?.boot?, core.clock()))
    };
    let (boot, clock) = node.lead(look).await.ok().flatten()?;
    // What is known is told; the next is as old as the question.
    node.ears().list_anew(host);
    let (age, guests) = node.ears().domains(host, boot)?;
    let at = clock.saturating_sub(age.as_millis() as u64);
    let Guests { listed, running, off, .. } = guests;
    let (listed, running, off) = (Vec::from_iter(listed), Vec::from_iter(running), Vec::from_iter(off));
    Some(Told::Domains { host, listed, running, off, at })
}

/// The act barrier of this node.
struct Barriers {
    node: Node,
}

impl Gate for Barriers {
    fn passes(&self, barrier: Barrier) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(async move {
            let within = Duration::from_millis(barrier.confirmed);
            if !self.node.confirms(barrier.leader, within).await {
                return false;
            }
            let look = move |core: &mut Core, _: &mut Engine| {
                let tables = core.state().tables();
                barrier.holds(tables, core.clock())
            };
            self.node.lead(look).await.unwrap_or(false)
        })
    }
}
