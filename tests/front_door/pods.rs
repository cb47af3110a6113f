//! Pods and machines through `/v1/place`: what kube-scheduler demands, and claims that count at once.

use serde_json::{Value, json};

use crate::server::{Answer, Server, run};

async fn post(server: &Server, path: &str, body: &Value) -> Answer {
    server.send("POST", path, body.to_string()).await.expect("an answer")
}

fn node(name: &str, taints: &[&str], more: &Value) -> Value {
    let mut out = json!({
        "domain": "pods", "name": name, "conditions": {"Ready": "True"},
        "inventories": {"MILLICPU": {"total": 1000, "reserved": 200}, "MEMORY_MB": {"total": 4096}, "PODS": {"total": 110}},
        "labels": {"kubernetes.io/hostname": name, "zone": "e1"}, "taints": taints,
    });
    out.as_object_mut().expect("a map").extend(more.as_object().cloned().unwrap_or_default());
    out
}

/// Host and answer.
async fn place(server: &Server, request: &Value) -> (Option<String>, Value) {
    let answer = post(server, "/v1/place", request).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let decision = answer.json()["decision"].clone();
    (decision["placements"][0]["host"].as_str().map(str::to_owned), decision)
}

#[test]
fn pods_go_where_kube_scheduler_would_let_them() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let server = Server::start(dir.path());
        let hosts = json!({"hosts": [
            node("n1", &[], &json!({})),
            node("n2", &[], &json!({})),
            node("n3", &["dedicated=db:NoExecute"], &json!({})),
            node("n4", &[], &json!({"conditions": {"Ready": "Unknown"}})),
            node("n5", &[], &json!({"labels": {"zone": "w1"}})),
            node("n6", &[], &json!({"disabled": true})),
        ]});
        let applied = post(&server, "/v1/hosts", &hosts).await;
        assert_eq!(applied.status, 200, "{}", applied.text);
        let pod = json!({"domain": "pods", "pod": {
            "containers": [{"resources": {"MILLICPU": 300, "MEMORY_MB": 512}}],
            "init_containers": [
                {"resources": {"MILLICPU": 100}, "restart_policy": "Always"}, {"resources": {"MILLICPU": 200}}],
            "node_affinity": [{"match_expressions": [{"key": "zone", "operator": "In", "values": ["e1"]}]}],
        }});
        let (first, decision) = place(&server, &pod).await;
        let (second, _) = place(&server, &pod).await;
        let mut both = [first.expect("a node"), second.expect("a node")];
        both.sort_unstable();
        assert_eq!(both, ["n1", "n2"], "the claim of the first counts for the second: {decision}");
        // 800m are allocatable and each takes 400m: room for two more, then for none.
        for _ in 0..2 {
            assert!(place(&server, &pod).await.0.is_some());
        }
        let (none, decision) = place(&server, &pod).await;
        assert_eq!(none, None);
        let reasons: Vec<&str> = decision["steps"]
            .as_array()
            .expect("steps")
            .iter()
            .flat_map(|step| step["reasons"].as_array().expect("reasons"))
            .map(|reason| reason["reason"].as_str().expect("a text"))
            .collect();
        assert_eq!(
            reasons,
            [
                "the node cannot be reached (Ready is Unknown)",
                "the node is unschedulable",
                "taint dedicated=db:NoExecute is not tolerated",
                "no term of the required node affinity holds",
                "short of cpu"
            ]
        );
        let explained = server.get(&format!("/v1/decisions/{}", decision["id"])).await.json();
        let more = |node: &Value| node["changes"][0]["amounts"]["MILLICPU"].as_u64();
        let lacks = explained["remedies"]["remedies"].as_array().expect("a list").iter().find_map(more);
        assert_eq!(lacks, Some(400), "800m of 800m are taken: {explained}");
        let mut database = pod.clone();
        database["pod"]["tolerations"] = json!([{"key": "dedicated", "value": "db"}]);
        assert_eq!(place(&server, &database).await.0.as_deref(), Some("n3"));
        let listed = server.get("/v1/hosts?domain=pods&name=n3").await.json()["hosts"][0].clone();
        assert_eq!(listed["taints"], json!(["dedicated=db:NoExecute"]));
        assert_eq!(listed["labels"]["zone"], "e1");
        assert_eq!(listed["resources"]["MILLICPU"]["used"], 400);
        assert_eq!(listed["resources"]["PODS"]["used"], 1);

        let bad = json!({"hosts": [node("n7", &["dedicated"], &json!({}))]});
        let refused = post(&server, "/v1/hosts", &bad).await;
        assert_eq!(refused.status, 400);
        assert!(refused.text.contains("taints[0]: 'dedicated' given"), "{}", refused.text);
    });
}

