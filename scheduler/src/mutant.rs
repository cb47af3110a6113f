//! Deliberate faults, for simulations that must catch them.
//!
//! One process breaks one promise, chosen before it starts. Compiled in only with the feature
//! `mutants`, which no program that serves has: without it [`on`] is always false and costs nothing.

use std::sync::atomic::{AtomicU8, Ordering};

/// A deliberate fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mutant {
    /// The log is not synced.
    NoFsync = 1,
    /// Votes are not written to the log.
    ForgetVote,
    /// A restarted leader leads on in its old term.
    LeaderRestore,
    /// A repeat with the same idempotency key is decided again.
    NoDedupe,
    /// Apply does not check the claim again.
    NoRecheck,
    /// Claims in flight are not counted.
    NoOverlay,
    /// A read does not wait for what the leader has acknowledged.
    StaleRead,
    /// Requests are answered when they are proposed.
    AckBeforeCommit,
    /// An installed snapshot does not replace the state.
    SkipRestore,
    /// Apply reads the node's wall clock.
    WallClockApply,
    /// The feature level is raised before every member supports the next.
    RaiseEarly,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 11] = [
        Mutant::NoFsync,
        Mutant::ForgetVote,
        Mutant::LeaderRestore,
        Mutant::NoDedupe,
        Mutant::NoRecheck,
        Mutant::NoOverlay,
        Mutant::StaleRead,
        Mutant::AckBeforeCommit,
        Mutant::SkipRestore,
        Mutant::WallClockApply,
        Mutant::RaiseEarly,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Mutant::NoFsync => "no-fsync",
            Mutant::ForgetVote => "forget-vote",
            Mutant::LeaderRestore => "leader-restore",
            Mutant::NoDedupe => "no-dedupe",
            Mutant::NoRecheck => "no-recheck",
            Mutant::NoOverlay => "no-overlay",
            Mutant::StaleRead => "stale-read",
            Mutant::AckBeforeCommit => "ack-before-commit",
            Mutant::SkipRestore => "skip-restore",
            Mutant::WallClockApply => "wall-clock-apply",
            Mutant::RaiseEarly => "raise-early",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Mutant> {
        Mutant::ALL.into_iter().find(|mutant| mutant.name() == name)
    }
}

static CHOSEN: AtomicU8 = AtomicU8::new(0);

/// From now on this process has this fault.
pub fn choose(mutant: Mutant) {
    CHOSEN.store(mutant as u8, Ordering::Relaxed);
}

/// Whether this process has this fault.
#[inline]
pub fn on(mutant: Mutant) -> bool {
    cfg!(feature = "mutants") && CHOSEN.load(Ordering::Relaxed) == mutant as u8
}
