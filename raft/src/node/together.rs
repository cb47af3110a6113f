//! Several nodes in one process, over the real transport.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use scheduler::{Levels, level};
use tempfile::TempDir;

use super::{Begin, Freshness, Node, OpenError, Options};
use crate::fixture::{ask, engine, host, soon};
use crate::identity::Identity;
use crate::members::{self, Change, Changed, Role};
use crate::peer::link::{Lane, Target};
use crate::peer::message::Ask;
use crate::refused::Refused;
use crate::wal;

/// A node's folder and how it is started.
struct Place {
    folder: TempDir,
    options: Options,
}

impl Place {
    fn new(node: u64, begin: Begin, port: u16) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let mut options = Options::new(folder.path(), node);
        options.begin = begin;
        options.peer_listen = Some(([127, 0, 0, 1], port).into());
        options.wal =
            wal::Options { segment_bytes: 1 << 20, ready_segments: 1, first_segment_bytes: 64 << 10, ..options.wal };
        options.snapshot_rate = 0;
        Place { folder, options }
    }

    async fn open(&self) -> Node {
        Node::open(self.options.clone(), engine()).await.unwrap()
    }
}

/// Ports that were free a moment ago.
fn ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

async fn three(election: (u64, u64)) -> (Vec<Place>, Vec<Node>) {
    let ports = ports::<3>();
    let voters: BTreeMap<u64, String> = (1..).zip(ports.map(|port| format!("127.0.0.1:{port}"))).collect();
    let begin = |node| if node == 1 { Begin::Bootstrap(voters.clone()) } else { Begin::Wait };
    let mut places: Vec<_> = (1..).zip(ports).map(|(node, port)| Place::new(node, begin(node), port)).collect();
    for place in &mut places {
        place.options.election = election;
    }
    let mut nodes = Vec::new();
    for place in &places {
        nodes.push(place.open().await);
    }
    (places, nodes)
}

/// Waits until something holds.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long for: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn leader(nodes: &[Node]) -> usize {
    until("a leader", async || nodes.iter().position(|node| node.status().ready)).await
}

