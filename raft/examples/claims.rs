//! Measures a lone node on a real disk: `cargo run --release -p raft --example claims -- [folder] [hosts]`.
//!
//! Durable claims per second with 1, 64 and 512 requests in flight, and entries per second of the
//! log alone. With few hosts a decision costs little and replication is measured; with many it is the
//! scan and the sort. Numbers mean nothing without the machine: two of them on the same one can be compared.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use raft::wal::{Entry, LogId, Wal};
use raft::{Node, Options};

#[path = "../src/fixture.rs"]
mod fixture;

const RUN: Duration = Duration::from_secs(5);

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let folder = std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("pallium-claims"), PathBuf::from);
    log_alone(&folder.join("log-alone"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(claims(&folder.join("node")))?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

fn log_alone(folder: &Path) -> Result<(), Failure> {
    let wal = Wal::open(folder, &raft::wal::Options::default())?;
    let (batch, size, at_once) = (64, 300, 4);
    let (tell, told) = sync_channel(at_once);
    let started = Instant::now();
    let mut index = 0;
    while started.elapsed() < RUN {
        let entries = (index..index + batch)
            .map(|index| Entry { id: LogId { term: 1, node: 1, index }, kind: 1, data: vec![7; size].into() })
            .collect();
        index += batch;
        let tell = tell.clone();
        wal.append(entries, Box::new(move |result| drop(tell.try_send(result))))?;
        if index / batch > at_once as u64 {
            told.recv()??;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let stats = wal.stats();
    println!(
        "log alone, {batch} x {size} B: {:.0} entries/s, {:.0} syncs/s, {:.1} entries per sync",
        stats.entries as f64 / seconds,
        stats.syncs as f64 / seconds,
        stats.entries as f64 / stats.syncs as f64
    );
    Ok(())
}

async fn claims(folder: &Path) -> Result<(), Failure> {
    let started = Instant::now();
    let mut options = Options::new(folder, 1);
    if let Some(in_flight) = std::env::var("IN_FLIGHT").ok().and_then(|text| text.parse().ok()) {
        options.limits.in_flight = in_flight;
    }
    let node = Node::open(options, fixture::engine()).await?;
    println!("empty folder to leader: {:?}", started.elapsed());
    let hosts = std::env::args().nth(2).and_then(|text| text.parse().ok()).unwrap_or(10);
    for number in 0..hosts {
        node.propose(fixture::host(number, 1_000_000)).await?;
    }
    let next = Arc::new(AtomicU64::new(0));
    for at_once in [1, 64, 512] {
        let (before, cpu, started) = (node.status(), cpu_seconds(), Instant::now());
        let mut clients = Vec::new();
        for _ in 0..at_once {
            let (node, next) = (node.clone(), Arc::clone(&next));
            clients.push(tokio::spawn(async move {
                let mut waited = Vec::new();
                while started.elapsed() < RUN {
                    let asked = Instant::now();
                    let instance = next.fetch_add(1, Ordering::Relaxed);
                    node.decide(fixture::ask(instance), asked + Duration::from_secs(10)).await?;
                    waited.push(asked.elapsed());
                }
                Ok::<_, raft::Refused>(waited)
            }));
        }
        let mut waited = Vec::new();
        for client in clients {
            waited.extend(client.await??);
        }
        let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        let after = node.status();
        waited.sort();
        let claims = waited.len() as f64;
        println!(
            "{at_once} in flight: {:.0} claims/s, p50 {:?}, p99 {:?}, {:.0} syncs/s, {:.1} commands per batch, {:.1} us of CPU per claim",
            claims / seconds,
            waited[waited.len() / 2],
            waited[waited.len() * 99 / 100],
            (after.syncs - before.syncs) as f64 / seconds,
            (after.commands - before.commands) as f64 / (after.batches - before.batches) as f64,
            cpu * 1e6 / claims,
        );
    }
    let started = Instant::now();
    let index = node.snapshot_now().await?;
    println!("snapshot up to {index}: {:?}", started.elapsed());
    node.shutdown().await;
    drop(node);
    let started = Instant::now();
    let node = Node::open(Options::new(folder, 1), fixture::engine()).await?;
    println!("restart to leader: {:?}", started.elapsed());
    node.shutdown().await;
    Ok(())
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
