//! Traces: a golden one whose figures were worked out by hand, a naive simulator that must choose the same hosts event by
//! event, equal results on any number of threads, and bad input.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use scheduler::Domain;
use simulation::trace::events::Kind;
use simulation::trace::inflate::inflate;
use simulation::trace::rebalance::{Objective, Rebalance};
use simulation::trace::replay::{Played, Player, Replay, Unwatched, Wanted, first_failure, min_hosts, replay};
use simulation::trace::survive::survive;
use simulation::trace::{Host, HostList, Inputs, Mode, Policy, Ratios, Study, Trace};

const HEADER: &str = "time_s,event,vm_id,vcpus,memory_mib,gpus,gpu_milli,gpu_models,group,class,lifetime_s\n";

fn trace(lines: &str) -> Trace {
    Trace::read("events.csv", format!("{HEADER}{lines}").into_bytes()).unwrap()
}

fn list(lines: &str) -> HostList {
    HostList::read("nodes.csv", format!("node_id,vcpus,memory_mib,gpus,gpu_model,domain\n{lines}").into_bytes())
        .unwrap()
}

fn inputs(trace: Trace, list: HostList, warm_up: f64) -> Inputs {
    let (trace, list) = (Arc::new(trace), Arc::new(list));
    let ratios = Ratios::default();
    Inputs { trace, list, ratios, warm_up, seed: 42, check: true, migrations: 0.0, rebalance: None, failures: None }
}

fn series(every: u64) -> Wanted {
    Wanted { series: Some(every), decisions: false }
}

fn policy(name: &str, domain: Domain, gpus: bool) -> Arc<Policy> {
    Arc::new(Policy::named(name, domain, gpus, 42).unwrap())
}

/// Two hosts of 4 vCPU and 8 MiB. v1 and v3 fill `a`, v2 takes 3 of `b`; v4 and v5 want 4 vCPU and find none.
const GOLDEN: &str = "\
0,create,v1,2,2,0,0,,g,,100
0,create,v2,3,3,0,0,,g,,400
50,create,v3,2,2,0,0,,,,
50,create,v4,4,4,0,0,,,,50
100,delete,v1,,,,,,,,
100,delete,v4,,,,,,,,
200,create,v5,4,2,0,0,,,,
400,delete,v2,,,,,,,,
";

/// Score of a host by what it has free, what is asked and what it has in all.
type Score = fn([f64; 2], [f64; 2], [f64; 2]) -> f64;

#[test]
fn golden_metrics() {
    let inputs = inputs(trace(GOLDEN), list("a,4,8,0,,r1\nb,4,8,0,,r2\n"), 0.0);
    let Replay { metrics, series, picture, .. } =
        replay(&inputs, &policy("first-fit", Domain::Nova, false), 2, series(100_000), &Unwatched).unwrap();
    assert_eq!((metrics.creates, metrics.deletes, metrics.orphan_deletes, metrics.hosts_peak), (5, 2, 1, 2));
    let rejections = metrics.rejections;
    assert_eq!(
        (rejections.count, rejections.milli_vcpus, rejections.memory_mib, rejections.by_reason.cpu),
        (2, 8000, 6, 2)
    );
    assert_eq!(metrics.first_rejection, Some(3));
    let close = |value: Option<f64>, wanted: f64| {
        assert!((value.unwrap() - wanted).abs() < 1e-9, "{value:?}, {wanted} expected");
    };
    // 5/8 of CPU for 50 s, 7/8 for 50 s, 5/8 for 300 s.
    close(metrics.density.cpu, (50.0 * 5.0 + 50.0 * 7.0 + 300.0 * 5.0) / 8.0 / 400.0);
    close(metrics.density.mem, (50.0 * 5.0 + 50.0 * 7.0 + 300.0 * 5.0) / 16.0 / 400.0);
    close(metrics.allocation.cpu, metrics.density.cpu.unwrap());
    close(metrics.empty_hosts, 0.0);
    // 2/4 and 3/4 are 1/8 off their mean, 4/4 and 3/4 as well.
    close(metrics.imbalance.cpu, 0.125);
    close(metrics.group_spread, 0.5);
    assert_eq!(metrics.large_slots, Some(0.0));
    let hosts: Vec<(f64, u64, u64)> =
        series.iter().map(|moment| (moment.time_s, moment.hosts_used, moment.rejected)).collect();
    assert_eq!(hosts, [(0.0, 2, 0), (100.0, 2, 1), (200.0, 2, 2), (300.0, 2, 2)]);
    // At 53 s `a` is full and 3/4 of `b`; at the end v3 is left, on half of `a`.
    let picture = picture.unwrap();
    let at = |time: u64| picture.moments.iter().find(|moment| moment.0 >= time).unwrap().1.clone();
    assert_eq!((at(52), at(400), picture.hosts), ("86".to_owned(), "40".to_owned(), 2));
    assert_eq!(picture.free, [(50, 75, 1), (100, 100, 1)]);
}

