//! What this node hears of hosts, in memory: signs of life from the agents that speak to it, and, on the
//! leader, from the other members. Outside of the log: only what the leader makes of it is proposed.
//!
//! Instants never leave a node: a digest carries ages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use scheduler::ha::HostId;
use scheduler::ha::coordinator::lease::{Ask, Grant};
use scheduler::ha::host::Degraded;
use scheduler::ha::liveness::{Heard, Says, Stall};
use scheduler::ha::order::Leader;
use scheduler::ha::trouble;
use uuid::Uuid;

use crate::clock;

mod said;

pub use said::{All, Domains, Guests, Held, Order, Overheard, Relayed, Seen};

/// Hosts that a node hears at most: as many as failover knows.
const HOSTS: usize = scheduler::ha::table::HOSTS;
/// Observations of others that wait for the leader; more are forgotten, oldest first: they are repeated.
const SEEN: usize = 65_536;
/// A member's digest is of no use when it is older.
const STALE: Duration = Duration::from_secs(3);
/// A host that was heard so lately says how it is.
const FRESH: Duration = Duration::from_secs(5);
/// Sessions of so long ago are those that a sweep may lose.
const SWEEP: Duration = Duration::from_mins(1);
/// Sessions that a member must have had before it can say that it lost them.
const SESSIONS: usize = 4;
/// That an agent holds a permit is remembered for so long.
const HELD: Duration = Duration::from_mins(10);
/// Crashes, asks and grants that wait; more are forgotten, oldest first: asks come again.
const WAITING: usize = 65_536;

#[derive(Debug)]
struct Listed {
    boot: Uuid,
    at: Instant,
    order: Order,
    /// By the host's clock.
    made: u64,
    guests: Guests,
}

/// The last sign of life of a host.
#[derive(Debug)]
struct Sign {
    at: Instant,
    boot: Uuid,
    /// The most that its clock said in that boot.
    clock: u64,
}

#[derive(Debug, Default)]
struct Memory {
    /// The leadership that this node has, and since when.
    leads: Option<(Leader, Instant)>,
    /// When hosts were last seen to run, by others than their agents.
    runs: BTreeMap<HostId, Instant>,
    signs: BTreeMap<HostId, Sign>,
    /// Hosts that said goodbye, and when they are to be back.
    away: BTreeMap<HostId, Instant>,
    seen: Vec<Seen>,
    /// The leader that was told last.
    tells: Option<u64>,
    /// Hosts whose list has not been told yet.
    untold: BTreeSet<HostId>,
    domains: BTreeMap<HostId, Listed>,
    ill: BTreeMap<HostId, Degraded>,
    held: BTreeMap<(HostId, Uuid), (Uuid, Instant)>,
    /// Of agents that speak to this node, not told yet.
    taken: Vec<Held>,
    /// Guests that crashed and were not started since, by their agents' lists.
    crashed: BTreeMap<HostId, BTreeSet<Uuid>>,
    /// Guests without a permit, by the same.
    strangers: BTreeMap<HostId, BTreeSet<Uuid>>,
    /// What befell guests, by the same, and until when it is told.
    troubles: BTreeMap<HostId, Vec<(Uuid, trouble::Kind, Option<Instant>)>>,
    /// Hosts whose list is to be made anew, as far as this node's agents were not told; what members have to be told.
    lists: BTreeSet<HostId>,
    wanted: BTreeMap<HostId, BTreeSet<u64>>,
    /// Where guests stand still, by the same.
    stalls: BTreeMap<HostId, Vec<Stall>>,
    /// Of agents that speak to this node, not told yet.
    asks: Vec<Ask>,
    /// What members told the leader.
    asked: Vec<(u64, Ask)>,
    /// Leases for agents that speak to this node.
    grants: BTreeMap<HostId, Grant>,
    /// Leases for those that speak to other members.
    relayed: BTreeMap<u64, Vec<(HostId, Grant)>>,
    members: BTreeMap<u64, (Instant, Overheard)>,
    /// When the leader took in what this node had heard.
    told: Option<Instant>,
}

/// What this node hears.
#[derive(Debug, Default)]
pub struct Ears(Mutex<Memory>);

/// Adds to what waits; the oldest goes first.
fn wait<T>(waiting: &mut Vec<T>, more: impl IntoIterator<Item = T>) {
    waiting.extend(more);
    let over = waiting.len().saturating_sub(WAITING);
    waiting.drain(..over);
}

