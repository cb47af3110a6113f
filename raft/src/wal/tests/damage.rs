//! Damaged, missing and foreign files.

use super::{Disk, OpenError, Options, Vote, Wal, all, append, entry, open, refused, small, vote};

fn written() -> Disk {
    let disk = Disk::default();
    let wal = open(&disk);
    vote(&wal, 1).unwrap();
    for index in 0..12 {
        append(&wal, vec![entry(index, 40)]).unwrap();
    }
    vote(&wal, 8).unwrap();
    disk
}

fn damage(disk: &Disk, index: u64) -> String {
    let data = entry(index, 40).data;
    for name in disk.names() {
        let bytes = disk.bytes(&name);
        if let Some(at) = bytes.windows(40).position(|window| window == data) {
            disk.change(&name, |bytes| bytes[at + 20] ^= 0x10);
            return name;
        }
    }
    panic!("entry {index} is on no file");
}

#[test]
fn a_damaged_last_record_is_an_incomplete_write() {
    let disk = Disk::default();
    {
        let wal = open(&disk);
        for index in 0..12 {
            append(&wal, vec![entry(index, 40)]).unwrap();
        }
    }
    damage(&disk, 11);
    let wal = open(&disk);
    assert_eq!(all(&wal).len(), 11);
    let torn = wal.torn().unwrap();
    assert_eq!(torn.index, 11, "the warning names the first index that may be lost");
    drop(wal);
    assert_eq!(open(&disk).torn(), None, "and is given once");
}

#[test]
fn a_damaged_older_record_is_refused_with_file_offset_index_and_repair() {
    let disk = written();
    let name = damage(&disk, 5);
    let before = disk.bytes(&name);
    let error = refused(&disk, &small());
    let OpenError::Corrupt { ref path, index, offset, .. } = error else { panic!("{error}") };
    assert!(path.ends_with(&name));
    assert_eq!(index, 5);
    assert!(offset > 64);
    let text = error.to_string();
    for part in [name.as_str(), "index 5", &offset.to_string(), "--accept-loss-from 5", "new node id"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert_eq!(disk.bytes(&name), before, "refusing changes nothing");
}

#[test]
fn no_bit_of_an_acknowledged_record_changes_unseen() {
    let disk = written();
    let (name, last) = (disk.newest(), entry(11, 40).data);
    let bytes = disk.bytes(&name);
    let end = bytes.windows(40).position(|window| window == last).unwrap() + 40;
    for at in 0..end.next_multiple_of(8) {
        let disk = disk.copy();
        disk.change(&name, |bytes| bytes[at] ^= 4);
        let opened = Wal::open_in(&disk.files(), &small());
        assert!(opened.is_err(), "byte {at} of {end}");
    }
}

#[test]
fn a_record_zeroed_out_is_not_taken_for_the_end() {
    let disk = written();
    let name = disk.newest();
    let data = entry(5, 40).data;
    disk.change(&name, |bytes| {
        let at = bytes.windows(40).position(|window| window == data).unwrap();
        bytes[at - 48..at + 40].fill(0);
    });
    assert!(matches!(refused(&disk, &small()), OpenError::Corrupt { .. }));
}

#[test]
fn a_loss_is_accepted_only_from_the_index_that_is_lost() {
    let disk = written();
    damage(&disk, 5);
    let accept = |index| Options { accept_loss_from: Some(index), ..small() };
    assert!(matches!(refused(&disk, &accept(4)), OpenError::OtherLoss { lost: 5, accepted: 4 }));
    let wal = Wal::open_in(&disk.files(), &accept(5)).unwrap();
    assert_eq!(all(&wal).len(), 5);
    let vote = Some(Vote { term: 8, node: 1, committed: true });
    assert_eq!(wal.vote(), vote, "the vote behind the damage is kept");
    append(&wal, vec![entry(5, 10)]).unwrap();
    drop(wal);
    let wal = open(&disk);
    assert_eq!(all(&wal).len(), 6);
    assert_eq!(wal.vote(), vote);
    assert!(disk.names().iter().any(|name| name.ends_with(".damaged")), "the damaged file is kept");
}

#[test]
fn damage_in_an_earlier_segment_is_refused() {
    let disk = Disk::default();
    {
        let wal = open(&disk);
        for index in 0..100 {
            append(&wal, vec![entry(index, 40)]).unwrap();
        }
    }
    let name = damage(&disk, 3);
    assert_ne!(name, disk.newest());
    assert!(matches!(refused(&disk, &small()), OpenError::Corrupt { index: 3, .. }));
    let options = Options { accept_loss_from: Some(3), ..small() };
    assert_eq!(all(&Wal::open_in(&disk.files(), &options).unwrap()).len(), 3);
    assert_eq!(all(&open(&disk)).len(), 3);
}

#[test]
fn a_missing_segment_is_refused() {
    let disk = Disk::default();
    {
        let wal = open(&disk);
        for index in 0..200 {
            append(&wal, vec![entry(index, 40)]).unwrap();
        }
    }
    let segments = disk.segments();
    for lost in [0, 1] {
        let disk = disk.copy();
        disk.files().remove(&segments[lost]).unwrap();
        let error = refused(&disk, &small());
        assert!(matches!(error, OpenError::Missing { .. }), "{error}");
    }
}

#[test]
fn another_format_version_is_refused() {
    let disk = written();
    disk.change(&disk.newest(), |bytes| bytes[8] = 9);
    assert!(matches!(refused(&disk, &small()), OpenError::Version { found: 9, expected: 1, .. }));
    disk.change(&disk.newest(), |bytes| {
        bytes[8] = 1;
        bytes[20] ^= 1;
    });
    assert!(matches!(refused(&disk, &small()), OpenError::Header(_)));
}
