//! What a leader sees: never earlier than it may, and nothing of what it did not watch itself.

use super::bench::{Bench, boot, host};
use crate::ha::breaker::Scope;
use crate::ha::coordinator::watch::common;
use crate::ha::host::{Degraded, Detection};
use crate::ha::liveness::{Digest, Heard, Liveness, Says, Stall, Timers};
use crate::ha::order::Groups;

/// A leader that began at 0 and heard host 1 every `every` ms until `until`, with up to `jitter` ms on top.
fn heard(every: u64, jitter: u64, until: u64) -> Liveness {
    let mut liveness = Liveness::new(Timers::default(), 0);
    let (mut at, mut nth) = (0, 0_u64);
    for now in (0..until).step_by(500) {
        if now >= at {
            beat(&mut liveness, now, 0);
            nth += 1;
            at = now + every + (nth * 7_919) % jitter.max(1);
        }
        liveness.look(now);
    }
    liveness
}

fn beat(liveness: &mut Liveness, now: u64, age: u64) {
    let heard = [Heard { host: host(1), age, boot: boot(1, 0), away: 0 }];
    liveness.digest(&Digest { member: 1, in_quorum: true, blind: false, heard: &heard }, now);
}

/// Looks every half second from one time to the next, with peers that say no; the first time it is said.
fn when(liveness: &mut Liveness, bench: &mut Bench, says: Detection, from: u64, until: u64) -> Option<u64> {
    let mut now = from;
    while now < until {
        liveness.observe(host(1), Groups::DATA, Says::Silent, now);
        liveness.look(now);
        let opinion = liveness.opinion(bench.host(1), bench.leader, now);
        if opinion.detection == says {
            return Some(now);
        }
        now += 500;
    }
    None
}

#[test]
fn a_rhythm_says_how_long_silence_may_be_and_confirmation_takes_its_time() {
    // Regular: the lower clamp. Irregular: the upper one.
    for (jitter, suspect) in [(0, 6_000), (6_000, 10_000)] {
        let mut bench = Bench::new();
        let mut liveness = heard(2_000, jitter, 600_000);
        let last = 600_000 - liveness.youngest(host(1), 600_000).expect("heard");
        let at = when(&mut liveness, &mut bench, Detection::Suspect, 600_000, 700_000).expect("suspected");
        assert!((suspect..suspect + 500).contains(&(at - last)), "jitter {jitter}: suspected after {} ms", at - last);
        bench.suspect(1);
        let unreachable = when(&mut liveness, &mut bench, Detection::Unreachable, at, 700_000).expect("confirmed");
        assert!((15_000..16_000).contains(&(unreachable - at)), "confirmed after {} ms", unreachable - at);
    }
}

#[test]
fn any_sign_of_life_begins_the_confirmation_anew_and_another_group_makes_it_isolated() {
    let mut bench = Bench::new();
    let mut liveness = heard(2_000, 0, 600_000);
    let at = when(&mut liveness, &mut bench, Detection::Suspect, 600_000, 700_000).expect("suspected");
    bench.suspect(1);
    assert_eq!(when(&mut liveness, &mut bench, Detection::Unreachable, at, at + 14_000), None);
    // A member hears it late: an old age is no news, a young one is.
    beat(&mut liveness, at + 14_000, 30_000);
    assert_eq!(liveness.youngest(host(1), at + 14_000), Some(at + 14_000 - 598_000));
    liveness.observe(host(1), Groups::STORAGE, Says::Runs, at + 14_000);
    let opinion = liveness.opinion(bench.host(1), bench.leader, at + 14_000);
    assert_eq!(opinion.detection, Detection::Isolated);
    assert_eq!(when(&mut liveness, &mut bench, Detection::Unreachable, at + 14_500, at + 28_500), None);
    assert!(when(&mut liveness, &mut bench, Detection::Unreachable, at + 28_500, at + 50_000).is_some());
}

#[test]
fn a_new_leader_and_one_that_slept_begin_anew_and_a_member_without_a_quorum_is_not_heard() {
    let mut bench = Bench::new();
    // Silent since long, to a leader that begins now.
    let mut liveness = Liveness::new(Timers::default(), 1_000_000);
    beat(&mut liveness, 1_000_000, 900_000);
    let at = when(&mut liveness, &mut bench, Detection::Suspect, 1_000_000, 1_100_000).expect("suspected");
    assert_eq!(at, 1_020_000, "not in its warm-up");
    bench.suspect(1);
    // What a former leader confirmed is watched anew.
    bench.now += 15_000;
    bench.detect(1, Detection::Suspect, Detection::Unreachable);
    bench.leader.term += 1;
    assert_eq!(liveness.opinion(bench.host(1), bench.leader, 1_050_000).detection, Detection::Suspect);
    // A process that slept two minutes: its silence is its own.
    bench = Bench::new();
    let mut liveness = heard(2_000, 0, 600_000);
    liveness.look(600_000);
    let at = when(&mut liveness, &mut bench, Detection::Suspect, 720_000, 800_000).expect("suspected");
    assert_eq!(at, 740_000);
    let heard = [Heard { host: host(1), age: 0, boot: boot(1, 0), away: 0 }];
    liveness.digest(&Digest { member: 1, in_quorum: false, blind: false, heard: &heard }, 740_000);
    assert!(liveness.youngest(host(1), 740_000).is_some_and(|age| age > 100_000));
}

