//! What the clients did, as the checker reads it, and what is told of it at the end.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::check::Timed;
use crate::check::register::{Call, Host};

/// Wrong answers that are kept.
const WRONG: usize = 20;

/// How the calls of one kind ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ends {
    /// Done.
    pub ok: u64,
    /// Certainly not done.
    pub refused: u64,
    /// Not known.
    pub unknown: u64,
}

/// Everything that was recorded.
#[derive(Debug, Default)]
pub struct Records {
    /// Calls about each instance.
    pub calls: BTreeMap<u64, Vec<Timed<Call>>>,
    /// Counts read of each host: (from, to, count).
    pub counts: BTreeMap<Host, Vec<(u64, u64, i64)>>,
    /// By kind of call.
    pub ends: BTreeMap<&'static str, Ends>,
    /// Answers that no fault explains, and claims above capacity.
    pub wrong: Vec<String>,
    /// The longest time without a call that was done, and when it ended.
    pub gap: (Duration, Duration),
    last: Duration,
}

/// The history of one run.
pub struct History {
    start: Instant,
    records: Mutex<Records>,
}

impl History {
    /// An empty one that begins now.
    pub fn new() -> Self {
        Self { start: Instant::now(), records: Mutex::default() }
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Now, as the checker wants it.
    pub fn now(&self) -> u64 {
        self.elapsed().as_nanos() as u64
    }

    /// What was recorded so far.
    pub fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls done so far.
    pub fn done(&self) -> u64 {
        self.records().ends.values().map(|ends| ends.ok).sum()
    }

    /// Records a call about an instance.
    pub fn call(&self, instance: u64, call: Call, from: u64, to: Option<u64>) {
        self.records().calls.entry(instance).or_default().push(Timed { call, from, to });
    }

    /// Records how many claims a host had.
    pub fn count(&self, host: Host, from: u64, to: u64, count: i64) {
        self.records().counts.entry(host).or_default().push((from, to, count));
    }

    /// Counts a call that was done.
    pub fn ok(&self, kind: &'static str) {
        let now = self.elapsed();
        let mut records = self.records();
        records.ends.entry(kind).or_default().ok += 1;
        let gap = now.saturating_sub(records.last);
        records.gap = records.gap.max((gap, now));
        records.last = now;
    }

    /// Counts a call that was not done.
    pub fn refused(&self, kind: &'static str) {
        self.records().ends.entry(kind).or_default().refused += 1;
    }

    /// Counts a call of which it is not known.
    pub fn unknown(&self, kind: &'static str) {
        self.records().ends.entry(kind).or_default().unknown += 1;
    }

    /// Keeps what no fault explains.
    pub fn wrong(&self, what: String) {
        let mut records = self.records();
        if records.wrong.len() < WRONG {
            records.wrong.push(what);
        }
    }
}
