//! Each stop refuses something that nothing else refuses: with the stop taken out it passes.

use std::collections::{BTreeMap, BTreeSet};

use super::bench::{BOTH, Bench, boot, hello, host, life, machine, nova, off, op, spec, vm};
use crate::ha::Stop;
use crate::ha::case::{Act, Cause, Phase};
use crate::ha::drain;
use crate::ha::host::{Detection, Maintenance, Watchdog};
use crate::ha::mark::Mark;
use crate::ha::order::{Change, Clear, Done, Ended, Groups, Leader, NovaRead, PermitCause, Role, Voter};
use crate::ha::policy::{FailoverPolicy, Mode, Policy, Rules, Selector};
use crate::ha::proof::{Evidence, Lease, LeaseMode, Power, PowerRead, Token};
use crate::ha::recovery::{AttemptState, Life, Permit};
use crate::ha::reentry::Step;

/// A stop, and the way to an order that only it refuses.
type Row = (Stop, fn(&mut Bench) -> Change);

/// An intent for instance 1, with something wrong in what Nova said.
fn with_nova(bench: &mut Bench, wrong: fn(&mut NovaRead)) -> Change {
    bench.evacuating();
    let mut change = bench.attempt(1, 3, 50);
    if let Change::AttemptIntent { nova, .. } = &mut change {
        wrong(nova);
    }
    change
}

/// Host 1 is emptied, host 2 waits, both with members of one group that declare a minimum or do not.
fn both_of_a_group(bench: &mut Bench, first: bool, second: bool) {
    let policy = Policy { drains: 2, ..bench.ha().small.policy };
    bench.as_operator(Change::Policy(policy));
    for (n, declares) in [(1, first), (2, second)] {
        bench.as_operator(Change::DrainOpen { host: host(n), incarnation: 1, mode: Maintenance::Auto });
        let groups = BTreeMap::from([(op(60), declares), (op(60 + n), true)]);
        bench.must(Change::DrainStep { host: host(n), step: Box::new(drain::Step::Groups(groups)) });
    }
    bench.must(Change::DrainStep { host: host(1), step: Box::new(drain::Step::Begin) });
}

/// A proof of host 1 by two reads, with something wrong in the second.
fn with_reads(bench: &mut Bench, wrong: fn(&mut PowerRead)) -> Change {
    bench.pending(1);
    let mut reads = Box::new([off(1, 0), off(1, 2_000)]);
    wrong(&mut reads[1]);
    Change::DeathProof { host: host(1), incarnation: 1, evidence: Evidence::PowerOff(reads) }
}

/// An operator confirms the death of host 1.
fn confirmed(bench: &mut Bench, wrong: fn(&mut Bench, &mut Token), youngest: Option<u64>) -> Change {
    let case = bench.pending(1);
    bench.role = Role::Operator;
    let mut token = Token { case, phase: Phase::FencePending, at: bench.now };
    wrong(bench, &mut token);
    let evidence = Evidence::Operator { token, youngest };
    Change::DeathProof { host: host(1), incarnation: 1, evidence }
}

fn lease(bench: &mut Bench, watchdog: Watchdog, granted: u64) -> Change {
    let voter = |node| Voter { node, host: None, chassis: "control".to_owned(), power: "control".to_owned() };
    bench.must(Change::Voters((1..=3).map(voter).collect()));
    bench.as_operator(Change::LeaseEpoch(Lease { mode: LeaseMode::Strict, ..Lease::default() }));
    bench.must(Change::Watchdog { host: host(1), incarnation: 1, watchdog });
    bench.pending(1);
    let evidence = Evidence::Lease { granted: Some(granted), leader: 100_000 };
    Change::DeathProof { host: host(1), incarnation: 1, evidence }
}

