//! Power failures at every byte and in every sector of the last writes.

use super::{Disk, Entry, all, append, entry, id, open, vote};

/// Three writes of several entries, the log before them, and where each entry of them ends.
fn written() -> (Disk, Vec<Entry>, Vec<usize>) {
    let disk = Disk::default();
    let mut entries: Vec<_> = (0..10).map(|index| entry(index, 20)).collect();
    let mut ends = Vec::new();
    let wal = open(&disk);
    append(&wal, entries.clone()).unwrap();
    vote(&wal, 3).unwrap();
    wal.save_committed(id(9));
    for batch in 0..3 {
        let more: Vec<_> = (0..3).map(|at| entry(10 + batch * 3 + at, 30)).collect();
        append(&wal, more.clone()).unwrap();
        entries.extend(more);
    }
    drop(wal);
    let bytes = disk.bytes(&disk.newest());
    for entry in &entries[10..] {
        let at = bytes.windows(entry.data.len()).position(|window| window == entry.data).unwrap();
        ends.push(at + entry.data.len());
    }
    (disk, entries, ends)
}

#[test]
fn a_file_cut_at_any_byte_opens_with_the_whole_entries_before_the_cut() {
    let (disk, entries, ends) = written();
    let newest = disk.newest();
    let from = ends[0] - 120;
    for cut in from..disk.bytes(&newest).len().min(ends[8] + 64) {
        for shorter in [false, true] {
            let disk = disk.copy();
            disk.change(&newest, |bytes| {
                if shorter {
                    bytes.truncate(cut);
                } else {
                    bytes[cut..].fill(0);
                }
            });
            let wal = open(&disk);
            let whole = 10 + ends.iter().filter(|end| **end <= cut).count();
            let found = all(&wal);
            // A cut in the padding, or in a last byte that is zero anyway, loses nothing.
            assert!(found.len() == whole || found.len() == whole + 1, "cut at {cut}: {} of {whole}", found.len());
            assert_eq!(found, entries[..found.len()], "cut at {cut}");
            assert_eq!(wal.vote().unwrap().term, 3);
            let next = found.len() as u64;
            append(&wal, vec![entry(next, 50)]).unwrap();
            drop(wal);
            let wal = open(&disk);
            assert_eq!(all(&wal).len() as u64, next + 1);
            assert_eq!(all(&wal)[next as usize], entry(next, 50));
        }
    }
}

#[test]
fn any_part_of_an_unsynced_write_may_reach_the_disk() {
    for seed in 0..200_u64 {
        let disk = Disk::default();
        let wal = open(&disk);
        let acknowledged: Vec<_> = (0..4).map(|index| entry(index, 300)).collect();
        append(&wal, acknowledged.clone()).unwrap();
        vote(&wal, 7).unwrap();
        // The sync of the next write fails, so nothing of it is acknowledged.
        let faults = crate::wal::faulty::Faults { sync: Some((0, std::io::ErrorKind::Other)), ..Default::default() };
        disk.set(faults);
        let attempted: Vec<_> = (4..8).map(|index| entry(index, 200)).collect();
        append(&wal, attempted.clone()).unwrap_err();
        drop(wal);
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        disk.crash(|_| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random & 1 == 0
        });
        let wal = open(&disk);
        let found = all(&wal);
        let possible: Vec<_> = acknowledged.iter().chain(&attempted).cloned().collect();
        assert!(found.len() >= 4, "seed {seed}");
        assert_eq!(found, possible[..found.len()], "seed {seed}");
        assert_eq!(wal.vote().unwrap().term, 7);
        // What was dropped must not come back behind what is written now.
        let next = found.len() as u64;
        let other = Entry { kind: 9, ..entry(next, 8) };
        append(&wal, vec![other.clone()]).unwrap();
        drop(wal);
        let found = all(&open(&disk));
        assert_eq!(found.len() as u64, next + 1, "seed {seed}");
        assert_eq!(found[next as usize], other);
    }
}

#[test]
fn a_crash_while_a_segment_is_begun_loses_nothing() {
    let disk = Disk::default();
    let wal = open(&disk);
    for index in 0..60 {
        append(&wal, vec![entry(index, 100)]).unwrap();
    }
    drop(wal);
    assert!(disk.segments().len() > 2);
    disk.crash(|_| false);
    assert_eq!(all(&open(&disk)).len(), 60);
}