/// What is so of a host from now on; none: nothing any more.
fn say<T>(of: &mut BTreeMap<HostId, T>, host: HostId, said: Option<T>) {
    match said {
        None => drop(of.remove(&host)),
        Some(said) if of.len() < HOSTS || of.contains_key(&host) => drop(of.insert(host, said)),
        Some(_) => {}
    }
}

impl Memory {
    fn hold(&mut self, held: impl IntoIterator<Item = Held>) {
        self.held.retain(|_, (_, at)| clock::since(*at) < HELD);
        for Held { host, boot, instance } in held {
            if self.held.len() < WAITING {
                self.held.insert((host, instance), (boot, clock::now()));
            }
        }
    }

    /// Takes a list in, unless a newer one is known: a session that stood still may have an old one, and tell it late. Of
    /// one boot the agent's own numbers say which is newer; of two boots, and of nodes that do not tell them, their ages.
    fn list(&mut self, domains: Domains) -> bool {
        let Domains { host, boot, age, order, made, instances, running, local, off } = domains;
        let now = clock::now();
        let at = now.checked_sub(Duration::from_millis(age)).unwrap_or(now);
        let newer = match self.domains.get(&host) {
            None => self.domains.len() < HOSTS,
            Some(known) if known.boot == boot && known.order.min(order) > Order::default() => {
                // An agent that has lost its memory counts its epochs anew; its host's clock goes on.
                let anew = order.0 < known.order.0 && known.made > 0;
                known.order < order || anew && known.made < made
            }
            Some(known) => known.at <= at,
        };
        if newer {
            let guests = Guests { listed: instances, running, local, off };
            self.domains.insert(host, Listed { boot, at, order, made, guests });
        }
        newer
    }

    /// Milliseconds since a list was made. What was long on its way is older than it says: its host's clock has gone on
    /// since then, as this node, or a member that told it, has heard.
    fn age(&self, host: HostId, listed: &Listed) -> u64 {
        let own = self.signs.get(&host).filter(|sign| sign.boot == listed.boot).map(|sign| sign.clock);
        let told = self.members.values().filter_map(|(_, told)| {
            // In the order of hosts, as they were told.
            let at = told.heard.binary_search_by_key(&host, |heard| heard.host).ok()?;
            (told.heard.get(at)?.boot == listed.boot).then(|| told.clocks.get(at).copied())?
        });
        let clock = told.chain(own).max().unwrap_or(0);
        let gone = if listed.made > 0 { clock.saturating_sub(listed.made) } else { 0 };
        gone.max(millis(listed.at))
    }

    /// Half of the hosts that spoke to this node within a minute are silent: more likely it is deaf.
    fn is_blind(&self) -> bool {
        let lately = self.signs.values().map(|sign| clock::since(sign.at)).filter(|age| *age < SWEEP);
        let (all, lost) = lately.fold((0, 0), |(all, lost), age| (all + 1, lost + usize::from(age >= FRESH)));
        all >= SESSIONS && lost * 2 >= all
    }
}

impl Ears {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A host has given a sign of life in that boot, when its own clock said so many milliseconds since then.
    pub fn heard(&self, host: HostId, boot: Uuid, clock: u64) {
        let mut memory = self.memory();
        if memory.signs.len() < HOSTS || memory.signs.contains_key(&host) {
            let known = memory.signs.get(&host).filter(|sign| sign.boot == boot);
            let clock = known.map_or(clock, |sign| sign.clock.max(clock));
            memory.signs.insert(host, Sign { at: clock::now(), boot, clock });
            memory.away.remove(&host);
        }
    }

    /// A host goes down on purpose, after its last sign of life, and is to be back within that time.
    pub fn goodbye(&self, host: HostId, back_in: Duration) {
        let mut memory = self.memory();
        if memory.signs.contains_key(&host) {
            memory.away.insert(host, clock::now() + back_in);
        }
    }

    /// How long a host that went down on purpose may still be away, as far as this node, or a member that told it, knows.
    pub fn away(&self, host: HostId) -> Option<Duration> {
        let memory = self.memory();
        let own = memory.away.get(&host).map(|until| left(*until));
        let told = memory.members.values().filter_map(|(at, told)| {
            let heard = told.heard.iter().find(|heard| heard.host == host)?;
            Some(Duration::from_millis(heard.away).saturating_sub(clock::since(*at)))
        });
        told.chain(own).max().filter(|left| !left.is_zero())
    }

