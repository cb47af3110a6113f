//! Guests that are started again where they were: after a crash of their own, or when their host comes
//! back with their disks.

use bitcode::{Decode, Encode};
use uuid::Uuid;

use super::keyed::Entry;
use super::order::Leader;
use super::recovery::Life;

/// Restarts within [`WINDOW`] before a person must look.
pub const MOST: u8 = 3;
/// See `MOST`, milliseconds.
pub const WINDOW: u64 = 600_000;

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
}

impl Entry for Restart {
    type Key = Uuid;
    fn key(&self) -> Uuid {
        self.instance
    }
}
