//! The thread that owns the state, and the handle through which all others reach it.
//!
//! One thread decides, packs commands into batches, applies committed batches and answers. Nobody
//! else touches state, index or overlay. It does no I/O and waits for nothing but its queue. No
//! request is answered before its command was applied, which is after it was committed.

mod pace;
mod packer;
mod recorder;
mod run;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use bytes::Bytes;
use scheduler::recording::Event;
use scheduler::{Batch, Command, Core, Decision, Engine, Frozen, Outcome, Request};
use tokio::sync::{mpsc, oneshot};

use self::pace::Told;
use self::run::Running;
#[cfg(feature = "simulation")]
pub use self::run::Watch;
use crate::clock::{self, Wall};
use crate::mailbox::{Sender, channel};
use crate::refused::Refused;

/// Limits of the owner thread.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Requests that may wait.
    pub queue: usize,
    /// Batches that may be in flight.
    pub in_flight: usize,
    /// Commands in a batch.
    pub batch_commands: usize,
    /// Bytes of a batch, about.
    pub batch_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { queue: 4096, in_flight: 8, batch_commands: 256, batch_bytes: 64 << 10 }
    }
}

/// A batch on its way to openraft.
#[derive(Debug)]
pub struct Proposed {
    /// Its number, for [`Owner::failed`].
    pub seq: u64,
    /// The encoded batch.
    pub bytes: Bytes,
}

/// What became of a batch that was not applied here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It never entered the log.
    NotProposed,
    /// It may have been committed or may be yet.
    Unknown,
}

type Answer<T> = oneshot::Sender<Result<T, Refused>>;
type Look = Box<dyn FnOnce(&mut Core, &mut Engine) + Send>;

/// A request of a client; waits in the bounded queue.
enum Ask {
    Decide { request: Arc<Request>, deadline: Instant, tries: u32, answer: Answer<Arc<Decision>> },
    Propose { command: Command, answer: Answer<Outcome> },
    Look(Look),
}

/// What the owner is told; never waits behind requests. The channel has no bound of its own, and needs
/// none: requests are counted in front of it ([`Limits::queue`]), and of everything else only so much
/// can be in it as its senders may send before they are answered.
enum Message {
    /// At most as many as may wait.
    Ask(Ask),
    /// One: openraft's state machine is one task, and waits. At most 64 entries.
    Apply(Vec<Batch>, oneshot::Sender<()>),
    /// One of the state machine, and one of each backup, which the API counts.
    Freeze(oneshot::Sender<Frozen>),
    /// One: the state machine waits.
    Restore(Box<Core>, oneshot::Sender<()>),
    /// One for each batch in flight ([`Limits::in_flight`]).
    Failed(u64, Fate),
    /// Two: who watches the leadership waits for the owner whenever it is won.
    Lead(bool),
    /// One: the next is sent when this was taken.
    Tick,
    /// At most as many as the API lets in.
    Record(recorder::Recorder, Answer<Frozen>),
    /// Once, and once more by who shuts down.
    Stop(String),
    /// Once.
    End,
}

/// Numbers that others may read at any time.
#[derive(Default)]
struct Gauges {
    queue: AtomicUsize,
    pace: Told,
    tick_waits: AtomicBool,
    in_flight: AtomicUsize,
    leads: AtomicBool,
    decided: AtomicU64,
    batches: AtomicU64,
    commands: AtomicU64,
}

/// The handle to the owner thread.
#[derive(Clone)]
pub struct Owner {
    tell: Sender<Message>,
    gauges: Arc<Gauges>,
    queue: usize,
}

/// The owner thread is gone.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the thread that owns the state has ended")]
pub struct Gone;

impl Owner {
    /// Starts the thread. Batches go out through `proposals`; `node` and `run` name this process.
    pub fn start(
        core: Core,
        engine: Engine,
        limits: Limits,
        (node, run): (u64, u64),
        proposals: mpsc::UnboundedSender<Proposed>,
    ) -> io::Result<(Owner, JoinHandle<()>)> {
        let (owner, at_rest) = Owner::at_rest(core, engine, limits, (node, run), proposals, Wall::system());
        let thread = thread::Builder::new().name("core".into()).spawn(move || at_rest.run())?;
        Ok((owner, thread))
    }

    /// All that [`Owner::start`] makes but the thread.
    pub(crate) fn at_rest(
        core: Core,
        engine: Engine,
        limits: Limits,
        names: (u64, u64),
        proposals: mpsc::UnboundedSender<Proposed>,
        wall: Wall,
    ) -> (Owner, Running) {
        let (tell, told) = channel();
        let gauges = Arc::new(Gauges::default());
        let queue = limits.queue;
        let running = Running::new(told, core, engine, limits, names, proposals, Arc::clone(&gauges), wall);
        (Owner { tell, gauges, queue }, running)
    }

