//! What carries failover out, on the leader: each half second what agents said goes to the coordinator, what
//! it proposes goes to the log, and what it calls for is done by the hands, behind the act barrier.
//!
//! ```text
//!  raft::Node ── ears ──▶ coordinator (scheduler) ── orders ──▶ log
//!                              │        ▲
//!                            calls     told
//!                              ▼        │
//!                        barrier ─▶ hands (BMC, Nova)
//! ```
//!
//! A leader that is none any more drops its coordinator; the next one begins with what is committed. Nothing
//! is decided here, and nothing here outlives a leadership.

mod bmcs;
mod permits;
mod run;
mod targets;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use scheduler::ha::coordinator::{Barrier, Call, Told};
use scheduler::ha::order::Voter;
use scheduler::ha::policy::Mode;

pub use run::run;

/// What is done in the world. A call that gets no answer gives `None`, and is asked for again.
pub trait Hands: Send + Sync + 'static {
    /// Carries a call out. Right before each write that has a barrier it asks `gate`, and writes nothing when
    /// that says no.
    fn act(self: Arc<Self>, call: Call, gate: Arc<dyn Gate>) -> Pin<Box<dyn Future<Output = Option<Told>> + Send>>;

    /// What came of the requests to Nova so far.
    fn tally(&self) -> Tally;
}

/// Requests to Nova, since the program began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Those that it answered, whatever it said.
    pub answered: u64,
    /// Those without an answer in time, or with one that says that Nova itself fails (5xx).
    pub failed: u64,
}

/// What a writer asks right before it writes.
pub trait Gate: Send + Sync + 'static {
    /// Whether the barrier holds now: the same leader, confirmed by a majority within the time that the barrier
    /// says, its intent committed, and nothing paused.
    fn passes(&self, barrier: Barrier) -> Pin<Box<dyn Future<Output = bool> + Send + '_>>;
}

/// Settings of failover.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The most that is done of what is decided, whatever the policies of hosts say. In a dry run no intent is
    /// proposed, and nothing is written anywhere. When it is off leases are granted, and nothing else happens: a host
    /// that lives on them would reset itself.
    pub mode: Mode,
    /// The voters of pallium, as configured; empty: nothing is known of what they stand on.
    pub voters: Vec<Voter>,
}
