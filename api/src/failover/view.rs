//! The state of failover in words.

use std::collections::BTreeMap;

use raft::ears::Ears;
use scheduler::ha::admission::{self, Loss};
use scheduler::ha::breaker::{Count, Decision, Scope, Trips};
use scheduler::ha::case::{Act, Case, Phase};
use scheduler::ha::cordon;
use scheduler::ha::host::{Detection, Host};
use scheduler::ha::mark::Mark;
use scheduler::ha::note::{self, Note, Ordered, Seen, What};
use scheduler::ha::order::{Groups, Leader};
use scheduler::ha::policy;
use scheduler::ha::proof::{Evidence, Proof, Token};
use scheduler::ha::recovery::{Recovery, Status};
use scheduler::ha::table::Failover;
use scheduler::state::Tables;

use super::{name, nova_host};
use crate::proto::ha;

/// Instances of one case that are told.
const INSTANCES: usize = 1000;

fn count<K: Ord>(keys: impl Iterator<Item = K>) -> BTreeMap<K, u64> {
    let mut counts = BTreeMap::new();
    for key in keys {
        *counts.entry(key).or_default() += 1;
    }
    counts
}

pub(super) fn status(tables: &Tables, mode: &str) -> ha::FailoverStatusResponse {
    let failover = tables.failover();
    let now = tables.counters().now;
    let names = |keep: &dyn Fn(&Host) -> bool| {
        let mut names: Vec<_> = failover.hosts.iter().filter(|host| keep(host)).collect::<Vec<_>>();
        names.sort_unstable_by_key(|host| nova_host(tables, host));
        names.into_iter().map(|host| nova_host(tables, host).to_owned()).take(100).collect()
    };
    let mut stops = Vec::new();
    if failover.small.epoch != tables.counters().epoch && !failover.hosts.is_empty() {
        let why = "the cluster was restored: look at the hosts, then `pallium ctl ha release`".to_owned();
        stops.push(ha::FailoverStop { act: "all".to_owned(), why, rest_ms: None });
    }
    let marked = failover.small.marked.as_ref().filter(|marked| marked.by == failover.small.leader);
    if mode == "enforce" && !failover.hosts.is_empty() && marked.is_none_or(|marked| marked.mark != Mark::Ours) {
        let unread = || "the mark of this cluster in Nova was not read yet".to_owned();
        let why = marked.map_or_else(unread, |marked| marked.mark.to_string());
        stops.push(ha::FailoverStop { act: "all".to_owned(), why, rest_ms: None });
    }
    for act in [Act::Kill, Act::Recover] {
        let rest = failover.paused(act).saturating_sub(now);
        if rest > 0 {
            let pauses = note::pauses(act);
            let order = failover.small.orders.iter().rev().find(|order| order.what == pauses);
            let why = order.map_or_else(
                || "an operator paused it".to_owned(),
                |order| format!("{} paused it: {}", order.who.name, order.who.reason),
            );
            stops.push(ha::FailoverStop { act: act.to_string(), why, rest_ms: Some(rest) });
        }
    }
    ha::FailoverStatusResponse {
        mode: mode.to_owned(),
        hosts: failover.hosts.len() as u64,
        detections: count(failover.hosts.iter().map(|host| believed(host))),
        phases: count(failover.cases.iter().map(|case| name(case.phase))),
        instances: count(failover.recoveries.iter().map(|recovery| state(recovery.status).0)),
        permits: failover.permits.len() as u64,
        stops,
        breakers: failover.small.breakers.keys().map(|scope| breaker(tables, *scope)).collect(),
        unchecked: names(&|host| host.unchecked),
        quarantined: names(&|host| host.quarantined),
        policies: super::policy::under(tables),
        orders: orders(tables),
        zones: zones(tables, now),
        unfenced: unfenced(tables, now),
        quarantined_instances: poison(failover),
    }
}