    fn ask(&self, ask: Ask) -> Result<(), Refused> {
        let waiting = self.gauges.queue.fetch_add(1, Ordering::Relaxed);
        let wait = self.gauges.pace.wait(waiting);
        let late = waiting > 0 && matches!(&ask, Ask::Decide { deadline, .. } if clock::now() + wait > *deadline);
        if waiting >= self.queue || late {
            self.gauges.queue.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused::Overloaded { waiting, wait: wait.as_millis() as u64 });
        }
        self.tell.send(Message::Ask(ask)).map_err(|_| Refused::Stopped(Gone.to_string()))
    }

    /// Decides a request. `deadline` bounds the wait in the queue; one that would wait longer, as things
    /// stand, is refused at once ([`Refused::Overloaded`], else [`Refused::Deadline`]).
    pub async fn decide(&self, request: Arc<Request>, deadline: Instant) -> Result<Arc<Decision>, Refused> {
        let (answer, answered) = oneshot::channel();
        self.ask(Ask::Decide { request, deadline, tries: 0, answer })?;
        answered.await.unwrap_or(Err(Refused::Unknown))
    }

    /// Commits a command.
    pub async fn propose(&self, command: Command) -> Result<Outcome, Refused> {
        let (answer, answered) = oneshot::channel();
        self.ask(Ask::Propose { command, answer })?;
        answered.await.unwrap_or(Err(Refused::Unknown))
    }

    /// Runs a function on the owner thread.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut Core, &mut Engine) -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let (answer, answered) = oneshot::channel();
        let look = move |core: &mut Core, engine: &mut Engine| {
            let _ = answer.send(look(core, engine));
        };
        self.ask(Ask::Look(Box::new(look)))?;
        answered
            .await
            .map_err(|_| Refused::Stopped("the question found no answer: it panicked, or the node ended".into()))
    }

    async fn tell<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, Gone> {
        let (answer, answered) = oneshot::channel();
        self.tell.send(message(answer)).map_err(|_| Gone)?;
        answered.await.map_err(|_| Gone)
    }

    /// Applies committed batches in order.
    pub async fn apply(&self, batches: Vec<Batch>) -> Result<(), Gone> {
        self.tell(|done| Message::Apply(batches, done)).await
    }

    /// A consistent copy of the applied state.
    pub async fn freeze(&self) -> Result<Frozen, Gone> {
        self.tell(Message::Freeze).await
    }

    /// Records up to so many decisions from a moment on at which none is in flight, which is waited for: nothing is decided
    /// meanwhile. The state of that moment, and the recording.
    pub async fn record(&self, decisions: u64) -> Result<(Frozen, mpsc::Receiver<Event>), Refused> {
        let (recorder, events) = recorder::Recorder::new(decisions);
        let frozen = self.tell(|answer| Message::Record(recorder, answer)).await;
        Ok((frozen.map_err(|_| Refused::Stopped(Gone.to_string()))??, events))
    }

    /// Replaces the state. Proposals in flight are given up.
    pub async fn restore(&self, core: Core) -> Result<(), Gone> {
        self.tell(|done| Message::Restore(Box::new(core), done)).await
    }

    /// Tells that a batch was not applied here.
    pub fn failed(&self, seq: u64, fate: Fate) {
        let _ = self.tell.send(Message::Failed(seq, fate));
    }

    /// Tells whether this node leads and has applied the entry that opened its term.
    pub fn lead(&self, leads: bool) {
        let _ = self.tell.send(Message::Lead(leads));
    }

    /// Looks whether a claim is due to expire, and if so proposes that.
    pub fn tick(&self) {
        if !self.gauges.tick_waits.swap(true, Ordering::Relaxed) {
            let _ = self.tell.send(Message::Tick);
        }
    }

    /// From now on everything is refused with this reason.
    pub fn stop(&self, reason: String) {
        let _ = self.tell.send(Message::Stop(reason));
    }

    /// Ends the thread; what waits is refused.
    pub fn end(&self) {
        let _ = self.tell.send(Message::End);
    }

    /// Requests that may wait.
    pub fn queue_limit(&self) -> usize {
        self.queue
    }

    /// Requests that wait.
    pub fn queue_len(&self) -> usize {
        self.gauges.queue.load(Ordering::Relaxed)
    }

    /// Batches in flight.
    pub fn in_flight(&self) -> usize {
        self.gauges.in_flight.load(Ordering::Relaxed)
    }

    /// Whether decisions are made here.
    pub fn leads(&self) -> bool {
        self.gauges.leads.load(Ordering::Acquire)
    }

    /// Requests decided, batches and commands proposed, since the start.
    pub fn counts(&self) -> (u64, u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.gauges.decided), read(&self.gauges.batches), read(&self.gauges.commands))
    }
}
