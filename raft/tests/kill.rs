//! A node is killed in the middle of its work, again and again: nothing it acknowledged is lost.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use raft::{Node, Options};
use scheduler::{Domain, Purpose};
use uuid::Uuid;

#[path = "../src/fixture.rs"]
mod fixture;

/// Set for the process that is killed: its data folder, and the first instance it asks for.
const FOLDER: &str = "PALLIUM_TEST_FOLDER";
const FIRST: &str = "PALLIUM_TEST_FIRST";
const ROUNDS: usize = 4;
const EACH: usize = 150;

fn options(folder: &Path) -> Options {
    let mut options = Options::new(folder, 1);
    options.wal.segment_bytes = 64 << 10;
    options.wal.first_segment_bytes = 64 << 10;
    options.kept_entries = 0;
    options.snapshot_entries = 100;
    options
}

/// The process that is killed: claims for one instance after another, on eight tasks, and prints
/// each that was acknowledged.
#[tokio::test]
async fn victim() {
    let (Ok(folder), Ok(first)) = (std::env::var(FOLDER), std::env::var(FIRST)) else { return };
    let first: u64 = first.parse().unwrap();
    let node = Node::open(options(&PathBuf::from(folder)), fixture::engine()).await.unwrap();
    node.propose(fixture::host(0, 1_000_000)).await.unwrap();
    let tasks = (0..8).map(|task| {
        let node = node.clone();
        tokio::spawn(async move {
            for instance in (first + task..).step_by(8) {
                let decision = node.decide(fixture::ask(instance), fixture::soon()).await.unwrap();
                assert_eq!(decision.placements.len(), 1);
                println!("\nacknowledged {instance}");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "victim", "--nocapture"])
            .env(FOLDER, folder.path())
            .env(FIRST, (round * 1_000_000).to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        let told = lines.map(Result::unwrap).filter_map(|line| line.strip_prefix("acknowledged ")?.parse::<u64>().ok());
        acknowledged.extend(told.take(EACH));
        victim.kill().unwrap();
        victim.wait().unwrap();
        assert_eq!(acknowledged.len(), (round + 1) * EACH, "the node ended by itself");
        let node = Node::open(options(folder.path()), fixture::engine()).await.unwrap();
        let asked = acknowledged.clone();
        let lost = node.query(move |core| {
            let there = |instance: &u64| {
                let uuid = Uuid::from_u128(u128::from(*instance) + 1);
                core.state().tables().consumer(Domain::Nova, uuid, Purpose::default()).is_some()
            };
            asked.into_iter().filter(|instance| !there(instance)).collect::<Vec<_>>()
        });
        assert_eq!(lost.await.unwrap(), Vec::<u64>::new());
        assert_eq!(node.query(scheduler::Core::check).await.unwrap(), Vec::<String>::new());
        node.shutdown().await;
    }
}
