//! A node: log, snapshots, openraft and the owner thread, put together and taken apart.
//!
//! openraft runs on a small runtime of its own, so that request work cannot delay its heartbeats.
//! Decides nothing and stores nothing itself.

mod backup;
mod open;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::{Raft, ReadPolicy};
use scheduler::decision::DetailView;
use scheduler::{Command, Core, Decision, Engine, Outcome, Request};
use tokio::runtime::Runtime;

pub use self::open::{OpenError, Options};
use crate::identity::Identity;
use crate::machine::Machine;
use crate::owner::Owner;
use crate::refused::Refused;
use crate::types::TypeConfig;
use crate::wal::{Stats, Wal};

/// How a node is doing.
#[derive(Clone, Debug)]
pub struct Status {
    /// Decisions are made here: the node leads and has applied the entry that opened its term.
    pub ready: bool,
    /// Node id.
    pub node: u64,
    /// Node id of the leader, when known.
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
    /// Requests that wait for the owner thread.
    pub queue_len: usize,
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
    identity: Identity,
    owner: Owner,
    wal: Arc<Wal>,
    raft: Raft<TypeConfig, Machine>,
    parts: Mutex<Option<Parts>>,
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
    /// Decides a request and commits its claim. After `deadline` the answer is
    /// [`Refused::Deadline`] when nothing was decided for sure, else [`Refused::Unknown`].
    pub async fn decide(&self, request: Request, deadline: Instant) -> Result<Arc<Decision>, Refused> {
        let decided = self.0.owner.decide(request, deadline);
        tokio::time::timeout_at(deadline.into(), decided).await.unwrap_or(Err(Refused::Unknown))
    }

    /// Commits a command and gives its outcome.
    pub async fn propose(&self, command: Command) -> Result<Outcome, Refused> {
        self.0.owner.propose(command).await
    }

    /// Runs a function on the owner thread, which does nothing else meanwhile: keep it short.
    pub async fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Core) -> T + Send + 'static,
    ) -> Result<T, Refused> {
        self.0.owner.look(move |core, _| query(core)).await
    }

    /// Runs a function that may change the engine, such as activating a pipeline.
    pub async fn engine<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> Result<T, Refused> {
        self.0.owner.look(move |_, engine| change(engine)).await
    }

    /// Decides without claiming anything or leaving a trace.
    pub async fn probe(&self, request: Request) -> Result<Decision, Refused> {
        let probe = move |core: &mut Core, engine: &mut Engine| core.probe(engine, &request);
        self.0.owner.look(probe).await?.map_err(Refused::from)
    }

    /// Decides as [`Node::probe`] does and tells what happened to `hosts` (none = the first of the
    /// answer, `*` = every host).
    pub async fn probe_detail(&self, request: Request, hosts: Vec<String>) -> Result<DetailView, Refused> {
        let probe = move |core: &mut Core, engine: &mut Engine| core.probe_detail(engine, &request, &hosts);
        self.0.owner.look(probe).await?.map_err(Refused::from)
    }

    /// Returns when everything that was committed before the call is applied here.
    pub async fn read_barrier(&self) -> Result<(), Refused> {
        match self.0.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(
                LinearizableReadError::ForwardToLeader(_) | LinearizableReadError::QuorumNotEnough(_),
            )) => Err(Refused::NotLeader),
            Err(RaftError::Fatal(fatal)) => Err(Refused::Stopped(self.fatal().unwrap_or_else(|| fatal.to_string()))),
        }
    }

    /// How the node is doing.
    pub fn status(&self) -> Status {
        let Inner { identity, owner, wal, raft, .. } = &*self.0;
        let metrics = raft.metrics().borrow_watched().clone();
        let stats = wal.stats();
        let (decided, batches, commands) = owner.counts();
        Status {
            ready: owner.leads(),
            node: identity.node,
            leader: metrics.current_leader,
            term: metrics.current_term,
            last: metrics.last_log_index,
            committed: metrics.cluster_committed.map(|id| id.index),
            applied: metrics.last_applied.map(|id| id.index),
            last_snapshot: metrics.snapshot.map(|id| id.index),
            queue_len: owner.queue_len(),
            in_flight: owner.in_flight(),
            decided,
            batches,
            commands,
            syncs: stats.syncs,
            entries_per_sync: stats.entries as f64 / stats.syncs.max(1) as f64,
            wal: stats,
            fatal: self.fatal(),
        }
    }

    fn fatal(&self) -> Option<String> {
        let raft = self.0.raft.metrics().borrow_watched().running_state.clone();
        let failure = self.0.wal.failure().map(|failure| failure.to_string());
        failure.or_else(|| raft.err().map(|fatal| fatal.to_string()))
    }

    /// Who this node is.
    pub fn identity(&self) -> Identity {
        self.0.identity
    }

    /// Takes a snapshot of what is applied now and returns the index of its last entry.
    pub async fn snapshot_now(&self) -> Result<u64, Refused> {
        let stopped = |what: String| Refused::Stopped(self.fatal().unwrap_or(what));
        let raft = &self.0.raft;
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
        self.0.owner.stop("it was shut down".to_owned());
        let _ = self.0.raft.shutdown().await;
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
        self.owner.end();
        let _ = parts.owner.join();
        self.wal.close();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(parts) = parts {
            self.owner.end();
            parts.runtime.shutdown_background();
        }
    }
}
