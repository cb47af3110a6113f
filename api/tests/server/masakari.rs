//! Masakari's API, by a table of requests and by the real client where it is there.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use api::ApiConfig;
use serde_json::{Value, json};

use super::{Answer, Server};

const SEGMENT: &str = r#"{"segment": {"name": "one", "recovery_method": "auto", "service_type": "COMPUTE"}}"#;

/// A server with hosts, of which failover watches `node-1`.
pub(super) async fn server() -> Server {
    let hosts = json!({"hosts": [{"host": "node-1"}, {"host": "node-2"}, {"host": "node-3"}]});
    let server = Server::with_hosts(ApiConfig::default(), &hosts).await;
    let limit = tokio::time::Instant::now() + Duration::from_secs(20);
    while !server.node.has_failover() {
        assert!(tokio::time::Instant::now() < limit, "the cluster is not raised");
        tokio::task::yield_now().await;
    }
    let watched = json!({"hosts": [{
        "host": "node-1", "id": "6f000000-0000-0000-0000-000000000001",
        "machine_uuid": "6f000000-0000-0000-0000-000000000002", "machine_serial": "s",
    }]});
    let answer = server.post("/v1/ha/hosts", &watched).await;
    assert_eq!((answer.status, &answer.json()["changed"]), (200, &json!(1)), "{}", answer.body);
    server
}

impl Server {
    async fn made(&self, path: &str, body: &str) -> Value {
        let answer = self.text("POST", path, "", body).await;
        assert!((200..300).contains(&answer.status), "{path}: {} {}", answer.status, answer.body);
        answer.json()
    }

    async fn segment(&self) -> String {
        let made = self.made("/ha/v1/segments", SEGMENT).await;
        let uuid = made["segment"]["uuid"].as_str().unwrap().to_owned();
        for host in ["node-1", "node-2"] {
            let body = json!({"host": {"name": host, "type": "COMPUTE", "control_attributes": "SSH"}}).to_string();
            self.made(&format!("/ha/v1/segments/{uuid}/hosts"), &body).await;
        }
        uuid
    }
}

fn stopped(host: &str, time: &str) -> String {
    let payload = json!({"event": "STOPPED", "host_status": "NORMAL", "cluster_status": "OFFLINE"});
    json!({"notification": {"type": "COMPUTE_HOST", "hostname": host, "generated_time": time, "payload": payload}})
        .to_string()
}

