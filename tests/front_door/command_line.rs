//! The command line: what it prints, and its exit codes.

use std::process::{Command, Output};

use crate::server::{BINARY, Server, run};
use crate::spec;

pub fn pallium(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).env("NO_COLOR", "1").output().expect("the binary runs")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[test]
fn usage_errors_are_two_and_refusals_are_one() {
    assert_eq!(pallium(&["nonsense"]).status.code(), Some(2));
    assert_eq!(pallium(&["serve"]).status.code(), Some(2), "--data-dir is missing");
    let refused = pallium(&["ctl", "hosts", "--server", "http://127.0.0.1:1"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("127.0.0.1:1"), "{}", text(&refused.stderr));
    // Refused before anything is read or written.
    for (given, words) in [
        (&["ctl", "restore", "none", "--data-dir", "none", "--node-id", "0"][..], "--node-id"),
        (&["ctl", "restore", "none", "--data-dir", "none", "--peer-addr", "nonsense"], "a host and a port expected"),
        (&["ctl", "recover", "--i-lost-the-majority", "--data-dir", "none", "--peer-addr", ":1"], "a host and a port"),
    ] {
        let refused = pallium(given);
        assert_eq!(refused.status.code(), Some(2), "{given:?}");
        assert!(text(&refused.stderr).contains(words), "{}", text(&refused.stderr));
    }
    for command in [
        &["--help"][..],
        &["serve", "--help"],
        &["demo", "--help"],
        &["ctl", "--help"],
        &["ctl", "import", "--help"],
        &["ctl", "hosts", "--help"],
        &["ctl", "instances", "--help"],
        &["ctl", "place", "--help"],
        &["ctl", "explain", "--help"],
        &["ctl", "decisions", "--help"],
        &["certs", "--help"],
        &["completions", "--help"],
        &["schema", "--help"],
    ] {
        let help = pallium(command);
        assert_eq!(help.status.code(), Some(0));
        assert!(text(&help.stdout).contains("pallium"), "an example in {command:?}");
    }
    assert!(!pallium(&["completions", "bash"]).stdout.is_empty());
    let schema: serde_json::Value = serde_json::from_slice(&pallium(&["schema", "fleet"]).stdout).expect("JSON");
    assert!(schema["$schema"].is_string());
}

#[test]
fn an_import_is_idempotent_and_an_explanation_says_why_not() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let server = Server::start(&dir.path().join("data"));
        let ctl = |arguments: &[&str]| {
            let output = pallium(&[&["ctl", "--server", &server.url], arguments].concat());
            (output.status.code(), text(&output.stdout) + &text(&output.stderr))
        };
        let body = spec::request("07");
        let hosts = simulation::fixtures::fleet_for(&body);
        let fleet = dir.path().join("fleet.json");
        let document = serde_json::json!({"domain": "nova", "hosts": hosts});
        std::fs::write(&fleet, document.to_string()).expect("written");
        let file = fleet.to_str().expect("UTF-8");

        let (code, printed) = ctl(&["import", file]);
        assert_eq!(code, Some(0), "{printed}");
        assert!(printed.contains(&format!("{} added", hosts.len())), "{printed}");
        let (_, printed) = ctl(&["import", file]);
        assert!(printed.contains(&format!("{} unchanged", hosts.len())), "{printed}");
        assert!(ctl(&["hosts"]).1.contains(&hosts[0].name));

        let answer = server.hook(&body).await;
        let id = answer.header("x-pallium-decision").expect("an id").to_owned();
        let answered = answer.hosts();
        let dropped = spec::hosts(&body).into_iter().find(|host| !answered.contains(host)).expect("one is unfit");
        let (code, printed) = ctl(&["explain", &id, "--host", &dropped]);
        assert_eq!(code, Some(0), "{printed}");
        assert!(
            printed.contains(&format!("{} of {} hosts fit", answered.len(), spec::hosts(&body).len())),
            "{printed}"
        );
        assert!(printed.contains(&dropped), "{printed}");
        let (_, by_instance) = ctl(&["explain", &spec::instance(&body)]);
        assert!(by_instance.contains(&answered[0]), "{by_instance}");
        assert!(ctl(&["decisions"]).1.contains(&id));
        assert!(ctl(&["instances", "--host", &answered[0]]).1.contains(&spec::instance(&body)));
    });
}

