//! Ways through a case, and what must come out.

use expect_test::expect;

use super::bench::{Bench, RUNS, hello, host, life, op, twice, vm};
use crate::ha::Stop;
use crate::ha::breaker::{Count, Decision, Scope, ScopeName, Trips};
use crate::ha::case::{Cause, Phase};
use crate::ha::host::Detection;
use crate::ha::order::{Change, Clear, Done, Ended, PermitCause, To};
use crate::ha::proof::Token;
use crate::ha::recovery::{AttemptState, Recorded, Status, Stays, VmState, Waiting};
use crate::ha::reentry::Step;

#[test]
fn a_dead_host_is_recovered_and_comes_back() {
    let mut bench = Bench::new();
    let case = bench.evacuating();
    for (v, target) in [(1, 3), (2, 4)] {
        bench.must(bench.attempt(v, target, 50 + v));
        for state in [AttemptState::Called, AttemptState::Accepted(op(900 + v)), AttemptState::Running(op(900 + v))] {
            bench.must(Change::AttemptObserved { instance: vm(v), number: 1, state });
        }
        let ended = Ended::Succeeded { at: host(target), migration: op(900 + v) };
        bench.must(Change::AttemptEnd { instance: vm(v), number: 1, ended });
    }
    // Two more are permitted there: nothing is over before they are accounted for.
    let over = Change::CasePhase { case, from: Phase::Evacuating, to: Phase::Recovered };
    let refused = bench.order(over.clone()).expect_err("two are forgotten").to_string();
    expect!["case 00000000-0000-0000-0000-00000000a001/1/1 is in Evacuating, going to Recovered needs a plan for instance 00000000-0000-0000-0000-00000000b003"].assert_eq(&refused);
    bench.phase(1, Phase::Planning);
    let assignments =
        vec![Bench::assignment(3, To::Target(life(3))), Bench::assignment(4, To::Waiting(Waiting::Capacity))];
    let done = bench.must(Change::CommitPlan { case, assignments });
    // Host 3 has room for two of 2 CPUs each, and took one.
    assert_eq!(done, Done::Planned { planned: 1, waiting: 1, stays: 0 });
    let too_many = vec![Bench::assignment(4, To::Target(life(3)))];
    bench.must(Change::CommitPlan { case, assignments: too_many });
    assert_eq!(bench.recovery(4).status, Status::Waiting(Waiting::Capacity), "claims count");
    let assignments = vec![Bench::assignment(4, To::Target(life(5)))];
    bench.must(Change::CommitPlan { case, assignments });
    bench.phase(1, Phase::Evacuating);
    for (v, target) in [(3, 3), (4, 5)] {
        bench.must(bench.attempt(v, target, 60 + v));
        let ended = Ended::Succeeded { at: host(target), migration: op(900 + v) };
        bench.must(Change::AttemptEnd { instance: vm(v), number: 1, ended });
        assert_eq!(bench.ha().permits.get(vm(v)).map(|permit| permit.life), Some(life(target)));
    }
    assert_eq!(bench.order(over), Ok(Done::Changed));
    bench.phase(1, Phase::AwaitReturn);
    bench.must(Change::IncarnationOpen { host: host(1), hello: Box::new(hello(1, 1)) });
    assert!((bench.host(1).incarnation, bench.host(1).quarantined) == (3, true), "let in step by step");
    bench.phase(1, Phase::Returning);
    bench.must(bench.reenter(Step::StartNova));
    bench.now += 1_000;
    bench.must(bench.reenter(Step::Unforce));
    bench.must(Change::NovaMark { host: host(1), forced_down: false, disabled: true });
    assert!(bench.order(bench.reenter(Step::Enable)).is_err(), "it is watched for a minute");
    bench.now += 60_000;
    bench.must(bench.reenter(Step::Enable));
    bench.must(Change::NovaMark { host: host(1), forced_down: false, disabled: false });
    let closing = Change::CasePhase { case, from: Phase::Returning, to: Phase::Closed };
    assert!(bench.order(closing.clone()).is_err(), "it is quarantined");
    bench.must(bench.reenter(Step::Admit));
    bench.must(closing);
    assert!(bench.host(1).takes_instances() && bench.ha().cases.is_empty() && bench.ha().recoveries.is_empty());
    let steps: Vec<_> =
        bench.ha().closed().next().expect("remembered").steps.iter().map(|step| step.phase.as_str()).collect();
    expect!["Unreachable FencePending Fencing Fenced NovaDown Planning Evacuating Planning Evacuating Recovered AwaitReturn Returning Closed"].assert_eq(&steps.join(" "));
}

