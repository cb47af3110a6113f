//! The bytes of each level that this program supports, as they were when the level came: read them, and
//! write the same. A format does not change by accident.
//!
//! The files are in `formats/`. Those of a level that nobody has installed yet may be made anew with
//! `UPDATE_FORMATS=1`; others never change.

use std::path::PathBuf;

use scheduler::command::{Action, Part, Place, Record};
use scheduler::decision::Claim;
use scheduler::intent::Intent;
use scheduler::names::Text;
use scheduler::{
    Batch, Command, Core, Domain, Frozen, HostReport, Inventory, Levels, Proposer, Purpose, Row, Sym, level,
};
use uuid::Uuid;

fn file(level: u8, what: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/formats/level-{level}.{what}"))
}

fn host(number: u128) -> Command {
    Command::Report(Box::new(HostReport {
        domain: Domain::Nova,
        name: format!("host-{number}"),
        uuid: Some(Uuid::from_u128(number)),
        inventories: Some([("VCPU".to_owned(), Inventory::of(8))].into()),
        traits: Some(vec!["CUSTOM_FAST".to_owned()]),
        labels: Some([("zone".to_owned(), "a".to_owned())].into()),
        taints: Some(vec!["dedicated=db:NoSchedule".to_owned()]),
        ..HostReport::default()
    }))
}

/// Its symbol, once hosts were reported.
fn vcpu() -> Sym {
    let mut core = Core::new();
    core.apply(&Batch { commands: vec![host(1)], proposer: Proposer::default(), now: 0, wall: 0 });
    core.state().tables().names.get("VCPU").expect("interned")
}

fn text(text: &str) -> Text {
    Text::New(text.to_owned())
}

fn place(consumer: u128, row: u32, kept: bool) -> Command {
    let claim = Action::Claim { ticket: 7, targets: vec![Row(row)], amounts: [(vcpu(), 2)].into_iter().collect() };
    Command::Place(Box::new(Place {
        domain: Domain::Nova,
        intent: Intent::Create,
        project: Some(text("project")),
        user: None,
        flavor: Some(text("small")),
        group: Some(Uuid::from_u128(1 << 70)),
        request: Some(Uuid::from_u128(2 << 70)),
        key: None,
        parts: vec![Part {
            consumer: Uuid::from_u128(consumer),
            purpose: Purpose::Instance,
            seen: None,
            action: if kept { Action::Keep } else { claim },
        }],
        life: 60_000,
        learned: vec![],
        record: Some(Record {
            pipeline: text("nova-general"),
            version: 2,
            candidates: 2,
            unknown: 1,
            hosts_out: 1,
            drops: vec![(text("filter"), vec![(text("short"), 1)])],
            top: vec![(Row(row), -5)],
            claim: Claim::None,
            trace_id: "trace".to_owned(),
        }),
    }))
}

/// Every command that there was at the first level.
fn batch() -> Batch {
    let commands = vec![
        host(1),
        host(2),
        place(10, 0, false),
        place(11, 1, false),
        place(10, 0, true),
        Command::Release { domain: Domain::Nova, consumer: Uuid::from_u128(11), open_only: true },
        Command::RemoveHost { domain: Domain::Nova, provider: Uuid::from_u128(2) },
        Command::Tick,
        Command::Raise { level: level::FIRST },
    ];
    Batch { proposer: Proposer { node: 1, run: 2, seq: 3 }, now: 4, wall: 5, commands }
}

#[test]
fn the_bytes_of_every_supported_level_are_what_they_were() {
    for level in level::OLDEST..=level::NEWEST.min(level::FIRST) {
        let mut core = Core::new();
        core.apply(&batch());
        let made = [("batch", batch().encode(level)), ("state", core.freeze().encode())];
        for (what, bytes) in made {
            let path = file(level, what);
            if std::env::var_os("UPDATE_FORMATS").is_some() {
                std::fs::write(&path, &bytes).expect("written");
            }
            let known = std::fs::read(&path).expect("a file for each level");
            assert!(known == bytes, "{}: the format has changed: that is a new level", path.display());
        }
        let known = |what| std::fs::read(file(level, what)).expect("a file for each level");
        assert_eq!(Batch::decode(&known("batch"), Levels::PROGRAM), Ok(batch()));
        let state = Frozen::decode(&known("state")).expect("a state");
        assert_eq!((state.level(), state.checksum()), (level, core.freeze().checksum()));
    }
}

#[test]
fn a_level_that_is_not_supported_is_refused_in_words() {
    let newer = level::NEWEST + 1;
    let raise = Batch { commands: vec![Command::Raise { level: newer }], ..batch() };
    let mut state = Core::new().freeze().encode();
    // Behind the length of the first piece.
    state[4] = level::FIRST - 1;
    let refused = [
        Batch::decode(&batch().encode(newer), Levels::PROGRAM).expect_err("newer").to_string(),
        Batch::decode(&raise.encode(level::NEWEST), Levels::PROGRAM).expect_err("raised").to_string(),
        Frozen::decode(&state).expect_err("older").to_string(),
    ];
    let words = format!("feature level {newer}, this program supports {}: run a newer version", Levels::PROGRAM);
    assert!(refused[0].contains(&words) && refused[1].contains(&words), "{refused:?}");
    assert!(refused[2].contains("run an older version"), "{refused:?}");
}

/// What a future version does to this one: a command and a table more, and the bytes of this one as
/// long as the cluster is at its level.
#[cfg(feature = "next-level")]
#[test]
fn what_came_with_a_level_is_written_from_that_level_on() {
    let old = Levels { oldest: level::OLDEST, newest: level::OLDEST };
    let note = Batch { commands: vec![Command::Note(1)], ..batch() };
    assert!(Batch::decode(&note.encode(level::OLDEST), old).is_err(), "it has no form in the former level");
    assert_eq!(Batch::decode(&note.encode(level::NEWEST), Levels::PROGRAM).as_ref(), Ok(&note));
    let mut core = Core::new();
    core.apply(&Batch { commands: vec![Command::Raise { level: level::NEWEST }], ..batch() });
    core.apply(&note);
    let again = Frozen::decode(&core.freeze().encode()).expect("a state");
    assert_eq!((again.level(), again.tables().notes()), (level::NEWEST, [1].as_slice()));
}
