//! Whatever is ordered and reported, and in whatever order: the index is the one built anew (the bench compares them), a
//! decision keeps out those hosts that the state says, and a run that stands says the same as a whole one.

use std::collections::BTreeMap;

use proptest::prelude::*;
use uuid::Uuid;

use super::bench::{BOTH, Bench, hello, host, machine, off, op, spec, twice};
use super::hook::engine;
use crate::ha::admission::{Refuses, Rule};
use crate::ha::breaker::{ScopeName, Trips};
use crate::ha::case::{Cause, FenceOutcome, Phase};
use crate::ha::drain::Over;
use crate::ha::host::{Degraded, Detection, Fencer, Maintenance};
use crate::ha::masakari::{self, MemberSpec, SegmentSpec};
use crate::ha::order::{Change, Role};
use crate::ha::policy::{FailoverPolicy, Mode, Operator, Policy, Rules, Selector, Term};
use crate::ha::proof::{Evidence, Power};
use crate::ha::reentry::{ComputeRead, Seen, Step};
use crate::ha::{HostSpec, cordon};
use crate::request::{Caller, Candidates, Request};
use crate::{AggregateReport, Command, Domain, Engine, FeatureReport, HostReport, Inventory};

/// Hosts of failover that are played with, and names: the last ones are of other hosts, or nobody's.
const PLAYED: u128 = 4;

fn name(at: u8) -> String {
    match at % 6 {
        4 => "Node-1".to_owned(),
        5 => "node-99".to_owned(),
        n => format!("node-{}", n + 1),
    }
}

fn of<T: Copy, const N: usize>(all: [T; N], at: u8) -> T {
    all[at as usize % N]
}

fn selector(at: u8, other: u8) -> Selector {
    let none = Selector::default();
    match at % 8 {
        0 => Selector { domain: Some(ScopeName::Region), ..none },
        1 => Selector { domain: Some(ScopeName::Az(of(["a", "b"], other).to_owned())), ..none },
        2 => Selector { hosts: vec![name(other)], ..none },
        3 => Selector { aggregates: vec![of(["one", "two"], other).to_owned()], ..none },
        4 => Selector { aggregates: vec![Uuid::from_u128(u128::from(other % 2)).to_string()], ..none },
        5 => Selector { traits: vec![of(["CUSTOM_A", "CUSTOM_B"], other).to_owned()], ..none },
        _ => {
            let operator = of([Operator::In, Operator::NotIn, Operator::Exists, Operator::DoesNotExist], other);
            let values = if other % 4 < 2 { vec!["v".to_owned()] } else { Vec::new() };
            Selector { labels: vec![Term { key: "k".to_owned(), operator, values }], ..none }
        }
    }
}

/// A report that is about some of it.
fn report(n: u8, what: u8, how: u8) -> HostReport {
    let one = |text: &str| if how & 1 == 0 { vec![text.to_owned()] } else { Vec::new() };
    let aggregate = |n: u8| AggregateReport {
        name: of(["one", "two"], n / 2).to_owned(),
        uuid: (n.is_multiple_of(2)).then(|| Uuid::from_u128(u128::from(n / 4 % 2))),
        metadata: Some(BTreeMap::from([("k".to_owned(), n.to_string())])),
    };
    HostReport {
        domain: of([Domain::Nova, Domain::Nova, Domain::Nova, Domain::Cinder], what),
        name: name(n),
        hypervisor_hostname: of([None, Some("a"), Some("b")], what / 4).map(str::to_owned),
        inventories: Some(BTreeMap::from([("VCPU".to_owned(), Inventory::of(4))])),
        traits: (how & 2 == 0).then(|| one(of(["CUSTOM_A", "CUSTOM_B"], how / 8))),
        aggregates: (how & 4 == 0).then(|| if how & 1 == 0 { vec![aggregate(how / 8)] } else { Vec::new() }),
        labels: (how & 8 == 0)
            .then(|| one("k").into_iter().map(|k| (k, of(["v", "w"], how / 16).to_owned())).collect()),
        ..HostReport::default()
    }
}

