//! The breaker: too many hosts at once are more likely our own blindness, or a storm that fencing would
//! make worse. It stops fencing, not the recovery of what is proven dead. What can be counted is counted
//! from the replicated state, inside apply.

use std::collections::{BTreeMap, BTreeSet};

use bitcode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::case::Cause;
use super::host::{Detection, Host, HostId, Maintenance};
use super::proof::Kind;
use super::stop::Stop;
use super::table::Failover;
use crate::names::Sym;

/// What a breaker is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Scope {
    /// Everything.
    Region,
    /// An availability zone.
    Az(Sym),
    /// A cell.
    Cell(Sym),
    /// A building block.
    Cluster(Sym),
}

/// The same by name.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScopeName {
    /// Everything.
    Region,
    /// An availability zone.
    Az(String),
    /// A cell.
    Cell(String),
    /// A building block.
    Cluster(String),
}

impl ScopeName {
    /// How people write one.
    pub const EXPECTED: &str = "region, az:NAME, cell:NAME or cluster:NAME";
}

impl std::fmt::Display for ScopeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Region => f.write_str("region"),
            Self::Az(name) => write!(f, "az:{name}"),
            Self::Cell(name) => write!(f, "cell:{name}"),
            Self::Cluster(name) => write!(f, "cluster:{name}"),
        }
    }
}

impl std::str::FromStr for ScopeName {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        match given.split_once(':') {
            None if given == "region" => Ok(Self::Region),
            Some(("az", name)) => Ok(Self::Az(name.to_owned())),
            Some(("cell", name)) => Ok(Self::Cell(name.to_owned())),
            Some(("cluster", name)) => Ok(Self::Cluster(name.to_owned())),
            _ => Err(format!("'{}' given, {} expected", given.escape_debug(), Self::EXPECTED)),
        }
    }
}

/// Reasons of an open breaker, one bit each, as the specification numbers them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Trips(pub u16);

impl Trips {
    /// T1 to T4: too many of the scope.
    pub const COUNT: Self = Self(1);
    /// T5: two of a scope of four or fewer.
    pub const SMALL: Self = Self(2);
    /// T6: many at one moment, not of one feed.
    pub const CORRELATED: Self = Self(4);
    /// T7: we are blind.
    pub const BLIND: Self = Self(8);
    /// T8: a storage backend stands still.
    pub const BACKEND: Self = Self(16);
    /// T9: Nova or Placement cannot act.
    pub const CONTROL: Self = Self(32);
    /// A zone without a host that is heard: more likely it is cut off.
    pub const FULL: Self = Self(64);
    /// What only the leader can see.
    const SEEN: Self = Self(4 | 8 | 16 | 32);
    /// What is over as soon as it is not so any more; the others stay until they have cooled down.
    const NOW: Self = Self(4 | 8 | 16 | 32 | 64);
    /// What stops recovery as well.
    const RECOVER: Self = Self(8 | 16 | 32);
    /// What stops fencing: with Nova away (T9) a host may still be fenced.
    const KILL: Self = Self(1 | 2 | 4 | 8 | 16 | 64);

    /// What slows recovery down.
    const REDUCES: Self = Self(1 | 2 | 4);

    /// Those of both.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that only the leader can see.
    #[must_use]
    pub fn seen(self) -> Self {
        Self(self.0 & Self::SEEN.0)
    }

    /// Whether one of them stops fencing.
    pub fn stops_kill(self) -> bool {
        self.0 & Self::KILL.0 != 0
    }

    /// Whether one of them stops evacuations.
    pub fn stops_recover(self) -> bool {
        self.0 & Self::RECOVER.0 != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What an operator answers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// These hosts may be fenced.
    Proceed(Vec<HostId>),
    /// All of the scope may.
    ProceedAll,
    /// None; the former answers are taken back.
    Abort,
}

/// Hosts that one answer may name.
pub const ANSWERED: usize = 256;
/// Below this part of the threshold, in percent, a breaker begins to cool down.
const COOL: u64 = 80;
/// Milliseconds below it until it closes.
const COOLDOWN: u64 = 120_000;
/// Milliseconds that a host counts after its death, however soon it was recovered.
pub const STORM: u64 = 300_000;

/// An open breaker.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Breaker {
    /// Why.
    pub trips: Trips,
    /// Since when, replicated milliseconds.
    pub since: u64,
    /// Since when it is quiet again.
    pub quiet: Option<u64>,
    /// An operator's answer, until when.
    pub answer: Option<(Decision, u64)>,
}

