//! Hosts that fail while a trace is played: golden figures worked out by hand, random traces with random failures in which no VM
//! is lost from sight, and bad input.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use scheduler::Domain;
use scheduler::rebalance::Objective;
use simulation::trace::failures::{Rates, listed};
use simulation::trace::outages;
use simulation::trace::rebalance::Rebalance;
use simulation::trace::replay::{Played, Player, Unwatched, Wanted, replay};
use simulation::trace::{Estate, Failures, HostList, Inputs, Mode, Policy, Ratios, Study, Trace};

const EVENTS: &str = "time_s,event,vm_id,vcpus,memory_mib,gpus,gpu_milli,gpu_models,lifetime_s\n";
const NODES: &str = "node_id,vcpus,memory_mib,domain\n";
const FAILURES: &str = "time_s,node_id,event\n";

fn inputs(events: &str, nodes: &str, failures: &str) -> Inputs {
    let list = HostList::read("nodes.csv", format!("{NODES}{nodes}").into_bytes()).unwrap();
    let turns = listed("failures.csv", format!("{FAILURES}{failures}").into_bytes(), &list.hosts).unwrap();
    Inputs {
        trace: Arc::new(Trace::read("events.csv", format!("{EVENTS}{events}").into_bytes()).unwrap()),
        list: Arc::new(list),
        ratios: Ratios::default(),
        warm_up: 0.0,
        seed: 42,
        check: true,
        migrations: 0.0,
        rebalance: None,
        failures: Some(Failures::Listed { turns: turns.into(), sha256: String::new() }),
    }
}

fn policy(name: &str) -> Arc<Policy> {
    Arc::new(Policy::named(name, Domain::Nova, false, 42).unwrap())
}

/// Two hosts of 4 vCPU. `a` fails at 100 s with v1 (2) and v2 (2); v3 has 2 of `b`, so that one of them waits until v3 goes at
/// 200 s. v4 is rejected, since `a` is away. `b` fails at 300 s and `a` is back at 400 s: of the two VMs of `b` one is deleted
/// while it waits. At 500 s `a` fails with the other, and is back at 600 s; at 700 s both fail, with nobody to come back.
#[test]
fn golden() {
    let events = "\
0,create,v1,2,2,0,0,,
0,create,v2,2,2,0,0,,
0,create,v3,2,2,0,0,,
150,create,v4,3,2,0,0,,
200,delete,v3,,,,,,
350,delete,v1,,,,,,
800,create,v5,1,1,0,0,,
";
    let failures =
        "100,a,fail\n300,b,fail\n400,a,recover\n450,b,recover\n500,a,fail\n500,b,fail\n600,a,recover\n700,a,fail\n";
    let inputs = inputs(events, "a,4,8,r1\nb,4,8,r1\n", failures);
    let metrics = replay(&inputs, &policy("first-fit"), 2, Wanted::default(), &Unwatched).unwrap().metrics;
    let told = metrics.failures.unwrap();
    let worst = told.worst.clone().unwrap();
    assert_eq!((worst.time_s, worst.failed, worst.vms, worst.without), (300.0, 1, 2, 2));
    assert_eq!((worst.hosts, worst.waiting), (vec!["b".to_owned()], vec!["v1".to_owned(), "v2".to_owned()]));
    // v1 at once and v2 100 s later; v1 50 s and v2 100 s; v2 100 s; v2 100 s up to the end.
    let wanted = outages::Metrics {
        hosts: 5,
        moments: 4,
        down_at_once: 2,
        vms: 6,
        at_once: 1,
        later: 2,
        in_place: 1,
        deleted: 1,
        lost: 1,
        restored_at_once: Some(1.0 / 6.0),
        down_vm_s: 450.0,
        longest_s: 100.0,
        rejected: 2,
        worst: told.worst.clone(),
    };
    assert_eq!(told, wanted);
    assert_eq!((metrics.creates, metrics.deletes, metrics.rejections.count, metrics.hosts_peak), (5, 2, 2, 2));
}

