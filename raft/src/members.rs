//! Who is a member: adding, promoting and removing nodes, moving the leadership, and what members
//! say of themselves. Each change is safe to be asked for twice; one that cannot be made now is
//! refused with what to do first.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::{ChangeMembers, RaftMetrics};
use scheduler::mutant::{self, Mutant};
use scheduler::{Command, Levels, level};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::local::Local;
use crate::peer::link::{Lane, Target};
use crate::peer::message::{Answer, Ask, Hello};
use crate::refused::Refused;
use crate::types::{Member, TypeConfig};

/// Entries by which a learner may be behind when it becomes a voter.
const CLOSE: u64 = 1_000;
/// Time for one letter of a change.
const LETTER: Duration = Duration::from_secs(2);
/// Time for a change to be committed.
const COMMIT: Duration = Duration::from_secs(10);

/// A change of the membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Add a node as a learner: it gets the log, and has no vote. Of a member: its new address.
    Add {
        /// Its number.
        node: u64,
        /// Address of its peer port.
        addr: String,
    },
    /// Give a learner a vote.
    Promote {
        /// Its number.
        node: u64,
    },
    /// Remove a node.
    Remove {
        /// Its number.
        node: u64,
    },
    /// Let another voter lead.
    Transfer {
        /// Its number.
        to: u64,
    },
}

/// What a change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Changed {
    /// It was made.
    Done,
    /// Nothing was to be done.
    Already,
}

/// A member's part in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// It has a vote and leads.
    Leader,
    /// It has a vote.
    Voter,
    /// It gets the log and has no vote.
    Learner,
}

/// A member, as the node that was asked sees it.
#[derive(Clone, Debug)]
pub struct MemberView {
    /// Its number.
    pub node: u64,
    /// Address of its peer port.
    pub addr: String,
    /// Its data folder.
    pub store: Uuid,
    /// Its part.
    pub role: Role,
    /// Entries that it lacks, as the leader knows; none when no leader answered.
    pub lag: Option<u64>,
    /// A snapshot on its way to it: bytes sent, bytes in all.
    pub sending: Option<(u64, u64)>,
    /// What it says of itself, or why it does not.
    pub report: Result<Report, String>,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Its number.
    pub node: u64,
    /// Its data folder.
    pub store: Uuid,
    /// Version of the program.
    pub build: String,
    /// Feature level that it has seen the cluster reach.
    #[serde(default = "first")]
    pub level: u8,
    /// Feature levels that it supports.
    #[serde(default)]
    pub levels: Levels,
    /// It leads and decides.
    pub leads: bool,
    /// The term.
    pub term: u64,
    /// Index of its last log entry.
    pub last: Option<u64>,
    /// Index of the last entry that it knows to be committed.
    pub committed: Option<u64>,
    /// Index of the last entry that it applied.
    pub applied: Option<u64>,
    /// Index of the last entry in its newest snapshot.
    pub snapshot: Option<u64>,
    /// Commands that it applied, and the checksum of its state after them.
    pub checksum: Option<(u64, u64)>,
    /// Its disk.
    pub disk: Disk,
    /// Why it has stopped, if it has.
    pub fatal: Option<String>,
}

fn first() -> u8 {
    level::FIRST
}

/// The disk of a node, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// In its data folder.
    pub used: u64,
    /// Free on that file system.
    pub free: u64,
    /// Size of that file system.
    pub size: u64,
}

/// Looks at the disk of a data folder.
pub fn disk(folder: &Path) -> Disk {
    let used = ["log", "snapshots"]
        .iter()
        .filter_map(|name| std::fs::read_dir(folder.join(name)).ok())
        .flatten()
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum();
    let (free, size) = rustix::fs::statvfs(folder)
        .map_or((0, 0), |stat| (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize));
    Disk { used, free, size }
}

const UNDER_WAY: &str = "another change of the cluster is under way: ask again when it is done";

fn conflict<T>(what: impl Into<String>) -> Result<T, Refused> {
    Err(Refused::Conflict(what.into()))
}

