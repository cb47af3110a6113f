//! What an agent says and does, driven by hand.

use uuid::Uuid;

use super::{Core, EVENTS, Effect, Facts, Vitals};
use crate::host::Now;
use crate::libvirt::Seen;
use crate::report::{
    Body, Directive, DomainEvent, DomainState, Envelope, Event, Goodbye, Instance, Lifecycle, Order, Watchdog,
};
use crate::simulated::{self, cluster};

const S: u64 = 1_000_000_000;

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn at(seconds: u64) -> Now {
    Now { boot_ns: seconds * S, wall_ms: seconds * 1_000 }
}

fn core() -> Core {
    let facts = Facts { permit_check: true, ..Facts::default() };
    let mut core = Core::new(simulated::identity(1), facts, None, 0, at(0));
    core.settle();
    core
}

fn all(core: &mut Core, now: Now) -> Vec<Envelope> {
    std::iter::from_fn(|| core.next(now)).collect()
}

fn names(core: &mut Core, now: Now) -> Vec<&'static str> {
    let name = |envelope: Envelope| match envelope.body {
        Body::Hello(_) => "hello",
        Body::Heartbeat(_) => "heartbeat",
        Body::Uptime(_) => "uptime",
        Body::Instances(instances) if instances.whole => "whole",
        Body::Instances(_) => "changes",
        Body::DomainEvent(_) => "event",
        Body::EventsDropped { .. } => "dropped",
        Body::Goodbye { .. } => "goodbye",
        Body::DirectiveResult { refused: None, .. } => "done",
        Body::DirectiveResult { refused: Some(_), .. } => "refused",
    };
    all(core, now).into_iter().map(name).collect()
}

fn tell(core: &mut Core, id: u64, cluster: Uuid, order: Order) -> Vec<Effect> {
    core.told(Directive { id, cluster, order }, at(5))
}

fn welcome(permits: &[u128]) -> Order {
    Order::Welcome {
        incarnation: 4,
        quarantined: false,
        holds_compute: false,
        permits: permits.iter().copied().map(id).collect(),
    }
}

fn instance(number: u128, state: DomainState) -> Instance {
    Instance { uuid: id(number), name: format!("instance-{number:08}"), state, ..Instance::default() }
}

fn event(number: u128, event: Event) -> Seen {
    Seen::Happened(DomainEvent { instance: id(number), name: String::new(), boot_ns: 0, event })
}

fn started(number: u128) -> Seen {
    event(number, Event::Lifecycle { event: Lifecycle::Started, detail: 0 })
}

#[test]
fn a_session_begins_with_a_hello_and_a_whole_list() {
    let mut core = core();
    core.see(Seen::Whole(0, vec![instance(7, DomainState::Running)]), at(1));
    core.see(started(7), at(1));
    core.beat(Vitals::default());
    assert!(!core.has_next(), "nobody listens");
    core.connect();
    assert_eq!(names(&mut core, at(2)), ["hello", "heartbeat", "event", "whole"]);
    assert!(!core.has_next());
    core.see(Seen::One(2, id(7), Some(Box::new(instance(7, DomainState::Paused)))), at(2));
    core.see(Seen::One(2, id(8), None), at(2));
    assert_eq!(names(&mut core, at(3)), ["changes"]);
    core.see(Seen::One(3, id(7), Some(Box::new(instance(7, DomainState::Paused)))), at(3));
    assert!(!core.has_next(), "nothing new");
    core.disconnect();
    core.connect();
    assert_eq!(names(&mut core, at(4)), ["hello", "heartbeat", "whole"]);
}

#[test]
fn nothing_is_said_before_the_facts_are_known() {
    let mut core = Core::new(simulated::identity(1), Facts::default(), None, 0, at(0));
    core.connect();
    core.beat(Vitals::default());
    assert!(!core.has_next() && core.next(at(1)).is_none());
    core.settle();
    assert_eq!(names(&mut core, at(1)), ["hello", "heartbeat"]);
    core.know(Facts { permit_check: true, ..Facts::default() });
    assert_eq!(names(&mut core, at(2)), ["hello"], "a fact has changed");
    core.see(Seen::Whole(0, vec![Instance { autostart: true, ..instance(7, DomainState::Running) }]), at(3));
    let Some(Body::Hello(hello)) = core.next(at(3)).map(|envelope| envelope.body) else { panic!("a Hello") };
    assert!(hello.resumes_guests && hello.resumes_by[0].contains("instance-00000007"), "{:?}", hello.resumes_by);
}

