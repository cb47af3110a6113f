//! The loop of the owner thread.
//!
//! Messages of the replication are handled as soon as they are seen, requests one at a time in the
//! order they came. A batch goes out when nothing is in flight, when no request waits and it is twice as large as the
//! largest in flight, or when it is full, if not too many are in flight; when they are, commands collect, and when the
//! batch is full too, requests wait.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use scheduler::command::{Action, Part};
use scheduler::mutant::{self, Mutant};
use scheduler::recording::Event;
use scheduler::{Batch, Command, Core, Decision, Engine, Frozen, Outcome, Proposer, Settled};
use tokio::sync::mpsc::UnboundedSender;

use super::pace::Pace;
use super::packer::{Flights, Packer, Waiting};
use super::recorder::Recorder;
use super::{Answer, Ask, Fate, Gauges, Limits, Message, Proposed};
use crate::clock::{self, Wall};
use crate::mailbox::Receiver;
use crate::refused::Refused;

/// How often a request is decided when the state moves on under it.
const TRIES: u32 = 3;

/// What the thread owns.
pub struct Running {
    told: Receiver<Message>,
    core: Core,
    engine: Engine,
    limits: Limits,
    node: u64,
    run: u64,
    seq: u64,
    proposals: UnboundedSender<Proposed>,
    gauges: Arc<Gauges>,
    wall: Wall,
    backlog: VecDeque<Ask>,
    pace: Pace,
    packer: Packer,
    flights: Flights,
    /// Replicated time at the moment this node began to lead; none while it does not.
    lead_since: Option<(u64, Instant)>,
    tick_in_flight: bool,
    recorder: Option<Recorder>,
    /// A recording that begins when nothing is in flight.
    arming: Option<(Recorder, Answer<Frozen>)>,
    stopped: Option<String>,
    ended: bool,
    #[cfg(feature = "simulation")]
    watch: Option<Watch>,
}

/// Sees the core after each batch, and with none after it was replaced by a snapshot's.
#[cfg(feature = "simulation")]
pub type Watch = Box<dyn FnMut(&Core, Option<&Batch>) + Send>;

impl Running {
    #[expect(clippy::too_many_arguments, reason = "called once, and each is a different thing")]
    pub(super) fn new(
        told: Receiver<Message>,
        mut core: Core,
        mut engine: Engine,
        limits: Limits,
        (node, run): (u64, u64),
        proposals: UnboundedSender<Proposed>,
        gauges: Arc<Gauges>,
        wall: Wall,
    ) -> Running {
        core.set_run(run);
        engine.follow(core.state().tables().catalogue());
        complain(&engine);
        Running {
            told,
            core,
            engine,
            limits,
            node,
            run,
            seq: 0,
            proposals,
            gauges,
            wall,
            backlog: VecDeque::new(),
            pace: Pace::default(),
            packer: Packer::default(),
            flights: Flights::default(),
            lead_since: None,
            tick_in_flight: false,
            recorder: None,
            arming: None,
            stopped: None,
            ended: false,
            #[cfg(feature = "simulation")]
            watch: None,
        }
    }

    /// Runs until told to end.
    pub fn run(mut self) {
        while !self.ended {
            if self.waits() {
                let Some(message) = self.told.recv() else { break };
                self.take(message);
            }
            self.turn();
        }
        self.stop("it was shut down".to_owned());
    }

    /// The same as a task, watched.
    #[cfg(feature = "simulation")]
    pub async fn drive(mut self, watch: Watch) {
        self.watch = Some(watch);
        while !self.ended {
            if self.waits() {
                let message = self.told.next().await;
                self.take(message);
            }
            self.turn();
            // A long backlog must not hold up the other tasks.
            tokio::task::yield_now().await;
        }
    }

    /// Whether there is nothing to do but wait for a message. The packer is full here only when as
    /// many batches are in flight as may be.
    fn waits(&self) -> bool {
        self.backlog.is_empty() || self.packer.is_full(&self.limits) || self.arming.is_some()
    }

    /// Takes all messages that wait, serves one request, and sends a batch out if it is time to.
    fn turn(&mut self) {
        while let Some(message) = self.told.try_recv() {
            self.take(message);
        }
        if self.packer.is_full(&self.limits) {
            self.flush();
        }
        self.begin_recording();
        if !self.packer.is_full(&self.limits)
            && self.arming.is_none()
            && let Some(ask) = self.backlog.pop_front()
        {
            self.gauges.queue.fetch_sub(1, Ordering::Relaxed);
            self.pace.took_up(clock::now(), !self.backlog.is_empty(), &self.gauges.pace);
            self.serve(ask);
        }
        // Batches are worth as much as they hold: each costs the cluster as much as some dozen commands do (threads that
        // wake each other, letters, syncs).
        let worth = self.backlog.is_empty() && self.packer.len() >= 2 * self.flights.largest();
        if worth || self.packer.is_full(&self.limits) || self.flights.len() == 0 {
            self.flush();
        }
    }

