//! The BMCs of all hosts as observers: each is asked every two minutes, so that one that is broken is known before it
//! is needed. One that falls silent while others answer says something of its host; while none answer it is their network.

use std::collections::{BTreeMap, BTreeSet};

use scheduler::ha::HostId;
use scheduler::ha::host::{Host, Machine, Unfenced};
use scheduler::ha::liveness::Says;
use scheduler::ha::order::Change;
use scheduler::names::Sym;

/// Between two reads of one that nobody doubts, milliseconds: 120 s ± 20 %.
const EVERY: (u64, u64) = (96_000, 48_000);
/// Reads at once of those that nobody doubts.
const AT_ONCE: usize = 64;
/// One that answered so lately can be reached, milliseconds.
const REACHED: u64 = 30_000;
/// Others that must answer; all of them where there are fewer.
const WITNESSES: usize = 3;
/// Those that are asked for it: of the same cluster, and of others.
const ASKED: (usize, usize) = (2, 3);
/// Silent BMCs of doubted hosts for which others are asked at one time: more are one network.
const DOUBTED: usize = 64;
/// Between two questions to one.
const AGAIN: u64 = 3_000;
/// A read without an end counts as over, milliseconds.
const LOST: u64 = 60_000;
/// A host whose BMC gave no power state of it for so long could not be fenced, milliseconds.
const BROKEN: u64 = 900_000;
/// Between two reasons for that.
const REASON: u64 = 600_000;

/// Whose power state a read gave, or why there is none. None: it was not asked.
pub(super) type Read = Option<Result<Machine, String>>;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Bmcs {
    known: BTreeMap<HostId, Bmc>,
    doubted: BTreeSet<HostId>,
}

#[derive(Clone, Debug, Default)]
struct Bmc {
    due: u64,
    /// A read is under way since then, or was begun last.
    asked: Option<u64>,
    open: bool,
    answered: Option<u64>,
    silent: Option<u64>,
    /// What the last read came to, and when it was over.
    read: (Read, u64),
    /// Since when no read has given a state of its host.
    broken: Option<u64>,
    /// When a reason for that was proposed last.
    told: Option<u64>,
}

/// A host with a BMC.
#[derive(Clone, Copy, Debug)]
pub(super) struct Of {
    pub host: HostId,
    pub cluster: Sym,
    pub doubted: bool,
}

/// Who a host's BMC must say it is, and what the state has of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path<'a> {
    pub host: HostId,
    pub machine: &'a Machine,
    pub known: Option<&'a Unfenced>,
}

impl<'a> Path<'a> {
    pub(super) fn of(host: &'a Host) -> Self {
        Self { host: host.id, machine: &host.machine, known: host.unfenced.as_ref() }
    }
}

/// The same number for the same moment and host, and no order in it.
fn dice(host: HostId, now: u64) -> u64 {
    let id = host.0.as_u128();
    let mixed = (id as u64 ^ (id >> 64) as u64 ^ now).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed >> 20
}

impl Bmcs {
    /// A read begins; false: one is under way, whose answer is this one's too.
    pub(super) fn begin(&mut self, host: HostId, now: u64) -> bool {
        let bmc = self.known.entry(host).or_default();
        if bmc.open && bmc.asked.is_some_and(|asked| now < asked + LOST) {
            return false;
        }
        (bmc.open, bmc.asked) = (true, Some(now));
        bmc.due = now + EVERY.0 + dice(host, now) % EVERY.1;
        true
    }

    /// A read is over.
    pub(super) fn end(&mut self, host: HostId, read: Read, now: u64) {
        let Some(bmc) = self.known.get_mut(&host) else { return };
        bmc.open = false;
        let answered = matches!(read, Some(Ok(_)));
        if read.is_some() {
            bmc.read = (read, now);
        }
        if answered {
            (bmc.answered, bmc.silent) = (Some(now), None);
        } else {
            bmc.silent = bmc.silent.or(Some(now));
        }
    }

