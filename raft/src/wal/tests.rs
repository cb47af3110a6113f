#![allow(clippy::unwrap_used)]

mod crash;
mod damage;
mod failing;
mod model;

use std::sync::Arc;

use bytes::Bytes;

use super::faulty::Disk;
use super::{Entry, LogId, OpenError, Options, Vote, Wal, wait, waiter};

fn small() -> Options {
    Options {
        segment_bytes: 4096,
        ready_segments: 1,
        first_segment_bytes: 2048,
        tail_bytes: 600,
        batch_bytes: 1024,
        accept_loss_from: None,
    }
}

fn id(index: u64) -> LogId {
    LogId { term: 1, node: 1, index }
}

fn entry(index: u64, size: usize) -> Entry {
    let data = (0..size).map(|at| (index as usize * 31 + at) as u8).collect::<Vec<_>>();
    Entry { id: id(index), kind: 1, data: Bytes::from(data) }
}

fn open(disk: &Disk) -> Wal {
    Wal::open_in(&disk.files(), &small()).unwrap()
}

fn refused(disk: &Disk, options: &Options) -> OpenError {
    Wal::open_in(&disk.files(), options).map(|_| ()).unwrap_err()
}

fn append(wal: &Wal, entries: Vec<Entry>) -> std::io::Result<()> {
    let (done, told) = waiter();
    wal.append(entries, done)?;
    wait(&told)
}

fn vote(wal: &Wal, term: u64) -> std::io::Result<()> {
    let (done, told) = waiter();
    wal.save_vote(Vote { term, node: 1, committed: true }, done);
    wait(&told)
}

fn purge(wal: &Wal, upto: LogId) -> std::io::Result<()> {
    let (done, told) = waiter();
    wal.purge(upto, done);
    wait(&told)
}

fn truncate(wal: &Wal, last: Option<LogId>) -> std::io::Result<()> {
    let (done, told) = waiter();
    wal.truncate_after(last, done);
    wait(&told)
}

fn all(wal: &Wal) -> Vec<Entry> {
    wal.read(0, u64::MAX, usize::MAX).unwrap()
}

#[test]
fn what_was_written_is_there_after_opening_again() {
    let disk = Disk::default();
    let entries: Vec<_> = (0..200).map(|index| entry(index, 60)).collect();
    {
        let wal = open(&disk);
        for part in entries.chunks(7) {
            append(&wal, part.to_vec()).unwrap();
        }
        wal.save_committed(id(150));
        vote(&wal, 9).unwrap();
        assert_eq!(all(&wal), entries);
        assert!(!wal.in_memory(0), "old entries are read from the disk");
    }
    let wal = open(&disk);
    assert_eq!(all(&wal), entries);
    assert_eq!(wal.vote(), Some(Vote { term: 9, node: 1, committed: true }));
    assert_eq!(wal.committed(), Some(id(150)));
    assert_eq!(wal.ends(), (None, Some(id(199))));
    assert_eq!(wal.read(10, 20, usize::MAX).unwrap(), entries[10..20]);
    assert_eq!(wal.read(10, 20, 1).unwrap(), entries[10..11], "a limit still returns one entry");
}

#[test]
fn closing_writes_what_is_committed() {
    let disk = Disk::default();
    {
        let wal = open(&disk);
        append(&wal, vec![entry(0, 10)]).unwrap();
        wal.save_committed(id(0));
    }
    assert_eq!(open(&disk).committed(), Some(id(0)));
}

#[test]
fn purged_segments_are_used_again_and_their_old_records_are_not_seen() {
    let disk = Disk::default();
    let mut next = 0;
    for round in 0..20 {
        let wal = open(&disk);
        vote(&wal, round).unwrap();
        for _ in 0..40 {
            append(&wal, vec![entry(next, 80)]).unwrap();
            next += 1;
        }
        purge(&wal, id(next - 3)).unwrap();
        let kept: Vec<_> = (next - 2..next).map(|index| entry(index, 80)).collect();
        assert_eq!(all(&wal), kept);
        drop(wal);
        let wal = open(&disk);
        assert_eq!(all(&wal), kept);
        assert_eq!(wal.vote().unwrap().term, round, "the vote outlives the segment it was written to");
        assert_eq!(wal.ends(), (Some(id(next - 3)), Some(id(next - 1))));
    }
    assert!(disk.names().len() < 8, "segments are not collected: {:?}", disk.names());
}

#[test]
fn a_hole_is_refused_and_nothing_is_added() {
    let wal = open(&Disk::default());
    append(&wal, vec![entry(0, 1), entry(1, 1)]).unwrap();
    assert!(append(&wal, vec![entry(3, 1)]).is_err());
    assert!(append(&wal, vec![entry(2, 1), entry(4, 1)]).is_err());
    assert!(append(&wal, vec![entry(2, 100_000)]).is_err());
    assert_eq!(all(&wal).len(), 2);
    append(&wal, vec![entry(2, 1)]).unwrap();
}

#[test]
fn a_directory_is_locked_against_a_second_process() {
    let folder = tempfile::tempdir().unwrap();
    let wal = Wal::open(folder.path(), &small()).unwrap();
    append(&wal, vec![entry(0, 10)]).unwrap();
    let second = Wal::open(folder.path(), &small()).map(|_| ()).unwrap_err();
    assert!(matches!(second, OpenError::Locked(_)), "{second}");
    drop(wal);
    assert_eq!(all(&Wal::open(folder.path(), &small()).unwrap()), [entry(0, 10)]);
}

#[test]
fn many_requests_share_a_sync_and_complete_in_order() {
    let wal = Arc::new(open(&Disk::default()));
    let (tell, told) = std::sync::mpsc::channel();
    for index in 0..500 {
        let tell = tell.clone();
        wal.append(vec![entry(index, 8)], Box::new(move |result| tell.send((index, result.is_ok())).unwrap())).unwrap();
    }
    drop(tell);
    let order: Vec<_> = told.iter().collect();
    assert_eq!(order, (0..500).map(|index| (index, true)).collect::<Vec<_>>());
    assert_eq!(wal.stats().entries, 500);
    assert!(wal.stats().syncs <= 500);
}
