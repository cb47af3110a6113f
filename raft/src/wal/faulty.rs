//! Files in memory whose disk misbehaves on request, for tests and simulations.
//!
//! Written bytes are visible at once and durable after a sync; [`Disk::crash`] drops or tears what
//! was not synced. Creations and renames are durable at once.

#![allow(clippy::unwrap_used)]
#![cfg_attr(not(test), allow(dead_code))]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use super::files::{File, Files};

const SECTOR: usize = 512;

#[derive(Clone, Default)]
struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// Where something was written since the last sync.
    unsynced: Range<usize>,
    /// What the last sync that had something to do made durable.
    synced: Range<usize>,
}

impl Content {
    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.seen.len() < end {
            self.seen.resize(end, 0);
        }
        self.seen[offset..end].copy_from_slice(bytes);
        let Range { start, end: last } = self.unsynced;
        self.unsynced = if start < last { start.min(offset)..last.max(end) } else { offset..end };
    }

    fn sync(&mut self) {
        let range = std::mem::take(&mut self.unsynced);
        self.durable.resize(self.seen.len(), 0);
        if !range.is_empty() {
            self.durable[range.clone()].copy_from_slice(&self.seen[range.clone()]);
            self.synced = range;
        }
    }
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
            let Range { start, end } = std::mem::take(&mut content.unsynced);
            content.durable.resize(content.seen.len(), 0);
            for at in start / SECTOR..end.div_ceil(SECTOR) {
                let sector = at * SECTOR..content.seen.len().min((at + 1) * SECTOR);
                if content.durable[sector.clone()] != content.seen[sector.clone()] && keeps(at) {
                    content.durable[sector.clone()].copy_from_slice(&content.seen[sector.clone()]);
                }
                content.seen[sector.clone()].copy_from_slice(&content.durable[sector]);
            }
        }
        drop_removed(&mut state);
    }

    /// A bit of a segment turns over, not in what was synced last: a log cannot tell that from a
    /// write that was cut short. False when the log is too short for that. `choose(n)` gives a number
    /// below n.
    #[cfg(feature = "simulation")]
    pub(crate) fn rot(&self, mut choose: impl FnMut(usize) -> usize) -> bool {
        let segments = self.segments();
        let name = &segments[choose(segments.len())];
        let newest = segments.last() == Some(name);
        let mut state = self.state();
        let content = state.files[name];
        let content = &mut state.contents[content];
        let end = if newest { content.synced.start } else { content.seen.len() };
        if end == 0 {
            return false;
        }
        let at = choose(end);
        let bit = 1 << choose(8);
        content.seen[at] ^= bit;
        content.durable[at] ^= bit;
        true
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
        content.unsynced = 0..0;
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

/// Forgets the contents of files that are gone. Nobody has them open after a crash.
fn drop_removed(state: &mut State) {
    let used: BTreeSet<usize> = state.files.values().copied().collect();
    for (at, content) in state.contents.iter_mut().enumerate() {
        if !used.contains(&at) {
            *content = Content::default();
        }
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
        state.contents[self.content].write(bytes, offset as usize);
        Ok(bytes.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        fails(&mut state.faults.sync)?;
        state.contents[self.content].sync();
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.state().contents[self.content].seen.len() as u64)
    }
}