    /// How a host says that it is.
    pub fn health(&self, host: HostId, ill: Degraded) {
        say(&mut self.memory().ill, host, (!ill.is_empty()).then_some(ill));
    }

    /// Guests of a host that crashed by themselves and were not started since: all of them.
    pub fn crashed(&self, host: HostId, instances: BTreeSet<Uuid>) {
        say(&mut self.memory().crashed, host, (!instances.is_empty()).then_some(instances));
    }

    /// Guests of a host that begin, or run, without a permit there: all of them.
    pub fn strangers(&self, host: HostId, instances: BTreeSet<Uuid>) {
        say(&mut self.memory().strangers, host, (!instances.is_empty()).then_some(instances));
    }

    /// What befell guests of a host and is so still, or is told until then: all of it.
    pub fn troubles(&self, host: HostId, troubles: Vec<(Uuid, trouble::Kind, Option<Instant>)>) {
        say(&mut self.memory().troubles, host, (!troubles.is_empty()).then_some(troubles));
    }

    /// For the leader: the domains of a host are to be listed anew, by the agent that speaks to one of the members.
    pub fn list_anew(&self, host: HostId) {
        let mut memory = self.memory();
        let members = memory.members.keys().copied().collect();
        memory.wanted.insert(host, members);
        memory.lists.insert(host);
    }

    /// Whether the agent of a host, which speaks to this node, is to list its domains anew. It is said once.
    pub fn wants_list(&self, host: HostId) -> bool {
        self.memory().lists.remove(&host)
    }

    /// Where guests of a host stand still for I/O errors: all of it.
    pub fn stalls(&self, host: HostId, stalls: Vec<Stall>) {
        say(&mut self.memory().stalls, host, (!stalls.is_empty()).then_some(stalls));
    }

    /// An agent that speaks to this node asks for a lease.
    pub fn ask(&self, ask: Ask) {
        wait(&mut self.memory().asks, [ask]);
    }

    /// The newest lease of a host whose agent speaks to this node. It is given once.
    pub fn grant(&self, host: HostId) -> Option<Grant> {
        self.memory().grants.remove(&host)
    }

    /// For the leader: a lease goes to the member that has the host's session.
    pub fn give(&self, own: u64, member: u64, host: HostId, grant: Grant) {
        let mut memory = self.memory();
        if member != own {
            wait(memory.relayed.entry(member).or_default(), [(host, grant)]);
        } else if memory.grants.len() < HOSTS || memory.grants.contains_key(&host) {
            memory.grants.insert(host, grant);
        }
    }

    /// For the leader: what goes to the agents of a member, which is about to be answered.
    pub fn relay(&self, member: u64) -> Relayed {
        let mut memory = self.memory();
        let grants = memory.relayed.remove(&member).unwrap_or_default();
        let asked = memory.wanted.iter_mut().filter_map(|(host, members)| members.remove(&member).then_some(*host));
        let lists = asked.collect();
        memory.wanted.retain(|_, members| !members.is_empty());
        Relayed { grants, lists }
    }

    /// What the leader has for agents that speak to this node.
    pub fn relayed(&self, relayed: Relayed) {
        let mut memory = self.memory();
        for host in relayed.lists {
            if memory.signs.contains_key(&host) {
                memory.lists.insert(host);
            }
        }
        for (host, grant) in relayed.grants {
            if memory.signs.contains_key(&host) {
                memory.grants.insert(host, grant);
            }
        }
    }

    /// An agent that speaks to this node has taken permits in.
    pub fn holds(&self, held: Vec<Held>) {
        let mut memory = self.memory();
        memory.hold(held.iter().copied());
        wait(&mut memory.taken, held);
    }

    /// Whether the agent of a host has taken the permit of an instance in, in that boot.
    pub fn is_held(&self, host: HostId, boot: Uuid, instance: Uuid) -> bool {
        self.memory().held.get(&(host, instance)).is_some_and(|(known, _)| *known == boot)
    }

