#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::{RestoreError, recover, restore};
use crate::fixture::{ask, engine, host, soon};
use crate::verify::verify;
use crate::{Node, Options};

fn options(folder: &Path) -> Options {
    let mut options = Options::new(folder, 1);
    options.wal.segment_bytes = 256 << 10;
    options.wal.first_segment_bytes = 64 << 10;
    options
}

async fn open(folder: &Path) -> Node {
    Node::open(options(folder), engine()).await.unwrap()
}

async fn state(node: &Node) -> (u64, u64, u64) {
    let counters = node.query(|core| *core.state().tables().counters()).await.unwrap();
    (counters.decisions, counters.consumers, counters.epoch)
}

#[tokio::test]
async fn a_restored_cluster_goes_on_from_the_backup_under_a_new_name() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let node = open(old.path()).await;
    node.propose(host(0, 10)).await.unwrap();
    for instance in 0..4 {
        node.decide(ask(instance), soon()).await.unwrap();
    }
    let mut bytes = Vec::new();
    node.backup().await.unwrap().write(&mut bytes, |_| ()).unwrap();
    node.decide(ask(9), soon()).await.unwrap();
    let was = node.identity();
    node.shutdown().await;
    drop(node);
    let file = old.path().join("x.backup");
    std::fs::write(&file, bytes).unwrap();

    let begun = restore(&file, new.path(), 1, "").unwrap();
    assert_eq!((begun.from, begun.consumers, begun.epoch), (Some(was.cluster), 4, 1));
    assert!(begun.cluster != was.cluster && begun.store != was.store);
    assert!(matches!(restore(&file, new.path(), 1, ""), Err(RestoreError::NotEmpty(_))));
    assert_eq!(verify(new.path()).unwrap().damaged, Vec::<String>::new());
    for start in 0..2 {
        let node = open(new.path()).await;
        assert_eq!(node.identity().cluster, begun.cluster);
        assert_eq!(state(&node).await, (4 + start, 4 + start, 1), "start {start}");
        node.decide(ask(20 + start), soon()).await.unwrap();
        assert_eq!(node.query(scheduler::Core::check).await.unwrap(), Vec::<String>::new());
        node.shutdown().await;
    }
}

#[tokio::test]
async fn a_survivor_keeps_all_it_has_whatever_snapshot_it_took() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut options = options(&data);
    options.kept_entries = 0;
    options.wal.segment_bytes = 16 << 10;
    options.wal.first_segment_bytes = 16 << 10;
    let node = Node::open(options, engine()).await.unwrap();
    node.propose(host(0, 1000)).await.unwrap();
    for instance in 0..300 {
        if instance == 200 {
            node.snapshot_now().await.unwrap();
        }
        node.decide(ask(instance), soon()).await.unwrap();
    }
    let checksum = node.query(|core| core.state().checksum()).await.unwrap();
    node.shutdown().await;
    drop(node);
    let verified = verify(&data).unwrap();
    assert_eq!(verified.damaged, Vec::<String>::new());
    assert_eq!(verified.state.unwrap().checksum, format!("{checksum:016x}"), "what the node had");
    assert_eq!(verified.snapshots.len(), 1);

    let begun = recover(&data, "").unwrap();
    assert_eq!((begun.consumers, begun.epoch), (300, 1));
    assert!(begun.kept.unwrap().join("log").is_dir());
    let node = open(&data).await;
    assert_eq!(state(&node).await, (300, 300, 1));
    node.shutdown().await;
    drop(node);
    assert!(matches!(recover(&data, ""), Err(RestoreError::NotEmpty(_))), "the kept folder is not overwritten");
}
