//! A backup: one state as one file, which [`crate::verify`] checks and [`crate::restore`] begins a new
//! cluster from. It is a snapshot file that names its cluster. Holds no log, and knows no folder.

use std::io::{self, Write};
use std::path::Path;

use scheduler::{Core, Frozen, Levels};
use serde::Serialize;
use uuid::Uuid;

use crate::snapshot::{self, Header, SnapshotError, format};
use crate::types::{LogId, StoredMembership};

/// First bytes of a backup and of a snapshot.
pub const MAGIC: [u8; 8] = *format::MAGIC;

/// A state on its way into a file.
#[derive(Debug)]
pub struct Backup {
    header: Header,
    frozen: Frozen,
}

impl Backup {
    pub(crate) fn new(
        frozen: Frozen,
        last: Option<LogId>,
        membership: StoredMembership,
        cluster: Option<Uuid>,
    ) -> Backup {
        Backup { header: Header { cluster, ..Header::of(&frozen, last, membership) }, frozen }
    }

    /// Of a state that is in no log.
    pub fn of(frozen: Frozen) -> Backup {
        Backup::new(frozen, None, StoredMembership::default(), None)
    }

    /// Hosts, instances and claims in it.
    pub fn records(&self) -> u64 {
        self.frozen.records()
    }

    /// Writes the file, a piece at a time; `progress` is told how many records each piece had.
    pub fn write(&self, out: impl Write, progress: impl FnMut(u64)) -> io::Result<()> {
        format::write(out, &self.header, &self.frozen, progress)
    }
}

/// What a snapshot or a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The cluster; a snapshot does not name it.
    pub cluster: Option<Uuid>,
    /// See [`scheduler::state::Counters::epoch`].
    pub epoch: u64,
    /// Term of the last log entry in it.
    pub term: Option<u64>,
    /// Index of the last log entry in it.
    pub index: Option<u64>,
    /// Wall time of the last command in it, milliseconds since 1970.
    pub wall: u64,
    /// Hosts.
    pub hosts: u64,
    /// Instances and claims.
    pub consumers: u64,
    /// Checksum of the state, 16 hex digits.
    pub checksum: String,
}

impl Summary {
    pub(crate) fn of(header: &Header) -> Summary {
        Summary {
            cluster: header.cluster,
            epoch: header.epoch,
            term: header.last.map(|last| last.leader_id.term),
            index: header.last.map(|last| last.index),
            wall: header.wall,
            hosts: header.hosts,
            consumers: header.consumers,
            checksum: format!("{:016x}", header.state),
        }
    }
}

/// Reads a backup or a snapshot to its end and checks every byte of it.
pub fn check(path: &Path) -> Result<Summary, SnapshotError> {
    Ok(Summary::of(&snapshot::read(path, Levels::PROGRAM)?.0))
}

/// The same, with the state.
pub fn load(path: &Path) -> Result<(Summary, Core), SnapshotError> {
    let (header, core) = snapshot::load(path, Levels::PROGRAM)?;
    Ok((Summary::of(&header), core))
}
