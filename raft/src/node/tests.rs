#![allow(clippy::unwrap_used)]

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use scheduler::{Command, Domain, Outcome};
use uuid::Uuid;

use super::open::assemble;
use super::{Freshness, Node, OpenError, Options};
use crate::fixture::{ask, engine, host, soon};
use crate::identity::IdentityError;
use crate::peer::grpc::Grpc;
use crate::refused::Refused;
use crate::snapshot::SnapshotError;
use crate::wal::faulty::{Disk, Faults};
use crate::wal::{self, Wal};

fn options(folder: &Path) -> Options {
    let mut options = Options::new(folder, 1);
    options.wal =
        wal::Options { segment_bytes: 256 << 10, ready_segments: 1, first_segment_bytes: 64 << 10, ..options.wal };
    options
}

async fn open(folder: &Path) -> Node {
    Node::open(options(folder), engine()).await.unwrap()
}

async fn refused(options: Options) -> OpenError {
    Node::open(options, engine()).await.map(|_| ()).unwrap_err()
}

async fn checksum(node: &Node) -> (u64, u64) {
    node.query(|core| (core.state().checksum(), core.state().tables().counters().decisions)).await.unwrap()
}

/// Decides for so many instances at once and gives how many were placed.
async fn claim(node: &Node, instances: std::ops::Range<u64>) -> usize {
    let asked: Vec<_> = instances
        .map(|instance| {
            let node = node.clone();
            tokio::spawn(async move { node.decide(ask(instance), soon()).await })
        })
        .collect();
    let mut placed = 0;
    for decision in asked {
        placed += usize::from(!decision.await.unwrap().unwrap().placements.is_empty());
    }
    placed
}

#[tokio::test]
async fn decisions_outlive_the_process_and_never_exceed_capacity() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path()).await;
    assert!(node.status().ready);
    for number in 0..4 {
        node.propose(host(number, 25)).await.unwrap();
    }
    assert_eq!(claim(&node, 0..300).await, 100);
    let status = node.status();
    assert!(status.batches < 300, "commands share batches: {status:?}");
    assert_eq!(node.query(scheduler::Core::check).await.unwrap(), Vec::<String>::new());
    let before = checksum(&node).await;
    node.shutdown().await;
    let stopped = node.decide(ask(0), soon()).await.unwrap_err();
    assert!(matches!(stopped, Refused::Stopped(_)), "{stopped}");
    drop(node);

    let node = open(folder.path()).await;
    assert_eq!(checksum(&node).await, before);
    let release = Command::Release { domain: Domain::Nova, consumer: Uuid::from_u128(7), open_only: false };
    node.propose(release).await.unwrap();
    node.read_barrier(Freshness::Linearizable).await.unwrap();
    let after = checksum(&node).await;
    node.shutdown().await;
    drop(node);
    assert_eq!(checksum(&open(folder.path()).await).await, after);
}

#[tokio::test]
async fn a_folder_with_a_past_and_no_log_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path()).await;
    node.propose(host(0, 10)).await.unwrap();
    node.snapshot_now().await.unwrap();
    // A new cluster is raised to the level of its program at once; then the identity tells of a past too.
    while node.identity().level == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    node.shutdown().await;
    drop(node);
    // The segments, then the folder of the log, then all but the identity.
    let log = folder.path().join("log");
    for entry in std::fs::read_dir(&log).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for gone in [None, Some("log"), Some("snapshots")] {
        if let Some(gone) = gone {
            std::fs::remove_dir_all(folder.path().join(gone)).unwrap();
        }
        for _ in 0..2 {
            let error = refused(options(folder.path())).await;
            assert!(matches!(error, OpenError::NoLog { .. }), "{gone:?}: {error}");
            assert!(error.to_string().contains("the log of node 1 is missing"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_snapshot_replaces_the_log_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path());
    options.kept_entries = 0;
    options.snapshot_entries = 10;
    options.wal.segment_bytes = 16 << 10;
    options.wal.first_segment_bytes = 16 << 10;
    let node = Node::open(options.clone(), engine()).await.unwrap();
    node.propose(host(0, 10_000)).await.unwrap();
    for instance in 0..200 {
        node.decide(ask(instance), soon()).await.unwrap();
    }
    let index = node.snapshot_now().await.unwrap();
    assert!(index >= 200);
    node.decide(ask(1000), soon()).await.unwrap();
    let before = checksum(&node).await;
    node.shutdown().await;
    drop(node);

    let node = Node::open(options.clone(), engine()).await.unwrap();
    assert_eq!(checksum(&node).await, before);
    assert!(node.status().last_snapshot >= Some(index));
    node.decide(ask(1001), soon()).await.unwrap();
    node.shutdown().await;
    drop(node);

    assert!(snapshots(folder.path()).len() <= 2, "two are kept");
    for snapshot in snapshots(folder.path()) {
        damage(&snapshot);
    }
    let error = refused(options).await;
    assert!(matches!(error, OpenError::Snapshot(SnapshotError::Damaged { .. })), "{error}");
}

/// Oldest first.
fn snapshots(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(folder.join("snapshots")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn damage(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let at = bytes.len() - 3;
    bytes[at] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn an_older_snapshot_and_the_log_replace_a_damaged_one() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path()).await;
    node.propose(host(0, 10_000)).await.unwrap();
    // One that is being taken already may be all that is asked for.
    for instance in 0..50 {
        node.decide(ask(instance), soon()).await.unwrap();
        node.snapshot_now().await.unwrap();
        if instance > 2 && snapshots(folder.path()).len() == 2 {
            break;
        }
    }
    let before = checksum(&node).await;
    node.shutdown().await;
    drop(node);
    assert_eq!(snapshots(folder.path()).len(), 2);
    damage(snapshots(folder.path()).last().unwrap());
    assert_eq!(checksum(&open(folder.path()).await).await, before);
}

#[tokio::test]
async fn a_folder_belongs_to_one_node_and_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path()).await;
    let second = refused(options(folder.path())).await;
    assert!(matches!(second, OpenError::Log(wal::OpenError::Locked(_))), "{second}");
    node.shutdown().await;
    drop(node);

    let mut other = options(folder.path());
    other.node_id = 2;
    let error = refused(other).await;
    assert!(matches!(error, OpenError::Identity(IdentityError::OtherNode { found: 1, expected: 2, .. })), "{error}");
    let mut other = options(folder.path());
    other.cluster = Some(Uuid::from_u128(5));
    assert!(matches!(refused(other).await, OpenError::Identity(IdentityError::OtherCluster { .. })));
    std::fs::remove_file(folder.path().join("identity")).unwrap();
    assert!(matches!(refused(options(folder.path())).await, OpenError::Identity(IdentityError::Missing(_))));
}

#[tokio::test]
async fn a_question_leaves_no_trace_and_a_passed_deadline_decides_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path()).await;
    node.propose(host(0, 5)).await.unwrap();
    let before = checksum(&node).await;
    assert_eq!(node.probe(ask(1)).await.unwrap().hosts.len(), 1);
    let late = node.0.local.owner.decide(ask(1).into(), Instant::now()).await;
    assert_eq!(late.unwrap_err(), Refused::Deadline);
    assert_eq!(checksum(&node).await, before);
}

