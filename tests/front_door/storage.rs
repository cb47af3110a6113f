//! The hooks of Cinder and Manila: hosts that nobody has reported are ranked, nothing is claimed.

use serde_json::{Value, json};

use crate::server::{Server, run};

/// A request as both services send it.
fn body(id: &str, weights: &[(&str, f64)]) -> Value {
    json!({
        "spec": {"volume_id": id, "volume_properties": {"size": 10}, "unknown": [1, null]},
        "context": {"request_id": "req-5a8f5d0e-3d0e-4c9f-a5a3-0a8f5d0e3d0e", "project_id": "p", "auth_token": "canary-1"},
        "hosts": weights.iter().map(|(host, _)| json!({ "host": host })).collect::<Vec<_>>(),
        "weights": weights.iter().map(|(host, weight)| ((*host).to_owned(), json!(weight))).collect::<serde_json::Map<_, _>>(),
    })
}

const ID: &str = "1d30dab6-de95-4b2d-83de-04c6d01a6975";

#[test]
fn cinders_order_stands_without_a_fleet() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let server = Server::start(dir.path());
        let answer = server.hook_of("cinder", &body(ID, &[("a@b#1", 1.0), ("a@b#2", 300.0), ("a@b#3", 1.0)])).await;
        assert_eq!(answer.hosts(), ["a@b#2", "a@b#1", "a@b#3"], "raw weights, then the caller's order");
        assert_eq!(answer.header("x-pallium-claim"), Some("none"));
        let explained = server.explain(&answer).await;
        assert_eq!(explained["record"]["pipeline"], "cinder-external-scheduler");
        assert_eq!(explained["record"]["consumers"], json!([ID]));
        let first = &explained["detail"]["hosts"][0];
        assert_eq!((&first["rank"], &first["dropped_by"]), (&json!(2), &Value::Null), "nobody reported it: {first}");
        assert!(!explained.to_string().contains("canary"), "tokens are kept nowhere");
        assert!(server.places(ID).await.is_empty(), "nothing is claimed");

        let mut few = body(ID, &[("a@b#1", 1.0), ("a@b#2", 300.0)]);
        few["options"] = json!({"max_candidates": 1});
        assert_eq!(server.hook_of("cinder", &few).await.hosts(), ["a@b#2"]);
        for service in ["cinder", "manila"] {
            assert!(server.hook_of(service, &body(ID, &[])).await.hosts().is_empty(), "no hosts is no error");
            assert!(server.hook_of(service, &json!({"spec": 7})).await.hosts().is_empty(), "a spec may be anything");
        }
    });
}

#[test]
fn busy_pools_of_manila_come_later() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let server = Server::start(dir.path());
        let pools = [("h@n#busy", 1.0), ("h@n#idle", 1.0), ("h@n#stranger", 0.9)];
        let hosts = json!({"hosts": [
            {"domain": "manila", "name": "h@n#busy"}, {"domain": "manila", "name": "h@n#idle"}]});
        assert_eq!(server.send("POST", "/v1/hosts", hosts.to_string()).await.expect("an answer").status, 200);
        assert_eq!(server.hook_of("manila", &body(ID, &pools)).await.hosts(), ["h@n#busy", "h@n#idle", "h@n#stranger"]);
        let features = json!({"hosts": [
            {"domain": "manila", "name": "h@n#busy", "values": {"AvgCPUUsagePct": 9, "MaxCPUUsagePct": 60}},
            {"domain": "manila", "name": "h@n#idle", "values": {"AvgCPUUsagePct": 0, "MaxCPUUsagePct": 0}}]});
        assert_eq!(server.send("POST", "/v1/features", features.to_string()).await.expect("an answer").status, 200);
        let answer = server.hook_of("manila", &body(ID, &pools)).await;
        assert_eq!(answer.hosts(), ["h@n#idle", "h@n#stranger", "h@n#busy"]);
        // tanh of the weight, and nothing of a weigher for whom no source has reported.
        let decision = server.explain(&answer).await["detail"]["decision"].clone();
        let score = decision["hosts"][1]["score"].as_f64().expect("a number");
        assert!((score - 0.9_f64.tanh()).abs() < 1e-8, "{decision}");
    });
}

#[test]
fn a_bad_request_is_refused_with_its_reason() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let server = Server::start(dir.path());
        let good = body(ID, &[("a", 1.0)]);
        let changed = |key: &str, value: Value| {
            let mut body = good.clone();
            body[key] = value;
            body
        };
        for (body, word) in [
            (changed("weights", json!({})), "missing weight for host 'a'"),
            (changed("weights", json!({"a": 1, "b": 1})), "weight assigned to unknown host 'b'"),
            (changed("pipeline", json!("nova-general")), "cinder-external-scheduler expected"),
            (changed("options", json!({"read_only": true})), "skip_history"),
            (json!([]), "expected an object"),
        ] {
            let answer = server.hook_of("cinder", &body).await;
            assert_eq!(answer.status, 400, "{word}: {}", answer.text);
            assert!(answer.text.contains(word), "{word}: {}", answer.text);
        }
        assert_eq!(server.get("/scheduler/cinder/external").await.status, 405);
        let metrics = server.get("/metrics").await.text;
        assert!(metrics.contains(r#"path="/scheduler/cinder/external""#), "{metrics}");
    });
}
