//! Snapshot files: the folder that keeps the last two. A file appears under its name only when it is
//! whole and durable. Never touches the log.

pub mod format;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};

use scheduler::level::Unsupported;
use scheduler::{Core, Frozen, Levels};

use self::format::FormatError;
pub use self::format::Header;
use crate::types::{LogId, StoredMembership};

const KEPT: usize = 2;
const SUFFIX: &str = ".snapshot";
const UNFINISHED: &str = ".unfinished";
const BUFFER: usize = 256 << 10;

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file operation failed.
    #[error("{path}: {source}; check the disk and the owner of the folder", path = .path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Of a feature level that is not supported.
    #[error("{path}: snapshot of {found}", path = .path.display())]
    Level {
        /// The file.
        path: PathBuf,
        /// Level in the file.
        found: Unsupported,
    },
    /// Not whole.
    #[error("{path}: damaged at offset {offset}: {what}; an older snapshot is used if the log still reaches back to it, else restore a backup, or empty the data folder and let the node join again with a new node id", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damage starts to matter.
        offset: u64,
        /// What was found.
        what: String,
    },
}

impl SnapshotError {
    fn of(path: &Path, error: FormatError) -> SnapshotError {
        let path = path.to_owned();
        match error {
            FormatError::Read(source) => SnapshotError::File { path, source },
            FormatError::Level(found) => SnapshotError::Level { path, found },
            FormatError::Damaged { offset, what } => SnapshotError::Damaged { path, offset, what },
        }
    }
}

/// The folder of snapshots.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    levels: Levels,
}

fn error(path: &Path) -> impl FnOnce(io::Error) -> SnapshotError + use<> {
    let path = path.to_owned();
    move |source| SnapshotError::File { path, source }
}

impl Folder {
    /// Opens it, creating it when absent, and removes files that were never finished.
    pub fn open(path: &Path, levels: Levels) -> Result<Folder, SnapshotError> {
        let folder = Folder { path: path.to_owned(), levels };
        fs::create_dir_all(path).map_err(error(path))?;
        if let Some(parent) = path.parent() {
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(error(parent))?;
        }
        for entry in fs::read_dir(path).map_err(error(path))? {
            let entry = entry.map_err(error(path))?.path();
            if entry.to_string_lossy().ends_with(UNFINISHED) {
                fs::remove_file(&entry).map_err(error(&entry))?;
            }
        }
        Ok(folder)
    }

    /// A folder that is only read.
    pub fn reading(path: &Path) -> Folder {
        Folder { path: path.to_owned(), levels: Levels::PROGRAM }
    }

    /// Snapshot files, newest first.
    pub fn files(&self) -> Result<Vec<PathBuf>, SnapshotError> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(error(&self.path))? {
            let path = entry.map_err(error(&self.path))?.path();
            if path.to_string_lossy().ends_with(SUFFIX) {
                files.push(path);
            }
        }
        files.sort();
        files.reverse();
        Ok(files)
    }

    /// The newest snapshot that is whole, as a core; damaged ones are reported and passed over.
    pub fn load_newest(&self) -> Result<Option<(PathBuf, Header, Core)>, SnapshotError> {
        let mut damaged = None;
        for path in self.files()? {
            match load(&path, self.levels) {
                Ok((header, core)) => return Ok(Some((path, header, core))),
                Err(error @ SnapshotError::Damaged { .. }) => {
                    tracing::error!(%error, "a snapshot was passed over");
                    damaged.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        damaged.map_or(Ok(None), Err)
    }

    /// Writes a snapshot and drops the ones that are no longer kept.
    pub fn save(
        &self,
        last: Option<LogId>,
        membership: StoredMembership,
        frozen: &Frozen,
    ) -> Result<(PathBuf, Header), SnapshotError> {
        let header = Header::of(frozen, last, membership);
        let path = self.path_of(&header);
        let unfinished = unfinished(&path);
        save(&unfinished, &header, frozen)?;
        self.finish(&unfinished, &path)?;
        Ok((path, header))
    }

    /// Takes over a snapshot file that was received from a peer, when it is whole: under the name that
    /// its content asks for, whatever it was called. A file in this folder is moved, another copied.
    pub fn take(&self, from: &Path) -> Result<(PathBuf, Header, Core), SnapshotError> {
        let (header, core) = load(from, self.levels)?;
        let path = self.path_of(&header);
        let mut received = from.to_owned();
        if from.parent() != Some(&self.path) {
            received = unfinished(&path);
            fs::copy(from, &received).map_err(error(&received))?;
        }
        File::open(&received).and_then(|file| file.sync_all()).map_err(error(&received))?;
        self.finish(&received, &path)?;
        Ok((path, header, core))
    }

    fn path_of(&self, header: &Header) -> PathBuf {
        let (index, term, node) =
            header.last.map_or((0, 0, 0), |last| (last.index, last.leader_id.term, last.leader_id.node_id));
        self.path.join(format!("{index:016x}-{term:016x}-{node:016x}{SUFFIX}"))
    }

    fn finish(&self, unfinished: &Path, path: &Path) -> Result<(), SnapshotError> {
        fs::rename(unfinished, path).map_err(error(path))?;
        File::open(&self.path).and_then(|folder| folder.sync_all()).map_err(error(&self.path))?;
        for old in self.files()?.into_iter().skip(KEPT) {
            fs::remove_file(&old).map_err(error(&old))?;
        }
        Ok(())
    }
}

fn unfinished(path: &Path) -> PathBuf {
    let mut unfinished = path.to_owned().into_os_string();
    unfinished.push(UNFINISHED);
    unfinished.into()
}

/// Writes a file and makes it durable.
pub fn save(path: &Path, header: &Header, frozen: &Frozen) -> Result<(), SnapshotError> {
    let write = || {
        let mut file = BufWriter::with_capacity(BUFFER, File::create(path)?);
        format::write(&mut file, header, frozen, |_| ())?;
        file.get_ref().sync_all()
    };
    write().map_err(error(path))
}

/// Reads a snapshot or a backup and checks every byte of it.
pub fn read(path: &Path, levels: Levels) -> Result<(Header, Frozen), SnapshotError> {
    let file = File::open(path).map_err(error(path))?;
    format::read(BufReader::with_capacity(BUFFER, file), levels).map_err(|found| SnapshotError::of(path, found))
}

/// Reads a snapshot and rebuilds the core.
pub fn load(path: &Path, levels: Levels) -> Result<(Header, Core), SnapshotError> {
    let (header, frozen) = read(path, levels)?;
    Ok((header, Core::of(frozen)))
}