#[test]
fn suspicions_are_counted_for_an_hour() {
    let mut liveness = Liveness::new(Timers::default(), 0);
    for at in [0, 1_000_000, 3_700_000] {
        liveness.suspected(host(1), at);
    }
    assert!(!liveness.flaps(host(1)), "the first is over");
    liveness.suspected(host(1), 3_800_000);
    assert!(liveness.flaps(host(1)));
}

#[test]
fn what_a_blind_member_does_not_hear_says_nothing() {
    let mut bench = Bench::new();
    let mut liveness = heard(2_000, 0, 600_000);
    for now in (600_000..660_000).step_by(500) {
        liveness.digest(&Digest { member: 1, in_quorum: true, blind: true, heard: &[] }, now);
        assert_eq!(when(&mut liveness, &mut bench, Detection::Suspect, now, now + 1), None);
    }
    let at = when(&mut liveness, &mut bench, Detection::Suspect, 660_000, 700_000).expect("suspected");
    assert_eq!(at, 665_500);
}

#[test]
fn a_host_that_goes_down_on_purpose_is_missed_when_it_is_not_back() {
    let mut bench = Bench::new();
    let goodbye = |liveness: &mut Liveness, now, age, away| {
        let heard = [Heard { host: host(1), age, boot: boot(1, 0), away }];
        liveness.digest(&Digest { member: 1, in_quorum: true, blind: false, heard: &heard }, now);
    };
    let mut liveness = heard(2_000, 0, 600_000);
    goodbye(&mut liveness, 600_000, 0, 60_000);
    // Another member, which it spoke to before, knows nothing of it.
    goodbye(&mut liveness, 600_500, 4_000, 0);
    assert!(!liveness.is_silent(host(1), 659_999), "nor is its power read");
    let missed = when(&mut liveness, &mut bench, Detection::Suspect, 600_500, 700_000);
    assert_eq!(missed, Some(660_000));

    // Longer than anybody may ask for; and it stays.
    let mut liveness = heard(2_000, 0, 600_000);
    goodbye(&mut liveness, 600_000, 0, u64::MAX);
    assert_eq!(when(&mut liveness, &mut bench, Detection::Suspect, 600_000, 602_000), None);
    goodbye(&mut liveness, 602_000, 0, 0);
    let missed = when(&mut liveness, &mut bench, Detection::Suspect, 602_000, 700_000);
    assert_eq!(missed, Some(608_000), "it is still here");
    goodbye(&mut liveness, 608_000, 0, u64::MAX);
    assert!(liveness.is_silent(host(1), 608_000 + crate::ha::AWAY));
}

#[test]
fn a_report_takes_away_the_patience_and_not_the_silence() {
    let mut bench = Bench::new();
    // Irregular: it would be suspected after 10 s.
    let mut liveness = heard(2_000, 6_000, 600_000);
    liveness.report(host(1), false, 600_000);
    beat(&mut liveness, 600_500, 0);
    let early = when(&mut liveness, &mut bench, Detection::Suspect, 600_500, 610_000);
    assert_eq!(early, None, "it was heard after that");
    liveness.report(host(1), false, 610_000);
    assert_eq!(when(&mut liveness, &mut bench, Detection::Suspect, 610_000, 611_000), Some(610_000));

    let mut liveness = heard(2_000, 6_000, 600_000);
    let last = 600_000 - liveness.youngest(host(1), 600_000).expect("heard");
    liveness.report(host(1), false, 600_000);
    let at = when(&mut liveness, &mut bench, Detection::Suspect, 600_000, 700_000).expect("suspected");
    assert!((6_000..6_500).contains(&(at - last)), "suspected after {} ms", at - last);
    liveness.report(host(1), true, at);
    assert!(!liveness.is_silent(host(1), at), "somebody sees it");
}