    /// Begins the recording that waits, if nothing is in flight.
    fn begin_recording(&mut self) {
        if self.flights.len() > 0 || !self.packer.is_empty() {
            return;
        }
        let Some((mut recorder, answer)) = self.arming.take() else { return };
        if self.lead_since.is_none() {
            let _ = answer.send(Err(Refused::NotLeader));
            return;
        }
        recorder.tell(Event::begin(&self.core, &self.engine));
        self.recorder = Some(recorder);
        let _ = answer.send(Ok(self.core.freeze()));
    }

    /// Tells the recording, if there is one.
    fn record(&mut self, event: impl FnOnce(&Core) -> Event) {
        if let Some(recorder) = &mut self.recorder
            && !recorder.tell(event(&self.core))
        {
            self.recorder = None;
        }
    }

    /// Records what a caller is told of a decision that the recording knows.
    fn record_answer(&mut self, number: u64, decision: Result<&Decision, String>) {
        if self.recorder.as_ref().is_some_and(|recorder| recorder.knows(number)) {
            self.record(|_| Event::answer(number, decision));
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Ask(ask) => self.backlog.push_back(ask),
            Message::Apply(batches, done) => {
                for batch in &batches {
                    self.apply(batch);
                }
                let _ = done.send(());
            }
            Message::Freeze(answer) => {
                let _ = answer.send(self.core.freeze());
            }
            Message::Restore(core, done) => {
                self.give_up_all(&Refused::Unknown);
                self.core = *core;
                // What follows is not what went before.
                self.recorder = None;
                self.core.set_run(self.run);
                self.follow();
                #[cfg(feature = "simulation")]
                self.look(None);
                let _ = done.send(());
            }
            Message::Failed(seq, fate) => {
                if let Some(waiting) = self.flights.take(seq) {
                    let refused = match fate {
                        Fate::NotProposed => Refused::NotLeader,
                        Fate::Unknown => Refused::Unknown,
                    };
                    self.give_up(waiting, &refused);
                }
                self.count_flights();
            }
            Message::Lead(leads) => self.lead(leads),
            Message::Record(_, answer)
                if self.arming.is_some() || self.recorder.as_ref().is_some_and(Recorder::is_read) =>
            {
                let why = "another recording is under way: end it first";
                let _ = answer.send(Err(Refused::Conflict(why.to_owned())));
            }
            Message::Record(recorder, answer) => self.arming = Some((recorder, answer)),
            Message::Tick => {
                self.gauges.tick_waits.store(false, Ordering::Relaxed);
                self.tick();
            }
            Message::Stop(reason) => self.stop(reason),
            Message::End => self.ended = true,
        }
    }

    fn lead(&mut self, leads: bool) {
        if leads == self.lead_since.is_some() {
            return;
        }
        self.lead_since = leads.then(|| (self.core.state().now(), clock::now()));
        if !leads {
            self.give_up_all(&Refused::Unknown);
        }
        self.gauges.leads.store(leads, Ordering::Release);
    }

    fn stop(&mut self, reason: String) {
        self.gauges.leads.store(false, Ordering::Release);
        self.lead_since = None;
        let refused = Refused::Stopped(self.stopped.get_or_insert(reason).clone());
        let (_, waiting) = self.packer.take();
        self.give_up(waiting, &refused);
        self.give_up_all(&Refused::Unknown);
        while let Some(ask) = self.backlog.pop_front() {
            self.gauges.queue.fetch_sub(1, Ordering::Relaxed);
            refuse(ask, refused.clone());
        }
    }

    /// Replicated time: what was applied when this node began to lead, and the time since.
    fn now(&self) -> u64 {
        let applied = self.core.state().now();
        self.lead_since.map_or(applied, |(at, since)| applied.max(at + clock::since(since).as_millis() as u64))
    }

