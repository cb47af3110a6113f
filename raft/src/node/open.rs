//! Opening a node: from a data folder to a leader that has applied all it had committed.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use openraft::alias::WatchReceiverOf;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::ClientWriteError;
use openraft::metrics::RaftServerMetrics;
use openraft::raft::ClientWriteResult;
use openraft::{ChangeMembers, Config, Raft, RaftMetrics, ServerState, SnapshotPolicy};
use scheduler::level::Unsupported;
use scheduler::mutant::{self, Mutant};
use scheduler::{Core, Engine, Levels};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::begin::{bootstrap, check_memory};
use super::{Inner, Node, Parts};
use crate::identity::{Identity, IdentityError, Me, identify};
use crate::local::Local;
use crate::machine::Machine;
use crate::members::{self, Change};
use crate::owner::{Fate, Limits, Owner, Proposed};
use crate::peer::acknowledged::Ledger;
use crate::peer::door::Door;
use crate::peer::grpc::{self, Grpc};
use crate::peer::incoming::Incoming;
use crate::peer::link::Link;
use crate::peer::network::{Network, Peers};
use crate::snapshot::{Folder, Header, SnapshotError};
use crate::store::LogStore;
use crate::tasks;
use crate::types::{Callback, Member, Payload, TypeConfig, Vote};
use crate::wal::{self, Wal};

/// Time between two looks whether every member supports the next feature level.
const RAISE: Duration = Duration::from_secs(2);

/// What becomes of an empty folder. One that holds data goes on as what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Begin {
    /// A cluster of this node alone.
    #[default]
    Alone,
    /// A cluster of these voters (node id → address of its peer port), as soon as all of them
    /// answer. On exactly one of them; the others wait.
    Bootstrap(BTreeMap<u64, String>),
    /// A node that waits until it is made a member.
    Wait,
}

/// How a node is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of the log, the snapshots and the identity. Created when absent.
    pub data_dir: PathBuf,
    /// The node's number in its cluster; never reused for an emptied folder of a cluster.
    pub node_id: u64,
    /// The cluster; none: the folder's, or a new one.
    pub cluster: Option<Uuid>,
    /// What becomes of an empty folder.
    pub begin: Begin,
    /// Address of the port for peers; none: a lone node that stays alone.
    pub peer_listen: Option<SocketAddr>,
    /// Certificates for connections between nodes: those that come, those that are made.
    pub peer_tls: Option<(tls::Server, tls::Client)>,
    /// Milliseconds between two heartbeats of a leader.
    pub heartbeat: u64,
    /// Milliseconds without one after which a node stands for election: at least, at most.
    pub election: (u64, u64),
    /// Bytes of a snapshot that are sent to a peer in a second; 0: as many as go.
    pub snapshot_rate: u64,
    /// Feature levels that the node supports: those of the program, but for tests of an upgrade.
    pub levels: Levels,
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
            begin: Begin::Alone,
            peer_listen: None,
            peer_tls: None,
            heartbeat: 100,
            election: (300, 500),
            snapshot_rate: 128 << 20,
            levels: Levels::PROGRAM,
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
    /// The folder has a past, but no log.
    #[error("{folder}: the log of node {node} is missing although the folder has a past ({past}): what was acknowledged since may be lost, and a vote of it could undo what was committed. Bring the log back if it is elsewhere; else, if the cluster has other members, empty the folder, remove node {node} (pallium ctl cluster remove {node}) and add it with a node id that was never used; a lone node is begun anew from a backup (pallium ctl restore)", folder = .folder.display())]
    NoLog {
        /// The data folder.
        folder: PathBuf,
        /// The node.
        node: u64,
        /// What tells of its past.
        past: String,
    },
    /// The port for peers cannot be opened.
    #[error("peer_listen: cannot listen on {addr}: {source}; choose another address")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The cluster has reached a feature level that is not supported.
    #[error("{folder}: the cluster of this folder has reached {found}", folder = .folder.display())]
    Level {
        /// The data folder.
        folder: PathBuf,
        /// The level.
        found: Unsupported,
    },
    /// The disk has forgotten something.
    #[error("{folder}: node {node} had acknowledged {acknowledged} to node {peer}, but its data folder does not hold it: the disk was emptied or put back to an older state, and a vote of it could undo what was committed; empty the folder, remove node {node} from the cluster (pallium ctl cluster remove {node}), and add it with a node id that was never used", folder = .folder.display())]
    Forgotten {
        /// The data folder.
        folder: PathBuf,
        /// This node.
        node: u64,
        /// Who remembers.
        peer: u64,
        /// What it remembers.
        acknowledged: String,
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
    let tls = options.peer_tls.as_ref().map(|(_, client)| client.clone());
    assemble(options, engine, wal, Arc::new(Grpc::new(tls)))
}