fn play(bench: &mut Bench, kind: u8, at: u8, a: u8, b: u8) {
    let n = 1 + u128::from(at) % PLAYED;
    let (id, known) = (host(n), bench.ha().hosts.get(host(n)).cloned());
    let incarnation = known.as_ref().map_or(1, |host| host.incarnation);
    let case = bench.ha().cases.get(id).map(|case| (case.id, case.phase));
    bench.role = if a & 64 == 0 { Role::Coordinator } else { Role::Operator };
    bench.now += u64::from(b % 4) * 15_000;
    let change = match kind % 40 {
        0..=2 => {
            let all = [Detection::Alive, Detection::Suspect, Detection::Isolated, Detection::Unreachable];
            let from = known.as_ref().map_or(Detection::Alive, |host| host.belief.detection);
            Change::DetectionSet { host: id, incarnation, from, to: of(all, a), groups: BOTH, age: 20_000 }
        }
        3 => {
            let from = known.as_ref().map_or(Detection::Alive, |host| host.belief.detection);
            for (from, to) in [(from, Detection::Suspect), (Detection::Suspect, Detection::Unreachable)] {
                _ = bench.order(Change::DetectionSet { host: id, incarnation, from, to, groups: BOTH, age: 20_000 });
                bench.now += 15_000;
            }
            let causes = [Cause::Unreachable, Cause::PowerOff, Cause::Operator, Cause::Isolated, Cause::Rebooted];
            Change::CaseOpen { host: id, incarnation, cause: of(causes, a / 8) }
        }
        4 | 5 => {
            let Some((case, from)) = case else { return };
            let all = [
                Phase::FencePending,
                Phase::NovaDown,
                Phase::Planning,
                Phase::Recovered,
                Phase::PartiallyRecovered,
                Phase::AwaitReturn,
                Phase::Returning,
                Phase::Closed,
                Phase::Cleared,
                Phase::Cleared,
            ];
            // The first that may follow, from one on that is drawn.
            let to = (0..9).map(|next| of(all, a.wrapping_add(next)));
            let mut ways = to.map(|to| Change::CasePhase { case, from, to });
            _ = ways.any(|change| bench.order(change).is_ok());
            return;
        }
        6 => {
            let Some((case, _)) = case else { return };
            let (level, fencer, voters) = (0, Fencer::Redfish, vec![1, 2, 3]);
            _ = bench.order(Change::FenceIntent { case, level, fencer, op: op(n), machine: machine(n), voters });
            let outcome = FenceOutcome { power: Power::Off, raw: "Off".to_owned(), machine: machine(n), at: 0 };
            _ = bench.order(Change::FenceOutcome { case, op: op(n), outcome: Box::new(outcome) });
            let evidence = Evidence::FencedOff { op: op(n), reads: Box::new([off(n, 0), off(n, 2_000)]) };
            Change::DeathProof { host: id, incarnation, evidence }
        }
        7 => Change::DeathProof { host: id, incarnation, evidence: twice(n) },
        8 | 9 => {
            let mut hello = hello(if a.is_multiple_of(8) { n + 1 } else { n }, u128::from(a % 16 / 2));
            hello.resumes_guests = a % 16 == 15;
            Change::IncarnationOpen { host: id, hello: Box::new(hello) }
        }
        10 => {
            let all = [Maintenance::None, Maintenance::Manual, Maintenance::Auto, Maintenance::Termination];
            Change::Maintenance { host: id, mode: of(all, a) }
        }
        11 => Change::DrainOpen { host: id, incarnation, mode: of([Maintenance::Auto, Maintenance::Manual], a) },
        12 => Change::DrainEnd { host: id, over: of([Over::Succeeded, Over::Cancelled, Over::Partial, Over::Lost], a) },
        13 | 14 => Change::Degraded { host: id, incarnation, degraded: Degraded(a % 32) },
        15 | 16 => {
            let mut places = spec(n).places;
            places.az = of(["a", "b"], b).to_owned();
            let nova_host = name(if a.is_multiple_of(2) { at } else { a / 2 });
            Change::HostUpsert(Box::new(HostSpec { nova_host, places, enabled: !b.is_multiple_of(8), ..spec(n) }))
        }
        17 => Change::HostRemove(id),
        18 => Change::Policy(Policy { mode: of(Mode::ALL, a), ..Policy::default() }),
        19 | 20 => {
            let rules = Rules {
                mode: of([Some(Mode::Enforce), Some(Mode::DryRun), Some(Mode::Off), None], a),
                admission: of([None, Some(Rule::Host), Some(Rule::Percent(30)), None], b),
                refuses: of([Some(Refuses::Enforce), Some(Refuses::Enforce), Some(Refuses::Off), None], b / 2),
                ..Rules::default()
            };
            let policy = FailoverPolicy { name: format!("p{}", at % 3), selector: selector(b, a / 4), rules };
            bench.role = Role::Operator;
            Change::PolicyPut(Box::new(policy))
        }
        21 => {
            bench.role = Role::Operator;
            Change::PolicyRemove(format!("p{}", at % 3))
        }
        22 | 23 => {
            let block = ScopeName::Cluster("block".to_owned());
            let scopes = [ScopeName::Region, ScopeName::Az("a".to_owned()), ScopeName::Az("b".to_owned()), block];
            bench.now += u64::from(b & 16) * 10_000;
            Change::BreakerSet { scope: scopes[at as usize % 4].clone(), seen: Trips(1 << (a % 8)) }
        }
        24 => {
            bench.role = Role::Operator;
            // A release closes breakers.
            if b.is_multiple_of(4) {
                let (from, to) = (Detection::Alive, Detection::Suspect);
                _ = bench.order(Change::DetectionSet { host: id, incarnation, from, to, groups: BOTH, age: 20_000 });
                _ = bench.order(Change::BreakerSet { scope: ScopeName::Region, seen: Trips::BLIND });
                bench.restore();
            }
            if a.is_multiple_of(2) { Change::Release } else { Change::QuarantineEnd(id) }
        }
        25 => {
            let uuid = Uuid::from_u128(77);
            let segment = SegmentSpec { uuid, create: true, name: Some("s".to_owned()), ..SegmentSpec::default() };
            _ = bench.order(Change::Masakari(Box::new(masakari::Change::Segment(Box::new(segment)))));
            let member = MemberSpec {
                uuid: Uuid::from_u128(78 + u128::from(at % 6)),
                create: a.is_multiple_of(2),
                segment: uuid,
                name: Some(name(at)),
                maintenance: Some(b.is_multiple_of(2)),
                ..MemberSpec::default()
            };
            Change::Masakari(Box::new(masakari::Change::Member(Box::new(member))))
        }
        26 => {
            let Some((case, _)) = case else { return };
            if a.is_multiple_of(2) {
                Change::NovaMark { host: id, forced_down: a & 2 == 0, disabled: a & 4 == 0 }
            } else {
                let steps = [Step::PowerOn, Step::StartNova, Step::Unforce, Step::Enable, Step::Admit];
                let compute = ComputeRead { fresh: true, sentinel: true, ..ComputeRead::default() };
                let seen = Box::new(Seen { compute: Some(compute), domains: Some((Vec::new(), bench.now)) });
                Change::Reenter { case, step: of(steps, a / 2), op: op(70 + u128::from(a)), seen }
            }
        }
        27 => {
            match a % 8 {
                0 => bench.restore(),
                1 => bench.leader.term += 1,
                2..=5 => {
                    let HostReport { domain, .. } = report(at, b, 0);
                    let provider = report(at, b, 0).provider_uuid();
                    bench.apply(Command::RemoveHost { domain, provider });
                }
                _ => {
                    let values = BTreeMap::from([("f".to_owned(), f64::from(b))]);
                    bench.apply(Command::Features(Box::new(FeatureReport {
                        name: name(at),
                        values,
                        ..FeatureReport::default()
                    })));
                }
            }
            return;
        }
        _ => {
            bench.apply(Command::Report(Box::new(report(at, b, a))));
            return;
        }
    };
    _ = bench.order(change);
}

