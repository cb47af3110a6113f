//! A whole server over a whole node, in one process: what callers see.

#![allow(clippy::unwrap_used)]

#[path = "server/masakari.rs"]
mod masakari;
#[path = "server/requests.rs"]
mod requests;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use api::proto::v1;
use api::proto::v1::inventory_client::InventoryClient;
use api::proto::v1::scheduler_client::SchedulerClient;
use api::{ApiConfig, Doors, serve};
use futures::StreamExt;
use raft::{Node, Options};
use scheduler::pipeline::spec::{Metadata, PipelineKind, PipelineResource, PipelineSpec, StepSpec};
use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Registry, Survivors, Verdict};
use scheduler::{Domain, Engine, Settings};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::transport::Channel;

/// Keeps hosts where what is asked fits.
#[derive(Debug)]
struct Fits;

impl Filter for Fits {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        for (class, asked) in &cx.request.resources {
            if let Some((_, column)) = cx.view.column(class) {
                hosts.keep_where("too little is free", |row| column.fit[row.0 as usize] >= *asked, |_| Detail::None);
            }
        }
        Verdict::Ran
    }
}

impl FilterPlugin for Fits {
    const NAME: &'static str = "filter_fits";
    const DOMAINS: &'static [Domain] = &Domain::ALL;
    const SUMMARY: &'static str = "";
    const MISSING_DATA: &'static str = "";
    type Options = NoOptions;
    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

fn engine() -> Engine {
    let mut engine = Engine::new(Registry::default().filter::<Fits>(), Settings::default());
    let step = StepSpec { name: "filter_fits".into(), description: String::new(), params: vec![], multiplier: None };
    let resource = PipelineResource {
        api_version: "cortex.cloud/v1alpha1".into(),
        kind: "Pipeline".into(),
        metadata: Metadata { name: "nova-general".into(), rest: BTreeMap::new() },
        spec: PipelineSpec {
            scheduling_domain: Domain::Nova,
            description: String::new(),
            kind: PipelineKind::FilterWeigher,
            ignore_preselection: false,
            scoring: scheduler::pipeline::Scoring::default(),
            filters: vec![step],
            weighers: vec![],
            detectors: vec![],
        },
        status: serde::de::IgnoredAny,
    };
    engine.activate(&resource).unwrap();
    engine
}

struct Server {
    address: String,
    /// Where Masakari's API is alone.
    masakari: String,
    node: Node,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<Result<(), api::ServeError>>,
    _folder: TempDir,
}

impl Server {
    async fn start(config: ApiConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::open(Options::new(folder.path(), 1), engine()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let alone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let masakari = alone.local_addr().unwrap().to_string();
        let doors = Doors { main: listener, masakari: Some(alone) };
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move {
            let _ = stopped.await;
        };
        let served = tokio::spawn(serve(doors, None, node.clone(), config, shutdown));
        Self { address, masakari, node, stop: Some(stop), served, _folder: folder }
    }

    /// A server that knows the hosts of a recorded request.
    async fn with_hosts(config: ApiConfig, body: &Value) -> Self {
        let server = Self::start(config).await;
        let hosts: Vec<Value> = body["hosts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|host| {
                json!({"name": host["host"], "hypervisor_hostname": host["hypervisor_hostname"], "inventories": {
                    "VCPU": {"total": 64}, "MEMORY_MB": {"total": 1_000_000}, "DISK_GB": {"total": 1000},
                }})
            })
            .collect();
        let answer = server.post("/v1/hosts", &json!({"hosts": hosts})).await;
        assert_eq!((answer.status, &answer.json()["added"]), (200, &json!(hosts.len())), "{}", answer.body);
        server
    }

    async fn send(&self, request: &str) -> Answer {
        Self::send_to(&self.address, request).await
    }

    async fn send_to(address: &str, request: &str) -> Answer {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
    }

    async fn text(&self, method: &str, path: &str, more: &str, body: &str) -> Answer {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{more}content-length: {length}\r\n\r\n"
        );
        self.send(&(head + body)).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.text("POST", path, "", &body.to_string()).await
    }

