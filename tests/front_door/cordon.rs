//! Hosts that failover keeps new instances off, through the hook: with the reason, and where it acts only.

use serde_json::Value;

use crate::server::{Answer, Server, run};
use crate::spec::{create, host, uuid};
use crate::support;
use crate::support::agents::{Agent, hello, watch, watched};
use crate::support::nodes::until;

const TRIAL: &str = "\
apiVersion: pallium.dev/v1alpha1
kind: FailoverPolicy
metadata: {name: trial}
spec:
  selector: {hosts: [a]}
  mode: dry-run
";

#[test]
fn a_host_that_failover_doubts_takes_nothing_new_where_it_acts() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| support::file(dir.path(), name, text);
        let config = |mode: &str| file(mode, &format!("ha: {{mode: {mode}}}\n"));
        let start = |mode: &str| Server::start_with(&dir.path().join("data"), &["--config", &config(mode)]);
        let mut server = start("enforce");
        server.apply(&["a", "b", "c", "d", "e"].map(|name| host(name, 100_000, 100_000_000))).await;
        // d has no agent, and e is none of failover's.
        watch(&server, dir.path(), &watched(&["a", "b", "c", "d"])).await;
        let mut beats = Vec::new();
        for n in 1..=3 {
            beats.push(Agent::begin(&server, hello(n)).await.expect("it is known").beat(None));
        }
        let all = ["a", "b", "c", "d", "e"].map(str::to_owned);
        let mut number = 100;
        let mut ask = async |server: &Server, sent: &[String]| {
            number += 1;
            let answer = server.hook(&create(&uuid(number), sent, 1, 1024)).await;
            assert_eq!(answer.status, 200, "{}", answer.text);
            answer
        };
        // Their order is the pipeline's.
        let sorted = |answer: &Answer| {
            let mut hosts = answer.hosts();
            hosts.sort();
            hosts
        };
        let answer = ask(&server, &all).await;
        assert_eq!(sorted(&answer), all);
        let explained = server.explain(&answer).await;
        let first = &explained["detail"]["decision"]["steps"][0];
        assert_eq!((&first["name"], first["skipped"].is_string()), (&"failover_cordon".into(), true), "{first}");

        // The agent of a is away, and an operator works on b.
        beats.remove(0).abort();
        server.ctl(&["ha", "maintain", "b", "manual", "--reason", "new DIMMs"]).expect("maintenance");
        until("a silent host", async || (sorted(&ask(&server, &all).await) == ["c", "d", "e"]).then_some(())).await;
        let answer = ask(&server, &all).await;
        let explained = server.explain(&answer).await;
        let why = |name: &str| {
            let stories = explained["detail"]["hosts"].as_array().expect("stories");
            let story = stories.iter().find(|story| story["host"] == name).expect("it was sent");
            (story["dropped_by"].as_str().map(str::to_owned), story["reason"].as_str().map(str::to_owned))
        };
        let by = |reason: &str| (Some("failover_cordon".to_owned()), Some(reason.to_owned()));
        assert_eq!((why("a"), why("b"), why("d")), (by("is silent"), by("is in maintenance"), (None, None)));
        let told = server.ctl(&["ha", "hosts"]).expect("hosts");
        assert!(told.contains("takes nothing new: it is silent") && told.contains("maintenance manual"), "{told}");
        // It is told what would help.
        let answer = ask(&server, &all[..1]).await;
        assert_eq!(answer.hosts(), [""; 0]);
        let id = answer.header("x-pallium-decision").expect("a decision");
        let told = server.ctl(&["explain", id]).expect("an explanation");
        assert!(told.contains("once failover lets new instances there again (is silent): 1 host (a)"), "{told}");

        // Where nothing is done about a host, nothing keeps it out; a restart forgets nothing.
        let trial = file("trial.yaml", TRIAL);
        server.ctl(&["ha", "policy", "apply", &trial, "--reason", "a trial"]).expect("a policy");
        assert_eq!(sorted(&ask(&server, &all).await), ["a", "c", "d", "e"]);
        server.ctl(&["ha", "policy", "delete", "trial", "--reason", "it acts"]).expect("no policy");
        assert_eq!(sorted(&ask(&server, &all).await), ["c", "d", "e"]);
        for (mode, expected) in [("dry-run", &all[..]), ("enforce", &all[2..]), ("off", &all)] {
            server.stop();
            server = start(mode);
            let answer = ask(&server, &all).await;
            assert_eq!(sorted(&answer), expected, "{mode}");
            let steps = server.explain(&answer).await["detail"]["decision"]["steps"].clone();
            let steps: Vec<&Value> = steps.as_array().expect("steps").iter().collect();
            assert_eq!(steps.iter().any(|step| step["name"] == "failover_cordon"), mode == "enforce", "{mode}");
        }
    });
}