/// Hosts of a scope, and those of them that count against it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Hosts that failover acts on and that are not in maintenance.
    pub hosts: u64,
    /// Those that are suspected, isolated, unreachable, being fenced, dead and not recovered, or died just now.
    pub unavailable: u64,
    /// Those that live and that nothing speaks against.
    #[serde(default)]
    pub ready: u64,
}

impl Count {
    /// None of them is heard.
    fn is_full(self) -> bool {
        self.ready == 0 && self.unavailable > 0
    }
}

/// How bold failover is in a zone as a whole. What is evacuated goes to hosts that are heard, so none of a zone that is
/// full gets anything, and where all are nothing goes anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ZoneMode {
    /// Hosts are fenced one after the other.
    Normal,
    /// Too many are away: none is fenced without an operator, and what is proven dead is recovered little by little.
    Partial,
    /// None is heard, and none is fenced without an operator.
    Full,
    /// The same in all zones: we are the ones that are cut off.
    AllFull,
}

impl Scope {
    /// Those that a host is in.
    pub fn all_of(host: &Host) -> [Self; 4] {
        let places = &host.places;
        [Self::Region, Self::Az(places.az), Self::Cell(places.cell), Self::Cluster(places.cluster)]
    }

    fn has(self, host: &Host) -> bool {
        match self {
            Self::Region => true,
            Self::Az(az) => host.places.az == az,
            Self::Cell(cell) => host.places.cell == cell,
            Self::Cluster(cluster) => host.places.cluster == cluster,
        }
    }

    /// Unavailable hosts that open it, of so many: T1 to T4, and of a zone three that are 55 % of it.
    pub fn threshold(self, hosts: u64) -> u64 {
        let at_least = |least: u64, percent: u64| (hosts * percent).div_ceil(100).max(least);
        match self {
            Self::Region => at_least(6, 5),
            Self::Az(_) => at_least(4, 10).min(at_least(3, 55)),
            Self::Cell(_) => at_least(4, 15),
            Self::Cluster(_) => at_least(3, 20),
        }
    }

    /// What its count says.
    pub fn trips(self, count: Count) -> Trips {
        let many = if count.unavailable >= self.threshold(count.hosts) { Trips::COUNT } else { Trips::default() };
        let small = if count.hosts <= 4 && count.unavailable >= 2 { Trips::SMALL } else { Trips::default() };
        let full = matches!(self, Self::Az(_)) && count.is_full();
        many.or(small).or(if full { Trips::FULL } else { Trips::default() })
    }

    fn is_quiet(self, count: Count) -> bool {
        let threshold = if count.hosts <= 4 { 2 } else { self.threshold(count.hosts) };
        count.unavailable * 100 < threshold * COOL
    }
}

impl Failover {
    /// Counts a scope. A host whose recovery is not over counts however long ago it died, so that a slow
    /// cascade is seen too, and one that died just now counts although it was recovered, so that a cascade that spreads
    /// no faster than that is; what was unreachable before a person put it into maintenance does not.
    pub fn count(&self, scope: Scope, now: u64) -> Count {
        let mut count = Count::default();
        for host in self.hosts.iter().filter(|host| host.enabled && scope.has(host)) {
            let unrecovered = self.cases.get(host.id).is_some_and(|case| case.phase.is_unrecovered());
            let lost = unrecovered || self.died(host, now);
            if host.maintenance != Maintenance::None && !lost {
                continue;
            }
            count.hosts += 1;
            let silent =
                matches!(host.belief.detection, Detection::Suspect | Detection::Isolated | Detection::Unreachable);
            count.unavailable += u64::from(silent || lost);
            count.ready += u64::from(host.is_open() && host.belief.detection == Detection::Alive);
        }
        count
    }