/// A trace of VMs that come and go on hosts that do, drawn from a seed, with so many seconds between two moments.
fn random(seed: u64, pace: u64) -> (String, String, String) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let count = rng.random_range(2..8);
    let mut nodes = String::new();
    for host in 0..count {
        let size = rng.random_range(4..12);
        writeln!(nodes, "n{host},{size},{},r{}", size * 2, host / 2).unwrap();
    }
    let (mut events, mut failures) = (String::new(), String::new());
    let mut alive = Vec::new();
    let mut down = vec![false; count];
    for time in 0..120 {
        // Several things at one time, and quiet ones.
        let time = time / 2 * pace;
        if rng.random_bool(0.6) || alive.is_empty() {
            let vm = events.len();
            alive.push(vm);
            writeln!(events, "{time},create,v{vm},{},{},0,0,,", rng.random_range(1..6), rng.random_range(0..9))
                .unwrap();
        } else {
            let vm = alive.swap_remove(rng.random_range(0..alive.len()));
            writeln!(events, "{time},delete,v{vm},,,,,,").unwrap();
        }
        if rng.random_bool(0.3) {
            let host = rng.random_range(0..count);
            down[host] = !down[host];
            let what = if down[host] { "fail" } else { "recover" };
            writeln!(failures, "{time},n{host},{what}").unwrap();
        }
    }
    if failures.is_empty() {
        failures.push_str("0,n0,fail\n");
    }
    (nodes, events, failures)
}

/// Hosts that are down once all that the list says up to a time has happened.
fn down_at(inputs: &Inputs, time: u64) -> BTreeSet<u32> {
    let Some(Failures::Listed { turns, .. }) = &inputs.failures else { return BTreeSet::new() };
    let mut down = BTreeSet::new();
    for turn in turns.iter().take_while(|turn| turn.time <= time) {
        assert!(if turn.up { down.remove(&turn.host) } else { down.insert(turn.host) });
    }
    down
}

/// Where each VM is by what was told must be where the world has it, and what the core counts on each host must be what those
/// take that run or wait there.
fn conserved(inputs: &Inputs, estate: &Estate, at: &BTreeMap<u32, Option<u32>>) {
    let waiting: Vec<u32> = at.iter().filter(|(_, host)| host.is_none()).map(|(vm, _)| *vm).collect();
    assert_eq!(waiting, estate.waiting().keys().copied().collect::<Vec<_>>());
    let mut claimed = BTreeMap::<u32, u64>::new();
    for (&vm, &host) in at {
        assert_eq!(estate.host_of(vm), host, "VM {vm}");
        let row = host.unwrap_or_else(|| estate.waiting()[&vm]);
        *claimed.entry(row).or_default() += inputs.trace.shape(vm).milli_cpu / 1000;
    }
    let tables = estate.core().state().tables();
    let class = tables.names.get("VCPU").unwrap();
    for (row, (_, provider)) in (0..).zip(tables.providers()) {
        let down = estate.is_down(row);
        assert_eq!((provider.forced_down, provider.disabled), (down, down));
        let reported = if down { provider.capacity(class).unwrap() } else { 0 };
        let of_vms = claimed.get(&row).copied().unwrap_or(0);
        assert_eq!(provider.used(class), reported + of_vms, "host {row}");
    }
}

