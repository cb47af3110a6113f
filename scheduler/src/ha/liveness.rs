//! What the leader sees of hosts, in its own memory: ages, suspicion by the usual rhythm of a host, groups
//! of observers, and how long they have said no. All of it dies with a leadership, and the next leader
//! starts every timer anew: a change of leader makes a detection later, never earlier.
//!
//! Never here: a proof. What is known here may begin a suspicion or delay an act.
//!
//! Times are milliseconds of the leader's monotonic clock, which counts suspend; nothing is compared with
//! the clock of another machine: digests carry ages.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::host::{Degraded, Detection, Host, HostId};
use super::order::{Groups, Leader};

/// Timers, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Least and most of the silence that makes a host suspect.
    pub suspect: (u64, u64),
    /// Continuous negative evidence after that.
    pub confirm: u64,
    /// Positive evidence that ends a suspicion.
    pub stable: u64,
    /// A new leader suspects nobody for so long.
    pub warmup: u64,
    /// After a boot nobody is suspected for so long.
    pub boot_grace: u64,
    /// A sign of life of a group is fresh for so long.
    pub fresh: u64,
    /// It speaks against the silence of the management group when it is newer by so much: an interval of
    /// the storage heartbeat.
    pub newer: u64,
    /// So many suspicions in `flap_window` make a host degraded.
    pub flap_limit: usize,
    /// See `flap_limit`.
    pub flap_window: u64,
    /// What an agent says is wrong counts after so long.
    pub ill: u64,
    /// A new leader evacuates nothing for so long: calls of the former one may still be on their way.
    pub quiet: u64,
    /// A longer gap between two looks: the process slept, and knows nothing of the time between.
    pub slept: u64,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            suspect: (super::SUSPECT, 10_000),
            confirm: super::CONFIRM,
            stable: 30_000,
            warmup: 20_000,
            boot_grace: 300_000,
            fresh: 15_000,
            newer: 5_000,
            flap_limit: 3,
            flap_window: 3_600_000,
            ill: 60_000,
            quiet: 15_000,
            slept: 1_000,
        }
    }
}

/// Ages that differ by less are of one sign of life, milliseconds.
const SAME: u64 = 500;
/// Intervals between signs of life that are remembered of a host.
const INTERVALS: usize = 200;
/// Guests that came to a stand within so long did so at once, milliseconds.
const STALLING: u64 = 60_000;
/// Moments at which guests of a host came to a stand that are remembered.
const STALLS: usize = 256;
/// Hosts that must see a storage heartbeat stand still, or not reach a host.
const READERS: usize = 2;
/// What agents say is wrong.
const ILLS: [Degraded; 2] = [Degraded::LIBVIRT, Degraded::COMPUTE];
/// Fewer tell nothing of its rhythm.
const ENOUGH: usize = 10;
/// Standard deviations at which φ is 8: the normal distribution leaves 10⁻⁸ above it.
const PHI_8: f64 = 5.612;
/// Least standard deviation, milliseconds.
const LEAST_DEVIATION: f64 = 100.0;

/// The rhythm of a host, for phi-accrual detection (Hayashibara et al., 2004):
/// φ(t) = −log₁₀(1 − F(t − t_last)) with F normal(μ, max(σ, 100 ms)) over the last 200 intervals. φ ≥ 8 is
/// t − t_last ≥ μ + 5.612 σ, so that no quantile need be computed at run time.
#[derive(Clone, Debug, Default)]
struct Rhythm {
    intervals: VecDeque<u32>,
    sum: u64,
    squares: u64,
}

impl Rhythm {
    fn beat(&mut self, interval: u64) {
        // A gap of a minute is no rhythm.
        let interval = interval.min(60_000) as u32;
        if self.intervals.len() >= INTERVALS
            && let Some(oldest) = self.intervals.pop_front()
        {
            self.sum -= u64::from(oldest);
            self.squares -= u64::from(oldest).pow(2);
        }
        self.intervals.push_back(interval);
        self.sum += u64::from(interval);
        self.squares += u64::from(interval).pow(2);
    }