fn unfenced(tables: &Tables, now: u64) -> Vec<ha::FailoverUnfenced> {
    let hosts = tables.failover().hosts.iter().filter_map(|host| Some((nova_host(tables, host), host.unfenced()?)));
    let mut told: Vec<_> = hosts
        .map(|(host, unfenced)| ha::FailoverUnfenced {
            host: host.to_owned(),
            why: unfenced.why.clone(),
            since_ms: now.saturating_sub(unfenced.since),
            unprotected: unfenced.is_unprotected(now),
        })
        .collect();
    told.sort_unstable_by(|one, other| one.host.cmp(&other.host));
    told.truncate(100);
    told
}

fn zones(tables: &Tables, now: u64) -> Vec<ha::FailoverZone> {
    let told = |(az, (mode, count)): (_, (_, Count))| ha::FailoverZone {
        zone: tables.names.text(az).to_owned(),
        mode: name(mode),
        hosts: count.hosts,
        ready: count.ready,
        unavailable: count.unavailable,
    };
    let mut zones: Vec<_> = tables.failover().zones(now).into_iter().map(told).collect();
    zones.sort_unstable_by(|one, other| one.zone.cmp(&other.zone));
    zones
}

/// Instances in quarantine.
fn poison(failover: &Failover) -> Vec<String> {
    let poison = failover.deaths.iter().filter(|known| known.quarantined.is_some());
    let mut poison: Vec<_> = poison.map(|known| known.instance).collect();
    poison.sort_unstable();
    poison.into_iter().map(|instance| instance.to_string()).take(100).collect()
}

/// What is believed of a host; of one that never said Hello nothing is.
fn believed(host: &Host) -> String {
    if host.incarnation == 0 { "unknown".to_owned() } else { name(host.belief.detection) }
}

pub(super) fn losses(tables: &Tables, most: usize) -> ha::FailoverLossesResponse {
    let failover = tables.failover();
    let told = |loss: Loss| ha::FailoverLoss {
        host: failover.hosts.get(loss.host).map_or_else(String::new, |host| nova_host(tables, host).to_owned()),
        instances: loss.instances.into(),
        left: loss.left.into(),
    };
    ha::FailoverLossesResponse { losses: admission::losses(tables, most).into_iter().map(told).collect() }
}

fn breaker(tables: &Tables, scope: Scope) -> ha::FailoverBreaker {
    let failover = tables.failover();
    let text = |sym| tables.names.text(sym);
    let now = tables.counters().now;
    let count = failover.count(scope, now);
    let known = failover.small.breakers.get(&scope);
    let answer = known.and_then(|breaker| breaker.answer.as_ref()).filter(|(_, until)| *until > now);
    ha::FailoverBreaker {
        scope: match scope {
            Scope::Region => "region".to_owned(),
            Scope::Az(az) => format!("az:{}", text(az)),
            Scope::Cell(cell) => format!("cell:{}", text(cell)),
            Scope::Cluster(cluster) => format!("cluster:{}", text(cluster)),
        },
        why: known.map_or_else(String::new, |breaker| why(breaker.trips)),
        hosts: count.hosts,
        unavailable: count.unavailable,
        threshold: if count.hosts <= 4 { 2 } else { scope.threshold(count.hosts) },
        open_ms: known.map_or(0, |breaker| now.saturating_sub(breaker.since)),
        answer: answer.map(|(decision, _)| match decision {
            Decision::Proceed(hosts) => format!("{} hosts may be fenced", hosts.len()),
            Decision::ProceedAll => "all of it may be fenced".to_owned(),
            Decision::Abort => "nothing may be fenced".to_owned(),
        }),
    }
}

