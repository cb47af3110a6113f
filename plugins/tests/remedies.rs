//! Every remedy, applied to a copy of the state, makes the request fit; less of it does not. Copies are
//! changed by reports, as a real fleet is, and asked through the front of the core.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use scheduler::remedy::{Aspect, Change, Remedies, Remedy};
use scheduler::request::{Candidate, Candidates, Group, GroupPolicy, Options};
use scheduler::{
    Batch, Command, Core, Decision, Engine, HostReport, InstanceReport, Intent, Inventory, Outcome, Proposer, Request,
    Settings, SmolStr,
};
use uuid::Uuid;

const PIPELINE: &str = "kvm-general-purpose-load-balancing";

#[derive(Clone, Debug)]
struct HostCase {
    zone: u8,
    cpu: u64,
    ratio: u8,
    memory: u64,
    reserved: u64,
    max_cpu: Option<u64>,
    traits: BTreeSet<u8>,
    ready: bool,
    instances: Vec<(u64, u64, bool)>,
    over: u64,
    node_counts: bool,
}

#[derive(Clone, Debug)]
struct Asks {
    cpu: u64,
    memory: u64,
    zone: Option<u8>,
    required: BTreeSet<u8>,
    forbidden: BTreeSet<u8>,
    group: Option<bool>,
    sent: Option<BTreeSet<usize>>,
    empty: bool,
    before: Vec<(u64, u64)>,
    consumers: usize,
}

fn host_case() -> impl Strategy<Value = HostCase> {
    let instances = prop::collection::vec((1_u64..5, 1_u64..5, prop::bool::weighted(0.1)), 0..6);
    let traits = prop_oneof![3 => Just(BTreeSet::from([0])), 1 => prop::collection::btree_set(0_u8..3, 0..3)];
    (
        (0_u8..2, 0_u64..20, 1_u8..3, 0_u64..20, 0_u64..2, prop::option::weighted(0.1, 1_u64..8)),
        (traits, prop::bool::weighted(0.9), instances, 0_u64..4, any::<bool>()),
    )
        .prop_map(
            |((zone, cpu, ratio, memory, reserved, max_cpu), (traits, ready, instances, over, node_counts))| HostCase {
                zone,
                cpu,
                ratio,
                memory,
                reserved,
                max_cpu,
                traits,
                ready,
                instances,
                over,
                node_counts,
            },
        )
}

fn asks() -> impl Strategy<Value = Asks> {
    let few = || prop_oneof![5 => Just(BTreeSet::new()), 1 => prop::collection::btree_set(0_u8..3, 1..3)];
    (
        (1_u64..16, 1_u64..16, prop::option::of(0_u8..2), few(), few()),
        (
            prop::option::weighted(0.3, any::<bool>()),
            prop::option::weighted(0.2, prop::collection::btree_set(0_usize..6, 1..3)),
            prop::bool::weighted(0.05),
            prop::collection::vec((1_u64..5, 1_u64..5), 0..3),
            prop_oneof![4 => Just(1_usize), 1 => Just(3)],
        ),
    )
        .prop_map(|((cpu, memory, zone, required, forbidden), (group, sent, empty, before, consumers))| Asks {
            cpu,
            memory,
            zone,
            required,
            forbidden,
            group,
            sent,
            empty,
            before,
            consumers,
        })
}

fn uuid(kind: u128, host: usize, at: usize) -> Uuid {
    Uuid::from_u128(kind << 64 | (host as u128) << 32 | at as u128)
}

fn sizes(cpu: u64, memory: u64) -> BTreeMap<String, u64> {
    BTreeMap::from([("VCPU".to_owned(), cpu), ("MEMORY_MB".to_owned(), memory * 1024)])
}

fn names(numbers: &BTreeSet<u8>) -> Vec<String> {
    numbers.iter().map(|number| format!("CUSTOM_{number}")).collect()
}