#[test]
fn a_failed_attempt_goes_elsewhere_once_its_target_is_clear_and_remembers_what_the_instance_was() {
    let stopped = Recorded { vm: VmState::Stopped, running: false, task: false };
    let run = |bench: &mut Bench| {
        let case = bench.planning(1);
        let plan = |to, recorded| {
            let mut assignment = Bench::assignment(1, to);
            assignment.recorded = recorded;
            Change::CommitPlan { case, assignments: vec![assignment] }
        };
        bench.must(plan(To::Target(life(3)), stopped));
        bench.phase(1, Phase::Evacuating);
        bench.must(bench.attempt(1, 3, 50));
        bench.must(Change::AttemptEnd { instance: vm(1), number: 1, ended: Ended::Failed { migration: op(901) } });
        bench.phase(1, Phase::Planning);
        // Not yet: its permit is still at the failed target.
        bench.must(plan(To::Target(life(4)), RUNS));
        assert_eq!(bench.recovery(1).status, Status::Waiting(Waiting::Replan));
        bench.now += 1_000;
        let clear = PermitCause::AttemptFailed(Clear::Absent { at: bench.now });
        bench.must(Change::PermitMove { instance: vm(1), from: Some(life(3)), to: life(1), cause: clear });
        bench.must(plan(To::Target(life(3)), RUNS));
        assert_eq!(bench.recovery(1).status, Status::Waiting(Waiting::Target), "it has failed there");
        bench.must(plan(To::Target(life(4)), RUNS));
        assert_eq!(bench.recovery(1).attempt.as_ref().map(|attempt| attempt.number), Some(2));
        bench.recovery(1).recorded
    };
    assert_eq!(run(&mut Bench::new()), stopped, "what was recorded first rules");
    assert_eq!(Stop::RecordedRules.without(|| run(&mut Bench::new())), RUNS);
}

#[test]
fn a_host_that_is_off_needs_no_fence_and_one_that_answers_is_cleared() {
    let mut bench = Bench::new();
    bench.suspect(1);
    bench.must(Change::CaseOpen { host: host(1), incarnation: 1, cause: Cause::PowerOff });
    bench.must(Change::DeathProof { host: host(1), incarnation: 1, evidence: twice(1) });
    assert_eq!((bench.case(1).phase, bench.host(1).incarnation), (Phase::Fenced, 2));
    // Unreachable, and seen again before anything was sent.
    bench.pending(2);
    bench.phase(2, Phase::Cleared);
    bench.detect(2, Detection::Unreachable, Detection::Alive);
    assert!(bench.ha().cases.get(host(2)).is_none() && bench.host(2).is_open());
    // Once an intent is in the log there is no way back without a person.
    let case = bench.pending(3);
    bench.must(bench.intent(3, 3));
    for to in [Phase::Cleared, Phase::Fenced, Phase::NovaDown] {
        assert!(bench.order(Change::CasePhase { case, from: Phase::Fencing, to }).is_err(), "{to}");
    }
    bench.phase(3, Phase::FenceFailed);
    assert!(bench.order(Change::CasePhase { case, from: Phase::FenceFailed, to: Phase::Cleared }).is_err());
    let abort = |bench: &Bench, phase| {
        let heard = Some(1_000);
        Change::CaseAbort { token: Token { case, phase, at: bench.now }, heard }
    };
    assert!(bench.order(abort(&bench, Phase::FenceFailed)).is_err(), "the coordinator may not");
    bench.as_operator(abort(&bench, Phase::FenceFailed));
    assert!(bench.host(3).must_reboot && !bench.host(3).takes_instances());
    assert_eq!(bench.host(3).belief.detection, Detection::Suspect, "watched anew");
    bench.must(Change::IncarnationOpen { host: host(3), hello: Box::new(hello(3, 1)) });
    assert!(!bench.host(3).must_reboot && bench.host(3).incarnation == 3);
}

#[test]
fn a_crash_and_reboot_is_a_proof_of_its_own_and_the_instances_stay() {
    let mut bench = Bench::new();
    bench.must(Change::IncarnationOpen { host: host(1), hello: Box::new(hello(1, 1)) });
    assert_eq!((bench.host(1).incarnation, bench.host(1).quarantined), (3, false));
    let to = crate::ha::recovery::Life { host: host(1), incarnation: 3 };
    bench.must(Change::PermitMove { instance: vm(1), from: Some(life(1)), to, cause: PermitCause::SameHostNewBoot });
    assert_eq!(bench.ha().permits.get(vm(1)).map(|permit| permit.life), Some(to));
    // Away from the living host goes only a migration.
    for (cause, passes) in [
        (PermitCause::Placed, false),
        (PermitCause::SameHostNewBoot, false),
        (PermitCause::AttemptFailed(Clear::Absent { at: 2_000 }), false),
        (PermitCause::Migrated(op(7)), true),
    ] {
        let moved = bench.order(Change::PermitMove { instance: vm(1), from: Some(to), to: life(3), cause });
        assert_eq!(moved.is_ok(), passes, "{cause:?}: {moved:?}");
    }
}