async fn checksum(node: &Node) -> u64 {
    node.read_barrier(Freshness::Linearizable).await.unwrap();
    node.query(|core| core.state().checksum()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_answers_and_a_leader_may_go() {
    let (places, mut nodes) = three((300, 500)).await;
    for (number, node) in (0..).zip(&nodes) {
        node.propose(host(number, 100)).await.unwrap();
    }
    for instance in 0..30 {
        let decision = nodes[instance as usize % 3].decide(ask(instance), soon()).await.unwrap();
        assert_eq!(decision.placements.len(), 1);
    }
    let sums = [checksum(&nodes[0]).await, checksum(&nodes[1]).await, checksum(&nodes[2]).await];
    assert!(sums[0] == sums[1] && sums[1] == sums[2], "{sums:?}");
    let cluster = nodes[0].cluster().await;
    assert_eq!((cluster.members.len(), cluster.equal), (3, Some(true)), "{cluster:?}");
    assert_eq!(cluster.members.iter().filter(|member| member.role == Role::Leader).count(), 1);

    // The leader goes; what it acknowledged stays, and its place is taken.
    let old = leader(&nodes).await;
    nodes.remove(old).shutdown().await;
    // What was on its way to the old leader may or may not have been decided.
    let decision = until("a decision", async || nodes[0].decide(ask(30), soon()).await.ok()).await;
    assert_eq!(decision.placements.len(), 1);
    nodes[1].read_barrier(Freshness::Linearizable).await.unwrap();
    assert_eq!(nodes[1].query(|core| core.state().tables().counters().consumers).await.unwrap(), 31);

    // It comes back and catches up.
    nodes.push(places[old].open().await);
    assert_eq!(checksum(&nodes[2]).await, checksum(&nodes[0]).await);
    assert_eq!(nodes[2].query(scheduler::Core::check).await.unwrap(), Vec::<String>::new());
    for node in &nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_is_decided() {
    let (_places, mut nodes) = three((300, 500)).await;
    nodes[0].propose(host(0, 100)).await.unwrap();
    let leads = leader(&nodes).await;
    let last = nodes.swap_remove(leads);
    for node in nodes {
        node.shutdown().await;
    }
    let error = last.decide(ask(1), Instant::now() + Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(error, Refused::Unknown | Refused::NoLeader(_)), "{error}");
    let none = async || last.read_barrier(Freshness::Linearizable).await.is_err().then_some(());
    until("no leader any more", none).await;
    // It does not say for ever that it leads.
    let gives_up = async || (!last.status().ready && last.status().leader.is_none()).then_some(());
    until("a leader that knows that it is none", gives_up).await;
    let error = last.read_barrier(Freshness::Linearizable).await.unwrap_err();
    assert!(error.to_string().contains("majority"), "{error}");
    last.read_barrier(Freshness::Local).await.unwrap();
    assert_eq!(last.query(|core| core.state().tables().counters().hosts).await.unwrap(), 1);
    last.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_grows_moves_and_shrinks() {
    let [first, second, third] = ports::<3>();
    let mut alone = Place::new(1, Begin::Alone, first);
    alone.options.kept_entries = 0;
    let one = alone.open().await;
    one.propose(host(0, 1000)).await.unwrap();
    for instance in 0..20 {
        one.decide(ask(instance), soon()).await.unwrap();
    }
    // The log before it is gone, so that the next node needs the snapshot.
    one.snapshot_now().await.unwrap();
    let places = [Place::new(2, Begin::Wait, second), Place::new(3, Begin::Wait, third)];
    let waits = places[0].open().await;
    let nowhere = waits.decide(ask(20), Instant::now() + Duration::from_secs(1)).await.unwrap_err();
    assert!(nowhere.to_string().contains("member of no cluster yet"), "{nowhere}");

    let add = |node: u64, port: u16| Change::Add { node, addr: format!("127.0.0.1:{port}") };
    let away = one.change(add(3, third)).await.unwrap_err();
    assert!(away.to_string().contains("does not answer"), "{away}");
    let other = one.change(add(5, second)).await.unwrap_err();
    assert!(other.to_string().contains("this is node 2, not node 5"), "{other}");
    let early = one.change(Change::Promote { node: 2 }).await.unwrap_err();
    assert!(early.to_string().contains("is no member"), "{early}");
    assert_eq!(one.change(add(2, second)).await.unwrap(), Changed::Done);
    assert_eq!(one.change(add(2, second)).await.unwrap(), Changed::Already);
    assert_eq!(checksum(&waits).await, checksum(&one).await);
    let promoted = async || one.change(Change::Promote { node: 2 }).await.ok();
    assert_eq!(until("a learner that is close", promoted).await, Changed::Done);
    assert_eq!(one.change(Change::Promote { node: 2 }).await.unwrap(), Changed::Already);

    let three = places[1].open().await;
    // Asked of a follower, done by the leader.
    waits.change(add(3, third)).await.unwrap();
    until("a learner that is close", async || waits.change(Change::Promote { node: 3 }).await.ok()).await;
    let moved = waits.change(Change::Transfer { to: 3 }).await.unwrap();
    assert_eq!(moved, Changed::Done);
    until("the new leader", async || three.status().ready.then_some(())).await;
    one.decide(ask(20), soon()).await.unwrap();

    assert_eq!(three.change(Change::Remove { node: 1 }).await.unwrap(), Changed::Done);
    assert_eq!(three.change(Change::Remove { node: 1 }).await.unwrap(), Changed::Already);
    one.shutdown().await;
    drop(one);
    // Two voters are left: with one of them away there would be no majority for its removal.
    waits.shutdown().await;
    let lost = until("a voter that is away", async || three.change(Change::Remove { node: 3 }).await.err()).await;
    assert!(lost.to_string().contains("no majority") || matches!(lost, Refused::NoLeader(_)), "{lost}");
    three.shutdown().await;

    // The folder of another time: its node id is known with a data folder that is gone.
    let waits = places[0].open().await;
    let three = places[1].open().await;
    until("a leader", async || (waits.status().ready || three.status().ready).then_some(())).await;
    assert_eq!(checksum(&waits).await, checksum(&three).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_folder_is_not_the_node_it_was() {
    let (places, mut nodes) = three((300, 500)).await;
    nodes[0].propose(host(0, 100)).await.unwrap();
    let at = (leader(&nodes).await + 1) % 3;
    nodes.remove(at).shutdown().await;
    let (node, port) = (at as u64 + 1, places[at].options.peer_listen.unwrap().port());
    let emptied = Place::new(node, Begin::Wait, port);
    let impostor = emptied.open().await;
    let add = Change::Add { node, addr: format!("127.0.0.1:{port}") };
    let refused = nodes[0].change(add).await.unwrap_err();
    assert!(refused.to_string().contains("with another data folder"), "{refused}");
    for instance in 0..5 {
        until("a decision", async || nodes[0].decide(ask(instance), soon()).await.ok()).await;
    }
    let status = impostor.status();
    assert_eq!((status.last, status.applied), (None, None), "it is told nothing");

    // Not even when it says that it is of this cluster.
    let known = places[at].folder.path().join("identity");
    let known: Identity = serde_json::from_slice(&std::fs::read(known).unwrap()).unwrap();
    impostor.0.local.peers.me.adopt(known.cluster).unwrap();
    let to = Target { node, addr: format!("127.0.0.1:{port}"), store: Some(known.store) };
    let asked = nodes[0].0.local.peers.ask(&to, Lane::Control, Ask::Report, Duration::from_secs(10)).await;
    assert!(asked.as_ref().is_err_and(|why| why.to_string().contains("has another data folder")), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_with_an_older_disk_does_not_vote() {
    // What peers remember ends with their leadership: here it shall last.
    let (places, mut nodes) = three((3000, 4000)).await;
    nodes[0].propose(host(0, 1000)).await.unwrap();
    let follower = (leader(&nodes).await + 1) % 3;
    nodes[follower].read_barrier(Freshness::Linearizable).await.unwrap();
    let node = nodes.remove(follower);
    node.shutdown().await;
    drop(node);
    let kept = tempfile::tempdir().unwrap();
    copy(places[follower].folder.path(), kept.path());
    nodes.insert(follower, places[follower].open().await);
    for instance in 0..5 {
        nodes[follower].decide(ask(instance), soon()).await.unwrap();
    }
    let number = follower as u64 + 1;
    let heard = async || nodes.iter().any(|node| node.status().lags.contains(&(number, 0))).then_some(());
    until("a leader that was told", heard).await;
    let node = nodes.remove(follower);
    node.shutdown().await;
    drop(node);
    let mut options = places[follower].options.clone();
    options.data_dir = kept.path().to_owned();
    let error = Node::open(options, engine()).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::Forgotten { .. }), "{error}");
    // The true folder is welcome.
    places[follower].open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_that_was_promoted_since_does_not_come_back_with_its_older_disk() {
    let [first, second] = ports::<2>();
    let mut alone = Place::new(1, Begin::Alone, first);
    alone.options.election = (3000, 4000);
    let one = alone.open().await;
    one.propose(host(0, 1000)).await.unwrap();
    let place = Place::new(2, Begin::Wait, second);
    let two = place.open().await;
    one.change(Change::Add { node: 2, addr: format!("127.0.0.1:{second}") }).await.unwrap();
    two.read_barrier(Freshness::Linearizable).await.unwrap();
    two.shutdown().await;
    drop(two);
    let kept = tempfile::tempdir().unwrap();
    copy(place.folder.path(), kept.path());
    let two = place.open().await;
    until("a learner that is close", async || one.change(Change::Promote { node: 2 }).await.ok()).await;
    one.decide(ask(0), soon()).await.unwrap();
    two.shutdown().await;
    drop(two);
    let mut options = place.options.clone();
    options.data_dir = kept.path().to_owned();
    let error = Node::open(options, engine()).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::Forgotten { .. }), "{error}");
    place.open().await;
}

async fn again(nodes: &mut Vec<Node>, at: usize, place: &Place) {
    let node = nodes.remove(at);
    node.shutdown().await;
    drop(node);
    nodes.insert(at, place.open().await);
}

/// The next version, as far as levels go.
const NEXT: Levels = Levels { oldest: level::NEWEST, newest: level::NEWEST + 1 };

#[tokio::test(flavor = "multi_thread")]
async fn the_level_is_raised_when_every_member_supports_it_and_not_before() {
    let (mut places, mut nodes) = three((300, 500)).await;
    // Of former levels the next version reads nothing; a snapshot is due when a level is reached.
    for node in &nodes {
        until("this level", async || (node.cluster().await.level == level::NEWEST).then_some(())).await;
        node.snapshot_now().await.unwrap();
    }
    nodes[0].propose(host(0, 100)).await.unwrap();
    // Two of three are upgraded, one after the other, and decide together with the third.
    for (at, place) in places.iter_mut().enumerate().take(2) {
        place.options.levels = NEXT;
        again(&mut nodes, at, place).await;
        until("a decision", async || nodes[at].decide(ask(at as u64), soon()).await.ok()).await;
    }
    let raised = async || members::raise(&nodes[leader(&nodes).await].0.local).await.unwrap();
    assert_eq!(raised().await, None, "the third does not support it");
    let cluster = nodes[0].cluster().await;
    assert_eq!((cluster.level, cluster.equal), (level::NEWEST, Some(true)), "{cluster:?}");
    let supported = cluster.members.iter().map(|member| member.report.as_ref().unwrap().levels.newest);
    assert_eq!(supported.collect::<Vec<_>>(), [NEXT.newest, NEXT.newest, level::NEWEST]);

    places[2].options.levels = NEXT;
    again(&mut nodes, 2, &places[2]).await;
    for node in &nodes {
        until("the next level", async || (node.cluster().await.level == NEXT.newest).then_some(())).await;
    }
    until("a decision", async || nodes[2].decide(ask(3), soon()).await.ok()).await;

    // There is no way back, and no way in for a former version.
    let [port] = ports::<1>();
    let former = Place::new(4, Begin::Wait, port);
    let waits = former.open().await;
    let add = Change::Add { node: 4, addr: format!("127.0.0.1:{port}") };
    let refused = nodes[0].change(add).await.unwrap_err();
    assert!(refused.to_string().contains("node 4 runs a pallium that supports feature level"), "{refused}");
    waits.shutdown().await;
    nodes.remove(0).shutdown().await;
    places[0].options.levels = Levels::PROGRAM;
    let error = Node::open(places[0].options.clone(), engine()).await.map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("the cluster of this folder has reached feature level"), "{error}");
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_cluster_takes_no_member_of_another() {
    let [first, second] = ports::<2>();
    let other = Place::new(2, Begin::Alone, second).open().await;
    let voters = BTreeMap::from([(1, format!("127.0.0.1:{first}")), (2, format!("127.0.0.1:{second}"))]);
    let node = Place::new(1, Begin::Bootstrap(voters), first).open().await;
    let why = until("a refusal", async || node.status().fatal).await;
    assert!(why.contains("bootstrap refused: node 2 is a member of cluster"), "{why}");
    drop(other);
}
