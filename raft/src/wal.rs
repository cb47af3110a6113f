//! The write-ahead log: log entries, votes, truncations and purges, durable in the order they came.
//!
//! A directory of zero-filled segments ([`segment`]), records with checksums ([`record`]), one writer
//! thread that groups requests into one write and one sync ([`writer`]), the newest entries in memory
//! and the places of the older ones ([`index`]), and rules for opening after a crash ([`recovery`]).
//! It knows neither openraft nor commands: an entry is a log id, a kind and bytes. It never reports
//! durable what is not, never goes on after a failed sync, and never starts without entries that it
//! reported durable.

mod error;
pub mod files;
mod index;
pub mod inspect;
mod pool;
mod reader;
mod record;
mod recovery;
mod segment;
mod writer;

#[cfg(any(test, feature = "simulation"))]
pub(crate) mod faulty;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub use error::{Failure, OpenError};
pub use record::{Entry, LogId, Vote};
pub use recovery::Torn;
#[cfg(feature = "simulation")]
pub(crate) use writer::Watch;

use files::{Directory, Files, write_all};
use index::{Index, Run};
use pool::Pool;
use segment::{Header, Segment};
use writer::{Pending, Request, State, Writer};

use crate::mailbox::{self, Sender};

/// Called when a request is durable, or has failed. Called by the writer thread: must not block.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Sizes of the log.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Segments kept ready in advance.
    pub ready_segments: usize,
    /// Bytes of the very first segment, which is filled while the node waits.
    pub first_segment_bytes: u64,
    /// Bytes of entries kept in memory.
    pub tail_bytes: usize,
    /// Bytes after which the writer stops collecting and writes.
    pub batch_bytes: usize,
    /// Open although entries from this index on were durable and are lost. See
    /// [`OpenError::Corrupt`].
    pub accept_loss_from: Option<u64>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 64 << 20,
            ready_segments: 2,
            first_segment_bytes: 4 << 20,
            tail_bytes: 64 << 20,
            batch_bytes: 4 << 20,
            accept_loss_from: None,
        }
    }
}

impl Options {
    /// The most bytes an entry may have.
    pub fn max_entry(&self) -> usize {
        (self.segment_bytes / 2).min(8 << 20) as usize
    }
}

/// Counts since the log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Syncs.
    pub syncs: u64,
    /// Entries written.
    pub entries: u64,
    /// Bytes written, zeros behind the end not counted.
    pub bytes: u64,
    /// Syncs by duration: slot `i` counts those of less than `2^i` microseconds, and not less than
    /// half of that.
    pub sync_micros: [u64; 32],
}

#[derive(Default)]
struct Counters {
    syncs: AtomicU64,
    entries: AtomicU64,
    bytes: AtomicU64,
    sync_micros: [AtomicU64; 32],
}

impl Counters {
    fn sync(&self, took: Duration) {
        let micros = took.as_micros() as u64;
        let slot = (u64::BITS - micros.leading_zeros()).min(31) as usize;
        self.sync_micros[slot].fetch_add(1, Ordering::Relaxed);
        self.syncs.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> Stats {
        Stats {
            syncs: self.syncs.load(Ordering::Relaxed),
            entries: self.entries.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            sync_micros: std::array::from_fn(|slot| self.sync_micros[slot].load(Ordering::Relaxed)),
        }
    }
}

struct Shared {
    index: Mutex<Index>,
    failure: OnceLock<Arc<Failure>>,
    counters: Counters,
}

impl Shared {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False when there was a failure before.
    fn fail(&self, failure: Arc<Failure>) -> bool {
        self.failure.set(failure).is_ok()
    }
}

/// An open log. Dropping it writes what waits and joins its threads.
pub struct Wal {
    shared: Arc<Shared>,
    files: Arc<dyn Files>,
    max_entry: usize,
    torn: Option<Torn>,
    queue: Sender<Request>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Wal {
    /// Opens the log in `directory`, creating it when absent, and locks it against others.
    pub fn open(directory: &Path, options: &Options) -> Result<Wal, OpenError> {
        let files = Directory::open(directory).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => OpenError::Locked(directory.to_owned()),
            _ => OpenError::File { path: directory.to_owned(), doing: "opening", source },
        })?;
        Wal::open_in(&(Arc::new(files) as Arc<dyn Files>), options)
    }

