//! The thread that owns the newest segment: many requests, one write, one sync.
//!
//! It takes one request, drains the queue without waiting, writes all of it at once, syncs, and
//! completes the requests in the order they came. The first failed write or sync ends it: the
//! requests in hand and all later ones get that error, and the file is never written again, for the
//! kernel may have dropped what it failed to write. Never reads a record.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use scheduler::mutant::{self, Mutant};

use super::error::Failure;
use super::files::{Files, write_all};
use super::pool::Pool;
use super::record::{self, Entry, LogId, MARK, TERMINATOR, Vote, entry_size, padded};
use super::segment::{self, Header, Segment};
use super::{Done, Shared};
use crate::mailbox::Receiver;

/// One request to the writer.
pub enum Request {
    /// Append these entries.
    Append(Vec<Entry>, Done),
    /// Record a vote.
    Vote(Vote, Done),
    /// Drop entries from an index on; the log id is the last one kept.
    Truncate(u64, Option<LogId>, Done),
    /// Drop entries up to a log id.
    Purge(LogId, Done),
    /// Record, with the next write, what is committed.
    Committed(LogId),
    /// Write what waits and end.
    Stop,
}

/// How much is written at once, at most.
const MAX_ENTRIES: usize = 4096;

/// What a write changes about places.
enum Placed {
    Entry { index: u64, offset: u64, end: u64 },
    Truncate(u64),
    Purge(u64),
}

/// The state of the thread.
pub struct Writer {
    pub(super) queue: Receiver<Request>,
    pub(super) files: Arc<dyn Files>,
    pub(super) shared: Arc<Shared>,
    pub(super) pool: Pool,
    /// Oldest first; the last one is written to.
    pub(super) segments: VecDeque<Arc<Segment>>,
    /// Where to write next.
    pub(super) end: u64,
    /// Bytes after which a write is begun.
    pub(super) batch_bytes: usize,
    /// Size of a segment from the pool.
    pub(super) segment_bytes: u64,
    /// Bytes of entries kept in memory.
    pub(super) tail_bytes: usize,
    /// What the log says at the point the writer has come to.
    pub(super) state: State,
    /// A committed log id that is not written yet.
    pub(super) committed: Option<LogId>,
    /// The write being put together.
    pub(super) pending: Pending,
    /// Why nothing is written any more.
    pub(super) failed: Option<Arc<Failure>>,
}

/// Sees what a simulated log promises.
#[cfg(feature = "simulation")]
pub trait Watch: Send + Sync + 'static {
    /// A write is about to be made; entries from this index on may be dropped by it.
    fn writes(&self, truncated: Option<u64>);
    /// Takes as long as a sync takes.
    fn syncs(&self) -> impl Future<Output = ()> + Send;
    /// All up to this vote and this next index is about to be reported durable.
    fn durable(&self, vote: Option<Vote>, next: u64);
}

/// What each segment starts with, so that the older ones are needed for entries only.
#[derive(Clone, Copy, Default)]
pub struct State {
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    pub committed: Option<LogId>,
    pub next: u64,
}

/// A write being put together.
#[derive(Default)]
pub struct Pending {
    buffer: Vec<u8>,
    placed: Vec<Placed>,
    entries: u64,
    waiting: Vec<Done>,
    /// Bytes that are written and not synced.
    written: usize,
    /// The first entry that was dropped of late.
    #[cfg(feature = "simulation")]
    truncated: Option<u64>,
}

impl Writer {
    /// Runs until told to stop.
    pub fn run(mut self) {
        let mut stop = false;
        while let (false, Some(first)) = (stop, self.queue.recv()) {
            stop = self.collect(first);
            self.write();
            self.complete();
        }
    }

    /// The same as a task, watched: between a write and its sync it waits.
    #[cfg(feature = "simulation")]
    pub async fn drive(mut self, watch: impl Watch) {
        let mut stop = false;
        while !stop {
            let first = self.queue.next().await;
            stop = self.collect(first);
            watch.writes(self.pending.truncated.take());
            self.write();
            watch.syncs().await;
            if self.failed.is_none() {
                watch.durable(self.state.vote, self.state.next);
            }
            self.complete();
        }
    }

    /// Takes a request and all that wait behind it; true when told to stop.
    fn collect(&mut self, first: Request) -> bool {
        let (mut size, mut count, mut stop) = (0, 0, false);
        let mut request = Some(first);
        while let Some(next) = request.take() {
            stop = matches!(next, Request::Stop);
            size += weigh(&next);
            count += 1;
            if self.failed.is_none() {
                let put = self.put(next);
                self.note(put);
            } else {
                self.refuse(next);
            }
            if !stop && size < self.batch_bytes && count < MAX_ENTRIES {
                request = self.queue.try_recv();
            }
        }
        stop
    }

    fn write(&mut self) {
        if self.failed.is_none() {
            let written = self.write_pending();
            self.note(written);
        }
    }

