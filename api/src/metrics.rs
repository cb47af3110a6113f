//! What is counted. Pallium's own names begin with `pallium_`; the others are the peer's, so that its
//! dashboards keep working. Label values come from bounded sets, or the family is bounded.
//!
//! A decision finds its counters in a map that is read without a lock; what is in it is atomics.

mod failover;
mod state;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::http::StatusCode;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry};
use scheduler::decision::StepKind;
use scheduler::ha::masakari::Kind;
use scheduler::{Decision, Intent};

use crate::convert;
use crate::histogram::Histogram;
use crate::identity;
use crate::limits::ApiConfig;
use state::StateMetrics;

pub(crate) use state::Reading;

/// Pipelines that have their own label; more count as `other`.
const PIPELINES: usize = 256;
/// Series of a family whose labels a request can choose; more are not counted.
const SERIES: usize = 4096;

/// What notifications of Masakari are about.
const KINDS: [&str; 3] = ["COMPUTE_HOST", "PROCESS", "VM"];
/// Content type of [`Metrics::render`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(String, String)>;
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// All metrics of a server.
pub(crate) struct Metrics {
    registry: Registry,
    http: Histograms<HttpLabels>,
    hooks: Histograms<HookLabels>,
    refused: Family<ReasonLabels, Counter>,
    pub watch_lost: Counter,
    pub proof_violations: Counter,
    pub guests_stopped: Counter,
    denied: Family<ReasonLabels, Counter>,
    notified: Family<NotifiedLabels, Counter>,
    pipelines: ArcSwap<BTreeMap<String, Arc<PipelineMetrics>>>,
    families: Families,
    state: StateMetrics,
}

/// Families with one label set for each pipeline or step.
struct Families {
    decisions: Family<DecisionLabels, Counter>,
    duration: Histograms<PipelineLabels>,
    requests: Family<PipelineLabels, Counter>,
    hosts_in: Histograms<PipelineLabels>,
    hosts_out: Histograms<PipelineLabels>,
    run: Histograms<PipelineLabels>,
    step_run: Histograms<StepLabels>,
    step_removed: Histograms<StepLabels>,
    step_impact: Histograms<ImpactLabels>,
    step_events: Bounded<Labels>,
    quota: Bounded<Labels>,
    no_host: Bounded<PlacementLabels>,
    placed: Bounded<PlacementLabels>,
}

/// Counters whose labels a request can choose: at most [`SERIES`] of them.
struct Bounded<L> {
    family: Family<L, Counter>,
    series: AtomicUsize,
}

