//! Servers as processes of their own on loopback: started, killed, started again; and what a load
//! generator sends them.

#![allow(dead_code, reason = "each bench takes what it needs")]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use api::proto::v1::cluster_client::ClusterClient;
use api::proto::v1::inventory_client::InventoryClient;
use api::proto::v1::{
    ApplyHostsRequest, ClusterStatusRequest, ClusterStatusResponse, HostReport, InventoryMap, InventoryReport,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::StatusCode;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::index::sample;
use serde_json::json;

/// Hosts of the fleet.
pub const HOSTS: usize = 1000;
/// Hosts that a request sends.
pub const SENT: usize = 20;

/// One server.
pub struct Server {
    child: Option<Child>,
    config: PathBuf,
    pub data: PathBuf,
    /// Its port for clients.
    pub address: String,
    /// Its port for peers.
    pub peer: String,
}

impl Server {
    /// Starts it, or starts it again, and waits until it says that it is ready.
    pub fn start(&mut self, arguments: &[&str]) {
        let program = word("--program").unwrap_or_else(|| env!("CARGO_BIN_EXE_pallium").to_owned());
        let mut child = Command::new(program)
            .args(["serve", "--listen", &self.address, "--log-level", "error", "--config"])
            .arg(&self.config)
            .arg("--data-dir")
            .arg(&self.data)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        assert!(line.contains("listen"), "the server's addresses as JSON expected, {line:?} given");
        self.child = Some(child);
    }

    /// Kills it with SIGKILL, if it runs.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Bytes of it that are in memory, now and at most; 0 when it does not run.
    pub fn memory(&self) -> (u64, u64) {
        let status = self.pid().and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok());
        let status = status.unwrap_or_default();
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        (kib("VmRSS:") << 10, kib("VmHWM:") << 10)
    }
}

/// A cluster, or a lone server.
pub struct Servers {
    pub nodes: Vec<Server>,
    dir: tempfile::TempDir,
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.nodes.iter_mut().for_each(Server::kill);
    }
}

impl Servers {
    /// A cluster of so many, with `extra` in each config file.
    pub fn start(nodes: usize, extra: &str) -> Servers {
        let ports = ports(2 * nodes);
        let peers: Vec<String> =
            (1..=nodes).map(|id| format!("{id}: \"127.0.0.1:{}\"", ports[nodes + id - 1])).collect();
        let mut servers = Servers { nodes: Vec::new(), dir: folder() };
        for id in 1..=nodes {
            let mut text = String::new();
            if nodes > 1 {
                text = format!("peers: {{{}}}\nbootstrap: {}\n", peers.join(", "), id == 1);
            }
            servers.add(id, (ports[id - 1], ports[nodes + id - 1]), &(text + extra)).start(&[]);
        }
        servers
    }

    /// None yet.
    pub fn none() -> Servers {
        Servers { nodes: Vec::new(), dir: folder() }
    }

    /// One more, which is not started.
    pub fn add(&mut self, id: usize, (port, peer): (u16, u16), config: &str) -> &mut Server {
        let path = self.dir.path().join(format!("{id}.yaml"));
        let peer = format!("127.0.0.1:{peer}");
        std::fs::write(&path, format!("node_id: {id}\npeer_listen: {peer}\n{config}")).expect("written");
        let data = self.dir.path().join(format!("data-{id}"));
        let server = Server { child: None, config: path, data, address: format!("127.0.0.1:{port}"), peer };
        self.nodes.push(server);
        self.nodes.last_mut().expect("just added")
    }

    /// Seconds of processor time of all of them.
    pub fn processor(&self) -> f64 {
        self.nodes.iter().filter_map(Server::pid).map(processor).sum()
    }

    /// The cluster, as a node sees it.
    pub async fn status(&self, at: usize) -> Option<ClusterStatusResponse> {
        let endpoint = format!("http://{}", self.nodes[at].address);
        let mut cluster = ClusterClient::connect(endpoint).await.ok()?;
        Some(cluster.status(ClusterStatusRequest {}).await.ok()?.into_inner())
    }