    async fn grpc(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    async fn end(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(20), &mut self.served).await.unwrap().unwrap().unwrap();
        self.node.shutdown().await;
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn code(&self) -> String {
        let json = self.json();
        let error = &json["error"];
        assert_eq!(error["request_id"].as_str().map(str::to_lowercase).as_deref(), self.header("x-request-id"));
        assert!(!error["message"].as_str().unwrap().is_empty());
        error["code"].as_str().unwrap().to_owned()
    }
}

fn recorded(name: &str) -> Value {
    let (_, text) = simulation::fixtures::REQUESTS.into_iter().find(|(known, _)| *known == name).unwrap();
    serde_json::from_str(text).unwrap()
}

const HOOK: &str = "/scheduler/nova/external";

/// Everything that was logged, at the finest level.
fn logs() -> Arc<Mutex<Vec<u8>>> {
    static LOGS: OnceLock<Arc<Mutex<Vec<u8>>>> = OnceLock::new();
    struct Sink(Arc<Mutex<Vec<u8>>>);
    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let logs = LOGS.get_or_init(|| {
        let logs = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&logs);
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || Sink(Arc::clone(&sink)))
            .init();
        logs
    });
    Arc::clone(logs)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hook_ranks_claims_and_explains() {
    let body = recorded("02-create-kvm-context");
    let server = Server::with_hosts(ApiConfig::default(), &body).await;
    let answer = server.post(HOOK, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let expected: Vec<&Value> = body["hosts"].as_array().unwrap().iter().map(|host| &host["host"]).collect();
    assert_eq!(answer.json(), json!({ "hosts": expected }), "Nova's order stands without weighers");
    assert!(answer.body.starts_with(r#"{"hosts":["#));
    assert_eq!(answer.header("x-request-id"), body["context"]["request_id"].as_str());
    assert_eq!(answer.header("x-pallium-claim"), None);
    let id = answer.header("x-pallium-decision").unwrap().to_owned();

    let explained =
        server.get(&format!("/v1/decisions/{id}?host={}&host=stranger", expected[3].as_str().unwrap())).await;
    let explained = explained.json();
    assert_eq!(explained["record"]["claim"], "made");
    assert_eq!(explained["record"]["claimed"], json!([expected[0]]));
    assert_eq!(explained["record"]["trace_id"], body["context"]["request_id"]);
    assert_eq!(explained["detail"]["hosts"][0]["rank"], 4);
    assert!(explained["detail"]["hosts"][1]["reason"].as_str().unwrap().contains("not among the hosts"));

    let uuid = body["spec"]["nova_object.data"]["instance_uuid"].as_str().unwrap();
    let listed = server.get(&format!("/v1/instances?uuid={uuid}")).await.json();
    assert_eq!(listed["instances"][0]["phase"], "claimed");
    assert_eq!(listed["instances"][0]["resources"], json!({"VCPU": 4, "MEMORY_MB": 16384, "DISK_GB": 64}));
    let decisions = server.get(&format!("/v1/decisions?instance={uuid}&limit=1")).await.json();
    assert_eq!(decisions["decisions"][0]["id"].to_string(), id);

    // The alternates: the claimed host is no longer sent, within the same request.
    let mut alternates = body.clone();
    let gone = alternates["hosts"].as_array_mut().unwrap().remove(0);
    alternates["weights"].as_object_mut().unwrap().remove(gone["host"].as_str().unwrap());
    let answer = server.text("POST", HOOK, "X-Request-ID: mine-1\r\n", &alternates.to_string()).await;
    assert_eq!((answer.status, answer.header("x-pallium-claim")), (200, Some("none")));
    assert_eq!(answer.header("x-request-id"), Some("mine-1"));

    let released = server.text("DELETE", &format!("/v1/instances/{uuid}"), "", "").await;
    assert_eq!(released.json(), json!({"released": 1}));
    assert_eq!(server.get(&format!("/v1/instances?uuid={uuid}")).await.json()["instances"], json!([]));

    let mut huge = body.clone();
    huge["spec"]["nova_object.data"]["flavor"]["nova_object.data"]["vcpus"] = json!(65);
    let answer = server.post(HOOK, &huge).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"hosts":[]}"#));
    assert_eq!(answer.header("x-pallium-claim"), None);

    let metrics = server.get("/metrics").await.body;
    for line in [
        r#"pallium_decisions_total{intent="create",pipeline="nova-general",claim="made"} 1"#,
        r#"cortex_nova_no_host_found_total{flavor_group="",intent="create",cr_slot="no_cr"} 1"#,
        r#"cortex_nova_placement_total{flavor_group="",intent="create",cr_slot="no_cr"} 2"#,
        r#"cortex_filter_weigher_pipeline_requests_total{pipeline="nova-general"} 3"#,
        r#"cortex_filter_weigher_pipeline_step_removed_hosts_count{pipeline="nova-general",step="filter_fits"} 3"#,
        r#"cortex_scheduler_api_request_duration_seconds_count{method="POST",path="/scheduler/nova/external",status="200",error="Success"} 3"#,
        "pallium_hosts 20",
        "pallium_claims_total 1",
        "pallium_claims_released_total 1",
        "# EOF",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_say_what_is_wrong() {
    let body = recorded("01-create-kvm");
    let server = Server::start(ApiConfig::default()).await;
    let text = body.to_string();
    let unknown = server.post(HOOK, &body).await;
    assert_eq!((unknown.status, unknown.code().as_str()), (503, "fleet_unknown"), "never an empty list");
    assert!(unknown.header("retry-after").is_some());
    server.end().await;

    let server = Server::with_hosts(ApiConfig::default(), &body).await;
    let pipeline = |name: &str| {
        let mut body = body.clone();
        body["pipeline"] = json!(name);
        body.to_string()
    };
    let read_only = {
        let mut body = body.clone();
        body["options"] = json!({"read_only": true});
        body.to_string()
    };
    let trailing = format!("{text} 1");
    for (method, path, body, status, code) in [
        ("POST", HOOK, "{", 400, "bad_request"),
        ("POST", HOOK, trailing.as_str(), 400, "bad_request"),
        ("POST", HOOK, &pipeline("no-such"), 400, "unknown_pipeline"),
        ("POST", HOOK, &read_only, 400, "bad_request"),
        ("GET", HOOK, "", 405, "method_not_allowed"),
        ("PUT", "/v1/place", "", 405, "method_not_allowed"),
        ("GET", "/", "", 404, "not_found"),
        ("GET", "/v1/decisions/99", "", 404, "not_found"),
        ("GET", "/v1/decisions/x", "", 404, "not_found"),
        ("GET", "/v1/decisions?limit=x", "", 400, "bad_request"),
        ("GET", "/v1/hosts?nmae=x", "", 400, "bad_request"),
        ("GET", "/v1/pipelines/x", "", 404, "not_found"),
        ("POST", "/v1/place", r#"{"domain": "moon"}"#, 400, "bad_request"),
        ("POST", "/v1/place", r#"{"intent": "moves"}"#, 400, "bad_request"),
        ("POST", "/v1/place", r#"{"colour": "red"}"#, 400, "bad_request"),
        ("POST", "/v1/place", r#"{"request_id": "5a8f5d0e-3d0e-4c9f-a5a3-0a8f5d0e3d0e"}"#, 400, "bad_request"),
        ("POST", "/v1/explain", "{}", 400, "bad_request"),
        ("POST", "/v1/hosts", r#"{"prune": true}"#, 400, "bad_request"),
        ("DELETE", "/v1/instances/x", "", 400, "bad_request"),
    ] {
        let answer = server.text(method, path, "", body).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{method} {path} {body:.60}");
    }
    let hosts =
        json!({"hosts": [{"name": "good"}, {"name": ""}, {"name": "bad", "inventories": {"vcpu": {"total": 1}}}]});
    let answer = server.post("/v1/hosts", &hosts).await;
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert_eq!(answer.status, 400);
    assert!(message.contains("hosts[1] (): name: 0 bytes"), "{message}");
    assert!(message.contains("hosts[2] (bad): inventories: 'vcpu'"), "{message}");
    assert_eq!(server.get("/v1/hosts?name=good").await.json()["hosts"], json!([]), "nothing was changed");
    let metrics = server.get("/metrics").await.body;
    assert!(metrics.contains(r#"pallium_refused_total{reason="unknown_pipeline"} 1"#), "{metrics}");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_refuse_at_once() {
    let body = recorded("01-create-kvm");
    let config = ApiConfig { body: 64 << 10, ..ApiConfig::default() };
    let server = Server::with_hosts(config, &body).await;
    let announced =
        "POST /scheduler/nova/external HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 100000000\r\n\r\n";
    let answer = server.send(announced).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "payload_too_large"));
    let chunk = format!("{:x}\r\n{}\r\n", 40 << 10, " ".repeat(40 << 10));
    let chunked = format!(
        "POST /scheduler/nova/external HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{chunk}{chunk}"
    );
    let answer = server.send(&chunked).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "payload_too_large"));
    let mut client = InventoryClient::new(server.grpc().await);
    let hosts = vec![v1::HostReport { name: "x".repeat(65 << 10), ..v1::HostReport::default() }];
    let refused = client.apply(v1::ApplyHostsRequest { hosts, ..v1::ApplyHostsRequest::default() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    server.end().await;

    let server = Server::start(ApiConfig { concurrency: 0, ..ApiConfig::default() }).await;
    let answer = server.post(HOOK, &body).await;
    assert_eq!((answer.status, answer.code().as_str(), answer.header("retry-after")), (503, "overloaded", Some("1")));
    assert_eq!(server.get("/healthz").await.status, 200, "whoever looks after the server is heard");
    let mut client = SchedulerClient::new(server.grpc().await);
    let refused = client.place(v1::PlaceRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    server.end().await;

    let server = Server::start(ApiConfig { deadline: Duration::ZERO, ..ApiConfig::default() }).await;
    let answer = server.post(HOOK, &body).await;
    assert_eq!(answer.status, 504, "{}", answer.body);
    server.end().await;

    let server = Server::start(ApiConfig { watchers: 1, ..ApiConfig::default() }).await;
    let mut client = SchedulerClient::new(server.grpc().await);
    let _first = client.watch_decisions(v1::WatchDecisionsRequest::default()).await.unwrap();
    let refused = client.watch_decisions(v1::WatchDecisionsRequest::default()).await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_may_come_in_pieces() {
    let body = recorded("01-create-kvm");
    let server = Server::with_hosts(ApiConfig::default(), &body).await;
    let hosts = server.post(HOOK, &body).await.json();
    let long = body.to_string().replacen('{', &format!("{{{}", " ".repeat(300 << 10)), 1);
    assert_eq!(server.text("POST", HOOK, "", &long).await.json(), hosts);
    for most in [7919, 100_000] {
        let pieces = long.as_bytes().chunks(most).map(|piece| str::from_utf8(piece).unwrap());
        let pieces: Vec<String> = pieces.map(|piece| format!("{:x}\r\n{piece}\r\n", piece.len())).collect();
        let pieces = pieces.concat();
        let chunked = format!(
            "POST {HOOK} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{pieces}0\r\n\r\n"
        );
        assert_eq!(server.send(&chunked).await.json(), hosts, "pieces of {most} bytes");
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_places_once_for_each_key() {
    let body = recorded("01-create-kvm");
    let server = Server::with_hosts(ApiConfig::default(), &body).await;
    let mut client = SchedulerClient::new(server.grpc().await);
    let request = v1::PlaceRequest {
        request_id: Some(uuid::Uuid::now_v7().to_string()),
        count: 2,
        resources: BTreeMap::from([("VCPU".to_owned(), 4)]),
        ..v1::PlaceRequest::default()
    };
    let first = client.place(request.clone()).await.unwrap().into_inner().decision.unwrap();
    assert_eq!((first.placements.len(), first.claim.as_str()), (2, "made"));
    let again = client.place(request.clone()).await.unwrap().into_inner().decision.unwrap();
    assert_eq!((again.id, &again.placements), (first.id, &first.placements));
    let other = client.place(v1::PlaceRequest { count: 3, ..request.clone() }).await.unwrap_err();
    assert_eq!(other.code(), Code::AlreadyExists);
    assert_eq!(other.metadata().get("pallium-error").unwrap(), "key_conflict");
    let huge = v1::PlaceRequest { resources: BTreeMap::from([("VCPU".to_owned(), 65)]), request_id: None, ..request };
    let nothing = client.place(huge.clone()).await.unwrap().into_inner().decision.unwrap();
    assert_eq!((nothing.placements.len(), nothing.hosts.len(), nothing.claim.as_str()), (0, 0, "none"));
    let why = v1::ExplainRequest { request: Some(huge), hosts: vec!["*".to_owned()], ..v1::ExplainRequest::default() };
    let why = client.explain(why).await.unwrap().into_inner();
    let stories = why.detail.unwrap().hosts;
    assert_eq!(stories.len(), 5);
    assert!(stories.iter().all(|story| story.dropped_by.as_deref() == Some("filter_fits")), "{stories:?}");
    assert!(why.record.is_none());
    let remedies = why.remedies.unwrap().remedies;
    assert_eq!(remedies.len(), 1, "{remedies:?}");
    let change = &remedies[0].changes[0];
    assert_eq!((change.kind.as_str(), change.name.as_deref()), ("without_filter", Some("filter_fits")));
    assert_eq!((change.reasons.as_slice(), remedies[0].hosts), (&["too little is free".to_owned()][..], 5));
    // The refused request is kept with its decision.
    let past = v1::ExplainRequest { decision: Some(nothing.id), ..v1::ExplainRequest::default() };
    let past = client.explain(past).await.unwrap().into_inner();
    assert_eq!(past.remedies.unwrap().remedies, remedies);

    let channel = server.grpc().await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
    let asked = tonic_health::pb::HealthCheckRequest { service: "pallium.v1.Scheduler".to_owned() };
    assert_eq!(health.check(asked).await.unwrap().into_inner().status, 1);
    let mut reflection = tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(channel);
    let list = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(tonic_reflection::pb::v1::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let mut answers = reflection.server_reflection_info(futures::stream::iter([list])).await.unwrap().into_inner();
    let answer = format!("{:?}", answers.message().await.unwrap());
    for name in ["pallium.v1.Scheduler", "pallium.v1.Inventory", "pallium.v1.Pipelines", "grpc.health.v1.Health"] {
        assert!(answer.contains(name), "{name} is not in {answer}");
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_are_applied_listed_and_pruned() {
    let server = Server::start(ApiConfig::default()).await;
    let host = |name: &str| {
        json!({
            "name": name, "hypervisor_hostname": name, "availability_zone": "az-a", "traits": ["T"],
            "aggregates": [{"name": "a"}], "conditions": {"Ready": "True"}, "nova_host_state": {"num_io_ops": 1},
            "inventories": {"VCPU": {"total": 4, "allocation_ratio": 2.0}}, "observed_at": 1000,
            "instances": [{"uuid": uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, name.as_bytes()), "project_id": "p",
                           "resources": {"VCPU": 1}}],
        })
    };
    let three = json!({"hosts": [host("h1"), host("h2"), host("h3")], "dry_run": true});
    let counts = |answer: &Value| {
        ["added", "changed", "removed", "unchanged", "stale", "refused"].map(|name| answer[name].as_u64().unwrap())
    };
    let rehearsed = server.post("/v1/hosts", &three).await.json();
    assert_eq!(counts(&rehearsed), [3, 0, 0, 0, 0, 0], "{rehearsed}");
    assert_eq!(server.get("/v1/hosts").await.json()["hosts"], json!([]));
    let three = json!({"hosts": [host("h1"), host("h2"), host("h3")]});
    assert_eq!(counts(&server.post("/v1/hosts", &three).await.json()), [3, 0, 0, 0, 0, 0]);
    assert_eq!(counts(&server.post("/v1/hosts", &three).await.json()), [0, 0, 0, 3, 0, 0]);

    let page = server.get("/v1/hosts?page_size=2").await.json();
    assert_eq!(page["hosts"].as_array().unwrap().len(), 2);
    let token = page["next_page_token"].as_str().unwrap();
    let rest = server.get(&format!("/v1/hosts?page_size=2&page_token={token}")).await.json();
    assert_eq!((&rest["hosts"][0]["name"], &rest["next_page_token"]), (&json!("h3"), &Value::Null));
    let one = server.get("/v1/hosts?name=H2&availability_zone=az-a&domain=nova").await.json();
    assert_eq!(one["hosts"][0]["resources"]["VCPU"]["used"], 1);
    assert_eq!(one["hosts"][0]["conditions"], json!({"Ready": "True"}));
    assert_eq!(server.get("/v1/hosts?availability_zone=az-x").await.json()["hosts"], json!([]));
    assert_eq!(server.get("/v1/hosts?name=h*").await.json()["hosts"].as_array().unwrap().len(), 3);
    let page = server.get("/v1/instances?page_size=2&project_id=p").await.json();
    let token = page["next_page_token"].as_str().unwrap();
    let rest = server.get(&format!("/v1/instances?page_size=2&page_token={token}")).await.json();
    assert_eq!((page["instances"].as_array().unwrap().len(), &rest["instances"][0]["host"]), (2, &json!("h3")));

    let mut changed = host("h1");
    changed["observed_at"] = json!(2000);
    changed["instances"] = json!([]);
    let mut stale = host("h2");
    stale["observed_at"] = json!(1);
    let pruned = json!({"hosts": [changed, stale], "prune": true, "dry_run": true});
    assert_eq!(counts(&server.post("/v1/hosts", &pruned).await.json()), [0, 1, 1, 0, 1, 0]);
    let mut pruned = pruned;
    pruned["dry_run"] = json!(false);
    pruned["keep"] = json!([{"name": "h3"}]);
    assert_eq!(counts(&server.post("/v1/hosts", &pruned).await.json()), [0, 1, 0, 0, 1, 0]);
    pruned["keep"] = json!([]);
    let answer = server.post("/v1/hosts", &pruned).await.json();
    assert_eq!(counts(&answer), [0, 0, 1, 1, 1, 0], "{answer}");
    assert_eq!(
        answer["results"][2],
        json!({"domain": "nova", "name": "h3", "hypervisor_hostname": "h3", "result": "removed"})
    );
    assert_eq!(server.get("/v1/instances").await.json()["instances"].as_array().unwrap().len(), 1);
    let pipelines = server.get("/v1/pipelines").await.json();
    assert_eq!(pipelines["pipelines"][0]["is_default"], true);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_tell_what_is_applied() {
    let body = recorded("01-create-kvm");
    let server = Server::with_hosts(ApiConfig::default(), &body).await;
    let wait = Duration::from_secs(10);
    let mut client = SchedulerClient::new(server.grpc().await);
    let mut decisions = client.watch_decisions(v1::WatchDecisionsRequest::default()).await.unwrap().into_inner();
    let mut inventory = InventoryClient::new(server.grpc().await);
    let mut hosts = inventory.watch(v1::WatchHostsRequest::default()).await.unwrap().into_inner();
    assert_eq!(server.post(HOOK, &body).await.status, 200);
    let told = tokio::time::timeout(wait, decisions.message()).await.unwrap().unwrap().unwrap();
    let record = told.decision.unwrap();
    assert_eq!((record.id, told.lost), (1, 0));
    let told = tokio::time::timeout(wait, hosts.message()).await.unwrap().unwrap().unwrap();
    let host = told.host.unwrap();
    assert_eq!((told.kind.as_str(), host.claims, &host.name), ("changed", 1, &record.claimed[0]));

    let mut stream = TcpStream::connect(&server.address).await.unwrap();
    stream.write_all(b"GET /v1/decisions/watch?after=0 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut text = String::new();
    while !text.contains("\"id\":1") {
        let mut bytes = [0; 4096];
        let count = tokio::time::timeout(wait, stream.read(&mut bytes)).await.unwrap().unwrap();
        assert!(count > 0, "{text}");
        text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    assert!(text.to_lowercase().contains("content-type: text/event-stream"), "{text}");
    server.end().await;
    assert!(decisions.next().await.is_none_or(|last| last.is_err()), "the watch ends with the server");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_leave_no_trace() {
    let logs = logs();
    let secret = "canary-0815";
    let mut body = recorded("14-live-migrate");
    let cell = "/spec/nova_object.data/requested_destination/nova_object.data/cell/nova_object.data";
    body.pointer_mut(cell).unwrap()["database_connection"] = json!(format!("mysql://u:{secret}@db"));
    body["context"] = json!({"auth_token": secret, "service_catalog": [{"x": secret}], "request_id": null});
    let server = Server::with_hosts(ApiConfig::default(), &body).await;
    let answer = server.post(HOOK, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let id = answer.header("x-pallium-decision").unwrap().to_owned();
    let mut broken = body.clone();
    broken["spec"]["nova_object.data"]["num_instances"] = json!("x");
    let refused = server.post(HOOK, &broken).await;
    assert_eq!(refused.status, 400);
    let mut seen = vec![refused.body, refused.head, answer.head];
    for path in [
        "/v1/decisions".to_owned(),
        format!("/v1/decisions/{id}?host=*"),
        "/v1/instances".to_owned(),
        "/metrics".to_owned(),
    ] {
        seen.push(server.get(&path).await.body);
    }
    server.end().await;
    assert!(seen.iter().all(|text| !text.contains(secret)), "{seen:?}");
    let logs = String::from_utf8_lossy(&logs.lock().unwrap()).into_owned();
    assert!(logs.contains(HOOK), "the request itself is logged");
    assert!(!logs.contains(secret));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_names_every_path() {
    let server = Server::start(ApiConfig::default()).await;
    assert_eq!(server.get("/readyz").await.status, 200);
    let document = server.get("/v1/openapi.json").await.json();
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    assert_eq!(paths.len(), 53, "{paths:?}");
    let report = &document["components"]["schemas"]["HostReport"]["properties"];
    assert!(report["traits"].to_string().contains("#/components/schemas/StringList"), "{report}");
    assert_eq!(document["components"]["schemas"]["StringList"]["type"], "array", "a plain list in JSON");
    assert!(report["name"]["description"].as_str().unwrap().contains("Compute host name"));
    // What the document refers to is there.
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(!document["components"]["schemas"][name].is_null(), "{name}");
    }
    server.end().await;
}
