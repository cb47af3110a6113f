//! What failover thinks of a host keeps new instances off it, and says so; the index is compared with one built anew
//! after every order.

use std::collections::BTreeMap;

use super::bench::{Bench, hello, host, spec, vm};
use super::hook::{ask, names};
use crate::ha::HostSpec;
use crate::ha::breaker::{ScopeName, Trips};
use crate::ha::case::Phase;
use crate::ha::host::{Degraded, Detection, Maintenance};
use crate::ha::order::Change;
use crate::ha::policy::{FailoverPolicy, Mode, Rules, Selector};
use crate::intent::Intent;
use crate::{AggregateReport, Command, HostReport, Inventory};

/// Asks for a new instance on host 5 or 6; why host 5 is left out, if it is.
fn kept_out(bench: &mut Bench) -> Option<String> {
    let decision = ask(bench, 50, None, &[5, 6]);
    let explained = bench.core.explain(decision.id, &["node-5".to_owned()]).expect("it is remembered");
    bench.apply(Command::Release { domain: crate::Domain::Nova, consumer: vm(50), open_only: true });
    let story = &explained.detail.expect("this node decided it").hosts[0];
    let reason = story.dropped_by.as_ref().map(|step| {
        assert_eq!(step, "failover_cordon");
        story.reason.clone().expect("a reason")
    });
    let expected = if reason.is_some() { &["node-6"][..] } else { &["node-5", "node-6"] };
    assert_eq!(names(&decision), expected);
    reason
}

fn ill(bench: &mut Bench, degraded: Degraded) {
    bench.must(Change::Degraded { host: host(5), incarnation: 1, degraded });
}

fn trial(selector: Selector, mode: Mode) -> Change {
    let rules = Rules { mode: Some(mode), ..Rules::default() };
    Change::PolicyPut(Box::new(FailoverPolicy { name: "trial".to_owned(), selector, rules }))
}

fn everywhere() -> Selector {
    Selector { domain: Some(ScopeName::Region), ..Selector::default() }
}

fn breaker(trips: Trips) -> Change {
    Change::BreakerSet { scope: ScopeName::Az("a".to_owned()), seen: trips }
}

type Row = (&'static str, fn(&mut Bench), Option<&'static str>);

#[test]
fn hosts_that_failover_doubts_take_nothing_new() {
    let rows: [Row; 19] = [
        ("nothing", |_| (), None),
        ("it is silent", |b| b.suspect(5), Some("is silent")),
        (
            "and others see it run",
            |b| {
                b.suspect(5);
                b.detect(5, Detection::Suspect, Detection::Isolated);
            },
            Some("is silent"),
        ),
        (
            "and is heard again",
            |b| {
                b.suspect(5);
                b.detect(5, Detection::Suspect, Detection::Alive);
            },
            None,
        ),
        ("a case", |b| _ = b.pending(5), Some("has an open case of failover")),
        (
            "a case that is over, of a host that lives",
            |b| {
                b.pending(5);
                b.detect(5, Detection::Unreachable, Detection::Alive);
                b.phase(5, Phase::Cleared);
            },
            None,
        ),
        ("dead", |b| _ = b.planning(5), Some("has an open case of failover")),
        (
            "maintenance",
            |b| {
                b.must(Change::Maintenance { host: host(5), mode: Maintenance::Manual });
            },
            Some("is in maintenance"),
        ),
        (
            "a drain",
            |b| {
                b.as_operator(Change::DrainOpen { host: host(5), incarnation: 1, mode: Maintenance::Auto });
            },
            Some("is in maintenance"),
        ),
        (
            "a stranger's Hello",
            |b| {
                b.must(Change::IncarnationOpen { host: host(5), hello: Box::new(hello(6, 1)) });
            },
            Some("is in quarantine"),
        ),
        (
            "and an operator's word",
            |b| {
                b.must(Change::IncarnationOpen { host: host(5), hello: Box::new(hello(6, 1)) });
                b.as_operator(Change::QuarantineEnd(host(5)));
            },
            None,
        ),
        (
            "a reboot that is due",
            |b| {
                b.tamper(|ha| ha.host_mut(host(5)).expect("known").must_reboot = true);
            },
            Some("must be rebooted before it comes back"),
        ),
        ("no nova-compute", |b| ill(b, Degraded::COMPUTE), Some("runs no nova-compute")),
        (
            "a hung libvirt",
            |b| ill(b, Degraded::LIBVIRT.and(Degraded::FLAPS)),
            Some("has a libvirt that does not answer"),
        ),
        ("no storage", |b| ill(b, Degraded::STORAGE), Some("does not reach its storage")),
        ("a Goodbye", |b| ill(b, Degraded::AWAY), Some("goes down on purpose")),
        ("flaps", |b| ill(b, Degraded::FLAPS), Some("was suspected again and again")),
        (
            "well again",
            |b| {
                ill(b, Degraded::FLAPS);
                ill(b, Degraded::default());
            },
            None,
        ),
        (
            "not failover's",
            |b| {
                ill(b, Degraded::FLAPS);
                b.must(Change::HostUpsert(Box::new(HostSpec { enabled: false, ..spec(5) })));
            },
            None,
        ),
    ];
    for (what, set_up, expected) in rows {
        let mut bench = Bench::new();
        // The runs of equal requests stand, until something is thought of a host.
        assert_eq!((kept_out(&mut bench), kept_out(&mut bench)), (None, None));
        set_up(&mut bench);
        assert_eq!(kept_out(&mut bench).as_deref(), expected, "{what}");
        assert_eq!(bench.core.check(), Vec::<String>::new(), "{what}");
    }
}

