//! A host dies under three real servers: each of its instances comes up elsewhere exactly once, and not before
//! the proof, whoever leads when. Nova is a model with its rules and dangers; BMCs answer Redfish; agents are
//! sessions.

#[allow(dead_code, reason = "the hands' own tests use all of it")]
#[path = "../../operators/tests/model/nova.rs"]
mod nova;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use scheduler::{HostReport, InstanceReport};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use uuid::Uuid;

use self::nova::Model;
use crate::server::{Server, run};
use crate::spec::{host, uuid};
use crate::support::agents::{Agent, hello, watched};
use crate::support::nodes::{Node, ready, settled, three, until};

const HOSTS: [&str; 5] = ["a", "b", "c", "d", "e"];
const INSTANCES: usize = 4;

/// Systems behind one Redfish service: whether each has power, and how often it was told to lose it.
#[derive(Clone, Default)]
struct Bmcs(Arc<Mutex<BTreeMap<usize, (bool, usize)>>>);

impl Bmcs {
    async fn start() -> (Self, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let bmcs = Self::default();
        let app = Router::new()
            .route("/redfish/v1/Systems/{n}", get(async |bmcs: State<Self>, n: Path<usize>| bmcs.system(*n)))
            .route(
                "/redfish/v1/Systems/{n}/Actions/ComputerSystem.Reset",
                post(async |bmcs: State<Self>, n: Path<usize>, body: String| bmcs.reset(*n, &body)),
            )
            .with_state(bmcs.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (bmcs, url)
    }

    fn system(&self, n: usize) -> Json<Value> {
        let on = self.with(n, |(on, _)| *on);
        let power = if on { "On" } else { "Off" };
        Json(json!({"PowerState": power, "UUID": uuid(0xC000 + n as u64), "SerialNumber": format!("S{n}")}))
    }

    fn reset(&self, n: usize, body: &str) -> StatusCode {
        assert!(body.contains("\"ForceOff\""), "nothing gentler: {body}");
        self.with(n, |(on, told)| (*on, *told) = (false, *told + 1));
        StatusCode::NO_CONTENT
    }

    fn with<T>(&self, n: usize, change: impl FnOnce(&mut (bool, usize)) -> T) -> T {
        change(self.0.lock().expect("no panic").entry(n).or_insert((true, 0)))
    }
}

/// Three servers, five hosts, and instances on the first.
struct Estate {
    nodes: Vec<Node>,
    servers: Vec<Option<Server>>,
    model: Model,
    bmcs: Bmcs,
    instances: Vec<Uuid>,
    /// The first host was let live again.
    back: bool,
    agents: Vec<JoinHandle<()>>,
    _files: TempDir,
}

impl Estate {
    async fn new() -> Self {
        let (model, (bmcs, bmc)) = (Model::start().await, Bmcs::start().await);
        let files = tempfile::tempdir().expect("a folder");
        let secret = |name: &str, text: &str| {
            let path = files.path().join(name);
            std::fs::write(&path, text).expect("written");
            path.display().to_string()
        };
        let (nova_file, bmc_file) = (secret("nova", nova::PASSWORD), secret("bmc", "secret"));
        let ha = json!({
            "mode": "enforce",
            "nova": {
                "auth_url": format!("{}/identity", model.url), "user": nova::USER, "password_file": nova_file,
                "project": "service", "region": "one",
            },
            "redfish": {"user": "pallium", "password_file": bmc_file},
        });
        let nodes = three(None);
        for node in &nodes {
            node.configure(&format!("ha: {ha}\n"));
        }
        let servers: Vec<Server> = nodes.iter().map(Node::start).collect();
        for server in &servers {
            ready(server).await;
        }
        let services: Vec<Uuid> = HOSTS.iter().map(|name| model.cloud().add_host(name, "cell1")).collect();
        let instances: Vec<Uuid> = (0..INSTANCES).map(|_| model.cloud().add_server("a")).collect();
        let listed = instances.iter().map(|uuid| InstanceReport {
            uuid: *uuid,
            resources: Some([("VCPU".to_owned(), 2), ("MEMORY_MB".to_owned(), 1024)].into()),
            ..InstanceReport::default()
        });
        let mut fleet: Vec<HostReport> = HOSTS.iter().map(|name| host(name, 8, 8192)).collect();
        fleet[0].instances = Some(listed.collect());
        servers[0].apply(&fleet).await;
        let mut told = watched(&HOSTS);
        for (n, service) in services.iter().enumerate() {
            told["hosts"][n]["nova_service"] = service.to_string().into();
            told["hosts"][n]["bmc"] = format!("{bmc}/redfish/v1/Systems/{}", n + 1).into();
        }
        let file = secret("hosts.json", &told.to_string());
        until("the feature level", async || servers[0].ctl(&["ha", "apply", &file]).ok()).await;
        let mut estate = Self {
            nodes,
            servers: servers.into_iter().map(Some).collect(),
            model,
            bmcs,
            instances,
            back: false,
            agents: Vec::new(),
            _files: files,
        };
        for n in 1..=HOSTS.len() {
            let agent = estate.agent(n).await;
            estate.agents.push(agent);
        }
        until("places of all instances", async || (estate.status()["permits"] == INSTANCES).then_some(())).await;
        estate
    }

