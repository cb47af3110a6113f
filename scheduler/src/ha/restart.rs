//! Guests that are started again where they were: after a crash of their own, or when their host comes
//! back with their disks. One that restarts do not help is moved once, if it wants that: stopped, by Nova, and its permit
//! follows as it follows a person's cold migration. So the move opens no host to it that was not open before.

use bitcode::{Decode, Encode};
use uuid::Uuid;

use super::keyed::Entry;
use super::order::Leader;
use super::recovery::Life;

/// Restarts within [`WINDOW`] before a person must look.
pub const MOST: u8 = 3;
/// See `MOST`, milliseconds.
pub const WINDOW: u64 = 600_000;

/// Between two moves of an instance that restarts do not help, milliseconds.
pub const MOVES: u64 = 86_400_000;

/// Between one restart and the next, by how many there were, milliseconds.
const BACKOFF: [u64; MOST as usize] = [10_000, 30_000, 90_000];

/// The last restart of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Restart {
    /// The instance.
    pub instance: Uuid,
    /// Where: the life that it is permitted in.
    pub life: Life,
    /// Names the intent.
    pub op: Uuid,
    /// The leader of the intent.
    pub by: Leader,
    /// When, replicated milliseconds.
    pub at: u64,
    /// Since when it was tried again and again, replicated milliseconds.
    pub since: u64,
    /// How often since then.
    pub tries: u8,
    /// What came of it; none: nobody knows yet.
    pub well: Option<bool>,
    /// When that was known, replicated milliseconds.
    pub over: u64,
    /// It is to be moved if the last restart does not help.
    pub moves: bool,
    /// Where it is being moved, or was, as restarts did not help.
    pub to: Option<Life>,
    /// When it was moved last for that, replicated milliseconds.
    pub last_move: Option<u64>,
}

impl Restart {
    /// Whether its tries still count.
    pub fn is_young(&self, now: u64) -> bool {
        now.saturating_sub(self.since) < WINDOW
    }

    /// Whether the next try has to wait: one that crashes as soon as it is up is not started all the time.
    pub fn rests(&self, now: u64) -> bool {
        let at = usize::from(self.tries.saturating_sub(1)).min(BACKOFF.len() - 1);
        self.is_young(now) && now < self.at.saturating_add(BACKOFF[at])
    }

    /// Whether it was tried as often as it is, in vain: a person must look.
    pub fn is_exhausted(&self, now: u64) -> bool {
        self.is_young(now) && self.gave_up()
    }

    /// Whether it was tried as often as it is, in vain, lately or not.
    pub fn gave_up(&self) -> bool {
        self.failed() && !self.moves
    }

    /// Whether it was started as often as it is, in vain, and is to be moved now.
    pub fn is_to_move(&self) -> bool {
        self.failed() && self.moves
    }

    fn failed(&self) -> bool {
        self.tries >= MOST && self.well == Some(false)
    }
}

impl Entry for Restart {
    type Key = Uuid;
    fn key(&self) -> Uuid {
        self.instance
    }
}