/// Makes a change, if this node leads.
pub async fn change(local: &Local, change: Change) -> Result<Changed, Refused> {
    if !local.owner.leads() {
        return Err(Refused::NotLeader);
    }
    let _changing = alone(local).await?;
    match change {
        Change::Add { node, addr } => add(local, node, addr).await,
        Change::Promote { node } => promote(local, node).await,
        Change::Remove { node } => remove(local, node).await,
        Change::Transfer { to } => transfer(local, to).await,
    }
}

/// One change at a time: a node that is added must support the feature level that the cluster has.
async fn alone(local: &Local) -> Result<tokio::sync::MutexGuard<'_, ()>, Refused> {
    let held = tokio::time::timeout(LETTER, local.changing.lock()).await;
    held.or_else(|_| conflict(UNDER_WAY))
}

/// Raises the cluster to the highest feature level that every member supports, if it is higher than
/// what it has, this node leads and all members answer. The new level.
pub async fn raise(local: &Local) -> Result<Option<u8>, Refused> {
    let _changing = alone(local).await?;
    let me = &local.peers.me;
    let level = me.level();
    if !local.owner.leads() || level >= me.levels.newest {
        return Ok(None);
    }
    let (members, _) = settled(local).await?;
    let others = members.iter().filter(|(node, _)| **node != me.get().node);
    let asked = others.map(async |(node, member)| {
        let hello = hello(local, *node, &member.addr, Ask::Hello).await.ok()?;
        (hello.store == member.store).then_some(hello.levels)
    });
    let Some(all) = join_all(asked).await.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
    let newest = if mutant::on(Mutant::RaiseEarly) {
        me.levels.newest
    } else {
        all.iter().map(|levels| levels.newest).fold(me.levels.newest, u8::min)
    };
    if newest <= level {
        return Ok(None);
    }
    local.propose(Command::Raise { level: newest }).await?;
    Ok(Some(newest))
}

/// The members and the voters, when no change is under way any more.
async fn settled(local: &Local) -> Result<(BTreeMap<u64, Member>, BTreeSet<u64>), Refused> {
    let wait = local.raft.wait(Some(LETTER));
    let settled = |metrics: &RaftMetrics<TypeConfig>| {
        metrics.membership_config.membership().get_joint_config().len() < 2
            && metrics.membership_config.log_id() == metrics.committed_membership_config.log_id()
    };
    let Ok(metrics) = wait.metrics(settled, "no change of the membership").await else {
        return conflict(UNDER_WAY);
    };
    let membership = metrics.membership_config.membership();
    let members = membership.nodes().map(|(node, member)| (*node, member.clone())).collect();
    Ok((members, membership.voter_ids().collect()))
}

async fn commit(local: &Local, changes: ChangeMembers<u64, Member>, retain: bool) -> Result<Changed, Refused> {
    // A leader that was removed leads on until the others have heard of it. It must not change them
    // any more: openraft takes it for granted that a leader that does has a vote.
    let metrics = local.metrics();
    if !metrics.membership_config.membership().voter_ids().any(|voter| voter == metrics.id) {
        return Err(Refused::NotLeader);
    }
    match tokio::time::timeout(COMMIT, local.raft.change_membership(changes, retain)).await {
        Ok(Ok(_)) => Ok(Changed::Done),
        Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => Err(Refused::NotLeader),
        Ok(Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error)))) => conflict(error.to_string()),
        // Another leads now, with another log: whether the change is in it, only that log can tell.
        Ok(Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)))) | Err(_) => Err(Refused::Unknown),
        Ok(Err(error)) => Err(Refused::Stopped(error.to_string())),
    }
}

/// Asks a node who it is.
pub async fn hello(local: &Local, node: u64, addr: &str, ask: Ask) -> Result<Hello, String> {
    let to = Target { node, addr: addr.to_owned(), store: None };
    match local.peers.ask(&to, Lane::Control, ask, LETTER).await {
        Ok(Answer::Hello(hello)) => Ok(hello),
        Ok(other) => Err(format!("an answer to another question: {other:?}")),
        Err(broken) => Err(broken.to_string()),
    }
}

