//! Opening a node: from a data folder to a leader that has applied all it had committed.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::alias::WatchReceiverOf;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::ClientWriteError;
use openraft::metrics::RaftServerMetrics;
use openraft::raft::ClientWriteResult;
use openraft::{Config, Raft, RaftMetrics, ServerState, SnapshotPolicy};
use scheduler::{Core, Engine};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::{Inner, Node, Parts};
use crate::identity::{Identity, IdentityError, identify};
use crate::machine::Machine;
use crate::network::Network;
use crate::owner::{Fate, Limits, Owner, Proposed};
use crate::snapshot::{Folder, SnapshotError};
use crate::store::LogStore;
use crate::types::{Callback, Member, Payload, TypeConfig, Vote};
use crate::wal::{self, Wal};

/// How a node is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of the log, the snapshots and the identity. Created when absent.
    pub data_dir: PathBuf,
    /// The node's number in its cluster; never reused for an emptied folder of a cluster.
    pub node_id: u64,
    /// The cluster; none: the folder's, or a new one.
    pub cluster: Option<Uuid>,
    /// Address of its Raft port, as others reach it; empty for a lone node.
    pub addr: String,
    /// Limits of the owner thread.
    pub limits: Limits,
    /// Log entries after which a snapshot is taken.
    pub snapshot_entries: u64,
    /// Bytes of log after which a snapshot is taken, if that comes first.
    pub snapshot_bytes: u64,
    /// Log entries kept although a snapshot covers them, so that a follower that was away for a
    /// while needs no snapshot.
    pub kept_entries: u64,
    /// Sizes of the log.
    pub wal: wal::Options,
    /// How long to wait until a lone voter leads.
    pub ready_within: Duration,
}

impl Options {
    /// The defaults, for this folder and node.
    pub fn new(data_dir: impl Into<PathBuf>, node_id: u64) -> Options {
        Options {
            data_dir: data_dir.into(),
            node_id,
            cluster: None,
            addr: String::new(),
            limits: Limits::default(),
            snapshot_entries: 200_000,
            snapshot_bytes: 1 << 30,
            kept_entries: 100_000,
            wal: wal::Options::default(),
            ready_within: Duration::from_mins(1),
        }
    }
}