#[test]
fn golden_searches() {
    let policy = policy("best-fit", Domain::Nova, false);
    let hosts = "a,4,8,0,,r1\nb,4,8,0,,r2\nc,4,8,0,,r2\n";
    let inputs = inputs(trace(GOLDEN), list(hosts), 0.0);
    assert_eq!(min_hosts(&inputs, &policy, 1, &Unwatched).unwrap().0, 3);
    // Starts at events 0 and 2: v1 v2 v3 before v4 fails; v3, v4, then v5 with nobody deleted: two hosts are full.
    let failed = first_failure(&inputs, &policy, 2, 2, true, &Unwatched).unwrap();
    assert_eq!((failed.placed, failed.placed_sd, failed.without), (2.5, 0.5, 0));
    // At 300 s: v2 on one host, v3 on one, v5 on one. v5 needs a whole host; v2 and v3 fit beside nobody but v3 and nobody.
    let survived = survive(&inputs, &policy, 3, 300_000, &Unwatched).unwrap();
    assert_eq!(survived.snapshots, 2);
    assert!(survived.n1.unwrap() < 1.0 && survived.n1_vms_lost.unwrap() > 0.0, "{survived:?}");
}

/// v1 and v4 share a GPU, v2 and v3 the other. Placed by size (v3, v1, v2, v4) they need three: the loss is not covered, and
/// afterwards everything is where it was.
#[test]
fn shares_of_gpus_survive_a_loss() {
    let events = "\
0,create,v1,3,3,1,500,,,,
0,create,v2,2,2,1,600,,,,
0,create,v3,4,4,1,400,,,,
0,create,v4,1,1,1,500,,,,
100,create,v5,1,1,0,0,,,,
200,create,v6,1,1,0,0,,,,
";
    let inputs = inputs(trace(events), list("a,16,16,2,T4,r1\nb,16,16,2,T4,r2\n"), 0.0);
    let survived = survive(&inputs, &policy("first-fit", Domain::Pods, true), 2, 100_000, &Unwatched).unwrap();
    assert_eq!((survived.snapshots, survived.n1), (3, Some(0.0)), "{survived:?}");
}

/// On each of two hosts of 4 vCPU one VM of 2 vCPU is left; v5 needs a whole host, on the second day.
const SPREAD: &str = "\
0,create,v1,2,2,0,0,,,,
0,create,v2,2,2,0,0,,,,
0,create,v3,2,2,0,0,,,,
0,create,v4,2,2,0,0,,,,
50,delete,v1,,,,,,,,
50,delete,v3,,,,,,,,
90000,create,v5,4,2,0,0,,,,
";

#[test]
fn a_part_begins_with_what_lives_then() {
    let events = |trace: &Trace| -> Vec<(u64, Kind, String, Option<u64>)> {
        let told = |event: &simulation::trace::events::Event| {
            let vm = &trace.vms[event.vm as usize];
            (event.time / 1000, event.kind, vm.id.to_string(), vm.lifetime)
        };
        trace.events.iter().map(told).collect()
    };
    let whole = trace(GOLDEN);
    assert_eq!(events(&whole.clone().part(0.0, 1.0)), events(&whole));
    let create = |time, id: &str, lifetime| (time, Kind::Create, id.to_owned(), lifetime);
    let delete = |time, id: &str, lifetime| (time, Kind::Delete, id.to_owned(), lifetime);
    // From 160 s of 400 to 300: v1 and v4 are gone, v2 lives for 240 s more, v3 to the end, and v5 comes.
    let part = whole.part(0.4, 0.75);
    assert_eq!(events(&part), [create(160, "v2", Some(240_000)), create(160, "v3", None), create(200, "v5", None)]);
    assert_eq!(part.counts.iter().sum::<u64>(), 3);
    let part = trace(GOLDEN).part(0.25, 1.0);
    assert_eq!(
        events(&part)[4..],
        [delete(100, "v1", Some(0)), delete(100, "v4", Some(0))]
            .into_iter()
            .chain([create(200, "v5", None), delete(400, "v2", Some(300_000))])
            .collect::<Vec<_>>()[..]
    );
}