#[test]
fn a_monitor_says_whether_nova_compute_runs_and_it_counts_after_a_minute() {
    let mut liveness = heard(2_000, 0, 600_000);
    let (none, compute) = (Degraded::default(), Degraded::COMPUTE);
    liveness.report_compute(host(1), false, 600_000);
    let looks = [(659_999, none, none), (660_000, none, compute), (660_000, compute, compute)];
    for (now, known, expected) in looks {
        assert_eq!(liveness.degraded(host(1), known, now), expected, "at {now}");
    }
    liveness.report_compute(host(1), true, 661_000);
    assert_eq!(liveness.degraded(host(1), compute, 661_000), none);
    // A new leader was told nothing, and keeps to what was known.
    assert_eq!(heard(2_000, 0, 600_000).degraded(host(1), compute, 600_000), compute);
}

/// Host 1 is heard, and its storage heartbeat stands still; so does that of `many` others.
fn without_storage(many: u128, from: u64, until: u64) -> Liveness {
    let mut liveness = Liveness::new(Timers::default(), 0);
    for now in (0..until).step_by(500) {
        let heard: Vec<_> = (1..=12).map(|n| Heard { host: host(n), age: 0, boot: boot(n, 0), away: 0 }).collect();
        liveness.digest(&Digest { member: 1, in_quorum: true, blind: false, heard: &heard }, now);
        for n in 1..=12 {
            let says = if now >= from && n <= 1 + many { Says::Silent } else { Says::Runs };
            liveness.observe(host(n), Groups::STORAGE, says, now);
        }
        liveness.look(now);
    }
    liveness
}

#[test]
fn storage_that_one_host_does_not_reach_is_the_hosts_and_what_many_miss_is_not() {
    let (none, ill) = (Degraded::default(), Degraded::STORAGE);
    let now = 200_000;
    assert_eq!(without_storage(0, 100_000, 159_000).degraded(host(1), none, 159_000), none, "not yet for long");
    assert_eq!(without_storage(0, 100_000, now).degraded(host(1), none, now), ill);
    assert_eq!(without_storage(0, 100_000, now).degraded(host(2), none, now), none);
    // A silent host is suspected, and not ill.
    let mut silent = without_storage(0, 100_000, now);
    silent.look(now + 20_000);
    assert_eq!(silent.degraded(host(1), none, now + 20_000), none);
    // A leader that slept knows nothing of the time between, and goes on with what it had found.
    let mut slept = without_storage(0, 100_000, now);
    slept.look(now + 2_500);
    assert_eq!(slept.degraded(host(1), ill, now + 2_500), ill);
    // A new leader goes on with what it finds, for as long as it takes to see it itself.
    let new = Liveness::new(Timers::default(), now);
    assert_eq!(new.degraded(host(1), ill, now), ill, "it knows nothing of the host");
    let mut new = without_storage(0, u64::MAX, 500);
    assert_eq!(new.degraded(host(1), ill, 500), none, "the heartbeat goes on");
    new.observe(host(3), Groups::DATA, Says::Silent, 500);
    assert_eq!(new.degraded(host(13), ill, 500), ill);
}

/// Of 12 hosts of one cluster as many as open its breaker; what each says of itself alone stays.
#[test]
fn what_many_hosts_have_at_once_is_the_fault_of_none() {
    let bench = Bench::new();
    for what in [Degraded::FLAPS, Degraded::STORAGE, Degraded::COMPUTE, Degraded::LIBVIRT, Degraded::AWAY] {
        for (many, is_common) in [(2, false), (3, true), (12, true)] {
            let other = if what == Degraded::FLAPS { Degraded::AWAY } else { Degraded::FLAPS };
            let ill = |n: u128| {
                if n <= many {
                    what
                } else if n == 12 {
                    other
                } else {
                    Degraded::default()
                }
            };
            let hosts: Vec<_> = (1..=12).map(|n| (bench.host(n), ill(n))).collect();
            let found = common(hosts.into_iter());
            let expected = if is_common && what != Degraded::AWAY { Some(what) } else { None };
            let cluster = Scope::Cluster(bench.host(1).places.cluster);
            assert_eq!(found.get(&cluster).copied(), expected, "{what:?} of {many}");
            assert!(found.values().all(|ill| !ill.has(other)), "{what:?} of {many}");
        }
    }
}

#[test]
fn an_observer_that_falls_silent_says_nothing_any_more() {
    for (until, expected) in [(640_000, true), (601_000, false)] {
        let (mut bench, mut liveness) = (Bench::new(), heard(2_000, 0, 600_000));
        let mut unreachable = false;
        for now in (600_000..640_000).step_by(500) {
            if now < until {
                liveness.observe(host(1), Groups::DATA, Says::Silent, now);
            }
            liveness.look(now);
            let opinion = liveness.opinion(bench.host(1), bench.leader, now);
            if bench.host(1).belief.detection == Detection::Alive && opinion.detection == Detection::Suspect {
                bench.suspect(1);
            }
            unreachable |= opinion.detection == Detection::Unreachable;
        }
        assert_eq!(unreachable, expected, "until {until}");
        assert_eq!(bench.host(1).belief.detection, Detection::Suspect);
    }
}