/// What the port says where Masakari's API is alone.
async fn at(address: &str, path: &str) -> Answer {
    Server::send_to(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
}

/// The one fault of an answer: its name and its message.
fn fault(answer: &Answer) -> (String, String) {
    let json = answer.json();
    let (name, fault) = json.as_object().and_then(|map| map.iter().next()).expect("a fault");
    assert_eq!(fault["code"], answer.status, "{json}");
    (name.clone(), fault["message"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_told_as_masakari_tells_it() {
    let server = server().await;
    let segment = server.segment().await;
    let at = |rest: &str| format!("/ha/v1/segments/{segment}{rest}");
    server.made("/ha/v1/notifications", &stopped("node-1", "2026-11-26T10:00:00")).await;
    let nobody = "00000000-0000-0000-0000-000000000000";
    let said = |payload: Value, kind: &str| {
        let time = "2026-11-26T12:00:00";
        json!({"notification": {"type": kind, "hostname": "node-2", "generated_time": time, "payload": payload}})
            .to_string()
    };
    let cases: Vec<(&str, String, String, u16, &str)> = vec![
        ("POST", "/ha/v1/segments".into(), SEGMENT.into(), 409, "Failover segment with name one already exists."),
        ("POST", "/ha/v1/segments".into(), "{}".into(), 400, "'segment' is a required property"),
        ("POST", "/ha/v1/segments".into(), "[".into(), 400, "EOF"),
        (
            "POST",
            "/ha/v1/segments".into(),
            r#"{"segment": {"name": " x"}}"#.into(),
            400,
            "'recovery_method' is a required",
        ),
        ("POST", "/ha/v1/segments".into(), SEGMENT.replace("one", " x"), 400, "field/attribute name"),
        ("POST", "/ha/v1/segments".into(), SEGMENT.replace("auto", "rh_priority"), 400, "'rh_priority' is planned"),
        (
            "POST",
            "/ha/v1/segments".into(),
            r#"{"segment": {"name": "two", "recovery_method": "auto"}}"#.into(),
            400,
            "'service_type' is a required",
        ),
        ("PUT", at(""), r#"{"segment": {"enabled": false}}"#.into(), 400, "('enabled' was unexpected)"),
        ("PUT", at(""), r#"{"segment": {}}"#.into(), 400, "a property to change"),
        ("PUT", at(""), r#"{"segment": {"name": "two"}}"#.into(), 409, "in-use to process notifications"),
        ("DELETE", at(""), String::new(), 409, "in-use to process notifications"),
        ("GET", format!("/ha/v1/segments/{nobody}"), String::new(), 404, "No failover segment with id"),
        ("GET", "/ha/v1/segments/x".into(), String::new(), 404, "No failover segment with id x."),
        ("GET", at(&format!("/hosts/{nobody}")), String::new(), 404, "No host with id"),
        (
            "POST",
            at("/hosts"),
            r#"{"host": {"name": "node-9", "type": "C", "control_attributes": ""}}"#.into(),
            400,
            "Compute service with name node-9 could not be found.",
        ),
        (
            "POST",
            at("/hosts"),
            r#"{"host": {"name": "node-1", "type": "C", "control_attributes": ""}}"#.into(),
            409,
            "Host with name node-1 already exists.",
        ),
        ("POST", at("/hosts"), r#"{"host": {"name": "node-3", "type": "C"}}"#.into(), 400, "'control_attributes' is a"),
        ("GET", at("/hosts?reserved=perhaps"), String::new(), 400, "field/attribute reserved"),
        ("POST", "/ha/v1/notifications".into(), stopped("node-9", "2026-11-26T10:00:00"), 400, "could not be found"),
        ("POST", "/ha/v1/notifications".into(), stopped("node-1", "2026-11-26T10:03:00"), 409, "is duplicate"),
        ("POST", "/ha/v1/notifications".into(), stopped("node-1", "never"), 400, "is not a 'date-time'"),
        ("POST", "/ha/v1/notifications".into(), stopped("node 1", "2026-11-26T10:00:00"), 400, "attribute hostname"),
        ("POST", "/ha/v1/notifications".into(), said(json!({"event": "LOST"}), "COMPUTE_HOST"), 400, "attribute event"),
        ("POST", "/ha/v1/notifications".into(), said(json!({}), "PROCESS"), 400, "'process_name' is a required"),
        (
            "POST",
            "/ha/v1/notifications".into(),
            said(json!({"event": "STOPPED", "more": "x"}), "COMPUTE_HOST"),
            400,
            "('more' was unexpected)",
        ),
        ("POST", "/ha/v1/notifications".into(), said(json!({"instance_uuid": "x"}), "VM"), 400, "is not a 'uuid'"),
        ("POST", "/ha/v1/notifications".into(), said(json!({"event": "STOPPED"}), "DISK"), 400, "attribute type"),
        ("GET", "/ha/v1/notifications?limit=-1".into(), String::new(), 400, "limit must be"),
        ("GET", "/ha/v1/notifications?marker=x".into(), String::new(), 400, "Marker x could not be found."),
        ("GET", "/ha/v1/notifications?sort_key=payload".into(), String::new(), 400, "Sort key supplied was not valid."),
        ("GET", "/ha/v1/notifications?generated-since=x".into(), String::new(), 400, "Invalid generated-since value"),
        ("GET", format!("/ha/v1/notifications/{nobody}"), String::new(), 404, "No notification with id"),
        ("PATCH", "/ha/v1/segments".into(), String::new(), 405, "PATCH is not allowed"),
        ("GET", "/ha/v1/notifications/x/vmoves".into(), String::new(), 404, "could not be found"),
        ("GET", "/ha/v1/p/others".into(), String::new(), 404, "could not be found"),
    ];
    for (method, path, body, status, message) in cases {
        let answer = server.text(method, &path, "", &body).await;
        let what = format!("{method} {path} {body}: {}", answer.body);
        assert_eq!(answer.status, status, "{what}");
        let (name, said) = fault(&answer);
        let expected = match status {
            400 => "badRequest",
            404 => "itemNotFound",
            405 => "badMethod",
            _ => "conflictingRequest",
        };
        assert_eq!(name, expected, "{what}");
        assert!(said.contains(message), "{what}");
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_pages_and_what_a_notification_comes_to() {
    let server = server().await;
    let alone = server.masakari.clone();
    let documents =
        [("", "/", "versions"), ("", "/v1/", "version"), ("/ha", "/ha", "versions"), ("/ha", "/ha/v1/p", "version")];
    for (base, path, name) in documents {
        let answer = if base.is_empty() { at(&alone, path).await } else { server.get(path).await };
        let json = answer.json();
        let one = if name == "versions" { &json[name][0] } else { &json[name] };
        assert_eq!((answer.status, &one["version"], &one["min_version"]), (200, &json!("1.3"), &json!("1.0")));
        assert_eq!(one["links"][0]["href"], format!("http://x{base}/v1/"), "{json}");
    }
    let asked = [("", 200, "1.0"), ("instance-ha 1.2", 200, "1.2"), ("compute 2.1, instance-ha latest", 200, "1.3")];
    let bad = [("instance-ha 1.4", 406, "1.0"), ("instance-ha 2", 400, "1.0"), ("instance-ha 2.0", 406, "1.0")];
    for (header, status, given) in asked.into_iter().chain(bad) {
        let header = if header.is_empty() { String::new() } else { format!("OpenStack-API-Version: {header}\r\n") };
        let answer = server.text("GET", "/ha/v1/segments", &header, "").await;
        assert_eq!(answer.status, status, "{header} {}", answer.body);
        assert_eq!(answer.header("openstack-api-version"), Some(format!("instance-ha {given}").as_str()));
        assert_eq!(answer.header("vary"), Some("openstack-api-version"));
    }

    let segment = server.segment().await;
    // Each of its minute: what is told of node-1 may come to something, of node-2 nothing does.
    for (minute, host) in [(0, "node-1"), (10, "node-2"), (20, "node-1")] {
        server.made("/ha/v1/notifications", &stopped(host, &format!("2026-11-26T10:{minute:02}:00"))).await;
    }
    let list = async |query: &str| {
        let answer = server.get(&format!("/ha/v1/notifications?{query}")).await;
        let views = answer.json()["notifications"].as_array().unwrap_or_else(|| panic!("{}", answer.body)).clone();
        views.iter().map(|view| view["id"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(list("").await, [3, 2, 1], "newest first");
    assert_eq!(list("sort_key=generated_time&sort_dir=asc").await, [1, 2, 3]);
    assert_eq!(list("status=new").await, [3, 1]);
    assert_eq!(list("status=ignored&type=COMPUTE_HOST").await, [2]);
    assert_eq!(list("generated-since=2026-11-26T10:10:00Z").await, [3, 2]);
    let newest = server.get("/ha/v1/notifications?limit=1").await.json();
    let marker = newest["notifications"][0]["notification_uuid"].as_str().unwrap();
    assert_eq!(list(&format!("limit=1&marker={marker}")).await, [2]);

    // One that is under maintenance is not notified about, and failover leaves it alone.
    let hosts = server.get(&format!("/ha/v1/segments/{segment}/hosts?name=node-2")).await.json();
    let host = hosts["hosts"][0]["uuid"].as_str().unwrap();
    assert_eq!(hosts["hosts"].as_array().unwrap().len(), 1);
    let path = format!("/v1/segments/{segment}/hosts/{host}");
    let busy = server.text("PUT", &format!("/ha{path}"), "", r#"{"host": {"on_maintenance": "true"}}"#).await;
    assert_eq!(busy.status, 409, "{}", busy.body);
    let door = server.get("/ha/v1/notifications").await;
    assert_eq!(at(&alone, "/v1/notifications").await.body, door.body, "the same behind either door");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_client_and_the_monitors_sender_are_content() {
    let Some(python) = std::env::var_os("PALLIUM_MASAKARI_PYTHON") else {
        eprintln!(
            "skipped: PALLIUM_MASAKARI_PYTHON names no Python with python-masakariclient; `cargo xtask test masakari`"
        );
        return;
    };
    let server = server().await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server/masakari.py");
    let mut driver = Command::new(python);
    driver.arg(script).arg(&server.masakari).stdin(Stdio::null());
    let done = tokio::task::spawn_blocking(move || driver.output()).await.unwrap().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}\n{err}");
    assert_eq!(out, "segments\nhosts\nnotifications\nversions\nmonitors\nremoved\n");
    server.end().await;
}