    fn serve(&mut self, ask: Ask) {
        let refused = match (&self.stopped, self.lead_since) {
            (Some(reason), _) => Some(Refused::Stopped(reason.clone())),
            (None, None) => Some(Refused::NotLeader),
            (None, Some(_)) => None,
        };
        match (ask, refused) {
            (Ask::Look(look), _) => {
                if self.lead_since.is_some() {
                    let now = self.now();
                    self.core.set_clock(now);
                }
                // A question that panics must not take the node with it; who asked sees that no answer comes.
                let look = AssertUnwindSafe(|| look(&mut self.core, &mut self.engine));
                let _ = catch_unwind(look);
            }
            (ask, Some(refused)) => refuse(ask, refused),
            (Ask::Propose { command, answer }, None) => {
                // What depends on this program is checked here, before the log: apply must not look at it.
                if let Command::Pipeline(change) = &command
                    && let Err(why) = self.engine.admit(self.core.state().tables().catalogue(), change)
                {
                    let _ = answer.send(Ok(Outcome::Refused(why)));
                    return;
                }
                let waiting = match early(&command).filter(|_| mutant::on(Mutant::AckBeforeCommit)) {
                    Some(outcome) => {
                        let _ = answer.send(Ok(outcome));
                        Waiting::Tick
                    }
                    None => Waiting::Command(answer),
                };
                self.packer.push(command, waiting);
            }
            (Ask::Decide { request, deadline, tries, answer }, None) => {
                if answer.is_closed() {
                    return;
                }
                if clock::now() >= deadline {
                    let _ = answer.send(Err(Refused::Deadline));
                    return;
                }
                let now = self.now();
                self.core.set_clock(now);
                self.gauges.decided.fetch_add(1, Ordering::Relaxed);
                let number = self.recorder.as_mut().map_or(0, Recorder::next);
                self.record(|_| Event::decide(number, now, &request));
                match self.core.decide(&self.engine, &request).map(|proposal| proposal.of(&request)) {
                    Err(refusal) => {
                        self.record_answer(number, Err(refusal.to_string()));
                        let _ = answer.send(Err(refusal.into()));
                    }
                    Ok(mut proposal) => match proposal.take_command() {
                        Some(command) => {
                            if mutant::on(Mutant::AckBeforeCommit)
                                && let Some(outcome) = early(&command)
                            {
                                let settled = self.core.settle(proposal, Some(outcome));
                                if let Settled::Done(decision) = settled {
                                    let _ = answer.send(Ok(decision));
                                }
                                return self.packer.push(command, Waiting::Tick);
                            }
                            let tries = tries + 1;
                            let proposal = Box::new(proposal);
                            let waiting = Waiting::Decision { request, deadline, tries, number, proposal, answer };
                            self.packer.push(command, waiting);
                        }
                        None => match self.core.settle(proposal, None) {
                            Settled::Done(decision) => {
                                self.record_answer(number, Ok(&decision));
                                let _ = answer.send(Ok(decision));
                            }
                            Settled::Refused(refusal) => drop(answer.send(Err(refusal.into()))),
                            Settled::Again => drop(answer.send(Err(Refused::Contended { tries: 1 }))),
                        },
                    },
                }
            }
        }
    }

    fn tick(&mut self) {
        let now = self.now();
        self.core.set_clock(now);
        if self.lead_since.is_some() && !self.tick_in_flight && self.core.tick_due(now) {
            self.tick_in_flight = true;
            self.packer.push(Command::Tick, Waiting::Tick);
        }
    }

    /// Sends the batch out, if there is one and not too many are in flight.
    fn flush(&mut self) {
        if self.packer.is_empty() || self.flights.len() >= self.limits.in_flight {
            return;
        }
        let (commands, waiting) = self.packer.take();
        self.seq += 1;
        let proposer = Proposer { node: self.node, run: self.run, seq: self.seq };
        let batch = Batch { proposer, now: self.now(), wall: self.wall.now(), commands };
        let bytes = batch.encode(self.core.state().tables().level());
        self.packer.encoded(batch.commands.len(), bytes.len());
        self.gauges.batches.fetch_add(1, Ordering::Relaxed);
        self.gauges.commands.fetch_add(batch.commands.len() as u64, Ordering::Relaxed);
        if self.proposals.send(Proposed { seq: self.seq, bytes: bytes.into() }).is_err() {
            self.give_up(waiting, &Refused::Stopped("replication has ended".to_owned()));
            return;
        }
        self.flights.push(self.seq, waiting);
        self.count_flights();
    }

    #[cfg(feature = "simulation")]
    fn look(&mut self, batch: Option<&Batch>) {
        if let Some(watch) = &mut self.watch {
            watch(&self.core, batch);
        }
    }

