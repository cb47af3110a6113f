//! The bytes of each level that this program supports, as they were when the level came: read them, and
//! write the same. A format does not change by accident.
//!
//! The files are in `formats/`. Those of a level that nobody has installed yet may be made anew with
//! `UPDATE_FORMATS=1`; others never change.

use std::path::PathBuf;

use scheduler::command::{Action, Part, Place, Record};
use scheduler::decision::Claim;
use scheduler::ha::breaker::ScopeName;
use scheduler::ha::case::{CaseId, Cause};
use scheduler::ha::host::{Fencer, Hello, Machine, PlaceNames};
use scheduler::ha::masakari::{self, MemberSpec, NotificationSpec, SegmentSpec};
use scheduler::ha::order::{Groups, PermitCause};
use scheduler::ha::policy::{FailoverPolicy, Mode, Operator, Rules, Selector, Term};
use scheduler::ha::proof::{Power, PowerRead};
use scheduler::ha::recovery::Life;
use scheduler::ha::{Actor, Change, Detection, Evidence, HostId, HostSpec, Leader, Order, Role};
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

/// Failover: a host with an instance, and a case.
fn failover() -> Vec<Command> {
    let id = HostId(Uuid::from_u128(1));
    let text = |text: &str| text.to_owned();
    let machine = Machine { uuid: Some(Uuid::from_u128(3)), serial: Some(text("serial")) };
    let spec = HostSpec {
        id,
        nova_host: text("host-1"),
        machine: machine.clone(),
        bmc: Some(text("bmc")),
        places: PlaceNames {
            az: text("az"),
            cell: text("cell"),
            cluster: text("cluster"),
            power: text("power"),
            chassis: text("chassis"),
        },
        fencers: vec![Fencer::Redfish],
        enabled: true,
        permit_check: true,
        ..HostSpec::default()
    };
    let hello = Hello { boot: Uuid::from_u128(4), machine: machine.clone(), permit_check: true, ..Hello::default() };
    let life = Life { host: id, incarnation: 1 };
    let placed = PermitCause::Placed;
    let suspected = Change::DetectionSet {
        host: id,
        incarnation: 1,
        from: Detection::Alive,
        to: Detection::Suspect,
        groups: Groups::MANAGEMENT,
        age: 7_000,
    };
    let read = |at| PowerRead { power: Power::Off, raw: text("Off"), machine: machine.clone(), at };
    let evidence = Evidence::PowerOff(Box::new([read(0), read(2_000)]));
    let segment =
        SegmentSpec { uuid: Uuid::from_u128(5), create: true, name: Some(text("segment")), ..SegmentSpec::default() };
    let member = MemberSpec {
        uuid: Uuid::from_u128(6),
        create: true,
        segment: Uuid::from_u128(5),
        name: Some(text("host-1")),
        ..MemberSpec::default()
    };
    let said = NotificationSpec {
        uuid: Uuid::from_u128(7),
        kind: masakari::Kind::ComputeHost,
        host: text("host-1"),
        generated: 8,
        payload: vec![(text("event"), text("STOPPED"))],
        report: masakari::Report::Silent,
    };
    let selector = Selector {
        domain: Some(ScopeName::Az(text("az"))),
        hosts: vec![text("host-1")],
        labels: vec![Term { key: text("zone"), operator: Operator::In, values: vec![text("a")] }],
        ..Selector::default()
    };
    let rules = Rules { mode: Some(Mode::DryRun), fence_isolated: Some(60_000), ..Rules::default() };
    let policy = FailoverPolicy { name: text("trial"), selector, rules };
    let case = CaseId { host: id, incarnation: 1, seq: 1 };
    let changes = [
        Change::HostUpsert(Box::new(spec)),
        Change::IncarnationOpen { host: id, hello: Box::new(hello) },
        Change::PermitMove { instance: Uuid::from_u128(10), from: None, to: life, cause: placed },
        Change::Masakari(Box::new(masakari::Change::Segment(Box::new(segment)))),
        Change::Masakari(Box::new(masakari::Change::Member(Box::new(member)))),
        Change::Masakari(Box::new(masakari::Change::Notify(Box::new(said)))),
        Change::EventsTold { receiver: text("receiver"), at: 9 },
        suspected,
        Change::CaseOpen { host: id, incarnation: 1, cause: Cause::PowerOff },
        Change::DeathProof { host: id, incarnation: 1, evidence },
        Change::PolicyPut(Box::new(policy)),
        Change::WouldDo { case, what: Some(text("be marked as down in Nova")) },
    ];
    let actor = Actor { role: Role::Coordinator, name: text("node 1"), reason: String::new() };
    let person = Actor { role: Role::Operator, name: text("jo"), reason: text("a trial") };
    let order = |change| {
        let actor = if matches!(change, Change::PolicyPut(_)) { person.clone() } else { actor.clone() };
        Order { leader: Leader { term: 1, node: 1 }, epoch: 0, actor, change }
    };
    changes.into_iter().map(|change| Command::Failover(Box::new(order(change)))).collect()
}

