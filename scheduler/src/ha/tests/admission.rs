//! Which hosts could not be lost, and placements that would take the room of a failover.

use std::collections::BTreeMap;

use proptest::prelude::*;
use uuid::Uuid;

use super::bench::{Bench, HOSTS, host, spec, vm};
use super::hook::engine;
use crate::consumer::Purpose;
use crate::ha::HostSpec;
use crate::ha::admission::{Loss, Refuses, Rule, losses};
use crate::ha::breaker::ScopeName;
use crate::ha::cordon;
use crate::ha::host::Maintenance;
use crate::ha::order::Change;
use crate::ha::policy::{FailoverPolicy, Mode, Rules, Selector};
use crate::intent::Intent;
use crate::request::{Candidate, Candidates, Request};
use crate::{Command, Domain, HostReport, InstanceReport, Inventory, Settled, SmolStr};

fn holds(bench: &mut Bench, n: u128, capacity: u64, sizes: &[u64]) {
    let instance = |(at, size): (usize, &u64)| InstanceReport {
        uuid: Uuid::from_u128(n << 32 | at as u128),
        resources: Some([("VCPU".to_owned(), *size)].into()),
        ..InstanceReport::default()
    };
    // No instance is larger than 4, which says nothing of their sum.
    let inventory = Inventory { max_unit: 4, ..Inventory::of(capacity) };
    bench.apply(Command::Report(Box::new(HostReport {
        name: format!("node-{n}"),
        inventories: Some([("VCPU".to_owned(), inventory)].into()),
        instances: Some(sizes.iter().enumerate().map(instance).collect()),
        ..HostReport::default()
    })));
}

#[test]
fn the_loss_of_a_host_is_what_finds_no_room_elsewhere() {
    let mut bench = Bench::new();
    for n in 1..=HOSTS {
        holds(&mut bench, n, 1, &[]);
    }
    // Of 4 + 3 + 3 the second host takes 4 and 3, which is more than its largest unit, and the third nothing.
    holds(&mut bench, 1, 10, &[3, 3, 4]);
    holds(&mut bench, 2, 9, &[2]);
    holds(&mut bench, 3, 3, &[1]);
    let loss = |n, instances, left| Loss { host: host(n), instances, left };
    let found = losses(bench.core.state().tables(), 10);
    assert_eq!(found, [loss(1, 3, 1), loss(2, 1, 0), loss(3, 1, 0)]);
    assert_eq!(losses(bench.core.state().tables(), 1).len(), 1, "the largest");
}

fn keep(bench: &mut Bench, domain: ScopeName, rules: Rules) {
    let selector = Selector { domain: Some(domain), ..Selector::default() };
    bench.as_operator(Change::PolicyPut(Box::new(FailoverPolicy { name: "room".to_owned(), selector, rules })));
}

fn enforced(rule: Rule) -> Rules {
    Rules { admission: Some(rule), refuses: Some(Refuses::Enforce), ..Rules::default() }
}

fn request(instance: u128, cpus: u64, label: Option<Intent>) -> Request {
    Request {
        domain: Domain::Nova,
        consumers: vec![vm(instance)],
        label,
        resources: BTreeMap::from([("VCPU".to_owned(), cpus)]),
        candidates: Candidates::All,
        num_instances: 1,
        ..Request::default()
    }
}

fn sent(n: u128) -> Candidates {
    Candidates::Sent(vec![Candidate { host: format!("node-{n}").into(), node: SmolStr::default(), weight: 0.0 }])
}

/// Asks; why the first host is left out for a reason of admission, if it is.
fn refused(bench: &mut Bench, request: &Request) -> Option<String> {
    let told = bench.core.probe_detail(&engine(), request, &["*".to_owned()]).expect("hosts");
    let mut ours = told.hosts.into_iter().filter(|story| story.dropped_by.as_deref() == Some("failover_admission"));
    ours.find_map(|story| story.reason)
}

/// 12 hosts of 4, of which 10 are in use: 38 are free.
fn filled() -> Bench {
    let mut bench = Bench::new();
    // The largest holds 8 of 8, so that 34 must not fall below 8.
    for n in 3..=HOSTS {
        holds(&mut bench, n, 4, &[3]);
    }
    bench
}