#[test]
fn envelopes_are_numbered_as_they_go() {
    let mut core = core();
    core.connect();
    core.beat(Vitals::default());
    let said = all(&mut core, at(1));
    core.beat(Vitals::default());
    core.beat(Vitals::default());
    let later = all(&mut core, at(9));
    let numbers: Vec<_> = said.iter().chain(&later).map(|envelope| (envelope.seq, envelope.boot_ns / S)).collect();
    assert_eq!(numbers, [(1, 1), (2, 1), (3, 9)], "one heartbeat waits at most");
}

#[test]
fn a_flood_of_events_is_bounded_and_told() {
    let mut core = core();
    core.see(Seen::Whole(0, Vec::new()), at(1));
    core.connect();
    all(&mut core, at(1));
    for _ in 0..EVENTS + 500 {
        core.see(event(7, Event::Reboot), at(2));
    }
    core.beat(Vitals::default());
    let said = names(&mut core, at(3));
    assert_eq!((said[0], said[1], said[EVENTS + 2]), ("heartbeat", "dropped", "whole"));
    assert_eq!(said.iter().filter(|name| **name == "event").count(), EVENTS);
}

#[test]
fn libvirt_is_well_while_it_answers() {
    let mut core = core();
    core.connect();
    let ok = |core: &mut Core, now| {
        core.beat(Vitals::default());
        all(core, now).iter().any(|envelope| matches!(&envelope.body, Body::Heartbeat(beat) if beat.libvirt_ok))
    };
    assert!(!ok(&mut core, at(1)), "not reached yet");
    core.see(Seen::Answered { rtt_ms: 1, active: 3 }, at(2));
    assert!(ok(&mut core, at(6)) && !ok(&mut core, at(7)), "five seconds");
    core.see(Seen::Answered { rtt_ms: 1, active: 3 }, at(8));
    core.see(Seen::Lost("gone".into()), at(8));
    assert!(core.has_next(), "said at once");
    assert!(!ok(&mut core, at(8)));
}

#[test]
fn only_its_own_cluster_tells_it_anything() {
    let mut core = core();
    core.connect();
    assert!(tell(&mut core, 1, cluster(), welcome(&[7])).is_empty(), "no Hello was said");
    assert_eq!(names(&mut core, at(1)), ["hello", "heartbeat", "refused"]);
    assert!(tell(&mut core, 2, cluster(), Order::Quarantine { on: false }).is_empty(), "no cluster yet");
    assert_eq!(tell(&mut core, 3, cluster(), welcome(&[7])), [Effect::KeepIdentity, Effect::KeepPermits]);
    let gate = core.gate().clone();
    let may = |number| gate.lock().expect("not poisoned").may_start(id(number), std::time::Instant::now()).is_ok();
    assert!(may(7) && !may(8));
    // A stranger's words change nothing.
    for (number, order) in [
        (4, welcome(&[8])),
        (5, Order::Permits { incarnation: 4, whole: true, granted: vec![id(8)], withdrawn: vec![] }),
        (6, Order::LeaseGrant { lease: 1, for_seq: 2, ttl_ms: 20_000 }),
        (7, Order::Watchdog { on: true }),
    ] {
        assert!(tell(&mut core, number, id(666), order).is_empty());
    }
    assert!(may(7) && !may(8));
    assert_eq!(core.lease_until_ns(), 0);
    let refused: Vec<_> = all(&mut core, at(2))
        .into_iter()
        .filter_map(|envelope| match envelope.body {
            Body::DirectiveResult { directive, refused } => Some((directive, refused.is_some())),
            _ => None,
        })
        .collect();
    assert_eq!(refused, [(2, true), (4, true), (5, true), (6, true), (7, true)]);
}

