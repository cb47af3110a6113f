//! Files in memory whose disk misbehaves on request, for tests.
//!
//! Written bytes are visible at once and durable after a sync; [`Disk::crash`] drops or tears what
//! was not synced. Creations and renames are durable at once.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use super::files::{File, Files};

const SECTOR: usize = 512;

#[derive(Clone, Default)]
struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, usize>,
    contents: Vec<Content>,
    faults: Faults,
}

/// What goes wrong, and when. Counters count down to the operation that fails.
#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Fails the write after so many.
    pub write: Option<(usize, io::ErrorKind)>,
    /// Fails the sync after so many.
    pub sync: Option<(usize, io::ErrorKind)>,
    /// Fails the creation of every file.
    pub create: Option<io::ErrorKind>,
    /// The most bytes a write takes.
    pub short: Option<usize>,
}

/// A disk in memory.
#[derive(Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

struct Handle {
    disk: Disk,
    content: usize,
}

impl Disk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn files(&self) -> Arc<dyn Files> {
        Arc::new(self.clone())
    }

    pub(crate) fn set(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// A copy of the disk, to try something on.
    pub(crate) fn copy(&self) -> Disk {
        let state = self.state();
        let copy = State { files: state.files.clone(), contents: state.contents.clone(), faults: Faults::default() };
        Disk(Arc::new(Mutex::new(copy)))
    }

    /// Power fails: of each sector that was written and not synced, `keeps(sector)` says whether it
    /// reached the disk.
    pub(crate) fn crash(&self, mut keeps: impl FnMut(usize) -> bool) {
        let mut state = self.state();
        state.faults = Faults::default();
        for content in &mut state.contents {
            let Content { seen, durable } = content;
            durable.resize(seen.len(), 0);
            for (at, sector) in seen.chunks(SECTOR).enumerate() {
                let range = at * SECTOR..at * SECTOR + sector.len();
                if durable[range.clone()] != *sector && keeps(at) {
                    durable[range].copy_from_slice(sector);
                }
            }
            *seen = durable.clone();
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.state().files.keys().cloned().collect()
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.contents[state.files[name]].seen.clone()
    }

    /// Changes a file behind the log's back.
    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let content = state.files[name];
        let content = &mut state.contents[content];
        change(&mut content.seen);
        content.durable = content.seen.clone();
    }

    /// Segments, oldest first.
    pub(crate) fn segments(&self) -> Vec<String> {
        self.names().into_iter().filter(|name| super::segment::epoch_of(name).is_some()).collect()
    }

    /// The newest segment.
    pub(crate) fn newest(&self) -> String {
        self.segments().pop().unwrap()
    }
}

impl Files for Disk {
    fn directory(&self) -> &Path {
        Path::new("disk")
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut state = self.state();
        if let Some(kind) = state.faults.create {
            return Err(kind.into());
        }
        state.contents.push(Content::default());
        let content = state.contents.len() - 1;
        state.files.insert(name.to_owned(), content);
        Ok(Arc::new(Handle { disk: self.clone(), content }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let content = *self.state().files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(Handle { disk: self.clone(), content }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let content = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.state().files.remove(name).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }
}

fn fails(fault: &mut Option<(usize, io::ErrorKind)>) -> io::Result<()> {
    match fault {
        Some((0, kind)) => Err((*kind).into()),
        Some((left, _)) => {
            *left -= 1;
            Ok(())
        }
        None => Ok(()),
    }
}

impl File for Handle {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state();
        let seen = &state.contents[self.content].seen;
        let from = seen.len().min(offset as usize);
        let read = into.len().min(seen.len() - from);
        into[..read].copy_from_slice(&seen[from..from + read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        fails(&mut state.faults.write)?;
        let bytes = &bytes[..bytes.len().min(state.faults.short.unwrap_or(usize::MAX))];
        let seen = &mut state.contents[self.content].seen;
        let end = offset as usize + bytes.len();
        if seen.len() < end {
            seen.resize(end, 0);
        }
        seen[offset as usize..end].copy_from_slice(bytes);
        Ok(bytes.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        fails(&mut state.faults.sync)?;
        let content = &mut state.contents[self.content];
        content.durable = content.seen.clone();
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.state().contents[self.content].seen.len() as u64)
    }
}
