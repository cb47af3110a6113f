//! What goes wrong, when, and what was done about it. Each step strikes, lasts, is healed, and is
//! over when every node is ready and a client was served again.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use serde_json::json;

use crate::cluster::Cluster;
use crate::network::Rule;
use crate::relay::Relay;
use crate::workload::Workload;

/// Longest time from healing until all is well.
pub const RECOVERY: Duration = Duration::from_mins(1);
/// Wait between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// A flapping link: so long each way.
const FLAP: Duration = Duration::from_millis(400);
/// Milliseconds that a piece waits on a slow link.
const SLOW_MS: (u64, u64) = (20, 200);
/// Packets of a hundred that are lost.
const LOST: u32 = 30;
/// Reports of hosts that are sent at most to fill a log, and traits of each.
const REPORTS: u64 = 80;
const TRAITS: u32 = 4000;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The disk of one node is full, and its log goes on.
    FullDisk,
    /// kill -9 of any node.
    Kill,
    /// kill -9 of the leader.
    KillLeader,
    /// kill -9 of all nodes.
    KillAll,
    /// SIGSTOP of any node.
    Pause,
    /// SIGSTOP of the leader.
    PauseLeader,
    /// A minority and a majority that do not hear each other.
    Halves,
    /// The leader hears nobody and nobody hears it.
    IsolatedLeader,
    /// One node hears nobody, but is heard.
    Deaf,
    /// One node is not heard, but hears.
    Mute,
    /// Packets are lost at random.
    Loss,
    /// One node is cut off again and again.
    Flapping,
    /// All links of one node are slow.
    Slow,
    /// The wall clock of one node, leading if it can, jumps ahead and back.
    Clock,
    /// Another node is made to lead.
    Transfer,
    /// A node joins, gets a vote, and is removed.
    Members,
}

impl Step {
    /// Each kind once, in the order of the short form. The full disk comes first: the log must still
    /// be in its first part.
    pub const ALL: [Self; 16] = [
        Self::FullDisk,
        Self::Kill,
        Self::IsolatedLeader,
        Self::PauseLeader,
        Self::KillAll,
        Self::Halves,
        Self::Clock,
        Self::Slow,
        Self::KillLeader,
        Self::Deaf,
        Self::Loss,
        Self::Transfer,
        Self::Mute,
        Self::Flapping,
        Self::Members,
        Self::Pause,
    ];

    fn needs_network(self) -> bool {
        use Step::{Deaf, Flapping, Halves, IsolatedLeader, Loss, Mute, Slow};
        matches!(self, Halves | IsolatedLeader | Deaf | Mute | Loss | Flapping | Slow)
    }
}

/// The one who does it.
pub struct Nemesis<'a> {
    cluster: &'a mut Cluster,
    workload: &'a Workload,
    random: SmallRng,
    /// What was not well in time.
    pub failures: Vec<String>,
}

impl<'a> Nemesis<'a> {
    /// One with these random choices.
    pub fn new(cluster: &'a mut Cluster, workload: &'a Workload, random: SmallRng) -> Self {
        Self { cluster, workload, random, failures: Vec::new() }
    }

    fn log(&self, what: &str) {
        println!("{:8.3} {what}", self.workload.history.elapsed().as_secs_f64());
    }

    /// Whether a step can be done here.
    pub fn can(&self, step: Step) -> bool {
        match step {
            Step::FullDisk => self.cluster.small().is_some(),
            Step::Clock => self.cluster.skewed().is_some(),
            step if step.needs_network() => self.cluster.network.separate(),
            _ => true,
        }
    }

    /// Any step that can be done here.
    pub fn choose(&mut self) -> Step {
        loop {
            let step = *Step::ALL.choose(&mut self.random).expect("steps");
            if self.can(step) {
                return step;
            }
        }
    }

    fn any(&mut self) -> u64 {
        *self.cluster.voters.choose(&mut self.random).expect("nodes")
    }

