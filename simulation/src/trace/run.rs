//! A study: several policies in several modes on the same inputs, side by side on all processors, and its results. What is
//! done is kept point by point, so that a study that broke off goes on where it stood.

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;
use scheduler::Domain;
use scheduler::ha::table::HOSTS;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::bounds::{Limits, bounds, over_time};
use super::failures::Failures;
use super::inflate::inflate;
use super::meter::Moment;
use super::metrics::METRICS;
use super::picture::Picture;
use super::policy::Policy;
use super::record::Record;
use super::replay::{Inputs, Wanted, Watch, first_failure, min_hosts, replay};
use super::sheet::{self, Cell, Sheet};
use super::survive::survive;
use super::table::hex;

/// What is done with each policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// All events; rejected creates are dropped.
    Replay,
    /// From so many starts up to the first rejection.
    FirstFailure {
        /// Starts.
        starts: usize,
    },
    /// The least number of hosts without a rejection.
    MinHosts,
    /// Shapes until so many times the capacity is asked for.
    Inflate {
        /// Demand over capacity.
        factor: f64,
    },
    /// Losses of hosts.
    Survive {
        /// Milliseconds between snapshots.
        every: u64,
    },
}

impl Mode {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::FirstFailure { .. } => "first-failure",
            Self::MinHosts => "min-hosts",
            Self::Inflate { .. } => "inflate",
            Self::Survive { .. } => "survive",
        }
    }
}

/// A study.
pub struct Study {
    /// Inputs.
    pub inputs: Inputs,
    /// Policies, in the order of the tables.
    pub policies: Vec<Arc<Policy>>,
    /// Modes.
    pub modes: Vec<Mode>,
    /// Number of hosts, for the modes that are told one.
    pub count: usize,
    /// Milliseconds between points of the series; `None`: no series.
    pub series: Option<u64>,
    /// Every decision of a replay is wanted.
    pub decisions: bool,
}

/// What one policy came to in one mode.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Done {
    /// What it was run on.
    pub fingerprint: String,
    /// Keys of the policy's results.
    pub result: Map<String, Value>,
    /// The series of a replay.
    pub series: Vec<Moment>,
    /// Its hosts over time.
    pub picture: Option<Picture>,
    /// Its decisions, if they are wanted; they are not kept.
    #[serde(skip)]
    pub record: Option<Record>,
}

/// One policy in one mode.
#[derive(Clone, Copy, Debug)]
pub struct Point<'a> {
    /// The policy.
    pub policy: &'a Arc<Policy>,
    /// The mode.
    pub mode: Mode,
}

impl Point<'_> {
    /// Its name, good for a file.
    pub fn name(&self) -> String {
        point_name(self.mode, &self.policy.name)
    }
}

/// Name of a policy in a mode, good for a file.
pub fn point_name(mode: Mode, policy: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    format!("{}.{}", mode.name(), policy.chars().map(safe).collect::<String>())
}

