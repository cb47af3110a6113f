//! What the log holds now and where: the newest entries in memory, the older ones by place on disk.
//!
//! Places are kept as runs: a run is a stretch of consecutive entries in one segment, with a point
//! for about each 64 KiB to start reading from. A truncation cuts the last run short and the next
//! entry begins a new one, so an index has one place. Never reads or writes a file.

use std::collections::VecDeque;
use std::sync::Arc;

use super::record::{Entry, LogId, Vote};
use super::segment::Segment;

const POINT_DISTANCE: u64 = 64 * 1024;

/// Consecutive entries in one segment.
#[derive(Clone)]
pub struct Run {
    /// The segment.
    pub segment: Arc<Segment>,
    /// Index of the first entry.
    pub first: u64,
    /// Index of the last entry that counts.
    pub last: u64,
    /// Some (index, offset) pairs, ascending, the first entry's among them.
    points: Vec<(u64, u64)>,
    /// Where the records end.
    pub end: u64,
    /// Entries behind `last` were dropped; others of the same index may follow in the segment.
    cut: bool,
}

impl Run {
    /// The closest offset at or in front of the entry `index`.
    pub fn offset_before(&self, index: u64) -> u64 {
        let after = self.points.partition_point(|point| point.0 <= index);
        self.points[after.saturating_sub(1)].1
    }
}

/// The content of the log.
#[derive(Default)]
pub struct Index {
    /// The newest vote.
    pub vote: Option<Vote>,
    /// The highest committed log id told.
    pub committed: Option<LogId>,
    /// The highest purged log id.
    pub purged: Option<LogId>,
    /// The last entry, or the last purged one.
    pub last: Option<LogId>,
    /// Index of the first entry there is; equals `next` when there is none.
    pub first: u64,
    /// Index of the next entry, when there is one or something was purged.
    pub next: u64,
    /// Truncations which the writer has not placed yet. While there are any, `runs` may hold
    /// entries that are gone.
    pub unplaced_truncations: usize,
    runs: VecDeque<Run>,
    tail: VecDeque<Entry>,
    tail_bytes: usize,
}

/// Why an entry does not follow.
#[derive(Debug, PartialEq, Eq)]
pub struct Gap {
    /// The index that should have come.
    pub expected: u64,
}

impl Index {
    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.first == self.next
    }

    /// Adds an entry behind the last one. An empty log that never purged starts anywhere.
    pub fn append(&mut self, entry: Entry) -> Result<(), Gap> {
        let index = entry.id.index;
        if self.is_empty() && self.purged.is_none_or(|purged| index > purged.index) {
            self.first = index;
        } else if index != self.next {
            return Err(Gap { expected: self.next });
        }
        self.next = index + 1;
        self.last = Some(entry.id);
        self.tail_bytes += weight(&entry);
        self.tail.push_back(entry);
        Ok(())
    }

    /// Drops entries from `from` on; `last` is the one in front of it, none when there is none.
    pub fn truncate(&mut self, from: u64, last: Option<LogId>) {
        if from >= self.next {
            return;
        }
        while self.tail.back().is_some_and(|entry| entry.id.index >= from) {
            self.tail_bytes -= self.tail.pop_back().as_ref().map_or(0, weight);
        }
        // While the log is read back, the segments in front of `first` may be gone already.
        self.next = from.max(self.purged.map_or(0, |purged| purged.index + 1));
        self.first = self.first.min(self.next);
        self.last = if self.is_empty() { self.purged } else { last };
    }

    /// Drops entries up to `upto`.
    pub fn purge(&mut self, upto: LogId) {
        self.purged = self.purged.max(Some(upto));
        while self.tail.front().is_some_and(|entry| entry.id.index <= upto.index) {
            self.tail_bytes -= self.tail.pop_front().as_ref().map_or(0, weight);
        }
        self.first = self.first.max(upto.index + 1);
        if self.next <= self.first {
            self.next = self.first;
            self.last = self.purged;
        }
    }

    /// Takes note of where an entry stands.
    pub fn place(&mut self, segment: &Arc<Segment>, index: u64, offset: u64, end: u64) {
        if let Some(run) = self.runs.back_mut()
            && !run.cut
            && Arc::ptr_eq(&run.segment, segment)
            && run.last + 1 == index
        {
            run.last = index;
            run.end = end;
            if run.points.last().is_none_or(|point| offset - point.1 >= POINT_DISTANCE) {
                run.points.push((index, offset));
            }
            return;
        }
        let points = vec![(index, offset)];
        self.runs.push_back(Run { segment: Arc::clone(segment), first: index, last: index, points, end, cut: false });
    }

    /// Forgets the places of entries from `from` on.
    pub fn unplace(&mut self, from: u64) {
        while self.runs.back().is_some_and(|run| run.first >= from) {
            self.runs.pop_back();
        }
        if let Some(run) = self.runs.back_mut()
            && run.last >= from
        {
            run.last = from - 1;
            run.cut = true;
        }
    }

    /// Forgets the places of entries up to `upto`.
    pub fn unplace_purged(&mut self, upto: u64) {
        while self.runs.front().is_some_and(|run| run.last <= upto) {
            self.runs.pop_front();
        }
    }

    /// Whether an entry that counts stands in the segment of this epoch.
    pub fn uses(&self, epoch: u64) -> bool {
        self.runs.iter().any(|run| run.segment.header.epoch == epoch)
    }

    /// Drops the oldest entries from memory, as far as they have a place, down to `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        if self.unplaced_truncations > 0 {
            return;
        }
        let placed = self.runs.back().map_or(0, |run| run.last + 1);
        while self.tail_bytes > bytes && self.tail.front().is_some_and(|entry| entry.id.index < placed) {
            self.tail_bytes -= self.tail.pop_front().as_ref().map_or(0, weight);
        }
    }

    /// Index of the first entry in memory.
    pub fn tail_first(&self) -> u64 {
        self.next - self.tail.len() as u64
    }

    /// Entries of `start..end` in memory, until `bytes` are exceeded; at least one if there is one.
    pub fn tail(&self, start: u64, end: u64, bytes: usize) -> Vec<Entry> {
        let skip = start.saturating_sub(self.tail_first()) as usize;
        let wanted = end.min(self.next).saturating_sub(start) as usize;
        let mut entries = Vec::with_capacity(wanted.min(4096));
        let mut taken = 0;
        for entry in self.tail.iter().skip(skip).take(wanted) {
            taken += weight(entry);
            if taken > bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        entries
    }

    /// The run that holds the entry `index`.
    pub fn run_of(&self, index: u64) -> Option<Run> {
        let at = self.runs.partition_point(|run| run.last < index);
        self.runs.get(at).filter(|run| run.first <= index).cloned()
    }
}

/// Bytes an entry is counted with.
pub fn weight(entry: &Entry) -> usize {
    entry.data.len() + size_of::<Entry>()
}