    /// The zones, and how bold failover is in each: what the breakers of the zone and of the region say.
    pub fn zones(&self, now: u64) -> BTreeMap<Sym, (ZoneMode, Count)> {
        let stored = |scope| self.small.breakers.get(&scope).map_or(Trips::default(), |breaker| breaker.trips);
        let all = self.count(Scope::Region, now);
        let region = stored(Scope::Region).or(Scope::Region.trips(all));
        let names: BTreeSet<_> = self.hosts.iter().filter(|host| host.enabled).map(|host| host.places.az).collect();
        let zone = |az| {
            let scope = Scope::Az(az);
            let count = self.count(scope, now);
            let trips = region.or(stored(scope)).or(scope.trips(count));
            let mode = match trips.0 & (Trips::REDUCES.0 | Trips::FULL.0) {
                _ if all.is_full() => ZoneMode::AllFull,
                _ if count.is_full() => ZoneMode::Full,
                0 => ZoneMode::Normal,
                _ => ZoneMode::Partial,
            };
            (az, (mode, count))
        };
        names.into_iter().map(zone).collect()
    }

    /// Whether a host was lost within the window. One that boots without having been missed is none that died.
    fn died(&self, host: &Host, now: u64) -> bool {
        let missed = |life| {
            let case = self.cases.get(host.id).filter(|case| case.id.incarnation == life);
            case.is_some_and(|case| case.cause != Cause::Rebooted)
        };
        host.proofs.iter().any(|proof| {
            let fresh = now < proof.at.saturating_add(STORM);
            fresh && (proof.evidence.kind() != Kind::P3 || missed(proof.incarnation))
        })
    }

    /// What stops fencing of a host, if anything does: scope, reasons, count.
    pub fn stops_kill(&self, host: &Host, now: u64) -> Option<(Scope, Trips, Count)> {
        Scope::all_of(host).into_iter().find_map(|scope| {
            let count = self.count(scope, now);
            let known = self.small.breakers.get(&scope);
            let stored = known.map_or(Trips::default(), |breaker| breaker.trips);
            let counted = scope.trips(count);
            let trips = [(Stop::BreakerOpen, stored), (Stop::BreakerCounted, counted)];
            let trips = trips.into_iter().filter(|(stop, _)| !stop.lets(false)).map(|(_, trips)| trips);
            let trips = trips.fold(Trips::default(), Trips::or);
            let answered = known.and_then(|breaker| breaker.answer.as_ref()).is_some_and(|(answer, until)| {
                *until > now
                    && match answer {
                        Decision::Proceed(hosts) => hosts.contains(&host.id),
                        Decision::ProceedAll => true,
                        Decision::Abort => false,
                    }
            });
            (trips.stops_kill() && !answered).then_some((scope, trips, count))
        })
    }

    /// What stops evacuations from a host, if anything does.
    pub fn stops_recover(&self, host: &Host) -> Option<(Scope, Trips)> {
        Scope::all_of(host).into_iter().find_map(|scope| {
            let breaker = self.small.breakers.get(&scope)?;
            (breaker.trips.stops_recover() && !Stop::BreakerOpen.lets(false)).then_some((scope, breaker.trips))
        })
    }

    /// Whether what is proven dead in a scope is recovered, and no more than little by little.
    pub fn is_reduced(&self, scope: Scope) -> bool {
        let trips = self.small.breakers.get(&scope).map_or(Trips::default(), |breaker| breaker.trips);
        trips.0 & Trips::REDUCES.0 != 0
    }

    /// What a look at a scope makes of its breaker: none, or an open one. It never closes by time alone:
    /// the count must be low for a while, or an operator answers.
    pub(crate) fn looked(&self, scope: Scope, seen: Trips, now: u64) -> Option<Breaker> {
        let count = self.count(scope, now);
        let trips = scope.trips(count).or(seen.seen());
        let known = self.small.breakers.get(&scope);
        if !trips.is_empty() {
            let mut breaker = known.cloned().unwrap_or(Breaker { trips, since: now, quiet: None, answer: None });
            breaker.trips = breaker.trips.or(trips);
            // What the leader no longer sees is over; what was counted stays until it has cooled down.
            breaker.trips.0 &= !Trips::NOW.0 | trips.0;
            breaker.quiet = None;
            return Some(breaker);
        }
        let mut breaker = known.cloned()?;
        // What stops recovery is over all the same: hosts that wait for it count until they are recovered.
        let counted = Trips(breaker.trips.0 & !Trips::RECOVER.0);
        if !counted.is_empty() && !scope.is_quiet(count) {
            (breaker.trips, breaker.quiet) = (counted, None);
            return Some(breaker);
        }
        let since = *breaker.quiet.get_or_insert(now);
        (now.saturating_sub(since) < COOLDOWN).then_some(breaker)
    }
}