/// What a data folder holds.
pub(super) struct Unpacked {
    pub me: Arc<Me>,
    pub has_log: bool,
    pub core: Core,
    pub snapshots: Folder,
    pub snapshot: Option<(PathBuf, Header)>,
}

/// Reads a data folder, and makes it a member of a cluster if it is none and need not wait.
pub(super) fn unpack(options: &Options, wal: &Wal) -> Result<Unpacked, OpenError> {
    let has_log = wal.vote().is_some() || wal.ends().1.is_some();
    let cluster = if options.begin == Begin::Wait { Some(Uuid::nil()) } else { options.cluster };
    let me = identify(&options.data_dir, options.node_id, cluster, has_log)?;
    if let Err(found) = options.levels.check(me.level)
        && found.found > options.levels.newest
    {
        return Err(OpenError::Level { folder: options.data_dir.clone(), found });
    }
    let me = Arc::new(Me::new(&options.data_dir, me, options.levels));
    if me.get().cluster.is_nil() && options.begin != Begin::Wait {
        me.adopt(Uuid::now_v7())?;
    }
    let snapshots = Folder::open(&options.data_dir.join("snapshots"), options.levels)?;
    let (core, snapshot) = match snapshots.load_newest()? {
        Some((path, header, core)) => (core, Some((path, header))),
        None => (Core::new(), None),
    };
    // Whoever has applied anything has voted before, or was led: the log holds the vote.
    if !has_log && (me.get().level > 0 || snapshot.is_some()) {
        let past = match &snapshot {
            Some((path, _)) => format!("there is a snapshot, {}", path.display()),
            None => format!("its identity tells of feature level {}", me.get().level),
        };
        return Err(OpenError::NoLog { folder: options.data_dir.clone(), node: options.node_id, past });
    }
    me.reached(core.state().tables().counters().level)?;
    let covered = snapshot.as_ref().and_then(|(_, header)| header.last).map(|last| last.index);
    if let (Some(purged), _) = wal.ends()
        && covered.is_none_or(|covered| covered < purged.index)
    {
        return Err(OpenError::Gap { folder: options.data_dir.clone(), snapshot: covered, log: purged.index + 1 });
    }
    Ok(Unpacked { me, has_log, core, snapshots, snapshot })
}

/// What a node and its peers meet through: peers are asked through the first and answered by the
/// second.
pub(super) fn doors(options: &Options, me: &Arc<Me>, has_log: bool, link: Arc<dyn Link>) -> (Peers, Arc<Door>) {
    let ledger = Arc::new(Ledger::default());
    let incoming = Incoming::new(options.data_dir.join("snapshots"));
    let door = Arc::new(Door::new(Arc::clone(me), Arc::clone(&ledger), incoming, has_log));
    let peers = Peers {
        link,
        me: Arc::clone(me),
        ledger,
        sending: Arc::default(),
        patience: Duration::from_millis((3 * options.heartbeat).max(1000)),
        snapshot_rate: options.snapshot_rate,
    };
    (peers, door)
}

