//! Durable claims per second over 1,000 hosts, a new instance each time, every claim fsynced (by a
//! majority) before its answer: through the hook, which sends 20 hosts with their weights; through
//! gRPC, where the whole fleet is decided over and the answer names four hosts and no steps; and
//! through gRPC in calls for 256 instances.
//!
//! The servers are processes of their own; their processor time and that of this load generator are
//! counted apart. Arguments: `--seconds N` for each case (default 5); `--nodes 3` for a cluster on
//! loopback, asked at its leader. With several nodes and an `etcd` on the path, as many members of
//! etcd are put to under the same number of clients, in the same run: an etcd put decides nothing.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::proto::v1::cluster_client::ClusterClient;
use api::proto::v1::inventory_client::InventoryClient;
use api::proto::v1::scheduler_client::SchedulerClient;
use api::proto::v1::{
    ApplyHostsRequest, ClusterStatusRequest, HostReport, InventoryMap, InventoryReport, PlaceOptions, PlaceRequest,
};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rand::rngs::SmallRng;
use rand::seq::index::sample;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tonic::transport::Channel;

const HOSTS: usize = 1000;
const SENT: usize = 20;
const CONCURRENCY: [usize; 4] = [1, 64, 512, 2048];
/// Instances of one call.
const BATCH: usize = 256;
/// Calls for many at one time.
const BATCHES: [usize; 3] = [1, 8, 64];
/// gRPC streams share connections, as clients do.
const CHANNELS: usize = 4;

