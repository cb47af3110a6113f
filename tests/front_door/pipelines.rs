//! Pipelines as an operator changes them: versions, comparison, rollback, a candidate beside the active
//! one; on one node, and on three through a change of leader.

use std::path::{Path, PathBuf};

use scheduler::HostReport;
use serde_json::{Value, json};

use crate::server::{Server, run};
use crate::spec::{create, data, host, uuid};
use crate::support::nodes::{Node, ready, settled, three, until};

const NAME: &str = "nova-general";

fn fleet() -> Vec<HostReport> {
    ["a", "b"].map(|name| host(name, 1000, 1_000_000)).into()
}

/// The active pipeline with `hosts` excluded, in a file.
fn excluding(server: &Server, dir: &Path, hosts: &[&str]) -> PathBuf {
    let text = server.ctl(&["pipelines", "get", NAME, "-o", "json"]).expect("a pipeline");
    let mut resource: Value = serde_json::from_str(&text).expect("JSON");
    let filters = resource["spec"]["filters"].as_array_mut().expect("filters");
    filters.retain(|step| step["name"] != "filter_exclude_hosts");
    let params = json!([{"key": "excludedHosts", "stringListValue": hosts}]);
    filters.push(json!({"name": "filter_exclude_hosts", "params": params}));
    let file = dir.join(format!("without-{}.json", hosts.join("-")));
    std::fs::write(&file, resource.to_string()).expect("written");
    file
}

/// A request of a flavor without a hypervisor type: it takes the default pipeline, which has no
/// weighers, so that the order is the one asked for.
fn request(n: u64) -> Value {
    let mut body = create(&uuid(n), &["a".to_owned(), "b".to_owned()], 1, 1024);
    let flavor = &mut data(&mut body)["flavor"]["nova_object.data"];
    flavor["extra_specs"].as_object_mut().expect("a map").remove("capabilities:hypervisor_type");
    body
}

/// The hosts that a node answers, as soon as there is a leader.
async fn placed(server: &Server, n: u64) -> Vec<String> {
    let answered = async || {
        let answer = server.send("POST", "/scheduler/nova/external", request(n).to_string()).await.ok()?;
        (answer.status == 200).then(|| answer.hosts())
    };
    until("a placement", answered).await
}

async fn ask(server: &Server, n: u64) -> (Vec<String>, u64) {
    let answer = server.hook(&request(n)).await;
    let hosts = answer.hosts();
    let explained = server.explain(&answer).await;
    (hosts, explained["record"]["pipeline_version"].as_u64().expect("a version"))
}

#[test]
fn a_version_is_tried_activated_and_rolled_back() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let data = dir.path().join("data");
        let mut server = Server::start(&data);
        server.apply(&fleet()).await;
        assert_eq!(ask(&server, 1).await, (vec!["a".into(), "b".into()], 0));
        assert!(server.ctl(&["pipelines"]).expect("a list").contains("shipped"));

        // Kept and not active: nothing is different but what the history and the comparison say.
        let file = excluding(&server, dir.path(), &["a"]);
        let file = file.to_str().expect("UTF-8");
        assert!(server.ctl(&["pipelines", "lint", file]).expect("no errors").contains("nothing to say against it"));
        let told = server.ctl(&["pipelines", "apply", file, "--inactive", "--note", "drain a"]).expect("applied");
        assert!(told.contains("version 1 is kept, the shipped version is active"), "{told}");
        assert_eq!(ask(&server, 2).await, (vec!["a".into(), "b".into()], 0));
        let told = server.ctl(&["pipelines", "diff", NAME]).expect("a comparison");
        assert!(
            told.contains("+  - name: filter_exclude_hosts") && told.contains("--- nova-general version 0"),
            "{told}"
        );
        let told = server.ctl(&["pipelines", "diff", NAME, "--from", "1", "--file", file]).expect("a comparison");
        assert!(told.contains("they say the same"), "{told}");

        // Beside the active one.
        server.ctl(&["pipelines", "shadow", NAME, "1", "--one-in", "1"]).expect("begun");
        for n in 3..6 {
            assert_eq!(ask(&server, n).await, (vec!["a".into(), "b".into()], 0), "a candidate has no effect");
        }
        assert!(server.ctl(&["pipelines", "shadow", NAME]).expect("a report").contains("3 decisions compared"));
        let told = server.ctl(&["pipelines", "shadow", NAME, "-o", "json"]).expect("a report");
        let told = serde_json::from_str::<Value>(&told).expect("JSON")["shadows"][0].clone();
        for (count, expected) in [("compared", 3), ("differ", 3), ("first", 3), ("kept", 3), ("order", 0)] {
            assert_eq!(told[count], expected, "{count} of {told}");
        }
        assert_eq!(
            (&told["examples"][0]["active_host"], &told["examples"][0]["candidate_host"]),
            (&json!("a"), &json!("b"))
        );
        let metrics = server.get("/metrics").await.text;
        let series = r#"pallium_shadow_differences_total{pipeline="nova-general",candidate="1",kind="kept"} 3"#;
        assert!(metrics.contains(series), "{metrics}");

        let unknown = server.ctl(&["pipelines", "shadow", "nova-genral"]).expect_err("a refusal");
        assert!(unknown.contains("nova-genral"), "{unknown}");

        // Active; a restart changes nothing of it.
        server.ctl(&["pipelines", "activate", NAME, "1"]).expect("activated");
        assert_eq!(ask(&server, 6).await, (vec!["b".into()], 1));
        server.stop();
        server = Server::start(&data);
        assert_eq!(ask(&server, 7).await, (vec!["b".into()], 1));
        let told = server.ctl(&["explain", &uuid(7)]).expect("an explanation");
        assert!(told.contains("nova-general version 1") && told.contains("in excludedHosts"), "{told}");

        // A second version, refused when its author has not seen the first.
        let other = excluding(&server, dir.path(), &["b"]);
        let other = other.to_str().expect("UTF-8");
        let refused = server.ctl(&["pipelines", "apply", other, "--seen", "0"]).expect_err("a conflict");
        assert!(refused.contains("in version 1 by now"), "{refused}");
        let told = server.ctl(&["pipelines", "apply", other, "--seen", "1"]).expect("applied");
        assert!(told.contains("version 2 is active"), "{told}");
        let told = server.ctl(&["pipelines", "apply", other]).expect("applied again");
        assert!(told.contains("the same and active already"), "{told}");
        assert_eq!(ask(&server, 8).await, (vec!["a".into()], 2));
        let told = server.ctl(&["pipelines", "rollback", NAME]).expect("back");
        assert!(told.contains("version 1 is active"), "{told}");
        assert_eq!(ask(&server, 9).await, (vec!["b".into()], 1));
        let told = server.ctl(&["pipelines", "history", NAME]).expect("a history");
        assert!(told.contains("drain a") && told.contains("nova-general: version 1 is active"), "{told}");
        let history = server.get("/v1/pipelines/nova-general/history").await.json();
        let versions: Vec<u64> = history["activations"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|one| one["version"].as_u64())
            .collect();
        assert_eq!(versions, [1, 2, 1]);

        // And gone: what ships decides again.
        server.ctl(&["pipelines", "delete", NAME]).expect("forgotten");
        assert_eq!(ask(&server, 10).await, (vec!["a".into(), "b".into()], 0));
    });
}