#[test]
fn a_move_makes_room() {
    let hosts = "a,4,8,0,,\nb,4,8,0,,\n";
    let run = |share: f64| {
        let inputs = Inputs { migrations: share, ..inputs(trace(SPREAD), list(hosts), 0.0) };
        let wanted = Wanted { decisions: true, ..series(86_400_000) };
        replay(&inputs, &policy("best-fit", Domain::Nova, false), 2, wanted, &Unwatched).unwrap()
    };
    let still = run(0.0).metrics;
    assert_eq!((still.rejections.count, still.migrations), (1, None));
    // Two are alive when the second day begins: half of them may be moved, and one is.
    let Replay { metrics: moved, series, record, .. } = run(0.5);
    let migrations = moved.migrations.unwrap();
    assert_eq!((moved.rejections.count, moved.creates, moved.hosts_peak), (0, 5, 2));
    assert_eq!(
        (migrations.budget, migrations.moves, migrations.memory_mib, migrations.in_vain),
        (vec![0, 1], vec![0, 1], 2, 0)
    );
    assert_eq!(series.last().map(|moment| moment.migrations), Some(0), "no point after the move");
    let none = run(0.4).metrics;
    assert_eq!(none.rejections.count, 1, "a budget of 0.8 VMs is none");
    let text = record.unwrap().sheets().map(|(_, sheet)| sheet.csv()).concat();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[1], "1,0,v1,a,,2,filter_host_instructions=2;filter_has_enough_capacity=2");
    assert!(lines[5].starts_with("5,90000,v5,") && lines[5].ends_with("filter_has_enough_capacity=1"), "{lines:?}");
    assert!(lines[7].starts_with("90000,v") && lines[7].ends_with(",2,room") && lines.len() == 8, "{lines:?}");
    // With a whole day's budget fewer hosts will do.
    let inputs = Inputs { migrations: 0.5, ..inputs(trace(SPREAD), list(hosts), 0.0) };
    let (count, migrations) = min_hosts(&inputs, &policy("best-fit", Domain::Nova, false), 1, &Unwatched).unwrap();
    assert_eq!((count, migrations.all()), (2, 1));
}

#[test]
fn rebalancing_in_periods() {
    // At the end of the second day, of the budget that began with those alive then.
    let later = "90000,create,v5,1,1,0,0,,,,\n90001,delete,v5,,,,,,,,\n200000,create,v6,1,1,0,0,,,,\n";
    let spread: String = SPREAD.split_inclusive('\n').take(6).collect();
    let full: String = spread.split_inclusive('\n').take(4).collect();
    let run = |events: &str, hosts: &str, objective| {
        let rebalance = Some(Rebalance { objective, every: 86_400_000 });
        let trace = trace(&format!("{events}{later}"));
        let inputs = Inputs { migrations: 0.5, rebalance, ..inputs(trace, list(hosts), 0.0) };
        let wanted = Wanted { decisions: true, ..series(86_400_000) };
        let count = hosts.lines().count();
        let done = replay(&inputs, &policy("best-fit", Domain::Nova, false), count, wanted, &Unwatched).unwrap();
        let moves = done.record.unwrap().sheets()[1].1.csv();
        let whys: Vec<String> = moves.lines().skip(1).map(|line| line.rsplit(',').next().unwrap().to_owned()).collect();
        let migrations = done.metrics.migrations.unwrap();
        let period = |period: &simulation::trace::migrations::Period| {
            (period.time_s, period.budget, period.moves, period.memory_mib, period.hosts_freed)
        };
        (migrations.periods.iter().map(period).collect::<Vec<_>>(), migrations.rebalanced.unwrap(), whys)
    };
    let three = "a,4,8,0,,\nb,4,8,0,,\nc,4,8,0,,\n";
    let (periods, all, whys) = run(&spread, three, Objective::Consolidate);
    assert_eq!(periods, [(86_400.0, 0, 0, 0, 0), (172_800.0, 1, 1, 2, 1)]);
    assert_eq!((all.hosts_freed_per_move, whys), (Some(1.0), vec!["consolidate".to_owned()]));
    // Were one of two hosts switched off, the other could not be lost any more.
    assert_eq!(run(&spread, "a,4,8,0,,\nb,4,8,0,,\n", Objective::Consolidate).1.moves, 0);
    // Two hosts are full and one is empty: one gives it one, and another move would only turn it round.
    let (periods, _, whys) = run(&full, three, Objective::Balance);
    assert_eq!((periods[1], whys), ((172_800.0, 2, 1, 2, 0), vec!["balance".to_owned()]));
}

