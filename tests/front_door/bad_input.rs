//! Bad input gets a clear error, loses nothing, and never ends the server.

use serde_json::{Value, json};

use crate::server::{Answer, Server, run};
use crate::spec::{self, create, data, uuid};

async fn ready() -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(dir.path());
    server.apply(&simulation::fixtures::fleet_for(&spec::request("01"))).await;
    (dir, server)
}

async fn post(server: &Server, body: impl Into<bytes::Bytes>) -> Answer {
    server.send("POST", "/scheduler/nova/external", body).await.expect("an answer")
}

#[test]
fn a_bad_hook_request_is_refused_with_its_reason() {
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut body = spec::request("01");
        change(&mut body);
        body.to_string()
    };
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    // Name, body, words that the message must contain.
    let cases: Vec<(&str, String, &[&str])> = vec![
        ("empty", String::new(), &[]),
        ("no JSON", "hosts=a".into(), &[]),
        ("cut", changed(&|_| ())[..2000].into(), &[]),
        ("trailing bytes", changed(&|_| ()) + " {}", &["more bytes follow"]),
        ("a list", "[]".into(), &[]),
        ("deep", deep.clone(), &[]),
        ("deep in a hint", changed(&|b| data(b)["scheduler_hints"] = json!({"x": "y"})).replace("\"y\"", &deep), &[]),
        ("no spec", changed(&|b| b["spec"] = Value::Null), &["spec"]),
        ("no hosts", changed(&|b| (b["hosts"], b["weights"]) = (json!([]), json!({}))), &["hosts"]),
        ("hosts of a wrong type", changed(&|b| b["hosts"] = json!({"a": 1})), &["hosts"]),
        ("a weight missing", changed(&|b| b["weights"] = json!({})), &["missing weight for host"]),
        (
            "a weight too many",
            changed(&|b| b["weights"]["zz"] = json!(1.0)),
            &["weight assigned to unknown host", "zz"],
        ),
        ("a weight of a wrong type", changed(&|b| b["weights"]["node001-bb00"] = json!("1")), &["weights"]),
        ("negative vcpus", changed(&|b| data(b)["flavor"]["nova_object.data"]["vcpus"] = json!(-1)), &["vcpus"]),
        (
            "huge memory",
            changed(&|b| data(b)["flavor"]["nova_object.data"]["memory_mb"] = json!(u64::MAX)),
            &["MEMORY_MB"],
        ),
        ("huge number", changed(&|_| ()).replace("16384", "1e400"), &[]),
        ("fractional count", changed(&|b| data(b)["num_instances"] = json!(1.5)), &["num_instances"]),
        ("negative count", changed(&|b| data(b)["num_instances"] = json!(-3)), &["num_instances"]),
        ("no uuid", changed(&|b| data(b)["instance_uuid"] = json!("x")), &["instance_uuid"]),
        (
            "unknown pipeline",
            changed(&|b| b["pipeline"] = json!("nope")),
            &["nope", "kvm-general-purpose-load-balancing"],
        ),
        ("read-only without skips", changed(&|b| b["options"] = json!({"read_only": true})), &["skip_history"]),
        ("hosts a number", changed(&|b| data(b)["ignore_hosts"] = json!(3)), &["ignore_hosts"]),
    ];
    run(async {
        let (_dir, server) = ready().await;
        for (name, body, words) in cases {
            let answer = post(&server, body).await;
            assert_eq!(answer.status, 400, "{name}: {}", answer.text);
            assert!(answer.text.len() < 4096, "{name}: the answer does not echo the body");
            answer.error_code();
            let message = answer.json()["error"]["message"].as_str().expect("text").to_owned();
            for word in words {
                assert!(message.contains(word), "{name}: '{word}' not in '{message}'");
            }
        }
        let gzip = [("content-encoding", "gzip")];
        let zipped = server.send_with("POST", "/scheduler/nova/external", &gzip, "\x1f").await.expect("an answer");
        assert_eq!((zipped.status.as_u16(), zipped.error_code().as_str()), (415, "unsupported_encoding"));
        assert_eq!(server.send("GET", "/scheduler/nova/external", "").await.expect("an answer").status, 405);
        assert_eq!(server.get("/nowhere").await.status, 404);
        assert_eq!(server.hook(&spec::request("01")).await.hosts().len(), 5, "it still answers");
    });
}