#[test]
fn a_breaker_stops_fencing_but_not_the_recovery_of_what_is_proven_dead() {
    let mut bench = Bench::new();
    bench.pending(1);
    bench.suspect(2);
    bench.suspect(3);
    let refused = bench.order(bench.intent(1, 1)).expect_err("three of twelve").to_string();
    expect!["the breaker of cluster block stops it: 3 of 12 hosts unavailable, reasons 0b1; an operator may answer with `pallium ctl ha answer`"].assert_eq(&refused);
    let scope = || ScopeName::Cluster("block".to_owned());
    bench.must(Change::BreakerSet { scope: scope(), seen: Trips::default() });
    bench.must(Change::DeathProof { host: host(1), incarnation: 1, evidence: twice(1) });
    bench.phase(1, Phase::NovaDown);
    // An operator lets one go on, and that one only.
    for n in [2, 3] {
        bench.now += 15_000;
        bench.detect(n, Detection::Suspect, Detection::Unreachable);
        bench.must(Change::CaseOpen { host: host(n), incarnation: 1, cause: Cause::Unreachable });
        bench.phase(n, Phase::FencePending);
    }
    let until = bench.now + 600_000;
    bench.as_operator(Change::BreakerAck { scope: scope(), decision: Decision::Proceed(vec![host(2)]), until });
    assert!(bench.order(bench.intent(3, 3)).is_err());
    assert_eq!(bench.order(bench.intent(2, 2)), Ok(Done::Changed));
    // It never closes by time alone.
    bench.now += 24 * 3_600_000;
    bench.must(Change::BreakerSet { scope: scope(), seen: Trips::default() });
    assert!(!bench.ha().small.breakers.is_empty());
}

#[test]
fn a_death_counts_for_five_minutes_however_soon_it_is_recovered_and_a_boot_is_none() {
    let mut bench = Bench::new();
    bench.pending(1);
    bench.must(Change::DeathProof { host: host(1), incarnation: 1, evidence: twice(1) });
    let died = bench.host(1).proofs[0].at;
    bench.must(Change::IncarnationOpen { host: host(2), hello: Box::new(hello(2, 1)) });
    bench.tamper(|ha| ha.close(host(1)));
    let lost = |bench: &Bench, now| bench.ha().count(Scope::Region, now).unavailable;
    assert_eq!([lost(&bench, died), lost(&bench, died + 299_999), lost(&bench, died + 300_000)], [1, 1, 0]);
    // The same of a boot that ended a case; what it is called in the case of a boot is no death.
    bench.pending(3);
    bench.must(Change::IncarnationOpen { host: host(3), hello: Box::new(hello(3, 1)) });
    bench.phase(3, Phase::AwaitReturn);
    let later = died + 300_000;
    assert_eq!(lost(&bench, later), 1);
}

#[test]
fn after_a_restore_nothing_acts_until_an_operator_has_looked() {
    let mut bench = Bench::new();
    let case = bench.evacuating();
    bench.must(bench.attempt(1, 3, 50));
    bench.restore();
    assert_eq!(bench.core.check(), Vec::<String>::new());
    for change in [bench.attempt(2, 4, 51), Change::CasePhase { case, from: Phase::Evacuating, to: Phase::Planning }] {
        assert_eq!(bench.order(change), Err(crate::ha::Refusal::Restored));
    }
    bench.role = crate::ha::Role::Operator;
    let refused = bench.order(Change::Release).expect_err("an attempt is open").to_string();
    assert!(refused.contains("it is open since before the restore"), "{refused}");
    let ended = Ended::Succeeded { at: host(3), migration: op(901) };
    bench.must(Change::AttemptEnd { instance: vm(1), number: 1, ended });
    bench.must(Change::Release);
    assert!(bench.ha().cases.is_empty(), "what the old cluster began authorises nothing");
    assert_eq!(bench.ha().permits.get(vm(1)).map(|permit| permit.life), Some(life(3)));
}

#[test]
fn what_stops_recovery_is_over_although_the_hosts_that_wait_for_it_count() {
    let mut bench = Bench::new();
    let look = |bench: &mut Bench, seen| bench.must(Change::BreakerSet { scope: ScopeName::Region, seen });
    let trips = |bench: &Bench| bench.ha().small.breakers.get(&Scope::Region).map(|breaker| breaker.trips);
    // One below the threshold: too many to call it quiet.
    (1..=5).for_each(|n| bench.suspect(n));
    look(&mut bench, Trips::CONTROL);
    look(&mut bench, Trips::default());
    assert_eq!(trips(&bench), Some(Trips::CONTROL), "it cools down");
    bench.now += 120_000;
    look(&mut bench, Trips::default());
    assert_eq!(trips(&bench), None);
    // What was counted stays, and takes nothing of the other with it.
    bench.suspect(6);
    look(&mut bench, Trips::CONTROL);
    bench.detect(6, Detection::Suspect, Detection::Alive);
    bench.now += 120_000;
    look(&mut bench, Trips::default());
    assert_eq!(trips(&bench), Some(Trips::COUNT));
}

