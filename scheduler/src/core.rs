//! The core of a node: state, index and overlay together, owned by one thread. It decides on what
//! is applied plus what is in flight, and applies what was committed.

mod candidates;
mod claim;
mod compose;
mod explain;
mod planned;
mod remedy;
mod sanity;
mod shadow;

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::apply::{self, Touched};
use crate::command::{Batch, Command, Outcome};
use crate::consumer::Purpose;
use crate::decision::{Claim, Decision, Placement};
use crate::domain::Domain;
use crate::ha::admission::{Headroom, Rule};
use crate::index::Index;
use crate::invariants;
use crate::overlay::Overlay;
use crate::pipeline::Standings;
use crate::pipeline::cx::View;
use crate::pipeline::engine::{ChoiceError, Engine};
use crate::provider::Row;
use crate::request::Request;
use crate::snapshot::{Frozen, SnapshotError};
use crate::state::State;

pub use claim::MOST_CONSUMERS;
use explain::Detail;
pub use explain::record_view;
pub use remedy::Survey;
pub use shadow::{Difference, Shadow};

/// Applied state, index, overlay, and the detail of recent decisions of this node.
#[derive(Debug, Default)]
pub struct Core {
    state: State,
    index: Index,
    overlay: Overlay,
    /// Replicated time by this node's clock; at least the state's.
    clock: u64,
    /// Upper half of the tickets of this process.
    run: u32,
    tickets: u32,
    details: VecDeque<(u64, Arc<Detail>)>,
    /// Hosts in them.
    details_hosts: usize,
    /// Requests of the last decisions that placed nothing, for what would help them.
    refused: VecDeque<(u64, Arc<Request>)>,
    standings: Standings,
    shadows: shadow::Shadows,
}

/// Refused requests that are remembered: with the hosts that a caller sends, one may be of 100 kB.
const REFUSED: usize = 64;

/// Why there is no decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// No such pipeline, or none can be inferred.
    #[error(transparent)]
    Pipeline(#[from] ChoiceError),
    /// None of the hosts is known: an empty pallium must not stop a region.
    #[error("{}: load the fleet (pallium ctl import), then ask again", none_known(*sent))]
    FleetUnknown {
        /// Number of hosts sent; 0 when the whole domain was asked for.
        sent: usize,
    },
    /// The idempotency key was used with other content.
    #[error("request id {0} was used before with other content: use a new id for a new request")]
    KeyConflict(Uuid),
    /// The idempotency key is too old to know whether it was used.
    #[error(
        "REQUEST_ID_EXPIRED: request id {0} is older than what is remembered: look for the claim by its consumer, then use a new id"
    )]
    KeyExpired(Uuid),
}

fn none_known(sent: usize) -> String {
    match sent {
        0 => "no host is known here".to_owned(),
        1 => "the host sent is not known here by that name and that of its node".to_owned(),
        sent => format!("none of the {sent} hosts sent is known here by that name and that of its node"),
    }
}

/// A decision on its way: what to commit, and what to answer then.
#[derive(Debug)]
pub struct Proposal {
    decision: Decision,
    command: Option<Command>,
    flights: Vec<(Domain, Uuid, Purpose, u64)>,
    detail: Option<Detail>,
    /// Nothing fits.
    refused: bool,
    /// The request, when nothing fits it and it was given to be kept.
    request: Option<Arc<Request>>,
    /// At most so many, and so many hosts in them.
    keep_details: (usize, usize),
    key: Option<Uuid>,
    /// True when it came with a command.
    traced: bool,
}

/// What became of a proposal.
#[derive(Debug)]
pub enum Settled {
    /// Answer this; shared with the detail that is kept for explanations.
    Done(Arc<Decision>),
    /// Refuse with this.
    Refused(Refusal),
    /// The state has moved on: decide again.
    Again,
}

impl Proposal {
    /// What must be committed before the answer; `None`: nothing.
    pub fn command(&self) -> Option<&Command> {
        self.command.as_ref()
    }

    /// With the request that it answers, to be kept when nothing fits it: for what would help.
    #[must_use]
    pub fn of(self, request: &Arc<Request>) -> Self {
        Self { request: self.refused.then(|| Arc::clone(request)), ..self }
    }

    /// Takes the command out, to put it into a batch.
    pub fn take_command(&mut self) -> Option<Command> {
        self.command.take()
    }
}

impl Core {
    /// An empty core.
    pub fn new() -> Self {
        Self::default()
    }

    /// A core from the bytes of [`Frozen::encode`].
    pub fn restore(bytes: &[u8]) -> Result<Self, SnapshotError> {
        Ok(Self::of(Frozen::decode(bytes)?))
    }

    /// A core that goes on from a frozen state.
    pub fn of(frozen: Frozen) -> Self {
        let state = State::of(frozen.0);
        let overlay = Overlay::default();
        let index = Index::build(state.tables(), &overlay);
        let clock = state.now();
        Self { state, index, overlay, clock, ..Self::default() }
    }

