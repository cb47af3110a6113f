//! The cluster under faults: real processes, clients that place, move, release and read, a nemesis,
//! and a check that what the clients saw has an order in which no claim is lost, doubled or made up.
//!
//! The short form does each kind of fault once. `cargo xtask chaos --minutes N --seed S` runs the
//! long one. The seed fixes what is chosen, not when it happens: these are real processes.

#![allow(clippy::unwrap_used)]

mod check;
mod client;
mod cluster;
mod history;
mod nemesis;
#[path = "../support/network.rs"]
mod network;
mod relay;
mod verdict;
mod workload;

use std::env;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use client::Came;
use cluster::Cluster;
use nemesis::{Nemesis, RECOVERY, Step};
use verdict::Report;
use workload::{CLIENTS, Workload, fleet};

/// How long each fault of the short form lasts: about five minutes in all.
const SHORT: Duration = Duration::from_secs(15);
/// How long a fault of the long form lasts, seconds.
const LONG: (u64, u64) = (2, 12);
const SEED: u64 = 1;
/// Failures that are told at the end.
const TOLD: usize = 5;

/// A number that `cargo xtask chaos` sets.
fn given<T: FromStr>(name: &str) -> Option<T> {
    env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn no_claim_is_lost_doubled_or_made_up() {
    let minutes: Option<u64> = given("PALLIUM_CHAOS_MINUTES");
    let seed = given("PALLIUM_CHAOS_SEED").unwrap_or(SEED);
    let nodes = given("PALLIUM_CHAOS_NODES").unwrap_or(3);
    println!("chaos: seed {seed}, {nodes} nodes, {CLIENTS} clients");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // Processes are started on this thread, which lasts as long as they do.
    let failed = runtime.block_on(async {
        let mut cluster = Cluster::new(nodes);
        let interrupted = async {
            let mut interrupt = signal(SignalKind::interrupt()).unwrap();
            let mut terminate = signal(SignalKind::terminate()).unwrap();
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        };
        let report = tokio::select! {
            report = run(&mut cluster, seed, minutes) => Some(report),
            () = interrupted => None,
        };
        let Some(report) = report else {
            cluster.forget();
            return vec!["interrupted".to_owned()];
        };
        println!("{} passed, {} failed", report.passed, report.failed.len());
        if report.failed.is_empty() {
            cluster.forget();
        } else {
            println!("configs, logs and data of the nodes: {}", cluster.folder.display());
        }
        report.failed
    });
    let told = failed.iter().take(TOLD).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(failed.is_empty(), "seed {seed}, {} failed, the first of them:\n{told}", failed.len());
}

async fn run(cluster: &mut Cluster, seed: u64, minutes: Option<u64>) -> Report {
    let mut random = SmallRng::seed_from_u64(seed);
    let workload = Arc::new(Workload::new(cluster.voters.iter().map(|&id| cluster.url(id)).collect()));
    cluster.voters.clone().into_iter().for_each(|id| cluster.start(id));
    begin(cluster, &workload).await;

    let (stop, stopped) = watch::channel(false);
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(Arc::clone(&workload).client(random.random(), stopped.clone()));
    }
    let mut nemesis = Nemesis::new(cluster, &workload, SmallRng::seed_from_u64(random.random()));
    match minutes {
        None => {
            for step in Step::ALL {
                if nemesis.can(step) {
                    nemesis.step(step, SHORT).await;
                } else {
                    println!("skipped here: {step:?}");
                }
            }
        }
        Some(minutes) => {
            let until = Instant::now() + Duration::from_mins(minutes);
            if nemesis.can(Step::FullDisk) {
                nemesis.step(Step::FullDisk, SHORT).await;
            }
            while Instant::now() < until {
                let chosen = nemesis.choose();
                nemesis.step(chosen, Duration::from_secs(random.random_range(LONG.0..=LONG.1))).await;
            }
        }
    }
    let failures = std::mem::take(&mut nemesis.failures);
    let _ = stop.send(true);
    let mut report = Report::default();
    report.check((!failures.is_empty()).then(|| failures.join("; ")));
    while let Some(client) = clients.join_next().await {
        report.check(client.err().map(|error| error.to_string()));
    }
    verdict::agreement(cluster, &workload, &mut report).await;
    verdict::folders(cluster, &mut report);
    verdict::history(&workload, &mut report);
    tell(&workload);
    report
}

/// Waits for the first leader and gives it the fleet.
async fn begin(cluster: &mut Cluster, workload: &Workload) {
    let until = Instant::now() + RECOVERY;
    loop {
        let url = format!("{}/v1/hosts", cluster.url(1));
        let came = workload.http.send("POST", &url, Some(&fleet())).await;
        if matches!(came, Came::Done(_)) {
            return;
        }
        let may = cluster.runs(1) && Instant::now() < until;
        assert!(may, "the cluster did not begin: {came:?}; logs: {}", cluster.folder.display());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn tell(workload: &Workload) {
    let records = workload.history.records();
    println!("{:12} {:>8} {:>8} {:>8}", "", "ok", "refused", "unknown");
    for (kind, ends) in &records.ends {
        println!("{kind:12} {:>8} {:>8} {:>8}", ends.ok, ends.refused, ends.unknown);
    }
    let (gap, end) = records.gap;
    println!("longest time without a success: {:.1} s, until {:.1} s", gap.as_secs_f64(), end.as_secs_f64());
    println!(
        "{} instances, {} calls about them",
        records.calls.len(),
        records.calls.values().map(Vec::len).sum::<usize>()
    );
}
