//! Failover through the front door: three servers, agents that speak to any of them, a host that falls silent,
//! and an operator.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use api::proto::ha;
use scheduler::{HostReport, InstanceReport};
use serde_json::{Value, json};

use crate::server::{BINARY, Server, run};
use crate::spec::{create, host, uuid};
use crate::support::agents::{Agent, hello, id, watch, watched};
use crate::support::nodes::{Node, ready, settled, three, until};

fn case(server: &Server, name: &str) -> Option<Value> {
    let told = server.ctl(&["ha", "case", name, "-o", "json"]).ok()?;
    serde_json::from_str(&told).ok()
}

#[test]
fn a_silent_host_becomes_a_case_and_an_operator_ends_the_doubt() {
    run(async {
        let nodes = three(None);
        for node in &nodes {
            node.configure("ha: {mode: enforce}\n");
        }
        let servers: Vec<Server> = nodes.iter().map(Node::start).collect();
        for server in &servers {
            ready(server).await;
        }
        let instance = InstanceReport {
            uuid: uuid(7).parse().expect("a uuid"),
            resources: Some([("VCPU".to_owned(), 2)].into()),
            ..InstanceReport::default()
        };
        let a = HostReport { instances: Some(vec![instance]), ..host("a", 1000, 1_000_000) };
        servers[0]
            .apply(&[a, host("b", 1000, 1_000_000), host("c", 1000, 1_000_000), host("d", 1000, 1_000_000)])
            .await;
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), watched(&["a", "b", "c", "d"]).to_string()).expect("written");
        let file = file.path().display().to_string();
        until("the feature level", async || servers[1].ctl(&["ha", "apply", &file]).ok()).await;
        assert!(servers[2].ctl(&["ha", "apply", &file]).expect("again").starts_with("0 changed, 4 were so already"));

        // Agents speak to nodes that do not lead.
        let leader = settled(&servers[0], 3).await as usize - 1;
        let (one, other) = (&servers[(leader + 1) % 3], &servers[(leader + 2) % 3]);
        let mut a = Agent::begin(one, hello(1)).await.expect("it is known");
        let welcome = a.next().await.welcome.expect("first");
        assert_eq!((welcome.incarnation, welcome.quarantined), (1, false));
        // What the host lists may run there: told with the Welcome, or as soon as it is committed.
        let mut permits = welcome.permits;
        while permits.is_empty() {
            permits = a.next().await.permits.expect("permits").granted;
        }
        assert_eq!(permits, [uuid(7)]);
        let guests = a.guests.clone();
        let a = a.beat(None);
        let mut b = Agent::begin(other, hello(2)).await.expect("it is known");
        assert_eq!(b.next().await.welcome.map(|welcome| welcome.incarnation), Some(1));
        let b = b.beat(Some(id(1)));

        // Another machine that says it is c opens nothing; strangers are told why.
        let mut clone = hello(3);
        clone.hello.as_mut().expect("a Hello").machine_serial = Some("S99".to_owned());
        let mut clone = Agent::begin(other, clone).await.expect("it is known");
        let welcome = clone.next().await.welcome.expect("first");
        assert_eq!((welcome.incarnation, welcome.quarantined), (0, true));
        drop(clone);
        for (refused, why) in [
            (ha::AgentReport { host: id(9), ..hello(1) }, "9"),
            (ha::AgentReport { host: "x".to_owned(), ..hello(1) }, "host: 'x' given, a uuid expected"),
            (ha::AgentReport { hello: None, ..hello(1) }, "hello: missing in the first report of the session"),
            (
                ha::AgentReport {
                    hello: Some(ha::AgentHello { cluster: Some(uuid(5)), ..ha::AgentHello::default() }),
                    ..hello(1)
                },
                "the agent belongs to another one",
            ),
        ] {
            let status = Agent::begin(one, refused).await.err().expect("refused");
            assert!(status.message().contains(why), "{status}");
        }

        // A session whose life is over ends, on whichever node it is: its heartbeats say nothing any more.
        let mut old = Agent::begin(one, hello(4)).await.expect("it is known");
        assert_eq!(old.next().await.welcome.map(|welcome| welcome.incarnation), Some(1));
        let boot = ha::AgentReport { boot: uuid(0xB104), ..hello(4) };
        let previous_boot = Some(hello(4).boot);
        let boot = ha::AgentReport { hello: boot.hello.map(|hello| ha::AgentHello { previous_boot, ..hello }), ..boot };
        let mut new = Agent::begin(other, boot).await.expect("it is known");
        assert!(new.next().await.welcome.is_some_and(|welcome| welcome.incarnation > 1 && !welcome.quarantined));
        old.ends().await;
        // One neighbour alone that does not reach a host may be the one that is cut off: two of a's must say so.
        let d = new.beat(Some(id(1)));

        // A migration of its guest fails in post-copy: nothing starts either half until a person says so.
        guests.one(&uuid(7), "paused", 13);
        until("the quarantine", async || one.ctl(&["ha"]).ok().filter(|told| told.contains(&uuid(7)))).await;
        assert!(one.get("/metrics").await.text.contains("pallium_ha_quarantined_instances 1\n"));
        guests.one(&uuid(7), "running", 1);
        let let_go = ["ha", "end-quarantine", "--instance", &uuid(7), "--reason", "resumed"];
        until("an end of it that lasts", async || other.ctl(&let_go).ok()).await;
        let again = other.ctl(&let_go).expect_err("it is in none");
        assert!(again.contains("expected one in quarantine"), "{again}");

        // Its agent is away, and so it is for its neighbour.
        a.abort();
        let found = until("a case", async || case(&servers[leader], "a")).await;
        assert_eq!(found["proof"], Value::Null, "silence is no proof: {found}");
        let waits = until("a pending fence", async || {
            let case = case(one, "a")?;
            (case["phase"] == "fence_pending" || case["phase"] == "fence_failed").then_some(case)
        });
        let waits = waits.await;
        assert!(waits["token"].is_string(), "{waits}");
        let asked = other.ctl(&["ha", "confirm-dead", "a", "--reason", "seen"]).expect_err("it asks back");
        assert!(asked.contains("its 1 instances") && asked.contains("--yes"), "{asked}");
        let kept = other.ctl(&["ha", "abort", "a", "--reason", "seen"]).expect_err("nobody hears it");
        assert!(
            kept.contains("is taken back in fence_failed") || kept.contains("expected one that is heard now"),
            "{kept}"
        );
        until("the operator's word", async || {
            other.ctl(&["ha", "confirm-dead", "a", "--reason", "its plug is in my hand", "--yes"]).ok()
        })
        .await;
        let dead =
            until("the recovery's begin", async || case(one, "a").filter(|case| case["phase"] == "nova_down")).await;
        assert!(dead["proof"].as_str().is_some_and(|proof| proof.starts_with("P7")), "{dead}");
        let told = one.ctl(&["ha", "case", "a"]).expect("its timeline");
        assert!(
            told.contains("believed to be unreachable: last heard") && told.contains("silent to: management"),
            "{told}"
        );
        assert!(
            told.contains("confirms that the host is dead, by ") && told.contains(": its plug is in my hand"),
            "{told}"
        );
        let told = one.ctl(&["ha"]).expect("what was ordered");
        assert!(told.contains("confirms that the host is dead, of a: its plug is in my hand"), "{told}");
        let hosts: Value =
            serde_json::from_str(&one.ctl(&["ha", "hosts", "-o", "json"]).expect("hosts")).expect("JSON");
        let detections: Vec<_> = hosts["hosts"].as_array().expect("hosts").iter().map(|h| &h["detection"]).collect();
        assert_eq!(detections[..3], ["dead", "alive", "unknown"]);

        // The life that is over speaks: the proof was wrong. Nothing opens, and it pages.
        let mut ghost = Agent::begin(one, hello(1)).await.expect("it is known");
        let welcome = ghost.next().await.welcome.expect("first");
        assert!(welcome.incarnation == 0 && welcome.quarantined && welcome.permits.is_empty(), "{welcome:?}");
        assert!(one.get("/metrics").await.text.contains("pallium_ha_proof_violations_total 1\n"));
        // What it still runs is to be started elsewhere: it is told to stop it, and nothing that is not failover's.
        let runs = |instance| ha::AgentInstance { uuid: instance, state: "running".to_owned(), ..Default::default() };
        let present = vec![runs(uuid(7)), runs(uuid(99))];
        let listed = ha::AgentInstances { whole: true, present, ..ha::AgentInstances::default() };
        ghost.say(ha::AgentReport { seq: 1, hello: None, instances: Some(listed), ..hello(1) }).await;
        let stops = loop {
            if let Some(stops) = ghost.next().await.stop_guests {
                break stops.instances;
            }
        };
        assert_eq!(stops, [uuid(7)]);
        assert!(one.get("/metrics").await.text.contains("pallium_ha_guests_stopped_total 1\n"));
        b.abort();
        d.abort();
    });
}

