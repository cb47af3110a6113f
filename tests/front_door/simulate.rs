//! `pallium simulate`: what it prints and writes, that a study goes on where it stood, and that bad input leaves nothing.

use std::fs;
use std::path::Path;

use crate::command_line::{pallium, text};

const EVENTS: &str = "time_s,event,vm_id,vcpus,memory_mib,gpus,gpu_milli,gpu_models,group,class,lifetime_s
0,create,v1,2,2,0,0,,,,100
0,create,v2,3,3,0,0,,,,400
50,create,v3,2,2,0,0,,,,
100,delete,v1,,,,,,,,
400,delete,v2,,,,,,,,
";
const NODES: &str = "node_id,vcpus,memory_mib,gpus,gpu_model,domain\na,4,8,0,,r1\nb,4,8,0,,r2\nc,4,8,0,,r2\n";

fn files(folder: &Path) -> [String; 3] {
    let [events, nodes, out] = ["events.csv", "nodes.csv", "study"].map(|name| folder.join(name).display().to_string());
    fs::write(&events, EVENTS).expect("written");
    fs::write(&nodes, NODES).expect("written");
    [events, nodes, out]
}

#[test]
fn a_study_prints_tables_and_goes_on_where_it_stood() {
    let dir = tempfile::tempdir().expect("a folder");
    let [events, nodes, out] = files(dir.path());
    let study = |more: &[&str]| {
        let usual = ["simulate", "--trace", &events, "--hosts", &nodes, "--out", &out, "--mode", "min-hosts,replay"];
        pallium(&[&usual[..], more].concat())
    };
    let first = study(&["--policy", "best-fit,nova-packing"]);
    let told = text(&first.stdout);
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    for wanted in ["lower bounds: volume 2", "Hosts needed for no rejection", "best-fit", "nova-packing", "EMPTY"] {
        assert!(told.contains(wanted), "{wanted} expected in\n{told}");
    }
    let read = |name: &str| fs::read_to_string(Path::new(&out).join(name)).expect(name);
    let result: serde_json::Value = serde_json::from_str(&read("result.json")).expect("JSON");
    assert_eq!(result["policies"]["best-fit"]["min_hosts"], 2);
    assert_eq!(result["policies"]["nova-packing"]["replay"]["rejections"]["count"], 0);
    assert!(read("series.csv").starts_with("time_s,policy,hosts_used") && read("series.csv").lines().count() > 2);
    // What is done is not run again: a mark in it is still there after the next run, beside a new policy.
    let point = Path::new(&out).join("points/min-hosts.best-fit.json");
    let marked = fs::read_to_string(&point).expect("a point").replace("\"min_hosts\":2", "\"min_hosts\":7");
    fs::write(&point, marked).expect("written");
    let again = study(&["--policy", "best-fit,first-fit"]);
    assert_eq!(again.status.code(), Some(0), "{}", text(&again.stderr));
    let result: serde_json::Value = serde_json::from_str(&read("result.json")).expect("JSON");
    assert_eq!(
        (&result["policies"]["best-fit"]["min_hosts"], &result["policies"]["first-fit"]["min_hosts"]),
        (&7.into(), &2.into())
    );
    // With another seed it is.
    assert_eq!(study(&["--policy", "best-fit", "--seed", "1"]).status.code(), Some(0));
    let result: serde_json::Value = serde_json::from_str(&read("result.json")).expect("JSON");
    assert_eq!(result["policies"]["best-fit"]["min_hosts"], 2);
}

#[test]
fn bad_input_is_told_and_nothing_is_written() {
    let dir = tempfile::tempdir().expect("a folder");
    let [events, nodes, out] = files(dir.path());
    fs::write(&events, EVENTS.replace("50,create,v3", "50,create,v2")).expect("written");
    let run = |more: &[&str]| {
        let output = pallium(&[&["simulate", "--trace", &events, "--hosts", &nodes, "--out", &out][..], more].concat());
        (output.status.code(), text(&output.stderr))
    };
    let (code, told) = run(&[]);
    assert_eq!(code, Some(1));
    assert!(told.contains("line 4, column vm_id: v2 is created a second time"), "{told}");
    fs::write(&events, EVENTS).expect("written");
    let (code, told) = run(&["--lifetimes", "guessed"]);
    assert_eq!(code, Some(2));
    assert!(told.contains("none, learned, oracle"), "{told}");
    for (arguments, code, wanted) in [
        (["--policy", "best-fits"], 2, "policy 'best-fits' is not known"),
        (["--policy", "nova-packing:power=1"], 2, "'power=1' given, STEP.OPTION=VALUE"),
        (["--until", "200%"], 2, "a share expected"),
        (["--warm-up", "2"], 2, "--warm-up: 2 given"),
        (["--policy", "missing.yaml"], 1, "missing.yaml: "),
        (["--hosts-count", "0"], 2, "--hosts-count: 0 given"),
        (["--rebalance", "consolidate"], 2, "--rebalance: no move is allowed, a budget expected"),
        (["--rebalance", "spread"], 2, "[possible values: consolidate, balance]"),
    ] {
        let (given, told) = run(&arguments);
        assert_eq!(given, Some(code), "{arguments:?}: {told}");
        assert!(told.contains(wanted), "{arguments:?}: {told}");
    }
    assert!(!Path::new(&out).exists(), "nothing is written for bad input");
}

