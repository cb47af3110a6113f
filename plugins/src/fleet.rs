//! Test fixture: hosts in a few words, applied as reports, and a table row for one step.

use std::collections::BTreeMap;

use scheduler::command::{Batch, Proposer};
use scheduler::decision::{Claim, DetailView};
use scheduler::pipeline::spec::{Metadata, Param, PipelineKind, PipelineResource, PipelineSpec, StepSpec};
use scheduler::pipeline::{Engine, FilterPlugin, Registry, Scoring, WeigherPlugin};
use scheduler::pod::Pod;
use scheduler::request::{Candidate, Candidates, Group, GroupPolicy};
use scheduler::{
    AggregateReport, Command, Core, Domain, FeatureReport, HostReport, InstanceReport, Intent, Inventory, Outcome,
    Request, Settings, Settled,
};
use serde_json::Value;
use uuid::Uuid;

/// Uuid of an instance by its name in a test.
pub fn vm(name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
}

/// Uuid of an aggregate by its name.
pub fn aggregate_uuid(name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_DNS, name.as_bytes())
}

pub fn texts(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A server group with members by their names.
pub fn group(policy: GroupPolicy, members: &[&str]) -> Group {
    Group {
        uuid: None,
        policy: Some(policy),
        members: members.iter().map(|name| vm(name)).collect(),
        hosts: Vec::new(),
        max_per_host: 1,
    }
}

/// A host in the making.
#[derive(Debug)]
pub struct Host(pub HostReport);

pub fn host(name: &str) -> Host {
    Host(HostReport { name: name.to_owned(), ..HostReport::default() })
}

/// A node that takes pods.
pub fn node(name: &str) -> Host {
    host(name).domain(Domain::Pods)
}

impl Host {
    pub fn labels(mut self, labels: &[(&str, &str)]) -> Self {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        self.0.labels = Some(labels.collect());
        self
    }

    /// Taints as `key=value:Effect`.
    pub fn taints(mut self, taints: &[&str]) -> Self {
        self.0.taints = Some(texts(taints));
        self
    }

    pub fn domain(mut self, domain: Domain) -> Self {
        self.0.domain = domain;
        self
    }

    pub fn zone(mut self, zone: &str) -> Self {
        self.0.availability_zone = Some(zone.to_owned());
        self
    }

    pub fn node(mut self, node: &str) -> Self {
        self.0.hypervisor_hostname = Some(node.to_owned());
        self
    }

    pub fn hypervisor(mut self, kind: &str) -> Self {
        self.0.hypervisor_type = Some(kind.to_owned());
        self
    }

    pub fn arch(mut self, arch: &str) -> Self {
        self.0.cpu_arch = Some(arch.to_owned());
        self
    }

    pub fn cpu(mut self, models: &[&str], features: &[&str], devices: &[&str]) -> Self {
        self.0.cpu_models = Some(texts(models));
        self.0.cpu_features = Some(texts(features));
        self.0.cpu_devices = Some(texts(devices));
        self
    }

    pub fn traits(mut self, names: &[&str]) -> Self {
        self.0.traits = Some(texts(names));
        self
    }

    pub fn allowed_projects(mut self, ids: &[&str]) -> Self {
        self.0.allowed_projects = Some(texts(ids));
        self
    }

    /// Conditions as `Type=Value`.
    pub fn conditions(mut self, conditions: &[&str]) -> Self {
        let pairs = conditions.iter().map(|text| text.split_once('=').expect("a test writes Type=Value"));
        self.0.conditions = Some(pairs.map(|(kind, value)| (kind.to_owned(), value.to_owned())).collect());
        self
    }

    pub fn disabled(mut self) -> Self {
        self.0.disabled = Some(true);
        self
    }

    pub fn forced_down(mut self) -> Self {
        self.0.forced_down = Some(true);
        self
    }

    /// Fields of stock Nova's HostState.
    #[expect(clippy::needless_pass_by_value, reason = "json! makes a value for it")]
    pub fn state(mut self, state: Value) -> Self {
        self.0.nova_host_state = Some(state.to_string());
        self
    }

    pub fn aggregate(mut self, name: &str, metadata: &[(&str, &str)]) -> Self {
        let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.0.aggregates.get_or_insert_default().push(AggregateReport {
            name: name.to_owned(),
            uuid: Some(aggregate_uuid(name)),
            metadata: Some(metadata),
        });
        self
    }

    pub fn inventory(mut self, class: &str, inventory: Inventory) -> Self {
        self.0.inventories.get_or_insert_default().insert(class.to_owned(), inventory);
        self
    }

    /// VCPU count and MEMORY_MB in MiB.
    pub fn amounts(self, cpu: u64, memory: u64) -> Self {
        self.inventory("VCPU", Inventory::of(cpu)).inventory("MEMORY_MB", Inventory::of(memory))
    }

    /// In use as the host counts it: VCPU count and MEMORY_MB in MiB.
    pub fn allocated(mut self, cpu: u64, memory: u64) -> Self {
        let used = [("VCPU", cpu), ("MEMORY_MB", memory)];
        self.0.allocation = Some(used.into_iter().map(|(class, amount)| (class.to_owned(), amount)).collect());
        self
    }

    /// Instances of unknown size.
    pub fn instances(mut self, names: &[&str]) -> Self {
        let listed = names.iter().map(|name| InstanceReport { uuid: vm(name), ..InstanceReport::default() });
        self.0.instances.get_or_insert_default().extend(listed);
        self
    }

    /// An instance of this size: VCPU count and MEMORY_MB in MiB.
    pub fn sized(mut self, name: &str, cpu: u64, memory: u64) -> Self {
        let size = BTreeMap::from([("VCPU".to_owned(), cpu), ("MEMORY_MB".to_owned(), memory)]);
        let instance = InstanceReport { uuid: vm(name), resources: Some(size), ..InstanceReport::default() };
        self.0.instances.get_or_insert_default().push(instance);
        self
    }
}

/// A core that knows some hosts.
pub struct Fleet {
    pub core: Core,
    hosts: Vec<(String, String)>,
}

impl Fleet {
    pub fn of(hosts: impl IntoIterator<Item = Host>) -> Self {
        let reports: Vec<HostReport> = hosts.into_iter().map(|host| host.0).collect();
        let node = |report: &HostReport| report.hypervisor_hostname.clone().unwrap_or_else(|| report.name.clone());
        let hosts = reports.iter().map(|report| (report.name.clone(), node(report))).collect();
        let mut core = Core::new();
        let commands = reports.into_iter().map(|report| Command::Report(Box::new(report))).collect();
        for outcome in core.apply(&Batch { proposer: Proposer::default(), now: 1, wall: 1, commands }) {
            assert!(matches!(outcome, Outcome::Reported(_)), "{outcome:?}");
        }
        assert_eq!(core.check(), Vec::<String>::new());
        Self { core, hosts }
    }

    /// Features of a host, observed at the beginning.
    pub fn features(&mut self, domain: Domain, name: &str, values: &[(&str, f64)]) {
        self.features_at(1, domain, name, values);
    }

    /// Features of a host, observed at this wall time (milliseconds), which it is from then on.
    pub fn features_at(&mut self, wall: u64, domain: Domain, name: &str, values: &[(&str, f64)]) {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let report = FeatureReport { domain, name: name.to_owned(), values, ..FeatureReport::default() };
        let commands = vec![Command::Features(Box::new(report))];
        let outcomes = self.core.apply(&Batch { proposer: Proposer::default(), now: 1, wall, commands });
        assert!(matches!(outcomes[..], [Outcome::Reported(_)]), "{outcomes:?}");
    }

    /// Candidates with these names (none = all), each under its node, without weights.
    pub fn candidates(&self, names: Option<&[String]>) -> Candidates {
        let sent = self.hosts.iter().filter(|(host, _)| names.is_none_or(|names| names.contains(host)));
        Candidates::Sent(
            sent.map(|(host, node)| Candidate { host: host.into(), node: node.into(), weight: 0.0 }).collect(),
        )
    }

    /// Places an instance on `host`; the claim waits to be seen there.
    pub fn claim(&mut self, name: &str, host: &str, change: impl FnOnce(&mut Request)) {
        let mut request = Request {
            consumers: vec![vm(name)],
            pipeline: Some("nova-general".to_owned()),
            candidates: self.candidates(Some(&texts(&[host]))),
            ..Request::default()
        };
        change(&mut request);
        let mut proposal = self.core.decide(&crate::engine(Settings::default()), &request).expect("a host is named");
        let commands = proposal.take_command().into_iter().collect();
        let outcomes = self.core.apply(&Batch { proposer: Proposer::default(), now: 2, wall: 2, commands });
        let settled = self.core.settle(proposal, outcomes.into_iter().next());
        let Settled::Done(decision) = settled else { panic!("not placed: {settled:?}") };
        assert_eq!(decision.claim, Claim::Made, "{name} on {host}: {decision:?}");
    }

    fn run(&mut self, registry: Registry, spec: PipelineSpec, mut request: Request) -> DetailView {
        let mut engine = Engine::new(registry, Settings::default());
        let metadata = Metadata { name: "test".to_owned(), rest: BTreeMap::new() };
        let resource = PipelineResource {
            api_version: "cortex.cloud/v1alpha1".to_owned(),
            kind: "Pipeline".to_owned(),
            metadata,
            spec,
            status: serde::de::IgnoredAny,
        };
        engine.activate(&resource).expect("a test writes a good pipeline");
        request.pipeline = Some("test".to_owned());
        self.core.probe_detail(&engine, &request, &["*".to_owned()]).expect("a test asks something sensible")
    }
}

fn param(key: &str, value: &Value) -> Param {
    let mut param = Param { key: key.to_owned(), ..Param::default() };
    match value {
        Value::Bool(flag) => param.bool_value = Some(*flag),
        Value::String(text) => param.string_value = Some(text.clone()),
        Value::Number(number) if number.is_i64() => param.int_value = number.as_i64(),
        Value::Number(number) => param.float_value = number.as_f64(),
        Value::Array(_) => param.string_list_value = serde_json::from_value(value.clone()).ok(),
        Value::Object(_) => param.float_map_value = serde_json::from_value(value.clone()).ok(),
        Value::Null => {}
    }
    param
}

/// One row of a table: a request to one step, and what is expected of it.
#[must_use]
pub struct Case {
    name: String,
    request: Request,
    options: Value,
    hosts: Option<Vec<String>>,
    kept: Option<Vec<String>>,
    dropped: Vec<(String, String)>,
    skipped: Option<String>,
    events: Vec<(String, Vec<(String, String)>)>,
    note: Option<String>,
    scores: Vec<(String, f64)>,
    shares: Vec<(String, f64)>,
}

pub fn case(name: &str) -> Case {
    Case {
        name: name.to_owned(),
        request: Request { consumers: vec![vm("new")], ..Request::default() },
        options: Value::Object(serde_json::Map::new()),
        hosts: None,
        kept: None,
        dropped: Vec::new(),
        skipped: None,
        events: Vec::new(),
        note: None,
        scores: Vec::new(),
        shares: Vec::new(),
    }
}

impl Case {
    pub fn request(mut self, change: impl FnOnce(&mut Request)) -> Self {
        change(&mut self.request);
        self
    }

    pub fn domain(self, domain: Domain) -> Self {
        self.request(|request| request.domain = domain)
    }

    /// A pod, and what it asks.
    pub fn pod(self, change: impl FnOnce(&mut Pod)) -> Self {
        self.domain(Domain::Pods).request(|request| change(&mut request.pod))
    }

    /// The label of the operation.
    pub fn intent(self, intent: Intent) -> Self {
        self.request(|request| request.label = Some(intent))
    }

    pub fn extra_specs(self, specs: &[(&str, &str)]) -> Self {
        let specs: Vec<_> = specs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.request(|request| request.extra_specs.extend(specs))
    }

    pub fn resources(self, amounts: &[(&str, u64)]) -> Self {
        let amounts: Vec<_> = amounts.iter().map(|(class, amount)| ((*class).to_owned(), *amount)).collect();
        self.request(|request| request.resources.extend(amounts))
    }

    /// Options of the step.
    pub fn options(mut self, options: Value) -> Self {
        self.options = options;
        self
    }

    /// Only these hosts are candidates.
    pub fn hosts(mut self, names: &[&str]) -> Self {
        self.hosts = Some(texts(names));
        self
    }

    pub fn kept(mut self, names: &[&str]) -> Self {
        self.kept = Some(texts(names));
        self
    }

    pub fn kept_all(mut self) -> Self {
        self.kept = None;
        self
    }

    pub fn dropped(mut self, host: &str, reason: &str) -> Self {
        self.dropped.push((host.to_owned(), reason.to_owned()));
        self
    }

    pub fn skipped(mut self, why: &str) -> Self {
        self.skipped = Some(why.to_owned());
        self
    }

    pub fn event(mut self, name: &str, labels: &[(&str, &str)]) -> Self {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.events.push((name.to_owned(), labels));
        self
    }

    pub fn note(mut self, text: &str) -> Self {
        self.note = Some(text.to_owned());
        self
    }

    /// Raw activations.
    pub fn scores(mut self, scores: &[(&str, f64)]) -> Self {
        self.scores = scores.iter().map(|(host, score)| ((*host).to_owned(), *score)).collect();
        self
    }

    /// What is added to the scores with stock Nova's scoring.
    pub fn shares(mut self, shares: &[(&str, f64)]) -> Self {
        self.shares = shares.iter().map(|(host, share)| ((*host).to_owned(), *share)).collect();
        self
    }

    fn run(&mut self, fleet: &mut Fleet, registry: Registry, step: &str, is_filter: bool) -> DetailView {
        self.request.candidates = fleet.candidates(self.hosts.as_deref());
        let options = self.options.as_object().expect("a test writes options as an object");
        let step = StepSpec {
            name: step.to_owned(),
            description: String::new(),
            params: options.iter().map(|(key, value)| param(key, value)).collect(),
            multiplier: None,
        };
        let (filters, weighers) = if is_filter { (vec![step], vec![]) } else { (vec![], vec![step]) };
        let spec = PipelineSpec {
            scheduling_domain: self.request.domain,
            description: String::new(),
            kind: PipelineKind::FilterWeigher,
            ignore_preselection: true,
            scoring: if self.shares.is_empty() { Scoring::Cortex } else { Scoring::Nova },
            filters,
            weighers,
            detectors: Vec::new(),
        };
        fleet.run(registry, spec, self.request.clone())
    }

    /// Runs a filter and compares survivors, reasons, skipping, events and notes.
    pub fn check<P: FilterPlugin>(mut self, fleet: &mut Fleet) {
        let seen = self.run(fleet, Registry::default().filter::<P>(), P::NAME, true);
        let (name, decision) = (&self.name, &seen.decision);
        let mut kept: Vec<&str> = decision.hosts.iter().map(|host| host.host.as_str()).collect();
        let all = fleet.hosts.iter().map(|(host, _)| host.clone());
        let all = self.hosts.clone().unwrap_or_else(|| all.collect());
        let mut expected: Vec<&str> = self.kept.as_ref().unwrap_or(&all).iter().map(String::as_str).collect();
        kept.sort_unstable();
        expected.sort_unstable();
        assert_eq!(kept, expected, "{name}: hosts kept; {:?}", decision.steps);
        for (host, reason) in &self.dropped {
            let story = seen.hosts.iter().find(|story| story.host == *host);
            let story = story.unwrap_or_else(|| panic!("{name}: no story of {host}"));
            assert_eq!(story.dropped_by.as_deref(), Some(P::NAME), "{name}: {host}");
            assert_eq!(story.reason.as_deref(), Some(reason.as_str()), "{name}: {host}");
        }
        if self.skipped.is_some() {
            assert_eq!(decision.steps[0].skipped, self.skipped, "{name}: skipped");
        }
        let events: Vec<(String, Vec<(String, String)>)> = decision
            .events
            .iter()
            // What the core says of any step.
            .filter(|(_, event)| event.name != "dropped_all")
            .map(|(_, event)| {
                let labels = event.labels.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
                (event.name.to_owned(), labels.collect())
            })
            .collect();
        assert_eq!(events, self.events, "{name}: events");
        if let Some(note) = &self.note {
            let note = format!("{}: {note}", P::NAME);
            assert!(decision.notes.contains(&note), "{name}: '{note}' among {:?}", decision.notes);
        }
    }

    /// Runs a weigher and compares raw activations and skipping.
    pub fn weigh<W: WeigherPlugin>(mut self, fleet: &mut Fleet) {
        let seen = self.run(fleet, Registry::default().weigher::<W>(), W::NAME, false);
        let name = &self.name;
        assert_eq!(seen.decision.steps[0].skipped, self.skipped, "{name}: skipped");
        let score = |host: &String| {
            let story = seen.hosts.iter().find(|story| story.host == *host);
            let story = story.unwrap_or_else(|| panic!("{name}: no story of {host}"));
            story.scores.first().unwrap_or_else(|| panic!("{name}: no score of {host}"))
        };
        for (host, expected) in &self.scores {
            let (_, raw, _) = score(host);
            assert!((raw - expected).abs() < 1e-9, "{name}: {host} got {raw}, {expected} expected");
        }
        for (host, expected) in &self.shares {
            let (_, _, share) = score(host);
            assert!((share - expected).abs() < 1e-9, "{name}: {host} adds {share}, {expected} expected");
        }
    }
}

/// What is wrong with these options of a filter.
pub fn filter_options_error<P: FilterPlugin>(options: Value) -> String {
    let read = serde_json::from_value(options).map_err(|error| error.to_string());
    read.and_then(P::new).expect_err("a test gives bad options")
}

/// What is wrong with these options of a weigher.
pub fn weigher_options_error<W: WeigherPlugin>(options: Value) -> String {
    let read = serde_json::from_value(options).map_err(|error| error.to_string());
    read.and_then(W::new).expect_err("a test gives bad options")
}