async fn add(local: &Local, node: u64, addr: String) -> Result<Changed, Refused> {
    let (members, _) = settled(local).await?;
    let me = local.peers.me.get();
    if node == me.node {
        let Some(member) = members.get(&node) else { return conflict("this node is no member any more") };
        if member.addr == addr {
            return Ok(Changed::Already);
        }
        let moved = Member { addr, ..member.clone() };
        return commit(local, ChangeMembers::SetNodes(BTreeMap::from([(node, moved)])), true).await;
    }
    if let Some((other, _)) = members.iter().find(|(other, member)| **other != node && member.addr == addr) {
        return conflict(format!("{addr} is the address of node {other} already"));
    }
    let greeted = hello(local, node, &addr, Ask::Hello).await;
    let greeted = greeted.or_else(|why| conflict(format!("node {node} does not answer at {addr}: {why}")))?;
    if !greeted.cluster.is_nil() && greeted.cluster != me.cluster {
        return conflict(format!(
            "node {node} is a member of cluster {}, this is cluster {}: start it with an empty data folder",
            greeted.cluster, me.cluster
        ));
    }
    if greeted.levels.check(local.peers.me.level()).is_err() {
        return conflict(format!(
            "node {node} runs a pallium that supports feature {}, and the cluster has reached {}: give it the version \
             that the members run (pallium ctl cluster status)",
            greeted.levels,
            local.peers.me.level()
        ));
    }
    match members.get(&node) {
        Some(member) if member.store != greeted.store => {
            return conflict(format!(
                "the cluster knows node {node} with another data folder: what it had acknowledged is lost, so it must \
                 not vote; remove node {node}, and add the folder with a node id that was never used"
            ));
        }
        Some(member) if member.addr == addr => return Ok(Changed::Already),
        None if greeted.has_log => {
            return conflict(format!(
                "node {node} has a log already, of a time when it was a member: empty its data folder, and start it \
                 with a node id that was never used"
            ));
        }
        Some(_) | None => {}
    }
    let adopted = hello(local, node, &addr, Ask::Adopt).await;
    adopted.or_else(|why| conflict(format!("node {node} at {addr} does not join: {why}")))?;
    local.peers.ledger.forget(node);
    let member = Member { addr, store: greeted.store };
    let nodes = BTreeMap::from([(node, member)]);
    let changes =
        if members.contains_key(&node) { ChangeMembers::SetNodes(nodes) } else { ChangeMembers::AddNodes(nodes) };
    commit(local, changes, true).await
}

async fn promote(local: &Local, node: u64) -> Result<Changed, Refused> {
    let (members, voters) = settled(local).await?;
    if voters.contains(&node) {
        return Ok(Changed::Already);
    }
    if !members.contains_key(&node) {
        return conflict(format!("node {node} is no member: add it first (pallium ctl cluster add {node} ADDR)"));
    }
    // A leader that was just elected has heard of nobody yet, and figures follow what they are of.
    let heard = |now: &RaftMetrics<TypeConfig>| now.replication.is_none() || matched(now, node).is_some();
    let _ = local.raft.wait(Some(LETTER)).metrics(heard, "word of the node").await;
    match lag(local, node) {
        Some(lag) if lag <= CLOSE => {}
        Some(lag) => return conflict(format!("node {node} is still {lag} entries behind: ask again when it is close")),
        None => return conflict(format!("node {node} has not answered yet: a voter that is away costs the majority")),
    }
    commit(local, ChangeMembers::AddVoterIds(BTreeSet::from([node])), true).await
}

