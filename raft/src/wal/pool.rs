//! Zero-filled segment files, made ready in advance by a background thread.
//!
//! Writing into a file that was filled once costs one device write and no journal commit of the file
//! system. Filling takes long, so it happens here and never on the way of an entry, except when
//! entries come faster than segments can be filled. Used segments come back and are handed out
//! again. Never touches a file that belongs to the log.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::files::{Files, write_all};

const READY: &str = ".free";
const FILLING: &str = ".filling";
const CHUNK: usize = 1 << 20;
/// Bytes after which the filled part is synced: one sync of a whole segment would hold up the log's.
const SYNC_EVERY: u64 = 4 << 20;

/// Whether a file is the pool's, ready or half made.
pub fn is_free(name: &str) -> bool {
    name.ends_with(READY)
}

/// Whether a file is one that was being filled when the process ended.
pub fn is_unfinished(name: &str) -> bool {
    name.ends_with(FILLING)
}

struct State {
    ready: VecDeque<String>,
    error: Option<io::Error>,
    wanted: bool,
    next: u64,
    stopped: bool,
}

struct Shared {
    files: Arc<dyn Files>,
    bytes: u64,
    target: usize,
    state: Mutex<State>,
    changed: Condvar,
}

/// The pool. Dropping it stops its thread.
pub struct Pool {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Pool {
    /// A pool of files of `bytes` bytes. `found` are ready files of that size which are there
    /// already.
    pub fn new(files: Arc<dyn Files>, bytes: u64, target: usize, found: Vec<String>) -> Pool {
        let number = |name: &String| name.strip_suffix(READY).and_then(|n| u64::from_str_radix(n, 16).ok());
        let next = found.iter().filter_map(number).max().map_or(0, |n| n + 1);
        let state = State { ready: found.into(), error: None, wanted: false, next, stopped: false };
        let shared = Arc::new(Shared { files, bytes, target, state: Mutex::new(state), changed: Condvar::new() });
        Pool { shared, thread: None }
    }

    /// Starts the thread that keeps files ready.
    pub fn start(&mut self) -> io::Result<()> {
        let filler = Arc::clone(&self.shared);
        self.thread = Some(thread::Builder::new().name("wal-pool".into()).spawn(move || filler.run())?);
        Ok(())
    }

    /// Takes a ready file, waiting for one when there is none. Without a thread it is filled here.
    ///
    /// # Errors
    /// What the file system said when no file could be made.
    pub fn take(&self) -> io::Result<String> {
        let mut state = self.shared.lock();
        state.error = None;
        state.wanted = state.ready.is_empty();
        self.shared.changed.notify_all();
        loop {
            if let Some(name) = state.ready.pop_front() {
                state.wanted = false;
                self.shared.changed.notify_all();
                return Ok(name);
            }
            if let Some(error) = state.error.take() {
                state.wanted = false;
                return Err(error);
            }
            if self.thread.is_none() {
                drop(state);
                self.shared.fill_one();
                state = self.shared.lock();
                continue;
            }
            state = self.shared.wait(state);
        }
    }

    /// A name under which a used segment may be given back, or none when enough files are ready.
    pub fn name_for_used(&self) -> Option<String> {
        let mut state = self.shared.lock();
        (state.ready.len() < self.shared.target + 1).then(|| state.name())
    }

    /// Gives back a used segment that was renamed to `name`.
    pub fn give(&self, name: String) {
        self.shared.lock().ready.push_back(name);
        self.shared.changed.notify_all();
    }
}

impl State {
    fn name(&mut self) -> String {
        self.next += 1;
        format!("{:08x}{READY}", self.next - 1)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        while !state.stopped {
            let short = state.ready.len() < self.target || state.wanted && state.ready.is_empty();
            if !short || state.error.is_some() {
                state = self.wait(state);
                continue;
            }
            drop(state);
            self.fill_one();
            state = self.lock();
        }
    }

    /// Makes a file ready, or notes why that was not possible.
    fn fill_one(&self) {
        let name = self.lock().name();
        let filled = self.fill(&name);
        let mut state = self.lock();
        match filled {
            Ok(true) => state.ready.push_back(name),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(
                    directory = %self.files.directory().display(), bytes = self.bytes, %error,
                    "a log segment could not be prepared; the node stops when the current one is full"
                );
                state.error = Some(error);
            }
        }
        self.changed.notify_all();
    }

    /// False when the pool was stopped in between.
    fn fill(&self, name: &str) -> io::Result<bool> {
        let unfinished = format!("{name}{FILLING}");
        let filled = self.fill_as(&unfinished, name);
        if !matches!(filled, Ok(true)) {
            let _ = self.files.remove(&unfinished);
        }
        filled
    }

    fn fill_as(&self, unfinished: &str, name: &str) -> io::Result<bool> {
        let file = self.files.create(unfinished)?;
        let zeros = vec![0; CHUNK.min(self.bytes as usize)];
        let mut offset = 0;
        while offset < self.bytes {
            if self.lock().stopped {
                return Ok(false);
            }
            let part = zeros.len().min((self.bytes - offset) as usize);
            write_all(&*file, &zeros[..part], offset)?;
            offset += part as u64;
            if offset % SYNC_EVERY == 0 {
                file.sync_data()?;
            }
        }
        file.sync_all()?;
        self.files.rename(unfinished, name)?;
        self.files.sync_directory()?;
        Ok(true)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
