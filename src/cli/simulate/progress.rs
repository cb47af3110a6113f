//! How far a study is: one bar, with rate and the time that is left, and what each run took.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use simulation::trace::{Mode, Study, Watch};

/// Replays that a search for the least number of hosts takes, about.
const SEARCH: u64 = 10;

type Taken = Arc<Mutex<BTreeMap<String, (u64, Duration)>>>;

/// The bar.
pub struct Progress {
    bar: ProgressBar,
    taken: Taken,
    begun: Instant,
}

/// One run.
struct Run {
    bar: ProgressBar,
    name: String,
    taken: Taken,
    events: AtomicU64,
    begun: Instant,
}

/// What runs took.
pub struct Timing {
    runs: BTreeMap<String, (u64, Duration)>,
    all: Duration,
}

impl Progress {
    /// A bar for a study under so many seeds; only on a terminal is anything shown.
    pub fn new(study: &Study, seeds: u64) -> Self {
        let events = study.inputs.trace.events.len() as u64;
        let of = |mode: &Mode| match mode {
            Mode::Replay | Mode::Survive { .. } | Mode::Inflate { .. } => events,
            Mode::MinHosts => SEARCH * events,
            Mode::FirstFailure { starts } => *starts as u64 * events,
        };
        let each: u64 = study.modes.iter().map(of).sum();
        let bar = ProgressBar::new(each * study.policies.len() as u64 * seeds);
        let style = ProgressStyle::with_template("{wide_bar} {human_pos} events, {per_sec}, {eta} left  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, taken: Arc::default(), begun: Instant::now() }
    }

    /// What tells the bar of one run.
    pub fn of(&self, name: String) -> Box<dyn Watch + Send> {
        Box::new(Run {
            bar: self.bar.clone(),
            name,
            taken: Arc::clone(&self.taken),
            events: AtomicU64::new(0),
            begun: Instant::now(),
        })
    }

    /// Removes the bar.
    pub fn finish(self) -> Timing {
        self.bar.finish_and_clear();
        let runs = std::mem::take(&mut *self.taken.lock().unwrap_or_else(PoisonError::into_inner));
        Timing { runs, all: self.begun.elapsed() }
    }
}

impl Watch for Run {
    fn played(&self, events: u64) {
        self.events.fetch_add(events, Ordering::Relaxed);
        self.bar.inc(events);
    }

    fn step(&self, what: &str) {
        self.bar.set_message(format!("{}: {what}", self.name));
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.insert(std::mem::take(&mut self.name), (self.events.load(Ordering::Relaxed), self.begun.elapsed()));
    }
}

impl Timing {
    /// `timing.json`.
    pub fn json(&self) -> Value {
        let runs: BTreeMap<&String, Value> = self
            .runs
            .iter()
            .map(|(name, (events, time))| {
                let seconds = time.as_secs_f64();
                (name, json!({ "events": events, "seconds": seconds, "events_per_second": *events as f64 / seconds.max(1e-9) }))
            })
            .collect();
        json!({ "seconds": self.all.as_secs_f64(), "runs": runs })
    }

    /// In one line.
    pub fn told(&self) -> String {
        let events: u64 = self.runs.values().map(|(events, _)| events).sum();
        let busy: f64 = self.runs.values().map(|(_, time)| time.as_secs_f64()).sum();
        if events == 0 {
            return "nothing was left to run: all of it was kept in the folder".to_owned();
        }
        format!(
            "{events} events in {:.1} s, {:.0} a second in each run",
            self.all.as_secs_f64(),
            events as f64 / busy.max(1e-9)
        )
    }
}
