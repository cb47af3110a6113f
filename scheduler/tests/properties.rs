//! Any sequence of commands keeps every invariant; the log replayed gives the same checksum; the
//! index equals one built anew (`Core::check` compares them); a snapshot restores to the same state.

use std::collections::BTreeMap;

use proptest::prelude::*;
use scheduler::catalogue;
use scheduler::command::{Action, Change, Part, Place, Record};
use scheduler::decision::Claim;
use scheduler::features::Feature;
use scheduler::names::{Sym, Text};
use scheduler::pipeline::spec::{Metadata, PipelineKind, PipelineResource, PipelineSpec, StepSpec};
use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Registry, Survivors, Verdict};
use scheduler::request::{Caller, Candidate, Candidates, Group, GroupPolicy, Request};
use scheduler::{
    Amounts, Batch, Command, Core, Domain, Engine, FeatureReport, HostReport, InstanceReport, Intent, Inventory,
    Outcome, Proposal, Proposer, Purpose, Row, Settings, Settled, SmolStr,
};
use uuid::Uuid;

/// The capacity rule alone, so that the core is tested without the plugins.
#[derive(Debug)]
struct Fits;

impl Filter for Fits {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        for (class, asked) in &cx.request.resources {
            match cx.view.column(class) {
                Some((_, column)) => {
                    hosts.keep_where("short", |row| column.fit[row.0 as usize] >= *asked, |_| Detail::None);
                }
                None => hosts.drop_all("no inventory"),
            }
        }
        Verdict::Ran
    }
}