/// Files of a machine as the agent reads them.
fn machine(root: &std::path::Path, n: u64) {
    for (path, text) in [
        ("proc/sys/kernel/random/boot_id", uuid(0xB000 + n)),
        ("sys/class/dmi/id/product_uuid", uuid(0xC000 + n)),
        ("sys/class/dmi/id/product_serial", format!("S{n}")),
    ] {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, format!("{text}\n")).expect("written");
    }
}

/// libvirt's hook asks whether a guest may start: the answer, or what libvirt would show.
fn starts(socket: &str, instance: &str) -> Result<(), String> {
    let mut hook = Command::new(BINARY)
        .args(["agent", "hook", "--socket", socket, "instance-00000001", "prepare", "begin", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let xml = format!("<domain type='qemu'><name>instance-00000001</name><uuid>{instance}</uuid></domain>");
    hook.stdin.take().expect("piped").write_all(xml.as_bytes()).expect("taken");
    let done = hook.wait_with_output().expect("it ends");
    if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned()) }
}

/// The agent as a process, ended with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_agent_lets_only_permitted_guests_start() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let config = dir.path().join("server.yaml");
        std::fs::write(&config, "ha: {mode: dry-run}\n").expect("written");
        let server = Server::start_with(&dir.path().join("data"), &["--config", &config.display().to_string()]);
        let instance = InstanceReport { uuid: uuid(7).parse().expect("a uuid"), ..InstanceReport::default() };
        server.apply(&[HostReport { instances: Some(vec![instance]), ..host("a", 8, 8192) }]).await;
        let hosts = dir.path().join("hosts.json");
        let mut watched = watched(&["a"]);
        watched["hosts"][0]["unchecked"] = true.into();
        std::fs::write(&hosts, watched.to_string()).expect("written");
        let apply = ["ha", "apply", &hosts.display().to_string()];
        until("the feature level", async || server.ctl(&apply).ok()).await;

        let root = dir.path().join("root");
        machine(&root, 1);
        let path = |name: &str| dir.path().join(name).display().to_string();
        let socket = path("run/agent.sock");
        let agent = dir.path().join("agent.yaml");
        let told = json!({
            "host": id(1), "nova_host": "a", "servers": ["http://127.0.0.1:1", server.url], "root": root,
            "state": path("state"), "run": path("run"), "hook": {"socket": socket, "folder": path("hooks")},
            "libvirt": {"sockets": [path("libvirt-sock")]},
        });
        std::fs::write(&agent, told.to_string()).expect("written");
        let unanswered = starts(&socket, &uuid(7)).expect_err("nobody answers");
        assert!(unanswered.contains("cannot be asked"), "{unanswered}");
        let log = std::fs::File::create(path("agent.log")).expect("a log");
        let mut process = Command::new(BINARY);
        let process = process.args(["agent", "--config"]).arg(&agent).stderr(log).spawn().expect("it runs");
        let _process = Process(process);

        until("the permitted guest", async || starts(&socket, &uuid(7)).ok()).await;
        let denied = starts(&socket, &uuid(8)).expect_err("no permit");
        assert!(denied.contains(&uuid(8)), "{denied}");
        // A new instance may start where it was placed, before any report lists it; and not any more once it is given up.
        let placed = server.hook(&create(&uuid(9), &["a".to_owned()], 1, 1024)).await;
        assert_eq!(placed.hosts(), ["a"], "{}", placed.text);
        until("the new guest", async || starts(&socket, &uuid(9)).ok()).await;
        let released = server.send("DELETE", &format!("/v1/instances/{}", uuid(9)), "").await.expect("an answer");
        assert_eq!(released.status, 200, "{}", released.text);
        until("no such guest", async || starts(&socket, &uuid(9)).err()).await;
        let hosts = until("a host that is heard", async || {
            let hosts: Value = serde_json::from_str(&server.ctl(&["ha", "hosts", "-o", "json"]).ok()?).ok()?;
            hosts["hosts"][0]["age_ms"].is_u64().then_some(hosts)
        })
        .await;
        let a = &hosts["hosts"][0];
        assert_eq!((&a["detection"], &a["incarnation"], &a["permits"]), (&json!("alive"), &json!(1), &json!(1)), "{a}");

        // Bad input: what was given, what is expected.
        for (text, why) in [
            ("host: x\nnova_host: a\nservers: [http://127.0.0.1:1]\n", "UUID parsing failed"),
            ("nova_host: a\nservers: [a]\n", "missing field `host`"),
            (&format!("host: {}\nnova_host: a\n", id(1)), "servers: none given"),
            (&format!("host: {}\nnova_host: a\nservers: [a]\nwatchdg: x\n", id(1)), "unknown field `watchdg`"),
        ] {
            std::fs::write(&agent, text).expect("written");
            let done = Command::new(BINARY).args(["agent", "--config"]).arg(&agent).output().expect("it ends");
            let told = String::from_utf8_lossy(&done.stderr).into_owned();
            assert!(!done.status.success() && told.contains(why), "{text}: {told}");
        }
    });
}