    /// Those that are to be read now, by this alone: what is doubted itself the coordinator asks.
    pub(super) fn due(&mut self, hosts: &[Of], now: u64) -> Vec<HostId> {
        let all: BTreeSet<_> = hosts.iter().map(|of| of.host).collect();
        self.known.retain(|host, _| all.contains(host));
        for of in hosts {
            let first = || Bmc { due: now + dice(of.host, now) % (EVERY.0 + EVERY.1), ..Bmc::default() };
            self.known.entry(of.host).or_insert_with(first);
        }
        self.doubted = hosts.iter().filter(|of| of.doubted).map(|of| of.host).collect();
        let mut ask = BTreeSet::new();
        let free = |bmc: &Bmc| !bmc.open && bmc.asked.is_none_or(|asked| now >= asked + AGAIN);
        let silent = |of: &&Of| of.doubted && self.known[&of.host].silent.is_some();
        for of in hosts.iter().filter(silent).take(DOUBTED) {
            // Others each time, for those that were asked may be away for the same reason.
            let from = (dice(of.host, now / AGAIN) as usize) % hosts.len();
            let (mut near, mut far) = ASKED;
            for other in hosts[from..].iter().chain(&hosts[..from]).filter(|other| !other.doubted) {
                let left = if other.cluster == of.cluster { &mut near } else { &mut far };
                if *left > 0 && other.host != of.host {
                    *left -= 1;
                    ask.extend(free(&self.known[&other.host]).then_some(other.host));
                }
                if near + far == 0 {
                    break;
                }
            }
        }
        let open = self.known.values().filter(|bmc| bmc.open).count() + ask.len();
        let due = self.known.iter().filter(|(host, bmc)| bmc.due <= now && free(bmc) && !self.doubted.contains(host));
        let mut due: Vec<_> = due.map(|(host, bmc)| (bmc.due, *host)).collect();
        due.sort_unstable();
        ask.extend(due.into_iter().take(AT_ONCE.saturating_sub(open)).map(|(_, host)| host));
        ask.into_iter().collect()
    }