#[test]
fn what_cannot_run_is_refused_with_its_place() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let server = Server::start(&dir.path().join("data"));
        let write = |text: &str| {
            let file = dir.path().join("pipeline.yaml");
            std::fs::write(&file, text).expect("written");
            file.to_str().expect("UTF-8").to_owned()
        };
        let good = "apiVersion: cortex.cloud/v1alpha1\nkind: Pipeline\nmetadata: {name: mine}\n\
                    spec: {schedulingDomain: nova, type: filter-weigher, filters: [{name: filter_correct_az}]}\n";
        let cases = [
            (
                good.replace("filter_correct_az", "filter_magic"),
                "mine: spec.filters[0].name: step 'filter_magic' is not known",
            ),
            (
                good.replace("filter_correct_az", "filter_exclude_hosts, params: [{key: hosts, stringListValue: [a]}]"),
                "mine: spec.filters[0].params: unknown field `hosts`",
            ),
            (
                good.replace("filter_correct_az", "filter_exclude_hosts, params: [{key: excludedHosts, intValue: 1}]"),
                "mine: spec.filters[0].params: invalid type: integer",
            ),
            (
                good.replace("filter-weigher", "detector"),
                "mine: spec.type: detector pipelines do not decide placements",
            ),
            (good.replace("filters:", "filtres:"), "document 1: spec: unknown field `filtres`"),
            (good.replace("mine", "Mine"), "metadata.name: 'Mine' given"),
        ];
        for (text, expected) in cases {
            let refused = server.ctl(&["pipelines", "apply", &write(&text)]).expect_err(expected);
            assert!(refused.contains(expected), "{refused}");
        }
        assert!(!server.ctl(&["pipelines"]).expect("a list").contains("mine"), "nothing of it was kept");
        for (arguments, expected) in [
            (&["pipelines", "activate", "mine", "1"][..], "no pipeline 'mine'"),
            (&["pipelines", "rollback", NAME], "no version of it was applied yet"),
            (&["pipelines", "history", "mine"], "no pipeline 'mine'"),
        ] {
            let refused = server.ctl(arguments).expect_err(expected);
            assert!(refused.contains(expected), "{refused}");
        }
        let told = server.ctl(&["pipelines", "apply", &write(good)]).expect("applied");
        assert!(told.contains("mine: version 1 is active"), "{told}");
        for (arguments, expected) in [
            (&["pipelines", "activate", "mine", "2"][..], "version 2 of pipeline 'mine' is not kept: 1 expected"),
            (&["pipelines", "rollback", "mine"], "there is nothing to go back to"),
            (&["pipelines", "shadow", "mine", "1"], "version 1 of pipeline 'mine' is the active one"),
        ] {
            let refused = server.ctl(arguments).expect_err(expected);
            assert!(refused.contains(expected), "{refused}");
        }
        let warned = server.ctl(&["pipelines", "lint", &write(good)]).expect("warnings only");
        assert!(warned.contains("mine: warning: spec.filters: no filter_has_enough_capacity"), "{warned}");
    });
}

