//! What plans are made for, with the constants that simulated and live states share.

use super::{Site, Step, above_mean, balance, combined, consolidate, fuller_than};

/// What moves are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objective {
    /// Empty hosts.
    Consolidate,
    /// Hosts that are equally full.
    Balance,
}

/// Balance looks at hosts of which more is in use than this share, or than the mean of all and so much more.
const FULL: f64 = 0.9;
const UNEVEN: f64 = 0.1;
/// Least gain of a move of balance, for one host; of N hosts it is the Nth part.
const LEAST: f64 = 0.001;

impl Objective {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Consolidate => "consolidate",
            Self::Balance => "balance",
        }
    }

    /// Reads a name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Consolidate, Self::Balance].into_iter().find(|objective| objective.name() == name)
    }

    /// A plan of at most `most` moves; `allowed` says whether an instance may go to a host, beyond its size.
    pub fn plan(self, sites: &[Site], most: usize, allowed: impl Fn(u32, usize) -> bool) -> Vec<Step> {
        if self == Self::Consolidate {
            return consolidate(sites, most, allowed);
        }
        let found = vec![("full", fuller_than(sites, [FULL; 2])), ("uneven", above_mean(sites, UNEVEN))];
        balance(sites, &combined(found).kept, most, LEAST / sites.len().max(1) as f64, allowed)
    }
}
