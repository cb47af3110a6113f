//! Room that a policy keeps for a failover, through the hook: what would take it is refused, and says so.

use crate::server::{Server, run};
use crate::spec::{create, host, uuid};
use crate::support;
use crate::support::agents::{Agent, hello, watch, watched};

const HALF: &str = "\
apiVersion: pallium.dev/v1alpha1
kind: FailoverPolicy
metadata: {name: half}
spec:
  selector: {domain: region}
  admission: {policy: percent 50, mode: enforce}
";

#[test]
fn what_would_take_the_room_of_a_failover_is_refused() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| support::file(dir.path(), name, text);
        let config = file("config.yaml", "ha: {mode: enforce}\n");
        let server = Server::start_with(&dir.path().join("data"), &["--config", &config]);
        server.apply(&["a", "b", "c"].map(|name| host(name, 4, 100_000))).await;
        watch(&server, dir.path(), &watched(&["a", "b", "c"])).await;
        let half = file("half.yaml", HALF);
        let told = server.ctl(&["ha", "policy", "apply", &half, "--reason", "a promise"]).expect("a policy");
        assert!(told.contains("admission.policy hosts 1 -> percent 50"), "{told}");
        let all = ["a", "b", "c"].map(str::to_owned);
        // No host has an agent, so none could take an evacuation: there is no room to keep.
        assert!(!server.hook(&create(&uuid(99), &all, 1, 1024)).await.hosts().is_empty());
        let mut beats = Vec::new();
        for n in 1..=3 {
            beats.push(Agent::begin(&server, hello(n)).await.expect("it is known").beat(None));
        }
        // 12 in all: after six, half of them are free.
        for number in 100..105 {
            let answer = server.hook(&create(&uuid(number), &all, 1, 1024)).await;
            assert!(!answer.hosts().is_empty(), "{number}: {}", answer.text);
        }
        let answer = server.hook(&create(&uuid(106), &all, 1, 1024)).await;
        assert_eq!(answer.hosts(), [""; 0], "{}", answer.text);
        let id = answer.header("x-pallium-decision").expect("a decision");
        let told = server.ctl(&["explain", id]).expect("an explanation");
        assert!(told.contains("3 dropped by failover_admission (would leave less than 50 % of"), "{told}");
        server.ctl(&["ha", "policy", "delete", "half", "--reason", "no promise"]).expect("no policy");
        assert!(!server.hook(&create(&uuid(106), &all, 1, 1024)).await.hosts().is_empty());
    });
}