#[test]
fn odd_but_valid_requests_are_answered() {
    run(async {
        let (_dir, server) = ready().await;
        let mut body = spec::request("01");
        body["hosts"]
            .as_array_mut()
            .expect("a list")
            .push(json!({"host": "nöde-💥", "hypervisor_hostname": "nöde-💥"}));
        body["weights"]["nöde-💥"] = json!(-1e9);
        data(&mut body)["project_id"] = json!("プロジェクト");
        body["something_new"] = json!({"a": [1, 2, 3]});
        let answer = server.hook(&body).await;
        assert_eq!(answer.hosts().len(), 5, "the unknown host is left out");
        let explained = server.explain(&answer).await;
        let stories = explained["detail"]["hosts"].as_array().expect("stories");
        let story = stories.iter().find(|story| story["host"] == "nöde-💥").expect("it is accounted for");
        assert_eq!(story["dropped_by"], "unknown_host");
    });
}

#[test]
fn an_empty_pallium_refuses_instead_of_stopping_a_region() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let server = Server::start(dir.path());
        let answer = server.hook(&spec::request("01")).await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.error_code(), "fleet_unknown");
        assert!(answer.header("retry-after").is_some());
    });
}

#[test]
fn a_body_over_the_limit_is_refused_without_being_read() {
    run(async {
        let (_dir, server) = ready().await;
        // The server may close while the body is still on its way: no answer is as good as 413.
        if let Ok(answer) = server.send("POST", "/scheduler/nova/external", vec![b' '; 100 << 20]).await {
            assert_eq!(answer.status, 413, "{}", answer.text);
        }
        assert_eq!(server.hook(&spec::request("01")).await.hosts().len(), 5, "it still answers");
    });
}

#[test]
fn a_bad_host_changes_nothing() {
    run(async {
        let (_dir, server) = ready().await;
        let before = server.get("/v1/hosts").await.text;
        let good = json!({"name": "new-node", "inventories": {"VCPU": {"total": 4}}});
        let bad = [
            json!({"name": ""}),
            json!({"name": "x", "inventories": {"VCPU": {"total": -4}}}),
            json!({"name": "x", "inventories": {"VCPU": {"total": 1_u64 << 60}}}),
            json!({"name": "x", "inventories": {"VCPU": {"total": 4, "allocation_ratio": 0.0}}}),
            json!({"name": "x", "inventories": {"vcpu": {"total": 4}}}),
            json!({"name": "x", "conditions": {"Ready": "Maybe"}}),
            json!({"name": "x", "instances": [{"uuid": uuid(1)}, {"uuid": uuid(1)}]}),
            json!({"name": "x", "colour": "red"}),
            json!({"name": "new-node"}),
        ];
        for bad in bad {
            let body = json!({"hosts": [good, bad]});
            let answer = server.send("POST", "/v1/hosts", body.to_string()).await.expect("an answer");
            assert_eq!(answer.status, 400, "{bad}: {}", answer.text);
            assert!(answer.json()["error"]["message"].as_str().expect("text").contains("hosts[1]"), "{}", answer.text);
            assert_eq!(server.get("/v1/hosts").await.text, before, "{bad} changed something");
        }
    });
}

#[test]
fn a_host_that_was_never_sent_is_never_answered() {
    run(async {
        let (_dir, server) = ready().await;
        let body = create(&uuid(1), &["node001-bb00".to_owned(), "nobody".to_owned()], 1, 1);
        // Known by another node name: not the host that was sent.
        assert_eq!(server.hook(&body).await.status, 503);
    });
}
