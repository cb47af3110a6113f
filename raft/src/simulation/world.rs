//! A simulated cluster: hosts, network, clients, and the rounds of storm and calm.
//!
//! In a storm things go wrong and clients go on. In a calm everything is mended; then every request
//! must be answered, every host must have the same state, and all that clients were told must be in it.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use scheduler::{Command, Levels, level};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::clients::{Client, FLEET};
use super::history::History;
use super::host::{Crash, Host};
use super::nemesis;
use super::net::{Net, Weather};
use super::random::Random;
use super::runtime::Tasks;
use super::trace::Trace;
use super::truth::Truth;
use crate::members::Change;
use crate::node::Node;
use crate::refused::Refused;

/// Voters at the start.
const VOTERS: u64 = 3;
/// Clients.
const CLIENTS: u64 = 8;
/// Claims made at once in a calm, all by one node.
const BURST: usize = 24;
/// From this calm on every host runs the new version.
const UPGRADED: u64 = 2;
/// The version before it.
const OLD: Levels = Levels { oldest: level::OLDEST, newest: level::OLDEST };
/// In a calm all must be well within this time.
const MENDED: Duration = Duration::from_mins(1);

/// A cluster. Clones share it.
#[derive(Clone)]
pub struct World(Arc<Inner>);

/// Its parts.
pub struct Inner {
    pub seed: u64,
    pub cluster: Uuid,
    pub folder: PathBuf,
    pub trace: Trace,
    pub history: History,
    pub truth: Truth,
    pub net: Net,
    /// Tasks of no host.
    pub tasks: Tasks,
    hosts: Mutex<BTreeMap<u64, Arc<Host>>>,
    made: AtomicUsize,
    calm: AtomicBool,
    /// Calms so far.
    calms: AtomicU64,
    busy: AtomicUsize,
}

impl Deref for World {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// Somebody is at work while this lives.
pub struct Busy(World);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

impl World {
    /// An empty one. Snapshots are kept in real files below `folder`.
    pub fn new(seed: u64, folder: PathBuf, print: bool) -> World {
        let trace = Trace::new(print);
        let inner = Inner {
            seed,
            cluster: Uuid::from_u128(0x5EED << 64 | u128::from(seed)),
            folder,
            history: History::new(trace.clone()),
            truth: Truth::new(trace.clone()),
            net: Net::new(Random::new(seed, 1), trace.clone()),
            trace,
            tasks: Tasks::default(),
            hosts: Mutex::default(),
            made: AtomicUsize::new(0),
            calm: AtomicBool::new(true),
            calms: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
        };
        World(Arc::new(inner))
    }

    /// Lives for a simulated time, or until a promise is broken.
    pub async fn live(&self, length: Duration) {
        let end = Instant::now() + length;
        let mut random = Random::new(self.seed, 2);
        self.begin_cluster().await;
        self.tasks.spawn(watch_leaders(self.clone()));
        let mut observer = Client::new(self.clone(), 0, Random::new(self.seed, 3));
        for host in 0..FLEET {
            observer.report(host, 6).await;
        }
        for number in 1..=CLIENTS {
            let client = Client::new(self.clone(), number, Random::new(self.seed, 100 + number));
            self.tasks.spawn(client.run());
        }
        while self.trace.is_whole() {
            self.calm.store(false, Ordering::Relaxed);
            let left = end.saturating_duration_since(Instant::now());
            let length = random.millis(15_000, 60_000).min(left);
            nemesis::storm(self, &mut random, length).await;
            self.mend().await;
            if Instant::now() >= end {
                break;
            }
        }
        self.tasks.abort();
    }