fn why(trips: Trips) -> String {
    let reasons = [
        (Trips::COUNT, "too many hosts are away"),
        (Trips::SMALL, "two of four or fewer hosts are away"),
        (Trips::CORRELATED, "many went at one moment"),
        (Trips::BLIND, "most hosts are silent: it is more likely us"),
        (Trips::BACKEND, "a storage backend stands still"),
        (Trips::CONTROL, "Nova or Placement cannot act"),
        (Trips::FULL, "no host of the zone is heard"),
    ];
    let named: Vec<_> = reasons.iter().filter(|(trip, _)| trips.0 & trip.0 != 0).map(|(_, text)| *text).collect();
    named.join("; ")
}

pub(super) fn hosts(
    tables: &Tables,
    ears: &Ears,
    detection: Option<Detection>,
    after: Option<&str>,
    most: usize,
) -> ha::FailoverHostsResponse {
    let failover = tables.failover();
    let mut found: Vec<_> = failover
        .hosts
        .iter()
        .filter(|host| detection.is_none_or(|detection| host.belief.detection == detection))
        .filter(|host| after.is_none_or(|after| nova_host(tables, host) > after))
        .collect();
    found.sort_unstable_by_key(|host| nova_host(tables, host));
    let more = found.len() > most;
    found.truncate(most);
    let permits = count(failover.permits.iter().map(|permit| permit.life.host));
    let now = tables.counters().now;
    let told = |host: &Host| ha::FailoverHost {
        host: nova_host(tables, host).to_owned(),
        id: host.id.to_string(),
        enabled: host.enabled,
        detection: believed(host),
        incarnation: host.incarnation,
        boot: host.boot.map(|boot| boot.to_string()),
        age_ms: ears.age(host.id).map(|age| age.as_millis() as u64),
        away_ms: ears.away(host.id).map(|left| left.as_millis() as u64),
        phase: failover.cases.get(host.id).map(|case| name(case.phase)),
        permits: permits.get(&host.id).copied().unwrap_or_default(),
        quarantined: host.quarantined,
        maintenance: name(host.maintenance),
        forced_down: host.forced_down,
        disabled: host.disabled,
        fencers: host.fencers.iter().map(name).collect(),
        bmc: host.bmc.clone(),
        exempt_ms: (host.exempt > now).then(|| host.exempt - now),
        policies: super::policy::names(tables, host).map(str::to_owned).collect(),
        mode: name(policy::of(tables, host).mode),
        cordon: cordon::of(tables, host).map(|why| why.why().to_owned()),
    };
    let next = more.then(|| found.last().map(|host| nova_host(tables, host).to_owned())).flatten();
    ha::FailoverHostsResponse { hosts: found.into_iter().map(|host| told(host)).collect(), next }
}

pub(super) fn cases(tables: &Tables, closed: bool, most: usize) -> ha::FailoverCasesResponse {
    let failover = tables.failover();
    let open = failover.cases.iter().map(|case| &**case);
    let closed = failover.closed().filter(|_| closed);
    ha::FailoverCasesResponse { cases: open.chain(closed).take(most).map(|case| brief(tables, case)).collect() }
}

/// The open case of a host, else its last one, with all that is known of it.
pub(super) fn case(tables: &Tables, host: &Host) -> Option<ha::FailoverCase> {
    let failover = tables.failover();
    let open = failover.cases.get(host.id).map(|case| &**case);
    let case = open.or_else(|| failover.closed().find(|case| case.id.host == host.id))?;
    let mut told = brief(tables, case);
    told.steps = steps(case);
    told.instances = of(tables, case).take(INSTANCES).map(|recovery| instance(tables, recovery)).collect();
    told.instances.sort_unstable_by(|one, other| one.instance.cmp(&other.instance));
    let confirmable = matches!(case.phase, Phase::Unreachable | Phase::FencePending | Phase::FenceFailed);
    if open.is_some() && confirmable {
        let token = Token { case: case.id, phase: case.phase, at: tables.counters().now };
        told.token = serde_json::to_string(&token).ok();
    }
    Some(told)
}

fn of<'a>(tables: &'a Tables, case: &'a Case) -> impl Iterator<Item = &'a Recovery> {
    tables.failover().recoveries.iter().map(|recovery| &**recovery).filter(|recovery| recovery.case == case.id)
}

