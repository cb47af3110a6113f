//! How many VMs were moved on each day of a trace, and how many may be.

use serde::Serialize;

/// A day, milliseconds.
const DAY: u64 = 86_400_000;

/// Moves by day. Budgets are rounded down, and what is left of one is gone when its day is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Migrations {
    /// Moves that were allowed, by day from the start of the trace.
    pub budget: Vec<u64>,
    /// Moves that were made.
    pub moves: Vec<u64>,
    /// Memory that was moved, MiB.
    pub memory_mib: u64,
    /// VMs that fitted nowhere and found a place after moves.
    pub made_room: u64,
    /// Moves after which the VM that they made room for was refused all the same.
    pub in_vain: u64,
    /// Each time that was rebalanced, where it was.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub periods: Vec<Period>,
    /// All of them together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rebalanced: Option<Rebalanced>,
}

/// One time that was rebalanced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Period {
    /// When, seconds of the trace.
    pub time_s: f64,
    /// Moves that were allowed then.
    pub budget: u64,
    /// Moves.
    pub moves: u64,
    /// Memory that was moved, MiB.
    pub memory_mib: u64,
    /// Hosts with a VM before, and none after.
    pub hosts_freed: u64,
}

/// What rebalancing came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rebalanced {
    /// Moves.
    pub moves: u64,
    /// Memory that was moved, MiB.
    pub memory_mib: u64,
    /// Hosts with a VM before, and none after.
    pub hosts_freed: u64,
    /// Of these for each move.
    pub hosts_freed_per_move: Option<f64>,
}

impl Migrations {
    /// Time goes on; a new day's budget is a share of the VMs that are alive.
    pub(super) fn go_on_to(&mut self, time: u64, share: f64, alive: u64) {
        let day = (time / DAY) as usize;
        while self.budget.len() <= day {
            self.budget.push((share * alive as f64) as u64);
            self.moves.push(0);
        }
    }

    /// Moves that are left today.
    pub(super) fn left(&self) -> usize {
        let today = |days: &[u64]| days.last().copied().unwrap_or(0);
        today(&self.budget).saturating_sub(today(&self.moves)) as usize
    }

    /// Moves that are left today for rebalancing: it takes no more of the day's budget than the part of the day that is over,
    /// and leaves the rest to those that fit nowhere.
    pub(super) fn left_at(&self, time: u64) -> usize {
        let Some(day) = self.budget.len().checked_sub(1) else { return 0 };
        let over = time.saturating_sub(day as u64 * DAY).min(DAY);
        let part = u128::from(self.budget[day]) * u128::from(over) / u128::from(DAY);
        (part as u64).saturating_sub(self.moves[day]) as usize
    }

    pub(super) fn rebalanced(&mut self, period: Period) {
        self.periods.push(period);
        let all = self.rebalanced.get_or_insert_default();
        all.moves += period.moves;
        all.memory_mib += period.memory_mib;
        all.hosts_freed += period.hosts_freed;
        all.hosts_freed_per_move = (all.moves > 0).then(|| all.hosts_freed as f64 / all.moves as f64);
    }

    pub(super) fn count(&mut self, memory_mib: u64) {
        if let Some(today) = self.moves.last_mut() {
            *today += 1;
        }
        self.memory_mib += memory_mib;
    }

    /// Moves so far.
    pub fn all(&self) -> u64 {
        self.moves.iter().sum()
    }
}