/// Too many silent hosts are more likely our own deafness, which is no reason to place nothing; what a host says of
/// itself, and what a person says, holds.
#[test]
fn silence_of_many_keeps_nothing_out() {
    let mut bench = Bench::new();
    bench.suspect(5);
    ill(&mut bench, Degraded::COMPUTE);
    bench.must(breaker(Trips::CORRELATED));
    assert_eq!(kept_out(&mut bench).as_deref(), Some("runs no nova-compute"));
    ill(&mut bench, Degraded::default());
    assert_eq!(kept_out(&mut bench), None);
    bench.must(breaker(Trips::CONTROL));
    assert_eq!(kept_out(&mut bench).as_deref(), Some("is silent"), "that Nova cannot act says nothing of hosts");
    bench.must(breaker(Trips::BLIND));
    assert_eq!(kept_out(&mut bench), None);
    bench.must(breaker(Trips::default()));
    bench.now += 120_000;
    bench.must(breaker(Trips::default()));
    assert_eq!(kept_out(&mut bench).as_deref(), Some("is silent"), "the breaker has closed");
    // As many as open the breaker by their number, and what else is thought of them.
    for n in [1, 2, 3] {
        bench.suspect(n);
    }
    bench.must(breaker(Trips::default()));
    assert_eq!(kept_out(&mut bench), None);
    bench.must(Change::Maintenance { host: host(5), mode: Maintenance::Manual });
    assert_eq!(kept_out(&mut bench).as_deref(), Some("is in maintenance"));
}

#[test]
fn nothing_is_kept_out_of_a_host_about_which_nothing_is_done() {
    let mut bench = Bench::new();
    bench.suspect(5);
    for mode in [Mode::DryRun, Mode::Off] {
        bench.as_operator(trial(everywhere(), mode));
        assert_eq!(kept_out(&mut bench), None, "{mode}");
    }
    bench.as_operator(trial(everywhere(), Mode::Enforce));
    assert_eq!(kept_out(&mut bench).as_deref(), Some("is silent"));
    // By what its provider has: an aggregate, by its name.
    let one = Selector { aggregates: vec!["trial".to_owned()], ..Selector::default() };
    bench.as_operator(trial(one, Mode::DryRun));
    assert_eq!(kept_out(&mut bench).as_deref(), Some("is silent"));
    let aggregate = AggregateReport { name: "trial".to_owned(), uuid: None, ..AggregateReport::default() };
    let report = HostReport { name: "node-5".to_owned(), aggregates: Some(vec![aggregate]), ..HostReport::default() };
    bench.apply(Command::Report(Box::new(report.clone())));
    assert_eq!(kept_out(&mut bench), None);
    bench.apply(Command::Report(Box::new(HostReport { aggregates: Some(Vec::new()), ..report })));
    assert_eq!(kept_out(&mut bench).as_deref(), Some("is silent"));
    bench.as_operator(Change::PolicyRemove("trial".to_owned()));
    let mut policy = bench.ha().small.policy;
    policy.mode = Mode::DryRun;
    bench.as_operator(Change::Policy(policy));
    assert_eq!(kept_out(&mut bench), None);
}

/// Names move from host to host, and providers come and go.
#[test]
fn what_is_thought_of_a_host_follows_its_name() {
    let mut bench = Bench::new();
    ill(&mut bench, Degraded::FLAPS);
    let named = |name: &str| Change::HostUpsert(Box::new(HostSpec { nova_host: name.to_owned(), ..spec(5) }));
    bench.must(named("node-5a"));
    assert_eq!(kept_out(&mut bench), None);
    // A provider that comes later, and has two nodes.
    bench.must(named("node-99"));
    for node in ["a", "b"] {
        bench.apply(Command::Report(Box::new(HostReport {
            name: "node-99".to_owned(),
            hypervisor_hostname: Some(node.to_owned()),
            inventories: Some(BTreeMap::from([("VCPU".to_owned(), Inventory::of(4))])),
            ..HostReport::default()
        })));
    }
    assert!(names(&ask(&mut bench, 51, None, &[99])).is_empty());
    bench.must(named("node-5"));
    assert_eq!(names(&ask(&mut bench, 51, None, &[99])), ["node-99"]);
    assert_eq!(kept_out(&mut bench).as_deref(), Some("was suspected again and again"));
    bench.must(Change::HostRemove(host(5)));
    assert_eq!(kept_out(&mut bench), None);
    // One that never said Hello is as good as any.
    bench.must(Change::HostUpsert(Box::new(spec(5))));
    assert!(!bench.host(5).is_open());
    assert_eq!(kept_out(&mut bench), None);
}

#[test]
fn a_rebuild_stays_where_its_host_is() {
    let mut bench = Bench::new();
    bench.must(Change::Maintenance { host: host(1), mode: Maintenance::Manual });
    assert_eq!(names(&ask(&mut bench, 1, Some(Intent::Rebuild), &[1])), ["node-1"]);
    assert!(names(&ask(&mut bench, 1, Some(Intent::Resize), &[1])).is_empty());
    assert_eq!(names(&ask(&mut bench, 1, Some(Intent::LiveMigration), &[1, 6])), ["node-6"]);
}
