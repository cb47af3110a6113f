//! The feature level: one number for all that nodes write for one another. It says in which format
//! batches, states and letters are written, and which commands there are.
//!
//! A program supports two levels, its own and the one before. It writes at the level that the cluster
//! has reached, so that the members of either version read it, and so that each of them may be put
//! back to the former version. Once every member supports the next level the leader raises the
//! cluster to it ([`Command::Raise`](crate::Command::Raise)): from then on the former version is
//! refused. Nothing here knows who the members are.
//!
//! What changes with a level keeps its former shape in `former` until the level after it. The feature
//! `next-level` compiles in a level of the future with a command and a table of its own, for the
//! simulation of an upgrade.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The first level that is promised to be read by the next version.
pub const FIRST: u8 = 4;
/// The level that brought failover: its commands, and its tables in the state.
pub const FAILOVER: u8 = 5;
/// The level of this program.
pub const NEWEST: u8 = FAILOVER + cfg!(feature = "next-level") as u8;
/// The level before it, if there is one.
pub const OLDEST: u8 = if NEWEST > FIRST { NEWEST - 1 } else { FIRST };

/// The levels that a program supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Levels {
    /// The lowest.
    pub oldest: u8,
    /// The highest.
    pub newest: u8,
}

impl Levels {
    /// Those of this program.
    pub const PROGRAM: Self = Self { oldest: OLDEST, newest: NEWEST };

    /// Whether something of this level can be read.
    pub fn check(self, found: u8) -> Result<(), Unsupported> {
        if (self.oldest..=self.newest).contains(&found) { Ok(()) } else { Err(Unsupported { found, levels: self }) }
    }

    /// The level to write at in a cluster that has reached `level`; 0: that was never raised.
    pub fn written(self, level: u8) -> u8 {
        level.max(self.oldest)
    }
}

/// What a node says that says nothing of levels.
impl Default for Levels {
    fn default() -> Self {
        Self { oldest: FIRST, newest: FIRST }
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.oldest, self.newest) {
            (oldest, newest) if oldest == newest => write!(f, "level {newest}"),
            (oldest, newest) => write!(f, "levels {oldest} to {newest}"),
        }
    }
}

/// Something of a level that is not supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// Level found.
    pub found: u8,
    /// Levels that are supported.
    pub levels: Levels,
}

impl std::error::Error for Unsupported {}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { found, levels } = self;
        let run = if *found > levels.newest { "a newer" } else { "an older" };
        write!(f, "feature level {found}, this program supports {levels}: run {run} version of pallium")
    }
}