    fn complete(&mut self) {
        if self.failed.is_none() {
            let synced = self.sync_pending();
            self.note(synced);
        }
        if let Some(failure) = self.failed.clone() {
            self.fail(&failure);
        }
    }

    fn note(&mut self, result: Result<(), Arc<Failure>>) {
        self.failed = self.failed.take().or(result.err());
    }

    fn fail(&mut self, failure: &Arc<Failure>) {
        if self.shared.fail(Arc::clone(failure)) {
            tracing::error!(error = %failure, "the log stopped");
        }
        self.pending.buffer.clear();
        self.pending.placed.clear();
        for done in self.pending.waiting.drain(..) {
            done(Err(failure.to_io()));
        }
    }

    fn refuse(&mut self, request: Request) {
        match request {
            Request::Append(_, done)
            | Request::Vote(_, done)
            | Request::Truncate(_, _, done)
            | Request::Purge(_, done) => self.pending.waiting.push(done),
            Request::Committed(_) | Request::Stop => {}
        }
    }

    fn put(&mut self, request: Request) -> Result<(), Arc<Failure>> {
        match request {
            Request::Append(entries, done) => {
                let put = entries.iter().try_for_each(|entry| self.put_entry(entry));
                self.pending.waiting.push(done);
                put
            }
            Request::Vote(vote, done) => {
                let room = self.make_room(padded(17));
                self.pending.waiting.push(done);
                room?;
                let epoch = self.epoch();
                if !mutant::on(Mutant::ForgetVote) {
                    record::push_vote(&mut self.pending.buffer, epoch, &vote);
                }
                self.state.vote = Some(vote);
                Ok(())
            }
            Request::Truncate(from, last, done) => {
                let room = self.make_room(padded(32));
                self.pending.waiting.push(done);
                room?;
                let epoch = self.epoch();
                record::push_truncate(&mut self.pending.buffer, epoch, from, last.as_ref());
                self.pending.placed.push(Placed::Truncate(from));
                #[cfg(feature = "simulation")]
                {
                    self.pending.truncated = Some(self.pending.truncated.map_or(from, |first| first.min(from)));
                }
                self.state.next = from;
                Ok(())
            }
            Request::Purge(upto, done) => {
                let room = self.make_room(padded(24));
                self.pending.waiting.push(done);
                room?;
                let epoch = self.epoch();
                record::push_purged(&mut self.pending.buffer, epoch, &upto);
                self.pending.placed.push(Placed::Purge(upto.index));
                self.state.purged = Some(upto);
                self.state.next = self.state.next.max(upto.index + 1);
                Ok(())
            }
            Request::Committed(upto) => {
                self.committed = self.committed.max(Some(upto));
                Ok(())
            }
            Request::Stop if self.committed.is_some() => self.make_room(0),
            Request::Stop => Ok(()),
        }
    }

    fn put_entry(&mut self, entry: &Entry) -> Result<(), Arc<Failure>> {
        let size = entry_size(entry.data.len());
        self.make_room(size)?;
        let epoch = self.epoch();
        let offset = self.end + self.pending.buffer.len() as u64;
        record::push_entry(&mut self.pending.buffer, epoch, entry);
        self.pending.entries += 1;
        self.state.next = entry.id.index + 1;
        let end = offset + size as u64;
        self.pending.placed.push(Placed::Entry { index: entry.id.index, offset, end });
        Ok(())
    }

    fn epoch(&self) -> u64 {
        self.active().header.epoch
    }

    fn active(&self) -> &Arc<Segment> {
        self.segments.back().expect("there is always a segment to write to")
    }

    /// Makes sure that `size` more bytes fit, and that the write starts with a mark.
    fn make_room(&mut self, size: usize) -> Result<(), Arc<Failure>> {
        if self.pending.buffer.len() >= self.batch_bytes {
            self.flush()?;
        }
        if !self.fits(size) {
            self.flush()?;
            if !self.fits(size) {
                self.begin_segment()?;
            }
        }
        let epoch = self.epoch();
        if self.pending.buffer.is_empty() {
            record::push_mark(&mut self.pending.buffer, epoch, self.end);
        }
        if let Some(committed) = self.committed.take() {
            record::push_committed(&mut self.pending.buffer, epoch, &committed);
            self.state.committed = Some(committed);
        }
        Ok(())
    }

    fn fits(&self, size: usize) -> bool {
        let around = MARK + padded(24) + TERMINATOR;
        self.end + (self.pending.buffer.len() + size + around) as u64 <= self.active().length
    }

    fn flush(&mut self) -> Result<(), Arc<Failure>> {
        self.write_pending()?;
        self.sync_pending()
    }

    /// Writes what is pending.
    fn write_pending(&mut self) -> Result<(), Arc<Failure>> {
        let length = self.pending.buffer.len();
        if length > 0 {
            self.pending.buffer.resize(length + TERMINATOR, 0);
            let segment = Arc::clone(self.active());
            write_all(&*segment.file, &self.pending.buffer, self.end)
                .map_err(self.failure(&segment.name, "writing"))?;
            self.pending.written = length;
        }
        Ok(())
    }

