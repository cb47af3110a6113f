//! The nodes of a run: real processes, each with its folder, its address and its config file. Ended
//! on every way out; what they wrote stays when the run failed.

use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::network::{CLIENTS, Network, PEERS};

const BINARY: &str = env!("CARGO_BIN_EXE_pallium");
/// Times of the replication: longer than the defaults, for three nodes and a test share two cores.
const HEARTBEAT_MS: u64 = 100;
const ELECTION_MS: (u64, u64) = (500, 1000);
/// Milliseconds that a node takes for a decision at most.
const DEADLINE_MS: u64 = 2000;
/// MiB of the small disk: the first part of the log fits, the next does not.
const SMALL_MIB: u32 = 12;
const LARGE_MIB: u32 = 512;
/// Where Debian has it.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// One node.
struct Node {
    id: u64,
    child: Option<Child>,
    paused: bool,
}

/// The nodes.
pub struct Cluster {
    /// The network between them.
    pub network: Network,
    /// Folder of everything.
    pub folder: PathBuf,
    /// Node ids of the first voters.
    pub voters: Vec<u64>,
    nodes: Vec<Node>,
    small_disk: bool,
}

impl Cluster {
    /// Makes folders and network for nodes 1 to `count`. Nothing runs yet.
    pub fn new(count: u64) -> Self {
        let folder = tempfile::Builder::new().prefix("pallium-chaos-").tempdir().expect("a folder").keep();
        let network = Network::new(&(1..=count).collect::<Vec<_>>());
        let voters: Vec<u64> = (1..=count).collect();
        let mut cluster = Self { network, folder, voters: voters.clone(), nodes: Vec::new(), small_disk: false };
        for id in voters {
            cluster.prepare(id);
        }
        cluster.small_disk = cluster.mount(&format!("size={SMALL_MIB}m"));
        if !cluster.small_disk {
            println!("no full disk: a tmpfs cannot be mounted here");
        }
        if cluster.skewed().is_none() {
            println!("no skewed clock: libfaketime is not installed");
        }
        cluster.skew("+0");
        cluster
    }

    fn prepare(&mut self, id: u64) {
        self.nodes.push(Node { id, child: None, paused: false });
        fs::create_dir_all(self.data(id)).expect("a folder");
        fs::write(self.file(id, "yaml"), self.config(id)).expect("a config");
    }

    /// One more node, to be added to the cluster; gives its id.
    pub fn spare(&mut self) -> u64 {
        let id = self.nodes.len() as u64 + 1;
        self.network.add(id).expect("a place for one more node");
        self.prepare(id);
        id
    }

    /// The node whose disk is small: the second.
    pub fn small(&self) -> Option<u64> {
        self.small_disk.then_some(2)
    }

    /// The node whose wall clock can be skewed: the last.
    pub fn skewed(&self) -> Option<u64> {
        Path::new(FAKETIME).exists().then_some(self.voters.len() as u64)
    }

    fn file(&self, id: u64, end: &str) -> PathBuf {
        self.folder.join(format!("node-{id}.{end}"))
    }

    /// The data folder of a node.
    pub fn data(&self, id: u64) -> PathBuf {
        self.folder.join(format!("data-{id}"))
    }

    /// Where clients reach a node.
    pub fn url(&self, id: u64) -> String {
        format!("http://{}:{CLIENTS}", self.network.addr(id))
    }

    /// Where nodes reach a node.
    pub fn peer(&self, id: u64) -> SocketAddr {
        (self.network.addr(id), PEERS).into()
    }

    /// JSON is YAML.
    fn config(&self, id: u64) -> String {
        let addr = |id: &u64| (id.to_string(), self.peer(*id).to_string().into());
        let peers: serde_json::Map<String, serde_json::Value> = self.voters.iter().map(addr).collect();
        let mut config = json!({
            "node_id": id,
            "data_dir": self.data(id),
            "listen": format!("{}:{CLIENTS}", self.network.addr(id)),
            "peer_listen": self.peer(id).to_string(),
            "bootstrap": id == 1,
            "insecure_plaintext": true,
            "raft": {
                "heartbeat_ms": HEARTBEAT_MS, "election_min_ms": ELECTION_MS.0, "election_max_ms": ELECTION_MS.1,
            },
            "limits": {"deadline_ms": DEADLINE_MS},
            // Claims that expire would be changes that no client made.
            "scheduling": {"claim_expiry": {"create": 864_000, "resize": 864_000, "live_migration": 864_000}},
        });
        if self.voters.contains(&id) {
            config["peers"] = peers.into();
        }
        config.to_string()
    }

    fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.id == id).expect("a node of the cluster")
    }

    /// Starts a node, if it does not run. Call it on a thread that lasts: nodes end with it.
    pub fn start(&mut self, id: u64) {
        if self.runs(id) {
            return;
        }
        let log = |end| {
            let file: std::io::Result<File> = OpenOptions::new().create(true).append(true).open(self.file(id, end));
            file.expect("a log file")
        };
        let mut command = self.network.inside(id, "setpriv");
        command.args(["--pdeathsig", "KILL", "env"]);
        if self.skewed() == Some(id) {
            command.args([
                &format!("LD_PRELOAD={FAKETIME}"),
                &format!("FAKETIME_TIMESTAMP_FILE={}", self.folder.join("clock").display()),
                "FAKETIME_CACHE_DURATION=1",
                "FAKETIME_DONT_FAKE_MONOTONIC=1",
            ]);
        }
        command.args([BINARY, "serve", "--config"]).arg(self.file(id, "yaml"));
        command.stdin(Stdio::null()).stdout(log("out")).stderr(log("log"));
        let child = command.spawn().expect("the binary runs");
        self.node(id).child = Some(child);
    }

    /// Whether a node runs.
    pub fn runs(&mut self, id: u64) -> bool {
        let node = self.node(id);
        if node.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None))) {
            node.child = None;
        }
        node.child.is_some()
    }

    /// kill -9.
    pub fn kill(&mut self, id: u64) {
        let node = self.node(id);
        node.paused = false;
        if let Some(mut child) = node.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            // What a preloaded clock leaves behind.
            for kind in ["faketime_shm_", "sem.faketime_sem_"] {
                let _ = fs::remove_file(format!("/dev/shm/{kind}{}", child.id()));
            }
        }
    }

    /// SIGSTOP, or SIGCONT.
    pub fn pause(&mut self, id: u64, paused: bool) {
        let node = self.node(id);
        if let Some(child) = node.child.as_ref().filter(|_| node.paused != paused) {
            let signal = if paused { "-STOP" } else { "-CONT" };
            let _ = Command::new("kill").args([signal, &child.id().to_string()]).status();
            node.paused = paused;
        }
    }

    /// Sets the wall clock of the skewed node, as in +2h.
    pub fn skew(&self, by: &str) {
        fs::write(self.folder.join("clock"), by).expect("the clock file");
    }

    fn mount(&self, options: &str) -> bool {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "pallium-chaos"]).arg(self.data(2)).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    /// Takes all room of the small disk, or gives it much.
    pub fn fill(&self, full: bool) {
        let filler = self.data(2).join("filler");
        if full {
            // It ends when nothing is left.
            let mut zero = File::open("/dev/zero").expect("zeros");
            let _ = File::create(&filler).and_then(|mut file| std::io::copy(&mut zero, &mut file));
        } else {
            let _ = fs::remove_file(&filler);
            let remount = format!("remount,size={LARGE_MIB}m");
            let _ = Command::new("mount").args(["-o", &remount]).arg(self.data(2)).status();
        }
    }

    /// Waits for a node to end by itself.
    pub async fn ended(&mut self, id: u64, within: Duration) -> bool {
        let until = Instant::now() + within;
        while self.runs(id) {
            if Instant::now() > until {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        true
    }

    /// The run was good: nothing of it is kept.
    pub fn forget(mut self) {
        self.end();
        let _ = fs::remove_dir_all(&self.folder);
    }

    fn end(&mut self) {
        for id in 1..=self.nodes.len() as u64 {
            self.kill(id);
        }
        if std::mem::take(&mut self.small_disk) {
            let _ = Command::new("umount").arg("--lazy").arg(self.data(2)).status();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end();
    }
}
