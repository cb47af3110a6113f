//! What a person may decide of an instance, and what not.

use expect_test::expect;

use super::bench::{Bench, host, life, op, vm};
use crate::ha::Refusal;
use crate::ha::case::{CaseId, Phase};
use crate::ha::order::{Change, Done, Ended, To, Verdict};
use crate::ha::recovery::{ATTEMPTS, Status, Stays, Waiting};

fn verdict(case: CaseId, v: u128, verdict: Verdict) -> Change {
    Change::Verdict { case, instance: vm(v), verdict }
}

#[test]
fn only_what_is_not_on_its_way_and_has_its_place_there_is_decided() {
    let mut bench = Bench::new();
    let case = bench.evacuating();
    bench.phase(1, Phase::Planning);
    let assignments = [3, 4].map(|v| Bench::assignment(v, To::Target(life(6))));
    bench.must(Change::CommitPlan { case, assignments: assignments.to_vec() });
    bench.phase(1, Phase::Evacuating);
    let retarget = |v, n| verdict(case, v, Verdict::Retarget(host(n)));
    assert_eq!(bench.order(retarget(1, 5)), Err(Refusal::Role { what: "Verdict".to_owned() }));
    bench.role = crate::ha::Role::Operator;
    let mut said = Vec::new();
    let mut refused = |bench: &mut Bench, change: Change| {
        let before = bench.ha().recoveries.clone();
        said.push(bench.order(change).expect_err("not allowed").to_string());
        assert!(bench.ha().recoveries.iter().eq(before.iter()), "a refusal changes nothing");
    };
    refused(&mut bench, retarget(1, 1));
    refused(&mut bench, retarget(1, 99));
    refused(&mut bench, retarget(9, 5));
    refused(&mut bench, retarget(1, 6));
    bench.must(retarget(1, 5));
    bench.must(retarget(2, 5));
    assert_eq!(bench.recovery(1).attempt.as_ref().map(|attempt| attempt.target), Some(life(5)));
    assert_eq!(bench.order(retarget(1, 5)), Ok(Done::Unchanged));
    bench.role = crate::ha::Role::Coordinator;
    bench.must(bench.attempt(1, 5, 50));
    bench.role = crate::ha::Role::Operator;
    refused(&mut bench, retarget(1, 6));
    bench.must(verdict(case, 2, Verdict::Skip));
    assert_eq!(bench.recovery(2).status, Status::Stays(Stays::Skipped));
    refused(&mut bench, retarget(2, 6));
    bench.must(verdict(case, 2, Verdict::Retry));
    assert!(bench.ha().recoveries.get(vm(2)).is_none(), "it is planned as if it was not before");
    bench.role = crate::ha::Role::Coordinator;
    bench.must(Change::AttemptEnd { instance: vm(1), number: 1, ended: Ended::Failed { migration: op(901) } });
    bench.role = crate::ha::Role::Operator;
    refused(&mut bench, verdict(case, 1, Verdict::Retry));
    expect![[r"
        host 00000000-0000-0000-0000-00000000a001 takes no instance: it is the source; plan again
        host 00000000-0000-0000-0000-00000000a063 is not known to failover: add it to the inventory first
        instance 00000000-0000-0000-0000-00000000b009 is not part of an open case
        host 00000000-0000-0000-0000-00000000a006 takes no instance: it has no room for the instance; plan again
        attempt 1 of instance 00000000-0000-0000-0000-00000000b001: it is alive: see what becomes of it
        attempt 1 of instance 00000000-0000-0000-0000-00000000b002: it stays: retry it first
        instance 00000000-0000-0000-0000-00000000b001 is permitted on host 00000000-0000-0000-0000-00000000a005 in incarnation 1, the order says on host 00000000-0000-0000-0000-00000000a001 in incarnation 1: it is left alone until a person has looked"]]
    .assert_eq(&said.join("\n"));
}

#[test]
fn a_retry_gives_as_many_attempts_again_and_their_numbers_go_on() {
    let mut bench = Bench::new();
    let case = bench.evacuating();
    let mut number = 0;
    let mut fail = |bench: &mut Bench, target: u128| {
        number += 1;
        bench.must(Change::CommitPlan { case, assignments: vec![Bench::assignment(1, To::Target(life(target)))] });
        bench.phase(1, Phase::Evacuating);
        let Change::AttemptIntent { case, instance, target, op: name, nova, .. } =
            bench.attempt(1, target, 50 + u128::from(number))
        else {
            unreachable!("an intent")
        };
        bench.must(Change::AttemptIntent { case, instance, number, target, op: name, nova });
        bench.must(Change::AttemptEnd { instance: vm(1), number, ended: Ended::Refused { forever: false } });
        bench.phase(1, Phase::Planning);
    };
    bench.phase(1, Phase::Planning);
    for target in 0..u128::from(ATTEMPTS) {
        fail(&mut bench, 3 + target);
    }
    bench.must(Change::CommitPlan { case, assignments: vec![Bench::assignment(1, To::Target(life(12)))] });
    assert_eq!(bench.recovery(1).status, Status::Stays(Stays::Refused), "as often as it may");
    bench.as_operator(verdict(case, 1, Verdict::Retry));
    assert_eq!(bench.recovery(1).status, Status::Waiting(Waiting::Replan));
    fail(&mut bench, 3);
    assert_eq!((bench.recovery(1).tried, bench.recovery(1).allowed), (ATTEMPTS + 1, 2 * ATTEMPTS));
}
