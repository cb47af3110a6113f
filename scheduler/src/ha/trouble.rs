//! What befell single guests of hosts that live: kept for people, and of one thing a quarantine comes.

use bitcode::{Decode, Encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::recovery::Life;
use super::table::Failover;

/// Those that are remembered: the last ones.
pub const TROUBLES: usize = 256;
/// The same of the same guest is one for so long, milliseconds.
pub const AGAIN: u64 = 600_000;

/// What befell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It was destroyed, and Nova neither asked for that nor knows of it.
    Destroyed,
    /// A migration failed in post-copy: its memory is in two halves, and neither may be started.
    PostcopyFailed,
    /// libvirt has lost its hold of it: it runs, and cannot be told anything.
    Unmanaged,
}

impl Kind {
    /// All of them, by their numbers.
    pub const ALL: [Self; 3] = [Self::Destroyed, Self::PostcopyFailed, Self::Unmanaged];

    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Destroyed => "destroyed",
            Self::PostcopyFailed => "postcopy_failed",
            Self::Unmanaged => "unmanaged",
        }
    }
}

/// Something that befell a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Trouble {
    /// The instance.
    pub instance: Uuid,
    /// Where.
    pub life: Life,
    /// What.
    pub kind: Kind,
    /// When, replicated milliseconds.
    pub at: u64,
    /// The same for people.
    pub wall: u64,
}

impl Failover {
    /// Whether it is known of a guest already.
    pub fn is_told(&self, instance: Uuid, life: Life, kind: Kind, now: u64) -> bool {
        let same = |known: &&Trouble| (known.instance, known.life, known.kind) == (instance, life, kind);
        let last = self.small.troubles.iter().rev().find(same);
        last.is_some_and(|known| now.saturating_sub(known.at) < AGAIN)
    }
}