    /// A core of its own that goes on from here, for questions of the kind "what if": the state is shared until one of the two
    /// changes it, the index is copied. Claims in flight are not in it, nor is the detail of decisions.
    #[must_use]
    pub fn fork(&self) -> Self {
        let overlay = Overlay::default();
        let index =
            if self.overlay.is_empty() { self.index.clone() } else { Index::build(self.state.tables(), &overlay) };
        let state = State::of(self.state.tables().clone());
        Self { state, index, overlay, clock: self.clock, run: self.run, ..Self::default() }
    }

    /// A consistent copy of the state; cheap.
    pub fn freeze(&self) -> Frozen {
        Frozen(self.state.tables().clone())
    }

    /// The applied state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Names the claims of this process apart from those of any other: a random number for each
    /// start. Without it two runs of one log could give one ticket twice.
    pub fn set_run(&mut self, run: u64) {
        self.run = (run ^ (run >> 32)) as u32;
    }

    /// Tells the core the replicated time by this node's clock, milliseconds.
    pub fn set_clock(&mut self, now: u64) {
        self.clock = self.clock.max(now);
    }

    /// Replicated time as the leader's clock has it: what a batch that is proposed now would carry.
    pub fn clock(&self) -> u64 {
        self.clock.max(self.state.now())
    }

    /// Forgets the runs that may still stand: the next decisions run whole. For tests and benches.
    pub fn forget_runs(&mut self) {
        self.standings = Standings::default();
    }

    /// Decisions that brought a former run up to date instead of running whole.
    pub fn runs_that_stood(&self) -> u64 {
        self.standings.stood()
    }

    /// True when a claim is due to expire at `now` (replicated milliseconds).
    pub fn tick_due(&self, now: u64) -> bool {
        self.state.next_expiry().is_some_and(|at| at <= now)
    }