    /// Hosts that cannot be fenced, as the reads of their BMCs say, or can again: what the state does not have yet.
    pub(super) fn paths<'a>(&mut self, hosts: impl Iterator<Item = Path<'a>>, now: u64) -> Vec<Change> {
        let path = |Path { host, machine, known }: Path<'_>| {
            let bmc = self.known.get_mut(&host)?;
            let why = match bmc.read.0.as_ref()? {
                Ok(read) if machine.is(read) => {
                    bmc.broken = None;
                    return known.map(|_| Change::FencePath { host, why: None, age: 0 });
                }
                Ok(read) => format!("its BMC is that of {read}, the inventory has {machine}"),
                Err(why) => why.clone(),
            };
            let age = now.saturating_sub(*bmc.broken.get_or_insert(bmc.read.1));
            let due = match known {
                None => age >= BROKEN,
                Some(known) => known.why != why && bmc.told.is_none_or(|at| now >= at + REASON),
            };
            due.then(|| {
                bmc.told = Some(now);
                Change::FencePath { host, why: Some(why), age }
            })
        };
        hosts.filter_map(path).collect()
    }

    /// What they say of hosts that are doubted. A power that is on says nothing: powered is not running.
    pub(super) fn say(&self, now: u64) -> Vec<(HostId, Says)> {
        let fresh = self.known.values().filter_map(|bmc| bmc.answered).filter(|at| now < at + REACHED);
        let mut fresh: Vec<_> = fresh.collect();
        fresh.sort_unstable();
        let enough = WITNESSES.min(self.known.len().saturating_sub(1)).max(1);
        let says = |host: &HostId| {
            // Only what answered since is a witness: before, the network may have been whole.
            let since = self.known.get(host)?.silent?;
            let since = fresh.len() - fresh.partition_point(|at| *at <= since);
            Some(if since >= enough { Says::Silent } else { Says::Nothing })
        };
        self.doubted.iter().map(|host| (*host, says(host).unwrap_or(Says::Nothing))).collect()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn host(n: usize) -> HostId {
        HostId(Uuid::from_u128(n as u128 * 0x1_0000_0001))
    }

    fn read(answers: bool) -> Result<Machine, String> {
        if answers { Ok(Machine::default()) } else { Err("no answer".to_owned()) }
    }

    fn hosts(count: usize, doubted: &[usize]) -> Vec<Of> {
        let of = |n| Of { host: host(n), cluster: Sym::of(0), doubted: doubted.contains(&n) };
        (0..count).map(of).collect()
    }

    #[test]
    fn all_are_read_every_two_minutes_and_few_at_once() {
        let (mut bmcs, hosts) = (Bmcs::default(), hosts(1_000, &[]));
        let mut reads: BTreeMap<HostId, Vec<u64>> = BTreeMap::new();
        for now in (0..600_000).step_by(500) {
            let due = bmcs.due(&hosts, now);
            assert!(due.len() <= AT_ONCE);
            for host in due {
                assert!(bmcs.begin(host, now) && !bmcs.begin(host, now));
                reads.entry(host).or_default().push(now);
                bmcs.end(host, Some(read(true)), now);
            }
        }
        assert_eq!(reads.len(), 1_000);
        for times in reads.values() {
            assert!(times[0] <= 144_500 && times.windows(2).all(|two| (96_000..=145_000).contains(&(two[1] - two[0]))));
        }
    }

    /// `answers` of the others do, from `since` on; what is said of the silent one after half a minute more.
    fn said(count: usize, answers: usize, since: u64) -> Says {
        let (mut bmcs, hosts) = (Bmcs::default(), hosts(count, &[0]));
        let mut said = Says::Nothing;
        for now in (0..160_000).step_by(500) {
            if now % 3_000 == 0 && bmcs.begin(host(0), now) {
                bmcs.end(host(0), Some(read(now < 100_000)), now);
            }
            for due in bmcs.due(&hosts, now) {
                assert!(bmcs.begin(due, now));
                let answers = now < 100_000 || now >= since && (1..=answers).any(|n| due == host(n));
                bmcs.end(due, Some(read(answers)), now);
            }
            said = bmcs.say(now)[0].1;
            assert!(said == Says::Nothing || now > 100_000.max(since), "{now}");
        }
        said
    }

    #[test]
    fn a_silent_bmc_says_no_when_three_others_answer_after_it_fell_silent() {
        assert_eq!(said(12, 11, 0), Says::Silent);
        assert_eq!(said(12, 3, 0), Says::Silent);
        assert_eq!(said(12, 2, 0), Says::Nothing);
        // What answered before is no witness: the network of all of them may be away.
        assert_eq!(said(60, 59, 200_000), Says::Nothing);
        assert_eq!(said(12, 11, 130_000), Says::Silent);
        // A small estate: all of the others.
        assert_eq!(said(3, 2, 0), Says::Silent);
        assert_eq!(said(3, 1, 0), Says::Nothing);
        assert_eq!(said(1, 0, 0), Says::Nothing);
    }

    #[test]
    fn a_host_that_its_bmc_could_not_fence_for_a_quarter_of_an_hour_is_told_with_why() {
        let machine = |n: u128| Machine { uuid: Some(Uuid::from_u128(n)), serial: None };
        let (mut bmcs, own) = (Bmcs::default(), machine(1));
        let mut read = |known: Option<&Unfenced>, read: Result<Machine, &str>, at: u64| {
            bmcs.begin(host(1), at);
            bmcs.end(host(1), Some(read.map_err(str::to_owned)), at);
            bmcs.paths([Path { host: host(1), machine: &own, known }].into_iter(), at).pop()
        };
        let path = |why: Option<&str>, age| Some(Change::FencePath { host: host(1), why: why.map(str::to_owned), age });
        assert_eq!(read(None, Ok(machine(1)), 0), None);
        assert_eq!(read(None, Err("no answer"), 100_000), None);
        assert_eq!(read(None, Err("no answer"), 999_999), None);
        // One read that goes well ends it.
        assert_eq!(read(None, Ok(machine(1)), 1_000_000), None);
        assert_eq!(read(None, Ok(machine(2)), 1_100_000), None);
        let other = format!("its BMC is that of {}, the inventory has {}", machine(2), machine(1));
        assert_eq!(read(None, Ok(machine(2)), 2_000_000), path(Some(&other), 900_000));
        let known = Some(&Unfenced { why: other, since: 0 });
        // Another reason is told, and not each minute.
        assert_eq!(read(known, Err("refuses user"), 2_100_000), None);
        assert_eq!(read(known, Err("refuses user"), 2_600_000), path(Some("refuses user"), 1_500_000));
        assert_eq!(read(known, Ok(machine(1)), 2_700_000), path(None, 0));
    }
}