    /// Silence at which φ is 8, between the clamps.
    fn suspect(&self, (least, most): (u64, u64)) -> u64 {
        if self.intervals.len() < ENOUGH {
            return most;
        }
        let count = self.intervals.len() as f64;
        let mean = self.sum as f64 / count;
        let variance = (self.squares as f64 / count - mean * mean).max(0.0);
        let silence = mean + PHI_8 * variance.sqrt().max(LEAST_DEVIATION);
        (silence as u64).clamp(least, most)
    }
}

/// What is known of one host.
#[derive(Clone, Debug, Default)]
struct Watch {
    /// The last sign of life of the management group.
    last: Option<u64>,
    /// When somebody else said that it is gone: its usual rhythm is not waited for then.
    reported: Option<u64>,
    rhythm: Rhythm,
    boot: Option<Uuid>,
    /// The member that heard it last, and until when that member was blind: what it did not hear says nothing.
    member: u64,
    void: u64,
    /// No suspicion before.
    grace: u64,
    /// It went down on purpose, and is not missed before.
    away: u64,
    /// The last positive of another group, and since when it says no.
    storage: Voice,
    data: Voice,
    out_of_band: Voice,
    /// The last two hosts that saw its storage heartbeat stand still, and that did not reach it themselves, and when.
    naysayers: [Vec<(HostId, u64)>; 2],
    /// Since when enough says no without a break.
    against: Option<u64>,
    /// Since when the management group is heard without a break.
    heard: Option<u64>,
    /// Its guests that stand still, since when that is no backend's fault, and when which number of them came to it.
    stalls: Option<Vec<Stall>>,
    stalled: Option<u64>,
    stalling: VecDeque<(u64, String, u32)>,
    /// When it was suspected.
    suspicions: VecDeque<u64>,
    /// Since when its agent says that something is wrong: libvirt, nova-compute.
    ill: [Option<u64>; 2],
    /// Somebody has said how it is in that, to this leader.
    told: [bool; 2],
}

/// A group of observers.
#[derive(Clone, Copy, Debug, Default)]
struct Voice {
    positive: Option<u64>,
    /// Since when, and when it was said last.
    negative: Option<u64>,
    denied: u64,
}

/// What a group says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Says {
    /// The host runs.
    Runs,
    /// It does not, and those who say so are well themselves.
    Silent,
    /// Nothing is known.
    Nothing,
}

/// One host in a member's digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// The host.
    pub host: HostId,
    /// Milliseconds since its last sign of life, by the member's clock.
    pub age: u64,
    /// The boot that it named.
    pub boot: Uuid,
    /// It said goodbye, and is to be back within so many milliseconds; 0: it did not.
    #[serde(default)]
    pub away: u64,
}

/// Guests of a host that stand still for I/O errors, of those that write to one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    /// Where: `rbd:POOL`, `nfs:SERVER`, …; `local`: on the host alone.
    pub backend: String,
    /// Guests of the host that write there.
    pub guests: u32,
    /// Those of them that stand still.
    pub stalled: u32,
}

impl Stall {
    /// Where a host's own disks lie.
    pub const LOCAL: &str = "local";
    /// So many of a host are no chance.
    const MANY: u32 = 3;
    /// Or so many of a hundred.
    const SHARE: u32 = 30;

    fn is_much(&self) -> bool {
        self.stalled >= Self::MANY || self.stalled > 0 && self.stalled * 100 >= self.guests * Self::SHARE
    }
}

/// What a member of pallium has heard of its agents.
#[derive(Clone, Copy, Debug)]
pub struct Digest<'a> {
    /// Which member.
    pub member: u64,
    /// It is in contact with a majority. What another hears counts for nothing.
    pub in_quorum: bool,
    /// It lost half of its sessions in one sweep: what it does not hear is its own fault.
    pub blind: bool,
    /// Hosts.
    pub heard: &'a [Heard],
}

/// What the leader thinks of a host, and on what grounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opinion {
    /// What.
    pub detection: Detection,
    /// Groups that say no.
    pub groups: Groups,
    /// Silence of the management group, milliseconds; never more than the leadership is old.
    pub age: u64,
}

/// What one leader sees.
#[derive(Clone, Debug)]
pub struct Liveness {
    timers: Timers,
    /// When it began, or woke up.
    began: u64,
    looked: u64,
    blind: bool,
    /// A storage backend stands still.
    outage: bool,
    hosts: BTreeMap<HostId, Watch>,
}

