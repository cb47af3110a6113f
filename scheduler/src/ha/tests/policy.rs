//! Policies: what is wrong with a document, which of several wins, and that nothing is done in a dry run.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::bench::{Bench, HOSTS, host, spec};
use crate::ha::admission::{Refuses, Rule};
use crate::ha::breaker::ScopeName;
use crate::ha::case::{Cause, Phase};
use crate::ha::order::{Change, Done, Role, Voter};
use crate::ha::policy::document::{read, write};
use crate::ha::policy::{self, FailoverPolicy, Mode, Operator, Policy, Rules, Selector, Term};
use crate::ha::proof::LeaseMode;
use crate::ha::{HostSpec, Refusal};
use crate::{AggregateReport, Command, HostReport};

fn document() -> Value {
    json!({
        "apiVersion": "pallium.dev/v1alpha1", "kind": "FailoverPolicy", "metadata": {"name": "trial", "labels": {"a": "b"}},
        "spec": {"selector": {"domain": "az:a"}, "mode": "dry-run"},
    })
}

/// Each row: a place in the document, what is put there (null: it is taken out), and all that is told.
#[test]
fn a_bad_document_is_told_with_path_given_and_expected() {
    let planned = |key: &str, instead: &str| {
        format!("spec.{key}: planned, and does nothing in this version: {instead}; take this key out")
    };
    let name = "1 to 63 lower-case letters, digits, '-' and '.', with a letter or digit at both ends";
    let long = "x".repeat(256);
    let many: Vec<_> = (0..1_025).map(|n| format!("node-{n}")).collect();
    let known =
        "known are mode, isolationResponse, fencing, errorInstances, restartInPlace, rates, admission, drain, selector";
    let parts =
        "one of domain, hosts, aggregates, traits, matchLabels, matchExpressions (every host: 'domain: region')";
    let rows: Vec<(&str, Value, String)> = vec![
        ("apiVersion", json!("v1"), "apiVersion: 'v1' given, pallium.dev/v1alpha1 expected".into()),
        ("kind", Value::Null, "kind: nothing given, FailoverPolicy expected".into()),
        ("sepc", json!({}), "sepc: unknown key, known are apiVersion, kind, metadata, spec, status".into()),
        ("metadata.name", Value::Null, "metadata.name: nothing given, text expected".into()),
        ("metadata.name", json!("Trial"), format!("metadata.name: 'Trial' given, {name} expected")),
        ("metadata.name", json!("x-"), format!("metadata.name: 'x-' given, {name} expected")),
        ("metadata.name", json!(7), "metadata.name: 7 given, text expected".into()),
        ("spec", json!("x"), "spec: 'x' given, a map expected".into()),
        ("spec.mode", json!("observe"), "spec.mode: 'observe' given, enforce, dry-run or off expected".into()),
        ("spec.mode", json!(false), "spec.mode: false given, enforce, dry-run or off expected".into()),
        (
            "spec.mode",
            Value::Null,
            "spec: nothing but a selector given, one key more at least, as in 'mode: dry-run' expected".into(),
        ),
        ("spec.mdoe", json!("off"), format!("spec.mdoe: unknown key, {known}")),
        ("spec.fencing.lease", json!("off"), "spec.fencing.lease: unknown key, known are leaseMode, autoPowerOn".into()),
        ("spec.fencing", json!("off"), "spec.fencing: 'off' given, a map expected".into()),
        ("spec.fencing.autoPowerOn", json!("yes"), "spec.fencing.autoPowerOn: 'yes' given, true or false expected".into()),
        ("spec.fencing.leaseMode", json!("on"), "spec.fencing.leaseMode: 'on' given, off or strict expected".into()),
        (
            "spec.fencing.leaseMode",
            json!("quorum"),
            "spec.fencing.leaseMode: 'quorum' is planned and does nothing in this version, off or strict expected".into(),
        ),
        (
            "spec.fencing.topology",
            json!(["redfish"]),
            planned("fencing.topology", "what fences a host is in its inventory, 'fencers' of `pallium ctl ha apply`"),
        ),
        ("spec.detection", json!({}), planned("detection", "the times of detection are the same for all hosts")),
        ("spec.breaker", json!({"az": "10%"}), planned("breaker", "the thresholds of the breakers are fixed")),
        (
            "spec.admission",
            json!({"policy": "slots"}),
            "spec.admission.policy: 'slots' is planned and does nothing in this version, 'hosts 1', or 'percent N' with N \
             from 1 to 90 expected"
                .into(),
        ),
        (
            "spec.admission",
            json!({"policy": "percent 91", "mode": "warn"}),
            "spec.admission.policy: 'percent 91' given, 'hosts 1', or 'percent N' with N from 1 to 90 expected".into(),
        ),
        ("spec.localDiskPolicy", json!("refuse"), planned("localDiskPolicy", "nothing looks at local disks")),
        (
            "spec.isolationResponse",
            json!("self_stop"),
            "spec.isolationResponse: 'self_stop' is planned and does nothing in this version, hold, or 'fence_after \
             TIME' as in 'fence_after 90s' expected"
                .into(),
        ),
        (
            "spec.isolationResponse",
            json!("fence_after 90"),
            "spec.isolationResponse: 'fence_after 90' given, hold, or 'fence_after TIME' as in 'fence_after 90s' expected"
                .into(),
        ),
        (
            "spec.isolationResponse",
            json!("fence_after 59s"),
            "spec.isolationResponse: 'fence_after 59s' given, 60s to 24h expected".into(),
        ),
        ("spec.errorInstances", json!(true), "spec.errorInstances: true given, skip or evacuate expected".into()),
        (
            "spec.rates.evacuationsToHost",
            json!(17),
            "spec.rates.evacuationsToHost: 17 given, 1 to 16 expected".into(),
        ),
        (
            "spec.rates.evacuationsFromHost",
            json!(-1),
            "spec.rates.evacuationsFromHost: -1 given, a whole number expected".into(),
        ),
        (
            "spec.rates.fence",
            json!(1),
            "spec.rates.fence: unknown key, known are evacuationsFromHost, evacuationsToHost".into(),
        ),
        ("spec.drain.maxUnavailable", json!(0), "spec.drain.maxUnavailable: 0 given, 1 to 1000 expected".into()),
        ("spec.selector", Value::Null, "spec.selector: nothing given, a map expected".into()),
        ("spec.selector", json!({}), format!("spec.selector: nothing given, {parts} expected")),
        (
            "spec.selector.domain",
            json!("zone:a"),
            "spec.selector.domain: 'zone:a' given, region, az:NAME, cell:NAME or cluster:NAME expected".into(),
        ),
        ("spec.selector.domain", json!("az:"), "spec.selector.domain: 0 bytes given, 1 to 255 expected".into()),
        ("spec.selector.hosts", json!([]), "spec.selector.hosts: a list given, a list with one text at least expected".into()),
        ("spec.selector.hosts", json!(["a", 7]), "spec.selector.hosts[1]: 7 given, text expected".into()),
        ("spec.selector.hosts", json!([long]), "spec.selector.hosts: 256 bytes given, 1 to 255 expected".into()),
        ("spec.selector.hosts", json!(many), "spec.selector.hosts: 1025 names given, 1024 at most expected".into()),
        (
            "spec.selector.host",
            json!("a"),
            "spec.selector.host: unknown key, known are domain, hosts, aggregates, traits, matchLabels, matchExpressions"
                .into(),
        ),
        ("spec.selector.matchLabels", json!({"a": 1}), "spec.selector.matchLabels.a: 1 given, text expected".into()),
        (
            "spec.selector.matchExpressions",
            json!([{"key": "a", "operator": "Is"}]),
            "spec.selector.matchExpressions[0].operator: 'Is' given, In, NotIn, Exists or DoesNotExist expected".into(),
        ),
        (
            "spec.selector.matchExpressions",
            json!([{"key": "a", "operator": "In"}]),
            "spec.selector.matchExpressions[0].values: nothing given, a list with one text at least expected".into(),
        ),
        (
            "spec.selector.matchExpressions",
            json!([{"key": "a", "operator": "Exists", "values": ["b"]}]),
            "spec.selector.matchExpressions[0].values: a list given, none with Exists and DoesNotExist expected".into(),
        ),
    ];
    for (path, value, expected) in rows {
        let mut document = document();
        let (parent, key) = path.rsplit_once('.').unwrap_or(("", path));
        let place = parent.split('.').filter(|key| !key.is_empty()).fold(&mut document, |place, key| &mut place[key]);
        if value.is_null() {
            place.as_object_mut().expect("a map").remove(key);
        } else {
            place[key] = value;
        }
        let told = read(&document).expect_err(path);
        let told: Vec<_> = told.iter().map(ToString::to_string).collect();
        assert_eq!(told, [expected], "{path}");
    }
    let told = read(&json!([])).expect_err("a list");
    assert_eq!(told[0].to_string(), "document: a list given, a map with apiVersion, kind, metadata and spec expected");
    // All at once.
    let wrong = json!({"kind": "X", "spec": {"mode": 1, "nova": {}, "selector": {"hosts": 1}}});
    let told: Vec<_> = read(&wrong).expect_err("wrong").into_iter().map(|fault| fault.path).collect();
    assert_eq!(told, ["apiVersion", "kind", "metadata", "spec.selector.hosts", "spec.mode", "spec.nova"]);
}

