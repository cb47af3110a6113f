//! Snapshot files: their format, and the folder that keeps the last two.
//!
//! `magic | u32 version | u32 length of the header | u32 crc32c of the header | header | body`. The
//! header is JSON, for it is small and read by people too; the body is what
//! [`scheduler::Frozen::encode`] gives, packed with zstd. A file appears under its name only when it
//! is whole and durable. Never touches the log.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use scheduler::{Core, Frozen};
use serde::{Deserialize, Serialize};

use crate::types::{LogId, SnapshotMeta, StoredMembership};

const MAGIC: &[u8; 8] = b"palliumS";
/// Version of the snapshot file format this program writes and reads.
pub const VERSION: u32 = 1;
const KEPT: usize = 2;
const SUFFIX: &str = ".snapshot";
const UNFINISHED: &str = ".unfinished";
const LEVEL: i32 = 1;
const MAX_HEADER: usize = 16 << 20;

/// What stands in front of a snapshot's body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The last log id that is in the state.
    pub last: Option<LogId>,
    /// The last membership.
    pub membership: StoredMembership,
    /// Checksum of the state.
    pub state: u64,
    /// Bytes of the body.
    pub bytes: u64,
    /// Its crc32c.
    pub crc: u32,
}

impl Header {
    /// The same for openraft.
    pub fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.last, last_membership: self.membership.clone() }
    }
}

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
    /// Written by another version.
    #[error("{path}: snapshot format version {found}, this program reads version {VERSION}; start the version of pallium that wrote it", path = .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: u32,
    },
    /// Not whole.
    #[error("{path}: damaged snapshot: {what}; an older one is used if the log still reaches back to it", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
}

/// The folder of snapshots.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Opens it, creating it when absent, and removes files that were never finished.
    pub fn open(path: &Path) -> Result<Folder, SnapshotError> {
        let folder = Folder { path: path.to_owned() };
        fs::create_dir_all(path).map_err(folder.error(path))?;
        if let Some(parent) = path.parent() {
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(folder.error(parent))?;
        }
        for entry in fs::read_dir(path).map_err(folder.error(path))? {
            let entry = entry.map_err(folder.error(path))?.path();
            if entry.to_string_lossy().ends_with(UNFINISHED) {
                fs::remove_file(&entry).map_err(folder.error(&entry))?;
            }
        }
        Ok(folder)
    }

    fn error(&self, path: &Path) -> impl FnOnce(io::Error) -> SnapshotError + use<> {
        let path = self.path.join(path);
        move |source| SnapshotError::File { path, source }
    }

    /// Snapshot files, newest first.
    pub fn files(&self) -> Result<Vec<PathBuf>, SnapshotError> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(self.error(&self.path))? {
            let path = entry.map_err(self.error(&self.path))?.path();
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
            match load(&path) {
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
        let body = zstd::bulk::compress(&frozen.encode(), LEVEL).map_err(self.error(&self.path))?;
        let header =
            Header { last, membership, state: frozen.checksum(), bytes: body.len() as u64, crc: crc32c::crc32c(&body) };
        let path = self.write(&header, &body)?;
        Ok((path, header))
    }

    /// Takes over a snapshot file from elsewhere, such as one received from a peer.
    pub fn take(&self, from: &Path) -> Result<PathBuf, SnapshotError> {
        if from.parent() == Some(&self.path) {
            return Ok(from.to_owned());
        }
        let (header, body) = read(from)?;
        self.write(&header, &body)
    }

    fn write(&self, header: &Header, body: &[u8]) -> Result<PathBuf, SnapshotError> {
        let (index, term, node) =
            header.last.map_or((0, 0, 0), |last| (last.index, last.leader_id.term, last.leader_id.node_id));
        let path = self.path.join(format!("{index:016x}-{term:016x}-{node:016x}{SUFFIX}"));
        let mut unfinished = path.clone().into_os_string();
        unfinished.push(UNFINISHED);
        let unfinished = PathBuf::from(unfinished);
        write_file(&unfinished, header, body).map_err(self.error(&unfinished))?;
        fs::rename(&unfinished, &path).map_err(self.error(&path))?;
        File::open(&self.path).and_then(|folder| folder.sync_all()).map_err(self.error(&self.path))?;
        for old in self.files()?.into_iter().skip(KEPT) {
            fs::remove_file(&old).map_err(self.error(&old))?;
        }
        Ok(path)
    }
}

fn write_file(path: &Path, header: &Header, body: &[u8]) -> io::Result<()> {
    let header = serde_json::to_vec(header)?;
    let mut file = File::create(path)?;
    file.write_all(MAGIC)?;
    file.write_all(&VERSION.to_le_bytes())?;
    file.write_all(&(header.len() as u32).to_le_bytes())?;
    file.write_all(&crc32c::crc32c(&header).to_le_bytes())?;
    file.write_all(&header)?;
    file.write_all(body)?;
    file.sync_all()
}

fn damaged(path: &Path, what: &dyn ToString) -> SnapshotError {
    SnapshotError::Damaged { path: path.to_owned(), what: what.to_string() }
}

/// Reads a file and checks that it is whole.
fn read(path: &Path) -> Result<(Header, Vec<u8>), SnapshotError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(|source| SnapshotError::File { path: path.to_owned(), source })?;
    let number = |at: usize| {
        let four = bytes.get(at..at + 4)?;
        Some(u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
    };
    if bytes.get(..8) != Some(MAGIC) {
        return Err(damaged(path, &"it does not start like a snapshot"));
    }
    let (Some(version), Some(length), Some(crc)) = (number(8), number(12), number(16)) else {
        return Err(damaged(path, &"it ends in the header"));
    };
    if version != VERSION {
        return Err(SnapshotError::Version { path: path.to_owned(), found: version });
    }
    let end = 20 + (length as usize).min(MAX_HEADER);
    let header = bytes.get(20..end).ok_or_else(|| damaged(path, &"it ends in the header"))?;
    if crc32c::crc32c(header) != crc {
        return Err(damaged(path, &"the header's checksum does not hold"));
    }
    let header: Header = serde_json::from_slice(header).map_err(|error| damaged(path, &error))?;
    let body = bytes.split_off(end);
    if body.len() as u64 != header.bytes || crc32c::crc32c(&body) != header.crc {
        return Err(damaged(path, &"the body's checksum does not hold"));
    }
    Ok((header, body))
}

/// Reads a snapshot and rebuilds the core.
pub fn load(path: &Path) -> Result<(Header, Core), SnapshotError> {
    let (header, body) = read(path)?;
    let body = zstd::stream::decode_all(&body[..]).map_err(|error| damaged(path, &error))?;
    let core = Core::restore(&body).map_err(|error| damaged(path, &error))?;
    let found = core.state().checksum();
    if found != header.state {
        let what = format!("the state's checksum is {found:016x}, expected {:016x}", header.state);
        return Err(damaged(path, &what));
    }
    Ok((header, core))
}