/// Why a node could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log.
    #[error(transparent)]
    Log(#[from] wal::OpenError),
    /// The identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The snapshots.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The newest snapshot is older than the start of the log.
    #[error("{folder}: the snapshot ends at index {snapshot:?}, but the log begins at {log}: what is between is lost; restore the newest snapshot, or empty the data folder and let the node join again with a new node id", folder = .folder.display())]
    Gap {
        /// The data folder.
        folder: PathBuf,
        /// Last index in the snapshot.
        snapshot: Option<u64>,
        /// First index in the log.
        log: u64,
    },
    /// A thread could not be started.
    #[error("a thread could not be started: {0}; raise the limit of threads")]
    Thread(#[from] std::io::Error),
    /// openraft refused to start.
    #[error("replication could not be started: {0}")]
    Raft(String),
    /// The lone voter does not lead in time.
    #[error("the node does not lead after {waited:?}: {what}; look at the log for the cause")]
    NotReady {
        /// How long was waited.
        waited: Duration,
        /// What openraft says.
        what: String,
    },
}

impl Node {
    /// Opens a node. An empty folder becomes a cluster of one voter. Returns when the node leads
    /// and has applied the entry that opened its term, or, when there are other voters, at once.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing keeps running then.
    pub async fn open(options: Options, engine: Engine) -> Result<Node, OpenError> {
        let (tell, told) = oneshot::channel();
        // Reads the log and a snapshot, which a runtime's thread must not wait for.
        std::thread::Builder::new().name("open".into()).spawn(move || {
            let _ = tell.send(open(&options, engine));
        })?;
        told.await.unwrap_or_else(|_| Err(OpenError::Raft("the opening thread ended".to_owned())))
    }
}

fn open(options: &Options, engine: Engine) -> Result<Node, OpenError> {
    let wal = Wal::open(&options.data_dir.join("log"), &options.wal)?;
    assemble(options, engine, wal)
}

/// Puts a node together on an open log.
pub(super) fn assemble(options: &Options, engine: Engine, wal: Wal) -> Result<Node, OpenError> {
    let wal = Arc::new(wal);
    let has_log = wal.vote().is_some() || wal.ends().1.is_some();
    let identity = identify(&options.data_dir, options.node_id, options.cluster, has_log)?;
    let folder = Folder::open(&options.data_dir.join("snapshots"))?;
    let (core, snapshot) = match folder.load_newest()? {
        Some((path, header, core)) => (core, Some((path, header))),
        None => (Core::new(), None),
    };
    let covered = snapshot.as_ref().and_then(|(_, header)| header.last).map(|last| last.index);
    if let (Some(purged), _) = wal.ends()
        && covered.is_none_or(|covered| covered < purged.index)
    {
        return Err(OpenError::Gap { folder: options.data_dir.clone(), snapshot: covered, log: purged.index + 1 });
    }
    let (proposals, proposed) = mpsc::unbounded_channel();
    let run = RandomState::new().hash_one(identity.store);
    let (owner, thread) = Owner::start(core, engine, options.limits.clone(), (identity.node, run), proposals)?;
    let machine = Machine::new(owner.clone(), folder, snapshot);
    let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("raft").enable_all().build()?;
    let started = runtime.block_on(start(options, identity, &owner, machine, &wal, proposed));
    let raft = match started {
        Ok(raft) => raft,
        Err(error) => {
            take_apart(runtime, &owner, thread, &wal);
            return Err(error);
        }
    };
    let parts = Mutex::new(Some(Parts { runtime, owner: thread }));
    Ok(Node(Arc::new(Inner { identity, owner, wal, raft, parts })))
}

fn take_apart(runtime: Runtime, owner: &Owner, thread: std::thread::JoinHandle<()>, wal: &Wal) {
    runtime.shutdown_timeout(Duration::from_secs(5));
    owner.end();
    let _ = thread.join();
    wal.close();
}

fn config(options: &Options, identity: Identity) -> Config {
    Config {
        cluster_name: identity.cluster.to_string(),
        heartbeat_interval: 100,
        election_timeout_min: 300,
        election_timeout_max: 500,
        enable_pre_vote: Some(true),
        // Unset it means true: a restarted leader would lead on in its old term, before it has applied
        // entries that it acknowledged but had not yet marked as committed.
        enable_leader_restore: Some(false),
        max_payload_entries: 1024,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(options.snapshot_entries),
        max_in_snapshot_log_to_keep: options.kept_entries,
        replication_lag_threshold: options.snapshot_entries.saturating_mul(2),
        purge_batch_size: 4096.min(options.snapshot_entries.max(1)),
        install_snapshot_timeout: 60_000,
        backoff: "50ms ..500ms".to_owned(),
        ..Config::default()
    }
}

async fn start(
    options: &Options,
    identity: Identity,
    owner: &Owner,
    machine: Machine,
    wal: &Arc<Wal>,
    proposed: mpsc::UnboundedReceiver<Proposed>,
) -> Result<Raft<TypeConfig, Machine>, OpenError> {
    let refused = |error: String| match wal.failure() {
        Some(failure) => OpenError::Raft(failure.to_string()),
        None => OpenError::Raft(error),
    };
    let config = config(options, identity).validate().map_err(|error| refused(error.to_string()))?;
    let store = LogStore::new(Arc::clone(wal));
    let raft = Raft::new(identity.node, Arc::new(config), Network, store, machine)
        .await
        .map_err(|error| refused(error.to_string()))?;
    tokio::spawn(propose(raft.clone(), owner.clone(), proposed));
    let (leads, led) = oneshot::channel();
    tokio::spawn(watch_leadership(raft.clone(), owner.clone(), Arc::clone(wal), leads));
    tokio::spawn(tick(raft.clone(), owner.clone(), Arc::clone(wal), options.snapshot_bytes));
    let initialized = raft.is_initialized().await.map_err(|error| refused(error.to_string()))?;
    if !initialized {
        let member = Member { addr: options.addr.clone(), store: identity.store };
        let members = BTreeMap::from([(identity.node, member)]);
        raft.initialize(members).await.map_err(|error| refused(error.to_string()))?;
    }
    let alone = raft.with_raft_state(move |state| state.membership_state.effective().voter_ids().eq([identity.node]));
    if alone.await.map_err(|error| refused(error.to_string()))? {
        if initialized {
            raft.trigger().elect(false).await.map_err(|error| refused(error.to_string()))?;
        }
        let waited = options.ready_within;
        if !matches!(tokio::time::timeout(waited, led).await, Ok(Ok(()))) {
            let metrics = raft.metrics().borrow_watched().to_string();
            let what = wal.failure().map_or(metrics, |failure| failure.to_string());
            return Err(OpenError::NotReady { waited, what });
        }
    }
    Ok(raft)
}

/// Whether the node leads and has applied an entry of its own term, hence all that were before.
fn leads(metrics: &RaftMetrics<TypeConfig>) -> bool {
    let own = metrics.last_applied.is_some_and(|applied| applied.leader_id == metrics.vote.leader_id);
    metrics.state == ServerState::Leader && own
}

/// Hands batches to openraft in order, one task for all.
async fn propose(raft: Raft<TypeConfig, Machine>, owner: Owner, mut proposed: mpsc::UnboundedReceiver<Proposed>) {
    while let Some(Proposed { seq, bytes }) = proposed.recv().await {
        let callback = fate_of(owner.clone(), seq);
        // On an error the callback is dropped, which tells the owner.
        let _ = raft.client_write_ff(Payload(bytes), Some(callback)).await;
    }
}

fn fate_of(owner: Owner, seq: u64) -> Callback<ClientWriteResult<TypeConfig>> {
    Callback::new(move |result| match result {
        Some(Ok(_)) => {}
        Some(Err(ClientWriteError::ForwardToLeader(_))) => owner.failed(seq, Fate::NotProposed),
        Some(Err(_)) | None => owner.failed(seq, Fate::Unknown),
    })
}

/// Tells the owner when it may decide, and when the node has stopped for good. The only one who
/// does. `led` is told once, when the owner decides for the first time.
async fn watch_leadership(raft: Raft<TypeConfig, Machine>, owner: Owner, wal: Arc<Wal>, led: oneshot::Sender<()>) {
    let mut led = Some(led);
    let mut lost = None;
    let mut server = raft.server_metrics();
    // All metrics are published after the server's, so they may still show a leadership that was lost.
    let wait = raft.wait(None);
    let new =
        |lost: Option<Vote>| move |metrics: &RaftMetrics<TypeConfig>| leads(metrics) && Some(metrics.vote) != lost;
    while let Ok(metrics) = wait.metrics(new(lost), "the node leads").await {
        owner.lead(true);
        if owner.look(|_, _| ()).await.is_ok()
            && let Some(led) = led.take()
        {
            let _ = led.send(());
        }
        while holds(&server, metrics.vote) && server.changed().await.is_ok() {}
        owner.lead(false);
        lost = Some(metrics.vote);
    }
    let reason = match (wal.failure(), &raft.metrics().borrow_watched().running_state) {
        (Some(failure), _) => failure.to_string(),
        (None, Err(fatal)) => fatal.to_string(),
        (None, Ok(())) => "replication has ended".to_owned(),
    };
    owner.stop(reason);
}

fn holds(server: &WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>, vote: Vote) -> bool {
    let server = server.borrow_watched();
    server.state == ServerState::Leader && server.vote == vote
}

/// Once in a second: lets claims expire, and takes a snapshot when the log has grown enough.
async fn tick(raft: Raft<TypeConfig, Machine>, owner: Owner, wal: Arc<Wal>, snapshot_bytes: u64) {
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut snapshot_at = snapshot_bytes;
    loop {
        interval.tick().await;
        owner.tick();
        let bytes = wal.stats().bytes;
        if bytes >= snapshot_at && raft.trigger().snapshot().await.is_ok() {
            snapshot_at = bytes + snapshot_bytes;
        }
    }
}
