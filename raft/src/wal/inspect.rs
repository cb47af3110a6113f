//! A log as it lies on the disk, for reading alone: of a node that is stopped. It takes the lock, so
//! that no node writes meanwhile, and changes nothing: what opening would mend stays as it is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::OpenError;
use super::files::{File, Files};
use super::index::Index;
use super::record::{Entry, LogId, Vote};
use super::recovery::{Torn, recover};
use super::{reader, segment};

/// Bytes of entries that are read at once, and kept of the end.
const BYTES: usize = 4 << 20;
const LOCK: &str = "lock";

/// What a log holds.
pub struct Inspected {
    directory: PathBuf,
    index: Index,
    /// An incomplete write at the end, which opening would drop.
    pub torn: Option<Torn>,
    /// Segments that hold the log.
    pub segments: usize,
    /// Bytes of their files.
    pub bytes: u64,
    _lock: Option<fs::File>,
}

/// Reads the log in a folder and checks every record.
///
/// # Errors
/// The same that opening it would give; nothing was changed.
pub fn inspect(directory: &Path) -> Result<Inspected, OpenError> {
    let fail = |doing| {
        let path = directory.to_owned();
        move |source| OpenError::File { path, doing, source }
    };
    let lock = lock(directory).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked(directory.to_owned()),
        _ => fail("locking")(source),
    })?;
    let files = ReadOnly(directory.to_owned());
    let names = files.list().map_err(fail("listing the folder"))?;
    let names: Vec<String> = names.into_iter().filter(|name| segment::epoch_of(name).is_some()).collect();
    let found = recover(&files, names, BYTES, None)?;
    Ok(Inspected {
        directory: directory.to_owned(),
        index: found.index,
        torn: found.torn,
        segments: found.segments.len(),
        bytes: found.segments.iter().map(|segment| segment.length).sum(),
        _lock: lock,
    })
}

/// None when no node ever had the folder open.
fn lock(directory: &Path) -> io::Result<Option<fs::File>> {
    let file = match fs::File::open(directory.join(LOCK)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

impl Inspected {
    /// The newest vote.
    pub fn vote(&self) -> Option<Vote> {
        self.index.vote
    }

    /// The highest committed log id told.
    pub fn committed(&self) -> Option<LogId> {
        self.index.committed
    }

    /// The highest purged log id, and the last entry's, which is the same when there is none.
    pub fn ends(&self) -> (Option<LogId>, Option<LogId>) {
        (self.index.purged, self.index.last)
    }

    /// Index of the first entry.
    pub fn first(&self) -> Option<u64> {
        (!self.index.is_empty()).then_some(self.index.first)
    }

    /// Gives the entries of `start..end` that there are, in order.
    pub fn each<E: From<OpenError>>(
        &self,
        start: u64,
        end: u64,
        mut take: impl FnMut(Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut next = start.max(self.index.first);
        let end = end.min(self.index.next);
        while next < end {
            let entries = self.read(next, end).map_err(|source| OpenError::File {
                path: self.directory.clone(),
                doing: "reading",
                source,
            })?;
            next += entries.len() as u64;
            entries.into_iter().try_for_each(&mut take)?;
        }
        Ok(())
    }

    fn read(&self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        if start >= self.index.tail_first() {
            return Ok(self.index.tail(start, end, BYTES));
        }
        let mut entries = Vec::new();
        let run = self.index.run_of(start).ok_or_else(|| io::Error::other(format!("entry {start} has no place")))?;
        reader::read_run(&run, start, run.last.min(end - 1), BYTES, &mut entries)?;
        Ok(entries)
    }
}

/// Files that are never written: recovery mends a torn end, which here goes nowhere.
struct ReadOnly(PathBuf);

impl Files for ReadOnly {
    fn directory(&self) -> &Path {
        &self.0
    }

    fn list(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.0)?
            .filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose())
            .collect()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(Unwritten(fs::File::open(self.0.join(name))?)))
    }

    fn create(&self, _: &str) -> io::Result<Arc<dyn File>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }
}

struct Unwritten(fs::File);

impl File for Unwritten {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        File::read_at(&self.0, into, offset)
    }

    fn write_at(&self, bytes: &[u8], _: u64) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        File::length(&self.0)
    }
}
