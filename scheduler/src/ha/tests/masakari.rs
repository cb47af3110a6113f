//! Segments, hosts in them, and notifications: what is refused and why, and what a notification comes to.

use uuid::Uuid;

use super::bench::{Bench, host};
use crate::ha::Phase;
use crate::ha::case::Cause;
use crate::ha::host::Maintenance;
use crate::ha::masakari::{
    Change, DUPLICATE, Kind, MemberSpec, NotificationSpec, Refused, Report, SegmentSpec, Status, WAITS,
};
use crate::ha::order::{Change as Order, Done, To};
use crate::ha::recovery::Stays;
use crate::ha::refusal::Refusal;

fn id(n: u128) -> Uuid {
    Uuid::from_u128(0xF000 + n)
}

fn segment(n: u128, name: &str) -> Change {
    Change::Segment(Box::new(SegmentSpec {
        uuid: id(n),
        create: true,
        name: Some(name.to_owned()),
        ..SegmentSpec::default()
    }))
}

fn member(n: u128, name: &str) -> MemberSpec {
    MemberSpec { uuid: id(n), create: true, segment: id(1), name: Some(name.to_owned()), ..MemberSpec::default() }
}

fn notify(n: u128, name: &str, report: Report, generated: i64) -> Change {
    let payload = vec![("event".to_owned(), "STOPPED".to_owned())];
    Change::Notify(Box::new(NotificationSpec {
        uuid: id(n),
        kind: Kind::ComputeHost,
        host: name.to_owned(),
        generated,
        payload,
        report,
    }))
}

impl Bench {
    fn said(&mut self, change: Change) -> Result<Done, Refused> {
        match self.order(Order::Masakari(Box::new(change))) {
            Ok(done) => Ok(done),
            Err(Refusal::Masakari(refused)) => Err(refused),
            Err(other) => panic!("{other}"),
        }
    }

    fn status(&self, n: u128) -> Status {
        let said = self.ha().notified().find(|said| said.uuid == id(n)).expect("notified");
        self.ha().status_of(said, self.now)
    }
}

/// A segment with hosts 1 to 3.
fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.said(segment(1, "one")).expect("it is taken");
    for n in 1..=3 {
        bench.said(Change::Member(Box::new(member(10 + n, &format!("node-{n}"))))).expect("it is taken");
    }
    bench
}

#[test]
fn what_makes_no_sense_is_refused_in_masakaris_words() {
    let mut bench = bench();
    let put = |spec: MemberSpec| Change::Member(Box::new(spec));
    let refused = [
        (segment(2, "one"), Refused::SegmentExists("one".to_owned())),
        (Change::SegmentRemove(id(9)), Refused::Segment(id(9))),
        (put(member(20, "node-1")), Refused::MemberExists("node-1".to_owned())),
        (put(member(20, "nobody")), Refused::NoCompute("nobody".to_owned())),
        (put(MemberSpec { segment: id(9), ..member(20, "node-4") }), Refused::Segment(id(9))),
        (put(MemberSpec { create: false, ..member(20, "node-4") }), Refused::Member(id(20))),
        (Change::MemberRemove { segment: id(1), uuid: id(20) }, Refused::Member(id(20))),
        (notify(30, "node-4", Report::Silent, 0), Refused::NoHost("node-4".to_owned())),
    ];
    for (change, why) in refused {
        assert_eq!(bench.said(change), Err(why));
    }

    // The same again within three minutes, by the clock of the monitor; later it is news.
    bench.said(notify(30, "node-1", Report::Silent, 1_000)).expect("it is taken");
    let duplicate = Err(Refused::Duplicate("node-1".to_owned()));
    assert_eq!(bench.said(notify(31, "node-1", Report::Silent, 1_000 + DUPLICATE)), duplicate);
    bench.said(notify(31, "node-1", Report::Silent, 1_001 + DUPLICATE)).expect("it is taken");

    // While something may come of it nothing about the segment changes.
    let busy = bench.said(Change::SegmentRemove(id(1)));
    assert!(matches!(busy, Err(Refused::InUse(_))), "{busy:?}");
    bench.now += WAITS;
    assert_eq!(bench.status(31), Status::Ignored, "it was never suspected");
    bench.said(Change::SegmentRemove(id(1))).expect("it is taken");
    assert!(bench.ha().members.is_empty());
}

#[test]
fn a_notification_stands_as_its_case_does_and_proves_nothing() {
    let mut bench = bench();
    bench.said(notify(30, "node-1", Report::Silent, 0)).expect("it is taken");
    assert_eq!((bench.status(30), bench.host(1).incarnation), (Status::New, 1));
    let case = bench.planning(1);
    assert_eq!(bench.status(30), Status::Running);
    // The host is dead and not back.
    let gone = bench.said(notify(31, "node-1", Report::Silent, DUPLICATE * 2));
    assert_eq!(gone, Err(Refused::Maintenance("node-1".to_owned())));
    bench.must(Order::NeedsOperator { case, reason: Some("look".to_owned()) });
    assert_eq!(bench.status(30), Status::Error);
    let stays = (1..=4).map(|v| Bench::assignment(v, To::Stays(Stays::LocalDisk))).collect();
    bench.must(Order::CommitPlan { case, assignments: stays });
    bench.phase(1, Phase::PartiallyRecovered);
    assert_eq!(bench.status(30), Status::Finished);

    // One case that is over, and the next: each notification stands as its own does.
    bench.said(notify(40, "node-2", Report::Silent, 0)).expect("it is taken");
    let first = bench.pending(2);
    bench.phase(2, Phase::Cleared);
    bench.detect(2, crate::ha::Detection::Unreachable, crate::ha::Detection::Alive);
    bench.said(notify(41, "node-2", Report::Silent, DUPLICATE * 2)).expect("it is taken");
    assert_eq!((bench.status(40), bench.status(41)), (Status::Finished, Status::New));
    bench.as_operator(Order::CaseOpen { host: host(2), incarnation: 1, cause: Cause::Operator });
    assert_ne!(first, bench.id(2));
    assert_eq!((bench.status(40), bench.status(41)), (Status::Finished, Status::Running));

    // What is in no enabled segment, or says nothing, is ignored.
    let off = SegmentSpec { uuid: id(2), create: true, enabled: Some(false), ..SegmentSpec::default() };
    bench.said(Change::Segment(Box::new(SegmentSpec { name: Some("two".to_owned()), ..off }))).expect("it is taken");
    bench.said(Change::Member(Box::new(MemberSpec { segment: id(2), ..member(14, "node-4") }))).expect("it is taken");
    bench.said(notify(50, "node-4", Report::Silent, 0)).expect("it is taken");
    bench.said(notify(51, "node-3", Report::Nothing, 0)).expect("it is taken");
    assert_eq!((bench.status(50), bench.status(51)), (Status::Ignored, Status::Ignored));
}

#[test]
fn a_host_in_maintenance_is_neither_notified_about_nor_fenced() {
    let mut bench = bench();
    let set = |maintenance| {
        let spec = MemberSpec { name: None, create: false, maintenance: Some(maintenance), ..member(13, "") };
        Change::Member(Box::new(spec))
    };
    bench.said(set(true)).expect("it is taken");
    assert_eq!(bench.host(3).maintenance, Maintenance::Manual);
    let refused = bench.said(notify(30, "node-3", Report::Silent, 0));
    assert_eq!(refused, Err(Refused::Maintenance("node-3".to_owned())));
    bench.said(set(false)).expect("it is taken");
    assert_eq!(bench.host(3).maintenance, Maintenance::None);
    bench.said(notify(30, "node-3", Report::Silent, 0)).expect("it is taken");
}