#[test]
fn rules_decide_by_what_sources_say_of_hosts() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let server = Server::start(&dir.path().join("data"));
        let hosts = ["a", "b", "c"].map(|name| host(name, 1000, 1_000_000));
        server.apply(&hosts).await;
        let example = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/pipelines/nova-rules.yaml"));
        let file = dir.path().join("rules.yaml");
        std::fs::write(&file, example.expect("an example").replace("name: nova-rules", "name: nova-general"))
            .expect("written");
        server.ctl(&["pipelines", "apply", file.to_str().expect("UTF-8")]).expect("applied");

        let features = async |hosts: Value| {
            server.send("POST", "/v1/features", json!({ "hosts": hosts }).to_string()).await.expect("an answer")
        };
        let bad = features(json!([{"name": "a", "values": {"bad name": 1.0}}])).await;
        assert_eq!(bad.status, 400);
        assert!(bad.text.contains("hosts[0] (a): values: 'bad name' is no name of a feature"), "{}", bad.text);
        let applied = features(json!([
            {"name": "a", "values": {"load": 0.9}, "observed_at": 2000},
            {"name": "b", "values": {"load": 0.1}, "observed_at": 2000},
            {"name": "nowhere", "values": {"load": 0.1}},
        ]))
        .await
        .json();
        assert_eq!((&applied["changed"], &applied["refused"]), (&json!(2), &json!(1)), "{applied}");
        let late = features(json!([{"name": "a", "values": {"load": 0.0}, "observed_at": 1000}])).await.json();
        assert_eq!(late["stale"], 1, "{late}");
        let shown = server.get("/v1/hosts?name=a").await.json();
        assert_eq!(shown["hosts"][0]["features"], json!({"load": 0.9}));

        // Least load first; the unmeasured one counts as a half.
        let mut body = create(&uuid(1), &["a", "c", "b"].map(str::to_owned), 1, 1024);
        let flavor = &mut data(&mut body)["flavor"]["nova_object.data"];
        flavor["extra_specs"].as_object_mut().expect("a map").remove("capabilities:hypervisor_type");
        let answer = server.hook(&body).await;
        assert_eq!(answer.hosts(), ["b", "c", "a"]);
        // A flavor of a pool that no host is in.
        let flavor = &mut data(&mut body)["flavor"]["nova_object.data"];
        flavor["extra_specs"]["pool"] = json!("gold");
        data(&mut body)["instance_uuid"] = json!(uuid(2));
        let answer = server.hook(&body).await;
        assert!(answer.hosts().is_empty());
        let told = server.ctl(&["explain", &uuid(2), "--host", "a"]).expect("an explanation");
        assert!(told.contains("it is not in the pool of the flavor"), "{told}");
    });
}

#[test]
fn a_version_outlives_its_leader() {
    run(async {
        let nodes = three(None);
        let mut servers: Vec<Server> = nodes.iter().map(Node::start).collect();
        for server in &servers {
            ready(server).await;
        }
        servers[0].apply(&fleet()).await;
        let leader = settled(&servers[0], 3).await as usize - 1;
        let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
        let dir = tempfile::tempdir().expect("a folder");
        let file = excluding(&servers[one], dir.path(), &["a"]);
        // Asked of a follower, shown by another one at once, and what every node decides with.
        servers[one].ctl(&["pipelines", "apply", file.to_str().expect("UTF-8")]).expect("applied");
        let shown = servers[other].get("/v1/pipelines/nova-general").await.json();
        assert_eq!((&shown["pipeline"]["version"], &shown["pipeline"]["state"]), (&json!(1), &json!("active")));
        for (n, server) in (0..).zip(&servers) {
            assert_eq!(placed(server, n).await, ["b"]);
        }
        servers[leader].kill();
        assert_eq!(placed(&servers[one], 10).await, ["b"], "the next leader decides with it");
        servers[one].ctl(&["pipelines", "rollback", NAME, "--from", "1"]).expect("back");
        assert_eq!(placed(&servers[other], 11).await[0], "a");
        // The one that was away learns it from the log.
        servers[leader] = nodes[leader].start();
        settled(&servers[leader], 3).await;
        let shown = servers[leader].get("/v1/pipelines/nova-general").await.json();
        assert_eq!((&shown["pipeline"]["version"], &shown["pipeline"]["newest"]), (&json!(0), &json!(1)));
        let since: Vec<Value> = servers
            .iter()
            .map(|server| {
                let text = server.ctl(&["pipelines", "history", NAME, "-o", "json"]).expect("a history");
                serde_json::from_str::<Value>(&text).expect("JSON")["activations"].clone()
            })
            .collect();
        assert!(since.iter().all(|one| *one == since[0]), "active since the same command on every node: {since:?}");
    });
}