fn report(at: usize, case: &HostCase) -> HostReport {
    let cpu = Inventory::of(case.cpu).with_ratio(f64::from(case.ratio) * 0.75);
    let cpu = Inventory { max_unit: case.max_cpu.unwrap_or(cpu.max_unit), ..cpu };
    let memory = Inventory { reserved: case.reserved * 1024, ..Inventory::of(case.memory * 1024) };
    let instances: Vec<InstanceReport> = (case.instances.iter().enumerate())
        .map(|(number, (cpu, memory, _))| InstanceReport {
            uuid: uuid(1, at, number),
            resources: Some(sizes(*cpu, *memory)),
            ..InstanceReport::default()
        })
        .collect();
    let sum = |of: fn(&(u64, u64, bool)) -> u64| case.instances.iter().map(of).sum::<u64>();
    HostReport {
        name: format!("h{at}"),
        availability_zone: Some(format!("az-{}", case.zone)),
        hypervisor_type: Some("qemu".to_owned()),
        inventories: Some(BTreeMap::from([("VCPU".to_owned(), cpu), ("MEMORY_MB".to_owned(), memory)])),
        allocation: case.node_counts.then(|| sizes(sum(|i| i.0) + case.over, sum(|i| i.1))),
        traits: Some(names(&case.traits)),
        conditions: Some(BTreeMap::from([("Ready".to_owned(), if case.ready { "True" } else { "False" }.to_owned())])),
        instances: Some(instances),
        ..HostReport::default()
    }
}

fn request(hosts: &[HostCase], asks: &Asks) -> Request {
    let members = |at: usize, case: &HostCase| -> Vec<Uuid> {
        let marked = case.instances.iter().enumerate().filter(|(_, (.., marked))| *marked);
        marked.map(|(number, _)| uuid(1, at, number)).collect()
    };
    let members: Vec<Uuid> = hosts.iter().enumerate().flat_map(|(at, case)| members(at, case)).collect();
    let candidate = |at: &usize| Candidate { host: format!("h{at}").into(), node: SmolStr::default(), weight: 0.0 };
    Request {
        consumers: (0..asks.consumers).map(|at| uuid(2, 0, at)).collect(),
        pipeline: Some(PIPELINE.to_owned()),
        resources: sizes(asks.cpu, asks.memory),
        zone: asks.zone.map(|zone| format!("az-{zone}")),
        required_traits: names(&asks.required),
        forbidden_traits: names(&asks.forbidden),
        group: asks.group.map(|apart| Group {
            uuid: None,
            policy: Some(if apart { GroupPolicy::AntiAffinity } else { GroupPolicy::Affinity }),
            members,
            hosts: Vec::new(),
            max_per_host: 1,
        }),
        candidates: asks.sent.as_ref().map_or(Candidates::All, |sent| {
            Candidates::Sent(sent.iter().filter(|at| **at < hosts.len()).map(candidate).collect())
        }),
        options: Options { assume_empty_hosts: asks.empty, ..Options::default() },
        ..Request::default()
    }
}

fn apply(core: &mut Core, commands: Vec<Command>) -> Vec<Outcome> {
    core.apply(&Batch { proposer: Proposer::default(), now: 10, wall: 10, commands })
}

/// A copy with these hosts reported anew.
fn with(core: &Core, reports: &[HostReport]) -> Core {
    let mut copy = Core::of(core.freeze());
    let outcomes = apply(&mut copy, reports.iter().cloned().map(|report| Command::Report(Box::new(report))).collect());
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Reported(_))), "{outcomes:?}");
    copy
}

fn ask(core: &mut Core, engine: &Engine, request: &Request) -> Decision {
    core.probe(engine, request).expect("a sensible request")
}

fn hosts(decision: &Decision) -> Vec<&str> {
    decision.hosts.iter().map(|ranked| ranked.host.as_str()).collect()
}

/// An engine whose pipeline has no such steps.
fn without(steps: &[&str]) -> Engine {
    let mut engine = Engine::new(plugins::registry(), Settings::default());
    let shipped = plugins::shipped();
    let mut resource = shipped.into_iter().find(|resource| resource.metadata.name == PIPELINE).expect("it ships");
    resource.spec.filters.retain(|step| !steps.contains(&step.name.as_str()));
    engine.activate(&resource).expect("a good pipeline");
    engine
}

/// Decides again with some changes of the request and the pipeline made.
fn lifted(core: &mut Core, request: &Request, changes: &[Change]) -> Vec<String> {
    let mut request = request.clone();
    let mut steps = Vec::new();
    for change in changes {
        match change {
            Change::Without(aspect) => request = request.without(aspect),
            Change::WithoutFilter { step, reasons } => {
                assert!(!reasons.is_empty(), "{change:?}");
                steps.push(step.as_str());
            }
            Change::More { .. } | Change::Move { .. } => {}
        }
    }
    hosts(&ask(core, &without(&steps), &request)).into_iter().map(str::to_owned).collect()
}

struct Fleet<'a> {
    core: &'a Core,
    reports: &'a [HostReport],
}