fn brief(tables: &Tables, case: &Case) -> ha::FailoverCase {
    let host = tables.failover().hosts.get(case.id.host);
    let proof = host.and_then(|host| host.proof(case.id.incarnation));
    ha::FailoverCase {
        id: case.id.to_string(),
        host: host.map_or_else(|| case.id.host.to_string(), |host| nova_host(tables, host).to_owned()),
        cause: name(case.cause),
        phase: name(case.phase),
        phase_ms: tables.counters().now.saturating_sub(case.since),
        held_kill: case.held_kill.clone(),
        held_recover: case.held_recover.clone(),
        needs_operator: case.needs_operator.clone(),
        would: case.would.clone(),
        proof: proof.map(evidence),
        counts: count(of(tables, case).map(|recovery| state(recovery.status).0)),
        ..ha::FailoverCase::default()
    }
}

fn evidence(proof: &Proof) -> String {
    let read = |reads: &[scheduler::ha::proof::PowerRead; 2]| {
        let apart = reads[1].at.saturating_sub(reads[0].at);
        format!("'{}' twice, {apart} ms apart, {}", reads[1].raw.escape_debug(), reads[1].machine)
    };
    match &proof.evidence {
        Evidence::PowerOff(reads) => format!("P1, its BMC says {}", read(reads)),
        Evidence::FencedOff { reads, .. } => format!("P2, after we fenced it its BMC says {}", read(reads)),
        Evidence::NewBoot(boot) => format!("P3, it said Hello in boot {boot}"),
        Evidence::Lease { granted: Some(granted), .. } => {
            format!("P4, its watchdog must have fired: its last lease was given {granted} ms before")
        }
        Evidence::Lease { granted: None, leader } => {
            format!("P4, its watchdog must have fired: nobody gave it a lease for the {leader} ms of this leader")
        }
        Evidence::Operator { .. } => "P7, an operator says so".to_owned(),
    }
}

/// The timeline: what was seen, decided, done and ordered, in order.
fn steps(case: &Case) -> Vec<ha::FailoverStep> {
    let (first, wall) = case.steps.first().map_or((0, 0), |step| (step.at, step.wall));
    let wall_of = |at: u64| wall.saturating_add(at).saturating_sub(first);
    let step = |at: u64, wall_ms: u64, what: String, by: Leader| ha::FailoverStep {
        wall_ms,
        what,
        term: by.term,
        node: by.node,
        at_ms: at,
        ..ha::FailoverStep::default()
    };
    let mut steps: Vec<_> =
        case.notes.iter().map(|note| noted(note, step(note.at, note.wall, String::new(), note.by))).collect();
    steps.extend(case.steps.iter().map(|entered| step(entered.at, entered.wall, name(entered.phase), entered.by)));
    for op in &case.ops {
        let what = format!("fence by {}, level {}", name(op.fencer), op.level);
        steps.push(step(op.at, wall_of(op.at), what, op.by));
        if let Some(outcome) = &op.outcome {
            let what = format!("read back {} ('{}')", name(outcome.power), outcome.raw.escape_debug());
            steps.push(step(outcome.at, wall_of(outcome.at), what, op.by));
        }
    }
    // Stable: what was noted stands in front of the phase that it led to.
    steps.sort_by_key(|step| step.at_ms);
    steps
}

