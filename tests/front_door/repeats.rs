//! One key, many calls: what Nova repeats, and the claims it must end with.

use scheduler::{HostReport, InstanceReport};
use serde_json::{Value, json};

use crate::server::{Server, run};
use crate::spec::{self, create, data, uuid};

/// A host with room for `slots` instances of 2 VCPU and 1024 MiB.
fn host(name: &str, slots: u64) -> HostReport {
    spec::host(name, 2 * slots, 1024 * slots)
}

fn names(hosts: &[&str]) -> Vec<String> {
    hosts.iter().map(|&host| host.to_owned()).collect()
}

fn ask(n: u64, hosts: &[&str]) -> Value {
    create(&uuid(n), &names(hosts), 2, 1024)
}

fn request_id(body: &mut Value, id: &str) {
    body["context"] = json!({ "request_id": id });
}

const REQ: &str = "req-11111111-1111-4111-8111-111111111111";
const OTHER: &str = "req-22222222-2222-4222-8222-222222222222";

async fn fleet(hosts: &[HostReport]) -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(dir.path());
    server.apply(hosts).await;
    (dir, server)
}

/// The only place of an instance: its host, when there is one.
async fn place(server: &Server, n: u64) -> Option<(String, String, String)> {
    let places = server.places(&uuid(n)).await;
    assert!(places.len() <= 1, "{places:?}");
    places.into_iter().next()
}

fn claimed(host: &str, purpose: &str) -> (String, String, String) {
    (host.to_owned(), purpose.to_owned(), "claimed".to_owned())
}

/// The same instance as a host lists it.
fn listed(n: u64) -> InstanceReport {
    InstanceReport {
        uuid: uuid(n).parse().expect("a uuid"),
        resources: Some([("VCPU".to_owned(), 2), ("MEMORY_MB".to_owned(), 1024)].into()),
        flavor: Some("g_c4_m16".to_owned()),
        ..InstanceReport::default()
    }
}

#[test]
fn the_same_request_again_keeps_its_claim() {
    run(async {
        let (_dir, server) = fleet(&[host("a", 1), host("b", 1)]).await;
        let first = server.hook(&ask(1, &["a", "b"])).await;
        let chosen = first.hosts()[0].clone();
        let again = server.hook(&ask(1, &["a", "b"])).await;
        assert_eq!(again.hosts()[0], chosen, "its host first, though its claim fills it");
        assert_eq!(again.hosts().len(), 2);
        assert_eq!(place(&server, 1).await, Some(claimed(&chosen, "instance")));
    });
}

#[test]
fn a_refused_target_moves_the_claim() {
    run(async {
        let (_dir, server) = fleet(&[host("a", 1), host("b", 1)]).await;
        let chosen = server.hook(&ask(1, &["a", "b"])).await.hosts()[0].clone();
        let other = if chosen == "a" { "b" } else { "a" };
        let mut again = ask(1, &[other]);
        data(&mut again)["ignore_hosts"] = json!([chosen.to_uppercase()]);
        assert_eq!(server.hook(&again).await.hosts(), [other]);
        assert_eq!(place(&server, 1).await, Some(claimed(other, "instance")));
        // The released slot is free again.
        assert_eq!(server.hook(&ask(2, &[&chosen])).await.hosts(), [chosen.as_str()]);
    });
}

#[test]
fn a_retry_moves_the_claim() {
    run(async {
        let (_dir, server) = fleet(&[host("a", 1), host("b", 1)]).await;
        let chosen = server.hook(&ask(1, &["a", "b"])).await.hosts()[0].clone();
        let other = if chosen == "a" { "b" } else { "a" };
        let mut again = ask(1, &[other]);
        data(&mut again)["retry"] = json!({"nova_object.name": "SchedulerRetries", "nova_object.data": {
            "num_attempts": 2,
            "hosts": {"nova_object.name": "ComputeNodeList", "nova_object.data": {"objects": [
                {"nova_object.name": "ComputeNode", "nova_object.data": {"host": chosen, "hypervisor_hostname": chosen}}
            ]}}
        }});
        assert_eq!(server.hook(&again).await.hosts(), [other]);
        assert_eq!(place(&server, 1).await, Some(claimed(other, "instance")));
    });
}

#[test]
fn the_call_for_alternates_claims_nothing() {
    run(async {
        let (_dir, server) = fleet(&[host("a", 1), host("b", 1), host("c", 1)]).await;
        for (n, id) in [(1, None), (2, Some(REQ))] {
            let mut boot = ask(n, &["a", "b", "c"]);
            if let Some(id) = id {
                request_id(&mut boot, id);
            }
            let chosen = server.hook(&boot).await.hosts()[0].clone();
            let rest: Vec<&str> = ["a", "b", "c"].into_iter().filter(|host| **host != chosen).collect();
            let mut alternates = ask(n, &rest);
            if let Some(id) = id {
                request_id(&mut alternates, id);
            }
            let answer = server.hook(&alternates).await;
            assert!(!answer.hosts().is_empty());
            assert_eq!(answer.header("x-pallium-claim"), Some("none"));
            assert_eq!(place(&server, n).await, Some(claimed(&chosen, "instance")));
        }
    });
}