fn request() -> Request {
    Request {
        domain: Domain::Nova,
        consumers: vec![Uuid::from_u128(1)],
        caller: Caller::Keyed { key: None },
        resources: BTreeMap::from([("VCPU".to_owned(), 0)]),
        candidates: Candidates::All,
        num_instances: 1,
        ..Request::default()
    }
}

/// Hosts, once for each of their nodes, off which the state says that nothing is kept.
fn wanted(bench: &Bench) -> Vec<String> {
    let tables = bench.core.state().tables();
    let nova = tables.providers().filter(|(_, provider)| provider.domain == Domain::Nova);
    let free = nova.filter(|(_, provider)| {
        let mut same = bench.ha().hosts.iter().filter(|host| host.nova_host == provider.host);
        same.all(|host| cordon::of(tables, host).is_none())
    });
    let mut names: Vec<_> = free.map(|(_, provider)| tables.names.text(provider.host).to_owned()).collect();
    names.sort();
    names
}

fn decided(bench: &mut Bench, engine: &Engine) -> Vec<String> {
    let decision = bench.core.probe(engine, &request()).expect("a decision");
    let mut names: Vec<_> = decision.hosts.iter().map(|ranked| ranked.host.to_string()).collect();
    names.sort();
    names
}

proptest! {
    #[test]
    fn what_keeps_hosts_out_follows_whatever_is_ordered_and_reported(
        begin in 0..6,
        plays in prop::collection::vec(any::<(u8, u8, u8, u8)>(), 1..60),
    ) {
        let (mut bench, engine) = (Bench::new(), engine());
        match begin {
            0 => {}
            1 => _ = bench.pending(1),
            2 => _ = bench.fenced(1),
            3 => _ = bench.planning(1),
            4 => _ = bench.evacuating(),
            _ => _ = bench.returning(),
        }
        for (kind, at, a, b) in plays {
            play(&mut bench, kind, at, a, b);
            let standing = decided(&mut bench, &engine);
            bench.core.forget_runs();
            prop_assert_eq!(&standing, &decided(&mut bench, &engine));
            prop_assert_eq!(standing, wanted(&bench));
            // Asked twice, its run is kept: the next one may stand.
            _ = decided(&mut bench, &engine);
        }
    }
}
