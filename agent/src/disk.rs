//! Small files that survive a crash whole: the old content or the new one, never a part.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest file that is read, bytes: permits for 4,096 instances take a twentieth of it.
const MOST: u64 = 4 << 20;

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The system refused.
    #[error("cannot {doing} {path}: {error}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It does not hold what it should.
    #[error("{path} is damaged: {error}; {advice}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        error: serde_json::Error,
        /// What to do.
        advice: &'static str,
    },
}

/// Reads a file; `None`: there is none. `advice` says what to do when it is damaged.
pub fn read<T: DeserializeOwned>(path: &Path, advice: &'static str) -> Result<Option<T>, Failure> {
    let failed = |error| Failure::Io { doing: "read", path: path.to_owned(), error };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).map_err(failed)?;
    let read = serde_json::from_slice(&bytes);
    read.map(Some).map_err(|error| Failure::Damaged { path: path.to_owned(), error, advice })
}

/// Writes a file. When this returns the new content is on the disk, name and all.
pub fn write(path: &Path, content: &impl Serialize) -> Result<(), Failure> {
    let failed = |error| Failure::Io { doing: "write", path: path.to_owned(), error };
    let bytes = serde_json::to_vec(content).map_err(|error| failed(error.into()))?;
    let next = path.with_extension("next");
    let mut file = File::create(&next).map_err(failed)?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&next, path).map_err(failed)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// Makes a folder that only its owner enters.
pub fn folder(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| Failure::Io { doing: "make the folder", path: path.to_owned(), error })
}