impl Fleet<'_> {
    fn report(&self, host: &str) -> &HostReport {
        self.reports.iter().find(|report| report.name == host).expect("a host of the fleet")
    }

    /// The host with more capacity; of `less` one unit less than that.
    fn enlarged(&self, host: &str, amounts: &[(String, u64)], less: Option<&str>) -> HostReport {
        let mut report = self.report(host).clone();
        for (class, more) in amounts {
            let inventories = report.inventories.as_mut().expect("the case has them");
            let inventory = inventories.get_mut(class).expect("a class of the host");
            let more = more - u64::from(less == Some(class.as_str()));
            let max_unit = inventory.max_unit;
            *inventory = Inventory { max_unit, ..Inventory::of(inventory.capacity() + more) };
        }
        report
    }

    fn check(&self, request: &Request, remedy: &Remedy) {
        let lifts: Vec<Change> =
            remedy.changes.iter().filter(|change| !matches!(change, Change::More { .. })).cloned().collect();
        assert!(remedy.hosts > 0 && !remedy.first.is_empty(), "{remedy:?}");
        if let [Change::Move { .. }, ..] = remedy.changes.as_slice() {
            return self.check_moves(request, remedy);
        }
        for change in remedy.changes.iter().filter(|_| remedy.changes.len() > 1) {
            let alone = lifted(&mut with(self.core, &[]), request, std::slice::from_ref(change));
            assert_eq!(alone, Vec::<String>::new(), "{change:?} is enough alone");
        }
        let Some(Change::More { amounts, zone }) = remedy.changes.last() else {
            let mut fits = lifted(&mut with(self.core, &[]), request, &lifts);
            fits.sort_unstable();
            assert_eq!(fits.len() as u64, remedy.hosts);
            assert_eq!(fits[..remedy.first.len()], remedy.first);
            return;
        };
        let mut least = 0;
        for host in &remedy.first {
            assert_eq!(self.report(host).availability_zone, *zone);
            let mut copy = with(self.core, &[self.enlarged(host, amounts, None)]);
            assert!(lifted(&mut copy, request, &lifts).contains(host), "{host} with {amounts:?}");
            let less = |class: &str| with(self.core, &[self.enlarged(host, amounts, Some(class))]);
            let none = |(class, _): &(String, u64)| lifted(&mut less(class), request, &lifts).is_empty();
            least += usize::from(amounts.iter().all(none));
        }
        // Some of the hosts may need less; one needs all of it.
        assert!(least > 0 || remedy.hosts > remedy.first.len() as u64, "less than {amounts:?} is enough");
    }

    fn check_moves(&self, request: &Request, remedy: &Remedy) {
        let engine = plugins::engine(Settings::default());
        let mut core = with(self.core, &[]);
        let mut reports: BTreeMap<String, HostReport> = BTreeMap::new();
        for (at, change) in remedy.changes.iter().enumerate() {
            assert_eq!(hosts(&ask(&mut core, &engine, request)), Vec::<&str>::new(), "{at} moves are enough");
            let Change::Move { consumer, from, to, amounts } = change else { panic!("{change:?} among moves") };
            assert_eq!(remedy.first, std::slice::from_ref(from));
            let [source, target] = [from, to].map(|host| self.report(host));
            assert_eq!(source.availability_zone, target.availability_zone);
            let traits = |report: &HostReport| report.traits.clone().unwrap_or_default();
            assert!(traits(source).iter().all(|name| traits(target).contains(name)));
            let candidate = Candidate { host: to.into(), node: SmolStr::default(), weight: 0.0 };
            let member = request.group.clone().filter(|group| group.members.contains(consumer));
            let mover = Request {
                consumers: vec![*consumer],
                label: Some(Intent::LiveMigration),
                source_host: Some(from.clone()),
                pipeline: Some(PIPELINE.to_owned()),
                resources: amounts.iter().cloned().collect(),
                candidates: Candidates::Sent(vec![candidate]),
                group: member,
                ..Request::default()
            };
            assert_eq!(hosts(&ask(&mut core, &engine, &mover)), [to], "{consumer} does not fit");
            let mut source = reports.remove(from).unwrap_or_else(|| source.clone());
            let mut target = reports.remove(to).unwrap_or_else(|| target.clone());
            let listed = source.instances.as_mut().expect("the case has them");
            let at = listed.iter().position(|instance| instance.uuid == *consumer).expect("it is there");
            let instance = listed.remove(at);
            for (class, used) in source.allocation.iter_mut().flatten() {
                *used -= instance.resources.as_ref().and_then(|sizes| sizes.get(class)).copied().unwrap_or(0);
            }
            target.instances.as_mut().expect("the case has them").push(instance);
            core = with(&core, &[target.clone(), source.clone()]);
            reports.insert(from.clone(), source);
            reports.insert(to.clone(), target);
        }
        let fits = ask(&mut core, &engine, request);
        assert!(hosts(&fits).contains(&remedy.first[0].as_str()), "{remedy:?}: {:?}", hosts(&fits));
    }

    /// Single changes that were not named do not help.
    fn check_complete(&self, request: &Request, remedies: &Remedies) {
        let known: Vec<&Change> =
            remedies.remedies.iter().filter(|r| r.changes.len() == 1).map(|r| &r.changes[0]).collect();
        let mut aspects = vec![Aspect::Group, Aspect::Candidates];
        aspects.extend(request.required_traits.iter().cloned().map(Aspect::RequiredTrait));
        aspects.extend(request.forbidden_traits.iter().cloned().map(Aspect::ForbiddenTrait));
        for aspect in aspects {
            let change = Change::Without(aspect);
            let helps = !lifted(&mut with(self.core, &[]), request, std::slice::from_ref(&change)).is_empty();
            assert_eq!(known.contains(&&change), helps, "{change:?}");
        }
        let plenty = |report: &HostReport| {
            let amounts: Vec<(String, u64)> = request.resources.keys().map(|class| (class.clone(), 1 << 30)).collect();
            let mut copy = with(self.core, &[self.enlarged(&report.name, &amounts, None)]);
            !lifted(&mut copy, request, &[]).is_empty()
        };
        let more = known.iter().any(|change| matches!(change, Change::More { .. }));
        assert_eq!(more, self.reports.iter().any(plenty), "more capacity");
    }
}