#[test]
fn a_later_request_without_the_claimed_host_moves_the_claim() {
    run(async {
        let (_dir, server) = fleet(&[host("a", 1), host("b", 1)]).await;
        let mut first = ask(1, &["a", "b"]);
        request_id(&mut first, REQ);
        let chosen = server.hook(&first).await.hosts()[0].clone();
        let other = if chosen == "a" { "b" } else { "a" };
        let mut later = ask(1, &[other]);
        request_id(&mut later, OTHER);
        assert_eq!(server.hook(&later).await.hosts(), [other]);
        assert_eq!(place(&server, 1).await, Some(claimed(other, "instance")));
    });
}

#[test]
fn five_servers_of_one_request_get_a_claim_each() {
    run(async {
        let (_dir, server) = fleet(&[host("a", 2), host("b", 2), host("c", 2)]).await;
        let mut hosts = names(&["a", "b", "c"]);
        for n in 1..=5 {
            // Each call gets the hosts that the former call returned.
            let mut body = create(&uuid(n), &hosts, 2, 1024);
            data(&mut body)["num_instances"] = json!(5);
            request_id(&mut body, REQ);
            hosts = server.hook(&body).await.hosts();
            assert_eq!(place(&server, n).await, Some(claimed(&hosts[0], "instance")));
        }
        let mut sixth = create(&uuid(6), &names(&["a", "b", "c"]), 4, 2048);
        data(&mut sixth)["num_instances"] = json!(1);
        assert_eq!(server.hook(&sixth).await.hosts(), Vec::<String>::new(), "one slot is left, two are asked");
    });
}

#[test]
fn a_resize_claims_the_new_size_as_a_second_place() {
    run(async {
        let mut source = host("a", 2);
        source.instances = Some(vec![listed(1)]);
        let (_dir, server) = fleet(&[source, host("b", 2)]).await;
        let mut resize = create(&uuid(1), &names(&["b"]), 4, 2048);
        data(&mut resize)["ignore_hosts"] = json!(["a"]);
        data(&mut resize)["scheduler_hints"] = json!({"_nova_check_type": ["resize"], "source_host": ["a"]});
        assert_eq!(server.hook(&resize).await.hosts(), ["b"]);
        let seen = ("a".to_owned(), "instance".to_owned(), "observed".to_owned());
        assert_eq!(server.places(&uuid(1)).await, [seen, claimed("b", "move")]);
        assert_eq!(server.hook(&ask(2, &["b"])).await.hosts(), Vec::<String>::new(), "b is full of the new size");
        // The instance is seen on the target and gone from the source: one place is left.
        let mut target = host("b", 2);
        target.instances = Some(vec![InstanceReport { resources: None, ..listed(1) }]);
        server.apply(&[target, host("a", 2)]).await;
        let confirmed = ("b".to_owned(), "instance".to_owned(), "confirmed".to_owned());
        assert_eq!(server.places(&uuid(1)).await, [confirmed]);
    });
}

#[test]
fn a_resize_on_the_same_host_claims_the_difference() {
    run(async {
        let mut source = host("a", 2);
        source.instances = Some(vec![listed(1)]);
        let (_dir, server) = fleet(&[source]).await;
        let mut resize = create(&uuid(1), &names(&["a"]), 4, 2048);
        data(&mut resize)["scheduler_hints"] = json!({"_nova_check_type": ["resize"], "source_host": ["a"]});
        assert_eq!(server.hook(&resize).await.hosts(), ["a"], "4 of 4 VCPU fit: 2 are its own");
        assert_eq!(server.hook(&ask(2, &["a"])).await.hosts(), Vec::<String>::new());
    });
}

#[test]
fn a_live_migration_keeps_the_source_until_it_is_gone() {
    run(async {
        let mut source = host("a", 1);
        source.instances = Some(vec![listed(1)]);
        let (_dir, server) = fleet(&[source, host("b", 1), host("c", 1)]).await;
        let migrate = |hosts: &[&str], ignore: &[&str]| {
            let mut body = ask(1, hosts);
            data(&mut body)["ignore_hosts"] = json!(ignore);
            data(&mut body)["scheduler_hints"] = json!({"_nova_check_type": ["live_migrate"], "source_host": ["a"]});
            body
        };
        let first = server.hook(&migrate(&["b", "c"], &["a"])).await.hosts()[0].clone();
        let other = if first == "b" { "c" } else { "b" };
        // The first target refused: the same operation, ignore_hosts grown.
        assert_eq!(server.hook(&migrate(&[other], &["a", &first])).await.hosts(), [other]);
        let seen = ("a".to_owned(), "instance".to_owned(), "observed".to_owned());
        assert_eq!(server.places(&uuid(1)).await, [seen, claimed(other, "move")]);
        assert_eq!(server.hook(&ask(2, &[&first])).await.hosts(), [first.as_str()], "the first target is free");
    });
}

