//! A flood beyond what a server takes: 64 clients are measured, at first alone, then beside thousands that
//! ask as fast as they are answered, then beside bodies that are announced and never come, then alone
//! again. Told are the times of what was admitted, what was refused (and whether each refusal said when
//! to ask again), and the most memory that the server ever took.
//!
//! Arguments: `--seconds N` for each part (default 5), `--crowd N` clients that are not measured (2,000).

#[path = "support/servers.rs"]
mod servers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use self::servers::{HOSTS, Servers, argument, ask, bodies, connect};

const MEASURED: u64 = 64;
/// Bodies that never come, announced with the most that a body may have.
const HOLLOW: u64 = 64;
const BODY: usize = 16 << 20;

struct Part {
    address: String,
    bodies: Arc<Vec<(String, String)>>,
    until: Instant,
    refused: AtomicU64,
    without_hint: AtomicU64,
    broken: AtomicU64,
}

static NEXT: AtomicU64 = AtomicU64::new(1);

/// Asks until the end; the times of what was admitted, microseconds.
async fn client(part: Arc<Part>, pause: Duration) -> Histogram<u64> {
    let mut times = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).expect("a histogram");
    let mut connection = connect(&part.address).await;
    while Instant::now() < part.until {
        let Some(open) = &mut connection else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            connection = connect(&part.address).await;
            continue;
        };
        let (n, began) = (NEXT.fetch_add(1, Ordering::Relaxed), Instant::now());
        match ask(open, &part.bodies[n as usize % part.bodies.len()], n).await {
            Some((status, ..)) if status == 200 => times.saturating_record(began.elapsed().as_micros() as u64),
            Some((status, retry, _)) => {
                part.refused.fetch_add(1, Ordering::Relaxed);
                part.without_hint.fetch_add(u64::from(status == 503 && retry.is_none()), Ordering::Relaxed);
                tokio::time::sleep(pause).await;
            }
            None => {
                part.broken.fetch_add(1, Ordering::Relaxed);
                connection = None;
            }
        }
    }
    times
}

/// Announces a body and sends none of it, again and again.
async fn hollow(part: Arc<Part>) {
    let head = format!(
        "POST /scheduler/nova/external HTTP/1.1\r\nhost: pallium\r\ncontent-type: application/json\r\n\
         content-length: {BODY}\r\n\r\n{{"
    );
    while Instant::now() < part.until {
        if let Ok(mut stream) = tokio::net::TcpStream::connect(&part.address).await {
            let _ = stream.write_all(head.as_bytes()).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

async fn measure(servers: &Servers, case: &str, seconds: u64, (crowd, hollows): (u64, u64)) {
    let part = Arc::new(Part {
        address: servers.nodes[0].address.clone(),
        bodies: Arc::new(bodies(&mut SmallRng::seed_from_u64(1))),
        until: Instant::now() + Duration::from_secs(seconds),
        refused: AtomicU64::new(0),
        without_hint: AtomicU64::new(0),
        broken: AtomicU64::new(0),
    });
    let others: Vec<_> = (0..crowd)
        .map(|_| tokio::spawn(client(Arc::clone(&part), Duration::ZERO)))
        .chain((0..hollows).map(|_| {
            let hollow = hollow(Arc::clone(&part));
            tokio::spawn(async {
                hollow.await;
                Histogram::new(3).expect("a histogram")
            })
        }))
        .collect();
    // Who is refused asks again after a moment: less than it is told, so that much is measured.
    let measured: Vec<_> =
        (0..MEASURED).map(|_| tokio::spawn(client(Arc::clone(&part), Duration::from_millis(20)))).collect();
    let mut times = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).expect("a histogram");
    for client in measured {
        times.add(client.await.expect("a client")).expect("the same shape");
    }
    let mut admitted = times.len();
    for other in others {
        admitted += other.await.expect("a client").len();
    }
    let (millis, count) = (|q| times.value_at_quantile(q) as f64 / 1000.0, |of: &AtomicU64| of.load(Ordering::Relaxed));
    let (now, peak) = servers.nodes[0].memory();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "BENCH {}",
        json!({
            "bench": "flood", "case": case, "hosts": HOSTS, "unit": "ms", "count": times.len(), "p50": millis(0.5),
            "p99": millis(0.99), "max": times.max() as f64 / 1000.0, "per_second": admitted as f64 / seconds as f64,
            "refused": count(&part.refused), "without_hint": count(&part.without_hint),
            "broken": count(&part.broken), "rss_mib": mib(now), "peak_mib": mib(peak),
        })
    );
}

fn main() {
    let (seconds, crowd) = (argument("--seconds").unwrap_or(5), argument("--crowd").unwrap_or(2000));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let servers = Servers::start(1, "limits: {concurrency: 256, queue: 128, deadline_ms: 1000}\n");
        servers.load(0).await;
        measure(&servers, "1 before", seconds, (0, 0)).await;
        measure(&servers, "2 a crowd", seconds, (crowd, 0)).await;
        measure(&servers, "3 after it", seconds, (0, 0)).await;
        measure(&servers, "4 hollow bodies", seconds, (0, HOLLOW)).await;
        measure(&servers, "5 after them", seconds, (0, 0)).await;
    });
}