fn kind(change: &Change) -> &'static str {
    match change {
        Change::Without(Aspect::Group) => "group",
        Change::Without(Aspect::Candidates) => "candidates",
        Change::Without(_) => "trait",
        Change::WithoutFilter { .. } => "filter",
        Change::More { .. } => "more",
        Change::Move { .. } => "move",
    }
}

#[test]
fn every_remedy_helps_when_it_is_applied() {
    let seen: RefCell<BTreeMap<Vec<&str>, u64>> = RefCell::default();
    let cases = (prop::collection::vec(host_case(), 1..8), asks());
    let config = Config { cases: 600, max_shrink_iters: 200, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(
        config,
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let outcome = runner.run(&cases, |(case, asks)| {
        let engine = plugins::engine(Settings::default());
        let reports: Vec<HostReport> = case.iter().enumerate().map(|(at, case)| report(at, case)).collect();
        let mut core = with(&Core::new(), &reports);
        for (at, (cpu, memory)) in asks.before.iter().enumerate() {
            let earlier = Request {
                consumers: vec![uuid(3, 0, at)],
                pipeline: Some(PIPELINE.to_owned()),
                resources: sizes(*cpu, *memory),
                ..Request::default()
            };
            let mut proposal = core.decide(&engine, &earlier).expect("a sensible request");
            let outcomes = apply(&mut core, proposal.take_command().into_iter().collect());
            core.settle(proposal, outcomes.into_iter().next());
        }
        let request = request(&case, &asks);
        if matches!(&request.candidates, Candidates::Sent(sent) if sent.is_empty()) {
            return Ok(());
        }
        let remedies = core.survey(&engine, &request).expect("a sensible request").remedies();
        prop_assert!(!remedies.bounded);
        let decision = ask(&mut core, &engine, &Request { consumers: vec![uuid(2, 0, 0)], ..request.clone() });
        if remedies.placed > 0 {
            prop_assert_eq!(decision.hosts.is_empty(), false);
            if request.consumers.len() == 1 {
                prop_assert_eq!(remedies.fits, decision.hosts.len() as u64);
                prop_assert!(remedies.remedies.is_empty());
            }
            return Ok(());
        }
        prop_assert_eq!(hosts(&decision), Vec::<&str>::new());
        let request = Request { consumers: vec![uuid(2, 0, 0)], ..request };
        let fleet = Fleet { core: &core, reports: &reports };
        for remedy in &remedies.remedies {
            fleet.check(&request, remedy);
            *seen.borrow_mut().entry(remedy.changes.iter().map(kind).collect()).or_default() += 1;
        }
        fleet.check_complete(&request, &remedies);
        Ok(())
    });
    let seen = seen.into_inner();
    outcome.unwrap_or_else(|error| panic!("{error}"));
    // The cases are of every kind.
    for kinds in [
        &["group"][..],
        &["candidates"],
        &["trait"],
        &["filter"],
        &["more"],
        &["move"],
        &["move", "move"],
        &["filter", "trait"],
        &["filter", "more"],
    ] {
        assert!(seen.contains_key(kinds), "none of {kinds:?} among {seen:?}");
    }
}
