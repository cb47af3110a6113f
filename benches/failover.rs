//! Time without a leader: three processes on loopback, clients that claim steadily at each of them, and
//! the leader killed with SIGKILL. From the kill to the first answer to a claim that was sent after it,
//! at one of the nodes that are left; then the dead one is started again.
//!
//! Arguments: `--kills N` for each setting (default 50).

#[path = "support/servers.rs"]
mod servers;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use self::servers::{HOSTS, Servers, argument, ask, bodies, connect};

const NODES: usize = 3;
/// Clients at each node.
const CLIENTS: usize = 4;
/// Time between two claims of a client.
const PAUSE: Duration = Duration::from_millis(5);

/// What the clients are told, and tell.
struct Watch {
    ended: AtomicBool,
    next: AtomicU64,
    refused: AtomicU64,
    /// When the leader was dead, and when the first claim that was sent later was answered.
    killed: Mutex<(Option<Instant>, Option<Instant>)>,
}

async fn claim(watch: Arc<Watch>, address: String, bodies: Arc<Vec<(String, String)>>) {
    let mut connection = None;
    while !watch.ended.load(Ordering::Relaxed) {
        tokio::time::sleep(PAUSE).await;
        let Some(open) = &mut connection else {
            connection = connect(&address).await;
            continue;
        };
        let (n, sent) = (watch.next.fetch_add(1, Ordering::Relaxed), Instant::now());
        match ask(open, &bodies[n as usize % bodies.len()], n).await {
            Some((status, ..)) if status == 200 => {
                let mut killed = watch.killed.lock().expect("not poisoned");
                if killed.0.is_some_and(|killed| killed <= sent) {
                    killed.1.get_or_insert_with(Instant::now);
                }
            }
            Some(_) => drop(watch.refused.fetch_add(1, Ordering::Relaxed)),
            None => connection = None,
        }
    }
}

async fn measure(case: &str, config: &str, kills: u64) {
    let mut servers = Servers::start(NODES, config);
    let leader = servers.leader().await;
    servers.load(leader).await;
    let watch = Arc::new(Watch {
        ended: AtomicBool::new(false),
        next: AtomicU64::new(1),
        refused: AtomicU64::new(0),
        killed: Mutex::default(),
    });
    let mut random = SmallRng::seed_from_u64(1);
    let bodies = Arc::new(bodies(&mut random));
    let clients: Vec<_> = (0..NODES * CLIENTS)
        .map(|n| claim(Arc::clone(&watch), servers.nodes[n % NODES].address.clone(), Arc::clone(&bodies)))
        .map(tokio::spawn)
        .collect();
    let mut times = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).expect("a histogram");
    for _ in 0..kills {
        let leader = servers.leader().await;
        tokio::time::sleep(Duration::from_millis(random.random_range(300..800))).await;
        let began = Instant::now();
        servers.nodes[leader].kill();
        *watch.killed.lock().expect("not poisoned") = (Some(Instant::now()), None);
        let answered = loop {
            if let Some(answered) = watch.killed.lock().expect("not poisoned").1 {
                break answered;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "no answer after the leader's death");
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        times.saturating_record(answered.duration_since(began).as_micros() as u64);
        servers.nodes[leader].start(&[]);
    }
    watch.ended.store(true, Ordering::Relaxed);
    for client in clients {
        let _ = client.await;
    }
    let seconds = |micros: u64| micros as f64 / 1e6;
    println!(
        "BENCH {}",
        json!({
            "bench": "failover", "case": case, "hosts": HOSTS, "unit": "s", "count": times.len(),
            "p50": seconds(times.value_at_quantile(0.5)), "p99": seconds(times.value_at_quantile(0.99)),
            "max": seconds(times.max()), "refused": watch.refused.load(Ordering::Relaxed),
        })
    );
}

fn main() {
    let kills = argument("--kills").unwrap_or(50);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let sooner = "raft: {heartbeat_ms: 50, election_min_ms: 150, election_max_ms: 300}\n";
        measure("election 150 to 300 ms", sooner, kills).await;
        measure("election 300 to 500 ms, the default", "", kills).await;
    });
}