#[test]
fn a_refusal_says_what_would_help() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let server = Server::start(&dir.path().join("data"));
        let running = scheduler::InstanceReport {
            uuid: spec::uuid(9).parse().expect("a uuid"),
            resources: Some([("VCPU".to_owned(), 4), ("MEMORY_MB".to_owned(), 4096)].into()),
            ..scheduler::InstanceReport::default()
        };
        let full = scheduler::HostReport { instances: Some(vec![running]), ..spec::host("a", 10, 16_384) };
        server.apply(&[full, spec::host("b", 4, 16_384)]).await;
        let hosts = ["a".to_owned(), "b".to_owned()];
        let answer = server.hook(&spec::create(&spec::uuid(1), &hosts, 8, 8192)).await;
        assert_eq!(answer.hosts(), Vec::<String>::new());
        let told = server.ctl(&["explain", &spec::uuid(1)]).expect("an explanation");
        let moved = format!("move {} (4 VCPU, 4 GiB) from a to b: it fits on a then", spec::uuid(9));
        let words = told.split_whitespace().collect::<Vec<_>>().join(" ");
        for line in ["what would help, each by itself:", "- 2 VCPU more on a in az-a", &moved] {
            assert!(words.contains(line), "'{line}' not in:\n{told}");
        }
        assert!(told.lines().all(|line| line.chars().count() <= 80), "{told}");
        // Twice as much on one host of the two is enough by now: the answer is of now.
        server.apply(&[spec::host("b", 8, 16_384)]).await;
        let told = server.ctl(&["explain", &spec::uuid(1)]).expect("an explanation");
        assert!(told.contains("things have changed since: 1 host would fit now"), "{told}");
    });
}

#[test]
fn all_of_several_are_claimed_or_it_fails() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let server = Server::start(&dir.path().join("data"));
        server.apply(&[spec::host("a", 8, 16_384), spec::host("b", 4, 16_384)]).await;
        for (more, code, words) in [
            (&["--count", "4"][..], 1, "3 of 4 consumers could be placed together: none was claimed"),
            (&["--count", "4", "-o", "json"], 1, "3 of 4 consumers could be placed together: none was claimed"),
            (&["--count", "4", "--dry-run"], 1, "3 of 4 consumers could be placed together: none was claimed"),
            (&["--count", "3", "--dry-run"], 0, "2 of 2 hosts fit"),
            (&["--count", "0"], 2, "--count"),
            (&["--count", "3"], 0, " on b"),
            (&["--count", "2"], 1, "0 of 2 consumers could be placed together: none was claimed"),
        ] {
            let place = ["ctl", "--server", &server.url, "place", "--vcpus", "4", "--memory", "1Gi"];
            let output = pallium(&[&place, more].concat());
            let told = text(&output.stdout) + &text(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{more:?}: {told}");
            assert!(told.contains(words), "{more:?}: {told}");
        }
    });
}

#[test]
fn a_fleet_file_with_one_bad_line_changes_nothing() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let server = Server::start(&dir.path().join("data"));
        let fleet = dir.path().join("fleet.yaml");
        let yaml = "domain: nova\nhosts:\n  - name: a\n    inventories: {VCPU: {total: 4}}\n  - name: b\n    inventories: {VCPU: {total: many}}\n";
        std::fs::write(&fleet, yaml).expect("written");
        let output = pallium(&["ctl", "--server", &server.url, "import", fleet.to_str().expect("UTF-8")]);
        let printed = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{printed}");
        assert!(printed.contains("line 6") && printed.contains("total"), "{printed}");
        assert_eq!(server.get("/v1/hosts").await.json()["hosts"].as_array().map(Vec::len), Some(0));
    });
}

#[test]
fn the_demo_runs_and_ends() {
    let output = pallium(&["demo", "--exit"]);
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}{}", text(&output.stderr));
    for word in ["claim", "curl", "pallium ctl"] {
        assert!(printed.contains(word), "'{word}' not in:\n{printed}");
    }
}