    /// Syncs what was written, then completes all requests.
    fn sync_pending(&mut self) -> Result<(), Arc<Failure>> {
        let length = std::mem::take(&mut self.pending.written);
        if length > 0 {
            let segment = Arc::clone(self.active());
            let started = Instant::now();
            if !mutant::on(Mutant::NoFsync) {
                segment.file.sync_data().map_err(self.failure(&segment.name, "syncing"))?;
            }
            self.shared.counters.sync(started.elapsed());
            self.shared.counters.bytes.fetch_add(length as u64, Ordering::Relaxed);
            self.shared.counters.entries.fetch_add(self.pending.entries, Ordering::Relaxed);
            self.pending.entries = 0;
            self.pending.buffer.clear();
            self.end += length as u64;
            self.place(&segment)?;
        }
        for done in self.pending.waiting.drain(..) {
            done(Ok(()));
        }
        Ok(())
    }

    fn place(&mut self, segment: &Arc<Segment>) -> Result<(), Arc<Failure>> {
        let mut purged = false;
        let mut index = self.shared.index();
        for placed in self.pending.placed.drain(..) {
            match placed {
                Placed::Entry { index: number, offset, end } => index.place(segment, number, offset, end),
                Placed::Truncate(from) => {
                    index.unplace(from);
                    index.unplaced_truncations -= 1;
                }
                Placed::Purge(upto) => {
                    index.unplace_purged(upto);
                    purged = true;
                }
            }
        }
        index.shrink(self.tail_bytes);
        drop(index);
        if purged { self.drop_unused() } else { Ok(()) }
    }

    /// Gives back the oldest segments that hold no entry which counts. The purge that made them so
    /// is durable, and so is the copy of the vote at the start of the segment that holds it.
    fn drop_unused(&mut self) -> Result<(), Arc<Failure>> {
        while self.segments.len() > 1 {
            let oldest = Arc::clone(&self.segments[0]);
            if self.shared.index().uses(oldest.header.epoch) {
                break;
            }
            let free = (oldest.length == self.segment_bytes).then(|| self.pool.name_for_used()).flatten();
            match &free {
                Some(free) => self.files.rename(&oldest.name, free),
                None => self.files.remove(&oldest.name),
            }
            .map_err(self.failure(&oldest.name, "giving back the segment"))?;
            self.files.sync_directory().map_err(self.failure("", "syncing the folder"))?;
            if let Some(free) = free {
                self.pool.give(free);
            }
            self.segments.pop_front();
        }
        Ok(())
    }

    /// Begins a new segment, with a copy of what must outlive the older ones.
    fn begin_segment(&mut self) -> Result<(), Arc<Failure>> {
        let name = self.pool.take().map_err(|error| self.no_segment(error))?;
        let state = self.state;
        let active = self.active();
        let previous = active.header.epoch;
        let header = Header { epoch: previous + 1, previous, previous_end: self.end, first: state.next };
        let segment = create(&*self.files, &name, header, self.segment_bytes)
            .map_err(self.failure(&header.name(), "beginning the segment"))?;
        self.segments.push_back(Arc::new(segment));
        self.end = segment::HEADER;
        let epoch = header.epoch;
        record::push_mark(&mut self.pending.buffer, epoch, self.end);
        if let Some(vote) = state.vote {
            record::push_vote(&mut self.pending.buffer, epoch, &vote);
        }
        if let Some(purged) = state.purged {
            record::push_purged(&mut self.pending.buffer, epoch, &purged);
        }
        if let Some(committed) = state.committed {
            record::push_committed(&mut self.pending.buffer, epoch, &committed);
        }
        Ok(())
    }

    fn no_segment(&self, error: io::Error) -> Arc<Failure> {
        if error.kind() == io::ErrorKind::StorageFull {
            let directory = self.files.directory().to_owned();
            return Arc::new(Failure::NoSpace { directory, bytes: self.segment_bytes });
        }
        self.failure("", "preparing a segment")(error)
    }

    fn failure(&self, name: &str, doing: &'static str) -> impl FnOnce(io::Error) -> Arc<Failure> + use<> {
        let path = self.files.directory().join(name);
        move |source| Arc::new(Failure::File { path, doing, source })
    }
}

fn weigh(request: &Request) -> usize {
    match request {
        Request::Append(entries, _) => entries.iter().map(|entry| entry_size(entry.data.len())).sum(),
        _ => 0,
    }
}

/// Turns the ready file `from` into a segment.
pub fn create(files: &dyn Files, from: &str, header: Header, length: u64) -> io::Result<Segment> {
    let name = header.name();
    let file = files.open(from)?;
    header.write(&*file)?;
    file.sync_data()?;
    files.rename(from, &name)?;
    files.sync_directory()?;
    Ok(Segment { name, file, header, length })
}