#[test]
fn what_would_take_the_room_of_a_failover_is_refused_and_nothing_else() {
    let mut bench = filled();
    // Free: 10 of ten hosts, 2 of host 2; host 1 has 8 of 4 in use, as has no other, so 8 must be free: 4 are left.
    let (host, percent) = (Rule::Host, Rule::Percent(20));
    assert_eq!(refused(&mut bench, &request(50, 5, None)), None, "told, and not refused: the default");
    keep(&mut bench, ScopeName::Region, enforced(host));
    assert_eq!(refused(&mut bench, &request(50, 4, None)), None);
    let why = Some("would leave too little VCPU for the loss of a host".to_owned());
    assert_eq!(refused(&mut bench, &request(50, 5, None)), why);
    // Never an evacuation, a rebuild, or what is no more than it has.
    assert_eq!(refused(&mut bench, &request(50, 5, Some(Intent::Evacuate))), None);
    assert_eq!(refused(&mut bench, &request(5, 6, Some(Intent::Resize))), None, "4 more than it has");
    assert_eq!(refused(&mut bench, &request(5, 7, Some(Intent::Resize))), why);
    // 48 in all, 40 in use: 20 % are 10.
    keep(&mut bench, ScopeName::Region, enforced(percent));
    let why = Some("would leave less than 20 % of VCPU for a failover".to_owned());
    assert_eq!(refused(&mut bench, &request(50, 1, None)), why, "it is below already");
    assert_eq!(refused(&mut bench, &request(5, 2, Some(Intent::LiveMigration))), None, "which a move does not worsen");
    keep(&mut bench, ScopeName::Region, enforced(Rule::Percent(10)));
    assert_eq!(refused(&mut bench, &request(50, 3, None)), None);
    assert!(refused(&mut bench, &request(50, 4, None)).is_some());
    for rules in [
        Rules { refuses: Some(Refuses::Warn), ..enforced(percent) },
        Rules { refuses: Some(Refuses::Off), ..enforced(percent) },
        Rules { mode: Some(Mode::DryRun), ..enforced(percent) },
    ] {
        keep(&mut bench, ScopeName::Region, rules);
        assert_eq!(refused(&mut bench, &request(50, 4, None)), None, "{rules:?}");
    }
    // A host in maintenance takes nothing, and what it has needs room; a policy is for its own zone.
    keep(&mut bench, ScopeName::Region, enforced(host));
    bench.must(Change::Maintenance { host: super::bench::host(2), mode: Maintenance::Manual });
    assert!(refused(&mut bench, &request(50, 3, None)).is_some());
    let places = crate::ha::host::PlaceNames { az: "b".to_owned(), ..spec(3).places };
    bench.must(Change::HostUpsert(Box::new(HostSpec { places, ..spec(3) })));
    keep(&mut bench, ScopeName::Az("b".to_owned()), enforced(host));
    let first = refused(&mut bench, &request(50, 1, None));
    assert!(first.is_some(), "a zone of one host cannot lose it");
}

/// Two decisions that are both under way do not take the last room, whether their runs stand or not.
#[test]
fn the_last_room_is_given_once() {
    let mut bench = filled();
    keep(&mut bench, ScopeName::Region, enforced(Rule::Host));
    let engine = engine();
    let mut open = Vec::new();
    // Asked often, its run stands.
    let hosts = |bench: &mut Bench| bench.core.probe(&engine, &request(60, 1, None)).expect("hosts").hosts.len();
    assert_eq!([hosts(&mut bench), hosts(&mut bench), hosts(&mut bench)], [HOSTS as usize; 3]);
    for n in 3..=HOSTS {
        let request = Request { candidates: sent(n), ..request(47 + n, 1, None) };
        let proposal = bench.core.decide(&engine, &request).expect("a decision");
        open.push(proposal);
    }
    assert_eq!(hosts(&mut bench), 0);
    let mut placed = 0;
    for mut proposal in open {
        let outcome = proposal.take_command().map(|command| bench.apply(command));
        let Settled::Done(decision) = bench.core.settle(proposal, outcome) else { panic!("settled") };
        placed += decision.placements.len();
    }
    assert_eq!(placed, 4, "as many as leave 8 free");
    assert_eq!(bench.core.check(), Vec::<String>::new());
    // What is taken back may be given again.
    bench.apply(Command::Release { domain: Domain::Nova, consumer: vm(50), open_only: true });
    assert_eq!(refused(&mut bench, &request(60, 1, None)), None);
}

