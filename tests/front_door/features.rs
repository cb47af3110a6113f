//! Features of hosts, as sources of metrics report them, and the weighers for VMware that rank by them.

use std::time::{SystemTime, UNIX_EPOCH};

use api::proto::v1;
use api::proto::v1::inventory_client::InventoryClient;
use scheduler::{HostReport, Inventory};
use serde_json::{Value, json};

use crate::server::{Answer, Server, run};
use crate::spec::{create, data, uuid};

const TERMS: [&str; 2] = ["vmware-long-term-contended-hosts", "vmware-short-term-contended-hosts"];

fn cluster(name: &str) -> HostReport {
    HostReport {
        name: name.to_owned(),
        hypervisor_type: Some("VMware vCenter Server".to_owned()),
        availability_zone: Some("az-a".to_owned()),
        ..HostReport::default()
    }
}

/// A request of Nova for a VMware flavor; Nova prefers the hosts in their order, by a little.
fn request(n: u64, hosts: &[&str], hana: bool) -> Value {
    let names: Vec<String> = hosts.iter().map(|name| (*name).to_owned()).collect();
    let mut body = create(&uuid(n), &names, 4, 8192);
    for (at, name) in names.iter().enumerate() {
        body["weights"][name] = json!(0.001 * (names.len() - at) as f64);
    }
    let extra = &mut data(&mut body)["flavor"]["nova_object.data"]["extra_specs"];
    *extra = json!({"capabilities:hypervisor_type": "VMware vCenter Server"});
    if hana {
        extra["trait:CUSTOM_HANA_EXCLUSIVE_HOST"] = json!("required");
    }
    body
}

async fn apply(server: &Server, hosts: Value) -> Answer {
    server.send("POST", "/v1/features", json!({ "hosts": hosts }).to_string()).await.expect("an answer")
}

/// Pipeline, and why each weigher was skipped.
async fn told(server: &Server, answer: &Answer) -> (String, Vec<(String, String)>) {
    let explained = server.explain(answer).await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let steps = explained["detail"]["decision"]["steps"].as_array().expect("steps").iter();
    let skipped = steps.filter(|step| step["skipped"].is_string());
    let skipped = skipped.map(|step| (text(&step["name"]), text(&step["skipped"]))).collect();
    (text(&explained["record"]["pipeline"]), skipped)
}

#[test]
fn vmware_flavors_are_ranked_by_features() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let server = Server::start(&dir.path().join("data"));
        let full = [("MEMORY_MB".to_owned(), Inventory::of(4096))].into();
        let full = HostReport { inventories: Some(full), ..cluster("full") };
        let clusters = ["busy", "crowded", "calm", "new"].map(cluster);
        server.apply(&[&clusters[..], &[full]].concat()).await;
        let hosts = ["full", "busy", "crowded", "calm", "new"];

        // Nothing is known: Nova's order, and each weigher says why it did nothing. What is full is dropped.
        let answer = server.hook(&request(1, &hosts, false)).await;
        assert_eq!(answer.hosts(), hosts[1..]);
        let (pipeline, skipped) = told(&server, &answer).await;
        assert_eq!(pipeline, "vmware-general-purpose-load-balancing");
        let names: Vec<&str> = skipped.iter().map(|(name, _)| name.as_str()).collect();
        let all =
            ["vmware_binpack", "vmware_avoid_long_term_contended_hosts", "vmware_avoid_short_term_contended_hosts"];
        assert_eq!(names, all);
        assert!(skipped.iter().all(|(_, why)| why == "no host has the features"), "{skipped:?}");

        // What a source said two hours ago is too old for what comes every minute.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64;
        let contention = |term: usize, avg: f64, max: f64| {
            json!({
                format!("{}.AvgCPUContention", TERMS[term]): avg,
                format!("{}.MaxCPUContention", TERMS[term]): max,
            })
        };
        let long = json!([
            {"name": "busy", "values": contention(0, 5.0, 10.0)},
            {"name": "crowded", "values": contention(0, 0.0, 0.0)},
            {"name": "calm", "values": contention(0, 0.0, 0.0)},
        ]);
        assert_eq!(apply(&server, long).await.json()["changed"], 3);
        let short = |observed_at: u64| json!([{"name": "crowded", "values": contention(1, 10.0, 10.0), "observed_at": observed_at}]);
        assert_eq!(apply(&server, short(now - 7_200_000)).await.json()["changed"], 1, "an older time of its own");
        let answer = server.hook(&request(2, &hosts, false)).await;
        assert_eq!(answer.hosts(), ["crowded", "calm", "new", "busy"]);
        let (_, skipped) = told(&server, &answer).await;
        let old = "the features of all hosts are older than maxAgeSeconds";
        assert_eq!(skipped[1], ("vmware_avoid_short_term_contended_hosts".to_owned(), old.to_owned()), "{skipped:?}");

        // By gRPC, and of now.
        let mut client = InventoryClient::connect(server.url.clone()).await.expect("a connection");
        let fresh: Vec<v1::HostFeatures> = serde_json::from_value(short(now)).expect("messages");
        let done =
            client.apply_features(v1::ApplyFeaturesRequest { hosts: fresh }).await.expect("applied").into_inner();
        assert_eq!(done.unchanged, 1, "the same numbers, but of now");
        assert_eq!(server.hook(&request(3, &hosts, false)).await.hosts(), ["calm", "new", "busy", "crowded"]);

        // The emptier cluster first.
        let used = |name: &str, used: f64| {
            let values =
                json!({"host-utilization.ramUsedMB": used, "host-utilization.totalRAMAllocatableMB": 1_000_000.0});
            json!({ "name": name, "values": values })
        };
        assert_eq!(apply(&server, json!([used("calm", 900_000.0), used("new", 100_000.0)])).await.json()["changed"], 2);
        let ranked = server.hook(&request(4, &["calm", "new"], false)).await.hosts();
        assert_eq!(ranked, ["new", "calm"]);

        // HANA: Nova's order, whatever metrics say.
        let answer = server.hook(&request(5, &hosts, true)).await;
        assert_eq!(answer.hosts(), hosts[1..]);
        assert_eq!(told(&server, &answer).await.0, "vmware-hana-bin-packing");
    });
}

