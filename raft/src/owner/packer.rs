//! Collects commands into batches, and keeps those who wait for the outcome in the same order.
//! Never sends anything.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use scheduler::{Command, Decision, Outcome, Proposal, Request};

use super::{Answer, Limits};

/// Who waits for the outcome of a command.
pub enum Waiting {
    /// A client's decision.
    Decision {
        /// To decide again when the state has moved on.
        request: Arc<Request>,
        /// Until when that makes sense.
        deadline: Instant,
        /// How often it was decided.
        tries: u32,
        /// Its number in the recording; 0: there was none.
        number: u64,
        /// Holds the claims in the overlay.
        proposal: Box<Proposal>,
        /// The client.
        answer: Answer<Arc<Decision>>,
    },
    /// A client's command.
    Command(Answer<Outcome>),
    /// Nobody: the owner's own tick.
    Tick,
}

/// Commands of one batch.
#[derive(Default)]
pub struct Packer {
    commands: Vec<Command>,
    waiting: Vec<Waiting>,
    /// Bytes of a command, on average.
    average: usize,
}

impl Packer {
    /// Adds a command.
    pub fn push(&mut self, command: Command, waiting: Waiting) {
        self.commands.push(command);
        self.waiting.push(waiting);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    /// Whether the batch is as large as it should get. Bytes are known only when it is encoded, so
    /// the size of former commands is taken.
    pub fn is_full(&self, limits: &Limits) -> bool {
        self.commands.len() >= limits.batch_commands || self.commands.len() * self.average >= limits.batch_bytes
    }

    /// Takes the batch.
    pub fn take(&mut self) -> (Vec<Command>, Vec<Waiting>) {
        (std::mem::take(&mut self.commands), std::mem::take(&mut self.waiting))
    }

    /// Learns from a batch that was encoded.
    pub fn encoded(&mut self, commands: usize, bytes: usize) {
        let this = bytes / commands.max(1);
        self.average = if self.average == 0 { this } else { (self.average * 7 + this) / 8 };
    }
}

/// Batches in flight, oldest first.
#[derive(Default)]
pub struct Flights(VecDeque<(u64, Vec<Waiting>)>);

impl Flights {
    /// Adds the newest.
    pub fn push(&mut self, seq: u64, waiting: Vec<Waiting>) {
        self.0.push_back((seq, waiting));
    }

    /// Takes out those who wait for a batch.
    pub fn take(&mut self, seq: u64) -> Option<Vec<Waiting>> {
        let at = self.0.iter().position(|flight| flight.0 == seq)?;
        self.0.remove(at).map(|flight| flight.1)
    }

    /// Takes out the oldest.
    pub fn pop(&mut self) -> Option<Vec<Waiting>> {
        self.0.pop_front().map(|flight| flight.1)
    }

    /// Commands of the largest.
    pub fn largest(&self) -> usize {
        self.0.iter().map(|flight| flight.1.len()).max().unwrap_or(0)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