/// Forwards connections to an address until it is aborted.
async fn relay(to: std::net::SocketAddr) -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    let forward = tokio::spawn(async move {
        let mut ways = tokio::task::JoinSet::new();
        while let Ok((mut one, _)) = listener.accept().await {
            ways.spawn(async move {
                let Ok(mut other) = tokio::net::TcpStream::connect(to).await else { return };
                let _ = tokio::io::copy_bidirectional(&mut one, &mut other).await;
            });
        }
    });
    (at, forward)
}

/// The management network of b is cut, and its neighbour's probes do not reach it: what keeps it from being taken for dead
/// is that its counter on the storage that they share goes on.
#[test]
fn a_host_whose_storage_heartbeat_goes_on_is_isolated_and_not_dead() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let file = |name: &str| dir.path().join(name);
        std::fs::write(file("server.yaml"), "ha: {mode: enforce}\n").expect("written");
        let server = Server::start_with(&file("data"), &["--config", &file("server.yaml").display().to_string()]);
        server.apply(&["a", "b"].map(|name| host(name, 8, 8192))).await;
        let mut watched = watched(&["a", "b"]);
        for host in watched["hosts"].as_array_mut().expect("hosts") {
            host["unchecked"] = true.into();
        }
        watch(&server, dir.path(), &watched).await;

        let listen = server.url.trim_start_matches("http://").parse().expect("an address");
        let (at, way) = relay(listen).await;
        std::fs::create_dir(file("shared")).expect("a folder");
        let mut agents = Vec::new();
        for (n, name, url) in [(1, "a", server.url.clone()), (2, "b", format!("http://{at}"))] {
            let path = |what: &str| dir.path().join(format!("{name}-{what}"));
            machine(&path("root"), n);
            let told = json!({
                "host": id(n), "nova_host": name, "servers": [url], "root": path("root"), "state": path("state"),
                "run": path("run"), "hook": {"socket": path("agent.sock"), "folder": path("hooks")},
                "libvirt": {"sockets": [path("libvirt-sock")]}, "storage_heartbeat": file("shared"),
                "neighbours": {id(3 - n): "nowhere.invalid:22"},
            });
            std::fs::write(path("agent.yaml"), told.to_string()).expect("written");
            let log = std::fs::File::create(path("agent.log")).expect("a log");
            let mut process = Command::new(BINARY);
            let process = process.args(["agent", "--config"]).arg(path("agent.yaml")).stderr(log);
            agents.push(Process(process.spawn().expect("it runs")));
        }
        let b = async || {
            let hosts: Value = serde_json::from_str(&server.ctl(&["ha", "hosts", "-o", "json"]).ok()?).ok()?;
            Some(hosts["hosts"][1].clone())
        };
        until("a heartbeat of b", async || b().await.filter(|b| b["age_ms"].is_u64())).await;
        until("both counters", async || (1..=2).all(|n| file("shared").join(id(n)).exists()).then_some(())).await;

        way.abort();
        let found = until("an isolated host", async || b().await.filter(|b| b["detection"] == "isolated")).await;
        assert_eq!((&found["phase"], &found["cordon"]), (&Value::Null, &json!("is silent")), "{found}");
        // An agent that ends takes its counter away.
        let pid = rustix::process::Pid::from_child(&agents[1].0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
        until("no counter", async || (!file("shared").join(id(2)).exists()).then_some(())).await;
        assert!(agents[1].0.wait().expect("it ends").success());
    });
}

#[test]
fn masakari_has_a_port_of_its_own_and_nothing_else_is_there() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let mut server = Server::start_with(dir.path(), &["--masakari-listen", "127.0.0.1:0"]);
        let main = std::mem::replace(
            &mut server.url,
            format!("http://{}", server.ready["masakari_listen"].as_str().expect("an address")),
        );
        let versions = server.get("/v1/").await;
        assert_eq!((versions.status.as_u16(), &versions.json()["version"]["version"]), (200, &json!("1.3")));
        for path in ["/v1/p/hosts", "/v1/segments/x/y"] {
            let none = server.get(path).await;
            assert_eq!((none.status.as_u16(), &none.json()["itemNotFound"]["code"]), (404, &json!(404)), "{path}");
        }
        server.url = main;
        assert_eq!(server.get("/ha/v1/segments").await.json(), json!({"segments": []}));
    });
}
