//! What a node does for itself, whoever asks: the parts of a node that a peer's letter reaches too.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::{Raft, RaftMetrics, ReadPolicy};
use scheduler::core::Shadow;
use scheduler::decision::Explanation;
use scheduler::{Command, Decision, Outcome, Request};

use crate::ears::Ears;
use crate::machine::Machine;
use crate::members::{self, Report, Role};
use crate::node::Status;
use crate::owner::Owner;
use crate::peer::link::Target;
use crate::peer::network::Peers;
use crate::refused::Refused;
use crate::tasks;
use crate::types::TypeConfig;
use crate::wal::Wal;

/// Time for a leader to hear from a majority that it still leads.
const QUORUM: Duration = Duration::from_secs(2);

/// A leader that a majority has not answered for so long leads nobody.
pub const TOUCH: Duration = Duration::from_secs(5);

/// The parts.
#[derive(Clone)]
pub struct Local {
    pub peers: Peers,
    pub owner: Owner,
    pub wal: Arc<Wal>,
    pub raft: Raft<TypeConfig, Machine>,
    pub data_dir: PathBuf,
    /// What this node hears of hosts.
    pub ears: Arc<Ears>,
    /// Held while the membership or the feature level changes.
    pub changing: Arc<tokio::sync::Mutex<()>>,
}

impl Local {
    /// Decides, if this node leads.
    pub async fn decide(&self, request: Arc<Request>, deadline: Instant) -> Result<Arc<Decision>, Refused> {
        let decided = self.owner.decide(request, deadline);
        tokio::time::timeout_at(deadline.into(), decided).await.unwrap_or(Err(Refused::Unknown))
    }

    /// Commits a command, if this node leads.
    pub async fn propose(&self, command: Command) -> Result<Outcome, Refused> {
        self.allows(&command)?;
        self.owner.propose(command).await
    }

    /// Refuses a command that came with a feature level that the cluster has not reached.
    pub fn allows(&self, command: &Command) -> Result<(), Refused> {
        let (level, since) = (self.peers.me.level(), command.since());
        if level >= since {
            return Ok(());
        }
        Err(Refused::Conflict(format!(
            "this needs feature level {since}, and the cluster has reached {level}: it is raised when every member runs a \
             version that supports it (pallium ctl cluster status)"
        )))
    }

    /// What is remembered of a decision, if this node leads: the leader has made it, or nobody
    /// remembers more than the state does.
    pub async fn explain(&self, id: u64, hosts: Vec<String>) -> Result<Option<Box<Explanation>>, Refused> {
        if !self.owner.leads() {
            return Err(Refused::NotLeader);
        }
        self.owner.look(move |core, _| core.explain(id, &hosts).map(Box::new)).await
    }

    /// How candidate pipelines compare with the active ones, if this node leads: it decides.
    pub async fn shadows(&self) -> Result<Vec<Shadow>, Refused> {
        if !self.owner.leads() {
            return Err(Refused::NotLeader);
        }
        self.owner.look(|core, engine| core.shadows(engine)).await
    }

    /// The index that a read must have applied to see all that was acknowledged before now, if this
    /// node leads.
    pub async fn read_index(&self) -> Result<u64, Refused> {
        // Until the entry that opened its term is applied, a leader may not have all of it.
        if !self.owner.leads() {
            return Err(Refused::NotLeader);
        }
        let asked = self.raft.get_read_log_id(ReadPolicy::ReadIndex);
        match tokio::time::timeout(QUORUM, asked).await {
            Ok(Ok((index, _))) => Ok(index.index()),
            Ok(Err(RaftError::APIError(
                LinearizableReadError::ForwardToLeader(_) | LinearizableReadError::QuorumNotEnough(_),
            )))
            | Err(_) => Err(Refused::NotLeader),
            Ok(Err(RaftError::Fatal(fatal))) => Err(Refused::Stopped(self.fatal().unwrap_or(fatal.to_string()))),
        }
    }

    /// Returns when everything up to an index is applied here.
    pub async fn applied(&self, index: u64, within: Duration) -> Result<(), Refused> {
        let waited = self.raft.wait(Some(within)).applied_index_at_least(Some(index), "a read").await;
        waited.map(|_| ()).map_err(|_| match self.fatal() {
            Some(why) => Refused::Stopped(why),
            None => Refused::NoLeader(format!("this node does not catch up: it has not applied entry {index} yet")),
        })
    }

    /// Who leads, as this node knows it; none: nobody, or this node itself.
    pub fn leader(&self) -> Option<Target> {
        let metrics = self.metrics();
        let node = metrics.current_leader.filter(|leader| *leader != metrics.id)?;
        let member = metrics.membership_config.membership().get_node(&node)?;
        Some(Target { node, addr: member.addr.clone(), store: Some(member.store) })
    }

    /// Whether this node believes that it leads, and a majority does not answer it.
    pub fn is_cut_off(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.current_leader == Some(metrics.id)
            && metrics.membership_config.voter_ids().count() > 1
            && metrics.last_quorum_acked.is_some_and(|at| at.elapsed() >= TOUCH)
    }

    /// What openraft says.
    pub fn metrics(&self) -> RaftMetrics<TypeConfig> {
        self.raft.metrics().borrow_watched().clone()
    }

    /// Why the node has stopped, if it has.
    pub fn fatal(&self) -> Option<String> {
        let raft = self.metrics().running_state;
        let failure = self.wal.failure().map(|failure| failure.to_string());
        failure.or_else(|| raft.err().map(|fatal| fatal.to_string()))
    }

    /// How the node is doing.
    pub fn status(&self) -> Status {
        let (metrics, cut_off) = (self.metrics(), self.is_cut_off());
        let stats = self.wal.stats();
        let (decided, batches, commands) = self.owner.counts();
        Status {
            ready: self.owner.leads() && !cut_off,
            node: self.peers.me.get().node,
            leader: metrics.current_leader.filter(|_| !cut_off),
            term: metrics.current_term,
            last: metrics.last_log_index,
            committed: metrics.cluster_committed.map(|id| id.index),
            applied: metrics.last_applied.map(|id| id.index),
            last_snapshot: metrics.snapshot.map(|id| id.index),
            role: members::role(&metrics, metrics.id).map(|role| if cut_off { Role::Voter } else { role }),
            members: members::count(&metrics),
            lags: members::lags(&metrics),
            queue_len: self.owner.queue_len(),
            queue_limit: self.owner.queue_limit(),
            in_flight: self.owner.in_flight(),
            decided,
            batches,
            commands,
            syncs: stats.syncs,
            entries_per_sync: stats.entries as f64 / stats.syncs.max(1) as f64,
            wal: stats,
            fatal: self.fatal(),
        }
    }

    /// How the node is doing, for an operator who looks at the whole cluster.
    pub async fn report(&self) -> Report {
        let checksum =
            self.owner.look(|core, _| (core.state().tables().counters().commands, core.state().checksum())).await.ok();
        let folder = self.data_dir.clone();
        let disk = tasks::blocking(move || members::disk(&folder)).await.unwrap_or_default();
        let (status, me) = (self.status(), self.peers.me.get());
        Report {
            node: me.node,
            store: me.store,
            build: env!("CARGO_PKG_VERSION").to_owned(),
            level: self.peers.me.level(),
            levels: self.peers.me.levels,
            leads: status.ready,
            term: status.term,
            last: status.last,
            committed: status.committed,
            applied: status.applied,
            snapshot: status.last_snapshot,
            checksum,
            disk,
            fatal: status.fatal,
        }
    }
}