/// Processes on loopback: a cluster, or a lone server.
struct Servers {
    children: Vec<Child>,
    /// Client addresses.
    addresses: Vec<String>,
    _dir: tempfile::TempDir,
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Servers {
    /// Seconds of processor time of all of them.
    fn processor(&self) -> f64 {
        self.children.iter().map(|child| processor(child.id())).sum()
    }
}

/// Under the target folder: a temporary folder may be memory, which syncs for free.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

fn ports(count: usize) -> Vec<u16> {
    let held: Vec<_> = (0..count).map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    held.iter().map(|listener| listener.local_addr().expect("its address").port()).collect()
}

fn start(nodes: usize) -> Servers {
    let dir = folder();
    let peers: Vec<String> = (1..).zip(ports(nodes)).map(|(id, port)| format!("{id}: \"127.0.0.1:{port}\"")).collect();
    let (mut children, mut addresses) = (Vec::new(), Vec::new());
    for id in 1..=nodes {
        let config = dir.path().join(format!("{id}.yaml"));
        let mut text = format!("node_id: {id}\nlimits: {{concurrency: 8192, queue: 8192}}\n");
        if nodes > 1 {
            let listen = peers[id - 1].split('"').nth(1).unwrap_or_default();
            text +=
                &[format!("peer_listen: {listen}\npeers: {{{}}}\nbootstrap: {}\n", peers.join(", "), id == 1)].concat();
        }
        std::fs::write(&config, text).expect("written");
        let mut child = Command::new(env!("CARGO_BIN_EXE_pallium"))
            .args(["serve", "--listen", "127.0.0.1:0", "--log-level", "error", "--config"])
            .arg(&config)
            .arg("--data-dir")
            .arg(dir.path().join(format!("data-{id}")))
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let ready: serde_json::Value = serde_json::from_str(&line).expect("the addresses as JSON");
        children.push(child);
        addresses.push(ready["listen"].as_str().expect("an address").to_owned());
    }
    Servers { children, addresses, _dir: dir }
}

/// Position of the leader, as soon as there is one.
async fn leader(servers: &Servers) -> usize {
    loop {
        let endpoint = format!("http://{}", servers.addresses[0]);
        let mut cluster = ClusterClient::connect(endpoint).await.expect("a connection");
        let status = cluster.status(ClusterStatusRequest {}).await.expect("the cluster").into_inner();
        let answering = status.members.iter().filter(|member| member.unreachable.is_none()).count();
        if let Some(leader) = status.leader.filter(|_| answering == servers.children.len()) {
            return leader as usize - 1;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn name(host: usize) -> String {
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
fn bodies(random: &mut SmallRng) -> Vec<(String, String)> {
    let mark = "00000000-0000-4000-8000-00000000abcd";
    (0..64)
        .map(|_| {
            let hosts: Vec<String> = sample(random, HOSTS, SENT).into_iter().map(name).collect();
            let (_, recorded) = simulation::fixtures::REQUESTS[0];
            let mut body: serde_json::Value = serde_json::from_str(recorded).expect("JSON");
            body["hosts"] = hosts.iter().map(|host| json!({"host": host, "hypervisor_hostname": host})).collect();
            body["weights"] = hosts.iter().map(|host| (host.clone(), json!(random.random::<f64>()))).collect();
            body["spec"]["nova_object.data"]["instance_uuid"] = json!(mark);
            let text = body.to_string();
            let (head, tail) = text.split_once(mark).expect("the mark");
            (head.to_owned(), tail.to_owned())
        })
        .collect()
}

fn uuid(n: u64) -> String {
    format!("{:08x}-0000-4000-8000-{:012x}", n >> 32, n)
}

async fn connect(address: &str) -> SendRequest<Full<Bytes>> {
    let stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    let (send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    send
}

/// Seconds of processor time of a process.
fn processor(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<i64> =
        stat.rsplit(')').next().unwrap_or("").split_whitespace().filter_map(|field| field.parse().ok()).collect();
    // After the name and the state letter: utime and stime are the 11th and 12th numbers, in ticks of 10 ms.
    fields.get(10..12).map_or(0.0, |times| times.iter().sum::<i64>() as f64 / 100.0)
}

struct Load {
    next: AtomicU64,
    claimed: AtomicU64,
    until: Instant,
}

async fn measure<W, F>(servers: &Servers, (bench, case): (&str, &str), concurrency: usize, seconds: u64, worker: W)
where
    W: Fn(usize, Arc<Load>) -> F,
    F: Future<Output = Histogram<u64>> + Send + 'static,
{
    static FIRST: AtomicU64 = AtomicU64::new(1);
    let load = Arc::new(Load {
        next: AtomicU64::new(FIRST.load(Ordering::Relaxed)),
        claimed: AtomicU64::new(0),
        until: Instant::now() + Duration::from_secs(seconds),
    });
    let (server_before, own_before, began) = (servers.processor(), processor(std::process::id()), Instant::now());
    let workers: Vec<_> = (0..concurrency).map(|n| tokio::spawn(worker(n, Arc::clone(&load)))).collect();
    let mut latency = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).expect("a histogram");
    for worker in workers {
        latency.add(worker.await.expect("a worker")).expect("the same shape");
    }
    let took = began.elapsed().as_secs_f64();
    FIRST.store(load.next.load(Ordering::Relaxed), Ordering::Relaxed);
    let claimed = load.claimed.load(Ordering::Relaxed);
    let micros = |seconds: f64| seconds * 1e6 / claimed as f64;
    let percentile = |q: f64| latency.value_at_quantile(q) as f64 / 1000.0;
    println!(
        "BENCH {}",
        json!({
            "bench": bench, "case": format!("{case}, {concurrency:>4} at once"), "hosts": HOSTS, "unit": "ms",
            "p50": percentile(0.5), "p99": percentile(0.99), "p999": percentile(0.999),
            "per_second": claimed as f64 / took,
            "server_cpu_us": micros(servers.processor() - server_before),
            "load_cpu_us": micros(processor(std::process::id()) - own_before),
        })
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let argument = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)?.parse::<u64>().ok()
    };
    let (seconds, nodes) = (argument("--seconds").unwrap_or(5), argument("--nodes").unwrap_or(1) as usize);
    let bench = if nodes == 1 { "claims".to_owned() } else { format!("claims, {nodes} nodes") };
    // Two cores are shared with the server: one thread is enough for the load.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let servers = start(nodes);
        let address = servers.addresses[leader(&servers).await].clone();
        let endpoint = format!("http://{address}");
        let mut inventory = InventoryClient::connect(endpoint.clone()).await.expect("a connection");
        let hosts = (0..HOSTS).map(report).collect();
        inventory.apply(ApplyHostsRequest { hosts, ..ApplyHostsRequest::default() }).await.expect("a loaded fleet");

        let bodies = Arc::new(bodies(&mut SmallRng::seed_from_u64(1)));
        for concurrency in CONCURRENCY {
            let address = address.clone();
            measure(&servers, (&bench, "hook"), concurrency, seconds, |_, load| {
                let (bodies, address) = (Arc::clone(&bodies), address.clone());
                async move {
                    let mut connection = connect(&address).await;
                    let mut latency = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).expect("a histogram");
                    while Instant::now() < load.until {
                        let n = load.next.fetch_add(1, Ordering::Relaxed);
                        let (head, tail) = &bodies[n as usize % bodies.len()];
                        let request = hyper::Request::post("/scheduler/nova/external")
                            .header("host", "pallium")
                            .header("content-type", "application/json")
                            .body(Full::new(Bytes::from([head, uuid(n).as_str(), tail].concat())))
                            .expect("a request");
                        let began = Instant::now();
                        let answer = connection.send_request(request).await.expect("an answer");
                        assert_eq!(answer.status(), 200);
                        let body = answer.into_body().collect().await.expect("a body").to_bytes();
                        assert!(body.len() > 14, "a host");
                        latency.saturating_record(began.elapsed().as_micros() as u64);
                        load.claimed.fetch_add(1, Ordering::Relaxed);
                    }
                    latency
                }
            })
            .await;
        }

        let mut channels = Vec::new();
        for _ in 0..CHANNELS {
            channels
                .push(Channel::from_shared(endpoint.clone()).expect("an address").connect().await.expect("a channel"));
        }
        let batches = BATCHES.map(|calls| (BATCH, calls));
        for (batch, concurrency) in CONCURRENCY.map(|calls| (1, calls)).into_iter().chain(batches) {
            let case = if batch == 1 { "gRPC".to_owned() } else { format!("gRPC, {batch} a call") };
            measure(&servers, (&bench, &case), concurrency, seconds, |worker, load| {
                let channel = channels[worker % CHANNELS].clone();
                async move {
                    let mut client = SchedulerClient::new(channel);
                    let mut latency = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).expect("a histogram");
                    while Instant::now() < load.until {
                        let n = load.next.fetch_add(batch as u64, Ordering::Relaxed);
                        let request = PlaceRequest {
                            consumers: (n..).take(batch).map(uuid).collect(),
                            resources: [("VCPU".to_owned(), 4), ("MEMORY_MB".to_owned(), 16384)].into(),
                            extra_specs: [("capabilities:hypervisor_type".to_owned(), "QEMU".to_owned())].into(),
                            options: Some(PlaceOptions {
                                max_candidates: 4,
                                without_steps: true,
                                ..PlaceOptions::default()
                            }),
                            ..PlaceRequest::default()
                        };
                        let began = Instant::now();
                        let answer = client.place(request).await.expect("an answer").into_inner();
                        assert_eq!(answer.decision.expect("a decision").placements.len(), batch);
                        latency.saturating_record(began.elapsed().as_micros() as u64);
                        load.claimed.fetch_add(batch as u64, Ordering::Relaxed);
                    }
                    latency
                }
            })
            .await;
        }
        drop(servers);
        if nodes > 1 {
            etcd(nodes, seconds).await;
        }
    });
}

