//! The folder of a study. A file is there whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use simulation::trace::run::Done;

use super::Failure;

/// The folder.
pub struct Folder(PathBuf);

/// Folder of what is done so far.
const POINTS: &str = "points";

fn failed(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}; a writable folder expected", path.display())
}

impl Folder {
    /// Opens it, or makes it.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        Self::make(&path.join(POINTS))?;
        Ok(Self::at(path))
    }

    /// Opens one for files alone, or makes it.
    pub fn make(path: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(path).map_err(|error| Failure::new(failed(path, &error)))?;
        Ok(Self::at(path))
    }

    /// One that is there.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file: under another name first.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        Self::put(&self.0.join(name), bytes).map_err(Failure::new)
    }

    fn put(path: &Path, bytes: &[u8]) -> Result<(), String> {
        let beside = path.with_extension("part");
        fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, path)).map_err(|error| failed(path, &error))
    }

    fn point(&self, name: &str) -> PathBuf {
        self.0.join(POINTS).join(format!("{name}.json"))
    }

    /// What was kept of a point; one that cannot be read is run again.
    pub fn kept(&self, name: &str) -> Option<Done> {
        serde_json::from_slice(&fs::read(self.point(name)).ok()?).ok()
    }

    /// Keeps what a point came to.
    pub fn keep(&self, name: &str, done: &Done) -> Result<(), String> {
        let text = serde_json::to_string(done).map_err(|error| error.to_string())?;
        Self::put(&self.point(name), text.as_bytes())
    }
}