impl Liveness {
    /// Of a leadership that begins now.
    pub fn new(timers: Timers, now: u64) -> Self {
        Self { timers, began: now, looked: now, blind: false, outage: false, hosts: BTreeMap::new() }
    }

    /// Time goes on. A process that slept begins anew: what it did not hear was its own fault.
    pub fn look(&mut self, now: u64) {
        if now.saturating_sub(self.looked) > self.timers.slept {
            self.began = now;
            self.forget();
        }
        self.looked = self.looked.max(now);
        let (silent, all) = self.hosts.values().fold((0_usize, 0_usize), |(silent, all), watch| {
            let age = self.age(watch, now);
            (silent + usize::from(age >= watch.rhythm.suspect(self.timers.suspect)), all + 1)
        });
        let blind = all > 4 && silent * 2 >= all;
        // When sight comes back every age starts at nothing.
        if self.blind && !blind {
            self.began = now;
            self.forget();
        }
        self.blind = blind;
        let (timers, began) = (self.timers, self.began);
        for watch in self.hosts.values_mut() {
            // An observer that says no more was right or wrong of that moment, and may be gone itself.
            for voice in [&mut watch.storage, &mut watch.data, &mut watch.out_of_band] {
                voice.negative = voice.negative.filter(|_| now.saturating_sub(voice.denied) < timers.fresh);
            }
            let groups = negatives(&timers, began, watch, now);
            let enough =
                groups.has(Groups::MANAGEMENT) && groups.count() >= super::GROUPS && !runs(&timers, watch, now);
            watch.against = if enough && !blind && now >= watch.away { watch.against.or(Some(now)) } else { None };
            if groups.has(Groups::MANAGEMENT) {
                watch.heard = None;
            }
        }
        self.look_for_stalls(now);
    }

    /// Guests that stand still are the fault of their host while those of all others that write to the same place go on;
    /// many of several hosts within a minute are the backend's.
    fn look_for_stalls(&mut self, now: u64) {
        let mut stalled: BTreeMap<String, u32> = BTreeMap::new();
        let mut stalling: BTreeMap<String, u32> = BTreeMap::new();
        for watch in self.hosts.values_mut() {
            let mut of_host: BTreeMap<&str, u32> = BTreeMap::new();
            watch.stalling.retain(|(at, ..)| now.saturating_sub(*at) < STALLING);
            for (_, backend, count) in watch.stalling.iter().filter(|(_, backend, _)| backend != Stall::LOCAL) {
                *of_host.entry(backend).or_default() += count;
            }
            for (backend, _) in of_host.into_iter().filter(|(_, count)| *count >= Stall::MANY) {
                *stalling.entry(backend.to_owned()).or_default() += 1;
            }
            for stall in watch.stalls.iter().flatten() {
                *stalled.entry(stall.backend.clone()).or_default() += u32::from(stall.stalled > 0);
            }
        }
        self.outage = stalling.values().any(|hosts| *hosts >= 2);
        for watch in self.hosts.values_mut() {
            let alone = |stall: &&Stall| stall.backend == Stall::LOCAL || stalled.get(&stall.backend) == Some(&1);
            let own = watch.stalls.iter().flatten().filter(|stall| stall.is_much()).any(|stall| alone(&stall));
            watch.stalled = watch.stalled.or(Some(now)).filter(|_| own);
        }
    }

    /// T8: a storage backend stands still, by the guests that came to wait for it.
    pub fn is_outage(&self) -> bool {
        self.outage
    }

    fn suspected_of_late(&self, watch: &Watch, now: u64) -> bool {
        let Timers { flap_window, flap_limit, .. } = self.timers;
        watch.suspicions.iter().filter(|at| now.saturating_sub(**at) < flap_window).count() >= flap_limit
    }

    /// Others have seen its storage heartbeat stand still for long, or its guests do, and it is heard itself.
    fn lacks_storage(&self, watch: &Watch, now: u64) -> bool {
        let mut since = [watch.storage.negative, watch.stalled].into_iter().flatten();
        let long = since.any(|since| now.saturating_sub(since) >= self.timers.ill);
        long && self.age(watch, now) < patience(&self.timers, watch)
    }