/// What the reference policies are, in the plainest words; sizes in vCPU and MiB.
fn naive(trace: &Trace, hosts: &[Host], score: impl Fn([f64; 2], [f64; 2], [f64; 2]) -> f64) -> Vec<Option<usize>> {
    let capacity = |host: &Host| [host.milli_cpu as f64 / 1000.0, host.memory_mib as f64];
    let mut free: Vec<[f64; 2]> = hosts.iter().map(capacity).collect();
    let most = [0, 1].map(|r| hosts.iter().map(|host| capacity(host)[r]).fold(0.0, f64::max));
    let mut at = vec![None; trace.vms.len()];
    let mut out = Vec::new();
    for event in &trace.events {
        let shape = trace.shape(event.vm);
        let asked = [shape.milli_cpu as f64 / 1000.0, shape.memory_mib as f64];
        if event.kind == Kind::Delete {
            if let Some(host) = at[event.vm as usize] {
                let free: &mut [f64; 2] = &mut free[host];
                *free = [free[0] + asked[0], free[1] + asked[1]];
            }
            continue;
        }
        let fit = (0..hosts.len()).filter(|&host| free[host][0] >= asked[0] && free[host][1] >= asked[1]);
        let scored = fit.map(|host| ((score(free[host], asked, most) * 1e9).round() as i64, std::cmp::Reverse(host)));
        let host = scored.max().map(|(_, host)| host.0);
        if let Some(host) = host {
            free[host] = [free[host][0] - asked[0], free[host][1] - asked[1]];
        }
        at[event.vm as usize] = host;
        out.push(host);
    }
    out
}

/// The first events of the shipped trace on few hosts, so that many creates are rejected.
fn cut(folder: &str, nodes: &str, events: usize) -> (Trace, HostList) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces").join(folder);
    let mut trace = Trace::open(&folder.join("events.csv.gz")).unwrap();
    trace.events.truncate(events);
    (trace, HostList::open(&folder.join(nodes)).unwrap())
}

/// Host of each create.
fn chosen(inputs: &Inputs, name: &str, hosts: usize) -> Vec<Option<usize>> {
    let estate = inputs.estate(&policy(name, Domain::Nova, false), hosts).unwrap();
    let mut chosen = Vec::new();
    let after = |_, played, _: &_| match played {
        Played::Placed(_, host) => chosen.push(Some(host as usize)),
        Played::Rejected(_) => chosen.push(None),
        _ => {}
    };
    Player::new(inputs, estate, &Unwatched).play(0, |_, _| Ok(()), after).unwrap();
    chosen
}

