//! What is believed of hosts, and whether so many at once is to be believed.

use std::collections::{BTreeMap, BTreeSet};

use super::{Coordinator, Due, Lead, pace};
use crate::ha::breaker::{Count, Scope, ScopeName, Trips};
use crate::ha::case::{Case, Cause, Phase};
use crate::ha::host::{Degraded, Detection, Host};
use crate::ha::order::Change;
use crate::ha::policy::{self, Mode};
use crate::ha::recovery::Life;

/// What is wrong at once with as many hosts of a scope as open its breaker when they are silent. A network that comes and
/// goes, a storage backend that stands still, an agent that looks at the wrong unit or socket everywhere: the fault of
/// no host, and no reason to place nothing there.
pub(in crate::ha) fn common<'a>(
    hosts: impl Iterator<Item = (&'a Host, Degraded)> + Clone,
) -> BTreeMap<Scope, Degraded> {
    let mut ill: BTreeMap<Scope, [u64; ILLS.len()]> = BTreeMap::new();
    for (host, degraded) in hosts.clone().filter(|(_, degraded)| !degraded.is_empty()) {
        for scope in Scope::all_of(host) {
            let counts = ill.entry(scope).or_default();
            for (count, what) in counts.iter_mut().zip(ILLS) {
                *count += u64::from(degraded.has(what));
            }
        }
    }
    let mut all: BTreeMap<Scope, u64> = ill.keys().map(|scope| (*scope, 0)).collect();
    if !all.is_empty() {
        for scope in hosts.flat_map(|(host, _)| Scope::all_of(host)) {
            all.entry(scope).and_modify(|count| *count += 1);
        }
    }
    let common = ill.into_iter().map(|(scope, counts)| {
        let hosts = all[&scope];
        let many = |count: u64| !scope.trips(Count { hosts, unavailable: count, ready: hosts }).is_empty();
        let common = counts.into_iter().zip(ILLS).filter(|(count, _)| many(*count));
        (scope, common.fold(Degraded::default(), |all, (_, what)| all.and(what)))
    });
    common.filter(|(_, common)| !common.is_empty()).collect()
}

/// What many hosts may have at once. That they go down on purpose is the word of each.
const ILLS: [Degraded; 4] = [Degraded::FLAPS, Degraded::STORAGE, Degraded::COMPUTE, Degraded::LIBVIRT];

impl Coordinator {
    /// Looks at what many hosts have at once.
    pub(super) fn look_for_common(&mut self, lead: &Lead<'_>) {
        let hosts = lead.ha().hosts.iter().filter(|host| host.enabled && host.is_open());
        let hosts = hosts.map(|host| (&**host, self.liveness.degraded(host.id, host.degraded, lead.now)));
        self.common = common(hosts.collect::<Vec<_>>().into_iter());
    }

    pub(super) fn detect(&mut self, host: &Host, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let dead = |case: &Case| case.fences > 0 && !matches!(case.phase, Phase::AwaitReturn | Phase::Returning);
        let fenced = lead.ha().cases.get(host.id).is_some_and(|case| dead(case));
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
        let common = Scope::all_of(host).into_iter().filter_map(|scope| self.common.get(&scope));
        let common = common.fold(Degraded::default(), |all, ill| all.and(*ill));
        let degraded = self.liveness.degraded(host.id, host.degraded, lead.now).without(common);
        if degraded != host.degraded {
            let incarnation = host.incarnation;
            due.push(Due::Propose(Change::Degraded { host: host.id, incarnation, degraded }));
        }
        self.look_for_boots(host, lead, due);
        // One that has come back since is a former life's.
        let former = |case: &Case| {
            matches!(case.phase, Phase::AwaitReturn | Phase::Returning) && case.id.incarnation < host.incarnation
        };
        let open = lead.ha().cases.get(host.id).is_some_and(|case| !former(case));
        if from == Detection::Alive || open || lead.mode(Some(host.id)) == Mode::Off {
            return;
        }
        let after = policy::of(lead.tables, host).fence_isolated;
        let isolated = from == Detection::Isolated && host.belief.by == self.leader && after > 0;
        if isolated && lead.clock >= host.belief.since.saturating_add(after) {
            let (host, incarnation) = (host.id, host.incarnation);
            due.push(Due::Propose(Change::CaseOpen { host, incarnation, cause: Cause::Isolated }));
        }
        // Off is off, whoever has watched for how long.
        if self.liveness.is_silent(host.id, lead.now) {
            self.read_power(host, pace::POWER, lead, due);
            let own = from == Detection::Unreachable && host.belief.by == self.leader;
            let cause = if self.off_twice(host, lead).is_some() {
                Some(Cause::PowerOff)
            } else {
                own.then_some(Cause::Unreachable)
            };
            if let Some(cause) = cause.filter(|_| opinion.detection != Detection::Alive) {
                due.push(Due::Propose(Change::CaseOpen { host: host.id, incarnation: host.incarnation, cause }));
            }
        }
    }

