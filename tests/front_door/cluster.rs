//! Three processes: any of them answers, they lose nothing when one is killed, and their membership
//! is changed with `pallium ctl cluster`.

use std::path::Path;
use std::process::Command;

use scheduler::HostReport;
use serde_json::{Value, json};

use crate::server::{BINARY, Server, run};
use crate::spec::{create, host, uuid};
use crate::support::nodes::{Node, free_port, ready, settled, three, until};

fn fleet() -> Vec<HostReport> {
    ["a", "b"].map(|name| host(name, 1000, 1_000_000)).into()
}

fn ask(n: u64) -> Value {
    create(&uuid(n), &["a".to_owned(), "b".to_owned()], 2, 1024)
}

/// Asks until there is an answer, as Nova does.
async fn placed(server: &Server, n: u64) -> Vec<String> {
    until("a placement", async || {
        let answer = server.send("POST", "/scheduler/nova/external", ask(n).to_string()).await.ok()?;
        (answer.status == 200).then(|| answer.hosts()).filter(|hosts| !hosts.is_empty())
    })
    .await
}

#[test]
fn any_node_answers_and_claims_outlive_their_leader() {
    run(async {
        let certificates = tempfile::tempdir().expect("a folder");
        let made = Command::new(BINARY).arg("certs").arg(certificates.path()).output().expect("it runs");
        assert!(made.status.success(), "{made:?}");
        let nodes = three(Some(certificates.path()));
        let mut servers: Vec<Server> = nodes.iter().map(Node::start).collect();
        for server in &servers {
            ready(server).await;
        }
        servers[1].apply(&fleet()).await;
        let mut hosts = Vec::new();
        for n in 0..30 {
            hosts.push(placed(&servers[n as usize % 3], n).await[0].clone());
        }
        // What one node acknowledged, every node shows at once; a probe of any node counts it.
        for (n, host) in (0..).zip(&hosts) {
            let places = servers[(n as usize + 1) % 3].places(&uuid(n)).await;
            assert_eq!(places, [(host.clone(), "instance".to_owned(), "claimed".to_owned())]);
        }
        let leader = settled(&servers[0], 3).await as usize - 1;
        // A stranger has no certificate, so it is no peer.
        let port = free_port();
        let arguments = ["--node-id", "4", "--join", "--peer-listen", &format!("127.0.0.1:{port}")].map(Into::into);
        let stranger = Node { dir: tempfile::tempdir().expect("a folder"), arguments: arguments.into() };
        let _stranger = stranger.start();
        let refused = servers[0].ctl(&["cluster", "add", "4", &format!("127.0.0.1:{port}")]).expect_err("a refusal");
        assert!(refused.contains("node 4 does not answer"), "{refused}");
        // The story of a decision is told by every node, though the leader made it.
        let follower = (leader + 1) % 3;
        let told = servers[follower].ctl(&["explain", &uuid(0)]).expect("an explanation");
        assert!(told.contains("kvm_binpack  "), "{told}");

        servers[leader].kill();
        // Asked of a follower that has not noticed yet: still one answer.
        let asked = servers[follower].ctl(&["place", "--vcpus", "1", "--memory", "1Gi"]);
        assert!(asked.as_ref().is_ok_and(|told| told.contains(" on ")), "{asked:?}");
        // One list of addresses: a dead one in it does not matter.
        let list = format!("{},{}", servers[leader].url, servers[follower].url);
        let status = Command::new(BINARY).args(["ctl", "--server", &list, "cluster", "status"]).output();
        assert!(status.expect("it runs").status.success());
        let left: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
        // The same request again, of another node, under another leader: the same claim.
        for (n, host) in (0..).zip(&hosts) {
            let again = placed(&servers[left[n as usize % 2]], n).await;
            assert_eq!(&again[0], host, "instance {n}");
        }
        for n in 30..40 {
            placed(&servers[left[0]], n).await;
        }
        servers[leader] = nodes[leader].start();
        settled(&servers[leader], 3).await;
        let local = servers[leader].get("/v1/hosts").await.json();
        let used: u64 = local["hosts"].as_array().expect("hosts").iter().filter_map(|h| h["claims"].as_u64()).sum();
        assert_eq!(used, 41, "and the one that ctl placed");
    });
}

