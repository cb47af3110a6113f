//! What each peer has acknowledged to this node since it started. A peer whose disk was rolled back
//! asks for it before it votes, and learns that it has forgotten something.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::types::{LogId, Vote};

/// The highest vote and log id that a peer acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// The vote it gave or followed.
    pub vote: Option<Vote>,
    /// The last entry that it said is durable.
    pub last: Option<LogId>,
}

/// Of every peer.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<BTreeMap<u64, Acknowledged>>);

impl Ledger {
    /// What a peer acknowledged.
    pub fn of(&self, peer: u64) -> Acknowledged {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&peer).copied().unwrap_or_default()
    }

    /// Notes a vote and an entry that a peer acknowledged. An entry that a later leader had it
    /// drop was never committed: the last word counts.
    pub fn note(&self, peer: u64, vote: Option<Vote>, last: Option<LogId>) {
        let mut ledger = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = ledger.entry(peer).or_default();
        if vote > known.vote {
            known.vote = vote;
        }
        if last > known.last {
            known.last = last;
        }
    }

    /// Forgets a peer.
    pub fn forget(&self, peer: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&peer);
    }
}
