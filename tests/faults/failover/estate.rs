//! Three servers, forty hosts with their agents, a model of Nova, BMCs, and instances on the host that dies.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use scheduler::{HostReport, InstanceReport};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::bmcs::Bmcs;
use super::nova::{self, Model};
use super::trap::{Step, Trap, When};
use crate::server::{BINARY, Server};
use crate::spec::{create, host, uuid};
use crate::support;
use crate::support::agents::{Agent, Dog, hello, id, watch, watched};
use crate::support::network::{Network, PEERS, Rule};
use crate::support::nodes::{Node, at, ready, settled, three, until};

/// Hosts; the first is the one that dies.
const HOSTS: usize = 40;
const INSTANCES: usize = 4;
/// The first host's watchdog is fed on leases.
const LEASES: &str = "\
apiVersion: pallium.dev/v1alpha1
kind: FailoverPolicy
metadata: {name: leases}
spec:
  selector: {hosts: [compute-01]}
  fencing: {leaseMode: strict}
";
/// Longest wait for a recovery, and for a return.
const PATIENCE: Duration = Duration::from_mins(3);
/// A leader of this age has ended its warm-up (20 s) and its quiet time (15 s).
const SETTLED: Duration = Duration::from_secs(40);

/// How the first host dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// It loses power, which its BMC says.
    PowerLost,
    /// It hangs with its guests, which two neighbours see; its BMC switches it off when it is told to.
    Hung,
    /// It is cut off from everything, and so is its BMC: its guests run until its watchdog resets it.
    Dark,
}

/// What becomes of the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// kill -9.
    Killed,
    /// It stands still so long, and goes on.
    Paused(Duration),
    /// It does not reach the other nodes so long, but agents, BMCs and Nova.
    CutOff(Duration),
}

/// The estate.
pub struct Estate {
    nodes: Vec<Node>,
    /// Without those that were killed.
    servers: Vec<Option<Server>>,
    /// Answers nothing, or nothing of use.
    mute: Option<usize>,
    network: Option<Network>,
    pub model: Model,
    pub bmcs: Bmcs,
    trap: Trap,
    instances: Vec<Uuid>,
    begun: Instant,
    /// The first host was let live again.
    back: bool,
    agents: Vec<JoinHandle<()>>,
    /// When the first host's agent was heard last.
    last: Arc<Mutex<Instant>>,
    /// The first host's watchdog, where leases are given.
    dog: Dog,
    /// When the watchdog of a host that nothing reaches resets it.
    bites: Option<Instant>,
    _files: TempDir,
}

fn name(n: usize) -> String {
    format!("compute-{n:02}")
}

/// The host that dies.
fn first() -> String {
    name(1)
}

impl Estate {
    /// Everything in this network namespace.
    pub async fn new() -> Self {
        Self::on(None, false).await
    }

    /// The same, and the first host has a watchdog, fed on leases.
    pub async fn leased() -> Self {
        Self::on(None, true).await
    }

    /// The servers in namespaces of their own; none where those are not allowed.
    pub async fn apart() -> Option<Self> {
        let network = Network::new(&[1, 2, 3]);
        if network.separate() { Some(Self::on(Some(network), false).await) } else { None }
    }