/// Where VMs go up to a time does not depend on what comes later, nor on the lifetimes that the trace tells; those of the
/// oracle do.
#[test]
fn what_is_learned_is_of_the_past() {
    let (whole, list) = cut("azure2017", "nodes-uniform.csv", 22_000);
    let mut past = whole.clone();
    past.events.truncate(16_000);
    past.vms.iter_mut().for_each(|vm| vm.lifetime = None);
    let [whole, past] = [whole, past].map(|trace| Inputs { check: false, ..inputs(trace, list.clone(), 0.25) });
    for (name, equal) in [("lifetime-learned", true), ("lifetime-oracle", false)] {
        let (all, known) = (chosen(&whole, name, 100), chosen(&past, name, 100));
        assert!(known.len() > 5_000 && all.len() > known.len());
        assert_eq!(all[..known.len()] == known[..], equal, "{name}");
    }
    assert_ne!(chosen(&past, "lifetime-learned", 100), chosen(&past, "best-fit", 100));
    let learned = policy("lifetime-learned", Domain::Nova, false);
    let told = replay(&whole, &learned, 100, Wanted::default(), &Unwatched).unwrap().metrics.lifetimes.unwrap();
    let said: u64 = told.created.vms.iter().flatten().sum();
    assert!(said > 5_000 && told.an_hour_old.vms.iter().flatten().sum::<u64>() > 100, "{told:?}");
    assert!(told.created.right.unwrap() <= 1.0 && told.created.right_by_one_class.unwrap() > 0.5, "{told:?}");
}

#[test]
fn pipelines_choose_as_their_definitions_say() {
    for nodes in ["nodes-uniform.csv", "nodes-mixed.csv"] {
        let (trace, list) = cut("azure2017", nodes, 12_000);
        let mut inputs = inputs(trace, list, 0.25);
        inputs.check = false;
        let hosts = inputs.list.first(70);
        let references: [(&str, Score); 5] = [
            ("first-fit", |_, _, _| 0.0),
            ("best-fit", |f, q, c| -(f[0] - q[0]) / c[0] - (f[1] - q[1]) / c[1]),
            ("worst-fit", |f, q, c| (f[0] - q[0]) / c[0] + (f[1] - q[1]) / c[1]),
            ("dot-product", |f, q, c| q[0] * f[0] / (c[0] * c[0]) + q[1] * f[1] / (c[1] * c[1])),
            ("l2-norm", |f, q, c| -((f[0] - q[0]) / c[0]).powi(2) - ((f[1] - q[1]) / c[1]).powi(2)),
        ];
        for (name, score) in references {
            let wanted = naive(&inputs.trace, &hosts, score);
            let chosen = chosen(&inputs, name, 70);
            let differ = chosen.iter().zip(&wanted).position(|(chosen, wanted)| chosen != wanted);
            assert_eq!((differ, chosen.len()), (None, wanted.len()), "{name} on {nodes}");
            assert!(chosen.contains(&None), "{name} on {nodes}: a rejection expected");
        }
    }
}

#[test]
fn results_do_not_depend_on_threads() {
    let (mut trace, list) = cut("azure2017", "nodes-uniform.csv", 3_000);
    trace.events.iter_mut().zip(0..).for_each(|(event, at)| event.time = at * 100_000);
    let mut inputs = inputs(trace, list, 0.25);
    inputs.check = false;
    (inputs.migrations, inputs.rebalance) =
        (0.1, Some(Rebalance { objective: Objective::Consolidate, every: 7_200_000 }));
    let policies = ["random", "fgd", "ram-cpu-spread", "lifetime-learned", "nova-packing"];
    let study = Study {
        inputs,
        policies: policies.map(|name| policy(name, Domain::Nova, false)).to_vec(),
        modes: vec![Mode::Replay, Mode::Inflate { factor: 1.1 }, Mode::FirstFailure { starts: 2 }],
        count: 12,
        series: Some(300_000),
        decisions: false,
    };
    study.check().unwrap();
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let limits = pool.install(|| study.limits(3));
        let done = pool.install(|| study.run(&limits, |_| None, |_, _| Ok(()), |_| Box::new(Unwatched))).unwrap();
        (study.result(&limits, &done).to_string(), study.series(&done).csv())
    };
    let (one, four) = (run(1), run(4));
    assert_eq!(one, four);
    assert!(one.0.contains("\"fgd\"") && one.0.contains("\"hosts_freed\":1") && one.1.lines().count() > 10);
}

#[test]
fn shared_devices() {
    let (trace, list) = cut("openb2023", "nodes-small.csv", 2_000);
    let inputs = Inputs { check: false, ..inputs(trace, list, 0.0) };
    for name in ["best-fit", "fgd"] {
        let inflation = inflate(&inputs, &policy(name, Domain::Pods, true), 15, 1.2, &Unwatched).unwrap();
        assert_eq!(inflation.resource, "gpu");
        assert!(
            inflation.at_factor > 0.8 && inflation.at_factor <= 1.0 && inflation.rejected > 0,
            "{name}: {inflation:?}"
        );
        assert!(inflation.at_100 <= inflation.at_factor && inflation.curve.len() >= 119, "{name}");
    }
}

