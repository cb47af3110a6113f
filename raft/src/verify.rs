//! Is what lies in a data folder whole? Reads all of it, of a node that is stopped: identity, log,
//! snapshots, and the state that both make. Changes nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use openraft::EntryPayload;
use scheduler::{Batch, Core, Levels};
use serde::Serialize;
use uuid::Uuid;

use crate::backup::{self, Summary};
use crate::identity::{Identity, identify};
use crate::snapshot::{self, Folder, SnapshotError};
use crate::store::from_wal;
use crate::types::Payload;
use crate::wal::OpenError;
use crate::wal::inspect::{Inspected, inspect};

const AGAIN: &str = "in a cluster: empty the data folder and let the node join again as a learner with a new node id; for a lone \
     voter: restore a backup into an empty folder";

/// What was found in a folder.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// The cluster.
    pub cluster: Option<Uuid>,
    /// The node.
    pub node: Option<u64>,
    /// The folder's own id.
    pub store: Option<Uuid>,
    /// Snapshots, newest first.
    pub snapshots: Vec<Snapshot>,
    /// The log.
    pub log: Option<Log>,
    /// The state that snapshot and log make, up to the committed index.
    pub state: Option<State>,
    /// What is damaged, in words, with what to do; empty when all is whole.
    pub damaged: Vec<String>,
    /// What is no damage and should be known.
    pub notes: Vec<String>,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Its file.
    pub file: PathBuf,
    /// Size of the file.
    pub bytes: u64,
    /// What it says of itself; none when it is damaged.
    #[serde(flatten)]
    pub summary: Option<Summary>,
}

/// The log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Log {
    /// Segments.
    pub segments: usize,
    /// Bytes of their files.
    pub bytes: u64,
    /// Index of the first entry.
    pub first: Option<u64>,
    /// Index of the last entry.
    pub last: Option<u64>,
    /// Index up to which entries are known to be committed.
    pub committed: Option<u64>,
    /// Term of the vote.
    pub vote_term: Option<u64>,
    /// Node voted for.
    pub vote_node: Option<u64>,
    /// Whether a quorum granted it.
    pub vote_committed: bool,
}

/// A state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct State {
    /// Index of the last entry in it.
    pub index: Option<u64>,
    /// See [`scheduler::state::Counters::epoch`].
    pub epoch: u64,
    /// Hosts.
    pub hosts: u64,
    /// Instances and claims.
    pub consumers: u64,
    /// Its checksum, 16 hex digits.
    pub checksum: String,
}

impl State {
    fn of(core: &Core, index: Option<u64>) -> State {
        let counters = core.state().tables().counters();
        State {
            index,
            epoch: counters.epoch,
            hosts: counters.hosts,
            consumers: counters.consumers,
            checksum: format!("{:016x}", core.state().checksum()),
        }
    }
}

/// Why nothing could be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Nothing to verify.
    #[error("{path}: {what}; give the data folder of a node, or a backup file", path = .path.display())]
    Nothing {
        /// What was given.
        path: PathBuf,
        /// What is there.
        what: String,
    },
    /// A node is running there, or a file cannot be read.
    #[error(transparent)]
    Log(OpenError),
    /// A file cannot be read.
    #[error(transparent)]
    Snapshot(SnapshotError),
}

/// Verifies the data folder of a node, or a backup file.
pub fn verify(path: &Path) -> Result<Report, VerifyError> {
    let nothing = |what: String| VerifyError::Nothing { path: path.to_owned(), what };
    let found = fs::metadata(path).map_err(|error| nothing(error.to_string()))?;
    if found.is_file() {
        return Ok(file(path));
    }
    if !path.join("log").is_dir() {
        return Err(nothing("no folder of a node: there is no log in it".to_owned()));
    }
    let mut report = Report::default();
    let log = match inspect(&path.join("log")) {
        Ok(log) => Some(log),
        Err(error @ (OpenError::Locked(_) | OpenError::File { .. })) => return Err(VerifyError::Log(error)),
        Err(error) => {
            report.damaged.push(error.to_string());
            None
        }
    };
    report.log = log.as_ref().map(|log| describe(log, &mut report.notes));
    who(path, &mut report);
    let newest = snapshots(path, &mut report).map_err(VerifyError::Snapshot)?;
    let (index, core) = newest.map_or_else(|| (None, Core::new()), |(index, core)| (index, core));
    if let Some(log) = &log {
        replay(path, log, index, core, &mut report);
    }
    Ok(report)
}

fn file(path: &Path) -> Report {
    let mut report = Report::default();
    let bytes = fs::metadata(path).map_or(0, |found| found.len());
    let summary = match backup::load(path) {
        Ok((summary, core)) => {
            report.cluster = summary.cluster;
            broken(path, &core, &mut report);
            report.state = Some(State::of(&core, summary.index));
            Some(summary)
        }
        Err(SnapshotError::Damaged { path, offset, what }) => {
            let path = path.display();
            report.damaged.push(format!("{path}: damaged at offset {offset}: {what}; take another backup"));
            None
        }
        Err(error) => {
            report.damaged.push(error.to_string());
            None
        }
    };
    report.snapshots.push(Snapshot { file: path.to_owned(), bytes, summary });
    report
}

