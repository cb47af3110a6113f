//! What is kept for people, and how much of it.

use super::bench::{BOTH, Bench, host};
use crate::ha::case::{Act, Phase};
use crate::ha::host::Detection;
use crate::ha::note::{FIRST, NOTES, ORDERS, SEEN, What};
use crate::ha::order::{Change, Role};

#[test]
fn a_case_tells_what_was_seen_and_who_ordered_what_and_forgets_what_is_too_much() {
    let mut bench = Bench::new();
    let case = bench.pending(1);
    let seen: Vec<_> = bench.case(1).notes.iter().map(|note| (note.what.clone(), note.by, note.at)).collect();
    let [(What::Seen(first), by, at), (What::Seen(second), ..)] = &seen[..] else {
        panic!("a suspicion and a certainty: {seen:?}")
    };
    assert_eq!((first.detection, second.detection), (Detection::Suspect, Detection::Unreachable));
    assert!(second.groups == BOTH && second.age >= 15_000 && first.at < second.at, "{second:?}");
    assert_eq!((*by, *at), (bench.leader, first.at), "as it was when it was seen");

    let until = bench.now + 60_000;
    bench.as_operator(Change::Exempt { host: host(1), until });
    let note = bench.case(1).notes.last().expect("noted").clone();
    let who = note.who.expect("a person");
    assert_eq!((who.until, note.what), (until, What::Ordered("keeps it from being fenced".to_owned())));
    assert!(!who.name.is_empty() && !who.reason.is_empty());
    // What the coordinator does is nobody's order.
    let orders = bench.ha().small.orders.len();
    bench.must(Change::CaseHold { case, act: Act::Kill, reason: Some("a voter".to_owned()) });
    assert_eq!(bench.ha().small.orders.len(), orders);
    assert!(bench.case(1).notes.last().is_some_and(|note| note.who.is_none()));

    for nth in 0..200_u64 {
        let reason = (nth % 2 == 0).then(|| format!("cause {nth}"));
        bench.must(Change::NeedsOperator { case, reason });
        bench.as_operator(Change::Pause { act: Act::Kill, until: bench.now + nth });
    }
    let notes = &bench.case(1).notes;
    assert!(notes.len() == NOTES && notes.iter().take(FIRST).any(|note| note.what == What::Seen(*second)));
    assert_eq!(notes.last().expect("noted").what, What::Asked(None));
    let orders = &bench.ha().small.orders;
    assert!(orders.len() == ORDERS && orders[ORDERS - 1].what == "pauses kill" && orders[0].host.is_none());
}

#[test]
fn a_doubt_that_was_wrong_is_counted_and_a_case_that_is_taken_back_keeps_who_did() {
    let mut bench = Bench::new();
    for nth in 1..=SEEN as u64 {
        bench.suspect(1);
        bench.detect(1, Detection::Suspect, Detection::Alive);
        assert_eq!(bench.ha().small.false_suspicions, nth);
    }
    assert_eq!(bench.host(1).seen.len(), SEEN);
    let case = bench.pending(1);
    assert_eq!(bench.case(1).notes.len(), 2, "what came before it was alive is no part of it");
    bench.must(bench.intent(1, 50));
    bench.phase(1, Phase::FenceFailed);
    bench.role = Role::Operator;
    let token = crate::ha::proof::Token { case, phase: Phase::FenceFailed, at: bench.now };
    bench.must(Change::CaseAbort { token, heard: Some(0) });
    let closed = bench.ha().closed().next().expect("remembered");
    let orders: Vec<_> = closed.notes.iter().filter(|note| note.who.is_some()).collect();
    assert_eq!(orders.len(), 1, "once: {orders:?}");
}