#[test]
fn bad_input_is_told_by_line_and_column() {
    let cases: [(&str, &str); 16] = [
        ("", "events.csv: empty, a header expected"),
        ("time_s,event,vm_id,vcpus\n", "events.csv: line 1: column memory_mib is missing"),
        ("5,create,a,1,1,0,0,,,,\n4,create,b,1,1,0,0,,,,\n", "events.csv: line 3, column time_s: 4 given after 5"),
        ("0,create,a,1,1,0,0,,,,\n0,create,a,1,1,0,0,,,,\n", "line 3, column vm_id: a is created a second time"),
        (
            "0,create,a,1,1,0,0,,,,\n0,delete,a,,,,,,,,\n0,delete,a,,,,,,,,\n",
            "line 4, column vm_id: a is deleted a second time",
        ),
        ("0,delete,a,,,,,,,,\n", "line 2, column vm_id: a is deleted before it is created"),
        ("0,create,a,1,1,0,0\n", "line 2: 7 cells given, 11 expected as in the header; the file may be cut off"),
        ("0,create,a,-1,1,0,0,,,,\n", "line 2, column vcpus: '-1' given, a number from 0 to"),
        ("0,create,a,1.0001,1,0,0,,,,\n", "line 2, column vcpus: '1.0001' given, a number from 0 to"),
        (
            "0,create,a,1,99999999999999999999,0,0,,,,\n",
            "line 2, column memory_mib: '99999999999999999999' given, a whole number",
        ),
        ("0,create,a,1,,0,0,,,,\n", "line 2, column memory_mib: empty, a value expected"),
        ("NaN,create,a,1,1,0,0,,,,\n", "line 2, column time_s: 'NaN' given"),
        ("0,resize,a,1,1,0,0,,,,\n", "line 2, column event: 'resize' given, create or delete expected"),
        ("0,create,a,1,1,2,500,,,,\n", "line 2, column gpu_milli: 500 of each of 2 GPUs given"),
        ("0,create,\u{7},1,1,0,0,,,,\n", "line 2, column vm_id: '\\u{7}' given, a name"),
        ("\n", "events.csv: no create given"),
    ];
    for (lines, wanted) in cases {
        let text =
            if lines.is_empty() || lines.starts_with("time_s") { lines.to_owned() } else { format!("{HEADER}{lines}") };
        let error = Trace::read("events.csv", text.into_bytes()).unwrap_err().to_string();
        assert!(error.contains(wanted), "{lines:?}: {error}; {wanted} expected");
    }
    let not_text = [HEADER.as_bytes(), b"0,create,a\xff,1,1,0,0,,,,\n"].concat();
    let error = Trace::read("events.csv", not_text).unwrap_err().to_string();
    assert_eq!(error, "events.csv: line 2, column vm_id: 'a\\xff' given, UTF-8 expected");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces/azure2017");
    let packed = std::fs::read(folder.join("events.csv.gz")).unwrap();
    let error = Trace::read("events.csv.gz", packed[..packed.len() / 2].to_vec()).unwrap_err().to_string();
    assert!(error.contains("cut off") && error.contains(": line "), "{error}");
    let twice = HostList::read("nodes.csv", b"node_id,vcpus,memory_mib\na,1,1\na,1,1\n".to_vec()).unwrap_err();
    assert_eq!(twice.to_string(), "nodes.csv: line 3, column node_id: a is there twice, once expected");
    let huge =
        HostList::read("nodes.csv", format!("node_id,vcpus,memory_mib\n{},1,1\n", "x".repeat(5000)).into_bytes());
    assert!(huge.unwrap_err().to_string().contains("line 2, column node_id: 5000 bytes given"));
}