/// On one host a VM is rejected, on three none is.
#[test]
fn a_study_is_written_in_every_form_and_two_are_compared() {
    let dir = tempfile::tempdir().expect("a folder");
    let [events, nodes, before] = files(dir.path());
    let after = dir.path().join("after").display().to_string();
    let run = |arguments: &[&str]| {
        let output = pallium(&[&["simulate"], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let read = |folder: &str, name: &str| fs::read(Path::new(folder).join(name)).expect(name);
    let studied = ["--trace", &events, "--hosts", &nodes, "--policy", "best-fit,lifetime-learned", "--out"];
    run(&[&studied[..], &[&before, "--hosts-count", "1", "--mode", "replay,survive", "--snapshot-hours", "0.02"]]
        .concat());
    run(&[&studied[..], &[&after, "--hosts-count", "3", "--seeds", "2", "--policy", "random", "--migrations", "50%"]]
        .concat());

    let text_of = |folder: &str, name: &str| String::from_utf8(read(folder, name)).expect("UTF-8");
    let summary = text_of(&before, "summary.csv");
    for wanted in [
        "best-fit,replay.rejections.count,VMs,1\n",
        "best-fit,replay.rejections.by_reason.cpu,VMs,1\n",
        ",volume,hosts,2\n",
    ] {
        assert!(summary.contains(wanted), "{wanted:?} expected in\n{summary}");
    }
    for name in ["summary.parquet", "series.parquet"] {
        let bytes = read(&before, name);
        assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"), "{name}");
    }
    let page = text_of(&before, "report.html");
    for wanted in [
        "lower bound <b>",
        "<h2>Rejections by reason</h2>",
        "<h2>Hosts over time</h2>",
        "<h2>What is free at the end</h2>",
        "<h2>One host lost</h2>",
        "<h2>Lifetimes foretold: lifetime-learned</h2>",
        "prefers-color-scheme:dark",
        "@media print",
    ] {
        assert!(page.contains(wanted), "{wanted} expected in the report");
    }
    // One file without network.
    for never in ["http:", "https:", "src=", "url(", "<script", "NaN"] {
        assert!(!page.contains(never), "{never} in the report");
    }
    let result: serde_json::Value = serde_json::from_slice(&read(&after, "result.json")).expect("JSON");
    assert_eq!(result["seeds"]["seeds"], serde_json::json!([42, 43]));
    assert_eq!(result["seeds"]["policies"]["best-fit"]["replay.hosts_peak"]["sd"], 0.0);
    assert_eq!(result["policies"]["lifetime-learned"]["replay"]["empty_hosts_over_best_fit"], 0.0);
    assert!(text_of(&after, "report.html").contains("<h2>Moves by day</h2>"));

    let both = dir.path().join("both").display().to_string();
    let told = run(&["--compare", &before, &after, "--out", &both]);
    for wanted in ["not equal: hosts, 1 and 3", "before: study, after: after", "Rejections"] {
        assert!(told.contains(wanted), "{wanted} expected in\n{told}");
    }
    assert!(!told.contains("random"), "{told}");
    let page = text_of(&both, "report.html");
    for wanted in ["best-fit · study", "best-fit · after", "lower bound · after", "-100.0 %"] {
        assert!(page.contains(wanted), "{wanted} expected in the report of both");
    }
    let missing = pallium(&["simulate", "--compare", &before, &events]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        text(&missing.stderr).contains("the folder of a study (simulate --out) expected"),
        "{}",
        text(&missing.stderr)
    );
}

#[test]
fn a_part_of_a_trace_and_varied_options() {
    let dir = tempfile::tempdir().expect("a folder");
    let [events, nodes, _] = files(dir.path());
    let varied = "nova-packing:slot_prices.shapes=1 4 8 0 0 -:slot_prices.power=1";
    let usual = ["simulate", "--trace", &events, "--hosts", &nodes, "--policy", "nova-packing", "--policy", varied];
    let output = pallium(&[&usual[..], &["--until", "20%", "--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let rebalanced = ["--migrations", "50%", "--rebalance", "balance", "--rebalance-hours", "0.1", "--json"];
    let rebalanced = pallium(&[&usual[..], &rebalanced].concat());
    let told: serde_json::Value = serde_json::from_slice(&rebalanced.stdout).expect("JSON");
    assert_eq!(told["inputs"]["rebalance"], serde_json::json!({ "objective": "balance", "hours": 0.1 }));
    assert_eq!(told["policies"]["nova-packing"]["replay"]["migrations"]["periods"][0]["time_s"], 360.0);
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(result["policy_order"], serde_json::json!(["nova-packing", varied]));
    // Until 80 s there are three creates and no delete.
    assert_eq!(result["inputs"]["trace"]["events"], 3);
    assert_eq!(result["policies"][varied]["replay"]["deletes"], 0);
}

/// `a` fails, and v1 and v3 fill `c`; `b` fails, and v2 waits 10 s until `a` is back.
#[test]
fn hosts_fail_and_their_vms_are_evacuated() {
    let dir = tempfile::tempdir().expect("a folder");
    let [events, nodes, out] = files(dir.path());
    let failures = dir.path().join("failures.csv").display().to_string();
    let listed = ["--failures", &failures];
    let run = |more: &[&str]| {
        let usual = ["simulate", "--trace", &events, "--hosts", &nodes, "--policy", "first-fit", "--out", &out];
        let output = pallium(&[&usual[..], more].concat());
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let header = "time_s,node_id,event\n";
    // The cells of files are checked in the library; here, that a bad one is told and leaves nothing.
    for (lines, wanted) in [
        ("0,x,fail\n", "failures.csv: line 2, column node_id: x is none of the 3 hosts of this run"),
        ("0,a,fail\n1,a,fail\n", "line 3, column event: a fails and is down already, a recover before it expected"),
        ("0,a,recover\n", "line 2, column event: a recovers and is not down, a fail before it expected"),
        ("5,a,fail\n4,b,fail\n", "line 3, column time_s: 4 given after 5"),
        ("-1,a,fail\n", "line 2, column time_s: '-1' given"),
        ("0,a", "line 2: 2 cells given, 3 expected as in the header; the file may be cut off"),
        ("", "no fail given"),
    ] {
        fs::write(&failures, format!("{header}{lines}")).expect("written");
        let (code, _, told) = run(&listed);
        assert_eq!(code, Some(1), "{lines:?}: {told}");
        assert!(told.contains(wanted), "{lines:?}: {told}");
    }
    fs::write(&failures, [header.as_bytes(), b"0,\xff,fail\n"].concat()).expect("written");
    assert!(run(&listed).2.contains("line 2, column node_id: '\\xff' given, UTF-8 expected"));
    fs::write(&failures, format!("{header}60,a,fail\n70,b,fail\n80,a,recover\n")).expect("written");
    for (more, code, wanted) in [
        (&["--failures", "missing.csv"][..], 1, "missing.csv: "),
        (&["--mtbf", "90"], 2, "a time above 0 expected, as 365d, 4h, 30m or 20s"),
        (&["--mtbf", "0d", "--mttr", "4h"], 2, "a time above 0 expected"),
        (&["--mtbf", "90d"], 2, "--mttr <TIME>"),
        (&["--domain-share", "10%"], 2, "--mtbf <TIME>"),
        (&["--mtbf", "90d", "--mttr", "4h", "--domain-share", "110%"], 2, "a share expected"),
        (&["--mtbf", "1s", "--mttr", "4h", "--failures", &failures], 2, "cannot be used with"),
        (&["--failures", &failures, "--mode", "min-hosts"], 1, "hosts fail in mode replay only, min-hosts given"),
        (&["--failures", &failures, "--hosts-count", "1"], 1, "b is none of the 1 hosts of this run"),
    ] {
        let (given, _, told) = run(more);
        assert_eq!(given, Some(code), "{more:?}: {told}");
        assert!(told.contains(wanted), "{more:?}: {told}");
    }
    assert!(!Path::new(&out).exists(), "nothing is written for bad input");

    let (code, told, why) = run(&["--failures", &failures, "--check"]);
    assert_eq!(code, Some(0), "{why}");
    assert!(
        told.contains("Failures of hosts")
            && told.contains("worst moment of first-fit, at 70 s: 1 of 1 VMs without a place; b"),
        "{told}"
    );
    let read = |name: &str| fs::read_to_string(Path::new(&out).join(name)).expect(name);
    let result: serde_json::Value = serde_json::from_str(&read("result.json")).expect("JSON");
    let failed = &result["policies"]["first-fit"]["replay"]["failures"];
    assert_eq!((&failed["at_once"], &failed["later"], &failed["down_vm_s"]), (&2.into(), &1.into(), &10.0.into()));
    assert!(read("summary.csv").contains("first-fit,replay.failures.vms,VMs,3\n"));
    assert!(read("report.html").contains("<h2>Worst moments of failure</h2>"));
    // What is drawn is another study.
    let (code, _, why) = run(&["--mtbf", "60s", "--mttr", "5s", "--domain-share", "50%"]);
    assert_eq!(code, Some(0), "{why}");
    let result: serde_json::Value = serde_json::from_str(&read("result.json")).expect("JSON");
    assert_eq!(result["inputs"]["failures"]["domain_share"], 0.5);
    assert!(result["policies"]["first-fit"]["replay"]["failures"]["hosts"].as_u64() > Some(2), "{result}");
}