    fn forget(&mut self) {
        for watch in self.hosts.values_mut() {
            (watch.against, watch.heard) = (None, None);
            (watch.storage.negative, watch.data.negative, watch.out_of_band.negative) = (None, None, None);
        }
    }

    /// Forgets hosts that are none.
    pub fn keep(&mut self, known: impl Fn(HostId) -> bool) {
        self.hosts.retain(|id, _| known(*id));
    }

    /// Most hosts are silent at once: more likely we are (T7).
    pub fn is_blind(&self) -> bool {
        self.blind
    }

    /// Whether calls of a former leader may still be on their way.
    pub fn is_quiet(&self, now: u64) -> bool {
        now < self.began + self.timers.quiet
    }

    /// When this leadership began, or woke up.
    pub fn began(&self) -> u64 {
        self.began
    }

    /// Takes in what a member has heard. The age of a host is the least of all members'.
    pub fn digest(&mut self, digest: &Digest<'_>, now: u64) {
        if !digest.in_quorum {
            return;
        }
        if digest.blind {
            for watch in self.hosts.values_mut().filter(|watch| watch.member == digest.member) {
                (watch.void, watch.against) = (now, None);
            }
        }
        for heard in digest.heard {
            let at = now.saturating_sub(heard.age);
            let watch = self.hosts.entry(heard.host).or_default();
            if watch.boot != Some(heard.boot) {
                // Its rhythm is another after a boot; the first boot heard is not known to be new.
                if watch.boot.is_some() {
                    watch.grace = now + self.timers.boot_grace;
                    watch.rhythm = Rhythm::default();
                }
                watch.boot = Some(heard.boot);
            }
            // What it said last counts, whichever member heard it.
            if watch.last.is_none_or(|last| at + SAME >= last) {
                watch.away = if heard.away > 0 { now + heard.away.min(super::AWAY) } else { 0 };
            }
            if watch.last.is_some_and(|last| last >= at) {
                continue;
            }
            if let Some(last) = watch.last {
                watch.rhythm.beat(at - last);
            }
            (watch.last, watch.member) = (Some(at), digest.member);
            watch.heard = watch.heard.or(Some(at));
            // Any sign of life begins the confirmation anew.
            watch.against = None;
        }
    }

    /// What one host has seen of another. That a storage heartbeat stands still, or that a host is not reached, is believed
    /// when two say so: what one alone cannot read or reach may be its own trouble. One that sees it run outweighs them.
    pub fn sight(&mut self, by: HostId, host: HostId, group: Groups, says: Says, now: u64) {
        if says == Says::Silent {
            let fresh = self.timers.fresh;
            let naysayers = &mut self.hosts.entry(host).or_default().naysayers[usize::from(group == Groups::DATA)];
            naysayers.retain(|(other, at)| *other != by && now.saturating_sub(*at) < fresh);
            naysayers.truncate(READERS - 1);
            naysayers.insert(0, (by, now));
            if naysayers.len() < READERS {
                return;
            }
        }
        self.observe(host, group, says, now);
    }

    /// What another group than the management's says of a host.
    pub fn observe(&mut self, host: HostId, group: Groups, says: Says, now: u64) {
        let watch = self.hosts.entry(host).or_default();
        let voice = match group {
            Groups::STORAGE => &mut watch.storage,
            Groups::DATA => &mut watch.data,
            Groups::OUT_OF_BAND => &mut watch.out_of_band,
            _ => return,
        };
        match says {
            // A power that is on proves nothing: powered is not running.
            Says::Runs if group == Groups::OUT_OF_BAND => voice.negative = None,
            Says::Runs => {
                *voice = Voice { positive: Some(now), ..Voice::default() };
                watch.against = None;
            }
            Says::Silent => (voice.negative, voice.denied) = (voice.negative.or(Some(now)), now),
            Says::Nothing => voice.negative = None,
        }
    }

    fn age(&self, watch: &Watch, now: u64) -> u64 {
        silence(watch, self.began, now)
    }