impl FilterPlugin for Fits {
    const NAME: &'static str = "filter_fits";
    const DOMAINS: &'static [Domain] = &Domain::ALL;
    const SUMMARY: &'static str = "";
    const MISSING_DATA: &'static str = "";
    type Options = NoOptions;
    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

fn resource(description: &str) -> PipelineResource {
    let step = StepSpec { name: "filter_fits".into(), description: String::new(), params: vec![], multiplier: None };
    PipelineResource {
        api_version: "cortex.cloud/v1alpha1".into(),
        kind: "Pipeline".into(),
        metadata: Metadata { name: "nova-general".into(), rest: BTreeMap::new() },
        spec: PipelineSpec {
            scheduling_domain: Domain::Nova,
            description: description.to_owned(),
            kind: PipelineKind::FilterWeigher,
            ignore_preselection: false,
            scoring: scheduler::pipeline::Scoring::default(),
            filters: vec![step],
            weighers: vec![],
            detectors: vec![],
        },
        status: serde::de::IgnoredAny,
    }
}

fn engine() -> Engine {
    let mut engine = Engine::new(Registry::default().filter::<Fits>(), Settings::default());
    engine.activate(&resource("shipped")).expect("a valid pipeline");
    engine
}

const HOSTS: u8 = 5;
const INSTANCES: u8 = 8;

fn host(n: u8) -> String {
    format!("node-{n}")
}

fn instance(n: u8) -> Uuid {
    Uuid::from_u128(0x1000 + u128::from(n))
}

fn group(n: u8) -> Uuid {
    Uuid::from_u128(0x2000 + u128::from(n))
}

#[derive(Clone, Debug)]
enum Op {
    Report {
        host: u8,
        cpu: u64,
        reserved: u64,
        listed: Vec<(u8, Option<u64>)>,
        back: u64,
        allocation: Option<u64>,
        down: bool,
    },
    RemoveHost {
        host: u8,
    },
    Ask {
        instance: u8,
        cpu: u64,
        label: Option<Intent>,
        hosts: Vec<u8>,
        ignore: Vec<u8>,
        request: Option<u8>,
        key: Option<u8>,
        group: Option<u8>,
    },
    /// Two decisions before either is applied.
    Race {
        one: (u8, u64),
        two: (u8, u64),
    },
    /// A decision that is decided and then lost.
    Lost {
        instance: u8,
        cpu: u64,
    },
    Release {
        instance: u8,
        open_only: bool,
    },
    Raw {
        instance: u8,
        row: u32,
        cpu: u64,
        seen: Option<u64>,
        moved: bool,
        action: u8,
    },
    Pass {
        millis: u64,
    },
    Restart,
    Features {
        host: u8,
        values: BTreeMap<u8, f64>,
        forget: Option<u8>,
        back: u64,
    },
    /// A decision, then a change of the pipelines, then the decision is applied.
    Pipeline {
        instance: u8,
        change: catalogue::Change,
    },
}

fn change() -> impl Strategy<Value = catalogue::Change> {
    use catalogue::Change;
    let name = || "nova-general".to_owned();
    prop_oneof![
        4 => (0_u8..4, any::<bool>(), prop::option::weighted(0.2, 0_u32..6)).prop_map(move |(text, activate, seen)| {
            let resource = resource(&format!("text {text}")).text();
            Change::Apply { name: name(), resource, note: String::new(), activate, seen }
        }),
        2 => (0_u32..6).prop_map(move |version| Change::Activate { name: name(), version }),
        2 => prop::option::weighted(0.3, 0_u32..6).prop_map(move |from| Change::Rollback { name: name(), from }),
        1 => Just(Change::Delete { name: name() }),
        2 => prop::option::of((0_u32..6, 0_u32..3))
            .prop_map(move |candidate| Change::Shadow { name: name(), candidate }),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let cpu = 0_u64..12;
    let label = prop_oneof![
        3 => Just(None),
        1 => Just(Some(Intent::Resize)),
        1 => Just(Some(Intent::LiveMigration)),
        1 => Just(Some(Intent::Evacuate)),
        1 => Just(Some(Intent::Rebuild)),
    ];
    let report = (
        0..HOSTS,
        0_u64..16,
        0_u64..4,
        prop::collection::btree_map(0..INSTANCES, prop::option::of(0_u64..6), 0..4),
        prop_oneof![4 => Just(0_u64), 1 => 0_u64..20_000],
        prop::option::of(0_u64..20),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(host, cpu, reserved, listed, back, allocation, down)| Op::Report {
            host,
            cpu,
            reserved,
            listed: listed.into_iter().collect(),
            back,
            allocation,
            down,
        });
    let ask = (
        (0..INSTANCES, cpu.clone(), label),
        prop::collection::vec(0..HOSTS, 0..5),
        prop::collection::vec(0..HOSTS, 0..2),
        prop::option::of(0_u8..3),
        prop::option::weighted(0.2, 0_u8..4),
        prop::option::weighted(0.3, 0_u8..2),
    )
        .prop_map(|((instance, cpu, label), hosts, ignore, request, key, group)| Op::Ask {
            instance,
            cpu,
            label,
            hosts,
            ignore,
            request,
            key,
            group,
        });
    prop_oneof![
        4 => report,
        1 => (0..HOSTS).prop_map(|host| Op::RemoveHost { host }),
        6 => ask,
        2 => ((0..INSTANCES, cpu.clone()), (0..INSTANCES, cpu.clone())).prop_map(|(one, two)| Op::Race { one, two }),
        1 => (0..INSTANCES, cpu.clone()).prop_map(|(instance, cpu)| Op::Lost { instance, cpu }),
        1 => (0..INSTANCES, any::<bool>()).prop_map(|(instance, open_only)| Op::Release { instance, open_only }),
        2 => (0..INSTANCES, 0_u32..8, cpu, prop::option::of(0_u64..3), any::<bool>(), 0_u8..4)
            .prop_map(|(instance, row, cpu, seen, moved, action)| Op::Raw { instance, row, cpu, seen, moved, action }),
        2 => (0_u64..2_000_000).prop_map(|millis| Op::Pass { millis }),
        1 => Just(Op::Restart),
        2 => (
            0..HOSTS,
            prop::collection::btree_map(0_u8..4, prop_oneof![9 => -2.0..2.0, 1 => Just(f64::INFINITY)], 0..4),
            prop::option::of(0_u8..4),
            // Often older than what is known.
            0_u64..4_000_000,
        )
            .prop_map(|(host, values, forget, back)| Op::Features { host, values, forget, back }),
        3 => (0..INSTANCES, change()).prop_map(|(instance, change)| Op::Pipeline { instance, change }),
    ]
}

fn request(instance_number: u8, cpu: u64) -> Request {
    Request {
        consumers: vec![instance(instance_number)],
        caller: Caller::Hook { request: None },
        resources: BTreeMap::from([("VCPU".to_owned(), cpu)]),
        ..Request::default()
    }
}

struct World {
    engine: Engine,
    core: Core,
    /// A replica fed by the encoded log only.
    twin: Core,
    now: u64,
}

const EPOCH: u64 = 1_700_000_000_000;

impl World {
    fn new() -> Self {
        Self { engine: engine(), core: Core::new(), twin: Core::new(), now: 0 }
    }

    fn apply(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        let batch = Batch { proposer: Proposer::default(), now: self.now, wall: EPOCH + self.now, commands };
        let decoded = Batch::decode(&batch.encode(scheduler::level::NEWEST), scheduler::Levels::PROGRAM)
            .expect("what was encoded decodes");
        assert_eq!(batch, decoded);
        let outcomes = self.core.apply(&batch);
        assert_eq!(outcomes, self.twin.apply(&decoded), "one log, one result");
        outcomes
    }

    fn check(&self) {
        assert_eq!(self.core.check(), Vec::<String>::new());
    }

    /// Decides all, then applies them in one batch, then settles them; asks again what was stale.
    fn ask(&mut self, requests: &[Request]) {
        self.core.set_clock(self.now);
        let mut round: Vec<(Request, Proposal)> = Vec::new();
        for request in requests {
            if let Ok(proposal) = self.core.decide(&self.engine, request) {
                round.push((request.clone(), proposal));
            }
        }
        for _ in 0..4 {
            self.check();
            let mut commands = Vec::new();
            let mut waiting = Vec::new();
            for (request, mut proposal) in round.drain(..) {
                match proposal.take_command() {
                    Some(command) => {
                        commands.push(command);
                        waiting.push((request, proposal));
                    }
                    None => assert!(matches!(self.core.settle(proposal, None), Settled::Done(_))),
                }
            }
            if commands.is_empty() {
                break;
            }
            let outcomes = self.apply(commands);
            for ((request, proposal), outcome) in waiting.into_iter().zip(outcomes) {
                // Nothing came between: a decision that counts what is in flight is never refused. Of
                // two for one consumer the second may meet the release of the claim that it saw.
                let alone = requests.iter().filter(|other| other.consumers == request.consumers).count() == 1;
                assert!(!(alone && matches!(outcome, Outcome::Stale(_))), "{outcome:?} for {request:?}");
                match self.core.settle(proposal, Some(outcome)) {
                    // Of two requests for one consumer the second may have replaced the first's claim.
                    Settled::Done(decision) if requests.len() == 1 => self.answered(&request, &decision),
                    Settled::Done(_) | Settled::Refused(_) => {}
                    Settled::Again => {
                        if let Ok(proposal) = self.core.decide(&self.engine, &request) {
                            round.push((request, proposal));
                        }
                    }
                }
            }
        }
        assert!(round.is_empty(), "a request is not stale for ever");
        assert!(!self.core.has_flights(), "every flight has landed");
    }

    /// What an answer promises is in the state.
    fn answered(&self, request: &Request, decision: &scheduler::Decision) {
        for placement in &decision.placements {
            let tables = self.core.state().tables();
            let claimed = [Purpose::Instance, Purpose::Move]
                .into_iter()
                .filter_map(|purpose| tables.consumer(request.domain, placement.consumer, purpose))
                .any(|consumer| tables.provider(consumer.row).is_some_and(|p| p.uuid == placement.provider));
            // The answer to a repeated key may be about a claim that has ended since.
            assert!(claimed || matches!(request.caller, Caller::Keyed { .. }), "an answered claim is in the state");
        }
        if let Candidates::Sent(sent) = &request.candidates {
            for ranked in &decision.hosts {
                assert!(sent.iter().any(|host| host.host == ranked.host), "only hosts that were sent");
            }
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Report { host: n, cpu, reserved, listed, back, allocation, down } => {
                let instances = listed
                    .into_iter()
                    .map(|(n, cpu)| InstanceReport {
                        uuid: instance(n),
                        resources: cpu.map(|cpu| BTreeMap::from([("VCPU".to_owned(), cpu)])),
                        server_group: (n % 3 == 0).then(|| group(0)),
                        ..InstanceReport::default()
                    })
                    .collect();
                // Two kinds, and hosts that say nothing.
                let (kind, seen) = (["QEMU", "VMware"][cpu as usize % 2], EPOCH + self.now - cpu);
                let state =
                    format!(r#"{{"hypervisor_type": "{kind}", "num_instances": {reserved}, "last_seen_up": {seen}}}"#);
                let state = if cpu % 3 == 0 { "{}".to_owned() } else { state };
                let inventory = Inventory { reserved, ..Inventory::of(cpu) }.with_ratio(1.5);
                let report = HostReport {
                    name: host(n),
                    inventories: Some(BTreeMap::from([("VCPU".to_owned(), inventory)])),
                    allocation: allocation.map(|cpu| BTreeMap::from([("VCPU".to_owned(), cpu)])),
                    instances: Some(instances),
                    forced_down: Some(down),
                    labels: Some(BTreeMap::from([("rack".to_owned(), (cpu % 3).to_string())])),
                    taints: Some(if down { vec!["down:NoSchedule".to_owned()] } else { Vec::new() }),
                    nova_host_state: Some(state),
                    observed_at: Some((EPOCH + self.now).saturating_sub(back)),
                    ..HostReport::default()
                };
                let outcome = self.apply(vec![Command::Report(Box::new(report.clone()))]);
                assert!(matches!(outcome[0], Outcome::Reported(_)), "{outcome:?}");
                let later = HostReport { observed_at: report.observed_at.map(|at| at + 1), ..report.clone() };
                // The same report again changes nothing.
                let again = self.apply(vec![Command::Report(Box::new(report))]);
                assert!(
                    matches!(again[0], Outcome::Reported(Change::Unchanged | Change::Stale)),
                    "{again:?} after {outcome:?}"
                );
                self.apply(vec![Command::Report(Box::new(later))]);
            }
            Op::RemoveHost { host: n } => {
                let uuid = HostReport { name: host(n), ..HostReport::default() }.provider_uuid();
                self.apply(vec![Command::RemoveHost { domain: Domain::Nova, provider: uuid }]);
            }
            Op::Ask { instance, cpu, label, hosts, ignore, request: id, key, group: g } => {
                let mut ask = request(instance, cpu);
                ask.label = label;
                ask.ignore_hosts = ignore.into_iter().map(host).collect();
                ask.caller = match key {
                    // 16 ms apart, and so old that the horizon matters when it moves.
                    Some(key) => {
                        Caller::Keyed { key: Some(Uuid::from_u128(u128::from(key) << 84 | 7 << 76 | 2 << 62)) }
                    }
                    None => Caller::Hook { request: id.map(|id| Uuid::from_u128(u128::from(id) + 1)) },
                };
                if !hosts.is_empty() {
                    let sent = hosts.into_iter().map(|n| Candidate {
                        host: host(n).into(),
                        node: SmolStr::default(),
                        weight: 0.0,
                    });
                    ask.candidates = Candidates::Sent(sent.collect());
                }
                ask.group = g.map(|g| Group {
                    uuid: Some(group(g)),
                    policy: Some(GroupPolicy::AntiAffinity),
                    members: vec![],
                    hosts: vec![],
                    max_per_host: 1,
                });
                self.ask(&[ask]);
            }
            Op::Race { one, two } => self.ask(&[request(one.0, one.1), request(two.0, two.1)]),
            Op::Lost { instance, cpu } => {
                if let Ok(mut proposal) = self.core.decide(&self.engine, &request(instance, cpu)) {
                    let had_command = proposal.take_command().is_some();
                    let settled = self.core.settle(proposal, None);
                    assert_eq!(matches!(settled, Settled::Again), had_command);
                }
            }
            Op::Release { instance: n, open_only } => {
                self.apply(vec![Command::Release { domain: Domain::Nova, consumer: instance(n), open_only }]);
            }
            Op::Raw { instance: n, row, cpu, seen, moved, action } => {
                let class = self.core.state().tables().names.get("VCPU").unwrap_or(Sym::of(9999));
                let amounts: Amounts = [(class, cpu)].into_iter().collect();
                let action = match action {
                    0 => Action::Keep,
                    1 => Action::Release,
                    2 => Action::Leave,
                    _ => Action::Claim { ticket: 1, targets: vec![Row(row), Row(row + 1)], amounts },
                };
                let purpose = if moved { Purpose::Move } else { Purpose::Instance };
                let part = Part { consumer: instance(n), purpose, seen, action };
                let record = Record {
                    pipeline: Text::New("p".into()),
                    version: 0,
                    candidates: 1,
                    unknown: 0,
                    hosts_out: 1,
                    drops: vec![(Text::Known(Sym::of(70_000)), vec![(Text::New("why".into()), 1)])],
                    top: vec![(Row(row), 1)],
                    claim: Claim::Made,
                    trace_id: String::new(),
                };
                let open = self.core.state().tables().consumer(Domain::Nova, instance(n), purpose);
                let open = open.filter(|consumer| consumer.is_open()).map(|consumer| consumer.ticket);
                let outcomes = self.apply(vec![Command::Place(Box::new(Place {
                    domain: Domain::Nova,
                    intent: Intent::Create,
                    project: Some(Text::New("x".into())),
                    user: None,
                    flavor: Some(Text::Known(Sym::of(50_000))),
                    group: None,
                    request: None,
                    key: None,
                    parts: vec![part],
                    life: 1000,
                    learned: vec![(Row(row), Text::New("node".into()))],
                    record: Some(record),
                }))]);
                if open != seen {
                    assert!(matches!(outcomes[0], Outcome::Stale(_)), "{outcomes:?} though {open:?} is not {seen:?}");
                }
            }
            Op::Pass { millis } => {
                self.now += millis;
                let due = self.core.tick_due(self.now);
                let outcome = self.apply(vec![Command::Tick]);
                assert_eq!(outcome != vec![Outcome::Expired(0)], due);
            }
            Op::Features { host: n, values, forget, back } => {
                let feature = |n: u8| format!("feature-{n}");
                let name = host(n);
                let known = |core: &Core| -> Option<BTreeMap<String, (f64, u64)>> {
                    let tables = core.state().tables();
                    let features = &tables.provider(tables.row_of_node(Domain::Nova, &name, None)?)?.features;
                    let text = |known: &Feature| tables.names.text(known.name).to_owned();
                    Some(features.0.iter().map(|known| (text(known), (known.value, known.observed_at))).collect())
                };
                let at = (EPOCH + self.now).saturating_sub(back);
                let report = FeatureReport {
                    name: name.clone(),
                    values: values.iter().map(|(n, value)| (feature(*n), *value)).collect(),
                    // The first stands for all.
                    forget: forget.iter().map(|&n| if n == 0 { "feature-*".to_owned() } else { feature(n) }).collect(),
                    observed_at: Some(at),
                    ..FeatureReport::default()
                };
                let before = known(&self.core);
                let outcomes = self.apply(vec![Command::Features(Box::new(report))]);
                let after = known(&self.core);
                let finite = values.values().all(|value| value.is_finite());
                let Some(mut expected) = before.clone().filter(|_| finite) else {
                    assert!(matches!(outcomes[0], Outcome::Refused(_)) && after == before, "{outcomes:?}");
                    return self.check();
                };
                let forgotten = |name: &str| forget.iter().any(|&n| n == 0 || feature(n) == name);
                expected.retain(|name, (_, seen)| *seen > at || !forgotten(name));
                for (n, value) in &values {
                    let known = expected.entry(feature(*n)).or_insert((*value, at));
                    if known.1 <= at {
                        *known = (*value, at);
                    }
                }
                assert_eq!(after.as_ref(), Some(&expected));
                let content = |known: Option<BTreeMap<String, (f64, u64)>>| -> Vec<_> {
                    known.into_iter().flatten().map(|(name, (value, _))| (name, value)).collect()
                };
                let same = content(before) == content(after);
                let told = match outcomes[0] {
                    Outcome::Reported(Change::Changed) => !same,
                    Outcome::Reported(Change::Unchanged | Change::Stale) => same,
                    _ => false,
                };
                assert!(told, "{outcomes:?}");
            }
            Op::Pipeline { instance, change } => {
                let active = |core: &Core| core.state().tables().catalogue().active("nova-general");
                let before = active(&self.core);
                let decided = self.core.decide(&self.engine, &request(instance, 1));
                let outcomes = self.apply(vec![Command::Pipeline(Box::new(change.clone()))]);
                let after = active(&self.core);
                match &outcomes[0] {
                    Outcome::Pipeline(changed) => {
                        assert_eq!(changed.active, after);
                        assert!(changed.changed || before == after, "{changed:?} of {change:?}");
                    }
                    refused => assert!(matches!(refused, Outcome::Refused(_)) && before == after, "{refused:?}"),
                }
                self.engine.follow(self.core.state().tables().catalogue());
                let runs: Vec<_> = self.engine.pipelines().map(|pipeline| pipeline.version).collect();
                assert_eq!(runs, [after], "what the state says is what decides");
                let Ok(mut proposal) = decided else { return self.check() };
                if let Some(command) = proposal.take_command() {
                    let outcomes = self.apply(vec![command]);
                    let stale = matches!(outcomes[0], Outcome::Stale(_));
                    assert_eq!(stale, before != after, "no decision stands behind a version that it was not made by");
                    if let Settled::Done(decision) = self.core.settle(proposal, Some(outcomes[0].clone())) {
                        let stored = self.core.state().tables().decision(decision.id).expect("it is remembered");
                        assert_eq!((decision.version, stored.record.version), (after, after));
                    }
                } else {
                    self.core.settle(proposal, None);
                }
            }
            Op::Restart => {
                let bytes = self.core.freeze().encode();
                let restored = Core::restore(&bytes).expect("a snapshot restores");
                assert_eq!(restored.state().checksum(), self.core.state().checksum());
                assert_eq!(restored.freeze().encode(), bytes, "a restored state gives the same bytes");
                self.core = restored;
                self.engine = engine();
                self.engine.follow(self.core.state().tables().catalogue());
            }
        }
        self.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_commands_keeps_every_invariant(ops in prop::collection::vec(op(), 1..60)) {
        let mut world = World::new();
        for op in ops {
            world.run(op);
        }
        prop_assert_eq!(world.twin.check(), Vec::<String>::new());
        prop_assert_eq!(world.core.state().checksum(), world.twin.state().checksum());
    }
}
