//! How long a waiting request waits: the owner's pace while others wait behind. It is what a request
//! is refused by that could not be reached in time, at once instead of at its deadline.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The newest time counts for one in so many.
const MEMORY: u64 = 32;
/// A longer time, as of a sync that hangs, counts as this: it says little of those to come.
const LONGEST: Duration = Duration::from_millis(50);

/// Of the thread: sees each request that is taken up.
#[derive(Default)]
pub struct Pace {
    last: Option<Instant>,
    nanos: u64,
}

impl Pace {
    /// A request is taken up; `more` wait behind it. All that the thread does between two of them
    /// counts: applying, and waiting until another batch may be in flight.
    pub fn took_up(&mut self, now: Instant, more: bool, told: &Told) {
        if let Some(last) = self.last {
            let took = now.saturating_duration_since(last).min(LONGEST).as_nanos() as u64;
            self.nanos = if self.nanos == 0 { took } else { (self.nanos * (MEMORY - 1) + took) / MEMORY };
            told.0.store(self.nanos, Ordering::Relaxed);
        }
        self.last = more.then_some(now);
    }
}

/// The pace as others read it, nanoseconds for a request; 0: not known.
#[derive(Default)]
pub struct Told(AtomicU64);

impl Told {
    /// Time until a request is taken up before which so many are.
    pub fn wait(&self, before: usize) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed).saturating_mul(before as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_that_of_requests_with_others_behind_them() {
        let (mut pace, told, start) = (Pace::default(), Told::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        pace.took_up(at(0), false, &told);
        pace.took_up(at(1000), true, &told);
        assert_eq!(told.wait(100), Duration::ZERO, "an idle second is no pace");
        for millis in 1..200 {
            pace.took_up(at(1000 + 2 * millis), true, &told);
        }
        assert_eq!(told.wait(100), Duration::from_millis(200));
        // A hang of ten seconds counts as one of a twentieth.
        pace.took_up(at(11_398), true, &told);
        assert!(told.wait(100) < Duration::from_millis(360), "{:?}", told.wait(100));
    }
}