#[test]
fn no_vm_is_lost_from_sight() {
    let mut seen = [0; 7];
    for seed in 0..90 {
        // Every other one lasts for days, in which VMs are moved as well.
        let days = seed % 2 == 1;
        let (nodes, events, failures) = random(seed, if days { 17_000 } else { 17 });
        let mut inputs = inputs(&events, &nodes, &failures);
        if days {
            let objective = if seed % 4 == 1 { Objective::Consolidate } else { Objective::Balance };
            (inputs.migrations, inputs.rebalance) = (1.0, Some(Rebalance { objective, every: 10_000_000 }));
        }
        let count = inputs.list.hosts.len();
        let policy = policy(["best-fit", "random", "nova-packing"][seed as usize % 3]);
        let mut player = Player::new(&inputs, inputs.estate(&policy, count).unwrap(), &Unwatched).failing().unwrap();
        let mut at = BTreeMap::<u32, Option<u32>>::new();
        let (mut created, mut rejected, mut deleted, mut moved) = (0, 0, 0, 0);
        let after = |time, played, estate: &Estate| {
            match played {
                Played::Placed(vm, host) => {
                    created += 1;
                    assert_eq!(at.insert(vm, Some(host)), None);
                }
                Played::Rejected(_) => (created, rejected) = (created + 1, rejected + 1),
                Played::Left(vm, host) => {
                    deleted += 1;
                    assert_eq!(at.remove(&vm), Some(Some(host)));
                }
                Played::Gone(vm) => {
                    deleted += 1;
                    assert_eq!(at.remove(&vm), Some(None));
                }
                Played::Lost(vm, host) => assert_eq!(at.insert(vm, None), Some(Some(host))),
                Played::Restored(vm, host) => assert_eq!(at.insert(vm, Some(host)), Some(None)),
                Played::Moved(vm, from, to, _) => {
                    moved += 1;
                    assert_eq!(at.insert(vm, Some(to)), Some(Some(from)));
                }
                Played::Orphan => {}
            }
            assert_eq!(created, at.len() + rejected + deleted);
            conserved(&inputs, estate, &at);
            if !matches!(played, Played::Lost(..) | Played::Restored(..)) {
                let down = down_at(&inputs, time);
                let hidden = at.iter().find(|(_, host)| host.is_some_and(|host| down.contains(&host)));
                assert_eq!(hidden, None, "a VM runs on a host that is down, at {time}");
                assert!((0..count as u32).all(|host| estate.is_down(host) == down.contains(&host)));
            }
        };
        player.play(0, |_, _| Ok(()), after).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        let told = player.outages.metrics(inputs.trace.end());
        let ways = [told.at_once, told.later, told.in_place, told.deleted, told.lost];
        assert_eq!(told.vms, ways.iter().sum::<u64>(), "seed {seed}: {told:?}");
        seen.iter_mut().zip(ways.into_iter().chain([told.rejected, moved])).for_each(|(all, here)| *all += here);
    }
    assert!(seen.iter().all(|count| *count > 20), "every way expected: {seen:?}");
}

#[test]
fn times_are_drawn_from_the_seed() {
    let nodes: String = (0..200).fold(String::new(), |text, n| text + &format!("n{n},4,8,r{}\n", n / 10));
    let hosts = HostList::read("nodes.csv", format!("{NODES}{nodes}").into_bytes()).unwrap().hosts;
    let (hour, year) = (3_600.0, 365 * 86_400_000);
    let rates = Rates { mtbf_s: 100.0 * hour, mttr_s: 10.0 * hour, domain_share: 0.0 };
    let turns = rates.draw(&hosts, 0, year, 1).unwrap();
    assert_eq!(turns, rates.draw(&hosts, 0, year, 1).unwrap());
    assert_ne!(turns, rates.draw(&hosts, 0, year, 2).unwrap());
    // 8760 h in turns of 110 h, on 200 hosts; a tenth of them too many would be 20 standard deviations.
    let fails = turns.iter().filter(|turn| !turn.up).count() as f64;
    assert!((fails / (200.0 * 8760.0 / 110.0) - 1.0).abs() < 0.05, "{fails}");
    // More hosts do not change what the first ones do.
    let first: Vec<_> = turns.iter().filter(|turn| turn.host < 50).copied().collect();
    assert_eq!(first, rates.draw(&hosts[..50], 0, year, 1).unwrap());
    let whole = Rates { domain_share: 1.0, ..rates }.draw(&hosts, 0, year, 1).unwrap();
    let moments = whole.chunk_by(|one, other| (one.time, one.up) == (other.time, other.up));
    for moment in moments {
        assert!(moment.len() == 10 && moment.iter().all(|turn| turn.host / 10 == moment[0].host / 10), "{moment:?}");
    }
    // Each host fails and returns in turns.
    for turns in [turns, whole, Rates { domain_share: 0.3, ..rates }.draw(&hosts, 0, year, 1).unwrap()] {
        assert!(turns.is_sorted_by_key(|turn| turn.time));
        for host in 0..200 {
            let of_host = turns.iter().filter(|turn| turn.host == host);
            assert!(of_host.enumerate().all(|(at, turn)| turn.up == (at % 2 == 1)), "host {host}");
        }
    }
    let told = Rates { mtbf_s: 0.001, mttr_s: 0.001, ..rates }.draw(&hosts, 0, year, 1).unwrap_err();
    assert!(told.contains("more than 1000000"), "{told}");
}