/// No more than a dry run for one host.
fn only_dry(host: &str) -> FailoverPolicy {
    FailoverPolicy {
        name: "trial".to_owned(),
        selector: Selector { hosts: vec![host.to_owned()], ..Selector::default() },
        rules: Rules { mode: Some(Mode::DryRun), ..Rules::default() },
    }
}

const SOUND: Watchdog =
    Watchdog { armed: true, hardware: true, nowayout: true, virtual_host: false, suspends: false, timeout: 9_000 };

const ROWS: &[Row] = &[
    (Stop::PermitExact, |bench| {
        bench.evacuating();
        bench.tamper(|ha| ha.permits.put(Permit { instance: vm(1), life: life(5) }));
        bench.attempt(1, 3, 50)
    }),
    (Stop::ProofBeforeStart, |bench| {
        bench.evacuating();
        bench.tamper(|ha| ha.host_mut(host(1)).expect("known").proofs.clear());
        bench.attempt(1, 3, 50)
    }),
    (Stop::Epoch, |bench| {
        bench.restore();
        bench.epoch -= 1;
        Change::Maintenance { host: host(1), mode: Maintenance::Manual }
    }),
    // The same of a host that has not said Hello since.
    (Stop::Epoch, |bench| {
        bench.restore();
        Change::DetectionSet {
            host: host(1),
            incarnation: 1,
            from: Detection::Alive,
            to: Detection::Suspect,
            groups: BOTH,
            age: 9_000,
        }
    }),
    (Stop::PausedAfterRestore, |bench| {
        bench.restore();
        bench.must(Change::IncarnationOpen { host: host(1), hello: Box::new(hello(1, 0)) });
        bench.suspect(1);
        Change::CaseOpen { host: host(1), incarnation: 1, cause: Cause::PowerOff }
    }),
    (Stop::Marked, |bench| {
        bench.evacuating();
        bench.must(Change::Mark(Mark::Foreign(op(99))));
        bench.attempt(1, 3, 50)
    }),
    // What the leader before it has read is not its own.
    (Stop::Marked, |bench| {
        bench.evacuating();
        bench.leader.term += 1;
        bench.attempt(1, 3, 50)
    }),
    (Stop::LeaderExact, |bench| {
        bench.leader = Leader { term: 2, node: 1 };
        Change::Maintenance { host: host(1), mode: Maintenance::Manual }
    }),
    (Stop::SameTarget, |bench| {
        bench.evacuating();
        bench.must(bench.attempt(1, 3, 50));
        bench.must(Change::AttemptObserved { instance: vm(1), number: 1, state: AttemptState::Ambiguous });
        bench.attempt(1, 5, 51)
    }),
    (Stop::SameTarget, |bench| {
        bench.evacuating();
        bench.must(bench.attempt(1, 3, 50));
        bench.must(Change::AttemptObserved { instance: vm(1), number: 1, state: AttemptState::Ambiguous });
        Change::AttemptEnd { instance: vm(1), number: 1, ended: Ended::Refused { forever: false } }
    }),
    (Stop::Sentinel, |bench| with_nova(bench, |nova| nova.sentinel = false)),
    (Stop::Sentinel, |bench| {
        bench.evacuating();
        bench.must(bench.attempt(1, 3, 50));
        Change::AttemptEnd { instance: vm(1), number: 1, ended: Ended::Vanished { sentinel: false } }
    }),
    (Stop::NothingMoving, |bench| with_nova(bench, |nova| nova.moving = true)),
    // A call that timed out was taken after all: its migration is there.
    (Stop::NothingMoving, |bench| {
        bench.evacuating();
        bench.must(bench.attempt(1, 3, 50));
        bench.must(Change::AttemptObserved { instance: vm(1), number: 1, state: AttemptState::Ambiguous });
        let mut change = bench.attempt(1, 3, 51);
        if let Change::AttemptIntent { nova, .. } = &mut change {
            nova.migrations.push(op(901));
        }
        change
    }),
    (Stop::Paused, |bench| {
        bench.pending(1);
        bench.as_operator(Change::Pause { act: Act::Kill, until: bench.now + 60_000 });
        bench.intent(1, 1)
    }),
    (Stop::Paused, |bench| {
        bench.evacuating();
        bench.as_operator(Change::Pause { act: Act::Recover, until: bench.now + 60_000 });
        bench.attempt(1, 3, 50)
    }),
    (Stop::PermitCheck, |_| {
        let spec = crate::ha::HostSpec { permit_check: false, ..spec(13) };
        Change::HostUpsert(Box::new(spec))
    }),
    (Stop::PermitCheck, |_| {
        let hello = crate::ha::host::Hello { permit_check: false, ..hello(1, 1) };
        Change::IncarnationOpen { host: host(1), hello: Box::new(hello) }
    }),
    (Stop::DestinationClear, |bench| with_nova(bench, |nova| nova.destination = Some((host(6), None)))),
    // What was seen of it in front of the proof says nothing.
    (Stop::DestinationClear, |bench| {
        with_nova(bench, |nova| nova.destination = Some((host(6), Some(Clear::Absent { at: 2_000 }))))
    }),
    (Stop::TaskState, |bench| with_nova(bench, |nova| nova.now.task = true)),
    (Stop::SameMachine, |_| {
        let hello = crate::ha::host::Hello { machine: machine(2), ..hello(1, 1) };
        Change::IncarnationOpen { host: host(1), hello: Box::new(hello) }
    }),
    // A clone of the machine: its disk does not remember the last boot.
    (Stop::SameMachine, |_| {
        let hello = crate::ha::host::Hello { previous: Some(boot(1, 7)), ..hello(1, 1) };
        Change::IncarnationOpen { host: host(1), hello: Box::new(hello) }
    }),
    (Stop::BootOnce, |bench| {
        bench.fenced(1);
        let hello = crate::ha::host::Hello { previous: Some(boot(1, 0)), ..hello(1, 0) };
        Change::IncarnationOpen { host: host(1), hello: Box::new(hello) }
    }),
    (Stop::TokenMatches, |bench| confirmed(bench, |_, token| token.phase = Phase::Unreachable, None)),
    (Stop::TokenMatches, |bench| confirmed(bench, |_, token| token.case.seq = 7, None)),
    (Stop::TokenYoung, |bench| confirmed(bench, |bench, _| bench.now += 300_001, None)),
    (Stop::NoSignOfLife, |bench| confirmed(bench, |_, _| (), Some(5_999))),
    (Stop::BmcIdentity, |bench| with_reads(bench, |read| read.machine = machine(2))),
    (Stop::OffExactly, |bench| with_reads(bench, |read| read.power = Power::PoweringOff)),
    (Stop::OffTwice, |bench| with_reads(bench, |read| read.at = 1_999)),
    (Stop::KnownOp, |bench| {
        bench.pending(1);
        let evidence = Evidence::FencedOff { op: op(7), reads: Box::new([off(1, 0), off(1, 2_000)]) };
        Change::DeathProof { host: host(1), incarnation: 1, evidence }
    }),
    (Stop::WatchdogSound, |bench| lease(bench, Watchdog { hardware: false, ..SOUND }, 60_000)),
    (Stop::WatchdogSound, |bench| lease(bench, Watchdog { virtual_host: true, ..SOUND }, 60_000)),
    (Stop::WatchdogSound, |bench| lease(bench, Watchdog { suspends: true, ..SOUND }, 60_000)),
    (Stop::WatchdogSound, |bench| lease(bench, Watchdog { nowayout: false, ..SOUND }, 60_000)),
    (Stop::LeaseOver, |bench| lease(bench, SOUND, 34_999)),
    // A grant older than this leader is another's: the later ones are not known.
    (Stop::LeaseOver, |bench| {
        let mut change = lease(bench, SOUND, 60_000);
        if let Change::DeathProof { evidence, .. } = &mut change {
            *evidence = Evidence::Lease { granted: None, leader: 43_999 };
        }
        change
    }),
    (Stop::BreakerCounted, |bench| {
        bench.pending(1);
        bench.suspect(2);
        bench.suspect(3);
        bench.intent(1, 1)
    }),
    (Stop::BreakerOpen, |bench| {
        bench.pending(1);
        bench.suspect(2);
        bench.suspect(3);
        let scope = crate::ha::breaker::ScopeName::Cluster("block".to_owned());
        bench.must(Change::BreakerSet { scope, seen: crate::ha::breaker::Trips::default() });
        bench.detect(2, Detection::Suspect, Detection::Alive);
        bench.detect(3, Detection::Suspect, Detection::Alive);
        bench.intent(1, 1)
    }),
    (Stop::BreakerOpen, |bench| {
        bench.evacuating();
        let scope = crate::ha::breaker::ScopeName::Az("a".to_owned());
        bench.must(Change::BreakerSet { scope, seen: crate::ha::breaker::Trips::CONTROL });
        bench.attempt(1, 3, 50)
    }),
    (Stop::OwnWatch, |bench| {
        bench.pending(1);
        bench.leader.term += 1;
        bench.must(Change::Mark(Mark::Ours));
        bench.intent(1, 1)
    }),
    (Stop::Confirmed, |bench| {
        bench.suspect(1);
        bench.now += 14_999;
        Change::DetectionSet {
            host: host(1),
            incarnation: 1,
            from: Detection::Suspect,
            to: Detection::Unreachable,
            groups: BOTH,
            age: 25_000,
        }
    }),
    // Watched for long, but by another leader.
    (Stop::Confirmed, |bench| {
        bench.suspect(1);
        bench.now += 60_000;
        bench.leader.term += 1;
        Change::DetectionSet {
            host: host(1),
            incarnation: 1,
            from: Detection::Suspect,
            to: Detection::Unreachable,
            groups: BOTH,
            age: 60_000,
        }
    }),
    (Stop::Confirmed, |_| Change::DetectionSet {
        host: host(1),
        incarnation: 1,
        from: Detection::Alive,
        to: Detection::Suspect,
        groups: BOTH,
        age: 5_999,
    }),
    (Stop::TwoGroups, |bench| {
        bench.suspect(1);
        bench.now += 15_000;
        Change::DetectionSet {
            host: host(1),
            incarnation: 1,
            from: Detection::Suspect,
            to: Detection::Unreachable,
            groups: Groups::MANAGEMENT,
            age: 25_000,
        }
    }),
    (Stop::LifeMatches, |bench| {
        bench.pending(1);
        let evidence = super::bench::twice(1);
        Change::DeathProof { host: host(1), incarnation: 2, evidence }
    }),
    (Stop::FenceIdentity, |bench| {
        bench.pending(1);
        let mut change = bench.intent(1, 1);
        if let Change::FenceIntent { machine: read, .. } = &mut change {
            *read = machine(2);
        }
        change
    }),
    (Stop::NotManual, |bench| {
        bench.pending(1);
        bench.must(Change::Maintenance { host: host(1), mode: Maintenance::Manual });
        bench.intent(1, 1)
    }),
    (Stop::NotExempt, |bench| {
        bench.pending(1);
        bench.as_operator(Change::Exempt { host: host(1), until: bench.now + 60_000 });
        bench.intent(1, 1)
    }),
    (Stop::QuorumStays, |bench| {
        let on =
            |node, n| Voter { node, host: Some(host(n)), chassis: format!("chassis-{n}"), power: "feed".to_owned() };
        bench.must(Change::Voters(vec![on(1, 1), on(2, 2), on(3, 3)]));
        bench.pending(1);
        let mut change = bench.intent(1, 1);
        if let Change::FenceIntent { voters, .. } = &mut change {
            // Voter 3 is not heard.
            *voters = vec![1, 2];
        }
        change
    }),
    (Stop::ChassisOnce, |bench| {
        bench.pending(11);
        bench.must(bench.intent(11, 11));
        bench.pending(12);
        bench.intent(12, 12)
    }),
    (Stop::NovaOrder, |bench| {
        let case = bench.fenced(1);
        bench.phase(1, Phase::NovaDown);
        Change::CasePhase { case, from: Phase::NovaDown, to: Phase::Planning }
    }),
    (Stop::NovaOrder, |bench| {
        bench.fenced(1);
        bench.phase(1, Phase::NovaDown);
        Change::NovaMark { host: host(1), forced_down: false, disabled: true }
    }),
    (Stop::NovaOrder, |bench| {
        bench.pending(1);
        Change::NovaMark { host: host(1), forced_down: true, disabled: false }
    }),
    (Stop::OneAttempt, |bench| {
        bench.evacuating();
        bench.must(bench.attempt(1, 3, 50));
        bench.attempt(1, 3, 51)
    }),
    (Stop::TargetAlive, |bench| {
        bench.evacuating();
        bench.suspect(3);
        bench.attempt(1, 3, 50)
    }),
    (Stop::FailedTargetClear, |bench| {
        bench.evacuating();
        bench.must(bench.attempt(1, 3, 50));
        bench.now += 10_000;
        bench.must(Change::AttemptEnd { instance: vm(1), number: 1, ended: Ended::Failed { migration: op(901) } });
        let cause = PermitCause::AttemptFailed(Clear::Absent { at: bench.now });
        Change::PermitMove { instance: vm(1), from: Some(life(3)), to: life(1), cause }
    }),
    (Stop::NoPermitOnDead, |bench| {
        bench.fenced(2);
        Change::PermitMove { instance: vm(70), from: None, to: life(2), cause: PermitCause::Placed }
    }),
    (Stop::NoStealing, |bench| {
        let cause = PermitCause::Adopted { at: bench.now };
        Change::PermitMove { instance: vm(1), from: Some(life(1)), to: life(3), cause }
    }),
    (Stop::OnlyCopy, |bench| {
        bench.returning();
        let mut change = bench.reenter(Step::StartNova);
        if let Change::Reenter { seen, .. } = &mut change {
            seen.compute.as_mut().expect("read").open.push(vm(1));
        }
        change
    }),
    // Done, says Nova, and its place is still here: its clean-up would delete it.
    (Stop::OnlyCopy, |bench| {
        bench.returning();
        let mut change = bench.reenter(Step::StartNova);
        if let Change::Reenter { seen, .. } = &mut change {
            seen.compute.as_mut().expect("read").done.push(vm(1));
        }
        change
    }),
    (Stop::StaleGuests, |bench| {
        bench.returning();
        bench.must(bench.reenter(Step::StartNova));
        bench.now += 1_000;
        let mut change = bench.reenter(Step::Unforce);
        if let Change::Reenter { seen, .. } = &mut change {
            seen.domains.as_mut().expect("listed").0.push(vm(5));
        }
        change
    }),
    (Stop::ReturnOrder, |bench| {
        bench.returning();
        Change::NovaMark { host: host(1), forced_down: false, disabled: true }
    }),
    (Stop::ReturnOrder, |bench| {
        bench.returning();
        bench.must(bench.reenter(Step::StartNova));
        bench.now += 1_000;
        bench.must(bench.reenter(Step::Unforce));
        bench.must(Change::NovaMark { host: host(1), forced_down: false, disabled: true });
        let settle = |bench: &mut Bench, v| {
            let to = Life { host: host(1), incarnation: 3 };
            let cause = PermitCause::SameHostNewBoot;
            bench.must(Change::PermitMove { instance: vm(v), from: Some(life(1)), to, cause })
        };
        (1..=4).for_each(|v| drop(settle(bench, v)));
        bench.reenter(Step::Enable)
    }),
    (Stop::DrainLimits, |bench| {
        for n in [1, 2] {
            bench.as_operator(Change::DrainOpen { host: host(n), incarnation: 1, mode: Maintenance::Auto });
        }
        bench.must(Change::DrainStep { host: host(1), step: Box::new(drain::Step::Begin) });
        Change::DrainStep { host: host(2), step: Box::new(drain::Step::Begin) }
    }),
    // Of hosts with members of one server group, where the cluster would let both.
    (Stop::DrainLimits, |bench| {
        both_of_a_group(bench, true, false);
        Change::DrainStep { host: host(2), step: Box::new(drain::Step::Begin) }
    }),
    // The third of one source.
    (Stop::DrainLimits, |bench| {
        bench.as_operator(Change::DrainOpen { host: host(1), incarnation: 1, mode: Maintenance::Auto });
        let step = |step| Change::DrainStep { host: host(1), step: Box::new(step) };
        bench.must(step(drain::Step::Begin));
        let way = |v: u128| (vm(v), drain::Way::To { life: life(v + 2), live: true });
        bench.must(step(drain::Step::Plan((1..=3).map(way).collect())));
        for v in [1, 2] {
            bench.must(step(drain::Step::Intent(vm(v), op(50 + v), Box::new(nova(1)))));
        }
        step(drain::Step::Intent(vm(3), op(53), Box::new(nova(1))))
    }),
    (Stop::Enforced, |bench| {
        bench.pending(1);
        bench.as_operator(Change::PolicyPut(Box::new(only_dry("node-1"))));
        bench.intent(1, 50)
    }),
    (Stop::HeardAgain, |bench| {
        let case = bench.pending(1);
        bench.must(bench.intent(1, 50));
        bench.phase(1, Phase::FenceFailed);
        bench.role = Role::Operator;
        Change::CaseAbort { token: Token { case, phase: Phase::FenceFailed, at: bench.now }, heard: Some(6_000) }
    }),
];