/// Puts a node together on an open log and a link to its peers.
pub(super) fn assemble(options: &Options, engine: Engine, wal: Wal, link: Arc<dyn Link>) -> Result<Node, OpenError> {
    let wal = Arc::new(wal);
    let Unpacked { me, has_log, core, snapshots, snapshot } = unpack(options, &wal)?;
    let identity = me.get();
    let listener = options.peer_listen.map(listen).transpose()?;
    let peer_addr = listener.as_ref().map(TcpListener::local_addr).transpose()?;
    let (proposals, proposed) = mpsc::unbounded_channel();
    let run = RandomState::new().hash_one(identity.store);
    let (owner, thread) = Owner::start(core, engine, options.limits.clone(), (identity.node, run), proposals)?;
    let machine = Machine::new(owner.clone(), Arc::clone(&me), snapshots, snapshot);
    let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("raft").enable_all().build()?;
    let (peers, door) = doors(options, &me, has_log, link);
    if let Some(listener) = listener {
        let _in_runtime = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let tls = options.peer_tls.as_ref().map(|(server, _)| server.clone());
        runtime.spawn(grpc::serve(listener, tls, Arc::clone(&door)));
    }
    let failed = Arc::new(OnceLock::new());
    let parts = Start { options, peers, owner: &owner, wal: &wal, door: &door, peer_addr, failed: &failed };
    let local = match runtime.block_on(start(parts, machine, proposed)) {
        Ok(local) => local,
        Err(error) => {
            take_apart(runtime, &owner, thread, &wal);
            return Err(error);
        }
    };
    let parts = Mutex::new(Some(Parts { runtime, owner: thread }));
    Ok(Node(Arc::new(Inner { local, parts, fresh: tokio::sync::Mutex::default(), peer_addr, failed })))
}

fn listen(addr: SocketAddr) -> Result<TcpListener, OpenError> {
    let listening = TcpListener::bind(addr).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listening.map_err(|source| OpenError::Listen { addr, source })
}

/// What starting takes.
pub(super) struct Start<'a> {
    pub options: &'a Options,
    pub peers: Peers,
    pub owner: &'a Owner,
    pub wal: &'a Arc<Wal>,
    pub door: &'a Door,
    pub peer_addr: Option<SocketAddr>,
    pub failed: &'a Arc<OnceLock<String>>,
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
        heartbeat_interval: options.heartbeat,
        election_timeout_min: options.election.0,
        election_timeout_max: options.election.1,
        enable_elect: false,
        enable_pre_vote: Some(true),
        // Unset it means true: a restarted leader would lead on in its old term, before it has applied
        // entries that it acknowledged but had not yet marked as committed.
        enable_leader_restore: Some(mutant::on(Mutant::LeaderRestore)),
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

