//! Metrics that are read out of the node and its state when somebody asks.

use std::sync::atomic::Ordering;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use raft::Status;
use raft::members::{Disk, Role};
use scheduler::core::Shadow;
use scheduler::state::Tables;

use super::failover::FailoverMetrics;
use crate::failover::Mode;
use crate::limits::Slots;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PeerLabels {
    peer: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShadowLabels {
    pipeline: String,
    candidate: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DifferenceLabels {
    pipeline: String,
    candidate: u32,
    kind: &'static str,
}

/// Set just before they are read.
#[derive(Default)]
pub(super) struct StateMetrics {
    ready: Gauge,
    leader: Gauge,
    term: Gauge,
    applied: Gauge,
    committed: Gauge,
    last: Gauge,
    snapshot: Gauge,
    role: Gauge,
    voters: Gauge,
    learners: Gauge,
    lags: Family<PeerLabels, Gauge>,
    disk_used: Gauge,
    disk_free: Gauge,
    disk_size: Gauge,
    queue: Gauge,
    batches_in_flight: Gauge,
    decided: Counter,
    batches: Counter,
    commands: Counter,
    syncs: Counter,
    hosts: Gauge,
    consumers: Gauge,
    claims: Counter,
    confirmed: Counter,
    moved: Counter,
    released: Counter,
    expired: Counter,
    http_in_flight: Gauge,
    connections: Gauge,
    bodies: Gauge,
    watchers: Gauge,
    unrunnable: Gauge,
    shadow_compared: Family<ShadowLabels, Counter>,
    shadow_skipped: Family<ShadowLabels, Counter>,
    shadow_differences: Family<DifferenceLabels, Counter>,
    pub(super) failover: FailoverMetrics,
}

/// What is counted elsewhere and read when somebody asks.
pub(crate) struct Reading<'a> {
    pub status: &'a Status,
    /// The state, and the replicated time.
    pub state: Option<(Tables, u64)>,
    /// What failover may do.
    pub failover: Mode,
    /// Whether this node hears too few of its agents.
    pub blind: bool,
    pub requests: &'a Slots,
    pub connections: usize,
    pub bodies: &'a Slots,
    pub watchers: &'a Slots,
    /// The disk of the data folder.
    pub disk: Disk,
    /// Active pipelines that cannot run here.
    pub unrunnable: usize,
    /// How candidates compare.
    pub shadows: Vec<Shadow>,
}

impl StateMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        self.failover.register(registry);
        let help = "Of the leader: log entries that a peer has not acknowledged";
        registry.register("pallium_raft_peer_lag_entries", help, self.lags.clone());
        let help = "Decisions for which a candidate ran beside the active pipeline";
        registry.register("pallium_shadow_compared", help, self.shadow_compared.clone());
        let help = "Decisions of the sample that were not compared, as candidates had taken their share of the time";
        registry.register("pallium_shadow_skipped", help, self.shadow_skipped.clone());
        let help = "Compared decisions that differ: any of it, the first host, the kept hosts, their order";
        registry.register("pallium_shadow_differences", help, self.shadow_differences.clone());
        for (name, help, gauge) in [
            ("pallium_ready", "1 when this node decides", &self.ready),
            ("pallium_raft_leader", "Node id of the leader; 0 = not known", &self.leader),
            ("pallium_raft_term", "Term", &self.term),
            ("pallium_raft_applied_index", "Index of the last applied entry", &self.applied),
            ("pallium_raft_committed_index", "Index of the last committed entry", &self.committed),
            ("pallium_raft_last_index", "Index of the last entry", &self.last),
            ("pallium_raft_snapshot_index", "Index of the last entry in the newest snapshot", &self.snapshot),
            ("pallium_raft_role", "Part of this node: 0 no member, 1 learner, 2 voter, 3 leader", &self.role),
            ("pallium_raft_voters", "Members with a vote, as this node knows them", &self.voters),
            ("pallium_raft_learners", "Members without a vote", &self.learners),
            ("pallium_disk_used_bytes", "Bytes of the log and the snapshots", &self.disk_used),
            ("pallium_disk_free_bytes", "Bytes free on the file system of the data folder", &self.disk_free),
            ("pallium_disk_size_bytes", "Size of the file system of the data folder", &self.disk_size),
            ("pallium_queue_length", "Requests that wait for the owner thread", &self.queue),
            ("pallium_batches_in_flight", "Batches that are proposed and not yet applied", &self.batches_in_flight),
            ("pallium_hosts", "Registered hosts", &self.hosts),
            ("pallium_consumers", "Registered consumers, open claims included", &self.consumers),
            ("pallium_http_requests_in_flight", "Requests that are worked on", &self.http_in_flight),
            ("pallium_http_connections", "Open connections", &self.connections),
            ("pallium_http_bodies_bytes", "Bytes of the request bodies that are held", &self.bodies),
            ("pallium_watchers", "Readers of watches", &self.watchers),
            ("pallium_pipelines_unrunnable", "Active pipelines that this node cannot run", &self.unrunnable),
        ] {
            registry.register(name, help, gauge.clone());
        }
        for (name, help, counter) in [
            ("pallium_decided", "Requests decided here, repeats after a moved state included", &self.decided),
            ("pallium_batches", "Batches proposed here", &self.batches),
            ("pallium_commands", "Commands proposed here", &self.commands),
            ("pallium_wal_syncs", "Syncs of the log", &self.syncs),
            ("pallium_claims", "Claims made", &self.claims),
            ("pallium_claims_confirmed", "Claims whose instance was seen on its host", &self.confirmed),
            ("pallium_claims_moved", "Claims whose instance was seen elsewhere", &self.moved),
            ("pallium_claims_released", "Claims released", &self.released),
            ("pallium_claims_expired", "Claims that expired", &self.expired),
        ] {
            registry.register(name, help, counter.clone());
        }
    }

    pub(super) fn set(&self, reading: &Reading<'_>) {
        let status = reading.status;
        let gauge = |gauge: &Gauge, value: u64| {
            gauge.set(value as i64);
        };
        let counter = |counter: &Counter, value: u64| counter.inner().store(value, Ordering::Relaxed);
        gauge(&self.ready, u64::from(status.ready));
        gauge(&self.leader, status.leader.unwrap_or(0));
        gauge(&self.term, status.term);
        gauge(&self.applied, status.applied.unwrap_or(0));
        gauge(&self.committed, status.committed.unwrap_or(0));
        gauge(&self.last, status.last.unwrap_or(0));
        gauge(&self.snapshot, status.last_snapshot.unwrap_or(0));
        gauge(
            &self.role,
            status.role.map_or(0, |role| match role {
                Role::Learner => 1,
                Role::Voter => 2,
                Role::Leader => 3,
            }),
        );
        gauge(&self.voters, status.members.0 as u64);
        gauge(&self.learners, status.members.1 as u64);
        // Only a leader knows, and members come and go.
        self.lags.clear();
        for (peer, lag) in &status.lags {
            self.lags.get_or_create(&PeerLabels { peer: *peer }).set(*lag as i64);
        }
        gauge(&self.disk_used, reading.disk.used);
        gauge(&self.disk_free, reading.disk.free);
        gauge(&self.disk_size, reading.disk.size);
        gauge(&self.queue, status.queue_len as u64);
        gauge(&self.batches_in_flight, status.in_flight as u64);
        counter(&self.decided, status.decided);
        counter(&self.batches, status.batches);
        counter(&self.commands, status.commands);
        counter(&self.syncs, status.syncs);
        if let Some((tables, now)) = &reading.state {
            let counters = tables.counters();
            self.failover.set(tables, *now, reading.failover, reading.blind);
            gauge(&self.hosts, counters.hosts);
            gauge(&self.consumers, counters.consumers);
            counter(&self.claims, counters.claims);
            counter(&self.confirmed, counters.confirmed);
            counter(&self.moved, counters.moved);
            counter(&self.released, counters.released);
            counter(&self.expired, counters.expired);
        }
        gauge(&self.http_in_flight, reading.requests.taken() as u64);
        gauge(&self.connections, reading.connections as u64);
        gauge(&self.bodies, reading.bodies.taken() as u64);
        gauge(&self.watchers, reading.watchers.taken() as u64);
        gauge(&self.unrunnable, reading.unrunnable as u64);
        // Candidates come and go.
        self.shadow_compared.clear();
        self.shadow_skipped.clear();
        self.shadow_differences.clear();
        for tally in &reading.shadows {
            let labels = ShadowLabels { pipeline: tally.pipeline.clone(), candidate: tally.candidate };
            counter(&self.shadow_compared.get_or_create(&labels), tally.compared);
            counter(&self.shadow_skipped.get_or_create(&labels), tally.skipped);
            let kinds = [("any", tally.differ), ("first", tally.first), ("kept", tally.kept), ("order", tally.order)];
            for (kind, count) in kinds {
                let ShadowLabels { pipeline, candidate } = labels.clone();
                counter(&self.shadow_differences.get_or_create(&DifferenceLabels { pipeline, candidate, kind }), count);
            }
        }
    }
}