    /// Who leads, as the first node says that knows; any node when none does.
    async fn leader(&mut self) -> u64 {
        let until = Instant::now() + RECOVERY;
        while Instant::now() < until {
            for id in self.cluster.voters.clone() {
                let status = self.workload.http.get(&format!("{}/v1/cluster", self.cluster.url(id))).await;
                if let Some(leader) = status.and_then(|status| status["leader"].as_u64()) {
                    return leader;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.any()
    }

    /// The others cannot hear `cut`, and it cannot hear them.
    fn between(&self, cut: &[u64]) -> Vec<Rule> {
        let rest = self.cluster.voters.iter().filter(|id| !cut.contains(id));
        rest.flat_map(|&one| cut.iter().flat_map(move |&other| both(one, other))).collect()
    }

    fn others(&self, node: u64) -> Vec<u64> {
        self.cluster.voters.iter().copied().filter(|id| *id != node).collect()
    }

    /// Does one step, which lasts so long, and waits until all is well.
    pub async fn step(&mut self, step: Step, lasts: Duration) {
        let kept = self.strike(step, lasts).await;
        self.cluster.network.set(&[]);
        drop(kept);
        for id in self.cluster.voters.clone() {
            self.cluster.pause(id, false);
            self.cluster.start(id);
        }
        self.log("healed");
        let began = Instant::now();
        match self.well().await {
            Ok(()) => self.log(&format!("well after {:.1} s", began.elapsed().as_secs_f64())),
            Err(why) => {
                let failure = format!("not well {} s after {step:?}: {why}", RECOVERY.as_secs());
                self.log(&failure);
                self.failures.push(failure);
            }
        }
    }

    async fn strike(&mut self, step: Step, lasts: Duration) -> Vec<Relay> {
        let mut relays = Vec::new();
        match step {
            Step::FullDisk => self.full_disk(lasts).await,
            Step::Kill | Step::KillLeader => {
                let node = if step == Step::Kill { self.any() } else { self.leader().await };
                self.log(&format!("{step:?}: node {node}"));
                self.cluster.kill(node);
                tokio::time::sleep(lasts).await;
            }
            Step::KillAll => {
                self.log("KillAll");
                let mut nodes = self.cluster.voters.clone();
                nodes.shuffle(&mut self.random);
                for id in nodes {
                    self.cluster.kill(id);
                }
            }
            Step::Pause | Step::PauseLeader => {
                let node = if step == Step::Pause { self.any() } else { self.leader().await };
                self.log(&format!("{step:?}: node {node}"));
                self.cluster.pause(node, true);
                tokio::time::sleep(lasts).await;
            }
            Step::Halves | Step::IsolatedLeader => {
                let mut cut =
                    if step == Step::Halves { self.cluster.voters.clone() } else { vec![self.leader().await] };
                cut.shuffle(&mut self.random);
                cut.truncate((self.cluster.voters.len() / 2).max(1));
                self.log(&format!("{step:?}: {cut:?} and the rest"));
                self.cluster.network.set(&self.between(&cut));
                tokio::time::sleep(lasts).await;
            }
            Step::Deaf | Step::Mute => {
                // A leader that is only heard, or only hears, is the harder case.
                let node = if self.random.random_bool(0.7) { self.leader().await } else { self.any() };
                self.log(&format!("{step:?}: node {node}"));
                let rule = |other| match step {
                    Step::Deaf => Rule::Deaf { at: node, from: other },
                    _ => Rule::Deaf { at: other, from: node },
                };
                self.cluster.network.set(&self.others(node).into_iter().map(rule).collect::<Vec<_>>());
                tokio::time::sleep(lasts).await;
            }
            Step::Loss => {
                self.log(&format!("Loss: {LOST} % everywhere"));
                let voters = self.cluster.voters.clone();
                let pairs = voters.iter().flat_map(|&at| self.others(at).into_iter().map(move |from| (at, from)));
                let rules: Vec<_> = pairs.map(|(at, from)| Rule::Loss { at, from, percent: LOST }).collect();
                self.cluster.network.set(&rules);
                tokio::time::sleep(lasts).await;
            }
            Step::Flapping => {
                let node = self.any();
                self.log(&format!("Flapping: node {node}"));
                let until = Instant::now() + lasts;
                while Instant::now() < until {
                    self.cluster.network.set(&self.between(&[node]));
                    tokio::time::sleep(FLAP).await;
                    self.cluster.network.set(&[]);
                    tokio::time::sleep(FLAP).await;
                }
            }
            Step::Slow => {
                let node = self.leader().await;
                self.log(&format!("Slow: node {node}, {SLOW_MS:?} ms"));
                let mut rules = Vec::new();
                for other in self.others(node) {
                    for (at, to) in [(node, other), (other, node)] {
                        let (here, there) = (self.cluster.network.outside(), self.cluster.peer(to));
                        let relay = Relay::new(here, there, SLOW_MS, self.random.random()).await;
                        rules.push(Rule::Detour { at, to, port: relay.port });
                        relays.push(relay);
                    }
                }
                self.cluster.network.set(&rules);
                tokio::time::sleep(lasts).await;
            }
            Step::Clock => {
                let node = self.cluster.skewed().expect("asked before");
                self.lead(node).await;
                for by in ["+2h", "-2d", "+0"] {
                    self.cluster.skew(by);
                    tokio::time::sleep(lasts / 2).await;
                    self.log(&format!("Clock: node {node} {by}, decisions are dated {}", self.dated(node).await));
                }
            }
            Step::Transfer => {
                let leader = self.leader().await;
                let to = *self.others(leader).choose(&mut self.random).expect("others");
                self.lead(to).await;
            }
            Step::Members => self.members(lasts).await,
        }
        relays
    }

    async fn lead(&mut self, node: u64) {
        self.log(&format!("Transfer: to node {node}"));
        let url = format!("{}/v1/cluster/members/{node}/lead", self.cluster.url(node));
        let came = self.workload.http.send("POST", &url, None).await;
        self.log(&format!("Transfer: {came:?}"));
    }

    /// How far the wall time of the last decision is from ours.
    async fn dated(&self, node: u64) -> String {
        let url = format!("{}/v1/decisions?limit=1", self.cluster.url(node));
        let last = self.workload.http.get(&url).await.unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        let dated = last["decisions"][0]["wall_ms"].as_i64();
        dated.map_or_else(|| "unknown".to_owned(), |dated| format!("{:+.1} s from now", (dated - now) as f64 / 1000.0))
    }

    async fn full_disk(&mut self, lasts: Duration) {
        let node = self.cluster.small().expect("asked before");
        let other = *self.others(node).first().expect("others");
        self.log(&format!("FullDisk: node {node}"));
        self.cluster.fill(true);
        let traits: Vec<String> = (0..TRAITS).map(|n| format!("CUSTOM_A_RATHER_LONG_TRAIT_NAME_{n:05}")).collect();
        let url = format!("{}/v1/hosts", self.cluster.url(other));
        let mut sent = 0;
        let until = Instant::now() + RECOVERY;
        // Every report differs, so that each is written.
        while self.cluster.runs(node) && sent < REPORTS && Instant::now() < until {
            let report =
                json!({"hosts": [{"name": "large", "disabled": true, "traits": &traits[(sent % 2) as usize..]}]});
            self.workload.http.send("POST", &url, Some(&report)).await;
            sent += 1;
        }
        let ended = self.cluster.ended(node, lasts).await;
        self.log(&format!("FullDisk: node {node} {}", if ended { "ended" } else { "had room left" }));
        self.cluster.fill(false);
    }

    async fn members(&mut self, lasts: Duration) {
        let node = self.cluster.spare();
        self.log(&format!("Members: node {node} joins"));
        self.cluster.start(node);
        let url = format!("{}/v1/cluster/members", self.cluster.url(self.cluster.voters[0]));
        let add = json!({"node": node, "addr": self.cluster.peer(node).to_string()});
        self.until_done("add", "POST", &url, Some(&add)).await;
        self.until_done("promote", "POST", &format!("{url}/{node}/promote"), None).await;
        tokio::time::sleep(lasts).await;
        self.until_done("remove", "DELETE", &format!("{url}/{node}"), None).await;
        self.cluster.kill(node);
    }

    async fn until_done(&mut self, what: &str, method: &str, url: &str, body: Option<&serde_json::Value>) {
        let until = Instant::now() + RECOVERY;
        loop {
            let came = self.workload.http.send(method, url, body).await;
            if matches!(came, crate::client::Came::Done(_)) {
                return self.log(&format!("Members: {what} done"));
            }
            if Instant::now() > until {
                return self.failures.push(format!("Members: {what} not done: {came:?}"));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until every node is ready and a client was served.
    pub async fn well(&mut self) -> Result<(), String> {
        let until = Instant::now() + RECOVERY;
        for id in self.cluster.voters.clone() {
            loop {
                let url = format!("{}/v1/cluster", self.cluster.url(id));
                let status = self.workload.http.get(&url).await;
                if status.is_some_and(|status| status["leader"].is_u64()) {
                    break;
                }
                if !self.cluster.runs(id) {
                    return Err(format!("node {id} has ended"));
                }
                if Instant::now() > until {
                    return Err(format!("node {id} knows no leader"));
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        let before = self.workload.history.done();
        while self.workload.history.done() < before + 10 {
            if Instant::now() > until {
                return Err("no client is served".to_owned());
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }
}

fn both(one: u64, other: u64) -> [Rule; 2] {
    [Rule::Deaf { at: one, from: other }, Rule::Deaf { at: other, from: one }]
}