#[test]
fn an_evacuation_is_known_by_its_dead_host() {
    run(async {
        let mut source = host("a", 1);
        source.instances = Some(vec![listed(1)]);
        source.forced_down = Some(true);
        let (_dir, server) = fleet(&[source, host("b", 1)]).await;
        // No hint, and a stale one: the state knows better.
        let mut body = ask(1, &["b"]);
        data(&mut body)["scheduler_hints"] = json!({"_nova_check_type": ["resize"], "source_host": ["z"]});
        data(&mut body)["ignore_hosts"] = json!(["a"]);
        let answer = server.hook(&body).await;
        assert_eq!(answer.hosts(), ["b"]);
        assert_eq!(server.explain(&answer).await["record"]["intent"], "evacuate");
        assert!(server.places(&uuid(1)).await.contains(&claimed("b", "move")));
    });
}

#[test]
fn a_rebuild_on_a_full_host_claims_nothing() {
    run(async {
        let mut full = host("a", 1);
        full.instances = Some(vec![listed(1)]);
        let (_dir, server) = fleet(&[full]).await;
        let mut body = ask(1, &["a"]);
        data(&mut body)["scheduler_hints"] = json!({"_nova_check_type": ["rebuild"]});
        data(&mut body)["force_hosts"] = json!(["a"]);
        data(&mut body)["force_nodes"] = json!(["a"]);
        let answer = server.hook(&body).await;
        assert_eq!(answer.hosts(), ["a"]);
        assert_eq!(answer.header("x-pallium-claim"), Some("none"));
        let seen = ("a".to_owned(), "instance".to_owned(), "observed".to_owned());
        assert_eq!(server.places(&uuid(1)).await, [seen]);
        let steps = server.explain(&answer).await["detail"]["decision"]["steps"].clone();
        let capacity = steps.as_array().expect("steps").iter().find(|s| s["name"] == "filter_has_enough_capacity");
        assert_eq!(capacity.expect("the step")["skipped"], "rebuild");
    });
}

#[test]
fn concurrent_members_of_a_group_stay_apart() {
    run(async {
        let hosts = ["a", "b", "c", "d"];
        let fleet_hosts: Vec<HostReport> = hosts.iter().map(|name| host(name, 8)).collect();
        let (_dir, server) = fleet(&fleet_hosts).await;
        let member = |n: u64| {
            let mut body = ask(n, &hosts);
            // Each request was sent before Nova knew where the others go: no members, no hosts.
            data(&mut body)["instance_group"] = json!({"nova_object.name": "InstanceGroup", "nova_object.data": {
                "uuid": uuid(99), "policy": "anti-affinity", "policies": ["anti-affinity"],
                "members": null, "hosts": null, "_rules": {}
            }});
            body
        };
        let bodies: Vec<Value> = (1..=6).map(member).collect();
        let answers = futures::future::join_all(bodies.iter().map(|body| server.hook(body))).await;
        let mut taken: Vec<String> = answers.iter().filter_map(|answer| answer.hosts().first().cloned()).collect();
        taken.sort();
        assert_eq!(taken, hosts, "four hosts, four members, two have no host");
    });
}

#[test]
fn an_unconfirmed_claim_ends_and_its_room_is_free_again() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let config = dir.path().join("config.yaml");
        std::fs::write(&config, "scheduling:\n  claim_expiry: {create: 1}\n").expect("written");
        let server = Server::start_with(&dir.path().join("data"), &["--config", config.to_str().expect("utf-8")]);
        server.apply(&[host("a", 1)]).await;
        assert_eq!(server.hook(&ask(1, &["a"])).await.hosts(), ["a"]);
        // Until the claim has expired the host is full; the condition is waited for, not a time.
        loop {
            let answer = server.hook(&ask(2, &["a"])).await.hosts();
            if !answer.is_empty() {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(place(&server, 1).await, None);
    });
}

#[test]
fn the_instance_seen_elsewhere_moves_the_claim() {
    run(async {
        let (_dir, server) = fleet(&[host("a", 1), host("b", 1)]).await;
        let chosen = server.hook(&ask(1, &["a", "b"])).await.hosts()[0].clone();
        let other = if chosen == "a" { "b" } else { "a" };
        let mut report = host(other, 1);
        report.instances = Some(vec![listed(1)]);
        server.apply(&[report]).await;
        assert_eq!(server.places(&uuid(1)).await, [(other.to_owned(), "instance".to_owned(), "observed".to_owned())]);
        assert_eq!(server.hook(&ask(2, &[&chosen])).await.hosts(), [chosen.as_str()]);
    });
}