    async fn on(network: Option<Network>, leased: bool) -> Self {
        let outside = network.as_ref().map_or(Ipv4Addr::LOCALHOST.into(), Network::outside);
        let trap = Trap::default();
        let model = Model::start_at(outside, |app| trap.in_front_of(app)).await;
        let (bmcs, bmc) = Bmcs::start(outside, &trap).await;
        let files = tempfile::tempdir().expect("a folder");
        let secret = |name: &str, text: &str| support::file(files.path(), name, text);
        let (nova_file, bmc_file) = (secret("nova", nova::PASSWORD), secret("bmc", "secret"));
        let ha = json!({
            "mode": "enforce",
            "nova": {
                "auth_url": format!("{}/identity", model.url), "user": nova::USER, "password_file": nova_file,
                "project": "service", "region": "one",
            },
            "redfish": {"user": "pallium", "password_file": bmc_file},
            "voters": {"1": {"chassis": "v1"}, "2": {"chassis": "v2"}, "3": {"chassis": "v3"}},
        });
        let nodes = match &network {
            None => three(None),
            Some(network) => at([1, 2, 3].map(|n| (network.addr(n), PEERS).into()), None),
        };
        let start = |(n, node): (u64, &Node)| {
            node.configure(&format!("ha: {ha}\ninsecure_plaintext: {}\n", network.is_some()));
            let place: (Command, IpAddr) = match &network {
                None => (Command::new(BINARY), Ipv4Addr::LOCALHOST.into()),
                Some(network) => (network.inside(n, BINARY), network.addr(n)),
            };
            let arguments: Vec<&str> = node.arguments.iter().map(String::as_str).collect();
            let started = Server::try_start_at(place.0, place.1, &node.dir.path().join("data"), &arguments);
            started.unwrap_or_else(|log| panic!("the server did not start:\n{log}"))
        };
        let servers: Vec<Server> = (1..).zip(&nodes).map(start).collect();
        for server in &servers {
            ready(server).await;
        }
        let begun = Instant::now();
        let services: Vec<Uuid> = (1..=HOSTS).map(|n| model.cloud().add_host(&name(n), "cell1")).collect();
        let instances: Vec<Uuid> = (0..INSTANCES).map(|_| model.cloud().add_server(&first())).collect();
        let listed = instances.iter().map(|uuid| InstanceReport {
            uuid: *uuid,
            resources: Some([("VCPU".to_owned(), 2), ("MEMORY_MB".to_owned(), 1024)].into()),
            ..InstanceReport::default()
        });
        let mut fleet: Vec<HostReport> = (1..=HOSTS).map(|n| host(&name(n), 8, 8192)).collect();
        fleet[0].instances = Some(listed.collect());
        servers[0].apply(&fleet).await;
        let names: Vec<String> = (1..=HOSTS).map(name).collect();
        let mut told = watched(&names.iter().map(String::as_str).collect::<Vec<_>>());
        for (n, service) in services.iter().enumerate() {
            told["hosts"][n]["nova_service"] = service.to_string().into();
            told["hosts"][n]["bmc"] = format!("{bmc}/redfish/v1/Systems/{}", n + 1).into();
        }
        if leased {
            told["hosts"][0]["fencers"] = json!(["redfish", "watchdog_lease", "manual"]);
        }
        watch(&servers[0], files.path(), &told).await;
        if leased {
            let file = secret("leases.yaml", LEASES);
            let apply = ["ha", "policy", "apply", &file, "--reason", "its BMC shares its feed"];
            until("voters enough for leases", async || servers[0].ctl(&apply).ok()).await;
        }
        let mut estate = Self {
            nodes,
            servers: servers.into_iter().map(Some).collect(),
            mute: None,
            network,
            model,
            bmcs,
            trap,
            instances,
            begun,
            back: false,
            agents: Vec::new(),
            last: Arc::new(Mutex::new(Instant::now())),
            dog: Dog::default(),
            bites: None,
            _files: files,
        };
        for n in 1..=HOSTS {
            let agent = estate.agent(n, None).await;
            estate.agents.push(agent);
        }
        until("places of all instances", async || (estate.status()["permits"] == INSTANCES).then_some(())).await;
        if leased {
            // In an estate where nothing happens: the lease itself must arm it.
            estate.agents[0].abort();
            estate.dog.begins_anew();
            estate.agents[0] = estate.agent(1, None).await;
            until("a lease", async || estate.dog.bites()).await;
            until("an armed watchdog", async || estate.dog.is_armed().then_some(())).await;
        }
        estate
    }