#[test]
fn a_zone_that_most_of_is_away_is_stopped_and_so_is_one_that_nobody_is_heard_of() {
    let az = Scope::Az(crate::names::Sym::of(0));
    assert_eq!([5, 6, 7, 40, 50].map(|hosts| az.threshold(hosts)), [3, 4, 4, 4, 5]);
    let full = |hosts, unavailable, ready| az.trips(Count { hosts, unavailable, ready });
    assert_eq!([full(1, 1, 0), full(1, 0, 0), full(9, 1, 0)], [Trips::FULL, Trips::default(), Trips::FULL]);
    assert_eq!(Scope::Region.trips(Count { hosts: 1, unavailable: 1, ready: 0 }), Trips::default());
}

#[test]
fn a_host_that_could_not_be_fenced_is_so_since_its_first_read_that_failed_and_not_protected_after_an_hour() {
    let mut bench = Bench::new();
    let path = |why: Option<&str>, age| Change::FencePath { host: host(1), why: why.map(str::to_owned), age };
    let failed = bench.now;
    bench.now += 900_000;
    bench.must(path(Some("no answer"), 900_000));
    bench.now += 600_000;
    assert_eq!(bench.must(path(Some("no answer"), 1_500_000)), Done::Unchanged);
    bench.must(path(Some("refuses user"), 1_500_000));
    let unfenced = bench.host(1).unfenced().cloned().expect("it could not");
    assert!(unfenced.why == "refuses user" && unfenced.since.abs_diff(failed) <= 1_000, "{unfenced:?}");
    let since = unfenced.since;
    assert_eq!([3_599_999, 3_600_000].map(|age| unfenced.is_unprotected(since + age)), [false, true]);
    assert!(bench.order(path(Some(&"x".repeat(600)), 0)).is_err());
    bench.must(path(None, 0));
    assert_eq!(bench.host(1).unfenced(), None);
}

#[test]
fn a_permit_follows_to_a_dead_host_once_its_former_one_is_without_it_and_the_case_goes_on() {
    let mut bench = Bench::new();
    let case = bench.planning(1);
    let (died, v) = (bench.host(1).proofs[0].at, 50);
    bench.must(Change::PermitMove { instance: vm(v), from: None, to: life(3), cause: PermitCause::Placed });
    // Nova lists it on the dead host; it is not touched while its place is elsewhere.
    let stays = |n| Bench::assignment(n, To::Stays(Stays::LocalDisk));
    let assignments = (1..=4).map(stays).chain([Bench::assignment(v, To::Waiting(Waiting::Replan))]).collect();
    bench.must(Change::CommitPlan { case, assignments });
    assert_eq!(bench.recovery(v).status, Status::Stays(Stays::PermitConflict));
    bench.phase(1, Phase::PartiallyRecovered);
    bench.phase(1, Phase::AwaitReturn);
    bench.now += 60_000;
    let follow = |read, at| Change::PermitMove {
        instance: vm(v),
        from: Some(life(3)),
        to: life(1),
        cause: PermitCause::Followed { read, at },
    };
    for (read, at, what) in [
        (died - 2_000, died, "a list from before the proof"),
        (died + 9_000, died + 9_000, "a list from before Nova's answer"),
        (died + 9_000, died + 3_600_000, "a list that is not made yet"),
    ] {
        assert!(bench.order(follow(read, at)).is_err(), "{what}");
    }
    bench.must(follow(died + 9_000, died + 12_000));
    assert_eq!((bench.recovery(v).status, bench.case(1).phase), (Status::Waiting(Waiting::Replan), Phase::NovaDown));
    bench.phase(1, Phase::Planning);
    let done = bench
        .must(Change::CommitPlan { case, assignments: vec![Bench::assignment(v, To::Waiting(Waiting::Capacity))] });
    assert_eq!(done, Done::Planned { planned: 0, waiting: 1, stays: 0 });
    // Of a host that lives, or that is on its way in, nothing follows.
    let to_the_living = Change::PermitMove {
        instance: vm(2),
        from: Some(life(1)),
        to: life(3),
        cause: PermitCause::Followed { read: died + 9_000, at: died + 12_000 },
    };
    assert!(bench.order(to_the_living).is_err());
    let mut bench = Bench::new();
    bench.returning();
    bench.must(Change::PermitMove { instance: vm(v), from: None, to: life(3), cause: PermitCause::Placed });
    let at = bench.now;
    assert!(bench.order(follow(at - 1, at)).is_err(), "it returns");
}