impl Study {
    /// All of its points.
    pub fn points(&self) -> Vec<Point<'_>> {
        let of = |&mode| self.policies.iter().map(move |policy| Point { policy, mode });
        self.modes.iter().flat_map(of).collect()
    }

    /// What is wrong with it before anything runs.
    pub fn check(&self) -> Result<(), String> {
        if self.count == 0 || self.policies.is_empty() || self.modes.is_empty() {
            return Err("at least one host, one policy and one mode expected".to_owned());
        }
        let mut names: Vec<&str> = self.policies.iter().map(|policy| policy.name.as_str()).collect();
        names.sort_unstable();
        if let Some([twice, _]) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("policy '{twice}' is given twice: pipelines with different names expected"));
        }
        for policy in &self.policies {
            self.inputs.estate(policy, 1)?;
        }
        if self.inputs.failures.is_none() {
            return Ok(());
        }
        if self.count > HOSTS {
            return Err(format!("{} hosts given, at most {HOSTS} expected where hosts fail", self.count));
        }
        if let Some(other) = self.modes.iter().find(|mode| **mode != Mode::Replay) {
            return Err(format!("hosts fail in mode replay only, {} given", other.name()));
        }
        if let Some(policy) = self.policies.iter().find(|policy| policy.domain() != Domain::Nova) {
            let domain = policy.domain();
            return Err(format!("policy '{}' is for domain {domain}, and failover is for nova", policy.name));
        }
        self.inputs.turns(&self.inputs.list.first(self.count)).map(drop)
    }

    /// The lower bounds of the inputs; those over time at so many moments, for a replay.
    pub fn limits(&self, moments: u64) -> Limits {
        let domain = self.policies.first().map_or(Domain::Nova, |policy| policy.domain());
        let Inputs { trace, list, ratios, .. } = &self.inputs;
        let moments = if self.modes.contains(&Mode::Replay) { moments } else { 0 };
        Limits {
            worst: bounds(trace, list, domain, *ratios),
            over_time: over_time(trace, list, domain, *ratios, moments),
        }
    }

    /// Share of hosts that the bounds leave empty, averaged over time after the warm-up.
    fn most_empty(&self, limits: &Limits) -> Option<f64> {
        let warm = self.inputs.warm() / 1000;
        let counted = limits.over_time.iter().filter(|(time, _)| *time >= warm);
        let shares: Vec<f64> = counted.map(|&(_, hosts)| 1.0 - (hosts as f64 / self.count as f64).min(1.0)).collect();
        (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
    }

    /// Which hosts fail, as results tell it.
    fn failures(&self) -> Value {
        self.inputs.failures.as_ref().map_or(Value::Null, Failures::told)
    }

    /// What the result of a point depends on.
    pub fn fingerprint(&self, point: Point<'_>) -> String {
        let inputs = &self.inputs;
        let text = format!(
            "{} {} {} {} {} {:?} {} {} {} {} {:?} {:?} {} {:?} {:?} {}",
            env!("CARGO_PKG_VERSION"),
            inputs.trace.sha256,
            inputs.trace.vms.len(),
            inputs.trace.events.len(),
            inputs.list.sha256,
            inputs.ratios,
            inputs.warm_up,
            inputs.seed,
            inputs.migrations,
            self.failures(),
            inputs.rebalance,
            point.mode,
            self.count,
            self.series,
            point.policy.lifetimes,
            point.policy.resource.text(),
        );
        hex(&Sha256::digest(text))
    }

    /// Runs one point.
    pub fn run_point(&self, point: Point<'_>, limits: &Limits, watch: &dyn Watch) -> Result<Done, String> {
        let (inputs, policy) = (&self.inputs, point.policy);
        let (mut series, mut picture, mut record) = (Vec::new(), None, None);
        let value = match point.mode {
            Mode::Replay => {
                let wanted = Wanted { series: self.series, decisions: self.decisions };
                let replay = replay(inputs, policy, self.count, wanted, watch)?;
                (series, picture, record) = (replay.series, replay.picture, replay.record);
                json!({ "replay": replay.metrics })
            }
            Mode::FirstFailure { starts } => {
                let run = |fading| first_failure(inputs, policy, self.count, starts, fading, watch);
                json!({ "first_failure": { "fading": run(true)?, "recovering": run(false)? } })
            }
            Mode::MinHosts => {
                let bound = limits.worst.best();
                let (hosts, migrations) = min_hosts(inputs, policy, bound, watch)?;
                let over = hosts as f64 / bound.max(1) as f64;
                let mut value = json!({ "min_hosts": hosts, "min_hosts_over_bound": over });
                if inputs.migrations > 0.0 {
                    value["min_hosts_migrations"] = json!(migrations);
                }
                value
            }
            Mode::Inflate { factor } => {
                let inflation = inflate(inputs, policy, self.count, factor, watch)?;
                let fragmentation: BTreeMap<&str, Option<f64>> =
                    ["60", "80", "90", "100"].into_iter().zip(inflation.fragmentation_at).collect();
                json!({ "inflate": inflation, "fragmentation_at": fragmentation })
            }
            Mode::Survive { every } => json!({ "survive": survive(inputs, policy, self.count, every, watch)? }),
        };
        let Value::Object(result) = value else { return Err("a result is no object".to_owned()) };
        Ok(Done { fingerprint: self.fingerprint(point), result, series, picture, record })
    }

    /// Runs all points that `kept` does not have yet, side by side; `keep` is given each that is done, and may take of it what
    /// is large.
    pub fn run(
        &self,
        limits: &Limits,
        kept: impl Fn(Point<'_>) -> Option<Done> + Sync,
        keep: impl Fn(Point<'_>, &mut Done) -> Result<(), String> + Sync,
        watch: impl Fn(Point<'_>) -> Box<dyn Watch + Send> + Sync,
    ) -> Result<Vec<Done>, String> {
        let one = |point: &Point<'_>| -> Result<Done, String> {
            if let Some(done) = kept(*point).filter(|done| done.fingerprint == self.fingerprint(*point)) {
                return Ok(done);
            }
            let watch = watch(*point);
            let mut done = self.run_point(*point, limits, &*watch)?;
            keep(*point, &mut done)?;
            Ok(done)
        };
        self.points().par_iter().map(one).collect()
    }

    /// `result.json`.
    pub fn result(&self, limits: &Limits, done: &[Done]) -> Value {
        let mut policies: Map<String, Value> = Map::new();
        for (point, done) in self.points().into_iter().zip(done) {
            let entry = policies.entry(point.policy.name.clone()).or_insert_with(|| json!({}));
            if let Value::Object(entry) = entry {
                entry.extend(done.result.clone());
            }
        }
        gains(&mut policies);
        let inputs = &self.inputs;
        let trace = &inputs.trace;
        let mut bounds = json!(limits);
        bounds["empty_hosts"] = json!(self.most_empty(limits));
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "seed": inputs.seed,
            "inputs": {
                "trace": {
                    "sha256": trace.sha256, "vms": trace.vms.len(), "events": trace.events.len(),
                    "shapes": trace.shapes.len(), "span_s": trace.end() as f64 / 1000.0,
                },
                "hosts": { "sha256": inputs.list.sha256, "count": self.count },
                "ratios": { "cpu": inputs.ratios.cpu, "memory": inputs.ratios.memory },
                "warm_up": inputs.warm_up,
                "migrations": inputs.migrations,
                "failures": self.failures(),
                "rebalance": inputs.rebalance.map(|rebalance| json!({
                    "objective": rebalance.objective.name(), "hours": rebalance.every as f64 / 3_600_000.0,
                })),
                "ties": "the lowest place in the host list",
            },
            "bounds": bounds,
            "policies": policies,
            "policy_order": self.policies.iter().map(|policy| &policy.name).collect::<Vec<_>>(),
        })
    }

    /// The series of all replays.
    pub fn series(&self, done: &[Done]) -> Sheet {
        let of = |(point, done): (Point<'_>, &Done)| {
            done.series.iter().map(move |moment| row(&point.policy.name, moment)).collect::<Vec<_>>()
        };
        Sheet { columns: sheet::SERIES, rows: self.points().into_iter().zip(done).flat_map(of).collect() }
    }
}