    fn server(&self) -> &Server {
        self.servers.iter().flatten().next().expect("one runs")
    }

    fn status(&self) -> Value {
        let told = self.server().ctl(&["ha", "status", "-o", "json"]).unwrap_or_default();
        serde_json::from_str(&told).unwrap_or_default()
    }

    fn case(&self) -> Option<Value> {
        serde_json::from_str(&self.server().ctl(&["ha", "case", "a", "-o", "json"]).ok()?).ok()
    }

    /// A session that looks for another node when its own dies, as the agent does.
    async fn agent(&self, n: usize) -> JoinHandle<()> {
        let urls: Vec<String> = self.servers.iter().flatten().map(|server| server.url.clone()).collect();
        let mut boot = hello(n as u64);
        let first = Agent::connect(&urls[n % urls.len()], boot.clone()).await.expect("it is known");
        tokio::spawn(async move {
            let mut agent = Some(first);
            for turn in n + 1.. {
                if let Some(agent) = agent.take() {
                    agent.beat_on(None).await;
                }
                // A new session of the same agent goes on with its numbers.
                boot.agent_epoch += 1;
                agent = Agent::connect(&urls[turn % urls.len()], boot.clone()).await.ok();
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        })
    }

    /// No instance runs twice, and none of them moved before the proof.
    fn check(&self) {
        let cloud = self.model.cloud();
        for instance in &self.instances {
            let on = cloud.runs_on(*instance);
            assert!(on.len() <= 1, "{instance} runs on {on:?}");
        }
        let evacuations = cloud.asked.iter().filter(|asked| asked.starts_with("POST") && asked.contains("/action"));
        let count = evacuations.count();
        drop(cloud);
        let dead = self.back || self.bmcs.with(1, |(on, _)| !*on);
        assert!(count == 0 || dead, "{count} evacuations of a host that has power");
    }

    /// The computes work, and everything is checked, until all instances run elsewhere. What it took from
    /// `since` to the first evacuation.
    async fn recovered(&mut self, since: Instant, kill: bool) -> Duration {
        let (mut first, mut kill) = (None, kill);
        let deadline = Instant::now() + Duration::from_mins(3);
        loop {
            self.check();
            let accepted = self.model.cloud().migrations.len();
            if accepted > 0 {
                first.get_or_insert_with(|| since.elapsed());
                if std::mem::take(&mut kill) {
                    self.kill_leader().await;
                }
                self.model.cloud().rebuild();
            }
            let elsewhere = {
                let cloud = self.model.cloud();
                self.instances.iter().all(|instance| cloud.runs_on(*instance).iter().any(|host| *host != "a"))
            };
            if let (true, Some(first)) = (elsewhere, first) {
                return first;
            }
            let case = || self.case().map_or_else(|| "no case".to_owned(), |case| case.to_string());
            assert!(Instant::now() < deadline, "not recovered: {}\n{}", case(), self.server().log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn kill_leader(&mut self) {
        let leader = self.leader().await;
        // Dropped, it is killed.
        self.servers[leader] = None;
    }

    async fn leader(&self) -> usize {
        settled(self.server(), self.nodes.len()).await as usize - 1
    }

    /// The first host boots anew: it is let in step by step, and its case ends.
    async fn comes_back(&mut self) {
        self.back = true;
        self.bmcs.with(1, |(on, _)| *on = true);
        let mut boot = hello(1);
        let known = std::mem::replace(&mut boot.boot, uuid(0xB101));
        boot.hello.as_mut().expect("a Hello").previous_boot = Some(known);
        let agent = Agent::connect(&self.server().url, boot).await.expect("it is known");
        self.agents.push(tokio::spawn(agent.beat_on(None)));
        self.model.cloud().come_back("a", &self.instances);
        until("a host that may be let in", async || (!self.model.cloud().host("a").forced_down).then_some(())).await;
        let begun = Instant::now();
        loop {
            self.check();
            let case = self.case().expect("its last case");
            if case["phase"] == "closed" {
                break;
            }
            assert!(begun.elapsed() < Duration::from_mins(3), "not closed: {case}\n{}", self.server().log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert!(begun.elapsed() > Duration::from_secs(50), "it is watched for a minute before it is enabled");
        let cloud = self.model.cloud();
        assert!(!cloud.hosts["a"].disabled && cloud.hosts["a"].guests.is_empty());
        drop(cloud);
        let hosts = self.server().ctl(&["ha", "hosts", "-o", "json"]).expect("hosts");
        let hosts: Value = serde_json::from_str(&hosts).expect("JSON");
        let a = &hosts["hosts"][0];
        assert!(a["detection"] == "alive" && a["quarantined"] == false && a["phase"].is_null(), "{a}");
    }

    /// Exactly one evacuation of each instance, and the service was forced down before.
    async fn once(&self) {
        until("the end of the recovery", async || {
            let case = self.case()?;
            let over = ["recovered", "await_return"].iter().any(|phase| case["phase"] == *phase);
            over.then_some(())
        })
        .await;
        let cloud = self.model.cloud();
        let mut moved: Vec<Uuid> = cloud.migrations.iter().map(|migration| migration.instance).collect();
        moved.sort_unstable();
        let mut all = self.instances.clone();
        all.sort_unstable();
        assert_eq!(moved, all, "each once");
        let at = |what: &dyn Fn(&String) -> bool| cloud.asked.iter().position(what).expect("it was asked");
        let down = at(&|asked| asked.starts_with("PUT") && asked.contains("/os-services/"));
        assert!(down < at(&|asked| asked.starts_with("POST") && asked.contains("/action")), "forced down before");
        assert_eq!(cloud.rpcs, 0, "no compute was called while it counted as up");
    }
}

impl Drop for Estate {
    fn drop(&mut self) {
        for agent in &self.agents {
            agent.abort();
        }
    }
}

#[test]
fn a_host_without_power_is_recovered_once() {
    run(async {
        let mut estate = Estate::new().await;
        estate.agents[0].abort();
        estate.bmcs.with(1, |(on, _)| *on = false);
        estate.model.cloud().die("a");
        let took = estate.recovered(Instant::now(), false).await;
        estate.once().await;
        assert_eq!(estate.bmcs.with(1, |(_, told)| *told), 0, "what is off is not switched off");
        println!("power lost: first evacuation after {took:.1?} (aim 20 s)");
        estate.comes_back().await;
    });
}

#[test]
fn a_hung_host_is_fenced_and_then_recovered_once() {
    run(async {
        let mut estate = Estate::new().await;
        // Its neighbours see that it does not answer; its guests may still run.
        let observer = Agent::connect(&estate.server().url, hello(2)).await.expect("it is known");
        estate.agents[1].abort();
        estate.agents[1] = tokio::spawn(observer.beat_on(Some(crate::support::agents::id(1))));
        estate.agents[0].abort();
        let since = Instant::now();
        until("the power-off", async || {
            estate.check();
            estate.bmcs.with(1, |(on, _)| !*on).then(|| estate.model.cloud().die("a"))
        })
        .await;
        let took = estate.recovered(since, false).await;
        estate.once().await;
        println!("hung: first evacuation after {took:.1?} (aim 35 s)");
    });
}

#[test]
fn a_leader_that_dies_within_a_recovery_leaves_nothing_twice() {
    run(async {
        let mut estate = Estate::new().await;
        estate.agents[0].abort();
        estate.bmcs.with(1, |(on, _)| *on = false);
        estate.model.cloud().die("a");
        let took = estate.recovered(Instant::now(), true).await;
        estate.once().await;
        println!("power lost, leader killed at the first evacuation, which came after {took:.1?}");
    });
}