    /// An observer has seen other hosts.
    pub fn seen(&self, seen: impl IntoIterator<Item = Seen>) {
        let mut memory = self.memory();
        for seen in seen {
            if seen.says == Says::Runs && (memory.runs.len() < HOSTS || memory.runs.contains_key(&seen.host)) {
                memory.runs.insert(seen.host, clock::now());
            }
            memory.seen.push(seen);
        }
        let over = memory.seen.len().saturating_sub(SEEN);
        memory.seen.drain(..over);
    }

    /// An agent that speaks to this node has listed all domains of its host.
    pub fn listed(&self, domains: Domains) {
        let (mut memory, host) = (self.memory(), domains.host);
        if memory.list(domains) {
            memory.untold.insert(host);
        }
    }

    /// Forgets hosts that are none.
    pub fn keep(&self, known: impl Fn(HostId) -> bool) {
        let mut memory = self.memory();
        memory.signs.retain(|host, _| known(*host));
        memory.away.retain(|host, _| known(*host));
        memory.domains.retain(|host, _| known(*host));
        memory.runs.retain(|host, _| known(*host));
        memory.untold.retain(|host| known(*host));
        memory.ill.retain(|host, _| known(*host));
        memory.crashed.retain(|host, _| known(*host));
        memory.strangers.retain(|host, _| known(*host));
        memory.troubles.retain(|host, _| known(*host));
        memory.lists.retain(|host| known(*host));
        memory.wanted.retain(|host, _| known(*host));
        memory.stalls.retain(|host, _| known(*host));
        memory.grants.retain(|host, _| known(*host));
    }

    /// The list of a host's domains and its age, if its agent gave one in that boot.
    pub fn domains(&self, host: HostId, boot: Uuid) -> Option<(Duration, Guests)> {
        let memory = self.memory();
        let listed = memory.domains.get(&host).filter(|listed| listed.boot == boot)?;
        Some((Duration::from_millis(memory.age(host, listed)), listed.guests.clone()))
    }

    /// Whether the last list of a host, of whatever boot, says that an instance wrote to a disk which no other host reaches.
    pub fn is_local(&self, host: HostId, instance: Uuid) -> bool {
        self.memory().domains.get(&host).is_some_and(|known| known.guests.local.contains(&instance))
    }

    /// Who is told from now on: another leader than before knows nothing of what was told once.
    pub(crate) fn tells(&self, leader: u64) {
        let mut memory = self.memory();
        if memory.tells != Some(leader) {
            memory.tells = Some(leader);
            memory.untold = memory.domains.keys().copied().collect();
        }
    }

    /// Whether this node hears so few of its agents that what it does not hear says nothing.
    pub fn is_blind(&self) -> bool {
        self.memory().is_blind()
    }

    /// Time since a host's last sign of life that this node, or a member that told it, has heard.
    pub fn age(&self, host: HostId) -> Option<Duration> {
        let memory = self.memory();
        let own = memory.signs.get(&host).map(|sign| clock::since(sign.at));
        let told = memory.members.values().filter_map(|(at, told)| {
            let heard = told.heard.iter().find(|heard| heard.host == host)?;
            Some(Duration::from_millis(heard.age) + clock::since(*at))
        });
        told.chain(own).min()
    }

    /// As whom this node leads; remembered, for it hears what members have heard from then on.
    pub(crate) fn leads(&self, leader: Option<Leader>) {
        let mut memory = self.memory();
        if memory.leads.map(|(known, _)| known) != leader {
            memory.leads = leader.map(|leader| (leader, clock::now()));
        }
    }

    /// Time since the youngest sign of life of a host, of any kind, that this leader can exclude: what was seen before its
    /// leadership began it does not know.
    pub fn youngest(&self, host: HostId) -> Duration {
        let age = self.age(host);
        let memory = self.memory();
        let led = memory.leads.map_or(Duration::ZERO, |(_, since)| clock::since(since));
        let runs = memory.runs.get(&host).map(|at| clock::since(*at));
        age.into_iter().chain(runs).fold(led, Duration::min)
    }