/// The disk fails under a running node: it stops, tells why, and what it acknowledged is there.
async fn failing(faults: Faults, expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let opts = Arc::new(options(folder.path()));
    let start = |disk: &Disk| {
        let (files, opts) = (disk.files(), Arc::clone(&opts));
        let opened = std::thread::spawn(move || {
            let wal = Wal::open_in(&files, &opts.wal).unwrap();
            assemble(&opts, engine(), wal, Arc::new(Grpc::default())).unwrap()
        });
        opened.join().unwrap()
    };
    let node = start(&disk);
    node.propose(host(0, 1_000_000)).await.unwrap();
    node.decide(ask(0), soon()).await.unwrap();
    disk.set(faults);
    let mut acknowledged = 1;
    let error = loop {
        match node.decide(ask(acknowledged), soon()).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Refused::Unknown | Refused::Stopped(_)), "{error}");
    // The failure reaches the owner thread in its own time; until then nothing is acknowledged.
    let reason = loop {
        match node.decide(ask(acknowledged), soon()).await.unwrap_err() {
            Refused::Stopped(reason) => break reason,
            Refused::Unknown | Refused::NotLeader => tokio::task::yield_now().await,
            other => panic!("{other}"),
        }
    };
    assert!(reason.contains(expected), "{reason}");
    assert!(reason.contains("nothing acknowledged is lost"), "{reason}");
    assert_eq!(node.status().fatal, Some(reason));
    assert!(!node.status().ready);
    node.shutdown().await;
    drop(node);
    disk.crash(|_| false);
    let node = start(&disk);
    let found = node.query(|core| core.state().tables().counters().decisions).await.unwrap();
    assert_eq!(found, acknowledged);
}

#[tokio::test]
async fn a_failed_sync_stops_the_node() {
    failing(Faults { sync: Some((3, ErrorKind::Other)), ..Faults::default() }, "syncing failed").await;
}

#[tokio::test]
async fn a_failed_write_stops_the_node() {
    failing(Faults { write: Some((3, ErrorKind::Other)), ..Faults::default() }, "writing failed").await;
}

#[tokio::test]
async fn a_full_disk_stops_the_node() {
    failing(Faults { create: Some(ErrorKind::StorageFull), ..Faults::default() }, "no space left").await;
}

#[tokio::test]
async fn a_question_that_panics_harms_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path()).await;
    let answer = node.query(|_| -> u32 { panic!("on purpose") }).await;
    assert!(matches!(answer, Err(Refused::Stopped(_))));
    node.propose(host(0, 5)).await.unwrap();
    assert_eq!(claim(&node, 0..1).await, 1);
}

#[tokio::test]
async fn commands_have_outcomes() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path()).await;
    assert!(matches!(node.propose(host(0, 5)).await.unwrap(), Outcome::Reported(_)));
    assert_eq!(node.propose(Command::Tick).await.unwrap(), Outcome::Expired(0));
}
