//! What happened, as a running hash: equal seeds must give equal hashes in any process.

use std::fmt::{self, Display, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Events kept in words, for the report of a failure.
const KEPT: usize = 400;

/// The trace. Clones share it.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Inner>>);

struct Inner {
    began: Instant,
    hash: u64,
    events: u64,
    /// Messages between nodes among them.
    letters: u64,
    last: std::collections::VecDeque<String>,
    print: bool,
    broken: Vec<String>,
}

/// Hashes text as it is written (FNV-1a).
struct Hash<'a>(&'a mut u64);

impl fmt::Write for Hash<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            *self.0 = (*self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
        Ok(())
    }
}

impl Trace {
    /// An empty trace; `print` writes every event to standard error.
    pub fn new(print: bool) -> Trace {
        let inner = Inner {
            began: Instant::now(),
            hash: 0xCBF2_9CE4_8422_2325,
            events: 0,
            letters: 0,
            last: std::collections::VecDeque::new(),
            print,
            broken: Vec::new(),
        };
        Trace(Arc::new(Mutex::new(inner)))
    }

    fn get(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened that people want to read about.
    pub fn event(&self, what: impl Display) {
        let mut inner = self.get();
        let line = format!("{:>9.3} {what}", inner.began.elapsed().as_secs_f64());
        if inner.print {
            eprintln!("{line}");
        }
        let _ = writeln!(Hash(&mut inner.hash), "{line}");
        inner.events += 1;
        if inner.last.len() == KEPT {
            inner.last.pop_front();
        }
        inner.last.push_back(line);
    }

    /// A letter went from one node to another.
    pub fn letter(&self, from: u64, to: u64, bytes: &[u8], fate: &str) {
        let mut inner = self.get();
        let at = inner.began.elapsed().as_millis();
        let _ = write!(Hash(&mut inner.hash), "{at} {from} {to} {:x} {fate}", crc32c::crc32c(bytes));
        inner.events += 1;
        inner.letters += 1;
    }

    /// A promise was broken.
    pub fn broken(&self, what: impl Display) {
        self.event(format_args!("BROKEN {what}"));
        let mut inner = self.get();
        if inner.broken.len() < 20 {
            inner.broken.push(what.to_string());
        }
    }

    /// Promises broken so far.
    pub fn all_broken(&self) -> Vec<String> {
        self.get().broken.clone()
    }

    /// True until a promise is broken.
    pub fn is_whole(&self) -> bool {
        self.get().broken.is_empty()
    }

    /// Simulated time since the start.
    pub fn elapsed(&self) -> Duration {
        self.get().began.elapsed()
    }

    /// Hash, events, letters.
    pub fn sums(&self) -> (u64, u64, u64) {
        let inner = self.get();
        (inner.hash, inner.events, inner.letters)
    }

    /// The last events in words.
    pub fn last(&self) -> Vec<String> {
        self.get().last.iter().cloned().collect()
    }
}