    /// The fleet as a decision sees it now.
    pub fn view(&self) -> View<'_> {
        View { tables: self.state.tables(), index: &self.index, overlay: &self.overlay, clock: self.clock }
    }

    /// True while claims of this node are in flight.
    pub fn has_flights(&self) -> bool {
        !self.overlay.is_empty()
    }

    /// Applies a committed batch; one outcome for each command.
    pub fn apply(&mut self, batch: &Batch) -> Vec<Outcome> {
        let mut touched = Vec::new();
        let outcomes = batch
            .commands
            .iter()
            .map(|command| {
                let outcome = apply::apply(&mut self.state, batch, command, &mut touched);
                self.refresh(&mut touched);
                outcome
            })
            .collect();
        self.clock = self.clock.max(self.state.now());
        outcomes
    }

    /// How candidates compare with the active pipelines, by this node's decisions.
    pub fn shadows(&self, engine: &Engine) -> Vec<Shadow> {
        self.shadows.tallies(|tally| engine.candidate(&tally.pipeline).is_some())
    }

    /// What may still be placed where a policy keeps a share free, or refuses what would take what it keeps. What
    /// `hosts 1` only tells of is told by [`losses`](crate::ha::admission::losses), which packs.
    pub fn headroom(&self) -> Vec<Headroom> {
        let names = &self.state.tables().names;
        let told = self.index.rooms().left().filter(|(_, rule, refuses, ..)| *refuses || *rule != Rule::Host);
        let of = told.map(|((az, cell), rule, _, class, left)| Headroom {
            domain: format!("{}/{}", names.text(az), names.text(cell)),
            rule,
            class: names.text(class).to_owned(),
            left: left.clamp(i64::MIN.into(), i64::MAX.into()) as i64,
        });
        of.collect()
    }

    /// Every broken invariant of state and index, in words.
    pub fn check(&self) -> Vec<String> {
        let mut broken = invariants::check(&self.state);
        if self.index != Index::build(self.state.tables(), &self.overlay) {
            broken.push("the index is not the one built anew from the state".to_owned());
        }
        broken
    }

    /// Settles a proposal with the outcome of its command; `None` when it was given up, or when it
    /// had no command.
    pub fn settle(&mut self, proposal: Proposal, outcome: Option<Outcome>) -> Settled {
        let read_only = !proposal.traced;
        for (domain, uuid, purpose, ticket) in &proposal.flights {
            if let Some(row) = self.overlay.remove(*domain, *uuid, *purpose, *ticket) {
                self.index.refresh_use(self.state.tables(), &self.overlay, row);
            }
        }
        let Proposal { mut decision, detail, request, keep_details, key, .. } = proposal;
        if let Some(key) = key {
            self.overlay.land_key(key);
        }
        match outcome {
            Some(Outcome::Placed { decision: id, wall, rows }) => {
                decision.id = id;
                decision.wall = wall;
                self.place_rows(&mut decision, &rows);
                let decision = Arc::new(decision);
                if let Some(request) = request.filter(|_| id > 0) {
                    self.refused.truncate(REFUSED - 1);
                    self.refused.push_front((id, request));
                }
                if let Some(mut detail) = detail
                    && id > 0
                {
                    detail.decision = Arc::clone(&decision);
                    self.details_hosts += detail.hosts();
                    self.details.push_back((id, Arc::new(detail)));
                    let (most, most_hosts) = keep_details;
                    while self.details.len() > most || self.details_hosts > most_hosts {
                        let Some((_, oldest)) = self.details.pop_front() else { break };
                        self.details_hosts -= oldest.hosts();
                    }
                }
                Settled::Done(decision)
            }
            Some(Outcome::Duplicate { decision: id, rows }) => {
                Settled::Done(Arc::new(self.repeat(decision, id, &rows)))
            }
            Some(Outcome::KeyConflict) => Settled::Refused(Refusal::KeyConflict(key.unwrap_or_default())),
            Some(Outcome::KeyExpired) => Settled::Refused(Refusal::KeyExpired(key.unwrap_or_default())),
            None if read_only => Settled::Done(Arc::new(decision)),
            _ => Settled::Again,
        }
    }

    /// Decides without a trace: nothing is claimed, nothing remembered.
    pub fn probe(&mut self, engine: &Engine, request: &Request) -> Result<Decision, Refusal> {
        Ok(self.decide(engine, &as_probe(request))?.decision)
    }

    /// Writes the rows that apply chose into the decision.
    fn place_rows(&self, decision: &mut Decision, rows: &[Option<Row>]) {
        let tables = self.state.tables();
        for (placement, row) in decision.placements.iter_mut().zip(rows) {
            let Some(provider) = row.and_then(|row| tables.provider(row)) else { continue };
            if provider.uuid == placement.provider {
                continue;
            }
            // Apply took an alternate: it leads the answer now.
            placement.provider = provider.uuid;
            tables.names.text(provider.host).clone_into(&mut placement.host);
            placement.node = provider.node.map(|node| tables.names.text(node).to_owned());
        }
        if let Some(first) = decision.placements.first()
            && let Some(at) = decision.hosts.iter().position(|ranked| ranked.host.eq_ignore_ascii_case(&first.host))
        {
            decision.hosts[..=at].rotate_right(1);
        }
    }

    /// The answer to a repeat of a keyed request, from what is remembered of the first.
    fn repeat(&self, mut decision: Decision, id: u64, rows: &[Option<Row>]) -> Decision {
        let tables = self.state.tables();
        decision.id = id;
        if let Some(stored) = tables.decision(id) {
            decision.wall = stored.wall;
            decision.intent = stored.intent;
            decision.candidates = u64::from(stored.record.candidates);
            decision.claim = stored.record.claim;
            decision.version = stored.record.version;
            if let crate::names::Text::Known(sym) = &stored.record.pipeline {
                tables.names.text(*sym).clone_into(&mut decision.pipeline);
            }
            decision.hosts =
                stored.record.top.iter().map(|&(row, score)| explain::ranked(tables, row, score)).collect();
        }
        if let Some((_, detail)) = self.details.iter().find(|(known, _)| *known == id) {
            return (*detail.decision).clone();
        }
        decision.placements = std::mem::take(&mut decision.placements)
            .into_iter()
            .zip(rows)
            .filter_map(|(placement, row)| {
                let provider = tables.provider((*row)?)?;
                Some(Placement {
                    consumer: placement.consumer,
                    host: tables.names.text(provider.host).to_owned(),
                    node: provider.node.map(|node| tables.names.text(node).to_owned()),
                    provider: provider.uuid,
                })
            })
            .collect();
        if decision.placements.is_empty() {
            decision.claim = Claim::None;
        }
        decision
    }

    fn refresh(&mut self, touched: &mut Vec<Touched>) {
        for touch in touched.drain(..) {
            let tables = self.state.tables();
            match touch {
                Touched::Facts(row) => self.index.refresh(tables, &self.overlay, row),
                Touched::Use(row) => self.index.refresh_use(tables, &self.overlay, row),
                Touched::Aggregate(key) => self.index.refresh_aggregate(tables, &self.overlay, key),
                Touched::Doubt(host, name) => self.index.refresh_doubt(tables, &self.overlay, host, name),
                Touched::Doubts => self.index.refresh_doubts(tables, &self.overlay),
                Touched::Policies => self.index.refresh_policies(tables, &self.overlay),
                Touched::Joined(group, consumer) => self.index.join_group(group, consumer),
                Touched::Left(group, consumer) => self.index.leave_group(group, consumer),
            }
        }
    }

    fn next_ticket(&mut self) -> u64 {
        self.tickets = self.tickets.wrapping_add(1);
        u64::from(self.run) << 32 | u64::from(self.tickets)
    }
}

fn as_probe(request: &Request) -> Request {
    let mut probe = request.clone();
    let options = crate::request::Options::probe();
    probe.options.read_only = true;
    probe.options.skip_history = options.skip_history;
    probe.options.skip_inflight = options.skip_inflight;
    probe.options.skip_committed_resource_tracking = options.skip_committed_resource_tracking;
    probe.caller = crate::request::Caller::Keyed { key: None };
    probe
}