    async fn begin_cluster(&self) {
        for id in 1..=VOTERS {
            self.add_host(id == 1);
            self.start(id).await;
        }
        for id in 2..=VOTERS {
            self.insist(Change::Add { node: id, addr: address(id) }).await;
            self.insist(Change::Promote { node: id }).await;
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Host>>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_host(&self, founder: bool) -> u64 {
        let id = self.made.fetch_add(1, Ordering::Relaxed) as u64 + 1;
        self.all().insert(id, Arc::new(Host::new(self, id, founder)));
        id
    }

    fn host(&self, id: u64) -> Option<Arc<Host>> {
        self.all().get(&id).cloned()
    }

    /// All hosts there are.
    pub fn hosts(&self) -> Vec<u64> {
        self.all().keys().copied().collect()
    }

    /// Hosts that run.
    pub fn up(&self) -> Vec<u64> {
        self.all().values().filter(|host| host.node().is_some()).map(|host| host.id).collect()
    }

    /// Members that run: where clients ask.
    pub fn doors(&self) -> Vec<u64> {
        let (voters, learners) = self.members();
        let mut up = self.up();
        up.retain(|host| voters.contains(host) || learners.contains(host));
        up
    }

    /// The node of a host that runs, and where its work is done.
    pub fn seat(&self, id: u64) -> Option<(Node, Tasks)> {
        let host = self.host(id)?;
        Some((host.node()?, host.tasks()))
    }

    fn nodes(&self) -> Vec<(Arc<Host>, Node)> {
        let hosts: Vec<_> = self.all().values().cloned().collect();
        hosts.into_iter().filter_map(|host| host.node().map(|node| (host, node))).collect()
    }

    /// The host that decides, if one does.
    pub fn leader(&self) -> Option<u64> {
        self.nodes().iter().find(|(_, node)| node.status().ready).map(|(host, _)| host.id)
    }

    /// Voters and learners, as the host that knows most says. What is not committed does not count: a
    /// host may keep a change in its log that the cluster lost with a leader.
    pub fn members(&self) -> (Vec<u64>, Vec<u64>) {
        let known =
            self.nodes().into_iter().map(|(_, node)| node.local().metrics().committed_membership_config.clone());
        let Some(newest) = known.max_by_key(|membership| *membership.log_id()) else { return (vec![], vec![]) };
        let voters: Vec<u64> = newest.membership().voter_ids().collect();
        let learners = newest.membership().nodes().map(|(id, _)| *id).filter(|id| !voters.contains(id)).collect();
        (voters, learners)
    }

    /// The version that a host is started with. The cluster begins with the old one; until the second calm
    /// versions go up and down in storms as they like, as long as the new level is not reached. After
    /// that one in ten tries the old version where it is too late for it, and must refuse.
    pub fn program(&self, host: u64, life: u64, reached: u8) -> Levels {
        let mut random = Random::new(self.seed, 5_000 + (host << 32 | life));
        let (calms, calm) = (self.calms.load(Ordering::Relaxed), self.calm.load(Ordering::Relaxed));
        let early = self.reached().max(reached) < level::NEWEST && calms < UPGRADED;
        let old = match (early, calm) {
            (true, _) if host == 1 && life == 1 => true,
            (true, true) if calms > 0 => false,
            (true, _) => random.per_mille(500),
            (false, calm) => !calm && random.per_mille(100),
        };
        if old { OLD } else { Levels::PROGRAM }
    }

    /// Starts a host that does not run.
    pub async fn start(&self, id: u64) {
        if let Some(host) = self.host(id) {
            host.start(self).await;
        }
    }

    /// Crashes a host.
    pub fn crash(&self, id: u64, how: Crash) {
        if let Some(host) = self.host(id) {
            host.crash(self, how);
        }
    }

    /// Whether the disk of a host may rot: all others run, and none was lost before.
    pub fn may_rot(&self, id: u64) -> bool {
        let (voters, _) = self.members();
        let (up, all) = (self.up(), self.all());
        voters.len() > 2
            && voters.contains(&id)
            && voters.iter().all(|voter| *voter == id || up.contains(voter))
            && all.values().all(|host| !host.is_lost())
    }

    /// Sets the wall clock of a host.
    pub fn set_clock(&self, id: u64, step: i64) {
        if let Some(host) = self.host(id) {
            host.set_clock(step);
        }
    }

    /// From now on a sync takes up to so many milliseconds.
    pub fn slow_disk(&self, id: u64, most: u64) {
        if let Some(host) = self.host(id) {
            host.slow_disk(most);
        }
    }

    /// Has a host take a snapshot.
    pub fn snapshot(&self, id: u64) {
        if let Some((node, tasks)) = self.seat(id) {
            self.trace.event(format_args!("host {id} is told to take a snapshot"));
            tasks.spawn(async move { node.snapshot_now().await });
        }
    }

    /// Asks for a change of the membership, whatever becomes of it.
    pub fn change_later(&self, change: Change) {
        let (world, busy) = (self.clone(), self.busy());
        self.tasks.spawn(async move {
            world.change(change).await;
            drop(busy);
        });
    }

    /// Starts a new host and asks for it to be added.
    pub fn add_later(&self) {
        let node = self.add_host(false);
        let (world, busy) = (self.clone(), self.busy());
        self.tasks.spawn(async move {
            world.start(node).await;
            world.change(Change::Add { node, addr: address(node) }).await;
            drop(busy);
        });
    }

    /// Asks any host that runs for a change; true when it is made.
    async fn change(&self, change: Change) -> bool {
        let doors = self.doors();
        let any = || Random::new(self.seed, self.trace.sums().1).one_of(&doors);
        let Some((node, tasks)) = self.leader().or_else(any).and_then(|id| self.seat(id)) else { return false };
        let words = format!("{change:?}");
        let changed = timeout(Duration::from_secs(15), tasks.spawn(async move { node.change(change).await })).await;
        match changed {
            Ok(Ok(Ok(changed))) => {
                self.trace.event(format_args!("{words}: {changed:?}"));
                true
            }
            Ok(Ok(Err(refused))) => {
                self.trace.event(format_args!("{words}: {refused}"));
                false
            }
            _ => {
                self.trace.event(format_args!("{words}: no answer"));
                false
            }
        }
    }

    /// Asks for a change until it is made.
    async fn insist(&self, change: Change) {
        let end = Instant::now() + MENDED;
        while !self.change(change.clone()).await {
            if Instant::now() > end {
                self.trace.broken(format_args!("{change:?} cannot be made although all is well"));
                return;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// A client begins something, when no calm is wanted.
    pub async fn begin(&self) -> Busy {
        while self.calm.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(50)).await;
        }
        self.busy()
    }

    fn busy(&self) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }

    /// Whether answers to clients may be lost.
    pub fn loses_answers(&self) -> bool {
        !self.calm.load(Ordering::Relaxed)
    }

    /// Waits for something that must come when all is well.
    async fn must(&self, what: &str, mut is: impl FnMut() -> bool) -> bool {
        let end = Instant::now() + MENDED;
        while !is() {
            if Instant::now() > end {
                let hosts: Vec<String> = self.nodes().iter().map(|(host, node)| host.describe(node)).collect();
                self.trace.broken(format_args!("although all is well, {what}: {hosts:?}"));
                return false;
            }
            sleep(Duration::from_millis(20)).await;
        }
        true
    }

    /// Mends everything, and then all must be well.
    async fn mend(&self) {
        self.trace.event("calm");
        self.calm.store(true, Ordering::Relaxed);
        self.net.heal();
        self.net.set(Weather::CALM);
        let calms = self.calms.fetch_add(1, Ordering::Relaxed) + 1;
        let hosts: Vec<_> = self.all().values().cloned().collect();
        for host in hosts {
            let must_be_new = calms >= UPGRADED || self.reached() == level::NEWEST;
            if host.is_outdated(self) || (host.is_old() && must_be_new) {
                host.crash(self, Crash::Killed);
            }
        }
        for id in self.hosts() {
            self.slow_disk(id, 3);
            self.start(id).await;
        }
        let well = self.must("a request is not answered", || self.busy.load(Ordering::Relaxed) == 0).await
            && self.must("nobody leads", || self.leader().is_some()).await;
        if !well || !self.trace.is_whole() {
            return;
        }
        self.replace_lost().await;
        if !self.must("a host has stopped", || self.nodes().iter().all(|(_, node)| node.status().fatal.is_none())).await
        {
            return;
        }
        let low = || self.nodes().iter().any(|(_, node)| node.local().peers.me.level() < level::NEWEST);
        if calms >= UPGRADED && !self.must("the new level is not reached", || !low()).await {
            return;
        }
        self.note(calms).await;
        if !self.must("hosts have not applied the same", || self.is_level()).await {
            return;
        }
        self.check().await;
        self.burst().await;
        self.truth.forget_gone();
    }

    /// Removes hosts whose disk is lost and those that are no members, and has three voters again.
    async fn replace_lost(&self) {
        let lost: Vec<u64> = self.all().values().filter(|host| host.is_lost()).map(|host| host.id).collect();
        while self.members().0.iter().filter(|voter| !lost.contains(voter)).count() < VOTERS as usize {
            if !self.trace.is_whole() {
                return;
            }
            let (_, learners) = self.members();
            let ready = learners.into_iter().find(|learner| !lost.contains(learner));
            let node = if let Some(learner) = ready {
                learner
            } else {
                let node = self.add_host(false);
                self.start(node).await;
                self.insist(Change::Add { node, addr: address(node) }).await;
                node
            };
            self.insist(Change::Promote { node }).await;
        }
        for node in lost {
            self.insist(Change::Remove { node }).await;
        }
        if !self.must("a change of the membership does not end", || self.members_agree()).await {
            return;
        }
        let (voters, learners) = self.members();
        for id in self.hosts() {
            if !voters.contains(&id) && !learners.contains(&id) {
                self.crash(id, Crash::Killed);
                self.all().remove(&id);
                self.trace.event(format_args!("host {id} is taken away"));
            }
        }
    }

    fn members_agree(&self) -> bool {
        let (voters, learners) = self.members();
        self.nodes().iter().filter(|(host, _)| voters.contains(&host.id) || learners.contains(&host.id)).all(
            |(_, node)| {
                let membership = node.local().metrics().membership_config.clone();
                membership.membership().voter_ids().collect::<Vec<_>>() == voters
                    && membership.membership().get_joint_config().len() == 1
            },
        )
    }

    /// Whether all members run and have applied all that there is.
    fn is_level(&self) -> bool {
        let (voters, learners) = self.members();
        let up = self.up();
        if !voters.iter().chain(&learners).all(|member| up.contains(member)) {
            return false;
        }
        let applied: Vec<_> = self.nodes().iter().map(|(_, node)| node.status()).map(|s| (s.last, s.applied)).collect();
        applied.iter().all(|(last, applied)| last == applied) && applied.windows(2).all(|pair| pair[0].1 == pair[1].1)
    }

    /// Checks every host's state, and all that clients know against it.
    async fn check(&self) {
        let mut level = Vec::new();
        for (host, node) in self.nodes() {
            let (history, truth, id) = (self.history.clone(), self.truth.clone(), host.id);
            let look = move |core: &scheduler::Core| {
                history.check(id, core);
                truth.check(id, core);
                core.state().tables().counters().commands
            };
            level.extend(node.query(look).await.ok());
        }
        if level.windows(2).any(|pair| pair[0] != pair[1]) {
            self.trace.broken(format_args!("hosts at rest have applied {level:?} commands"));
        }
        self.trace.event(format_args!("at rest after {level:?} commands"));
    }

    /// A command of the new level is taken when that is reached, else refused.
    async fn note(&self, number: u64) {
        let Some((_, node)) = self.nodes().into_iter().find(|(_, node)| node.status().ready) else { return };
        let before = node.local().peers.me.level();
        let noted = timeout(MENDED, node.propose(Command::Note(number))).await;
        let after = node.local().peers.me.level();
        match noted {
            Ok(Ok(_)) if after == level::NEWEST => self.trace.event(format_args!("noted at level {after}")),
            Ok(Err(Refused::Conflict(why))) if before < level::NEWEST => {
                self.trace.event(format_args!("no note: {why}"))
            }
            noted => self.trace.broken(format_args!("a note at level {before} to {after}: {noted:?}")),
        }
    }

    /// The highest level that a host has seen.
    fn reached(&self) -> u8 {
        self.nodes().iter().map(|(_, node)| node.local().peers.me.level()).max().unwrap_or(0)
    }

    /// Many claims at once, with nothing in the way: each is decided once, for decisions see each
    /// other.
    async fn burst(&self) {
        let Some((leader, node)) = self.nodes().into_iter().find(|(_, node)| node.status().ready) else { return };
        let before = node.status();
        let random = Random::new(self.seed, self.trace.sums().1);
        let clients: Vec<_> = (0..BURST as u64)
            .map(|number| {
                let number = 1_000 + number + 100 * self.trace.sums().1;
                let mut client = Client::new(self.clone(), number, Random::new(random.clone().next(), number));
                let leader = leader.id;
                self.tasks.spawn(async move {
                    client.claim(Some(leader)).await;
                    client
                })
            })
            .collect();
        let mut done = Vec::new();
        for client in clients {
            match timeout(MENDED, client).await {
                Ok(Ok(client)) => done.push(client),
                _ => self.trace.broken("a claim is not answered although all is well"),
            }
        }
        let after = node.status();
        let decided = after.decided - before.decided;
        if after.term == before.term && after.ready && decided != BURST as u64 {
            self.trace.broken(format_args!(
                "{BURST} claims with nothing in their way were decided {decided} times: decisions do not see each other"
            ));
        }
        for mut client in done {
            client.release_all().await;
        }
    }
}

/// The address of a host.
pub fn address(id: u64) -> String {
    format!("host-{id}:1")
}

/// Looks all the time who leads.
async fn watch_leaders(world: World) {
    loop {
        for (host, node) in world.nodes() {
            host.watch(&node, &world.history);
        }
        sleep(Duration::from_millis(10)).await;
    }
}