/// The figures of a `result.json` as a table.
pub fn summary(result: &Value) -> Sheet {
    let row = |policy: &str, metric: &str, unit: &str, value: f64| {
        let text = |text: &str| Cell::Text(text.to_owned());
        vec![text(policy), text(metric), text(unit), Cell::Number(Some(value))]
    };
    let mut rows = Vec::new();
    for (name, policy) in result["policies"].as_object().into_iter().flatten() {
        for metric in METRICS {
            rows.extend(metric.of(policy).map(|value| row(name, metric.path, metric.unit, value)));
        }
    }
    for (bound, unit) in
        [("volume", "hosts"), ("l2_cpu", "hosts"), ("l2_mem", "hosts"), ("lp", "hosts"), ("empty_hosts", "share")]
    {
        rows.extend(result["bounds"][bound].as_f64().map(|value| row("", bound, unit, value)));
    }
    Sheet { columns: sheet::SUMMARY, rows }
}

/// The policy that gains are told against.
const PLAIN: &str = "best-fit";

/// Tells how many more hosts a policy leaves empty than best-fit, as a share of all. Runs with other rejections cannot be
/// compared by it: null.
fn gains(policies: &mut Map<String, Value>) {
    let Some(plain) = policies.get(PLAIN).map(|policy| policy["replay"].clone()) else { return };
    for policy in policies.values_mut() {
        let Some(Value::Object(replay)) = policy.get_mut("replay") else { continue };
        let equal = replay["rejections"]["count"] == plain["rejections"]["count"];
        let both = replay["empty_hosts"].as_f64().zip(plain["empty_hosts"].as_f64());
        let gain = both.filter(|_| equal).map(|(here, plain)| here - plain);
        replay.insert("empty_hosts_over_best_fit".to_owned(), json!(gain));
    }
}

fn row(policy: &str, moment: &Moment) -> Vec<Cell> {
    vec![
        Cell::Number(Some(moment.time_s)),
        Cell::Text(policy.to_owned()),
        Cell::Whole(moment.hosts_used),
        Cell::Number(moment.used.cpu),
        Cell::Number(moment.used.mem),
        Cell::Number(moment.used.gpu),
        Cell::Number(moment.fragmentation),
        Cell::Number(moment.large_slots),
        Cell::Whole(moment.rejected),
        Cell::Whole(moment.migrations),
    ]
}