#[test]
fn permits_are_acknowledged_once_they_are_kept() {
    let mut core = core();
    core.connect();
    all(&mut core, at(1));
    let acknowledged = |core: &mut Core| {
        core.beat(Vitals::default());
        all(core, at(2)).last().map(|envelope| envelope.ack_directive)
    };
    tell(&mut core, 1, cluster(), welcome(&[7]));
    assert!(!names(&mut core, at(2)).contains(&"done"), "not kept yet");
    let (_, first) = core.permits();
    tell(&mut core, 2, cluster(), Order::ReportNow);
    assert_eq!(acknowledged(&mut core), Some(0));
    tell(
        &mut core,
        5,
        cluster(),
        Order::Permits { incarnation: 4, whole: false, granted: vec![], withdrawn: vec![id(7)] },
    );
    core.kept(first);
    assert_eq!(acknowledged(&mut core), Some(4), "what came after the write waits");
    let (kept, second) = core.permits();
    assert!(kept.is_some_and(|kept| kept.permits.is_empty()));
    core.kept(second);
    assert_eq!(acknowledged(&mut core), Some(5));
    assert!(tell(&mut core, 5, cluster(), welcome(&[7])).is_empty(), "done already");
    core.disconnect();
    core.connect();
    core.kept(second);
    assert_eq!(acknowledged(&mut core), Some(0), "numbers are of a session");
}

#[test]
fn a_lease_answers_a_heartbeat_of_this_agent() {
    let mut core = core();
    core.connect();
    all(&mut core, at(1));
    tell(&mut core, 1, cluster(), welcome(&[]));
    core.beat(Vitals::default());
    let beat = all(&mut core, at(10)).into_iter().find(|envelope| matches!(envelope.body, Body::Heartbeat(_)));
    let seq = beat.expect("a heartbeat").seq;
    assert_eq!(
        tell(&mut core, 2, cluster(), Order::LeaseGrant { lease: 9, for_seq: seq, ttl_ms: 20_000 }),
        [Effect::KeepLease]
    );
    assert_eq!(core.lease_until_ns(), 30 * S);
    assert!(tell(&mut core, 3, cluster(), Order::LeaseGrant { lease: 9, for_seq: seq + 1, ttl_ms: 20_000 }).is_empty());
    assert!(tell(&mut core, 4, cluster(), Order::Watchdog { on: true }).is_empty(), "there is none");
    core.know(Facts {
        watchdog: Watchdog { present: true, timeout_ms: 10_000, ..Watchdog::default() },
        ..Facts::default()
    });
    assert_eq!(tell(&mut core, 5, cluster(), Order::Watchdog { on: true }), [Effect::Arm(true)]);
    core.beat(Vitals { armed: true, fed: true, ..Vitals::default() });
    assert!(names(&mut core, at(11)).contains(&"hello"), "that it is armed is said before anybody relies on it");
}

#[test]
fn a_start_that_nobody_asked_about_ends_the_claim_that_permits_are_checked() {
    let mut core = core();
    core.connect();
    all(&mut core, at(1));
    core.see(started(7), at(5));
    core.gate().lock().expect("not poisoned").may_start(id(8), std::time::Instant::now()).expect_err("closed");
    core.see(started(8), at(20));
    core.see(event(9, Event::Lifecycle { event: Lifecycle::Started, detail: 4 }), at(20));
    assert!(!names(&mut core, at(20)).contains(&"hello"), "young, asked, woken up");
    core.see(started(8), at(21));
    let said = all(&mut core, at(21));
    assert!(matches!(&said[0].body, Body::Hello(hello) if !hello.permit_check));
    core.beat(Vitals::default());
    assert!(matches!(&all(&mut core, at(22))[0].body, Body::Heartbeat(beat) if beat.unasked_starts == 1));
}

#[test]
fn guests_that_libvirt_lost_are_named_and_three_of_them_are_a_sick_libvirt() {
    let mut core = core();
    core.connect();
    all(&mut core, at(1));
    let said = |core: &mut Core, seen: Vec<Seen>| {
        for seen in seen {
            core.see(seen, at(2));
        }
        core.beat(Vitals::default());
        let mut beats = all(core, at(2)).into_iter().filter_map(|said| match said.body {
            Body::Heartbeat(beat) => Some((beat.libvirt_ok, beat.unmanaged)),
            _ => None,
        });
        beats.next_back().expect("a heartbeat")
    };
    let lost = |n| event(n, Event::ControlError);
    let reached = || Seen::Reached { version: "10.0.0".to_owned(), hypervisor: "QEMU 8.2.0".to_owned() };
    assert_eq!(said(&mut core, vec![reached(), lost(7), lost(8), lost(8)]), (true, vec![id(7), id(8)]));
    assert_eq!(said(&mut core, vec![lost(9)]), (false, vec![id(7), id(8), id(9)]), "however fast it answers");
    assert_eq!(said(&mut core, vec![started(9)]), (true, vec![id(7), id(8)]), "another process");
    assert_eq!(
        said(&mut core, vec![Seen::Whole(2, vec![instance(8, DomainState::Running)])]),
        (true, vec![id(8)]),
        "gone"
    );
    assert_eq!(said(&mut core, vec![lost(7), lost(9), reached()]), (true, vec![]), "a libvirtd that started anew");
}