#[test]
fn results_do_not_depend_on_threads() {
    let (nodes, events, _) = random(7, 17);
    let inputs = inputs(&events, &nodes, "0,n0,fail\n");
    let rates = Rates { mtbf_s: 400.0, mttr_s: 100.0, domain_share: 0.5 };
    let study = Study {
        count: inputs.list.hosts.len(),
        inputs: Inputs { failures: Some(Failures::Drawn(rates)), ..inputs },
        policies: ["random", "fgd", "lifetime-learned", "nova-packing"].map(policy).to_vec(),
        modes: vec![Mode::Replay],
        series: Some(10_000),
        decisions: false,
    };
    study.check().unwrap();
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let limits = pool.install(|| study.limits(3));
        let done = pool.install(|| study.run(&limits, |_| None, |_, _| Ok(()), |_| Box::new(Unwatched))).unwrap();
        (study.result(&limits, &done).to_string(), study.series(&done).csv())
    };
    let one = run(1);
    assert_eq!(one, run(4));
    assert!(one.0.contains("\"restored_at_once\":0."), "{}", one.0);
    let other = Study { modes: vec![Mode::Replay, Mode::MinHosts], ..study };
    assert_eq!(other.check().unwrap_err(), "hosts fail in mode replay only, min-hosts given");
}

#[test]
fn bad_input_is_told_by_line_and_column() {
    let hosts = HostList::read("nodes.csv", format!("{NODES}a,4,8,\nb,4,8,\n").into_bytes()).unwrap().hosts;
    let read = |bytes: &[u8]| listed("failures.csv", bytes.to_vec(), &hosts).map_err(|error| error.to_string());
    let file = |lines: &str| format!("{FAILURES}{lines}").into_bytes();
    let good = file("0,a,fail\n0,b,fail\n7.5,a,recover\n9,a,fail\n");
    assert_eq!(read(&good).map(|turns| turns.len()), Ok(4));
    assert_eq!(read(&zstd::encode_all(&good[..], 1).unwrap()).map(|turns| turns.len()), Ok(4));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&good).unwrap();
    let packed = gzip.finish().unwrap();
    assert_eq!(read(&packed).map(|turns| turns.len()), Ok(4));
    let cases: [(Vec<u8>, &str); 15] = [
        (Vec::new(), "failures.csv: empty, a header expected: time_s,node_id,event"),
        (file(""), "failures.csv: no fail given, at least one expected"),
        (b"time_s,node_id\n".to_vec(), "line 1: column event is missing"),
        (file("0,c,fail\n"), "line 2, column node_id: c is none of the 2 hosts of this run, one of them expected"),
        (file("0,,fail\n"), "line 2, column node_id: '' given, a name of 1 to 200 bytes expected"),
        (
            file("0,a,fail\n1,a,fail\n"),
            "line 3, column event: a fails and is down already, a recover before it expected",
        ),
        (file("0,a,recover\n"), "line 2, column event: a recovers and is not down, a fail before it expected"),
        (file("0,a,falls\n"), "line 2, column event: 'falls' given, fail or recover expected"),
        (file("5,a,fail\n4,b,fail\n"), "line 3, column time_s: 4 given after 5: events in order of time expected"),
        (file("-1,a,fail\n"), "line 2, column time_s: '-1' given, a number from 0 to"),
        (file("1e30,a,fail\n"), "line 2, column time_s: '1e30' given, a number from 0 to"),
        (file(",a,fail\n"), "line 2, column time_s: empty, a value expected"),
        (file("0,a,fail\n7"), "line 3: 1 cells given, 3 expected as in the header; the file may be cut off"),
        ([&file("")[..], b"0,\xff,fail\n"].concat(), "line 2, column node_id: '\\xff' given, UTF-8 expected"),
        (packed[..packed.len() - 12].to_vec(), "a whole file expected, this one may be cut off"),
    ];
    for (bytes, wanted) in cases {
        let told = read(&bytes).map(drop).expect_err(wanted);
        assert!(told.contains(wanted), "{told}; {wanted} expected");
    }
}