#[test]
fn ctl_lists_applies_and_deletes() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let server = Server::start(&dir.path().join("data"));
        server.apply(&["node1", "node2"].map(cluster)).await;
        let file = dir.path().join("features.yaml");
        let file_name = file.to_str().expect("UTF-8");
        let write = |text: &str| std::fs::write(&file, text).expect("written");
        assert!(server.ctl(&["features"]).expect("a list").contains("no features"));

        write(
            "hosts:\n- {name: node1, values: {load: 0.5, noise.a: 1, noise.b: 2}}\n- {name: node2, values: {load: 0.25}}\n",
        );
        let told = server.ctl(&["features", "apply", file_name]).expect("applied");
        assert_eq!(told.trim_end(), "2 hosts changed, 0 unchanged");
        let told = server.ctl(&["features", "list", "--host", "node1", "--feature", "noise.*"]).expect("a list");
        let lines: Vec<Vec<&str>> = told.lines().map(|line| line.split_whitespace().take(4).collect()).collect();
        let expected = [
            ["HOST", "DOMAIN", "FEATURE", "VALUE"].as_slice(),
            &["node1", "nova", "noise.a", "1"],
            &["node1", "nova", "noise.b", "2"],
            &["2", "features"],
        ];
        assert_eq!(lines, expected, "{told}");

        // Late: what is known is newer.
        write("{\"hosts\": [{\"name\": \"node1\", \"values\": {\"load\": 9}, \"observed_at\": 1000}]}");
        let told = server.ctl(&["features", "apply", file_name]).expect("applied");
        assert_eq!(told.trim_end(), "0 hosts changed, 0 unchanged, 1 older than what is known");

        let told = server.ctl(&["features", "delete", "node*", "noise.*", "load"]).expect("deleted");
        assert_eq!(told.trim_end(), "2 hosts changed, 0 unchanged");
        let told = server.ctl(&["features", "-o", "json"]).expect("a list");
        assert_eq!(serde_json::from_str::<Value>(&told).expect("JSON"), json!({ "features": [] }));

        for (text, expected) in [
            ("hosts: [{name: node9, values: {load: 1}}]", "no source has reported a host 'node9'"),
            ("hosts: [{name: node1, value: {load: 1}}]", "hosts[0]: unknown field `value`"),
            ("hosts: [{name: node1, values: {\"lo ad\": 1}}]", "'lo ad' is no name of a feature"),
            ("hosts: []", "no host in it"),
        ] {
            write(text);
            let refused = server.ctl(&["features", "apply", file_name]).expect_err(expected);
            assert!(refused.contains(expected), "{refused}");
        }
        let refused = server.ctl(&["features", "delete", "node1", "load"]).expect_err("nothing is left");
        assert!(refused.contains("no host 'node1' has a feature load"), "{refused}");
    });
}
