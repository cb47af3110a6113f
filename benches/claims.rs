//! Durable claims per second over 1,000 hosts, a new instance each time, every claim fsynced (by a
//! majority) before its answer: through the hook, which sends 20 hosts with their weights; through
//! gRPC, where the whole fleet is decided over and the answer names four hosts and no steps; and
//! through gRPC in calls for 256 instances.
//!
//! The servers are processes of their own; their processor time and that of this load generator are
//! counted apart. Arguments: `--seconds N` for each case (default 5); `--only TEXT` for the cases whose name has it;
//! `--nodes 3` for a cluster on loopback, asked at its leader; `--program FILE` for another build of it, so that two
//! can be measured in turns. With several nodes and an `etcd` on the path, as many members of
//! etcd stand beside them, and are put to under the same number of clients right after the single claims
//! through gRPC, for a machine may be twice as fast a minute later. An etcd put decides nothing.

#[path = "support/etcd.rs"]
mod etcd;
#[path = "support/servers.rs"]
mod servers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::proto::v1::scheduler_client::SchedulerClient;
use api::proto::v1::{PlaceOptions, PlaceRequest};
use hdrhistogram::Histogram;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde_json::json;
use tonic::transport::Channel;

use self::etcd::{Members, put};
use self::servers::{HOSTS, Servers, argument, ask, bodies, connect, processor, uuid, word};

const CONCURRENCY: [usize; 4] = [1, 64, 512, 2048];
/// Instances of one call.
const BATCH: usize = 256;
/// Calls for many at one time.
const BATCHES: [usize; 3] = [1, 8, 64];
/// gRPC streams share connections, as clients do.
const CHANNELS: usize = 4;

struct Load {
    next: AtomicU64,
    claimed: AtomicU64,
    until: Instant,
}

/// `busy` gives the processor time of the servers in seconds.
async fn measure<W, F>(busy: impl Fn() -> f64, (bench, case): (&str, &str), concurrency: usize, seconds: u64, worker: W)
where
    W: Fn(usize, Arc<Load>) -> F,
    F: Future<Output = Histogram<u64>> + Send + 'static,
{
    static FIRST: AtomicU64 = AtomicU64::new(1);
    let case = format!("{case}, {concurrency:>4} at once");
    if word("--only").is_some_and(|only| !case.contains(&only)) {
        return;
    }
    let load = Arc::new(Load {
        next: AtomicU64::new(FIRST.load(Ordering::Relaxed)),
        claimed: AtomicU64::new(0),
        until: Instant::now() + Duration::from_secs(seconds),
    });
    let (server_before, own_before, began) = (busy(), processor(std::process::id()), Instant::now());
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
            "bench": bench, "case": case, "hosts": HOSTS, "unit": "ms",
            "p50": percentile(0.5), "p99": percentile(0.99), "p999": percentile(0.999),
            "per_second": claimed as f64 / took,
            "server_cpu_us": micros(busy() - server_before),
            "load_cpu_us": micros(processor(std::process::id()) - own_before),
        })
    );
}

fn main() {
    let (seconds, nodes) = (argument("--seconds").unwrap_or(5), argument("--nodes").unwrap_or(1) as usize);
    let bench = if nodes == 1 { "claims".to_owned() } else { format!("claims, {nodes} nodes") };
    // Two cores are shared with the server: one thread is enough for the load.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let servers = Servers::start(nodes, "limits: {concurrency: 8192, queue: 8192}\n");
        let leader = servers.leader().await;
        servers.load(leader).await;
        let address = servers.nodes[leader].address.clone();
        let endpoint = format!("http://{address}");

        let bodies = Arc::new(bodies(&mut SmallRng::seed_from_u64(1)));
        for concurrency in CONCURRENCY {
            let address = address.clone();
            measure(
                || servers.processor(),
                (&bench, "hook"),
                concurrency,
                seconds,
                |_, load| {
                    let (bodies, address) = (Arc::clone(&bodies), address.clone());
                    async move {
                        let mut connection = connect(&address).await.expect("a connection");
                        let mut latency = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).expect("a histogram");
                        while Instant::now() < load.until {
                            let n = load.next.fetch_add(1, Ordering::Relaxed);
                            let began = Instant::now();
                            let answer = ask(&mut connection, &bodies[n as usize % bodies.len()], n).await;
                            let (status, _, bytes) = answer.expect("an answer");
                            assert!(status == 200 && bytes > 14, "a host");
                            latency.saturating_record(began.elapsed().as_micros() as u64);
                            load.claimed.fetch_add(1, Ordering::Relaxed);
                        }
                        latency
                    }
                },
            )
            .await;
        }

        let mut channels = Vec::new();
        for _ in 0..CHANNELS {
            channels
                .push(Channel::from_shared(endpoint.clone()).expect("an address").connect().await.expect("a channel"));
        }
        let members = if nodes > 1 { Members::start(nodes, CHANNELS).await } else { None };
        let batches = BATCHES.map(|calls| (BATCH, calls));
        for (batch, concurrency) in CONCURRENCY.map(|calls| (1, calls)).into_iter().chain(batches) {
            let case = if batch == 1 { "gRPC".to_owned() } else { format!("gRPC, {batch} a call") };
            measure(
                || servers.processor(),
                (&bench, &case),
                concurrency,
                seconds,
                |worker, load| {
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
                },
            )
            .await;
            if let Some(members) = members.as_ref().filter(|_| batch == 1) {
                puts(members, nodes, concurrency, seconds).await;
            }
        }
    });
}

async fn puts(members: &Members, nodes: usize, concurrency: usize, seconds: u64) {
    measure(
        || members.processor(),
        (&format!("etcd, {nodes} members"), "put"),
        concurrency,
        seconds,
        |worker, load| {
            let channel = members.channels[worker % CHANNELS].clone();
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
        },
    )
    .await;
}
