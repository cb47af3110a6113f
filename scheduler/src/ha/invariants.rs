//! The invariants of failover that can be seen in the replicated state alone. Their numbers are those of
//! the scenario catalogue.

use std::collections::{BTreeMap, BTreeSet};

use super::drain::{MOST_SOURCE, MOST_TARGET};
use super::host::{BOOTS, PROOFS};
use super::recovery::Status;
use super::table::{
    CASES, CLOSED, DEATHS, DRAINS, Failover, HOSTS, MEMBERS, MOVES, NOTIFIED, PERMITS, RECOVERIES, RESTARTS, SEGMENTS,
};
use crate::state::Tables;

/// Every broken one, in words.
pub(crate) fn check(tables: &Tables, broken: &mut Vec<String>) {
    let ha = &tables.failover;
    let epoch = tables.counters.epoch;
    bounds(ha, broken);
    segments(ha, broken);
    for host in ha.hosts.iter() {
        let id = host.id;
        // INV-13: lives only go on.
        let newest = host.proofs.iter().map(|proof| proof.incarnation).max().unwrap_or(0);
        if newest >= host.incarnation && newest > 0 {
            broken.push(format!("INV-13 host {id}: incarnation {newest} is proven over and is its present one"));
        }
        if host.boot.is_some_and(|boot| host.boots.contains(&boot)) {
            broken.push(format!("INV-13 host {id}: it lives in a boot that is over"));
        }
        if host.disabled && !host.forced_down && ha.cases.get(id).is_none() {
            broken.push(format!("INV-14 host {id}: disabled by us, and no case says why"));
        }
        if host.boots.len() > BOOTS || host.proofs.len() > PROOFS {
            broken.push(format!("host {id}: more boots or proofs than are kept"));
        }
    }
    let mut fencing = BTreeSet::new();
    for case in ha.cases.iter() {
        let id = case.id;
        let Some(host) = ha.hosts.get(id.host) else {
            broken.push(format!("case {id}: its host is not known"));
            continue;
        };
        if id.incarnation > host.incarnation || id.seq != host.case_seq {
            broken.push(format!("INV-13 case {id}: of a life or a number that was not given"));
        }
        // INV-3, INV-4: what counts as proven has its proof.
        if case.phase.is_proven() && host.proof(id.incarnation).is_none() {
            broken.push(format!("INV-3 case {id}: in {} without a proof", case.phase));
        }
        if !case.phase.is_proven() && case.epoch == epoch && host.incarnation != id.incarnation {
            broken.push(format!("INV-13 case {id}: about a life that is over, in {}", case.phase));
        }
        if case.notes.len() > super::note::NOTES || host.seen.len() > super::note::SEEN {
            broken.push(format!("case {id}: more is noted than is kept"));
        }
        if case.phase.is_terminal() {
            broken.push(format!("case {id}: open, and in {}", case.phase));
        }
        // INV-14.
        if case.phase == super::Phase::Evacuating && !(host.forced_down && host.disabled) {
            broken.push(format!("INV-14 case {id}: it evacuates a host without marks in Nova"));
        }
        if case.phase == super::Phase::Fencing && !fencing.insert(host.places.chassis) {
            broken.push(format!("case {id}: a second host of its chassis is being fenced"));
        }
    }
    for recovery in ha.recoveries.iter() {
        let instance = recovery.instance;
        if ha.cases.get(recovery.case.host).is_none_or(|case| case.id != recovery.case) {
            broken.push(format!("INV-23 instance {instance}: its case {} is not open", recovery.case));
        }
        let Some(attempt) = &recovery.attempt else { continue };
        let permit = ha.permits.get(instance).map(|permit| permit.life);
        // INV-3, INV-6: what may happen has a proof behind it, and the permit is where it happens.
        if attempt.state.is_live() {
            let source = recovery.source();
            if ha.hosts.get(source.host).is_none_or(|host| host.proof(source.incarnation).is_none()) {
                broken
                    .push(format!("INV-3 instance {instance}: an attempt is alive, and its source is not proven dead"));
            }
            if permit != Some(attempt.target) {
                broken.push(format!(
                    "INV-6 instance {instance}: an attempt is alive, and its permit is not at the target"
                ));
            }
            if attempt.calls == 0 {
                broken.push(format!("INV-5 instance {instance}: an attempt is alive without an intent"));
            }
        }
        if attempt.state.is_live() != (recovery.status == Status::Evacuating) {
            broken.push(format!(
                "INV-23 instance {instance}: it is {:?}, its attempt {:?}",
                recovery.status, attempt.state
            ));
        }
    }
    for known in ha.moves.iter().filter(|known| known.is_live()) {
        // INV-6: nothing is on its way to two places.
        if ha.recoveries.get(known.instance).is_some_and(|recovery| recovery.live().is_some()) {
            broken.push(format!("INV-6 instance {}: a migration and an evacuation are alive", known.instance));
        }
        if known.tries == 0 {
            broken.push(format!("INV-5 instance {}: it moves without an intent", known.instance));
        }
    }
    // INV-10.
    let (mut sources, mut targets) = (BTreeMap::new(), BTreeMap::new());
    for known in ha.under_way() {
        *sources.entry(known.from.host).or_insert(0) += 1;
        *targets.entry(known.to.host).or_insert(0) += 1;
    }
    let most = [(sources, MOST_SOURCE, "from"), (targets, MOST_TARGET, "to")];
    for (counts, most, way) in most {
        for (host, count) in counts.into_iter().filter(|(_, count)| *count > most) {
            broken.push(format!("INV-10 {count} migrations {way} host {host} at once, {most} are allowed"));
        }
    }
    let open =
        |life: &super::recovery::Life| ha.hosts.get(life.host).is_some_and(|host| life.incarnation <= host.incarnation);
    if let Some(permit) = ha.permits.iter().find(|permit| !open(&permit.life)) {
        broken.push(format!("INV-13 instance {}: permitted in a life that has not begun", permit.instance));
    }
}

/// Hosts of Masakari's segments are in one each, and that is there.
fn segments(ha: &Failover, broken: &mut Vec<String>) {
    let mut names = BTreeSet::new();
    for member in ha.members.iter() {
        if ha.segments.get(member.segment).is_none() || !names.insert(&member.name) {
            broken.push(format!("host '{}' of a segment: in none that is known, or in two", member.name));
        }
    }
}

fn bounds(ha: &Failover, broken: &mut Vec<String>) {
    let tables = [
        (ha.hosts.len(), HOSTS, ha.hosts.is_whole()),
        (ha.cases.len(), CASES, ha.cases.is_whole()),
        (ha.recoveries.len(), RECOVERIES, ha.recoveries.is_whole()),
        (ha.permits.len(), PERMITS, ha.permits.is_whole()),
        (ha.drains.len(), DRAINS, ha.drains.is_whole()),
        (ha.moves.len(), MOVES, ha.moves.is_whole()),
        (ha.restarts.len(), RESTARTS, ha.restarts.is_whole()),
        (ha.deaths.len(), DEATHS, ha.deaths.is_whole()),
        (ha.segments.len(), SEGMENTS, ha.segments.is_whole()),
        (ha.members.len(), MEMBERS, ha.members.is_whole()),
        (ha.closed.len(), CLOSED, true),
        (ha.notified.len(), NOTIFIED, true),
        (ha.small.troubles.len(), super::trouble::TROUBLES, true),
    ];
    for (at, (length, most, whole)) in tables.into_iter().enumerate() {
        if length > most || !whole {
            broken.push(format!("table {at} of failover is too long, or its index is wrong"));
        }
    }
}
