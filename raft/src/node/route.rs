//! Requests on whichever node they arrive: decided here when this node leads, else by the leader.
//! What was certainly not done is tried again until the deadline, and so is what may have been done
//! when doing it twice is the same as once.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::async_runtime::watch::WatchReceiver;
use scheduler::core::Shadow;
use scheduler::decision::Explanation;
use scheduler::mutant::{self, Mutant};
use scheduler::request::Caller;
use scheduler::{Batch, Command, Decision, Outcome, Proposer, Request};

use super::Node;
use crate::clock;
use crate::peer::link::{Broken, Lane, Target};
use crate::peer::message::{Answer, Ask};
use crate::refused::Refused;

/// Time for a command or a read to find a leader.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time between two looks for a leader.
const PAUSE: Duration = Duration::from_millis(20);

/// How new what is read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Freshness {
    /// All that was acknowledged to anybody before the read began.
    #[default]
    Linearizable,
    /// All that was acknowledged so long before the read began, or earlier.
    Bounded(Duration),
    /// What this node happens to have.
    Local,
}

impl Node {
    /// Decides a request and commits its claim, on the leader. A request of the hook, or one with a
    /// key, is asked again of the next leader when the fate of the first asking is not known: it gets
    /// the same claim. After `deadline` the answer is [`Refused::Deadline`] or [`Refused::NoLeader`]
    /// when nothing was decided for sure, else [`Refused::Unknown`].
    pub async fn decide(&self, request: Request, deadline: Instant) -> Result<Arc<Decision>, Refused> {
        let request = Arc::new(request);
        let here = || self.0.local.decide(Arc::clone(&request), deadline);
        let there = |leader: Target, within: Duration| {
            let ask = Ask::Decide { request: Box::new((*request).clone()), wait: within.as_millis() as u64 };
            async move {
                match self.ask_leader(&leader, ask, within).await? {
                    Answer::Decided(decided) => decided.map(Arc::new),
                    other => Err(unexpected(&other)),
                }
            }
        };
        let again = request.caller != Caller::Keyed { key: None };
        self.on_leader(deadline, again, here, there).await
    }

    /// Commits a command, on the leader, and gives its outcome.
    pub async fn propose(&self, command: Command) -> Result<Outcome, Refused> {
        self.0.local.allows(&command)?;
        let level = self.0.local.peers.me.level();
        let here = || self.0.local.propose(command.clone());
        let there = |leader: Target, within: Duration| {
            let commands = vec![command.clone()];
            let batch = Batch { proposer: Proposer::default(), now: 0, wall: 0, commands };
            async move {
                match self.ask_leader(&leader, Ask::Propose(batch.encode(level)), within).await? {
                    Answer::Done(outcome) => outcome,
                    other => Err(unexpected(&other)),
                }
            }
        };
        self.on_leader(clock::now() + PATIENCE, false, here, there).await
    }

    /// What is remembered of a decision, hosts' stories included while the leader is the node that
    /// made it.
    pub async fn explain(&self, id: u64, hosts: Vec<String>) -> Result<Option<Box<Explanation>>, Refused> {
        let here = || self.0.local.explain(id, hosts.clone());
        let there = |leader: Target, within: Duration| {
            let ask = Ask::Explain { id, hosts: hosts.clone() };
            async move {
                match self.ask_leader(&leader, ask, within).await? {
                    Answer::Explained(explained) => explained,
                    other => Err(unexpected(&other)),
                }
            }
        };
        self.on_leader(clock::now() + PATIENCE, true, here, there).await
    }

    /// How candidate pipelines compare with the active ones, by the leader's decisions since it leads
    /// or they began.
    pub async fn shadows(&self) -> Result<Vec<Shadow>, Refused> {
        let here = || self.0.local.shadows();
        let there = |leader: Target, within: Duration| async move {
            match self.ask_leader(&leader, Ask::Shadows, within).await? {
                Answer::Shadows(shadows) => shadows,
                other => Err(unexpected(&other)),
            }
        };
        self.on_leader(clock::now() + PATIENCE, true, here, there).await
    }

