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