/// What is wrong with files of each kind, and what is told of it.
#[test]
fn every_kind_of_file_is_checked() {
    type Kind = (&'static str, &'static str, &'static str, fn(Vec<u8>) -> Result<(), String>);
    let kinds: [Kind; 3] = [
        ("events", HEADER, "0,create,a,1,1,0,0,,,,\n", |bytes| {
            Trace::read("events", bytes).map(drop).map_err(|error| error.to_string())
        }),
        ("shapes", "vcpus,memory_mib,gpus,gpu_milli,gpu_models\n", "1,1,0,0,\n", |bytes| {
            Trace::read_shapes("shapes", bytes).map(drop).map_err(|error| error.to_string())
        }),
        ("nodes", "node_id,vcpus,memory_mib\n", "a,1,1\n", |bytes| {
            HostList::read("nodes", bytes).map(drop).map_err(|error| error.to_string())
        }),
    ];
    for (kind, header, line, read) in kinds {
        let file = |line: &str| format!("{header}{line}").into_bytes();
        let packed = |bytes: &[u8]| {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packer.write_all(bytes).unwrap();
            packer.finish().unwrap()
        };
        let whole = file(&line.repeat(if kind == "shapes" { 5_000 } else { 1 }));
        assert_eq!(read(whole.clone()), Ok(()), "{kind}");
        assert_eq!(read(packed(&whole)), Ok(()), "{kind}");
        let zstd = zstd::encode_all(&whole[..], 1).unwrap();
        assert_eq!(read(zstd.clone()), Ok(()), "{kind}");
        // CPU is the first 1 of the line, memory the one after it.
        let memory = |value: &str| {
            let at = line.find('1').unwrap() + 2;
            file(&format!("{}{value}{}", &line[..at], &line[at + 1..]))
        };
        let cpu_first = |value: &str| file(&line.replacen('1', value, 1));
        let mut not_text = file(line);
        not_text[header.len() + line.find('1').unwrap() + 2] = 0xff;
        let cells = header.matches(',').count() + 1;
        let cases: [(&str, Vec<u8>, String); 12] = [
            ("no bytes", Vec::new(), format!("{kind}: empty, a header expected")),
            ("no line", header.into(), format!("{kind}: no ")),
            (
                "a missing column",
                [header.replace("memory_mib", "memory").as_bytes(), line.as_bytes()].concat(),
                format!("{kind}: line 1: column memory_mib is missing"),
            ),
            (
                "a column twice",
                format!("{},vcpus\n{},1\n", header.trim_end(), line.trim_end()).into_bytes(),
                format!("{kind}: line 1: column vcpus is there twice"),
            ),
            ("a short line", file("1\n"), format!("{kind}: line 2: 1 cells given, {cells} expected")),
            ("negative", cpu_first("-1"), format!("{kind}: line 2, column vcpus: '-1' given, a number from 0")),
            (
                "gigantic",
                memory("99999999999999999999"),
                format!("{kind}: line 2, column memory_mib: '99999999999999999999' given"),
            ),
            ("not UTF-8", not_text, format!("{kind}: line 2, column memory_mib: '\\xff' given, UTF-8 expected")),
            ("a cut gzip", packed(&whole)[..packed(&whole).len() / 2].to_vec(), "cannot be read".to_owned()),
            ("a cut zstd", zstd[..zstd.len() - 4].to_vec(), "cannot be read".to_owned()),
            (
                "a line without end",
                packed(&[header.as_bytes(), &vec![b'1'; 3 << 20]].concat()),
                "a line of more than 1048576 bytes".to_owned(),
            ),
            (
                "a quote without end",
                packed(&[header.as_bytes(), b"\"", &b"1\n".repeat(2 << 20)].concat()),
                "a line of more than 1048576 bytes".to_owned(),
            ),
        ];
        for (what, bytes, wanted) in cases {
            let told = read(bytes).err().unwrap_or_else(|| "taken".to_owned());
            assert!(told.contains(&wanted), "{kind}, {what}: {told}; {wanted} expected");
        }
    }
}

#[test]
fn a_file_of_four_gibibytes_is_not_read() {
    let path = std::env::temp_dir().join(format!("pallium-gigantic-{}.csv", std::process::id()));
    std::fs::File::create(&path).unwrap().set_len((4 << 30) + 1).unwrap();
    let told = [Trace::open(&path).err(), Trace::open_shapes(&path).err(), HostList::open(&path).err()];
    std::fs::remove_file(&path).unwrap();
    for told in told {
        let told = told.unwrap().to_string();
        assert!(told.contains("4294967297 bytes given, at most 4294967296 expected"), "{told}");
    }
}
