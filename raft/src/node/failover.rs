//! What failover needs of a node: its ears, orders that the leader signs, and proof that it still leads.

use std::time::{Duration, Instant};

use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use scheduler::ha::order::{Actor, Change, Done, Leader, Order};
use scheduler::ha::proof::Evidence;
use scheduler::ha::{self, Refusal};
use scheduler::{Command, Core, Engine, Outcome};

use super::Node;
use crate::clock;
use crate::ears::Ears;
use crate::local::{Local, TOUCH};
use crate::peer::link::{Lane, Target};
use crate::peer::message::{Answer, Ask};
use crate::refused::Refused;

/// Time for an order to find a leader.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time for what was heard to reach the leader; the next is told after half a second.
const TELL: Duration = Duration::from_secs(1);

/// An order on its way to the leader.
pub(crate) fn encode(actor: &Actor, change: &Change) -> Vec<u8> {
    bitcode::encode(&(actor.clone(), change.clone()))
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode(bytes: &[u8]) -> Result<(Actor, Change), String> {
    bitcode::decode(bytes).map_err(|error| format!("the order could not be read: {error}"))
}

impl Local {
    /// As whom this node leads, if it does.
    pub fn leadership(&self) -> Option<Leader> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leader = self.owner.leads().then(|| Leader { term: metrics.current_term, node: metrics.id });
        self.ears.leads(leader);
        leader
    }

    /// What only the leader can say of a change that somebody else asks for.
    fn measured(&self, change: Change) -> Change {
        match change {
            Change::DeathProof { host, incarnation, evidence: Evidence::Operator { token, .. } } => {
                let youngest = Some(self.ears.youngest(host).as_millis() as u64);
                Change::DeathProof { host, incarnation, evidence: Evidence::Operator { token, youngest } }
            }
            // What this leader cannot exclude is no sign of life here.
            Change::CaseAbort { token, .. } => {
                let heard = self.ears.age(token.case.host).map(|age| age.as_millis() as u64);
                Change::CaseAbort { token, heard }
            }
            change => change,
        }
    }

    /// Commits an order in the name of the leader that this node is.
    pub async fn order(&self, actor: Actor, change: Change) -> Result<Outcome, Refused> {
        let leader = self.leadership().ok_or(Refused::NotLeader)?;
        let change = self.measured(change);
        let epoch = self.owner.look(|core, _| core.state().tables().counters().epoch).await?;
        self.propose(Command::Failover(Box::new(Order { leader, epoch, actor, change }))).await
    }
}

impl Node {
    /// What this node hears of hosts.
    pub fn ears(&self) -> &Ears {
        &self.0.local.ears
    }

    /// As whom this node leads, if it does.
    pub fn leadership(&self) -> Option<Leader> {
        self.0.local.leadership()
    }

    /// Whether the cluster has reached the feature level of failover.
    pub fn has_failover(&self) -> bool {
        self.0.local.peers.me.level() >= ha::LEVEL
    }

    /// Runs a function on the owner thread, if this node leads. The core's clock is that of a batch that
    /// would be proposed now. Keep it short.
    pub async fn lead<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut Core, &mut Engine) -> T + Send + 'static,
    ) -> Result<T, Refused> {
        if !self.0.local.owner.leads() {
            return Err(Refused::NotLeader);
        }
        self.0.local.owner.look(look).await
    }

    /// Commits an order, signed by whoever leads.
    pub async fn order(&self, actor: Actor, change: Change) -> Result<Result<Done, Refusal>, Refused> {
        let here = || self.0.local.order(actor.clone(), change.clone());
        let there = |leader: Target, within: Duration| {
            let ask = Ask::Order(encode(&actor, &change));
            async move {
                match self.ask_leader(&leader, ask, within).await? {
                    Answer::Done(outcome) => outcome,
                    other => Err(super::route::unexpected(&other)),
                }
            }
        };
        let outcome = self.on_leader(clock::now() + PATIENCE, false, here, there).await?;
        order_outcome(outcome)
    }

    /// Commits an order of the coordinator of `leader`, if this node still is that leader.
    pub async fn order_as(
        &self,
        leader: Leader,
        epoch: u64,
        actor: Actor,
        change: Change,
    ) -> Result<Result<Done, Refusal>, Refused> {
        if self.leadership() != Some(leader) {
            return Err(Refused::NotLeader);
        }
        let order = Order { leader, epoch, actor, change };
        order_outcome(self.0.local.propose(Command::Failover(Box::new(order))).await?)
    }

    /// Whether a majority confirms, now, that this node still is that leader, and all that was committed
    /// before is applied here.
    pub async fn confirms(&self, leader: Leader, within: Duration) -> bool {
        let began: Instant = clock::now();
        let Ok(Ok(index)) = tokio::time::timeout(within, self.0.local.read_index()).await else { return false };
        let rest = within.saturating_sub(clock::since(began));
        self.0.local.applied(index, rest).await.is_ok() && self.leadership() == Some(leader)
    }

    /// Tells the leader what this node has heard of hosts, if another one leads; takes leases for them back.
    pub async fn tell_leader(&self) {
        let local = &self.0.local;
        let Some(leader) = local.leader() else { return };
        local.ears.tells(leader.node);
        let ask = Ask::Overheard(Box::new(local.ears.overheard()));
        match local.peers.ask(&leader, Lane::Forward, ask, TELL).await {
            Ok(answer) => {
                local.ears.told();
                if let Answer::Heard(Some(relayed)) = answer {
                    local.ears.relayed(relayed);
                }
            }
            Err(error) => tracing::debug!(%error, leader = leader.node, "the leader was not told what agents said"),
        }
    }

    /// Whether what this node hears counts: it leads, and a majority answered it lately, or the leader was
    /// told lately.
    pub fn in_touch(&self) -> bool {
        let metrics = self.0.local.raft.metrics();
        let metrics = metrics.borrow_watched();
        // Nobody has to answer the only voter.
        let alone = self.0.local.owner.leads() && metrics.membership_config.voter_ids().count() == 1;
        let answered = metrics.last_quorum_acked.is_some_and(|at| at.elapsed() < TOUCH);
        alone || answered || self.0.local.ears.told_within(TOUCH)
    }
}

fn order_outcome(outcome: Outcome) -> Result<Result<Done, Refusal>, Refused> {
    match outcome {
        Outcome::Failover(done) => Ok(done),
        Outcome::Refused(why) => Err(Refused::Conflict(why)),
        other => {
            tracing::error!(?other, "an outcome of another command");
            Err(Refused::Unknown)
        }
    }
}