#[test]
fn labels_and_taints_outlive_a_restart() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let hosts = json!({"hosts": [node("n1", &["a=b:NoSchedule"], &json!({}))]});
        let mut server = Server::start(dir.path());
        assert_eq!(post(&server, "/v1/hosts", &hosts).await.status, 200);
        server.stop();
        let server = Server::start(dir.path());
        let listed = server.get("/v1/hosts?domain=pods").await.json()["hosts"][0].clone();
        assert_eq!((&listed["taints"], &listed["labels"]["zone"]), (&json!(["a=b:NoSchedule"]), &json!("e1")));
    });
}

#[test]
fn machines_take_a_slot_of_their_class() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let server = Server::start(dir.path());
        let pool = |name: &str, classes: Value, labels: Value| json!({"domain": "machines", "name": name, "inventories": classes, "labels": labels});
        let hosts = json!({"hosts": [
            pool("p1", json!({"MACHINE_CLASS_SMALL": {"total": 1}}), json!({"rack": "r1"})),
            pool("p2", json!({"MACHINE_CLASS_SMALL": {"total": 1}, "MACHINE_CLASS_LARGE": {"total": 1}}), json!({})),
        ]});
        assert_eq!(post(&server, "/v1/hosts", &hosts).await.status, 200);
        let machine = |class: &str| json!({"domain": "machines", "resources": {class: 1}});
        assert_eq!(place(&server, &machine("MACHINE_CLASS_LARGE")).await.0.as_deref(), Some("p2"));
        assert_eq!(place(&server, &machine("MACHINE_CLASS_LARGE")).await.0, None, "its one slot is taken");
        let mut selected = machine("MACHINE_CLASS_SMALL");
        selected["pod"] = json!({"node_selector": {"rack": "r1"}});
        assert_eq!(place(&server, &selected).await.0.as_deref(), Some("p1"));
        assert_eq!(place(&server, &selected).await.0, None);
        assert_eq!(place(&server, &machine("MACHINE_CLASS_SMALL")).await.0.as_deref(), Some("p2"));
    });
}

#[test]
fn a_bad_pod_is_refused_with_its_reason() {
    let requirement = |operator: &str, values: &[&str]| json!({"node_affinity": [{"match_expressions": [{"key": "k", "operator": operator, "values": values}]}]});
    let field = |key: &str, operator: &str| json!({"node_affinity": [{"match_fields": [{"key": key, "operator": operator, "values": ["7"]}]}]});
    let cases: [(&str, Value, &str); 17] = [
        (
            "pods",
            json!({"init_containers": [{"restart_policy": "Never"}]}),
            "init_containers[0].restart_policy: 'Never' given",
        ),
        ("pods", json!({"containers": [{"resources": {"cpu": 1}}]}), "'cpu' is no resource class"),
        ("pods", json!({"tolerations": [{"value": "v"}]}), "pod.tolerations[0].key: none given"),
        (
            "pods",
            json!({"tolerations": [{"key": "k", "operator": "Exists", "value": "v"}]}),
            "tolerations[0].value: given",
        ),
        ("pods", json!({"tolerations": [{"key": "k", "operator": "Like"}]}), "tolerations[0].operator: 'Like' given"),
        ("pods", json!({"tolerations": [{"key": "k", "effect": "Never"}]}), "tolerations[0].effect: 'Never' given"),
        ("pods", json!({"tolerations": vec![json!({"key": "k"}); 1025]}), "pod.tolerations: 1025 items given"),
        ("pods", requirement("In", &[]), "pod.node_affinity[0].match_expressions[0].values: none given"),
        ("pods", requirement("Exists", &["a"]), "values: 1 given with operator Exists"),
        ("pods", requirement("Gt", &["4", "5"]), "values: 2 given, one whole number"),
        ("pods", requirement("Lt", &["x"]), "values: 'x' given, a whole number"),
        ("pods", requirement("in", &["a"]), "operator: 'in' given, In, NotIn"),
        ("pods", field("metadata.name", "Gt"), "match_fields[0].operator: 'Gt' given, In or NotIn"),
        ("pods", field("metadata.uid", "In"), "match_fields[0].key: 'metadata.uid' given"),
        ("pods", json!({"selector": {}}), "unknown field `selector`"),
        ("machines", json!({"containers": [{}]}), "pod.containers: given in domain machines, resources expected"),
        ("nova", json!({}), "pod: given in domain nova"),
    ];
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let server = Server::start(dir.path());
        for (domain, pod, words) in cases {
            let answer = post(&server, "/v1/place", &json!({"domain": domain, "pod": pod})).await;
            assert_eq!(answer.status, 400, "{words}: {}", answer.text);
            let message = answer.json()["error"]["message"].as_str().expect("a text").to_owned();
            assert!(message.contains(words), "'{words}' not in '{message}'");
        }
    });
}