    /// Opens the log on these files.
    pub fn open_in(files: &Arc<dyn Files>, options: &Options) -> Result<Wal, OpenError> {
        let fail = |doing| {
            let path = files.directory().to_owned();
            move |source| OpenError::File { path, doing, source }
        };
        let AtRest { wal, mut writer, salvaged } = Wal::at_rest(files, options)?;
        writer.pool.start().map_err(fail("starting the thread that prepares segments"))?;
        let thread = thread::Builder::new()
            .name("wal".into())
            .spawn(move || writer.run())
            .map_err(fail("starting the writer thread"))?;
        *wal.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        if let Some(vote) = salvaged {
            let (done, result) = waiter();
            wal.save_vote(vote, done);
            wait(&result).map_err(fail("writing the salvaged vote"))?;
        }
        Ok(wal)
    }

    /// All of an open log but its threads.
    pub(crate) fn at_rest(files: &Arc<dyn Files>, options: &Options) -> Result<AtRest, OpenError> {
        let fail = |doing| {
            let path = files.directory().to_owned();
            move |source| OpenError::File { path, doing, source }
        };
        let (segments, free) = sort_files(&**files, options).map_err(fail("listing the folder"))?;
        let found = if segments.is_empty() {
            let first = first_segment(&**files, options).map_err(fail("creating the first segment"))?;
            recovery::Recovered {
                index: Index::default(),
                segments: vec![Arc::new(first)],
                end: segment::HEADER,
                torn: None,
                salvaged: None,
            }
        } else {
            recovery::recover(&**files, segments, options.tail_bytes, options.accept_loss_from)?
        };
        if let Some(torn) = &found.torn {
            tracing::warn!(
                file = %torn.path.display(), offset = torn.offset, index = torn.index,
                "the last write of the log is incomplete and was dropped. After a crash this is normal: it was not \
                 acknowledged. Only if the disk is damaged, and this node is the only voter, decisions from this index on may be lost"
            );
        }
        let pool = Pool::new(Arc::clone(files), options.segment_bytes, options.ready_segments, free);
        let index = &found.index;
        let state = State { vote: index.vote, purged: index.purged, committed: index.committed, next: index.next };
        let shared = Arc::new(Shared {
            index: Mutex::new(found.index),
            failure: OnceLock::new(),
            counters: Counters::default(),
        });
        let (queue, requests) = mailbox::channel();
        let writer = Writer {
            queue: requests,
            files: Arc::clone(files),
            shared: Arc::clone(&shared),
            pool,
            segments: found.segments.into(),
            end: found.end,
            batch_bytes: options.batch_bytes,
            segment_bytes: options.segment_bytes,
            tail_bytes: options.tail_bytes,
            state,
            committed: None,
            pending: Pending::default(),
            failed: None,
        };
        let wal = Wal {
            shared,
            files: Arc::clone(files),
            max_entry: options.max_entry(),
            torn: found.torn,
            queue,
            thread: Mutex::new(None),
        };
        Ok(AtRest { wal, writer, salvaged: found.salvaged })
    }

    /// Adds entries behind the last one. They can be read when this returns; `done` is called when
    /// they are durable. The queue is bounded by openraft, which limits what it has in flight.
    ///
    /// # Errors
    /// When they do not follow the last one, or one is too large. Then none was added.
    pub fn append(&self, entries: Vec<Entry>, done: Done) -> io::Result<()> {
        self.check(&entries)?;
        let mut index = self.shared.index();
        for entry in &entries {
            if index.purged.is_some() && entry.id.index != index.next {
                return Err(does_not_follow(entry.id.index, index.next));
            }
            if let Err(gap) = index.append(entry.clone()) {
                return Err(does_not_follow(entry.id.index, gap.expected));
            }
        }
        self.send(Request::Append(entries, done));
        Ok(())
    }