/// By the tables, host by host: whether the rule holds in the zone of each host that must keep it.
fn holds_to(bench: &Bench, az: &str, rule: Rule) -> bool {
    let tables = bench.core.state().tables();
    let mut hosts = Vec::new();
    for host in bench.ha().hosts.iter().filter(|host| tables.names.text(host.places.az) == az && host.enabled) {
        let row = tables.row_of_node(Domain::Nova, tables.names.text(host.nova_host), None).expect("reported");
        let provider = tables.provider(row).expect("there");
        let class = tables.names.get("VCPU").expect("known");
        let takes = cordon::of(tables, host).is_none();
        let capacity = if takes { provider.capacity(class).unwrap_or(0) } else { 0 };
        hosts.push((capacity, provider.used(class)));
    }
    let free: u64 = hosts.iter().map(|(capacity, used)| capacity.saturating_sub(*used)).sum();
    match rule {
        Rule::Host => hosts.iter().all(|(capacity, used)| free - capacity.saturating_sub(*used) >= *used),
        Rule::Percent(percent) => {
            let capacity: u64 = hosts.iter().map(|(capacity, _)| capacity).sum();
            let used: u64 = hosts.iter().map(|(_, used)| used).sum();
            capacity >= used && (capacity - used) * 100 >= capacity * u64::from(percent)
        }
    }
}

proptest! {
    /// After each placement the rule holds by the tables, and what is refused would break it.
    #[test]
    fn placements_leave_what_the_policy_keeps(
        rule in prop_oneof![Just(Rule::Host), (1_u8..60).prop_map(Rule::Percent)],
        plays in prop::collection::vec((0_u8..8, 1_u128..=HOSTS, 1_u64..4), 1..40),
    ) {
        let mut bench = Bench::new();
        let engine = engine();
        let mut next = 100;
        keep(&mut bench, ScopeName::Region, enforced(rule));
        for (kind, n, amount) in plays {
            match kind {
                0 => holds(&mut bench, n, 4 * amount, &vec![1; amount as usize]),
                1 => {
                    let mode = if amount == 1 { Maintenance::None } else { Maintenance::Manual };
                    bench.must(Change::Maintenance { host: host(n), mode });
                }
                2 => {
                    let az = if amount == 1 { "a" } else { "b" }.to_owned();
                    let places = crate::ha::host::PlaceNames { az, ..spec(n).places };
                    bench.must(Change::HostUpsert(Box::new(HostSpec { places, ..spec(n) })));
                }
                3 => {
                    let consumer = vm(100 + n);
                    bench.apply(Command::Release { domain: Domain::Nova, consumer, open_only: true });
                }
                _ => {
                    next += 1;
                    let request = Request { candidates: sent(n), ..request(next, amount, None) };
                    let az = bench.core.state().tables().names.text(bench.host(n).places.az).to_owned();
                    let why = refused(&mut bench, &request);
                    let unlooked = Request { label: Some(Intent::Evacuate), ..request.clone() };
                    let asked = if why.is_some() { &unlooked } else { &request };
                    let mut proposal = bench.core.decide(&engine, asked).expect("a decision");
                    let outcome = proposal.take_command().map(|command| bench.apply(command));
                    // A full host takes none of it.
                    _ = bench.core.settle(proposal, outcome);
                    let tables = bench.core.state().tables();
                    let placed = [Purpose::Instance, Purpose::Move];
                    let placed = placed.into_iter().any(|of| tables.consumer(Domain::Nova, vm(next), of).is_some());
                    if placed {
                        prop_assert_eq!(holds_to(&bench, &az, rule), why.is_none(), "{:?}", why);
                    }
                }
            }
            prop_assert_eq!(bench.core.check(), Vec::<String>::new());
        }
    }
}