fn describe(log: &Inspected, notes: &mut Vec<String>) -> Log {
    if let Some(torn) = &log.torn {
        notes.push(format!(
            "{}: the last write, at offset {}, is incomplete: it was not acknowledged and is dropped at the next \
             start. Only on a damaged disk of a lone voter may decisions from index {} on be lost",
            torn.path.display(),
            torn.offset,
            torn.index
        ));
    }
    Log {
        segments: log.segments,
        bytes: log.bytes,
        first: log.first(),
        last: log.ends().1.map(|last| last.index),
        committed: log.committed().map(|committed| committed.index),
        vote_term: log.vote().map(|vote| vote.term),
        vote_node: log.vote().map(|vote| vote.node),
        vote_committed: log.vote().is_some_and(|vote| vote.committed),
    }
}

fn who(path: &Path, report: &mut Report) {
    let identity = match read_identity(path) {
        Ok(identity) => identity,
        Err(error) => return report.damaged.push(error),
    };
    report.cluster = Some(identity.cluster);
    report.node = Some(identity.node);
    report.store = Some(identity.store);
}

/// The identity of a folder, which is not written when it is missing.
pub(crate) fn read_identity(path: &Path) -> Result<Identity, String> {
    // The number does not matter where the file is missing or cannot be read.
    let node = fs::read(path.join("identity")).ok().and_then(|text| serde_json::from_slice::<Identity>(&text).ok());
    identify(path, node.map_or(0, |identity| identity.node), None, true).map_err(|error| error.to_string())
}

/// Reads every snapshot; the newest that is whole.
fn snapshots(path: &Path, report: &mut Report) -> Result<Option<(Option<u64>, Core)>, SnapshotError> {
    let files = match Folder::reading(&path.join("snapshots")).files() {
        Ok(files) => files,
        Err(SnapshotError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut newest = None;
    for file in files {
        let bytes = fs::metadata(&file).map_or(0, |found| found.len());
        let summary = match snapshot::read(&file, Levels::PROGRAM) {
            Ok((header, frozen)) => {
                newest.get_or_insert_with(|| (header.last.map(|last| last.index), Core::of(frozen)));
                Some(Summary::of(&header))
            }
            Err(error) => {
                report.damaged.push(error.to_string());
                None
            }
        };
        report.snapshots.push(Snapshot { file, bytes, summary });
    }
    Ok(newest)
}

/// What replaying may meet.
enum Stop {
    Log(OpenError),
    Entry(String),
}

impl From<OpenError> for Stop {
    fn from(error: OpenError) -> Stop {
        Stop::Log(error)
    }
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Stop::Log(error) => error.fmt(f),
            Stop::Entry(what) => f.write_str(what),
        }
    }
}

/// Applies the entries behind `index` up to `end`, that one not. The index of the last applied.
pub(crate) fn apply(log: &Inspected, index: Option<u64>, end: u64, core: &mut Core) -> Result<Option<u64>, String> {
    let mut applied = index;
    let start = index.map_or(0, |index| index + 1);
    let done = log.each(start, end, |entry| {
        let index = entry.id.index;
        if applied.is_some_and(|applied| applied + 1 != index) {
            return Err(Stop::Entry(format!("log entry {index} follows entry {applied:?}: what is between is lost")));
        }
        let entry = from_wal(entry).map_err(|error| Stop::Entry(error.to_string()))?;
        if let EntryPayload::Normal(Payload(bytes)) = &entry.payload {
            let batch = Batch::decode(bytes, Levels::PROGRAM)
                .map_err(|error| Stop::Entry(format!("log entry {index}: {error}")))?;
            core.apply(&batch);
        }
        applied = Some(index);
        Ok(())
    });
    done.map_err(|stop| stop.to_string()).map(|()| applied)
}

fn replay(path: &Path, log: &Inspected, index: Option<u64>, mut core: Core, report: &mut Report) {
    let (purged, last) = log.ends();
    if let Some(purged) = purged
        && index.is_none_or(|index| index < purged.index)
    {
        report.damaged.push(format!(
            "{}: the newest whole snapshot ends at index {}, but the log begins at {}: what is between is lost; {AGAIN}",
            path.display(),
            index.map_or("none".to_owned(), |index| index.to_string()),
            purged.index + 1
        ));
        return;
    }
    let committed = log.committed().map(|committed| committed.index);
    let end = committed.map_or(0, |committed| committed + 1);
    match apply(log, index, end, &mut core) {
        Ok(applied) => {
            if let Some(committed) = committed
                && applied.is_none_or(|applied| applied < committed)
            {
                report.damaged.push(format!(
                    "{}: entries up to index {committed} were committed, and the log ends at {}; {AGAIN}",
                    path.display(),
                    last.map_or("none".to_owned(), |last| last.index.to_string())
                ));
            }
            broken(path, &core, report);
            report.state = Some(State::of(&core, applied));
        }
        Err(what) => report.damaged.push(format!("{}: {what}; {AGAIN}", path.display())),
    }
}

/// Invariants of the state that do not hold.
fn broken(path: &Path, core: &Core, report: &mut Report) {
    let found = core.check().into_iter().map(|what| format!("{}: the state is broken: {what}", path.display()));
    report.damaged.extend(found);
}