    /// What is to be told the leader now. What is told once is forgotten.
    pub fn overheard(&self) -> Overheard {
        let mut memory = self.memory();
        let away = |host| memory.away.get(host).map_or(0, |until| left(*until).as_millis() as u64);
        let heard = memory.signs.iter().map(|(host, sign)| Heard {
            host: *host,
            age: millis(sign.at),
            boot: sign.boot,
            away: away(host),
        });
        let heard = heard.collect();
        let clocks = memory.signs.values().map(|sign| sign.clock).collect();
        let untold = std::mem::take(&mut memory.untold);
        let domains = untold.iter().filter_map(|host| {
            let listed = memory.domains.get(host)?;
            let Listed { boot, order, made, .. } = *listed;
            let Guests { listed: instances, running, local, off } = listed.guests.clone();
            let age = memory.age(*host, listed);
            Some(Domains { host: *host, boot, age, order, made, instances, running, local, off })
        });
        let domains = domains.collect();
        let fresh = |host| memory.signs.get(host).is_some_and(|sign| clock::since(sign.at) < FRESH);
        let ill = memory.ill.iter().filter(|(host, _)| fresh(host)).map(|(host, ill)| (*host, *ill)).collect();
        let blind = memory.is_blind();
        let crashed = memory.crashed.iter().filter(|(host, _)| fresh(host));
        let crashed = crashed.flat_map(|(host, all)| all.iter().map(|one| (*host, *one))).take(WAITING).collect();
        let strangers = memory.strangers.iter().filter(|(host, _)| fresh(host));
        let strangers = strangers.flat_map(|(host, all)| all.iter().map(|one| (*host, *one))).take(WAITING).collect();
        let now = clock::now();
        let told = |until: Option<Instant>| until.is_none_or(|until| now < until);
        let troubles = memory.troubles.iter().filter(|(host, _)| fresh(host));
        let troubles = troubles.flat_map(|(host, all)| all.iter().map(move |one| (host, one)));
        let troubles = troubles.filter(|(_, (.., until))| told(*until)).take(WAITING);
        let troubles = troubles.map(|(host, (instance, kind, _))| (*host, *instance, *kind)).collect();
        let stalls = memory.stalls.iter().filter(|(host, _)| fresh(host));
        let stalls = stalls.flat_map(|(host, all)| all.iter().map(|one| (*host, one.clone()))).take(WAITING).collect();
        let seen = std::mem::take(&mut memory.seen);
        let held = std::mem::take(&mut memory.taken);
        let asks = std::mem::take(&mut memory.asks);
        Overheard { heard, clocks, seen, domains, held, ill, crashed, strangers, troubles, stalls, asks, blind }
    }

    /// The leader has taken in what this node has heard.
    pub(crate) fn told(&self) {
        self.memory().told = Some(clock::now());
    }

    /// Whether it did so within this time.
    pub(crate) fn told_within(&self, within: Duration) -> bool {
        self.memory().told.is_some_and(|told| clock::since(told) < within)
    }

    /// Takes in what a member has heard.
    pub fn take(&self, member: u64, mut told: Overheard) {
        let now = clock::now();
        self.seen(told.seen.drain(..));
        let mut memory = self.memory();
        memory.hold(told.held.drain(..));
        wait(&mut memory.asked, told.asks.drain(..).map(|ask| (member, ask)));
        for domains in told.domains.drain(..) {
            memory.list(domains);
        }
        memory.members.insert(member, (now, told));
    }

    /// For the leader: what all members hear, and what they told since the last time.
    pub fn all(&self, own: u64) -> All {
        let mut mine = self.overheard();
        let mut memory = self.memory();
        memory.members.retain(|_, (at, _)| clock::since(*at) < STALE);
        let aged = |at: Instant, told: &Overheard| {
            let since = millis(at);
            let heard = told.heard.iter().map(|heard| Heard {
                age: heard.age + since,
                away: heard.away.saturating_sub(since),
                ..*heard
            });
            Overheard { heard: heard.collect(), ..told.clone() }
        };
        let mut members: Vec<_> =
            memory.members.iter().map(|(member, (at, told))| (*member, aged(*at, told))).collect();
        let mut asks = std::mem::take(&mut memory.asked);
        asks.extend(mine.asks.drain(..).map(|ask| (own, ask)));
        let seen = std::mem::take(&mut mine.seen);
        members.push((own, mine));
        All { members, seen, asks }
    }
}

/// Time until then.
fn left(until: Instant) -> Duration {
    until.saturating_duration_since(clock::now())
}

fn millis(at: Instant) -> u64 {
    clock::since(at).as_millis() as u64
}

#[cfg(test)]
mod tests;
