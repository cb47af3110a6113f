//! The cluster as an operator sees it, from any node.

use std::time::Duration;

use uuid::Uuid;

use super::Node;
use super::route::unexpected;
use crate::clock;
use crate::members::{self, Change, Changed, MemberView, Role};
use crate::peer::link::{Lane, Target};
use crate::peer::message::{Answer, Ask};
use crate::refused::Refused;

/// Time for a member to say how it is.
const REPORT: Duration = Duration::from_secs(2);
/// Time for a change to be made.
const CHANGE: Duration = Duration::from_secs(20);

/// The cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its id; nil when this node is a member of none.
    pub id: Uuid,
    /// The node that was asked.
    pub node: u64,
    /// The leader, when known.
    pub leader: Option<u64>,
    /// The term.
    pub term: u64,
    /// The feature level that it has reached.
    pub level: u8,
    /// The members.
    pub members: Vec<MemberView>,
    /// Whether every state that could be compared is the same; none: fewer than two could.
    pub equal: Option<bool>,
}

impl Node {
    /// Changes the membership, on the leader.
    pub async fn change(&self, change: Change) -> Result<Changed, Refused> {
        let here = || members::change(&self.0.local, change.clone());
        let there = |leader: Target, within: Duration| {
            let ask = Ask::Change(change.clone());
            async move {
                match self.ask_leader(&leader, ask, within).await? {
                    Answer::Changed(changed) => changed,
                    other => Err(unexpected(&other)),
                }
            }
        };
        self.on_leader(clock::now() + CHANGE, true, here, there).await
    }

    /// The cluster, every member asked how it is.
    pub async fn cluster(&self) -> Cluster {
        let local = &self.0.local;
        let metrics = local.metrics();
        let membership = metrics.membership_config.membership();
        let asked = membership.nodes().map(|(node, member)| {
            let to = Target { node: *node, addr: member.addr.clone(), store: Some(member.store) };
            async move {
                if to.node == metrics.id {
                    return Ok(local.report().await);
                }
                match local.peers.ask(&to, Lane::Control, Ask::Report, REPORT).await {
                    Ok(Answer::Report(report)) => Ok(*report),
                    Ok(other) => Err(unexpected(&other).to_string()),
                    Err(broken) => Err(broken.to_string()),
                }
            }
        });
        let reports = futures::future::join_all(asked).await;
        let last = reports.iter().flatten().find(|report| report.leads).and_then(|leader| leader.last);
        let sending = local.peers.sending();
        let members: Vec<_> = membership
            .nodes()
            .zip(reports)
            .map(|((node, member), report)| MemberView {
                node: *node,
                addr: member.addr.clone(),
                store: member.store,
                role: members::role(&metrics, *node).unwrap_or(Role::Learner),
                lag: report.as_ref().ok().and_then(|report| Some(last?.saturating_sub(report.applied.unwrap_or(0)))),
                sending: sending.get(node).copied(),
                report,
            })
            .collect();
        Cluster {
            id: local.peers.me.get().cluster,
            node: metrics.id,
            leader: metrics.current_leader,
            term: metrics.current_term,
            level: local.peers.me.level(),
            equal: equal(&members),
            members,
        }
    }
}

/// States after the same number of commands must be the same.
fn equal(members: &[MemberView]) -> Option<bool> {
    let sums: Vec<_> = members.iter().filter_map(|member| member.report.as_ref().ok()?.checksum).collect();
    let pairs = sums.iter().enumerate().flat_map(|(at, one)| sums[at + 1..].iter().map(move |other| (one, other)));
    let mut compared = pairs.filter(|(one, other)| one.0 == other.0).map(|(one, other)| one.1 == other.1).peekable();
    compared.peek()?;
    Some(compared.all(|same| same))
}