    fn check(&self, entries: &[Entry]) -> io::Result<()> {
        if let Some(large) = entries.iter().find(|entry| entry.data.len() > self.max_entry) {
            let text = format!(
                "log entry {} has {} bytes, at most {} are possible; send smaller batches",
                large.id.index,
                large.data.len(),
                self.max_entry
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let jump = entries.windows(2).find(|pair| pair[1].id.index != pair[0].id.index + 1);
        jump.map_or(Ok(()), |pair| Err(does_not_follow(pair[1].id.index, pair[0].id.index + 1)))
    }

    /// Records a vote.
    pub fn save_vote(&self, vote: Vote, done: Done) {
        let mut index = self.shared.index();
        index.vote = Some(vote);
        self.send(Request::Vote(vote, done));
    }

    /// Drops all entries behind `last`, or all there are.
    pub fn truncate_after(&self, last: Option<LogId>, done: Done) {
        let mut index = self.shared.index();
        let from = last.map_or(index.first, |last| last.index + 1);
        index.truncate(from, last);
        index.unplaced_truncations += 1;
        let last = if index.is_empty() { None } else { last };
        self.send(Request::Truncate(from, last, done));
    }

    /// Drops all entries up to `upto`.
    pub fn purge(&self, upto: LogId, done: Done) {
        let mut index = self.shared.index();
        index.purge(upto);
        self.send(Request::Purge(upto, done));
    }

    /// Takes note of what is committed. It is written with the next entry, vote or purge, or when
    /// the log is closed, and forces no sync.
    pub fn save_committed(&self, committed: LogId) {
        let mut index = self.shared.index();
        if index.committed < Some(committed) {
            index.committed = Some(committed);
            self.send(Request::Committed(committed));
        }
    }

    /// The last vote told.
    pub fn vote(&self) -> Option<Vote> {
        self.shared.index().vote
    }

    /// The highest committed log id told.
    pub fn committed(&self) -> Option<LogId> {
        self.shared.index().committed
    }

    /// The highest purged log id, and the last entry's, which is the same when there is none.
    pub fn ends(&self) -> (Option<LogId>, Option<LogId>) {
        let index = self.shared.index();
        (index.purged, index.last)
    }

    /// Whether all entries from `start` on are in memory, so that a read does not touch the disk.
    pub fn in_memory(&self, start: u64) -> bool {
        let index = self.shared.index();
        start.max(index.first) >= index.tail_first()
    }

    /// The entries of `start..end` that there are, in order without holes. Stops early when `bytes`
    /// are exceeded, but returns one if there is one.
    pub fn read(&self, start: u64, end: u64, bytes: usize) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut next = start;
        let mut taken = 0;
        loop {
            let run = match self.look(next, end, bytes.saturating_sub(taken), &mut entries) {
                Look::Done => return Ok(entries),
                Look::Disk { start, last, run } => {
                    next = start;
                    (run, last)
                }
                Look::Lost(index) => {
                    return Err(io::Error::new(io::ErrorKind::NotFound, format!("log entry {index} has no place")));
                }
            };
            let before = entries.len();
            if let Err(error) = reader::read_run(&run.0, next, run.1, bytes.saturating_sub(taken), &mut entries) {
                let purged = self.shared.index().first > next;
                if !purged {
                    return Err(error);
                }
                entries.clear();
                (next, taken) = (start, 0);
                continue;
            }
            taken += entries[before..].iter().map(index::weight).sum::<usize>();
            next += (entries.len() - before) as u64;
            if taken >= bytes || next <= run.1 || next >= end {
                return Ok(entries);
            }
        }
    }

    fn look(&self, start: u64, end: u64, bytes: usize, into: &mut Vec<Entry>) -> Look {
        let index = self.shared.index();
        let start = start.max(index.first);
        let end = end.min(index.next);
        if start >= end {
            return Look::Done;
        }
        if start >= index.tail_first() {
            if into.is_empty() {
                *into = index.tail(start, end, bytes);
            } else {
                let more = index.tail(start, end, bytes);
                let fits = index::weight(&more[0]) <= bytes;
                into.extend(more.into_iter().take(if fits { usize::MAX } else { 0 }));
            }
            return Look::Done;
        }
        match index.run_of(start) {
            Some(run) => Look::Disk { start, last: run.last.min(end - 1), run },
            None => Look::Lost(start),
        }
    }

    /// Counts since the log was opened.
    pub fn stats(&self) -> Stats {
        self.shared.counters.read()
    }

    /// The incomplete write that was dropped when the log was opened.
    pub fn torn(&self) -> Option<&Torn> {
        self.torn.as_ref()
    }

    /// Why the log stopped, if it did.
    pub fn failure(&self) -> Option<Arc<Failure>> {
        self.shared.failure.get().cloned()
    }

    /// The folder.
    pub fn directory(&self) -> &Path {
        self.files.directory()
    }

    /// Writes what waits, joins the threads and gives up the lock. Later requests fail.
    pub fn close(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = self.queue.send(Request::Stop);
            let _ = thread.join();
            self.files.release();
        }
    }

