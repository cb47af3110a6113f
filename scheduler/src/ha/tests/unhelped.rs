//! Moves of guests that restarts do not help.

use super::bench::{Bench, host, life, nova, op, vm};
use crate::ha::order::{Change, Done, Leader, NovaRead, PermitCause};
use crate::ha::planner::OnCrash;
use crate::ha::recovery::Life;
use crate::ha::restart::{MOST, MOVES};

fn intent(n: u128, to: Option<Life>, at: u128) -> Change {
    let nova = NovaRead { on_crash: Some(OnCrash::RestartThenMove), ..nova(at) };
    Change::RestartIntent { instance: vm(1), life: life(1), op: op(n), to, nova: Box::new(nova) }
}

fn over(n: u128, well: bool) -> Change {
    Change::RestartOutcome { instance: vm(1), op: op(n), well }
}

/// Three restarts in vain.
fn unhelped(bench: &mut Bench, first: u128) {
    for n in first..first + u128::from(MOST) {
        let refused = bench.order(intent(99, Some(life(3)), 1)).expect_err("restarts come first").to_string();
        assert!(refused.contains("may yet be restarted"), "{refused}");
        bench.must(intent(n, None, 1));
        bench.must(over(n, false));
    }
}

#[test]
fn one_that_restarts_do_not_help_is_moved_once_a_day_and_nothing_begins_there_before_its_place_has_followed() {
    let mut bench = Bench::new();
    unhelped(&mut bench, 50);
    let known = |bench: &Bench| *bench.ha().restarts.get(vm(1)).expect("a restart");
    assert!(known(&bench).is_to_move() && !known(&bench).gave_up(), "nobody is asked yet");
    assert!(bench.order(intent(60, Some(life(1)), 1)).is_err(), "where it is");
    bench.must(intent(60, Some(life(3)), 1));
    assert!(!bench.ha().may_begin(vm(1), life(3)), "it may still be executing where it was");
    assert!(bench.order(intent(61, None, 1)).is_err_and(|why| why.to_string().contains("a move of it")));
    // Another leader goes on with the same move, and with no other.
    bench.leader = Leader { term: 3, node: 3 };
    bench.must(Change::Mark(crate::ha::mark::Mark::Ours));
    assert!(bench.order(intent(62, Some(life(4)), 1)).is_err());
    bench.must(intent(62, Some(life(3)), 1));
    bench.must(Change::PermitMove {
        instance: vm(1),
        from: Some(life(1)),
        to: life(3),
        cause: PermitCause::Migrated(op(70)),
    });
    bench.must(intent(63, Some(life(3)), 3));
    assert!(bench.ha().is_committed(op(63), bench.leader), "it may be confirmed");
    bench.must(over(63, true));
    assert_eq!((known(&bench).to, bench.ha().may_begin(vm(1), life(1))), (Some(life(3)), false));

    // It fails there as well: a person must look.
    let there = |n: u128, bench: &mut Bench| {
        let nova = NovaRead { on_crash: Some(OnCrash::RestartThenMove), ..nova(3) };
        let (instance, life) = (vm(1), life(3));
        bench.must(Change::RestartIntent { instance, life, op: op(n), to: None, nova: Box::new(nova) });
        bench.must(over(n, false));
    };
    (80..83).for_each(|n| there(n, &mut bench));
    assert!(known(&bench).gave_up(), "moved once");
    bench.now += MOVES;
    (90..93).for_each(|n| there(n, &mut bench));
    assert!(known(&bench).is_to_move(), "a day later");
    // Where nothing has room for it that is said once more.
    assert_eq!((bench.must(over(92, false)), known(&bench).gave_up()), (Done::Changed, true));
    assert_eq!(bench.must(over(92, false)), Done::Unchanged);
    assert_eq!(bench.ha().permits.get(vm(1)).map(|permit| permit.life.host), Some(host(3)));
}