    fn count_flights(&self) {
        self.gauges.in_flight.store(self.flights.len(), Ordering::Relaxed);
    }

    fn apply(&mut self, batch: &Batch) {
        let outcomes = if mutant::on(Mutant::WallClockApply) {
            self.core.apply(&Batch { wall: self.wall.now(), ..batch.clone() })
        } else {
            self.core.apply(batch)
        };
        self.follow();
        #[cfg(feature = "simulation")]
        self.look(Some(batch));
        let Proposer { node, run, seq } = batch.proposer;
        let ours = (node, run) == (self.node, self.run);
        let waiting = if ours { self.flights.take(seq) } else { None };
        if let Some(recorder) = &self.recorder {
            let settles = waiting.iter().flatten().enumerate().filter_map(|(place, waiting)| match waiting {
                Waiting::Decision { number, .. } if recorder.knows(*number) => Some((*number, place)),
                _ => None,
            });
            let settles = settles.collect();
            self.record(|core| Event::apply(batch, core.state().tables().level(), settles));
        }
        let Some(waiting) = waiting else { return };
        self.count_flights();
        for (waiting, outcome) in waiting.into_iter().zip(outcomes) {
            self.settle(waiting, outcome);
        }
    }

    /// Makes active what the applied state says, before anything more is decided.
    fn follow(&mut self) {
        if self.engine.follow(self.core.state().tables().catalogue()) {
            complain(&self.engine);
        }
    }

    fn settle(&mut self, waiting: Waiting, outcome: Outcome) {
        match waiting {
            Waiting::Tick => self.tick_in_flight = false,
            Waiting::Command(answer) => drop(answer.send(Ok(outcome))),
            Waiting::Decision { request, deadline, tries, number, proposal, answer } => {
                match self.core.settle(*proposal, Some(outcome)) {
                    Settled::Done(decision) => {
                        self.record_answer(number, Ok(&decision));
                        let _ = answer.send(Ok(decision));
                    }
                    Settled::Refused(refusal) => {
                        self.record_answer(number, Err(refusal.to_string()));
                        let _ = answer.send(Err(refusal.into()));
                    }
                    Settled::Again if tries >= TRIES => drop(answer.send(Err(Refused::Contended { tries }))),
                    Settled::Again => {
                        self.gauges.queue.fetch_add(1, Ordering::Relaxed);
                        self.backlog.push_front(Ask::Decide { request, deadline, tries, answer });
                    }
                }
            }
        }
    }

    fn give_up_all(&mut self, refused: &Refused) {
        let (_, waiting) = self.packer.take();
        self.give_up(waiting, &Refused::NotLeader);
        while let Some(waiting) = self.flights.pop() {
            self.give_up(waiting, refused);
        }
        self.count_flights();
    }

    /// Drops the claims from the overlay and answers.
    fn give_up(&mut self, waiting: Vec<Waiting>, refused: &Refused) {
        for waiting in waiting {
            match waiting {
                Waiting::Tick => self.tick_in_flight = false,
                Waiting::Command(answer) => drop(answer.send(Err(refused.clone()))),
                Waiting::Decision { proposal, answer, number, .. } => {
                    if self.recorder.as_ref().is_some_and(|recorder| recorder.knows(number)) {
                        self.record(|_| Event::Drop { number });
                    }
                    let _ = self.core.settle(*proposal, None);
                    let _ = answer.send(Err(refused.clone()));
                }
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.gauges.leads.store(false, Ordering::Release);
    }
}

/// Requests for such a pipeline are refused; nothing else decides in its place.
fn complain(engine: &Engine) {
    for unrunnable in engine.unrunnable() {
        tracing::error!(pipeline = unrunnable.name, version = unrunnable.version, "{unrunnable}");
    }
}

/// What [`Mutant::AckBeforeCommit`] answers.
fn early(command: &Command) -> Option<Outcome> {
    match command {
        Command::Release { .. } => Some(Outcome::Released(1)),
        Command::Place(place) if !place.parts.is_empty() => {
            let row = |part: &Part| match &part.action {
                Action::Claim { targets, .. } => targets.first().copied(),
                _ => None,
            };
            Some(Outcome::Placed { decision: 0, wall: 0, rows: place.parts.iter().map(row).collect() })
        }
        _ => None,
    }
}

fn refuse(ask: Ask, refused: Refused) {
    match ask {
        Ask::Decide { answer, .. } => drop(answer.send(Err(refused))),
        Ask::Propose { answer, .. } => drop(answer.send(Err(refused))),
        Ask::Look(_) => {}
    }
}