fn text() -> impl Strategy<Value = String> {
    "[a-z]{1,4}"
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(text(), 0..4)
}

fn term() -> impl Strategy<Value = Term> {
    let some = prop_oneof![Just(Operator::In), Just(Operator::NotIn)];
    let none = prop_oneof![Just(Operator::Exists), Just(Operator::DoesNotExist)];
    prop_oneof![
        (text(), some, prop::collection::vec(text(), 1..3)).prop_map(|(key, operator, values)| Term {
            key,
            operator,
            values
        }),
        (text(), none).prop_map(|(key, operator)| Term { key, operator, values: Vec::new() }),
    ]
}

prop_compose! {
    fn selector()(
        domain in prop_oneof![Just(ScopeName::Region), text().prop_map(ScopeName::Az), text().prop_map(ScopeName::Cell),
            text().prop_map(ScopeName::Cluster)],
        hosts in texts(), aggregates in texts(), traits in texts(), labels in prop::collection::vec(term(), 0..4),
    ) -> Selector {
        Selector { domain: Some(domain), hosts, aggregates, traits, labels }
    }
}

prop_compose! {
    fn rules()(
        mode in prop_oneof![Just(Mode::Off), Just(Mode::DryRun), Just(Mode::Enforce)],
        lease in prop::option::of(prop_oneof![Just(LeaseMode::Off), Just(LeaseMode::Strict)]),
        after in prop::option::of(prop_oneof![Just(0), (60_u64..86_400).prop_map(|seconds| seconds * 1_000)]),
        flags in prop::array::uniform5(prop::option::of(any::<bool>())),
        admission in prop::option::of(prop_oneof![Just(Rule::Host), (1_u8..=90).prop_map(Rule::Percent)]),
        refuses in prop::option::of(prop_oneof![Just(Refuses::Off), Just(Refuses::Warn), Just(Refuses::Enforce)]),
        numbers in (prop::option::of(1_u32..=32), prop::option::of(1_u32..=16), prop::option::of(1_u32..=1_000)),
    ) -> Rules {
        let [power_on, in_place, error_instances, keep_spare, force_complete] = flags;
        let (from_source, to_target, drains) = numbers;
        Rules {
            mode: Some(mode), lease, fence_isolated: after, power_on, in_place, error_instances, from_source, to_target,
            drains, admission, refuses, keep_spare, force_complete,
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let keys =
        "(apiVersion|kind|metadata|name|spec|selector|mode|fencing|hosts|matchExpressions|key|values|rates|nova)";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "(off|strict|fence_after |az:|½h|fence_after ½h|[a-z0-9:. ]{0,9})".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(keys, inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_the_same(selector in selector(), rules in rules()) {
        let policy = FailoverPolicy { name: "trial".to_owned(), selector, rules };
        prop_assert_eq!(read(&write(&policy)), Ok(policy.normal()));
    }

    #[test]
    fn nothing_that_is_sent_panics(value in any_json()) {
        let told = read(&value).err().unwrap_or_default();
        prop_assert!(told.iter().all(|fault| !fault.path.is_empty() && !fault.message.is_empty()), "{told:?}");
    }
}

fn region() -> Selector {
    Selector { domain: Some(ScopeName::Region), ..Selector::default() }
}

fn put(name: &str, selector: Selector, rules: Rules) -> Change {
    Change::PolicyPut(Box::new(FailoverPolicy { name: name.to_owned(), selector, rules }))
}

fn mode(mode: Mode) -> Rules {
    Rules { mode: Some(mode), ..Rules::default() }
}

fn of(bench: &Bench, n: u128) -> Policy {
    policy::of(bench.core.state().tables(), bench.host(n))
}

/// Host 2 is in another zone and another cluster, host 3 has what hosts can have.
fn varied() -> Bench {
    let mut bench = Bench::new();
    let mut places = spec(2).places;
    (places.az, places.cluster) = ("b".to_owned(), "other".to_owned());
    bench.must(Change::HostUpsert(Box::new(HostSpec { places, ..spec(2) })));
    bench.apply(Command::Report(Box::new(HostReport {
        name: "node-3".to_owned(),
        traits: Some(vec!["CUSTOM_FAST".to_owned(), "CUSTOM_OLD".to_owned()]),
        labels: Some([("pool".to_owned(), "gold".to_owned())].into()),
        aggregates: Some(vec![AggregateReport { name: "ssd".to_owned(), ..AggregateReport::default() }]),
        ..HostReport::default()
    })));
    bench
}

fn selects(bench: &Bench, selector: Selector) -> Vec<u128> {
    let policy = FailoverPolicy { name: "x".to_owned(), selector, rules: mode(Mode::Off) }.normal();
    let mut policies = Vec::new();
    policy::put(&mut policies, policy::Kept { policy, revision: 1, by: String::new(), why: String::new(), wall: 0 });
    let tables = bench.core.state().tables();
    (1..=HOSTS).filter(|n| policy::with(&policies, tables, bench.host(*n)).mode == Mode::Off).collect()
}

#[test]
fn a_selector_selects_where_all_its_parts_hold() {
    let bench = varied();
    let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let labelled = |operator, values: &[&str]| Selector {
        labels: vec![Term { key: "pool".to_owned(), operator, values: owned(values) }],
        ..Selector::default()
    };
    let all: Vec<u128> = (1..=HOSTS).collect();
    let but = |n: u128| all.iter().copied().filter(|m| *m != n).collect::<Vec<_>>();
    let none = Selector::default;
    let domain = |domain| Selector { domain: Some(domain), ..none() };
    for (selector, expected) in [
        (region(), all.clone()),
        (domain(ScopeName::Az("b".to_owned())), vec![2]),
        (domain(ScopeName::Cell("cell".to_owned())), all.clone()),
        (domain(ScopeName::Cluster("block".to_owned())), but(2)),
        (domain(ScopeName::Az("nowhere".to_owned())), vec![]),
        (Selector { hosts: owned(&["node-5", "node-1", "nobody"]), ..none() }, vec![1, 5]),
        (Selector { hosts: owned(&["node-2"]), domain: Some(ScopeName::Az("a".to_owned())), ..none() }, vec![]),
        (Selector { traits: owned(&["CUSTOM_OLD", "CUSTOM_FAST"]), ..none() }, vec![3]),
        (Selector { traits: owned(&["CUSTOM_OLD", "CUSTOM_NEW"]), ..none() }, vec![]),
        (Selector { aggregates: owned(&["hdd", "ssd"]), ..none() }, vec![3]),
        (labelled(Operator::In, &["gold", "tin"]), vec![3]),
        (labelled(Operator::In, &["tin"]), vec![]),
        (labelled(Operator::NotIn, &["gold"]), but(3)),
        (labelled(Operator::Exists, &[]), vec![3]),
        (labelled(Operator::DoesNotExist, &[]), but(3)),
    ] {
        assert_eq!(selects(&bench, selector.clone()), expected, "{selector:?}");
    }
}

#[test]
fn the_most_specific_wins_key_by_key_whatever_came_first() {
    let named = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let after = |seconds: u64| Rules { fence_isolated: Some(seconds * 1_000), ..Rules::default() };
    let zone = || Selector { domain: Some(ScopeName::Az("a".to_owned())), ..Selector::default() };
    let fast = || Selector { traits: named(&["CUSTOM_FAST"]), ..Selector::default() };
    let policies = [
        ("all", region(), Rules { power_on: Some(true), mode: Some(Mode::DryRun), ..after(60) }),
        ("cell", Selector { domain: Some(ScopeName::Cell("cell".to_owned())), ..Selector::default() }, after(62)),
        ("zone", zone(), after(61)),
        ("block", Selector { domain: Some(ScopeName::Cluster("block".to_owned())), ..Selector::default() }, after(63)),
        ("fast", fast(), after(64)),
        ("fast-here", Selector { domain: zone().domain, ..fast() }, after(65)),
        ("named", Selector { hosts: named(&["node-5"]), ..Selector::default() }, after(66)),
        // As specific as `named`: the name that comes first wins.
        ("a-named", Selector { hosts: named(&["node-6", "node-5"]), ..Selector::default() }, mode(Mode::Enforce)),
        ("z-named", Selector { hosts: named(&["node-5", "node-6"]), ..Selector::default() }, mode(Mode::Off)),
    ];
    // Forwards, backwards, and with each put twice.
    let forwards: Vec<usize> = (0..policies.len()).collect();
    let backwards: Vec<usize> = forwards.iter().rev().copied().collect();
    let twice = [backwards.clone(), forwards.clone()].concat();
    for order in [forwards, backwards, twice] {
        let mut bench = varied();
        for at in order {
            let (name, selector, rules) = policies[at].clone();
            bench.as_operator(put(name, selector, rules));
        }
        let seconds = |n| of(&bench, n).fence_isolated / 1_000;
        assert_eq!([seconds(1), seconds(2), seconds(3), seconds(5), seconds(6)], [63, 62, 65, 66, 63]);
        assert_eq!([1, 5, 6].map(|n| of(&bench, n).mode), [Mode::DryRun, Mode::Enforce, Mode::Enforce]);
        assert!((1..=HOSTS).all(|n| of(&bench, n).power_on), "nobody else says anything of it");
        bench.as_operator(Change::PolicyRemove("a-named".to_owned()));
        assert_eq!([5, 6].map(|n| of(&bench, n).mode), [Mode::Off, Mode::Off]);
        bench.as_operator(Change::PolicyRemove("named".to_owned()));
        assert_eq!(of(&bench, 5).fence_isolated, 63_000);
    }
}

#[test]
fn the_last_valid_revision_stays_in_force() {
    let mut bench = Bench::new();
    let (only, revision) =
        (|bench: &Bench| bench.ha().small.policies[0].clone(), |bench: &Bench| bench.ha().small.revisions);
    bench.as_operator(put("trial", region(), mode(Mode::DryRun)));
    let first = only(&bench);
    assert_eq!((first.revision, first.by.as_str(), first.why.as_str()), (1, "test", "because"));
    let coordinator = bench.order(put("trial", region(), mode(Mode::Off)));
    assert!(matches!(coordinator, Err(Refusal::Role { .. })), "{coordinator:?}");
    bench.role = Role::Operator;
    let short = Rules { fence_isolated: Some(1_000), ..Rules::default() };
    let strict = Rules { lease: Some(LeaseMode::Strict), ..Rules::default() };
    for bad in [
        put("trial", Selector::default(), mode(Mode::Off)),
        put("trial", region(), Rules::default()),
        put("trial", region(), short),
        put("Trial", region(), mode(Mode::Off)),
        // Two voters at most are known.
        put("trial", region(), strict),
    ] {
        let refused = bench.order(bad).expect_err("refused").to_string();
        assert!(refused.contains("expected"), "{refused}");
        assert_eq!((only(&bench), revision(&bench)), (first.clone(), 1));
    }
    assert_eq!(bench.must(put("trial", region(), mode(Mode::DryRun))), Done::Unchanged);
    bench.must(put("trial", region(), mode(Mode::Off)));
    assert_eq!((of(&bench, 1).mode, only(&bench).revision), (Mode::Off, 2));
    bench.must(Change::PolicyRemove("trial".to_owned()));
    assert!(bench.order(Change::PolicyRemove("trial".to_owned())).is_err());
    bench.must(put("trial", region(), mode(Mode::Off)));
    assert_eq!(only(&bench).revision, 3, "a number never means two things");
    for n in 1..policy::POLICIES {
        bench.must(put(&format!("p{n}"), region(), mode(Mode::Off)));
    }
    assert!(matches!(bench.order(put("more", region(), mode(Mode::Off))), Err(Refusal::Full { .. })));
    let frozen = bench.core.freeze();
    let again = crate::Frozen::decode(&frozen.encode()).expect("a state");
    assert_eq!(again.tables().failover().small.policies, bench.ha().small.policies);
}

#[test]
fn nothing_is_done_about_a_host_in_a_dry_run_but_by_a_person() {
    let mut bench = Bench::new();
    let block = |n: u128| Selector { hosts: vec![format!("node-{n}")], ..Selector::default() };
    bench.pending(1);
    bench.as_operator(put("one", block(1), mode(Mode::DryRun)));
    let refused = bench.order(bench.intent(1, 1)).expect_err("refused").to_string();
    assert!(refused.contains("mode dry-run by policy 'one'"), "{refused}");
    let case = bench.id(1);
    let would = |what: Option<&str>| Change::WouldDo { case, what: what.map(str::to_owned) };
    assert_eq!(bench.must(would(Some("be fenced by redfish"))), Done::Changed);
    assert_eq!(bench.must(would(Some("be fenced by redfish"))), Done::Unchanged);
    assert_eq!(bench.case(1).would.as_deref(), Some("be fenced by redfish"));
    // It acts again; another host is off.
    bench.as_operator(put("one", block(1), mode(Mode::Enforce)));
    bench.must(bench.intent(1, 1));
    assert_eq!((bench.case(1).phase, &bench.case(1).would), (Phase::Fencing, &None));
    bench.as_operator(put("two", block(2), mode(Mode::Off)));
    bench.suspect(2);
    let open = Change::CaseOpen { host: host(2), incarnation: 1, cause: Cause::PowerOff };
    assert!(matches!(bench.order(open), Err(Refusal::Mode { mode: Mode::Off, .. })));
    bench.as_operator(Change::CaseOpen { host: host(2), incarnation: 1, cause: Cause::Operator });
}

#[test]
fn leases_are_given_to_the_hosts_of_a_policy_alone() {
    let mut bench = Bench::new();
    let voter = |node| Voter { node, host: None, chassis: "control".to_owned(), power: "control".to_owned() };
    bench.must(Change::Voters((1..=3).map(voter).collect()));
    let one = Selector { hosts: vec!["node-1".to_owned()], ..Selector::default() };
    let strict = Rules { lease: Some(LeaseMode::Strict), ..Rules::default() };
    assert!(!bench.ha().gives_leases());
    bench.as_operator(put("one", one.clone(), strict));
    let lease = |bench: &Bench, n| policy::lease(bench.core.state().tables(), bench.host(n)).mode;
    assert_eq!([1, 2].map(|n| lease(&bench, n)), [LeaseMode::Strict, LeaseMode::Off]);
    assert!(bench.ha().gives_leases());
    // What runs out resets the host: that is an act.
    bench.as_operator(put("one", one, Rules { mode: Some(Mode::DryRun), ..strict }));
    assert_eq!(lease(&bench, 1), LeaseMode::Off);
}
