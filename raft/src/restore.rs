//! A new cluster of one voter from an old state: from a backup, or from what one survivor has when the
//! majority is lost. It gets a new cluster id, a new store id and the next epoch, so that no node of
//! the old cluster takes it for its own and nothing the old one recorded authorises an act.
//!
//! A folder becomes usable with its snapshot, which is written last: the log says that it begins behind
//! one, so what breaks off before that is refused by a start. Never overwrites a folder that holds
//! something.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use openraft::Membership;
use scheduler::{Core, Frozen, Levels};
use serde::Serialize;
use uuid::Uuid;

use crate::identity::{IdentityError, identify};
use crate::snapshot::{self, Folder, SnapshotError};
use crate::store::{log_id, wal_id};
use crate::types::{LogId, Member, StoredMembership};
use crate::verify::{apply, read_identity};
use crate::wal::inspect::inspect;
use crate::wal::{self, Vote, Wal};

/// The new cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Begun {
    /// The cluster whose state it has, when it is known.
    pub from: Option<Uuid>,
    /// Its id.
    pub cluster: Uuid,
    /// Its only voter.
    pub node: u64,
    /// The folder's own id.
    pub store: Uuid,
    /// See [`scheduler::state::Counters::epoch`].
    pub epoch: u64,
    /// Index of the last log entry in the state.
    pub index: u64,
    /// Hosts.
    pub hosts: u64,
    /// Instances and claims.
    pub consumers: u64,
    /// Where the folder of the survivor is kept.
    pub kept: Option<PathBuf>,
}

/// What a survivor has, told before anything is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivor {
    /// The cluster that lost its majority.
    pub cluster: Uuid,
    /// The node.
    pub node: u64,
    /// Index of its last log entry.
    pub last: Option<u64>,
    /// Index up to which it knows that entries were committed.
    pub committed: Option<u64>,
}