#[test]
fn it_says_goodbye_last() {
    let mut core = core();
    core.connect();
    core.leave(Goodbye::Reboot, 300);
    core.see(event(7, Event::Reboot), at(1));
    assert_eq!(names(&mut core, at(1)), ["hello", "heartbeat", "event", "goodbye"]);
}

/// Forty hosts in one process, each with its own numbers and its own word of what may run.
#[test]
fn many_agents_live_in_one_process() {
    let mut fleet: Vec<_> = simulated::fleet(40).collect();
    for (number, host) in fleet.iter_mut().enumerate() {
        host.guest(id(1_000 + number as u128), DomainState::Running);
        let said = host.connect();
        assert!(matches!(said[0].body, Body::Hello(_)));
        host.tell(Order::Welcome {
            incarnation: 1,
            quarantined: false,
            holds_compute: false,
            permits: vec![id(1_000 + number as u128)],
        });
        assert!(host.may_start(id(1_000 + number as u128)) && !host.may_start(id(2_000)));
    }
    let hosts: std::collections::BTreeSet<_> = fleet.iter().map(|host| host.identity().host).collect();
    let boots: std::collections::BTreeSet<_> = fleet.iter().map(|host| host.identity().boot).collect();
    assert_eq!((hosts.len(), boots.len()), (40, 40));
    let first = &mut fleet[0];
    let before = first.identity().boot;
    first.reboot();
    let said = first.connect();
    assert!(matches!(&said[0].body, Body::Hello(hello) if hello.previous == Some(before)));
    assert!(!first.may_start(id(1_000)), "closed after boot");
}

/// A guest that may run here is stopped by nobody, and what is being stopped does not begin meanwhile, whatever is permitted.
#[test]
fn guests_are_stopped_where_they_have_no_permit() {
    let mut core = core();
    core.connect();
    all(&mut core, at(1));
    tell(&mut core, 1, cluster(), welcome(&[7]));
    let (_, mark) = core.permits();
    core.kept(mark);
    let stop = |instances: &[u128]| Order::StopGuests { instances: instances.iter().copied().map(id).collect() };
    assert!(tell(&mut core, 2, id(666), stop(&[8])).is_empty(), "a stranger");
    assert!(tell(&mut core, 3, cluster(), stop(&[7, 8])).is_empty(), "one of them may run here");
    let begun = tell(&mut core, 4, cluster(), stop(&[8]));
    let [Effect::Stop(guests, mark)] = &begun[..] else { panic!("{begun:?}") };
    assert_eq!(guests.iter().copied().collect::<Vec<_>>(), [id(8)]);
    assert!(tell(&mut core, 5, cluster(), stop(&[9])).is_empty(), "one after the other");
    let gate = core.gate().clone();
    let may = |number| gate.lock().expect("not poisoned").may_start(id(number), std::time::Instant::now()).is_ok();
    let granted = Order::Permits { incarnation: 4, whole: false, granted: vec![id(8)], withdrawn: vec![] };
    tell(&mut core, 6, cluster(), granted);
    assert!(may(7) && !may(8), "its process is being ended");
    core.stopped(*mark, Err("it does not end".to_owned()));
    assert!(may(8));
    let results = all(&mut core, at(2)).into_iter().filter_map(|envelope| match envelope.body {
        Body::DirectiveResult { directive, refused } => Some((directive, refused)),
        _ => None,
    });
    let refused: Vec<_> = results.filter_map(|(directive, refused)| Some((directive, refused?))).collect();
    let numbers: Vec<_> = refused.iter().map(|(directive, _)| *directive).collect();
    assert_eq!(numbers, [2, 3, 5, 4]);
    assert!(refused[1].1.contains("is permitted here"), "{refused:?}");
    assert_eq!(refused[3].1, "it does not end");
}
