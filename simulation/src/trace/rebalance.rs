//! Rebalancing in periods of virtual time, by the planners that serve live states.

pub use scheduler::rebalance::Objective;
use scheduler::rebalance::{History, Site, Step};

/// Rebalancing: what for, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebalance {
    /// What for.
    pub objective: Objective,
    /// Milliseconds from one time to the next, above 0.
    pub every: u64,
}

/// So long a VM does not go back to a host that it was moved away from, milliseconds.
const WINDOW: u64 = 86_400_000;
/// When the next time is, and what was moved before.
#[derive(Clone, Debug, Default)]
pub(super) struct Periods {
    next: Option<u64>,
    history: History,
}

impl Periods {
    /// The last time that is due up to now, if there is one.
    pub(super) fn due(&mut self, every: u64, now: u64) -> Option<u64> {
        let last = now / every * every;
        let next = *self.next.get_or_insert(last + every);
        if last < next {
            return None;
        }
        self.next = Some(last + every);
        Some(last)
    }

    /// A VM was moved.
    pub(super) fn moved(&mut self, vm: u32, from: usize, to: usize, at: u64) {
        self.history.add(vm, from, to, at);
    }

    /// What has gone round in circles stays, and nothing goes back.
    pub(super) fn plan(&mut self, objective: Objective, mut sites: Vec<Site>, most: usize, now: u64) -> Vec<Step> {
        let since = now.saturating_sub(WINDOW);
        self.history.forget(since);
        for item in sites.iter_mut().flat_map(|site| &mut site.items) {
            item.movable &= !self.history.goes_round(item.id, since);
        }
        objective.plan(&sites, most, |vm, to| !self.history.left(vm, to, since))
    }
}