#[test]
fn a_storage_heartbeat_stands_still_when_two_say_so() {
    let says = |observers: &[u128]| {
        let mut liveness = Liveness::new(Timers::default(), 0);
        for now in (0..200_000).step_by(500) {
            beat(&mut liveness, now, 0);
            for by in observers {
                liveness.sight(host(*by), host(1), Groups::STORAGE, Says::Silent, now);
            }
            liveness.look(now);
        }
        liveness.degraded(host(1), Degraded::default(), 200_000)
    };
    assert_eq!(says(&[2]), Degraded::default());
    assert_eq!(says(&[2, 3]), Degraded::STORAGE);
    assert_eq!(says(&[2, 3, 4]), Degraded::STORAGE);
}

#[test]
fn one_neighbour_that_does_not_reach_a_host_is_not_all_of_them() {
    let bench = Bench::new();
    let denied = |silent: &[u128], sees: &[u128]| {
        let mut liveness = Liveness::new(Timers::default(), 0);
        for now in (0..60_000).step_by(500) {
            for by in silent {
                liveness.sight(host(*by), host(1), Groups::DATA, Says::Silent, now);
            }
            for by in sees {
                liveness.sight(host(*by), host(1), Groups::DATA, Says::Runs, now);
            }
            // What another says of storage is of another group.
            liveness.sight(host(9), host(1), Groups::STORAGE, Says::Silent, now);
            liveness.look(now);
        }
        let opinion = liveness.opinion(bench.host(1), bench.leader, 60_000);
        opinion.groups.has(Groups::DATA)
    };
    assert!(!denied(&[2], &[]) && !denied(&[2, 3], &[4]));
    assert!(denied(&[2, 3], &[]));
}

type Stalled = (u128, &'static str, u32, u32);

/// From 100 s on so many guests of hosts stand still (host, place, guests, still); 12 hosts are heard.
fn with_stalls(of: &[Stalled], until: u64) -> Liveness {
    let mut liveness = Liveness::new(Timers::default(), 0);
    for now in (0..until).step_by(500) {
        let heard: Vec<_> = (1..=12).map(|n| Heard { host: host(n), age: 0, boot: boot(n, 0), away: 0 }).collect();
        liveness.digest(&Digest { member: 1, in_quorum: true, blind: false, heard: &heard }, now);
        for n in 1..=12 {
            let stalls = of.iter().filter(|(on, ..)| *on == n && now >= 100_000);
            let stalls =
                stalls.map(|&(_, backend, guests, stalled)| Stall { backend: backend.to_owned(), guests, stalled });
            liveness.stalls(host(n), stalls.collect(), now);
        }
        liveness.look(now);
    }
    liveness
}

#[test]
fn guests_that_stand_still_are_the_fault_of_their_host_or_of_the_backend() {
    let (none, ill) = (Degraded::default(), Degraded::STORAGE);
    // Where guests stand still (host, place, guests, still), whose fault that is: of host 1, of the backend.
    let rows: [(&[Stalled], Degraded, bool); 9] = [
        (&[], none, false),
        (&[(1, "rbd:a", 20, 2)], none, false),
        (&[(1, "rbd:a", 20, 3)], ill, false),
        (&[(1, "rbd:a", 6, 2)], ill, false),
        (&[(1, "rbd:a", 20, 3), (2, "rbd:b", 20, 3)], ill, false),
        (&[(1, "rbd:a", 20, 3), (2, "rbd:a", 20, 1)], none, false),
        (&[(1, "rbd:a", 20, 3), (2, "rbd:a", 20, 3)], none, true),
        (&[(1, "rbd:a", 2, 2), (2, "rbd:a", 2, 2)], none, false),
        (&[(1, "local", 20, 3), (2, "local", 20, 3)], ill, false),
    ];
    for (of, fault, outage) in rows {
        let mut liveness = with_stalls(of, 159_500);
        assert_eq!(liveness.degraded(host(1), none, 159_500), none, "{of:?}: not yet for long");
        assert_eq!(liveness.is_outage(), outage, "{of:?}");
        liveness = with_stalls(of, 161_000);
        assert_eq!(liveness.degraded(host(1), none, 161_000), fault, "{of:?}");
        assert!(!liveness.is_outage(), "{of:?}: guests may stay paused for long, the backend is back");
    }
    // What a leader finds when it begins is of no moment that it knows.
    let mut new = Liveness::new(Timers::default(), 0);
    for n in [1, 2] {
        new.stalls(host(n), vec![Stall { backend: "rbd:a".to_owned(), guests: 9, stalled: 9 }], 0);
    }
    new.look(500);
    assert!(!new.is_outage());
}