/// Starts openraft and what stands between it and the owner.
pub(super) async fn start(
    parts: Start<'_>,
    machine: Machine,
    proposed: mpsc::UnboundedReceiver<Proposed>,
) -> Result<Local, OpenError> {
    let Start { options, peers, owner, wal, door, peer_addr, failed } = parts;
    let refused = |error: String| match wal.failure() {
        Some(failure) => OpenError::Raft(failure.to_string()),
        None => OpenError::Raft(error),
    };
    let me = peers.me.get();
    let config = config(options, me).validate().map_err(|error| refused(error.to_string()))?;
    let raft = Raft::new(me.node, Arc::new(config), Network(peers.clone()), LogStore::new(Arc::clone(wal)), machine)
        .await
        .map_err(|error| refused(error.to_string()))?;
    let local = Local {
        peers,
        owner: owner.clone(),
        wal: Arc::clone(wal),
        raft: raft.clone(),
        data_dir: options.data_dir.clone(),
        ears: Arc::default(),
        changing: Arc::default(),
    };
    // Until then it neither votes nor stands for election.
    check_memory(&local).await?;
    raft.runtime_config().elect(true);
    door.open(local.clone());
    tasks::spawn(propose(raft.clone(), owner.clone(), proposed));
    let (leads, led) = oneshot::channel();
    tasks::spawn(watch_leadership(local.clone(), leads));
    tasks::spawn(tick(local.clone(), options.snapshot_bytes));
    tasks::spawn(raise(local.clone()));
    let initialized = raft.is_initialized().await.map_err(|error| refused(error.to_string()))?;
    match &options.begin {
        _ if initialized => {}
        Begin::Alone => {
            let addr = peer_addr.map(|addr| addr.to_string()).unwrap_or_default();
            let members = BTreeMap::from([(me.node, Member { addr, store: me.store })]);
            raft.initialize(members).await.map_err(|error| refused(error.to_string()))?;
        }
        Begin::Bootstrap(voters) => {
            tasks::spawn(bootstrap(local.clone(), voters.clone(), Arc::clone(failed)));
        }
        Begin::Wait => {}
    }
    let alone = raft.with_raft_state(move |state| state.membership_state.effective().voter_ids().eq([me.node]));
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
        tasks::spawn(tell_address(local.clone(), peer_addr));
    }
    Ok(local)
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
async fn watch_leadership(local: Local, led: oneshot::Sender<()>) {
    let Local { raft, owner, wal, .. } = &local;
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
        finish_change(raft);
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

/// A change of the membership that the former leader began and did not end stays half made until
/// somebody ends it. A voter that it removes goes for good: kept as a learner, it might lead on
/// without a vote (simulated: seed 8 x 5 minutes).
fn finish_change(raft: &Raft<TypeConfig, Machine>) {
    let joint = raft.metrics().borrow_watched().membership_config.membership().get_joint_config().len() > 1;
    if joint {
        let raft = raft.clone();
        tasks::spawn(async move {
            let ended = raft.change_membership(ChangeMembers::AddVoterIds(BTreeSet::new()), false).await;
            tracing::info!(ended = ended.is_ok(), "a change of the membership that was half made");
        });
    }
}

/// Lets a node that was alone without a port for peers be reached from now on.
async fn tell_address(local: Local, peer_addr: Option<SocketAddr>) {
    let me = local.peers.me.get();
    let known = local.metrics().membership_config.membership().get_node(&me.node).map(|member| member.addr.clone());
    if let (Some(addr), Some("")) = (peer_addr, known.as_deref()) {
        let change = Change::Add { node: me.node, addr: addr.to_string() };
        if let Err(error) = members::change(&local, change).await {
            tracing::warn!(%error, "the address of this node's peer port could not be written down");
        }
    }
}

fn holds(server: &WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>, vote: Vote) -> bool {
    let server = server.borrow_watched();
    server.state == ServerState::Leader && server.vote == vote
}

/// Looks whether the cluster can be raised to the next feature level.
async fn raise(local: Local) {
    let me = &local.peers.me;
    while me.level() < me.levels.newest {
        tokio::time::sleep(RAISE).await;
        match members::raise(&local).await {
            Ok(Some(level)) => tracing::info!(level, "the cluster has reached a feature level"),
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "the feature level was not raised"),
        }
    }
}

/// Once in a second: lets claims expire, and takes a snapshot when the log has grown enough, or when
/// a feature level was reached: then the next version need not read what is older.
async fn tick(local: Local, snapshot_bytes: u64) {
    let Local { raft, owner, wal, peers, .. } = &local;
    let mut level = peers.me.level();
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut snapshot_at = snapshot_bytes;
    loop {
        interval.tick().await;
        owner.tick();
        let bytes = wal.stats().bytes;
        let due = bytes >= snapshot_at || peers.me.level() > level;
        if due && raft.trigger().snapshot().await.is_ok() {
            (snapshot_at, level) = (bytes + snapshot_bytes, peers.me.level());
        }
    }
}