    /// A host that booted by itself, with instances of its former life: a case of its own brings them back, whatever
    /// the policy says of hosts that are missed.
    fn look_for_boots(&mut self, host: &Host, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let looked = self.booted.get(&host.id).is_some_and(|life| *life == host.incarnation);
        if looked || host.incarnation < 2 || lead.ha().cases.get(host.id).is_some() {
            return;
        }
        if policy::of(lead.tables, host).mode == Mode::Off {
            return;
        }
        let Some(proof) = host.proofs.first() else { return };
        let old = |life: Life| life.host == host.id && life.incarnation <= proof.incarnation;
        if lead.ha().permits.iter().any(|permit| old(permit.life)) {
            let (host, incarnation) = (host.id, proof.incarnation);
            due.push(Due::Propose(Change::CaseOpen { host, incarnation, cause: Cause::Rebooted }));
        } else {
            self.booted.insert(host.id, host.incarnation);
        }
    }

    /// Looks at the breakers that are open, and at those that the count would open.
    pub(super) fn breakers(&mut self, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let ha = lead.ha();
        let mut scopes: BTreeSet<Scope> = ha.small.breakers.keys().copied().collect();
        let doubtful = ha.hosts.iter().filter(|host| host.belief.detection != Detection::Alive);
        scopes.extend(doubtful.flat_map(|host| Scope::all_of(host)));
        scopes.insert(Scope::Region);
        let now = lead.clock;
        for scope in scopes {
            let region = scope == Scope::Region;
            let blind = if region && self.liveness.is_blind() { Trips::BLIND } else { Trips::default() };
            let missed = self.common.get(&scope).is_some_and(|ill| ill.has(Degraded::STORAGE));
            let outage =
                if region && (missed || self.liveness.is_outage()) { Trips::BACKEND } else { Trips::default() };
            let away = if region && self.is_nova_away(lead.now) { Trips::CONTROL } else { Trips::default() };
            let seen = blind.or(outage).or(away).or(self.onset(scope, lead));
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

    /// T6: three hosts of a scope and of more than one feed that fell silent within five seconds.
    fn onset(&self, scope: Scope, lead: &Lead<'_>) -> Trips {
        if scope == Scope::Region {
            return Trips::default();
        }
        let silent = lead.ha().hosts.iter().filter(|host| {
            let doubted = !matches!(host.belief.detection, Detection::Alive | Detection::Dead);
            host.enabled && doubted && Scope::all_of(host).contains(&scope)
        });
        let mut last: Vec<_> =
            silent.filter_map(|host| Some((self.liveness.last(host.id)?, host.places.power))).collect();
        last.sort_unstable();
        let together = last
            .windows(3)
            .any(|three| three[2].0 - three[0].0 <= 5_000 && three.iter().any(|(_, power)| *power != three[0].1));
        if together { Trips::CORRELATED } else { Trips::default() }
    }
}
