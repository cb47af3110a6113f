//! Every recorded request gets a valid answer, and an explanation that accounts for every host.

use std::collections::BTreeSet;

use crate::server::{Server, run};
use crate::spec;

#[test]
fn every_recorded_request_is_answered_and_explained() {
    run(async {
        for (name, body) in spec::recorded() {
            let dir = tempfile::tempdir().expect("a folder");
            let server = Server::start(dir.path());
            server.apply(&simulation::fixtures::fleet_for(&body)).await;
            let answer = server.hook(&body).await;
            let hosts = answer.hosts();
            let sent = spec::hosts(&body);
            assert!(!hosts.is_empty(), "{name}: the matching fleet has room: {}", server.explain(&answer).await);
            assert_eq!(hosts.iter().collect::<BTreeSet<_>>().len(), hosts.len(), "{name}: each host once");
            assert!(hosts.iter().all(|host| sent.contains(host)), "{name}: only hosts that were sent");

            let explained = server.explain(&answer).await;
            let decision = &explained["detail"]["decision"];
            let stories = explained["detail"]["hosts"].as_array().expect("stories");
            for host in &sent {
                let story = stories.iter().find(|story| story["host"] == **host);
                let story = story.unwrap_or_else(|| panic!("{name}: {host} is not accounted for"));
                let ranked = story["rank"].is_u64();
                assert_eq!(ranked, hosts.contains(host), "{name}: {story}");
                assert!(ranked || story["reason"].as_str().is_some_and(|why| !why.is_empty()), "{name}: {story}");
            }
            // A score is the sum of what its story says.
            for story in stories.iter().filter(|story| story["rank"].is_u64()) {
                let shares = story["scores"].as_array().expect("scores").iter();
                let shares: f64 = shares.map(|share| share["contribution"].as_f64().expect("a number")).sum();
                let sum = story["base"].as_f64().expect("a base") + shares;
                assert!((sum - story["score"].as_f64().expect("a score")).abs() < 2e-9, "{name}: {story}");
            }
            // Scores never rise down the list.
            let scores: Vec<f64> = decision["hosts"]
                .as_array()
                .expect("hosts")
                .iter()
                .map(|h| h["score"].as_f64().expect("a score"))
                .collect();
            let from = usize::from(decision["claim"] == "kept");
            assert!(scores[from..].windows(2).all(|pair| pair[0] >= pair[1]), "{name}: {scores:?}");
            let dropped: u64 = decision["steps"]
                .as_array()
                .expect("steps")
                .iter()
                .flat_map(|step| step["reasons"].as_array().expect("reasons"))
                .map(|reason| reason["hosts"].as_u64().expect("a count"))
                .sum();
            let unknown = decision["unknown_hosts"].as_array().expect("a list").len() as u64;
            assert_eq!(dropped + unknown + hosts.len() as u64, sent.len() as u64, "{name}: the counts add up");
            // Nothing of the connection strings that the old hook leaks is kept or logged.
            for canary in ["not-a-secret", "mysql+pymysql", "rabbit://"] {
                assert!(!server.log().contains(canary), "{name}: {canary} in the log");
                assert!(!explained.to_string().contains(canary), "{name}: {canary} in the history");
            }
        }
    });
}

/// The default pipeline has no weighers: the order is Nova's own.
#[test]
fn without_a_hypervisor_type_novas_order_stands() {
    run(async {
        let body = spec::request("04");
        let dir = tempfile::tempdir().expect("a folder");
        let server = Server::start(dir.path());
        server.apply(&simulation::fixtures::fleet_for(&body)).await;
        let answer = server.hook(&body).await;
        let hosts = answer.hosts();
        let mut sent = spec::hosts(&body);
        sent.retain(|host| hosts.contains(host));
        assert_eq!(hosts, sent);
        assert_eq!(server.explain(&answer).await["record"]["pipeline"], "nova-general");
    });
}
