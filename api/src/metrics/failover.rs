//! Failover in numbers, read out of the replicated state when somebody asks: every node shows the same.

mod times;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use scheduler::ha::admission::{self, Rule};
use scheduler::ha::breaker::Scope;
use scheduler::ha::case::{Act, Phase};
use scheduler::ha::recovery::{AttemptState, Status};
use scheduler::ha::{Detection, Failover, trouble};
use scheduler::state::Tables;

use self::times::CaseTimes;
use crate::failover::{Mode, name};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InPhase {
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    act: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct In {
    domain: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Zone {
    zone: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Headroom {
    domain: String,
    policy: String,
    /// None: instances are counted.
    resource: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Befell {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InStatus {
    status: &'static str,
}

const DETECTIONS: [Detection; 5] =
    [Detection::Alive, Detection::Suspect, Detection::Isolated, Detection::Unreachable, Detection::Dead];
const PHASES: [Phase; 12] = [
    Phase::Unreachable,
    Phase::FencePending,
    Phase::Fencing,
    Phase::FenceFailed,
    Phase::Fenced,
    Phase::NovaDown,
    Phase::Planning,
    Phase::Evacuating,
    Phase::Recovered,
    Phase::PartiallyRecovered,
    Phase::AwaitReturn,
    Phase::Returning,
];
/// Words of [`scheduler::ha::recovery::Waiting`].
const WAITINGS: [&str; 6] = ["capacity", "size", "target", "replan", "group", "unlike"];
const STATUSES: [&str; 7] = ["waiting", "planned", "evacuating", "stopping", "succeeded", "stays", "vanished"];

/// Set just before they are read.
#[derive(Default)]
pub(super) struct FailoverMetrics {
    mode: Gauge,
    restored: Gauge,
    unmarked: Gauge,
    hosts: Family<State, Gauge>,
    quarantined: Gauge,
    poison: Gauge,
    troubles: Family<Befell, Counter>,
    unchecked: Gauge,
    degraded: Gauge,
    unfenced: Gauge,
    unprotected: Gauge,
    cases: Family<InPhase, Gauge>,
    closed: Counter,
    needs_operator: Gauge,
    held: Family<Of, Gauge>,
    paused: Family<Of, Gauge>,
    breakers: Family<In, Gauge>,
    zones: Family<Zone, Gauge>,
    instances: Family<InStatus, Gauge>,
    waiting: Family<Reason, Gauge>,
    ambiguous: Gauge,
    untold: Gauge,
    blind: Gauge,
    exhausted: Gauge,
    false_suspicions: Counter,
    headroom: Family<Headroom, Gauge>,
    /// When it was asked last whether a host could be lost.
    asked: Mutex<Option<Instant>>,
    times: CaseTimes,
}

/// Whether a host could be lost is looked at so often at most: it reads every instance.
const HEADROOM: Duration = Duration::from_mins(1);

impl FailoverMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let mut add = |name: &str, help: &str, gauge: &Gauge| registry.register(name, help, gauge.clone());
        add("pallium_ha_mode", "What failover may do: 0 nothing, 1 decide without effect, 2 act", &self.mode);
        add("pallium_ha_restored", "1 while failover waits for an operator after a restore", &self.restored);
        let help = "1 while failover does nothing because the mark in Nova is not known to be its cluster's alone";
        add("pallium_ha_unmarked", help, &self.unmarked);
        add("pallium_ha_quarantined_hosts", "Hosts in quarantine: nothing is placed there", &self.quarantined);
        let help =
            "Instances in quarantine: three hosts died under each within an hour, or its migration failed in post-copy";
        add("pallium_ha_quarantined_instances", help, &self.poison);
        add("pallium_ha_unchecked_hosts", "Hosts where nothing checks permits, on purpose", &self.unchecked);
        add("pallium_ha_degraded_hosts", "Hosts that live, and where something is wrong", &self.degraded);
        let help = "Hosts whose BMC has given no power state of theirs for a quarter of an hour";
        add("pallium_ha_fence_path_broken", help, &self.unfenced);
        add("pallium_ha_unprotected_hosts", "Those of which that is so for an hour", &self.unprotected);
        add("pallium_ha_needs_operator", "Open cases that a person must look at", &self.needs_operator);
        add("pallium_ha_ambiguous_attempts", "Evacuations that nobody knows whether Nova took", &self.ambiguous);
        let help = "Cases of which the receiver that is furthest behind was not told all";
        add("pallium_ha_events_untold", help, &self.untold);
        let help = "Guests that were restarted three times within ten minutes, and do not run";
        add("pallium_ha_restarts_exhausted", help, &self.exhausted);
        add("pallium_ha_blind", "1 while this node hears so few of its agents that it calls itself blind", &self.blind);
        let help = "Doubts about hosts that were heard again in the same life";
        registry.register("pallium_ha_false_suspicions", help, self.false_suspicions.clone());
        let help = "Of the region, below 0: as many instances would find no room were the worst host lost; of a zone and cell: what may be placed";
        registry.register("pallium_ha_failover_headroom", help, self.headroom.clone());
        // What has no series cannot be told from what is not scraped.
        self.headroom(0, &[]);
        self.times.register(registry);
        let help = "Protected hosts, by what is believed of them; unknown: they never said Hello";
        registry.register("pallium_ha_host_state", help, self.hosts.clone());
        registry.register("pallium_ha_cases", "Open cases, by phase", self.cases.clone());
        let help = "What befell single guests of hosts that live: destroyed, postcopy_failed, unmanaged";
        registry.register("pallium_ha_guest_troubles", help, self.troubles.clone());
        registry.register("pallium_ha_cases_closed", "Cases that are over", self.closed.clone());
        registry.register("pallium_ha_held", "Open cases of which an act is held", self.held.clone());
        registry.register("pallium_ha_paused_seconds", "Time that an act stays paused", self.paused.clone());
        registry.register("pallium_ha_breaker_state", "1 for an open breaker", self.breakers.clone());
        let help = "0 normal, 1 partial, 2 full (no host is heard), 3 all full: how bold failover is in a zone";
        registry.register("pallium_ha_zone_mode", help, self.zones.clone());
        registry.register("pallium_ha_instances", "Instances of open cases, by status", self.instances.clone());
        registry.register("pallium_ha_instances_waiting", "Instances that wait, by reason", self.waiting.clone());
    }

    /// Whether it is time to look whether a host could be lost; it is not asked again for a while.
    pub(super) fn wants_headroom(&self, tables: &Tables) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let due = asked.is_none_or(|at| at.elapsed() >= HEADROOM) && !tables.failover().hosts.is_empty();
        if due {
            *asked = Some(Instant::now());
        }
        due
    }

    /// So many instances would find no room, were the worst host lost; and what policies leave to place.
    pub(super) fn headroom(&self, left: u32, rooms: &[admission::Headroom]) {
        // Policies, zones and cells go.
        self.headroom.clear();
        let region = Headroom { domain: "region".to_owned(), policy: Rule::Host.to_string(), resource: None };
        self.headroom.get_or_create(&region).set(-i64::from(left));
        for room in rooms {
            let (domain, policy, resource) = (room.domain.clone(), room.rule.to_string(), Some(room.class.clone()));
            self.headroom.get_or_create(&Headroom { domain, policy, resource }).set(room.left);
        }
    }

    pub(super) fn set(&self, tables: &Tables, now: u64, mode: Mode, blind: bool) {
        let failover = tables.failover();
        let gauge = |gauge: &Gauge, value: usize| {
            gauge.set(value as i64);
        };
        self.blind.set(blind.into());
        gauge(&self.exhausted, failover.restarts.iter().filter(|restart| restart.is_exhausted(now)).count());
        for (kind, count) in trouble::Kind::ALL.into_iter().zip(failover.small.troubled) {
            let counter = self.troubles.get_or_create(&Befell { kind: kind.as_str() });
            counter.inner().store(count, std::sync::atomic::Ordering::Relaxed);
        }
        gauge(&self.poison, failover.deaths.iter().filter(|known| known.quarantined.is_some()).count());
        self.false_suspicions.inner().store(failover.small.false_suspicions, std::sync::atomic::Ordering::Relaxed);
        self.times.observe(failover, tables.counters().now);
        gauge(
            &self.mode,
            match mode {
                Mode::Off => 0,
                Mode::DryRun => 1,
                Mode::Enforce => 2,
            },
        );
        let restored = failover.small.epoch != tables.counters().epoch && !failover.hosts.is_empty();
        gauge(&self.restored, usize::from(restored));
        let marked = failover.is_marked(failover.small.leader, tables.counters().epoch);
        let unmarked = mode == Mode::Enforce && !marked && !failover.hosts.is_empty();
        gauge(&self.unmarked, usize::from(unmarked));
        self.hosts_of(failover);
        let unfenced = || failover.hosts.iter().filter_map(|host| host.unfenced());
        gauge(&self.unfenced, unfenced().count());
        gauge(&self.unprotected, unfenced().filter(|unfenced| unfenced.is_unprotected(now)).count());
        self.cases_of(failover);
        for act in [Act::Kill, Act::Recover] {
            let of = Of { act: act.to_string() };
            let held = failover.cases.iter().filter(|case| case.held(act).is_some()).count();
            gauge(&self.held.get_or_create(&of), held);
            let rest = failover.paused(act).saturating_sub(now).div_ceil(1_000);
            gauge(&self.paused.get_or_create(&of), rest as usize);
        }
        self.breakers.clear();
        // The region's always: what has no series cannot be told from what is not scraped.
        gauge(&self.breakers.get_or_create(&In { domain: "region".to_owned() }), 0);
        for scope in failover.small.breakers.keys() {
            let text = |sym| tables.names.text(sym);
            let domain = match *scope {
                Scope::Region => "region".to_owned(),
                Scope::Az(az) => format!("az:{}", text(az)),
                Scope::Cell(cell) => format!("cell:{}", text(cell)),
                Scope::Cluster(cluster) => format!("cluster:{}", text(cluster)),
            };
            gauge(&self.breakers.get_or_create(&In { domain }), 1);
        }
        self.zones.clear();
        for (az, (mode, _)) in failover.zones(now) {
            let zone = Zone { zone: tables.names.text(az).to_owned() };
            self.zones.get_or_create(&zone).set(mode as i64);
        }
        self.instances_of(failover);
        let newest = failover.cases.iter().map(|case| case.since).chain(failover.closed().map(|case| case.since));
        let told = failover.small.told.values().copied().min();
        gauge(&self.untold, told.map_or(0, |told| newest.filter(|since| *since > told).count()));
    }

    fn hosts_of(&self, failover: &Failover) {
        let (mut unknown, mut states) = (0, [0_i64; DETECTIONS.len()]);
        let (mut quarantined, mut unchecked, mut degraded) = (0, 0, 0);
        for host in failover.hosts.iter().filter(|host| host.enabled) {
            quarantined += i64::from(host.quarantined && host.incarnation > 0);
            unchecked += i64::from(host.unchecked);
            degraded += i64::from(!host.degraded.is_empty());
            match DETECTIONS.iter().position(|known| *known == host.belief.detection) {
                Some(at) if host.incarnation > 0 => states[at] += 1,
                _ => unknown += 1,
            }
        }
        self.quarantined.set(quarantined);
        self.unchecked.set(unchecked);
        self.degraded.set(degraded);
        self.hosts.get_or_create(&State { state: "unknown".to_owned() }).set(unknown);
        for (detection, count) in DETECTIONS.iter().zip(states) {
            self.hosts.get_or_create(&State { state: name(detection) }).set(count);
        }
    }

    fn cases_of(&self, failover: &Failover) {
        for phase in PHASES {
            let count = failover.cases.iter().filter(|case| case.phase == phase).count();
            self.cases.get_or_create(&InPhase { phase: phase.as_str() }).set(count as i64);
        }
        self.closed.inner().store(failover.small.closed, std::sync::atomic::Ordering::Relaxed);
        let flagged = failover.cases.iter().filter(|case| case.needs_operator.is_some()).count();
        self.needs_operator.set(flagged as i64);
    }

    fn instances_of(&self, failover: &Failover) {
        let (mut statuses, mut waiting, mut ambiguous) = ([0_i64; STATUSES.len()], [0_i64; WAITINGS.len()], 0);
        for recovery in failover.recoveries.iter() {
            let status = match recovery.status {
                Status::Waiting(why) => {
                    waiting[WAITINGS.iter().position(|known| *known == why.as_str()).unwrap_or(0)] += 1;
                    0
                }
                Status::Planned => 1,
                Status::Evacuating => 2,
                Status::Stopping(_) => 3,
                Status::Succeeded(_) => 4,
                Status::Stays(_) => 5,
                Status::Vanished => 6,
            };
            statuses[status] += 1;
            ambiguous += i64::from(recovery.live().is_some_and(|attempt| attempt.state == AttemptState::Ambiguous));
        }
        for (status, count) in STATUSES.into_iter().zip(statuses) {
            self.instances.get_or_create(&InStatus { status }).set(count);
        }
        for (why, count) in WAITINGS.iter().zip(waiting) {
            self.waiting.get_or_create(&Reason { reason: (*why).to_owned() }).set(count);
        }
        self.ambiguous.set(ambiguous);
    }
}