#[test]
fn a_drain_waits_for_one_of_its_server_group_where_a_member_of_either_host_declares_a_minimum() {
    for (first, second) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut bench = Bench::new();
        both_of_a_group(&mut bench, first, second);
        let begin = Change::DrainStep { host: host(2), step: Box::new(drain::Step::Begin) };
        let done = bench.order(begin.clone());
        assert_eq!(done.is_ok(), !(first || second), "{first}, {second}: {done:?}");
        if let Err(refused) = done {
            let words = format!("one with members of group {}, which declares min_available", op(60));
            assert!(refused.to_string().contains(&words), "{refused}");
            bench.must(Change::DrainEnd { host: host(1), over: drain::Over::Succeeded });
            assert_eq!(bench.order(begin), Ok(Done::Changed), "the other one is over");
        }
    }
}

#[test]
fn each_stop_is_what_refuses() {
    for (at, (stop, way)) in ROWS.iter().enumerate() {
        let passes = |done: &Result<Done, _>| matches!(done, Ok(Done::Changed | Done::Case(_)));
        let mut bench = Bench::new();
        let change = way(&mut bench);
        let refused = bench.order(change.clone());
        assert!(!passes(&refused), "{stop:?}, row {at}: {} passes: {refused:?}", change.name());
        let mut bench = Bench::new();
        let change = way(&mut bench);
        bench.checked = false;
        let without = stop.without(|| bench.order(change.clone()));
        assert!(passes(&without), "{stop:?}, row {at}: without it something else refuses: {without:?}");
    }
    let tested: BTreeSet<_> = ROWS.iter().map(|(stop, _)| format!("{stop:?}")).collect();
    // An effect and not a refusal; see `paths`.
    let all = Stop::ALL.iter().filter(|stop| **stop != Stop::RecordedRules).map(|stop| format!("{stop:?}"));
    assert_eq!(tested, all.collect(), "every stop has a row");
}