/// Why no cluster was begun.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The folder is in use.
    #[error("{path}: the folder is not empty; give one that is empty or does not exist", path = .0.display())]
    NotEmpty(PathBuf),
    /// A file operation failed.
    #[error("{path}: {doing} failed: {source}; check the disk and the owner of the folder", path = .path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The backup or the snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The log.
    #[error(transparent)]
    Log(#[from] wal::OpenError),
    /// The identity of the new folder.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The survivor's folder.
    #[error("{path}: {what}; run pallium verify on it, and restore a backup if it cannot be mended", path = .path.display())]
    Survivor {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

fn failed(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> RestoreError + use<> {
    let path = path.to_owned();
    move |source| RestoreError::File { path, doing, source }
}

/// Begins a cluster of one voter from a backup, in an empty folder.
pub fn restore(backup: &Path, data_dir: &Path, node: u64, addr: &str) -> Result<Begun, RestoreError> {
    let (header, frozen) = snapshot::read(backup, Levels::PROGRAM)?;
    let begun = begin(data_dir, (node, addr), header.last, frozen)?;
    Ok(Begun { from: header.cluster, ..begun })
}

/// Looks at what a survivor has; changes nothing.
pub fn survivor(data_dir: &Path) -> Result<Survivor, RestoreError> {
    let broken = |what| RestoreError::Survivor { path: data_dir.to_owned(), what };
    let log = inspect(&data_dir.join("log"))?;
    let identity = read_identity(data_dir).map_err(broken)?;
    Ok(Survivor {
        cluster: identity.cluster,
        node: identity.node,
        last: log.ends().1.map(|last| last.index),
        committed: log.committed().map(|committed| committed.index),
    })
}

/// Begins a cluster of one voter from a survivor's snapshot and its whole durable log, in its place;
/// the old folder stays beside it.
pub fn recover(data_dir: &Path, addr: &str) -> Result<Begun, RestoreError> {
    let broken = |what| RestoreError::Survivor { path: data_dir.to_owned(), what };
    let log = inspect(&data_dir.join("log"))?;
    let identity = read_identity(data_dir).map_err(broken)?;
    let newest = Folder::reading(&data_dir.join("snapshots")).load_newest()?;
    let (covered, mut core) = newest.map_or_else(|| (None, Core::new()), |(_, header, core)| (header.last, core));
    let (purged, last) = log.ends();
    let index = covered.map(|covered| covered.index);
    if let Some(purged) = purged
        && index.is_none_or(|index| index < purged.index)
    {
        let what =
            format!("the snapshot ends at {index:?}, the log begins at {}: what is between is lost", purged.index + 1);
        return Err(broken(what));
    }
    apply(&log, index, u64::MAX, &mut core).map_err(broken)?;
    let last = covered.max(last.map(log_id));
    let (new, kept) = (beside(data_dir, ".recovering"), beside(data_dir, ".before-recovery"));
    if kept.exists() {
        return Err(RestoreError::NotEmpty(kept));
    }
    let begun = begin(&new, (identity.node, addr), last, core.freeze())?;
    drop(log);
    fs::rename(data_dir, &kept).map_err(failed(data_dir, "setting the old folder aside"))?;
    fs::rename(&new, data_dir).map_err(failed(&new, "putting the new folder in its place"))?;
    let parent = data_dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed(parent, "syncing"))?;
    Ok(Begun { from: Some(identity.cluster), kept: Some(kept), ..begun })
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.components().as_path().into();
    name.push(suffix);
    name.into()
}

fn begin(
    data_dir: &Path,
    (node, addr): (u64, &str),
    last: Option<LogId>,
    frozen: Frozen,
) -> Result<Begun, RestoreError> {
    fs::create_dir_all(data_dir).map_err(failed(data_dir, "creating"))?;
    if fs::read_dir(data_dir).map_err(failed(data_dir, "listing"))?.next().is_some() {
        return Err(RestoreError::NotEmpty(data_dir.to_owned()));
    }
    let frozen = frozen.in_new_epoch();
    // A state that was in no log counts as the first entry of one.
    let last = last.unwrap_or(log_id(wal::LogId { term: 0, node, index: 0 }));
    start_log(&data_dir.join("log"), node, last).map_err(|error| match error {
        StartError::Open(error) => error.into(),
        StartError::Write(source) => failed(&data_dir.join("log"), "writing")(source),
    })?;
    let identity = identify(data_dir, node, Some(Uuid::now_v7()), false)?;
    let nodes = BTreeMap::from([(node, Member { addr: addr.to_owned(), store: identity.store })]);
    let membership = Membership::new(vec![BTreeSet::from([node])], nodes)
        .map_err(|error| failed(data_dir, "making the membership")(io::Error::other(error.to_string())))?;
    let snapshots = Folder::open(&data_dir.join("snapshots"), Levels::PROGRAM)?;
    let (_, header) = snapshots.save(Some(last), StoredMembership::new(Some(last), membership), &frozen)?;
    Ok(Begun {
        from: None,
        cluster: identity.cluster,
        node,
        store: identity.store,
        epoch: header.epoch,
        index: last.index,
        hosts: header.hosts,
        consumers: header.consumers,
        kept: None,
    })
}

enum StartError {
    Open(wal::OpenError),
    Write(io::Error),
}

/// A log that goes on behind `last`, in a term that the old cluster did not have.
fn start_log(folder: &Path, node: u64, last: LogId) -> Result<(), StartError> {
    let log = Wal::open(folder, &wal::Options::default()).map_err(StartError::Open)?;
    let (done, told) = wal::waiter();
    log.save_vote(Vote { term: last.leader_id.term + 1, node, committed: false }, done);
    wal::wait(&told).map_err(StartError::Write)?;
    let (done, told) = wal::waiter();
    log.purge(wal_id(&last), done);
    wal::wait(&told).map_err(StartError::Write)?;
    log.close();
    Ok(())
}