/// Every command that there was at the level.
fn batch(level: u8) -> Batch {
    let mut commands = vec![
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
    if level >= level::FAILOVER {
        commands.push(Command::Raise { level: level::FAILOVER });
        commands.extend(failover());
    }
    Batch { proposer: Proposer { node: 1, run: 2, seq: 3 }, now: 4, wall: 5, commands }
}

#[test]
fn the_bytes_of_every_supported_level_are_what_they_were() {
    for level in level::OLDEST..=level::NEWEST.min(level::FAILOVER) {
        let mut core = Core::new();
        core.apply(&batch(level));
        let made = [("batch", batch(level).encode(level)), ("state", core.freeze().encode())];
        for (what, bytes) in made {
            let path = file(level, what);
            if std::env::var_os("UPDATE_FORMATS").is_some() {
                std::fs::write(&path, &bytes).expect("written");
            }
            let known = std::fs::read(&path).expect("a file for each level");
            assert!(known == bytes, "{}: the format has changed: that is a new level", path.display());
        }
        let known = |what| std::fs::read(file(level, what)).expect("a file for each level");
        assert_eq!(Batch::decode(&known("batch"), Levels::PROGRAM), Ok(batch(level)));
        let state = Frozen::decode(&known("state")).expect("a state");
        assert_eq!((state.level(), state.checksum()), (level, core.freeze().checksum()));
        assert_eq!(
            state.tables().failover().cases.len(),
            usize::from(level >= level::FAILOVER),
            "every order was done"
        );
    }
}

#[test]
fn a_level_that_is_not_supported_is_refused_in_words() {
    let newer = level::NEWEST + 1;
    let raise = Batch { commands: vec![Command::Raise { level: newer }], ..batch(level::FIRST) };
    let mut state = Core::new().freeze().encode();
    // Behind the length of the first piece.
    state[4] = level::OLDEST - 1;
    let refused = [
        Batch::decode(&batch(level::FIRST).encode(newer), Levels::PROGRAM).expect_err("newer").to_string(),
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
    let note = Batch { commands: vec![Command::Note(1)], ..batch(level::FIRST) };
    assert!(Batch::decode(&note.encode(level::OLDEST), old).is_err(), "it has no form in the former level");
    assert_eq!(Batch::decode(&note.encode(level::NEWEST), Levels::PROGRAM).as_ref(), Ok(&note));
    let mut core = Core::new();
    core.apply(&Batch { commands: vec![Command::Raise { level: level::NEWEST }], ..batch(level::FIRST) });
    core.apply(&note);
    let again = Frozen::decode(&core.freeze().encode()).expect("a state");
    assert_eq!((again.level(), again.tables().notes()), (level::NEWEST, [1].as_slice()));
}
