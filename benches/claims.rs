//! Durable claims per second of one node, through the hook and through gRPC: 1,000 hosts, 20 sent
//! in each request, a new instance each time, every claim fsynced before its answer.
//!
//! The server is a process of its own; its processor time and that of this load generator are
//! counted apart. Arguments: `--seconds N` for each case (default 5).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::proto::v1::inventory_client::InventoryClient;
use api::proto::v1::scheduler_client::SchedulerClient;
use api::proto::v1::{ApplyHostsRequest, Candidate, HostReport, InventoryMap, InventoryReport, PlaceRequest};
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
const CONCURRENCY: [usize; 3] = [1, 64, 512];
/// gRPC streams share connections, as clients do.
const CHANNELS: usize = 4;

struct Server {
    child: Child,
    address: String,
    _dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start() -> Server {
    // Under the target folder: a temporary folder may be memory, which syncs for free.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let mut child = Command::new(env!("CARGO_BIN_EXE_pallium"))
        .args(["serve", "--listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the server starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let ready: serde_json::Value = serde_json::from_str(&line).expect("the addresses as JSON");
    Server { child, address: ready["listen"].as_str().expect("an address").to_owned(), _dir: dir }
}

fn name(host: usize) -> String {
    format!("node{host:04}-bb{:02}", host / 40)
}

fn report(host: usize) -> HostReport {
    let inventory = |total| InventoryReport { total, ..InventoryReport::default() };
    let items = [("VCPU".to_owned(), inventory(1 << 30)), ("MEMORY_MB".to_owned(), inventory(1 << 40))].into();
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

async fn measure<W, F>(server: &Server, case: &str, concurrency: usize, seconds: u64, worker: W)
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
    let (server_before, own_before, began) =
        (processor(server.child.id()), processor(std::process::id()), Instant::now());
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
            "bench": "claims", "case": format!("{case}, {concurrency:>3} at once"), "hosts": HOSTS, "unit": "ms",
            "p50": percentile(0.5), "p99": percentile(0.99), "p999": percentile(0.999),
            "per_second": claimed as f64 / took,
            "server_cpu_us": micros(processor(server.child.id()) - server_before),
            "load_cpu_us": micros(processor(std::process::id()) - own_before),
        })
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let seconds = arguments.iter().position(|a| a == "--seconds").and_then(|at| arguments.get(at + 1)?.parse().ok());
    let seconds = seconds.unwrap_or(5);
    // Two cores are shared with the server: one thread is enough for the load.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let server = start();
        let endpoint = format!("http://{}", server.address);
        let mut inventory = InventoryClient::connect(endpoint.clone()).await.expect("a connection");
        let hosts = (0..HOSTS).map(report).collect();
        inventory.apply(ApplyHostsRequest { hosts, ..ApplyHostsRequest::default() }).await.expect("a loaded fleet");

        let bodies = Arc::new(bodies(&mut SmallRng::seed_from_u64(1)));
        for concurrency in CONCURRENCY {
            let address = server.address.clone();
            measure(&server, "hook", concurrency, seconds, |_, load| {
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
        let mut random = SmallRng::seed_from_u64(2);
        let sets: Vec<Vec<Candidate>> = (0..64)
            .map(|_| {
                let hosts = sample(&mut random, HOSTS, SENT).into_iter();
                hosts.map(|host| Candidate { host: name(host), node: name(host), weight: random.random() }).collect()
            })
            .collect();
        let sets = Arc::new(sets);
        for concurrency in CONCURRENCY {
            measure(&server, "gRPC", concurrency, seconds, |worker, load| {
                let (sets, channel) = (Arc::clone(&sets), channels[worker % CHANNELS].clone());
                async move {
                    let mut client = SchedulerClient::new(channel);
                    let mut latency = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).expect("a histogram");
                    while Instant::now() < load.until {
                        let n = load.next.fetch_add(1, Ordering::Relaxed);
                        let request = PlaceRequest {
                            consumers: vec![uuid(n)],
                            resources: BTreeMap::from([("VCPU".to_owned(), 4), ("MEMORY_MB".to_owned(), 16384)])
                                .into_iter()
                                .collect(),
                            extra_specs: [("capabilities:hypervisor_type".to_owned(), "QEMU".to_owned())].into(),
                            candidates: sets[n as usize % sets.len()].clone(),
                            ..PlaceRequest::default()
                        };
                        let began = Instant::now();
                        let answer = client.place(request).await.expect("an answer").into_inner();
                        assert_eq!(answer.decision.expect("a decision").placements.len(), 1);
                        latency.saturating_record(began.elapsed().as_micros() as u64);
                        load.claimed.fetch_add(1, Ordering::Relaxed);
                    }
                    latency
                }
            })
            .await;
        }
    });
}
