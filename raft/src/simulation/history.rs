//! What all hosts must agree on: one history of batches, one state after each of them, one leader
//! for each leader id; and what a host must find on its disk again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use scheduler::{Batch, Core, level};

use super::trace::Trace;
use crate::types::Vote;
use crate::wal;

/// The whole state is checked once in so many commands, by every host after the same ones.
const CHECK_EVERY: u64 = 32;

/// What is known of the state after so many commands.
#[derive(Clone, Copy, Debug, Default)]
struct Version {
    /// The last batch.
    batch: Option<u64>,
    checksum: Option<u64>,
}

#[derive(Default)]
struct Inner {
    versions: BTreeMap<u64, Version>,
    leaders: BTreeMap<(u64, u64), (u64, u64)>,
}

/// The history that was seen. Clones share it.
#[derive(Clone)]
pub struct History {
    inner: Arc<Mutex<Inner>>,
    trace: Trace,
}

impl History {
    /// None yet.
    pub fn new(trace: Trace) -> History {
        History { inner: Arc::default(), trace }
    }

    fn get(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A host applied a batch, or took over the state of a snapshot. `before` is the number of
    /// commands that it had applied; gives the new one.
    pub fn applied(&self, host: u64, before: u64, core: &Core, batch: Option<&Batch>) -> u64 {
        let after = core.state().tables().counters().commands;
        let Some(batch) = batch else {
            self.trace.event(format_args!("host {host} took over a snapshot at command {after}, from {before}"));
            if after < before {
                self.trace.broken(format_args!("a snapshot took host {host} back from {before} to {after}"));
            }
            self.check(host, core);
            return after;
        };
        if before + batch.commands.len() as u64 != after {
            self.trace.broken(format_args!("host {host} went from command {before} to {after} by one batch"));
        }
        let sum = u64::from(crc32c::crc32c(&batch.encode(level::NEWEST)));
        self.trace.event(format_args!("host {host} applied to command {after}, batch {sum:x}"));
        let known = *self.get().versions.entry(after).or_default().batch.get_or_insert(sum);
        if known != sum {
            self.trace.broken(format_args!("host {host} applied another batch than others up to {after}"));
        }
        if before / CHECK_EVERY != after / CHECK_EVERY {
            self.check(host, core);
        }
        after
    }

    /// Checks a host's whole state, and holds it against the same version elsewhere.
    pub fn check(&self, host: u64, core: &Core) {
        for broken in core.check() {
            self.trace.broken(format_args!("host {host}: {broken}"));
        }
        let commands = core.state().tables().counters().commands;
        let sum = core.state().checksum();
        let known = *self.get().versions.entry(commands).or_default().checksum.get_or_insert(sum);
        if known != sum {
            self.trace.broken(format_args!("host {host} has another state than others after command {commands}"));
        }
    }

    /// A host leads; `life` counts its starts.
    pub fn leads(&self, vote: Vote, host: u64, life: u64) {
        let id = (vote.leader_id.term, vote.leader_id.node_id);
        let mut inner = self.get();
        let first = !inner.leaders.contains_key(&id);
        let known = *inner.leaders.entry(id).or_insert((host, life));
        drop(inner);
        if first {
            self.trace.event(format_args!("host {host} leads in term {}", id.0));
        }
        if known != (host, life) {
            self.trace.broken(format_args!(
                "leader id {id:?} belongs to host {} since its start {}, and host {host} leads with it after start {life}",
                known.0, known.1
            ));
        }
    }

    /// Leader ids seen.
    pub fn terms(&self) -> usize {
        self.get().leaders.len()
    }
}

/// What a host's log reported durable. Clones share it.
#[derive(Clone, Default)]
pub struct Promised(Arc<Mutex<Durable>>);

/// The least that must be found after a crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// The vote.
    pub vote: Option<wal::Vote>,
    /// The next index.
    pub next: u64,
}

impl Promised {
    /// The log has come so far.
    pub fn is(&self, durable: Durable) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = durable;
    }

    /// A truncation is on its way to the disk and may be found there.
    pub fn may_end_at(&self, next: u64) {
        let mut durable = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        durable.next = durable.next.min(next);
    }

    /// Holds a log that was opened against it.
    pub fn check(&self, host: u64, log: &wal::Wal, trace: &Trace) {
        let promised = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = log.ends().1.map_or(0, |last| last.index + 1);
        if log.vote() < promised.vote {
            trace.broken(format_args!("host {host} forgot {:?}: its log has {:?}", promised.vote, log.vote()));
        }
        if next < promised.next {
            trace.broken(format_args!("host {host} lost entries from {next} on, durable up to {}", promised.next));
        }
    }
}
