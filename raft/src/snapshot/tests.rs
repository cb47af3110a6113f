#![allow(clippy::unwrap_used)]

use std::path::Path;

use proptest::prelude::*;
use scheduler::{Batch, Core, Frozen, Levels, Proposer};

use super::format::{Header, read, write};
use super::{Folder, FormatError, SnapshotError};
use crate::fixture::{ask, engine, host};
use crate::types::StoredMembership;

/// A state with hosts, claims and a history.
fn frozen() -> Frozen {
    let (mut core, engine) = (Core::new(), engine());
    let batch = |commands| Batch { proposer: Proposer::default(), now: 1, wall: 2, commands };
    core.apply(&batch((0..3).map(|n| host(n, 8)).collect()));
    for instance in 0..5 {
        let mut proposal = core.decide(&engine, &ask(instance)).unwrap();
        let command = proposal.take_command().unwrap();
        let outcome = core.apply(&batch(vec![command])).pop();
        core.settle(proposal, outcome);
    }
    core.freeze()
}

fn file() -> Vec<u8> {
    let frozen = frozen();
    let mut bytes = Vec::new();
    let mut records = 0;
    write(&mut bytes, &Header::of(&frozen, None, StoredMembership::default()), &frozen, |more| records += more)
        .unwrap();
    assert_eq!(records, frozen.records());
    bytes
}

/// The error of damaged bytes, and where it says the damage is.
fn offset(bytes: &[u8]) -> u64 {
    match read(bytes, Levels::PROGRAM).map(|_| ()).unwrap_err() {
        FormatError::Damaged { offset, .. } => offset,
        FormatError::Level(_) => 8,
        FormatError::Read(error) => panic!("{error}"),
    }
}

#[test]
fn what_was_written_is_read_back() {
    let (header, read) = read(&file()[..], Levels::PROGRAM).unwrap();
    assert_eq!((header.hosts, header.consumers), (3, 5));
    assert_eq!(read.checksum(), frozen().checksum());
    assert_eq!(Core::of(read).check(), Vec::<String>::new());
}

#[test]
fn damage_at_any_byte_is_told_with_its_place() {
    let good = file();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            assert!(offset(&bad) <= good.len() as u64, "byte {at}, bit {bit}");
            // A flipped length may claim bytes as far as the end.
            let claimed = matches!(read(&bad[..], Levels::PROGRAM), Err(FormatError::Damaged { what, .. }) if what.contains("too early"));
            assert!(claimed || offset(&bad) <= at as u64, "byte {at}, bit {bit}: told at {}", offset(&bad));
        }
        assert_eq!(offset(&good[..at]), at as u64, "cut at {at}");
    }
    let mut long = good.clone();
    long.push(0);
    assert_eq!(offset(&long), good.len() as u64);
    let mut other = good;
    other[8] = 9;
    assert!(matches!(read(&other[..], Levels::PROGRAM).map(|_| ()).unwrap_err(), FormatError::Level(_)));
}

proptest! {
    #[test]
    fn records_that_are_moved_or_doubled_are_found(from in 0_usize..400, to in 0_usize..400, length in 1_usize..200) {
        let good = file();
        let (from, to) = (from % good.len(), to % good.len());
        let part = good[from..(from + length).min(good.len())].to_vec();
        let mut bad = good.clone();
        bad.splice(to..to, part);
        prop_assert!(bad == good || read(&bad[..], Levels::PROGRAM).is_err());
    }
}

#[test]
fn a_received_file_gets_the_name_that_a_start_looks_for() {
    let folder = tempfile::tempdir().unwrap();
    let snapshots = Folder::open(folder.path(), Levels::PROGRAM).unwrap();
    let received = folder.path().join("incoming.unfinished");
    std::fs::write(&received, file()).unwrap();
    let (path, _, core) = snapshots.take(&received).unwrap();
    assert!(!received.exists() && path.exists());
    let again = Folder::open(folder.path(), Levels::PROGRAM).unwrap().load_newest().unwrap().unwrap();
    assert_eq!((again.0, again.2.state().checksum()), (path, core.state().checksum()));
}

#[test]
fn an_error_names_the_file() {
    let error =
        SnapshotError::of(Path::new("x.snapshot"), read(&file()[..30], Levels::PROGRAM).map(|_| ()).unwrap_err());
    assert!(error.to_string().starts_with("x.snapshot: damaged at offset 30: it ends too early"), "{error}");
}
