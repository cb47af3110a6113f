//! The log against a map: any sequence of operations, with the log opened again in between.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Disk, Entry, LogId, Vote, append, entry, open, purge, truncate, vote};
use crate::wal::Wal;

#[derive(Clone, Debug)]
enum Operation {
    Append { count: u64, size: usize, term: u64 },
    Vote(u64),
    Truncate(u64),
    Purge(u64),
    PurgeBeyond(u64),
    Committed(u64),
    Open,
    Crash(u64),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => (1..30_u64, 0..200_usize, 1..9_u64).prop_map(|(count, size, term)| Operation::Append { count, size, term }),
        1 => (1..99_u64).prop_map(Operation::Vote),
        2 => (0..40_u64).prop_map(Operation::Truncate),
        2 => (0..60_u64).prop_map(Operation::Purge),
        1 => (0..20_u64).prop_map(Operation::PurgeBeyond),
        2 => (0..40_u64).prop_map(Operation::Committed),
        1 => Just(Operation::Open),
        1 => any::<u64>().prop_map(Operation::Crash),
    ]
}

#[derive(Default)]
struct Model {
    entries: BTreeMap<u64, Entry>,
    vote: Option<u64>,
    purged: Option<LogId>,
    committed: Option<LogId>,
}

impl Model {
    fn next(&self) -> u64 {
        self.entries.keys().next_back().map_or(self.purged.map_or(0, |purged| purged.index + 1), |last| last + 1)
    }

    fn last(&self) -> Option<LogId> {
        self.entries.values().next_back().map(|entry| entry.id).or(self.purged)
    }

    fn purge(&mut self, upto: LogId) {
        self.entries = self.entries.split_off(&(upto.index + 1));
        self.purged = self.purged.max(Some(upto));
    }

    fn check(&self, wal: &Wal, with_committed: bool) {
        let expected: Vec<_> = self.entries.values().cloned().collect();
        assert_eq!(wal.read(0, u64::MAX, usize::MAX).unwrap(), expected);
        assert_eq!(wal.vote(), self.vote.map(|term| Vote { term, node: 1, committed: true }));
        assert_eq!(wal.ends(), (self.purged, self.last()));
        if with_committed {
            assert_eq!(wal.committed(), self.committed);
        }
        for (index, entry) in self.entries.iter().step_by(7) {
            assert_eq!(wal.read(*index, index + 1, 1).unwrap(), std::slice::from_ref(entry));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn the_log_behaves_like_a_map(operations in prop::collection::vec(operation(), 1..60)) {
        let disk = Disk::default();
        let mut wal = Some(open(&disk));
        let mut model = Model::default();
        for operation in operations {
            let log = wal.as_ref().unwrap();
            match operation {
                Operation::Append { count, size, term } => {
                    let next = model.next();
                    let term = model.last().map_or(term, |last| last.term.max(term));
                    let entries: Vec<_> = (next..next + count)
                        .map(|index| {
                            let entry = entry(index, size);
                            Entry { id: LogId { term, ..entry.id }, ..entry }
                        })
                        .collect();
                    append(log, entries.clone()).unwrap();
                    model.entries.extend(entries.into_iter().map(|entry| (entry.id.index, entry)));
                }
                Operation::Vote(term) => {
                    vote(log, term).unwrap();
                    model.vote = Some(term);
                }
                Operation::Truncate(back) => {
                    // What is committed is never truncated.
                    let keep = model.next().saturating_sub(back).max(model.committed.map_or(0, |id| id.index + 1));
                    let last = keep.checked_sub(1).and_then(|last| model.entries.get(&last)).map(|entry| entry.id);
                    if let Some(last) = last {
                        truncate(log, Some(last)).unwrap();
                        model.entries.split_off(&(last.index + 1));
                    } else if model.committed.is_none() && model.purged.is_none() {
                        truncate(log, None).unwrap();
                        model.entries.clear();
                    }
                }
                Operation::Purge(at) => {
                    let at = model.entries.values().nth(at as usize).map(|entry| entry.id);
                    if let Some(upto) = at {
                        purge(log, upto).unwrap();
                        model.purge(upto);
                    }
                }
                Operation::PurgeBeyond(distance) => {
                    let term = model.last().map_or(1, |last| last.term);
                    let upto = LogId { term, node: 1, index: model.next() + distance };
                    purge(log, upto).unwrap();
                    model.purge(upto);
                }
                Operation::Committed(back) => {
                    let at = model.entries.values().rev().nth(back as usize).map(|entry| entry.id);
                    if let Some(upto) = at {
                        log.save_committed(upto);
                        model.committed = model.committed.max(Some(upto));
                    }
                }
                Operation::Open => {
                    wal = None;
                    wal = Some(wal.unwrap_or_else(|| open(&disk)));
                    model.check(wal.as_ref().unwrap(), true);
                }
                Operation::Crash(seed) => {
                    // The machine stops with everything acknowledged on the disk, and anything else lost.
                    let crashed = disk.copy();
                    crashed.crash(|sector| (seed >> (sector % 64)) & 1 == 0);
                    model.check(&open(&crashed), false);
                }
            }
            model.check(wal.as_ref().unwrap(), true);
        }
    }
}