    /// Returns when what this node has applied is as new as asked for. Reads that wait together
    /// share one question to the leader.
    pub async fn read_barrier(&self, freshness: Freshness) -> Result<(), Refused> {
        let arrived = clock::now();
        let wanted = match freshness {
            Freshness::Local => return Ok(()),
            _ if mutant::on(Mutant::StaleRead) => return Ok(()),
            Freshness::Linearizable => Some(arrived),
            Freshness::Bounded(age) => arrived.checked_sub(age),
        };
        let deadline = arrived + PATIENCE;
        let late = |_| Refused::NoLeader("the reads before this one found no leader in time".to_owned());
        let mut fresh = tokio::time::timeout_at(deadline.into(), self.0.fresh.lock()).await.map_err(late)?;
        if fresh.is_some_and(|fresh| wanted.is_none_or(|wanted| fresh >= wanted)) {
            return Ok(());
        }
        let began = clock::now();
        let here = || self.0.local.read_index();
        let there = |leader: Target, within: Duration| async move {
            match self.ask_leader(&leader, Ask::ReadIndex, within).await? {
                Answer::Index(index) => index,
                other => Err(unexpected(&other)),
            }
        };
        let index = self.on_leader(deadline, true, here, there).await?;
        self.0.local.applied(index, deadline.saturating_duration_since(clock::now())).await?;
        *fresh = Some(began);
        Ok(())
    }

    /// Has something done where the leader is. `again`: to do it twice is the same as once, so that
    /// it is tried again when it is not known whether it was done.
    pub(super) async fn on_leader<T, H, R>(
        &self,
        deadline: Instant,
        again: bool,
        here: impl Fn() -> H,
        there: impl Fn(Target, Duration) -> R,
    ) -> Result<T, Refused>
    where
        H: Future<Output = Result<T, Refused>>,
        R: Future<Output = Result<T, Refused>>,
    {
        let local = &self.0.local;
        let mut unknown = false;
        loop {
            let why = if local.owner.leads() {
                match here().await {
                    Err(Refused::NotLeader) if local.is_cut_off() => {
                        "a majority of the voters does not answer this node, which led them".to_owned()
                    }
                    Err(Refused::NotLeader) => "the leader has just changed".to_owned(),
                    Err(Refused::Unknown) if again => {
                        unknown = true;
                        "this node led, and does not know what it has done".to_owned()
                    }
                    done => return done,
                }
            } else if let Some(leader) = local.leader() {
                let node = leader.node;
                match there(leader, deadline.saturating_duration_since(clock::now())).await {
                    Err(Refused::NotLeader) => format!("node {node} does not lead yet or any more"),
                    Err(Refused::NoLeader(why)) => format!("node {node} does not answer: {why}"),
                    Err(Refused::Unknown) if again => {
                        unknown = true;
                        format!("node {node} led, and does not answer")
                    }
                    done => return done,
                }
            } else if let Some(fatal) = self.fatal() {
                return Err(Refused::Stopped(fatal));
            } else {
                let metrics = local.raft.server_metrics();
                let metrics = metrics.borrow_watched();
                if metrics.membership_config.membership().voter_ids().next().is_none() {
                    let id = metrics.id;
                    format!(
                        "node {id} is a member of no cluster yet: it is added on one that is (pallium ctl cluster add)"
                    )
                } else {
                    "no node leads that this one can reach: an election is going on, or a majority is away".to_owned()
                }
            };
            if clock::now() + PAUSE >= deadline {
                return Err(if unknown { Refused::Unknown } else { Refused::NoLeader(why) });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks the leader. [`Refused::NoLeader`] when the question certainly did not reach it.
    pub(super) async fn ask_leader(&self, leader: &Target, ask: Ask, within: Duration) -> Result<Answer, Refused> {
        self.0.local.peers.ask(leader, Lane::Forward, ask, within).await.map_err(|broken| match broken {
            Broken::NotSent(why) => Refused::NoLeader(why),
            Broken::Unknown(_) => Refused::Unknown,
        })
    }
}

pub(super) fn unexpected(answer: &Answer) -> Refused {
    tracing::error!(?answer, "an answer to another question");
    Refused::Unknown
}