    fn send(&self, request: Request) {
        let Err(unsent) = self.queue.send(request) else { return };
        match unsent {
            Request::Append(_, done)
            | Request::Vote(_, done)
            | Request::Truncate(_, _, done)
            | Request::Purge(_, done) => done(Err(Failure::Closed.to_io())),
            Request::Committed(_) | Request::Stop => {}
        }
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.close();
    }
}

/// An open log whose threads are not started.
pub(crate) struct AtRest {
    pub wal: Wal,
    pub writer: Writer,
    /// A vote found behind damage that was accepted; it must be written first.
    pub salvaged: Option<Vote>,
}

enum Look {
    Done,
    Disk { start: u64, last: u64, run: Run },
    Lost(u64),
}

fn does_not_follow(found: u64, expected: u64) -> io::Error {
    let text = format!("log entry {found} does not follow: the next index is {expected}");
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// A callback and where its result comes out, for callers that wait.
pub fn waiter() -> (Done, Receiver<io::Result<()>>) {
    let (tell, told) = channel();
    let done = move |result| {
        let _ = tell.send(result);
    };
    (Box::new(done), told)
}

/// Waits for the result of a [`waiter`].
pub fn wait(told: &Receiver<io::Result<()>>) -> io::Result<()> {
    told.recv().unwrap_or_else(|_| Err(Failure::Closed.to_io()))
}

/// Tells segments from ready files and removes what is neither whole nor of the right size.
fn sort_files(files: &dyn Files, options: &Options) -> io::Result<(Vec<String>, Vec<String>)> {
    let (mut segments, mut free) = (Vec::new(), Vec::new());
    for name in files.list()? {
        if segment::epoch_of(&name).is_some() {
            segments.push(name);
        } else if pool::is_unfinished(&name) {
            files.remove(&name)?;
        } else if pool::is_free(&name) {
            free.push(name);
        }
    }
    let mut kept = Vec::new();
    for name in free {
        // Without a segment nothing says which epochs a used file has seen.
        if !segments.is_empty() && files.open(&name)?.length()? == options.segment_bytes {
            kept.push(name);
        } else {
            files.remove(&name)?;
        }
    }
    kept.sort();
    Ok((segments, kept))
}

fn first_segment(files: &dyn Files, options: &Options) -> io::Result<Segment> {
    const NAME: &str = "first.filling";
    let length = options.first_segment_bytes.min(options.segment_bytes);
    let file = files.create(NAME)?;
    write_all(&*file, &vec![0; length as usize], 0)?;
    file.sync_all()?;
    writer::create(files, NAME, Header { epoch: 1, previous: 0, previous_end: 0, first: 0 }, length)
}