async fn remove(local: &Local, node: u64) -> Result<Changed, Refused> {
    let (members, mut voters) = settled(local).await?;
    if !members.contains_key(&node) {
        return Ok(Changed::Already);
    }
    if !voters.remove(&node) {
        return commit(local, ChangeMembers::RemoveNodes(BTreeSet::from([node])), false).await;
    }
    if voters.is_empty() {
        return conflict(format!("node {node} is the only voter: without it there is no cluster"));
    }
    let left = members.iter().filter(|(node, _)| voters.contains(node));
    let answers = join_all(left.map(|(node, member)| is_alive(local, *node, member))).await;
    let alive = answers.into_iter().filter(|alive| *alive).count();
    if alive * 2 <= voters.len() {
        return conflict(format!(
            "without node {node} there would be {} voters, of which {alive} answer: no majority; bring one back, or add \
             and promote another node first",
            voters.len()
        ));
    }
    let done = commit(local, ChangeMembers::RemoveVoters(BTreeSet::from([node])), false).await?;
    local.peers.ledger.forget(node);
    Ok(done)
}

async fn transfer(local: &Local, to: u64) -> Result<Changed, Refused> {
    let (members, voters) = settled(local).await?;
    let me = local.peers.me.get().node;
    if to == me {
        return Ok(Changed::Already);
    }
    if !voters.contains(&to) {
        let what = if members.contains_key(&to) { "is a learner: promote it first" } else { "is no member" };
        return conflict(format!("node {to} {what}"));
    }
    match lag(local, to) {
        Some(lag) if lag > CLOSE => return conflict(format!("node {to} is still {lag} entries behind")),
        _ => {}
    }
    if !is_alive(local, to, &members[&to]).await {
        return conflict(format!("node {to} does not answer: it cannot lead"));
    }
    local.raft.trigger().transfer_leader(to).await.map_err(|fatal| Refused::Stopped(fatal.to_string()))?;
    let wait = local.raft.wait(Some(LETTER));
    match wait.metrics(|metrics| metrics.current_leader == Some(to), "the new leader").await {
        Ok(_) => Ok(Changed::Done),
        Err(_) => conflict(format!("node {to} did not take over in time: look who leads, then ask again")),
    }
}

/// A node's part in the cluster; none: it is no member.
pub fn role(metrics: &RaftMetrics<TypeConfig>, node: u64) -> Option<Role> {
    let membership = metrics.membership_config.membership();
    membership.get_node(&node)?;
    Some(match membership.voter_ids().any(|voter| voter == node) {
        true if metrics.current_leader == Some(node) => Role::Leader,
        true => Role::Voter,
        false => Role::Learner,
    })
}

/// Voters and learners.
pub fn count(metrics: &RaftMetrics<TypeConfig>) -> (usize, usize) {
    let membership = metrics.membership_config.membership();
    (membership.voter_ids().count(), membership.learner_ids().count())
}

/// Entries that the other members lack, as the leader knows.
pub fn lags(metrics: &RaftMetrics<TypeConfig>) -> Vec<(u64, u64)> {
    let last = metrics.last_log_index.unwrap_or(0);
    let matched = metrics.replication.iter().flatten().filter(|(node, _)| **node != metrics.id);
    matched.map(|(node, id)| (*node, last.saturating_sub(id.map_or(0, |id| id.index)))).collect()
}

/// Entries that a member lacks, as the leader knows.
pub fn lag(local: &Local, node: u64) -> Option<u64> {
    let metrics = local.metrics();
    if node == metrics.id {
        return Some(0);
    }
    let matched = matched(&metrics, node)?;
    Some(metrics.last_log_index.unwrap_or(0).saturating_sub(matched))
}

/// The last entry that a member is known to have; none: it has not said yet.
fn matched(metrics: &RaftMetrics<TypeConfig>, node: u64) -> Option<u64> {
    Some((*metrics.replication.as_ref()?.get(&node)?)?.index)
}

/// Whether a member answers now.
async fn is_alive(local: &Local, node: u64, member: &Member) -> bool {
    let me = local.peers.me.get();
    let answers = async || hello(local, node, &member.addr, Ask::Hello).await;
    node == me.node || answers().await.is_ok_and(|hello| hello.store == member.store)
}