    /// Milliseconds since the last sign of life of any kind; none: there was none.
    pub fn youngest(&self, host: HostId, now: u64) -> Option<u64> {
        let watch = self.hosts.get(&host)?;
        let last = watch.last.into_iter().chain(watch.storage.positive).chain(watch.data.positive).max()?;
        Some(now.saturating_sub(last))
    }

    /// Whether a host has been silent long enough for its power state to matter: without warm-up, for a
    /// BMC that says `Off` is right whoever asks.
    pub fn is_silent(&self, host: HostId, now: u64) -> bool {
        let silent = |watch: &Watch| now >= watch.away && self.age(watch, now) >= patience(&self.timers, watch);
        self.hosts.get(&host).is_none_or(silent) && now.saturating_sub(self.began) >= self.timers.suspect.0
    }

    /// Whether a host has been suspected so often that it is not trusted.
    pub fn flaps(&self, host: HostId) -> bool {
        self.hosts.get(&host).is_some_and(|watch| watch.suspicions.len() >= self.timers.flap_limit)
    }

    /// The last sign of life of the management group, by this leader's clock.
    pub fn last(&self, host: HostId) -> Option<u64> {
        self.hosts.get(&host)?.last
    }

    /// What its agent says is wrong with a host, all of it.
    pub fn health(&mut self, host: HostId, ill: Degraded, now: u64) {
        let watch = self.hosts.entry(host).or_default();
        watch.told = [true; 2];
        for (since, what) in watch.ill.iter_mut().zip(ILLS) {
            *since = if ill.has(what) { since.or(Some(now)) } else { None };
        }
    }

    /// Where guests of a host stand still: all of it, as its agent lists them.
    pub fn stalls(&mut self, host: HostId, stalls: Vec<Stall>, now: u64) {
        let watch = self.hosts.entry(host).or_default();
        // What stood still before this leader heard of it is of no moment that it knows.
        if let Some(known) = &watch.stalls {
            for stall in &stalls {
                let before = known.iter().find(|other| other.backend == stall.backend).map_or(0, |stall| stall.stalled);
                let more = stall.stalled.saturating_sub(before);
                if more > 0 && watch.stalling.len() < STALLS {
                    watch.stalling.push_back((now, stall.backend.clone(), more));
                }
            }
        }
        watch.stalls = Some(stalls);
    }

    /// What is wrong with a host that lives, given what the state says is. What a former leader saw stays until
    /// this one has looked for as long.
    pub fn degraded(&self, host: HostId, known: Degraded, now: u64) -> Degraded {
        let Some(watch) = self.hosts.get(&host) else { return known };
        let timers = &self.timers;
        let watched = now.saturating_sub(self.began) >= timers.flap_window;
        let flaps = self.suspected_of_late(watch, now) || known.has(Degraded::FLAPS) && !watched;
        let mut degraded = if flaps { Degraded::FLAPS } else { Degraded::default() };
        let since = watch.storage.negative.or(watch.stalled).unwrap_or(self.began);
        let unseen = watch.storage.positive.is_none_or(|at| at < self.began);
        let young = unseen && now.saturating_sub(since) < timers.ill;
        if self.lacks_storage(watch, now) || known.has(Degraded::STORAGE) && young {
            degraded = degraded.and(Degraded::STORAGE);
        }
        if now < watch.away {
            degraded = degraded.and(Degraded::AWAY);
        }
        for ((since, told), what) in watch.ill.iter().zip(watch.told).zip(ILLS) {
            let long = since.is_some_and(|since| now.saturating_sub(since) >= timers.ill);
            if long || known.has(what) && (!told || since.is_some()) {
                degraded = degraded.and(what);
            }
        }
        degraded
    }

    /// Somebody who watches the host, and is neither its agent nor another group, says whether it runs. Any sign
    /// of life after that says more.
    pub fn report(&mut self, host: HostId, runs: bool, now: u64) {
        self.hosts.entry(host).or_default().reported = (!runs).then_some(now);
    }

    /// Somebody else than its agent says whether a host's nova-compute runs.
    pub fn report_compute(&mut self, host: HostId, runs: bool, now: u64) {
        let watch = self.hosts.entry(host).or_default();
        for ((since, told), _) in
            watch.ill.iter_mut().zip(&mut watch.told).zip(ILLS).filter(|(_, what)| *what == Degraded::COMPUTE)
        {
            (*since, *told) = (if runs { None } else { since.or(Some(now)) }, true);
        }
    }

