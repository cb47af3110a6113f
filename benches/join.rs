//! A new node joins a cluster that has much: a lone server is started from a backup of 100,000 hosts and
//! 1,000,000 consumers, another one is added. What it takes from `ctl cluster add` until the new node
//! has applied all; the bytes; and what each of the two holds in memory.
//!
//! Arguments: `--hosts N` (default 100,000), with ten consumers on each.

#[path = "support/estate.rs"]
mod estate;
#[path = "support/servers.rs"]
mod servers;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use raft::Backup;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde_json::json;

use self::servers::{Servers, argument, ports};

const ON_EACH: usize = 10;

fn pallium(arguments: &[&str]) {
    let done = Command::new(env!("CARGO_BIN_EXE_pallium")).args(arguments).output().expect("pallium runs");
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn main() {
    let hosts = argument("--hosts").unwrap_or(100_000) as usize;
    let mut servers = Servers::none();
    let ports = ports(4);
    servers.add(1, (ports[0], ports[1]), "");
    servers.add(2, (ports[2], ports[3]), "");
    let backup = servers.nodes[0].data.with_extension("backup");
    let consumers = save(hosts, &backup);

    let peer = servers.nodes[0].peer.clone();
    pallium(&["ctl", "restore", text(&backup), "--data-dir", text(&servers.nodes[0].data), "--peer-addr", &peer]);
    let began = Instant::now();
    servers.nodes[0].start(&[]);
    let started = began.elapsed().as_secs_f64();
    servers.nodes[1].start(&["--join"]);
    let (url, peer) = (format!("http://{}", servers.nodes[0].address), servers.nodes[1].peer.clone());

    let began = Instant::now();
    pallium(&["ctl", "--server", &url, "cluster", "add", "2", &peer, "--no-wait"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let joined = async |servers: &Servers| {
            let status = servers.status(0).await?;
            let new = status.members.iter().find(|member| member.node == 2)?;
            (new.applied_index? > 0 && new.lag == Some(0)).then_some(())
        };
        while joined(&servers).await.is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let took = began.elapsed().as_secs_f64();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let (snapshot, [old, new]) = (snapshot_bytes(&servers.nodes[1].data), [0, 1].map(|at| servers.nodes[at].memory()));
    println!(
        "BENCH {}",
        json!({
            "bench": "join", "case": "from a snapshot", "hosts": hosts, "consumers": consumers, "seconds": took,
            "start_seconds": started, "sent_mib": mib(snapshot), "old_rss_mib": mib(old.0), "old_peak_mib": mib(old.1),
            "new_rss_mib": mib(new.0), "new_peak_mib": mib(new.1),
        })
    );
}

/// Writes the backup, and gives back what building it took from this process.
fn save(hosts: usize, backup: &Path) -> u64 {
    let (core, _) = estate::build(hosts, ON_EACH, &mut SmallRng::seed_from_u64(42));
    let mut out = BufWriter::new(File::create(backup).expect("a file"));
    Backup::of(core.freeze()).write(&mut out, |_| ()).expect("written");
    out.flush().expect("written");
    core.state().tables().counters().consumers
}

/// Bytes of the newest snapshot in a data folder.
fn snapshot_bytes(data: &Path) -> u64 {
    let files = fs::read_dir(data.join("snapshots")).expect("a folder").flatten();
    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).max().unwrap_or(0)
}
