//! Guests that were on several hosts that died.

use super::bench::{Bench, RUNS, host, life, nova, op, vm};
use crate::ha::case::Phase;
use crate::ha::order::{Change, Done, PermitCause, To};
use crate::ha::poison::{Deaths, MOST, WINDOW};
use crate::ha::recovery::{Life, Recorded, Status, Stays, VmState, Waiting};
use crate::ha::trouble::{AGAIN, Kind, TROUBLES};

/// Host 1 is to be planned; hosts 8 and 9 died under instance 1 that long before.
fn planned(ago: u64, recorded: Recorded) -> Bench {
    let mut bench = Bench::new();
    bench.now += 2 * WINDOW;
    let case = bench.planning(1);
    let at = bench.now;
    let hosts = vec![(host(8), at - ago), (host(9), at - ago + 1)];
    bench.tamper(|ha| ha.deaths.put(Deaths { hosts, ..Deaths::none(vm(1)) }));
    let assignment = |v| crate::ha::order::Assignment { recorded, ..Bench::assignment(v, To::Target(life(2 + v))) };
    bench.must(Change::CommitPlan { case, assignments: vec![assignment(1), assignment(2)] });
    bench
}

#[test]
fn the_third_host_that_died_within_an_hour_is_the_last() {
    let poison = Status::Stays(Stays::PoisonGuest);
    let stopped = Recorded { vm: VmState::Stopped, running: false, task: false };
    let cases = [
        (WINDOW / 2, RUNS, poison),
        // Long ago; and it cannot have been its doing.
        (WINDOW, RUNS, Status::Planned),
        (WINDOW / 2, stopped, Status::Planned),
    ];
    for (ago, recorded, status) in cases {
        let bench = planned(ago, recorded);
        assert_eq!(
            (bench.recovery(1).status, bench.recovery(2).status),
            (status, Status::Planned),
            "{ago} {recorded:?}"
        );
    }
}

#[test]
fn one_in_quarantine_is_started_nowhere_until_a_person_lets_it_go() {
    let mut bench = planned(WINDOW / 2, RUNS);
    bench.now += 10 * WINDOW;
    // Planned again, it stays; nor is it started where it was.
    let case = bench.id(1);
    bench.must(Change::CommitPlan { case, assignments: vec![Bench::assignment(1, To::Target(life(3)))] });
    assert_eq!(bench.recovery(1).status, Status::Stays(Stays::PoisonGuest));
    assert!(bench.order(Change::GuestQuarantineEnd(vm(1))).is_err(), "the coordinator may not");
    bench.as_operator(Change::GuestQuarantineEnd(vm(1)));
    assert_eq!(bench.recovery(1).status, Status::Waiting(Waiting::Replan));
    bench.must(Change::CommitPlan { case, assignments: vec![Bench::assignment(1, To::Target(life(3)))] });
    assert_eq!(bench.recovery(1).status, Status::Planned, "what was counted is forgotten");
}

#[test]
fn nor_where_its_host_is_back() {
    let mut bench = planned(WINDOW / 2, RUNS);
    let case = bench.id(1);
    bench.tamper(|ha| drop(ha.recoveries.remove(vm(2))));
    let stays = (2..=4).map(|v| Bench::assignment(v, To::Stays(Stays::LocalDisk))).collect();
    bench.must(Change::CommitPlan { case, assignments: stays });
    bench.phase(1, Phase::PartiallyRecovered);
    bench.phase(1, Phase::AwaitReturn);
    bench.must(Change::IncarnationOpen { host: host(1), hello: Box::new(super::bench::hello(1, 1)) });
    bench.phase(1, Phase::Returning);
    let here = Life { host: host(1), incarnation: bench.host(1).incarnation };
    let restart =
        |v| Change::RestartIntent { instance: vm(v), life: here, op: op(60 + v), to: None, nova: Box::new(nova(1)) };
    assert!(bench.order(restart(1)).is_err_and(|why| why.to_string().contains("let it go")));
    bench.must(restart(2));
    let again = PermitCause::SameHostNewBoot;
    bench.must(Change::PermitMove { instance: vm(1), from: Some(life(1)), to: here, cause: again });
    assert_eq!(bench.recovery(1).status, Status::Stays(Stays::PoisonGuest), "its place is there, and it does not run");
    assert!(bench.order(restart(1)).is_err());
    bench.as_operator(Change::GuestQuarantineEnd(vm(1)));
    bench.must(restart(1));
}

#[test]
fn a_host_that_died_twice_counts_once_and_a_boot_counts_too() {
    let mut bench = Bench::new();
    for nth in 1..=MOST as u128 + 1 {
        bench.must(Change::IncarnationOpen { host: host(1), hello: Box::new(super::bench::hello(1, nth)) });
        let here = Life { host: host(1), incarnation: bench.host(1).incarnation };
        let nova = Box::new(nova(1));
        bench.must(Change::RestartIntent { instance: vm(1), life: here, op: op(80 + nth), to: None, nova });
        bench.must(Change::RestartOutcome { instance: vm(1), op: op(80 + nth), well: true });
        bench.now += 1_000;
    }
    let hosts = bench.ha().deaths.get(vm(1)).map(|deaths| deaths.hosts.len());
    assert_eq!((hosts, bench.ha().is_poison(vm(1))), (Some(1), false));
    assert!(bench.ha().deaths.get(vm(2)).is_none(), "what was not started is not counted");
}

#[test]
fn of_a_failed_post_copy_neither_half_is_started() {
    let mut bench = Bench::new();
    bench.evacuating();
    let split = |n| Change::GuestTrouble { instance: vm(1), life: life(n), kind: Kind::PostcopyFailed };
    assert!(bench.order(split(1)).is_err(), "of a life that is over nobody can say so");
    let plan = bench.attempt(1, 3, 50);
    bench.must(split(2));
    assert_eq!(bench.recovery(1).status, Status::Stays(Stays::PostcopySplit));
    assert!(bench.order(plan).is_err());
    bench.must(bench.attempt(2, 4, 51));
    assert_eq!(bench.must(split(2)), Done::Unchanged, "told again and again");
    bench.now += AGAIN;
    bench.must(split(2));
    assert_eq!((bench.ha().small.troubled, bench.ha().small.troubles.len()), ([0, 2, 0], 2));
    // Of a host that lives it is not started either.
    bench.must(Change::GuestTrouble { instance: vm(5), life: life(2), kind: Kind::PostcopyFailed });
    let nova = Box::new(nova(2));
    let restart = Change::RestartIntent { instance: vm(5), life: life(2), op: op(60), to: None, nova };
    assert!(bench.order(restart.clone()).is_err());
    bench.as_operator(Change::GuestQuarantineEnd(vm(5)));
    bench.must(restart);
    for n in 0..TROUBLES as u64 {
        bench.now += AGAIN + n;
        bench.must(Change::GuestTrouble { instance: vm(5), life: life(2), kind: Kind::Unmanaged });
    }
    assert_eq!((bench.ha().small.troubles.len(), bench.ha().small.troubled[2]), (TROUBLES, TROUBLES as u64));
}