/// What one pipeline counts.
struct PipelineMetrics {
    label: String,
    requests: Counter,
    duration: Histogram,
    run: Histogram,
    hosts_in: Histogram,
    hosts_out: Histogram,
    steps: Vec<(String, Histogram, Histogram)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpLabels {
    method: &'static str,
    path: &'static str,
    status: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HookLabels {
    method: &'static str,
    path: &'static str,
    status: u16,
    error: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NotifiedLabels {
    kind: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    intent: &'static str,
    pipeline: String,
    claim: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PipelineLabels {
    pipeline: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    pipeline: String,
    step: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ImpactLabels {
    pipeline: String,
    step: String,
    stat: &'static str,
    unit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PlacementLabels {
    flavor_group: String,
    intent: &'static str,
    cr_slot: &'static str,
}

/// One answered HTTP request.
pub(crate) struct Answered {
    pub method: &'static str,
    pub path: &'static str,
    pub status: u16,
    pub error: Option<&'static str>,
    pub took: Duration,
}

fn seconds() -> Histogram {
    Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
}

fn fine_seconds() -> Histogram {
    Histogram::new([
        0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
        0.5, 1.0, 2.5, 5.0,
    ])
}

fn step_seconds() -> Histogram {
    Histogram::new([
        0.000_001, 0.000_005, 0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
        1.0, 2.5, 5.0, 10.0,
    ])
}

/// `count` bounds from `low` to `high`, each the same factor above the one before.
fn spread(low: f64, high: f64, count: i32) -> impl Iterator<Item = f64> {
    let factor = (high / low).powf(1.0 / f64::from(count - 1));
    (0..count).map(move |at| low * factor.powi(at))
}

fn hosts() -> Histogram {
    Histogram::new(spread(1.0, 1000.0, 10))
}

fn impact() -> Histogram {
    Histogram::new(spread(0.01, 1000.0, 20))
}

fn histograms<L: Clone + Eq + Hash>(new: fn() -> Histogram) -> Histograms<L> {
    Family::new_with_constructor(new)
}

impl Metrics {
    pub(crate) fn new(config: &ApiConfig) -> Self {
        let mut registry = Registry::default();
        let families = Families {
            decisions: add(&mut registry, "pallium_decisions", "Decisions", Family::default()),
            duration: add(
                &mut registry,
                "pallium_decision_duration_seconds",
                "Time from a request's translation to its committed decision",
                histograms(fine_seconds),
            ),
            requests: add(
                &mut registry,
                "cortex_filter_weigher_pipeline_requests",
                "Requests that a pipeline ran for",
                Family::default(),
            ),
            hosts_in: add(
                &mut registry,
                "cortex_filter_weigher_pipeline_host_number_in",
                "Hosts that entered a pipeline",
                histograms(hosts),
            ),
            hosts_out: add(
                &mut registry,
                "cortex_filter_weigher_pipeline_host_number_out",
                "Hosts that a pipeline answered",
                histograms(hosts),
            ),
            run: add(
                &mut registry,
                "cortex_filter_weigher_pipeline_run_duration_seconds",
                "Time that the steps of a pipeline took together",
                histograms(step_seconds),
            ),
            step_run: add(
                &mut registry,
                "cortex_filter_weigher_pipeline_step_run_duration_seconds",
                "Time that a step took",
                histograms(step_seconds),
            ),
            step_removed: add(
                &mut registry,
                "cortex_filter_weigher_pipeline_step_removed_hosts",
                "Hosts that a step dropped",
                histograms(hosts),
            ),
            step_events: bounded(&mut registry, "cortex_filter_weigher_pipeline_step_events", "Things that steps saw"),
            step_impact: add(
                &mut registry,
                "cortex_filter_weigher_pipeline_step_impact",
                "How far a step moved hosts, weighted by a statistic, in a sample of the decisions",
                histograms(impact),
            ),
            quota: bounded(
                &mut registry,
                "cortex_nova_filter_quota_enforcement_decisions",
                "Decisions of the quota filter",
            ),
            no_host: bounded(&mut registry, "cortex_nova_no_host_found", "Nova requests for which no host was left"),
            placed: bounded(&mut registry, "cortex_nova_placement", "Nova requests that were answered"),
        };
        let http = add(
            &mut registry,
            "pallium_http_request_duration_seconds",
            "Time from the head of a request to the head of its answer",
            histograms(fine_seconds),
        );
        let hooks = add(
            &mut registry,
            "cortex_scheduler_api_request_duration_seconds",
            "Time of a call of a scheduler hook; error is Success or the code of the error",
            histograms(seconds),
        );
        let refused =
            add(&mut registry, "pallium_refused", "Requests that were refused or failed, by code", Family::default());
        let watch_lost =
            add(&mut registry, "pallium_watch_events_lost", "Events that slow readers did not get", Counter::default());
        let proof_violations = add(
            &mut registry,
            "pallium_ha_proof_violations",
            "Hosts that said Hello in a life that was proven over",
            Counter::default(),
        );
        let guests_stopped = add(
            &mut registry,
            "pallium_ha_guests_stopped",
            "Guests that an agent was told to stop, for they ran where they had no right to",
            Counter::default(),
        );
        let denied = add(
            &mut registry,
            "pallium_ha_identity_refused",
            "Sessions, reports and orders that the client's certificate is not for",
            Family::default(),
        );
        let notified = add(
            &mut registry,
            "pallium_ha_masakari_notifications",
            "Notifications of Masakari's monitors, by what they are about and the status they were answered with",
            Family::default(),
        );
        // From the start: what has no series cannot be told from what is not scraped.
        for reason in identity::REASONS {
            let _ = denied.get_or_create(&ReasonLabels { reason });
        }
        for kind in KINDS {
            let _ = notified.get_or_create(&NotifiedLabels { kind, status: 202 });
        }
        limits(&mut registry, config);
        let state = StateMetrics::default();
        state.register(&mut registry);
        let pipelines = ArcSwap::default();
        Self {
            registry,
            http,
            hooks,
            refused,
            watch_lost,
            proof_violations,
            guests_stopped,
            denied,
            notified,
            pipelines,
            families,
            state,
        }
    }

    /// Counts an answered request.
    pub(crate) fn answered(&self, answered: &Answered) {
        let Answered { method, path, status, error, took } = *answered;
        let took = took.as_secs_f64();
        self.http.get_or_create(&HttpLabels { method, path, status }).observe(took);
        if path.starts_with("/scheduler/") {
            let error = error.unwrap_or("Success");
            self.hooks.get_or_create(&HookLabels { method, path, status, error }).observe(took);
        }
        if let Some(reason) = error {
            self.refused.get_or_create(&ReasonLabels { reason }).inc();
        }
    }

    /// Whether it is time to look whether a host could be lost.
    pub(crate) fn wants_headroom(&self, tables: &scheduler::state::Tables) -> bool {
        self.state.failover.wants_headroom(tables)
    }

    /// So many instances would find no room, were the worst host lost.
    pub(crate) fn headroom(&self, left: u32, rooms: &[scheduler::ha::admission::Headroom]) {
        self.state.failover.headroom(left, rooms);
    }

    /// Counts what was refused by a client's certificate.
    pub(crate) fn denied(&self, reason: &'static str) {
        self.denied.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Counts a notification of a monitor; no status: it was taken in.
    pub(crate) fn notified(&self, kind: Kind, refused: Option<StatusCode>) {
        let kind = KINDS[match kind {
            Kind::ComputeHost => 0,
            Kind::Process => 1,
            Kind::Vm => 2,
        }];
        let status = refused.unwrap_or(StatusCode::ACCEPTED).as_u16();
        self.notified.get_or_create(&NotifiedLabels { kind, status }).inc();
    }

    /// Counts a decision that took `took`, with the flavor group of its request.
    pub(crate) fn decided(&self, decision: &Decision, flavor_group: &str, took: Duration) {
        let pipeline = self.pipeline(decision);
        let label = &pipeline.label;
        self.families
            .decisions
            .get_or_create(&DecisionLabels {
                intent: decision.intent.as_str(),
                pipeline: label.clone(),
                claim: convert::claim(decision.claim),
            })
            .inc();
        pipeline.duration.observe(took.as_secs_f64());
        pipeline.requests.inc();
        pipeline.hosts_in.observe(decision.candidates as f64);
        pipeline.hosts_out.observe(decision.hosts.len() as f64);
        let nanos = |nanos: u64| nanos as f64 / 1e9;
        if !decision.timings.is_empty() {
            pipeline.run.observe(nanos(decision.timings.iter().sum()));
        }
        for (at, (step, (_, run, removed))) in decision.steps.iter().zip(&pipeline.steps).enumerate() {
            if let Some(&took) = decision.timings.get(at) {
                run.observe(nanos(took));
            }
            if let Some(impact) = &step.impact {
                let (pipeline, step) = (label.clone(), step.name.clone());
                let labels = ImpactLabels { pipeline, step, stat: impact.statistic, unit: impact.unit };
                self.families.step_impact.get_or_create_owned(&labels).observe(impact.value);
            }
            if step.kind == StepKind::Filter {
                removed.observe(step.hosts_in.saturating_sub(step.hosts_out) as f64);
            }
        }
        for (step, event) in &decision.events {
            let mut labels: Labels =
                event.labels.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
            if event.name == "quota_decision" {
                self.families.quota.count(&labels);
                continue;
            }
            labels.splice(
                0..0,
                [("pipeline", label.as_str()), ("step", step), ("event", event.name)]
                    .map(|(key, value)| (key.to_owned(), value.to_owned())),
            );
            self.families.step_events.count(&labels);
        }
        if decision.domain == scheduler::Domain::Nova && decision.intent != Intent::CapacityProbe {
            let family = if decision.hosts.is_empty() { &self.families.no_host } else { &self.families.placed };
            family.count(&PlacementLabels {
                flavor_group: flavor_group.to_owned(),
                intent: decision.intent.as_str(),
                cr_slot: "no_cr",
            });
        }
    }

    /// The counters of the decision's pipeline, made at its first decision and when its steps change.
    fn pipeline(&self, decision: &Decision) -> Arc<PipelineMetrics> {
        let known = self.pipelines.load();
        let name = decision.pipeline.as_str();
        if let Some(pipeline) = known.get(name) {
            let steps = decision.steps.iter().map(|step| step.name.as_str());
            // The answer to a repeat has no steps.
            if decision.steps.is_empty() || steps.eq(pipeline.steps.iter().map(|(name, ..)| name.as_str())) {
                return Arc::clone(pipeline);
            }
        }
        let label = if known.len() >= PIPELINES && !known.contains_key(name) { "other" } else { name };
        let pipeline = Arc::new(self.families.pipeline(label, decision));
        if label == name {
            self.pipelines.rcu(|map| {
                let mut map = BTreeMap::clone(map);
                map.insert(name.to_owned(), Arc::clone(&pipeline));
                map
            });
        }
        pipeline
    }

    /// Everything, in the OpenMetrics text format.
    pub(crate) fn render(&self, reading: &Reading<'_>) -> String {
        self.state.set(reading);
        let mut out = String::with_capacity(64 << 10);
        // A string takes whatever is written to it.
        let _ = encode(&mut out, &self.registry);
        out
    }
}

impl<L: Clone + Eq + Hash> Bounded<L> {
    fn count(&self, labels: &L) {
        if let Some(counter) = self.family.get(labels) {
            counter.inc();
            return;
        }
        if self.series.fetch_add(1, Ordering::Relaxed) < SERIES {
            self.family.get_or_create(labels).inc();
        } else {
            self.series.store(SERIES, Ordering::Relaxed);
        }
    }
}

fn bounded<L: Clone + Eq + Hash + fmt::Debug + EncodeLabelSet + Send + Sync + 'static>(
    registry: &mut Registry,
    name: &str,
    help: &str,
) -> Bounded<L> {
    Bounded { family: add(registry, name, help, Family::default()), series: AtomicUsize::new(0) }
}

fn add<M: EncodeMetric + Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

fn limits(registry: &mut Registry, config: &ApiConfig) {
    let limits: Family<Labels, Gauge> = add(registry, "pallium_limit", "Limits of this server", Family::default());
    for (name, limit) in [
        ("body_bytes", config.body as u64),
        ("bodies_bytes", config.bodies as u64),
        ("concurrency", config.concurrency as u64),
        ("connections", config.connections as u64),
        ("deadline_milliseconds", config.deadline.as_millis() as u64),
        ("head_bytes", config.head as u64),
        ("watchers", config.watchers as u64),
    ] {
        limits.get_or_create(&vec![("limit".to_owned(), name.to_owned())]).set(limit as i64);
    }
}

impl Families {
    fn pipeline(&self, label: &str, decision: &Decision) -> PipelineMetrics {
        let labels = PipelineLabels { pipeline: label.to_owned() };
        PipelineMetrics {
            label: label.to_owned(),
            requests: self.requests.get_or_create_owned(&labels),
            duration: self.duration.get_or_create_owned(&labels),
            run: self.run.get_or_create_owned(&labels),
            hosts_in: self.hosts_in.get_or_create_owned(&labels),
            hosts_out: self.hosts_out.get_or_create_owned(&labels),
            steps: decision
                .steps
                .iter()
                .map(|step| {
                    let labels = StepLabels { pipeline: label.to_owned(), step: step.name.clone() };
                    let run = self.step_run.get_or_create_owned(&labels);
                    let removed = match step.kind {
                        StepKind::Filter => self.step_removed.get_or_create_owned(&labels),
                        StepKind::Weigher => hosts(),
                    };
                    (step.name.clone(), run, removed)
                })
                .collect(),
        }
    }
}