    /// Notes that a host was suspected.
    pub fn suspected(&mut self, host: HostId, now: u64) {
        let window = self.timers.flap_window;
        let limit = self.timers.flap_limit;
        let watch = self.hosts.entry(host).or_default();
        watch.suspicions.retain(|at| now.saturating_sub(*at) < window);
        if watch.suspicions.len() >= limit {
            watch.suspicions.pop_front();
        }
        watch.suspicions.push_back(now);
    }

    /// What this leader thinks of a host now, given what is believed and by whom.
    pub fn opinion(&self, host: &Host, leader: Leader, now: u64) -> Opinion {
        let nobody = Watch::default();
        let watch = self.hosts.get(&host.id).unwrap_or(&nobody);
        let timers = &self.timers;
        let age = self.age(watch, now);
        let groups = negatives(timers, self.began, watch, now);
        let believed = host.belief.detection;
        let say = |detection| Opinion { detection, groups, age };
        let early = now < self.began + timers.warmup || now < watch.grace.max(watch.away) || self.blind;
        let silent = groups.has(Groups::MANAGEMENT);
        match believed {
            Detection::Dead => say(Detection::Dead),
            Detection::Alive if silent && !early && age >= super::SUSPECT => say(Detection::Suspect),
            Detection::Alive => say(Detection::Alive),
            // Believed by a former leader: as that leader left it, until it was watched here.
            Detection::Suspect | Detection::Isolated | Detection::Unreachable if !silent => {
                let stable = watch.heard.is_some_and(|since| now.saturating_sub(since) >= timers.stable);
                say(if stable || believed == Detection::Unreachable { Detection::Alive } else { believed })
            }
            Detection::Unreachable if host.belief.by != leader => say(Detection::Suspect),
            Detection::Unreachable => say(Detection::Unreachable),
            _ if runs(timers, watch, now) => say(Detection::Isolated),
            Detection::Isolated => say(Detection::Suspect),
            Detection::Suspect => {
                // Confirmed anew from the end of the warm-up on, whoever began to suspect.
                let warm = self.began + timers.warmup;
                let against = watch.against.is_some_and(|since| now.saturating_sub(since.max(warm)) >= timers.confirm);
                say(if against && !early { Detection::Unreachable } else { Detection::Suspect })
            }
        }
    }
}

/// Silence of the management group: never longer than the leadership, nor than its member was sound.
fn silence(watch: &Watch, began: u64, now: u64) -> u64 {
    now.saturating_sub(watch.last.unwrap_or(0).max(began).max(watch.void))
}

/// Silence of the management group that says something: by the host's rhythm, or the least that apply takes once
/// somebody has said that the host is gone.
fn patience(timers: &Timers, watch: &Watch) -> u64 {
    let reported = watch.reported.is_some_and(|at| watch.last.is_none_or(|last| last < at));
    if reported { timers.suspect.0 } else { watch.rhythm.suspect(timers.suspect) }
}

/// Whether another group sees the host run.
fn runs(timers: &Timers, watch: &Watch, now: u64) -> bool {
    // Newer than the silence: what was seen while the host was still heard does not contradict it.
    let silent = watch.last.unwrap_or(0) + timers.newer;
    let fresh = |voice: Voice| voice.positive.is_some_and(|at| at > silent && now.saturating_sub(at) < timers.fresh);
    fresh(watch.storage) || fresh(watch.data)
}

fn negatives(timers: &Timers, began: u64, watch: &Watch, now: u64) -> Groups {
    let age = silence(watch, began, now);
    let mut groups = Groups::default();
    if age >= patience(timers, watch) {
        groups = groups.and(Groups::MANAGEMENT);
    }
    let voices =
        [(watch.storage, Groups::STORAGE), (watch.data, Groups::DATA), (watch.out_of_band, Groups::OUT_OF_BAND)];
    for (voice, group) in voices {
        if voice.negative.is_some() {
            groups = groups.and(group);
        }
    }
    groups
}