#[test]
fn members_come_and_go() {
    run(async {
        let nodes = three(None);
        let mut servers: Vec<Server> = nodes.iter().map(Node::start).collect();
        ready(&servers[0]).await;
        servers[0].apply(&fleet()).await;
        placed(&servers[2], 0).await;
        let leader = settled(&servers[0], 3).await;
        let refusal = |server: &Server, arguments: &[&str]| server.ctl(arguments).expect_err("a refusal");

        // At the wrong time, or wrongly.
        let away = refusal(&servers[1], &["cluster", "add", "4", "127.0.0.1:1"]);
        assert!(away.contains("node 4 does not answer at 127.0.0.1:1"), "{away}");
        let unknown = refusal(&servers[1], &["cluster", "promote", "4"]);
        assert!(unknown.contains("node 4 is no member"), "{unknown}");
        let no_port = refusal(&servers[1], &["cluster", "add", "4", "nowhere"]);
        assert!(no_port.contains("a host and a port expected"), "{no_port}");
        assert_eq!(servers[1].ctl(&["cluster", "remove", "9"]).expect("no change"), "node 9 is no member\n");

        // Another node takes the lead, asked of a node that does not have it.
        let next = leader % 3 + 1;
        let moved = servers[0].ctl(&["cluster", "transfer-leader", &next.to_string()]).expect("moved");
        assert_eq!(moved, format!("node {next} leads\n"));
        assert_eq!(settled(&servers[0], 3).await, next);

        // A node dies for good, and another takes its place.
        let dead = leader;
        servers[dead as usize - 1].kill();
        let port = free_port();
        let fourth = Node {
            dir: tempfile::tempdir().expect("a folder"),
            arguments: ["--node-id", "4", "--join", "--peer-listen", &format!("127.0.0.1:{port}")]
                .map(Into::into)
                .into(),
        };
        let new = fourth.start();
        let alive = &servers[next as usize - 1];
        let wrong = refusal(alive, &["cluster", "replace", "9", "4", &format!("127.0.0.1:{port}")]);
        assert!(wrong.contains("node 9 is no member: nothing was changed; the members are 1, 2, 3"), "{wrong}");
        let replace = ["cluster", "replace", &dead.to_string(), "4", &format!("127.0.0.1:{port}")];
        let told = alive.ctl(&replace).expect("replaced");
        assert!(told.contains("node 4 has a vote") && told.contains(&format!("node {dead} was removed")), "{told}");
        assert!(alive.ctl(&replace).expect("again").contains("is a member already"));
        settled(&new, 3).await;
        assert_eq!(new.places(&uuid(0)).await.len(), 1);
        let table = new.ctl(&["cluster", "status"]).expect("a table");
        assert!(table.contains("the states that can be compared now are the same"), "{table}");

        // Every one is restarted in turn, while somebody asks on.
        let mut rest: Vec<(Node, Server)> = nodes.into_iter().zip(servers).collect();
        rest.remove(dead as usize - 1);
        rest.push((fourth, new));
        let mut n = 1;
        for at in 0..3 {
            rest[at].1.stop();
            placed(&rest[(at + 1) % 3].1, n).await;
            rest[at].1 = rest[at].0.start();
            ready(&rest[at].1).await;
            placed(&rest[at].1, n + 1).await;
            n += 2;
            settled(&rest[at].1, 3).await;
        }
        for n in 0..n {
            assert_eq!(rest[0].1.places(&uuid(n)).await.len(), 1, "instance {n}");
        }
    });
}

/// Every metric in the dashboard and the alerts is one that a leader shows.
async fn dashboards_name_what_there_is(leader: &Server) {
    // Whatever is refused is counted from then on.
    assert_eq!(leader.get("/v1/nothing").await.status, 404);
    until("the word of each peer", async || {
        leader.get("/metrics").await.text.contains("pallium_raft_peer_lag_entries{").then_some(())
    })
    .await;
    placed(leader, 0).await;
    let shown = leader.get("/metrics").await.text;
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    for file in ["prometheus/alerts.yaml", "grafana/cluster.json", "grafana/failover.json"] {
        let text = std::fs::read_to_string(deploy.join(file)).expect(file);
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let names = words.filter(|word| word.starts_with("pallium_") || word.starts_with("cortex_"));
        for name in names {
            assert!(shown.contains(&format!("\n{name}{{")) || shown.contains(&format!("\n{name} ")), "{file}: {name}");
        }
    }
}

#[test]
fn a_read_may_say_how_new_it_must_be() {
    run(async {
        let nodes = three(None);
        let mut servers: Vec<Server> = nodes.iter().map(Node::start).collect();
        ready(&servers[0]).await;
        servers[0].apply(&fleet()).await;
        let leader = settled(&servers[0], 3).await as usize - 1;
        dashboards_name_what_there_is(&servers[leader]).await;
        let read = async |server: &Server, fresh: &str| {
            server.send_with("GET", "/v1/hosts", &[("x-pallium-read", fresh)], "").await.expect("an answer")
        };
        for fresh in ["linearizable", "bounded:500", "local"] {
            assert_eq!(read(&servers[2], fresh).await.json()["hosts"].as_array().map(Vec::len), Some(2), "{fresh}");
        }
        let bad = read(&servers[2], "soon").await;
        assert_eq!((bad.status.as_u16(), bad.error_code().as_str()), (400, "bad_request"));
        // Alone, a node still shows what it has to whom that is enough.
        servers[0].kill();
        servers[1].kill();
        let local = read(&servers[2], "local").await;
        assert_eq!(local.json()["hosts"].as_array().map(Vec::len), Some(2));
        let listed = servers[2].ctl(&["hosts", "--read", "local"]).expect("a list");
        assert!(listed.contains("a ") && listed.contains("b "), "{listed}");
        let none = until("a refusal", async || {
            let answer = read(&servers[2], "linearizable").await;
            (answer.status == 503).then_some(answer)
        });
        assert_eq!(none.await.error_code(), "no_leader");
        // Masakari's monitors give up after 400 and 409, and ask again after 503.
        let payload = json!({"event": "STOPPED", "host_status": "NORMAL", "cluster_status": "OFFLINE"});
        let told = json!({"notification": {
            "type": "COMPUTE_HOST", "hostname": "a", "generated_time": "2026-11-26T10:00:00", "payload": payload,
        }});
        let later = servers[2].send("POST", "/ha/v1/notifications", told.to_string()).await.expect("an answer");
        assert_eq!(later.status, 503, "{}", later.text);
        let unclear = servers[2].ctl(&["place", "--vcpus", "1", "--memory", "1Gi"]).expect_err("a refusal");
        assert!(unclear.contains("repeat it with --request-id "), "{unclear}");
        assert_eq!(unclear.matches("ask again").count(), 1, "{unclear}");
    });
}