fn noted(note: &Note, mut step: ha::FailoverStep) -> ha::FailoverStep {
    step.what = match &note.what {
        What::Seen(seen) => sighting(seen),
        What::Proven(kind) => format!("proven dead, {kind:?}"),
        What::Marked { forced_down: true, disabled: true } => "Nova: forced down and disabled".to_owned(),
        What::Marked { forced_down: true, disabled: false } => "Nova: forced down".to_owned(),
        What::Marked { forced_down: false, disabled: true } => "Nova: disabled".to_owned(),
        What::Marked { forced_down: false, disabled: false } => "Nova: no marks of ours".to_owned(),
        What::Planned { planned, waiting, stays } => {
            format!("plan: {planned} have a target, {waiting} wait, {stays} stay")
        }
        What::Held(act, Some(why)) => format!("{act} is held: {why}"),
        What::Held(act, None) => format!("{act} is not held any more"),
        What::Asked(Some(why)) => format!("an operator is asked: {why}"),
        What::Asked(None) => "no operator is needed any more".to_owned(),
        What::Violated(boot) => format!("PROOF VIOLATED: the life that was proven over says Hello, in boot {boot}"),
        What::Ordered(what) => format!("an operator {what}"),
    };
    let who = note.who.as_ref();
    let until = who.map(|who| who.until).filter(|until| *until > 0);
    step.actor = who.map(|who| who.name.clone());
    step.reason = who.map(|who| who.reason.clone());
    step.until_ms = until.map(|until| note.wall.saturating_add(until).saturating_sub(note.at));
    step
}

fn sighting(seen: &Seen) -> String {
    let groups = [
        (Groups::MANAGEMENT, "management"),
        (Groups::OUT_OF_BAND, "its BMC alone"),
        (Groups::STORAGE, "storage"),
        (Groups::DATA, "its neighbours"),
    ];
    let silent: Vec<_> = groups.iter().filter(|(group, _)| seen.groups.has(*group)).map(|(_, name)| *name).collect();
    let age = seen.age / 1_000;
    let silent = if silent.is_empty() { "nobody".to_owned() } else { silent.join(", ") };
    format!("believed to be {}: last heard {age} s before, silent to: {silent}", name(seen.detection))
}

fn orders(tables: &Tables) -> Vec<ha::FailoverOrder> {
    let failover = tables.failover();
    let now = tables.counters().now;
    let told = |order: &Ordered| ha::FailoverOrder {
        wall_ms: order.wall,
        host: order.host.map(|id| {
            let host = failover.hosts.get(id);
            host.map_or_else(|| id.to_string(), |host| nova_host(tables, host).to_owned())
        }),
        what: order.what.clone(),
        actor: order.who.name.clone(),
        reason: order.who.reason.clone(),
        rest_ms: (order.who.until > 0).then(|| order.who.until.saturating_sub(now)),
        term: order.by.term,
        node: order.by.node,
    };
    failover.small.orders.iter().rev().map(told).collect()
}

fn state(status: Status) -> (String, Option<String>) {
    match status {
        Status::Waiting(why) => ("waiting".to_owned(), Some(why.to_string())),
        Status::Planned => ("planned".to_owned(), None),
        Status::Evacuating => ("evacuating".to_owned(), None),
        Status::Stopping(_) => ("stopping".to_owned(), None),
        Status::Succeeded(_) => ("succeeded".to_owned(), None),
        Status::Stays(why) => ("stays".to_owned(), Some(name(why))),
        Status::Vanished => ("vanished".to_owned(), None),
    }
}

fn instance(tables: &Tables, recovery: &Recovery) -> ha::FailoverInstance {
    let host = |id| {
        let host = tables.failover().hosts.get(id);
        host.map_or_else(|| id.to_string(), |host| nova_host(tables, host).to_owned())
    };
    let (state, why) = state(recovery.status);
    let attempt = recovery.attempt.as_ref();
    let target = match recovery.status {
        Status::Succeeded(at) | Status::Stopping(at) => Some(host(at)),
        _ => attempt.map(|attempt| host(attempt.target.host)),
    };
    ha::FailoverInstance {
        instance: recovery.instance.to_string(),
        state,
        why,
        target,
        rank: recovery.rank.to_string(),
        attempt: attempt.map_or(0, |attempt| attempt.number.into()),
        attempt_state: attempt.map(|attempt| match attempt.state.migration() {
            Some(migration) => format!("migration {migration}"),
            None => name(attempt.state),
        }),
    }
}