/// A put of etcd's v3 API; the fields that are sent.
#[derive(Clone, PartialEq, prost::Message)]
struct Put {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// Its answer, of which nothing is read.
#[derive(Clone, PartialEq, prost::Message)]
struct PutAnswer {}

async fn put(channel: Channel, key: String) -> Result<(), tonic::Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let codec = tonic_prost::ProstCodec::<Put, PutAnswer>::default();
    let path = http::uri::PathAndQuery::from_static("/etcdserverpb.KV/Put");
    let put = Put { key: key.into_bytes(), value: vec![b'x'; 256] };
    client.unary(tonic::Request::new(put), path, codec).await.map(|_| ())
}

/// The peer: puts of 256 bytes into as many members of etcd, asked at the first.
async fn etcd(nodes: usize, seconds: u64) {
    if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
        return println!("no etcd on the path: it is not measured (Debian: etcd-server)");
    }
    let (dir, ports) = (folder(), ports(2 * nodes));
    let url = |at: usize| format!("http://127.0.0.1:{}", ports[at]);
    let cluster: Vec<String> = (0..nodes).map(|at| format!("n{at}={}", url(nodes + at))).collect();
    let children = (0..nodes).map(|at| {
        Command::new("etcd")
            .args(["--name", &format!("n{at}"), "--listen-client-urls", &url(at), "--advertise-client-urls", &url(at)])
            .args(["--listen-peer-urls", &url(nodes + at), "--initial-advertise-peer-urls", &url(nodes + at)])
            .args(["--initial-cluster", &cluster.join(","), "--log-level", "error", "--data-dir"])
            .arg(dir.path().join(at.to_string()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd starts")
    });
    let servers = Servers { children: children.collect(), addresses: Vec::new(), _dir: dir };
    let channels: Vec<_> =
        (0..CHANNELS).map(|_| Channel::from_shared(url(0)).expect("an address").connect_lazy()).collect();
    while put(channels[0].clone(), uuid(0)).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for concurrency in CONCURRENCY {
        measure(&servers, (&format!("etcd, {nodes} members"), "put"), concurrency, seconds, |worker, load| {
            let channel = channels[worker % CHANNELS].clone();
            async move {
                let mut latency = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).expect("a histogram");
                while Instant::now() < load.until {
                    let key = uuid(load.next.fetch_add(1, Ordering::Relaxed));
                    let began = Instant::now();
                    put(channel.clone(), key).await.expect("an answer");
                    latency.saturating_record(began.elapsed().as_micros() as u64);
                    load.claimed.fetch_add(1, Ordering::Relaxed);
                }
                latency
            }
        })
        .await;
    }
}
