//! A node: log, snapshots, openraft and the owner thread, put together and taken apart.
//!
//! openraft runs on a small runtime of its own, so that request work cannot delay its heartbeats.
//! Decides nothing and stores nothing itself.

mod backup;
mod begin;
mod cluster;
pub(crate) mod failover;
mod open;
mod route;
#[cfg(feature = "simulation")]
mod simulated;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod together;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use openraft::async_runtime::watch::WatchReceiver;
use scheduler::decision::DetailView;
use scheduler::{Core, Decision, Engine, Request};
use tokio::runtime::Runtime;

pub use self::cluster::Cluster;
pub use self::open::{Begin, OpenError, Options};
pub use self::route::Freshness;
#[cfg(feature = "simulation")]
pub(crate) use self::simulated::Stage;
use crate::identity::Identity;
use crate::local::Local;
use crate::members::{self, Disk, Role};
use crate::refused::Refused;
use crate::wal::Stats;

/// How a node is doing.
#[derive(Clone, Debug)]
pub struct Status {
    /// Decisions are made here: the node leads, has applied the entry that opened its term, and a majority answers it.
    pub ready: bool,
    /// Node id.
    pub node: u64,
    /// Node id of the leader, when known. None of a leader that a majority does not answer.
    pub leader: Option<u64>,
    /// The term.
    pub term: u64,
    /// Index of the last log entry.
    pub last: Option<u64>,
    /// Index of the last committed entry.
    pub committed: Option<u64>,
    /// Index of the last applied entry.
    pub applied: Option<u64>,
    /// Index of the last entry in the newest snapshot.
    pub last_snapshot: Option<u64>,
    /// The node's part in the cluster; none: it is no member.
    pub role: Option<Role>,
    /// Members with a vote, and without.
    pub members: (usize, usize),
    /// Of the leader: entries that it knows to be lacking, of each other member that answers.
    pub lags: Vec<(u64, u64)>,
    /// Requests that wait for the owner thread.
    pub queue_len: usize,
    /// How many may.
    pub queue_limit: usize,
    /// Batches in flight.
    pub in_flight: usize,
    /// Requests decided since the start, repeats after a moved state included.
    pub decided: u64,
    /// Batches proposed since the start.
    pub batches: u64,
    /// Commands proposed since the start.
    pub commands: u64,
    /// Counts of the log since the start.
    pub wal: Stats,
    /// Syncs since the start.
    pub syncs: u64,
    /// Entries in a sync, on average.
    pub entries_per_sync: f64,
    /// Why the node stopped, if it did.
    pub fatal: Option<String>,
}

struct Inner {
    local: Local,
    parts: Mutex<Option<Parts>>,
    /// When the newest read barrier began that this node has passed.
    fresh: tokio::sync::Mutex<Option<Instant>>,
    peer_addr: Option<SocketAddr>,
    /// Why the node could not become what it was started as.
    failed: Arc<OnceLock<String>>,
}

/// What must be taken apart in order.
struct Parts {
    runtime: Runtime,
    owner: JoinHandle<()>,
}

/// A running node. Clones share it; dropping the last one stops it without waiting.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

impl Node {
    /// Runs a function on the owner thread, which does nothing else meanwhile: keep it short.
    pub async fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Core) -> T + Send + 'static,
    ) -> Result<T, Refused> {
        self.0.local.owner.look(move |core, _| query(core)).await
    }

    /// As [`Node::query`], with the engine.
    pub async fn engine<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Core, &Engine) -> T + Send + 'static,
    ) -> Result<T, Refused> {
        self.0.local.owner.look(move |core, engine| look(core, engine)).await
    }

    /// Decides without claiming anything or leaving a trace.
    pub async fn probe(&self, request: Request) -> Result<Decision, Refused> {
        let probe = move |core: &mut Core, engine: &mut Engine| core.probe(engine, &request);
        self.0.local.owner.look(probe).await?.map_err(Refused::from)
    }

    /// Decides as [`Node::probe`] does and tells what happened to `hosts` (none = the first of the
    /// answer, `*` = every host).
    pub async fn probe_detail(&self, request: Request, hosts: Vec<String>) -> Result<DetailView, Refused> {
        let probe = move |core: &mut Core, engine: &mut Engine| core.probe_detail(engine, &request, &hosts);
        self.0.local.owner.look(probe).await?.map_err(Refused::from)
    }

    /// How the node is doing.
    pub fn status(&self) -> Status {
        let status = self.0.local.status();
        Status { fatal: self.fatal(), ..status }
    }

    fn fatal(&self) -> Option<String> {
        self.0.failed.get().cloned().or_else(|| self.0.local.fatal())
    }

    /// The disk of the data folder. Looks at every file of it.
    pub async fn disk(&self) -> Disk {
        let folder = self.0.local.data_dir.clone();
        crate::tasks::blocking(move || members::disk(&folder)).await.unwrap_or_default()
    }

    /// Who this node is.
    pub fn identity(&self) -> Identity {
        self.0.local.peers.me.get()
    }

    /// Where the peer port listens.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.0.peer_addr
    }

    /// Takes a snapshot of what is applied now and returns the index of its last entry.
    pub async fn snapshot_now(&self) -> Result<u64, Refused> {
        let stopped = |what: String| Refused::Stopped(self.fatal().unwrap_or(what));
        let raft = &self.0.local.raft;
        let wanted = raft.metrics().borrow_watched().last_applied;
        loop {
            let before = raft.metrics().borrow_watched().snapshot;
            if before >= wanted {
                return Ok(before.map_or(0, |id| id.index));
            }
            // Ignored while another one is being taken, which may be of an older state.
            raft.trigger().snapshot().await.map_err(|fatal| stopped(fatal.to_string()))?;
            let taken = raft.wait(None).metrics(|metrics| metrics.snapshot != before, "a snapshot").await;
            taken.map_err(|error| stopped(error.to_string()))?;
        }
    }

    /// Stops the node: refuses what waits, writes what is committed, joins the threads.
    pub async fn shutdown(&self) {
        self.0.local.owner.stop("it was shut down".to_owned());
        let _ = self.0.local.raft.shutdown().await;
        let parts = self.0.parts.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (inner, (tell, told)) = (Arc::clone(&self.0), tokio::sync::oneshot::channel());
        // Joining blocks, which a runtime's thread must not.
        std::thread::spawn(move || {
            if let Some(parts) = parts {
                inner.take_apart(parts);
            }
            drop(inner);
            let _ = tell.send(());
        });
        let _ = told.await;
    }
}

impl Inner {
    fn take_apart(&self, parts: Parts) {
        parts.runtime.shutdown_timeout(Duration::from_secs(5));
        self.local.owner.end();
        let _ = parts.owner.join();
        self.local.wal.close();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(parts) = parts {
            self.local.owner.end();
            parts.runtime.shutdown_background();
        }
    }
}