    /// Position of the leader, as soon as all answer and have nearly all that there is.
    pub async fn leader(&self) -> usize {
        loop {
            if let Some(status) = self.status(0).await {
                let well = status.members.iter().filter(|member| member.lag.is_some_and(|lag| lag < 200)).count();
                if let Some(leader) = status.leader.filter(|_| well == self.nodes.len()) {
                    return leader as usize - 1;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Gives the fleet to a node.
    pub async fn load(&self, at: usize) {
        self.load_hosts(at, HOSTS).await;
    }

    /// Gives a fleet of so many hosts to a node.
    pub async fn load_hosts(&self, at: usize, hosts: usize) {
        let endpoint = format!("http://{}", self.nodes[at].address);
        let mut inventory = InventoryClient::connect(endpoint).await.expect("a connection");
        for first in (0..hosts).step_by(HOSTS) {
            let hosts = (first..hosts.min(first + HOSTS)).map(report).collect();
            inventory.apply(ApplyHostsRequest { hosts, ..ApplyHostsRequest::default() }).await.expect("a loaded fleet");
        }
    }
}

/// Under the target folder: a temporary folder may be memory, which syncs for free.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

/// Ports that were free a moment ago.
pub fn ports(count: usize) -> Vec<u16> {
    let held: Vec<_> = (0..count).map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    held.iter().map(|listener| listener.local_addr().expect("its address").port()).collect()
}

/// Seconds of processor time of a process.
pub fn processor(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<i64> =
        stat.rsplit(')').next().unwrap_or("").split_whitespace().filter_map(|field| field.parse().ok()).collect();
    // After the name and the state letter: utime and stime are the 11th and 12th numbers, in ticks of 10 ms.
    fields.get(10..12).map_or(0.0, |times| times.iter().sum::<i64>() as f64 / 100.0)
}

/// The number behind an argument of the bench.
pub fn argument(name: &str) -> Option<u64> {
    word(name)?.parse().ok()
}

/// What stands behind an argument of the bench.
pub fn word(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}

pub fn name(host: usize) -> String {
    format!("node{host:04}-bb{:02}", host / 40)
}

fn report(host: usize) -> HostReport {
    let inventory = |total| InventoryReport { total, ..InventoryReport::default() };
    let items = [("VCPU".to_owned(), inventory(1 << 20)), ("MEMORY_MB".to_owned(), inventory(1 << 32))].into();
    HostReport {
        name: name(host),
        hypervisor_hostname: Some(name(host)),
        availability_zone: Some("az-a".to_owned()),
        hypervisor_type: Some("qemu".to_owned()),
        cpu_arch: Some("x86_64".to_owned()),
        inventories: Some(InventoryMap { items }),
        ..HostReport::default()
    }
}

/// The hook's body around an instance uuid, for some sets of hosts.
pub fn bodies(random: &mut SmallRng) -> Vec<(String, String)> {
    (0..64)
        .map(|_| {
            let hosts = sample(random, HOSTS, SENT).into_vec();
            body(random, &hosts)
        })
        .collect()
}

/// The hook's body around an instance uuid, for these hosts: their weights in the order of the hosts, as Nova lists them.
pub fn body(random: &mut SmallRng, hosts: &[usize]) -> (String, String) {
    let mark = "00000000-0000-4000-8000-00000000abcd";
    let weights_mark = "the weights";
    let hosts: Vec<String> = hosts.iter().copied().map(name).collect();
    let (_, recorded) = simulation::fixtures::REQUESTS[0];
    let mut body: serde_json::Value = serde_json::from_str(recorded).expect("JSON");
    body["hosts"] = hosts.iter().map(|host| json!({"host": host, "hypervisor_hostname": host})).collect();
    body["weights"] = json!(weights_mark);
    body["spec"]["nova_object.data"]["instance_uuid"] = json!(mark);
    let weights: Vec<String> = hosts.iter().map(|host| format!("\"{host}\":{}", random.random::<f64>())).collect();
    let text = body.to_string().replace(&format!("\"{weights_mark}\""), &format!("{{{}}}", weights.join(",")));
    let (head, tail) = text.split_once(mark).expect("the mark");
    (head.to_owned(), tail.to_owned())
}

/// An instance.
pub fn uuid(n: u64) -> String {
    format!("{:08x}-0000-4000-8000-{:012x}", n >> 32, n)
}

pub type Connection = SendRequest<Full<Bytes>>;

/// A connection to a client port.
pub async fn connect(address: &str) -> Option<Connection> {
    let stream = tokio::net::TcpStream::connect(address).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let (send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    Some(send)
}

/// Asks as Nova's hook does for instance `n`: the status, `Retry-After`, and the bytes of the answer;
/// none: the connection broke.
pub async fn ask(
    connection: &mut Connection,
    (head, tail): &(String, String),
    n: u64,
) -> Option<(StatusCode, Option<u64>, usize)> {
    let request = hyper::Request::post("/scheduler/nova/external")
        .header("host", "pallium")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from([head, uuid(n).as_str(), tail].concat())))
        .expect("a request");
    let answer = connection.send_request(request).await.ok()?;
    let status = answer.status();
    let retry = answer.headers().get("retry-after").and_then(|after| after.to_str().ok()?.parse().ok());
    let body = answer.into_body().collect().await.ok()?.to_bytes();
    Some((status, retry, body.len()))
}
