//! The two clocks of a node: a monotonic one, which measures, and the wall's, which is for people.
//!
//! In a simulation the first is the simulation's own time, and the second can be set, as people do.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Now. A runtime whose time is simulated gives its own.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Time since an instant that [`now`] gave.
pub fn since(earlier: Instant) -> Duration {
    now().saturating_duration_since(earlier)
}

/// Wall time.
pub struct Wall(Box<dyn Fn() -> u64 + Send>);

impl Wall {
    /// The operating system's.
    pub fn system() -> Wall {
        let millis = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        Wall(Box::new(millis))
    }

    /// Any other, in milliseconds since 1970.
    #[cfg(any(test, feature = "simulation"))]
    pub fn new(now: impl Fn() -> u64 + Send + 'static) -> Wall {
        Wall(Box::new(now))
    }

    /// Milliseconds since 1970.
    pub fn now(&self) -> u64 {
        (self.0)()
    }
}
