//! A disk that refuses.

use std::io::ErrorKind;

use super::{Disk, all, append, entry, open, vote};
use crate::wal::faulty::Faults;

#[test]
fn a_short_write_is_continued() {
    let disk = Disk::default();
    disk.set(Faults { short: Some(13), ..Faults::default() });
    let wal = open(&disk);
    for index in 0..60 {
        append(&wal, vec![entry(index, 100)]).unwrap();
    }
    drop(wal);
    disk.set(Faults::default());
    assert_eq!(all(&open(&disk)).len(), 60);
}

#[test]
fn a_failed_write_or_sync_stops_the_log_for_good_and_loses_nothing_acknowledged() {
    let other = ErrorKind::Other;
    let faults = [
        Faults { write: Some((0, ErrorKind::StorageFull)), ..Faults::default() },
        Faults { write: Some((0, other)), ..Faults::default() },
        Faults { sync: Some((0, other)), ..Faults::default() },
        Faults { write: Some((3, other)), short: Some(40), ..Faults::default() },
    ];
    for fault in faults {
        let disk = Disk::default();
        let wal = open(&disk);
        append(&wal, vec![entry(0, 100), entry(1, 100)]).unwrap();
        disk.set(fault);
        let error = append(&wal, vec![entry(2, 100)]).unwrap_err();
        assert!(error.to_string().contains("nothing acknowledged is lost"), "{error}");
        disk.set(Faults::default());
        let again = append(&wal, vec![entry(3, 100)]).unwrap_err();
        assert_eq!(again.to_string(), error.to_string(), "a healed disk does not heal the log");
        vote(&wal, 5).unwrap_err();
        assert_eq!(wal.failure().unwrap().to_string(), error.to_string());
        drop(wal);
        disk.crash(|_| false);
        let wal = open(&disk);
        assert_eq!(all(&wal), [entry(0, 100), entry(1, 100)]);
        assert_eq!(wal.vote(), None);
    }
}

#[test]
fn a_full_disk_stops_the_log_when_the_segments_are_used_up() {
    let disk = Disk::default();
    let wal = open(&disk);
    append(&wal, vec![entry(0, 100)]).unwrap();
    disk.set(Faults { create: Some(ErrorKind::StorageFull), ..Faults::default() });
    let mut next = 1;
    let error = loop {
        match append(&wal, vec![entry(next, 100)]) {
            Ok(()) => next += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    for part in ["disk", "no space left", "free at least 4096 bytes"] {
        assert!(error.to_string().contains(part), "{part} is not in: {error}");
    }
    drop(wal);
    disk.crash(|_| false);
    let wal = open(&disk);
    assert_eq!(all(&wal).len() as u64, next);
    append(&wal, vec![entry(next, 100)]).unwrap();
}