    fn server(&self) -> &Server {
        let answers = |(n, server): (usize, &'_ Option<Server>)| server.is_some() && self.mute != Some(n);
        let n = self.servers.iter().enumerate().position(answers).expect("one answers");
        self.servers[n].as_ref().expect("it runs")
    }

    fn status(&self) -> Value {
        let told = self.server().ctl(&["ha", "status", "-o", "json"]).unwrap_or_default();
        serde_json::from_str(&told).unwrap_or_default()
    }

    fn case(&self) -> Option<Value> {
        serde_json::from_str(&self.server().ctl(&["ha", "case", &first(), "-o", "json"]).ok()?).ok()
    }

    /// A session that looks for another node when its own dies or says nothing, as the agent does; `sees`: a
    /// host that its probes do not reach.
    async fn agent(&self, n: usize, sees: Option<String>) -> JoinHandle<()> {
        let urls: Vec<String> = self.servers.iter().flatten().map(|server| server.url.clone()).collect();
        let mut boot = hello(n as u64);
        boot.agent_epoch = u64::from(sees.is_some());
        if n == 1
            && let Some(said) = &mut boot.hello
        {
            said.watchdog = Some(Dog::device(false));
        }
        let connect = async |boot, url: &str| -> Option<Agent> { Agent::connect(url, boot).await.ok() };
        let mut agent = connect(boot.clone(), &urls[n % urls.len()]).await;
        assert!(agent.is_some(), "host {n} is known");
        let first = (n == 1).then(|| (Arc::clone(&self.last), self.dog.clone()));
        tokio::spawn(async move {
            for turn in n + 1.. {
                if let Some(mut agent) = agent.take() {
                    if let Some((last, dog)) = &first {
                        (agent.last, agent.dog) = (Arc::clone(last), dog.clone());
                    }
                    agent.beat_on(sees.clone()).await;
                }
                // A new session of the same agent goes on with its numbers.
                boot.agent_epoch += 1;
                agent = connect(boot.clone(), &urls[turn % urls.len()]).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        })
    }

    /// Waits until the leader is no new one.
    pub async fn settles(&self) {
        tokio::time::sleep_until((self.begun + SETTLED).into()).await;
    }

    /// The first host dies. When it was heard last.
    pub async fn dies(&mut self, death: Death) -> Instant {
        match death {
            Death::PowerLost => {
                self.agents[0].abort();
                self.bmcs.switch(1, false);
                self.model.cloud().die(&first());
            }
            Death::Hung | Death::Dark => {
                for neighbour in [2, 3] {
                    self.agents[neighbour - 1].abort();
                    self.agents[neighbour - 1] = self.agent(neighbour, Some(id(1))).await;
                }
                self.agents[0].abort();
            }
        }
        if death == Death::Dark {
            self.bmcs.kill(1);
            self.bites = self.dog.bites();
        }
        *self.last.lock().expect("no panic")
    }

    /// No instance runs twice, and none of them moved before the proof.
    fn check(&self) {
        let on = self.bites.map_or_else(|| self.bmcs.of(1).0, |bites| Instant::now() < bites);
        let mut cloud = self.model.cloud();
        if !on && !self.back {
            cloud.die(&first());
        }
        for instance in &self.instances {
            let on = cloud.runs_on(*instance);
            assert!(on.len() <= 1, "{instance} runs on {on:?}");
        }
        let done = |asked: &&String| {
            asked.starts_with("POST") && asked.contains("/servers/") && asked.contains("/action")
                || asked.starts_with("PUT") && asked.contains("/os-services/")
        };
        let early = if self.back || !on { None } else { cloud.asked.iter().find(done) };
        assert_eq!(early, None, "done about a host that has power");
    }

    /// The computes work, and everything is checked, until all instances run elsewhere. When the first
    /// evacuation was accepted. `fate` is the leader's, at a step.
    pub async fn recovered(&mut self, fate: Option<(Step, When, Fate)>) -> Instant {
        let mut leader = None;
        if let Some((step, when, _)) = fate {
            leader = Some(self.leader().await);
            self.trap.set(step, when);
        }
        let mut first = None;
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.check();
            if self.trap.is_sprung()
                && let (Some((.., fate)), Some(leader)) = (fate, leader)
            {
                self.suffer(leader, fate).await;
            }
            if !self.model.cloud().migrations.is_empty() {
                first.get_or_insert_with(Instant::now);
                if fate.is_none() {
                    self.asks().await;
                }
                self.model.cloud().rebuild();
            }
            if self.are_elsewhere()
                && let Some(first) = first
            {
                return first;
            }
            let case = || self.case().map_or_else(|| "no case".to_owned(), |case| case.to_string());
            assert!(Instant::now() < deadline, "not recovered: {}\n{}", case(), self.server().log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What is planned waits for a person, who leaves one instance alone, thinks better of it, and chooses where another goes:
    /// which one, and where to.
    pub async fn decides(&self) -> (Uuid, String) {
        let tell = |arguments: &[&str]| self.server().ctl(&[&["ha"], arguments, &["--reason", "sorting"]].concat());
        until("a case to hold", async || tell(&["hold", &first(), "recover"]).ok()).await;
        let (one, other) = (self.instances[0].to_string(), self.instances[1].to_string());
        let stands = |instance: &str| {
            let case = self.case()?;
            let known = case["instances"].as_array()?.iter().find(|known| known["instance"] == *instance)?.clone();
            Some((known["state"].as_str()?.to_owned(), known["target"].as_str().unwrap_or_default().to_owned()))
        };
        let planned =
            async |instance| until("a plan", async || stands(instance).filter(|(at, _)| at == "planned")).await;
        planned(&one).await;
        tell(&["skip", &one]).expect("it is not on its way");
        assert_eq!(stands(&one).map(|(at, _)| at), Some("stays".to_owned()));
        let early = tell(&["retarget", &one, &name(2)]).expect_err("it stays");
        assert!(early.contains("retry it first"), "{early}");
        // It is, once the others have moved.
        tell(&["retry", &one]).expect("it may be planned again");
        let (_, target) = planned(&other).await;
        let wrong = tell(&["retarget", &other, &first()]).expect_err("it is dead");
        assert!(wrong.contains("it is the source"), "{wrong}");
        let chosen = name(if target == name(30) { 31 } else { 30 });
        tell(&["retarget", &other, &chosen]).expect("a living host with room");
        assert_eq!(stands(&other), Some(("planned".to_owned(), chosen.clone())));
        tell(&["release", &first(), "recover"]).expect("it was held");
        (self.instances[1], chosen)
    }

    /// Nova's scheduler asks where instances on their way may go: to their target, or nowhere.
    async fn asks(&self) {
        let on_their_way: Vec<(Uuid, String)> = {
            let cloud = self.model.cloud();
            let accepted = cloud.migrations.iter().filter(|row| row.status == "accepted");
            accepted.map(|row| (row.instance, row.dest.clone())).collect()
        };
        let all: Vec<String> = (2..=HOSTS).map(name).collect();
        for (instance, target) in on_their_way {
            let others: Vec<String> = all.iter().filter(|host| **host != target).cloned().collect();
            for (sent, expected) in [(&all, json!([target])), (&others, json!([]))] {
                let answer = self.server().hook(&create(&instance.to_string(), sent, 2, 1024)).await;
                assert_eq!(answer.json()["hosts"], expected, "{instance} on its way to {target}: {}", answer.text);
            }
        }
    }

    fn are_elsewhere(&self) -> bool {
        let cloud = self.model.cloud();
        self.instances.iter().all(|instance| cloud.runs_on(*instance).iter().any(|host| *host != first()))
    }

    /// The leader meets its fate, and what it asked for last goes on.
    async fn suffer(&mut self, leader: usize, fate: Fate) {
        let lasts = match fate {
            Fate::Killed => {
                // Dropped, it is killed.
                self.servers[leader] = None;
                self.trap.free();
                return;
            }
            Fate::Paused(lasts) => {
                self.servers[leader].as_ref().expect("it runs").pause(true);
                lasts
            }
            Fate::CutOff(lasts) => {
                let (me, others) = (leader as u64 + 1, (1..=3).filter(|other| *other != leader as u64 + 1));
                let both = |other| [Rule::Deaf { at: me, from: other }, Rule::Deaf { at: other, from: me }];
                let rules: Vec<Rule> = others.flat_map(both).collect();
                self.network.as_ref().expect("a network").set(&rules);
                lasts
            }
        };
        self.mute = Some(leader);
        let over = Instant::now() + lasts;
        while Instant::now() < over {
            self.check();
            self.model.cloud().rebuild();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // What was under way all that time arrives first, and then the old leader is back.
        self.trap.free();
        match (&self.network, fate) {
            (Some(network), Fate::CutOff(_)) => network.set(&[]),
            _ => self.servers[leader].as_ref().expect("it runs").pause(false),
        }
        self.mute = None;
    }

    async fn leader(&self) -> usize {
        settled(self.server(), self.nodes.len()).await as usize - 1
    }

    /// Exactly one evacuation of each instance, and the service was forced down before.
    pub async fn once(&self) {
        until("the end of the recovery", async || {
            let case = self.case()?;
            let over = ["recovered", "await_return"].iter().any(|phase| case["phase"] == *phase);
            over.then_some(())
        })
        .await;
        if self.servers.iter().all(Option::is_some) {
            self.leader().await;
        }
        let cloud = self.model.cloud();
        let mut moved: Vec<Uuid> = cloud.migrations.iter().map(|migration| migration.instance).collect();
        moved.sort_unstable();
        let mut all = self.instances.clone();
        all.sort_unstable();
        assert_eq!(moved, all, "each once");
        let at = |what: &dyn Fn(&String) -> bool| cloud.asked.iter().position(what).expect("it was asked");
        let down = at(&|asked| asked.starts_with("PUT") && asked.contains("/os-services/"));
        assert!(down < at(&|asked| asked.starts_with("POST") && asked.contains("/servers/")), "forced down before");
        assert_eq!(cloud.rpcs, 0, "no compute was called while it counted as up");
    }

    /// The first host boots anew: it is let in step by step, and its case ends.
    pub async fn comes_back(&mut self) {
        self.back = true;
        self.bmcs.switch(1, true);
        let mut boot = hello(1);
        let known = std::mem::replace(&mut boot.boot, uuid(0xB101));
        boot.hello.as_mut().expect("a Hello").previous_boot = Some(known);
        let agent = Agent::connect(&self.server().url, boot).await.expect("it is known");
        self.agents.push(tokio::spawn(agent.beat_on(None)));
        self.model.cloud().come_back(&first(), &self.instances);
        let up = async || (!self.model.cloud().host(&first()).forced_down).then_some(());
        until("a host that may be let in", up).await;
        let begun = Instant::now();
        loop {
            self.check();
            let case = self.case().expect("its last case");
            if case["phase"] == "closed" {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "not closed: {case}\n{}", self.server().log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert!(begun.elapsed() > Duration::from_secs(50), "it is watched for a minute before it is enabled");
        let cloud = self.model.cloud();
        assert!(!cloud.hosts[&first()].disabled && cloud.hosts[&first()].guests.is_empty());
        drop(cloud);
        let hosts = self.server().ctl(&["ha", "hosts", "-o", "json"]).expect("hosts");
        let hosts: Value = serde_json::from_str(&hosts).expect("JSON");
        let a = &hosts["hosts"][0];
        assert!(a["detection"] == "alive" && a["quarantined"] == false && a["phase"].is_null(), "{a}");
    }
}

impl Drop for Estate {
    fn drop(&mut self) {
        for agent in &self.agents {
            agent.abort();
        }
        for server in self.servers.iter().flatten() {
            // One that stands still hears no other signal than KILL, which comes with the drop.
            server.pause(false);
        }
    }
}
