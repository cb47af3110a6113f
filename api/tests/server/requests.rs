//! An agent without a stream: reports by POST, directives by GET.

use api::proto::ha;
use api::proto::ha::host_agent_client::HostAgentClient;

use super::masakari::server as watching;
use super::*;

const HOST: &str = "6f000000-0000-0000-0000-000000000001";
const BOOT: &str = "6f000000-0000-0000-0000-000000000009";

fn hello() -> Value {
    let hello = json!({
        "machine_uuid": "6f000000-0000-0000-0000-000000000002", "machine_serial": "s", "permit_check": true,
    });
    json!({"host": HOST, "boot": BOOT, "hello": hello})
}

/// Its clocks are wrong, and go backwards: its lists look old, and nothing else comes of it.
fn beat(seq: u64, ack: u64) -> Value {
    let (wall, boot) = (4_000_000_000_000_u64 / seq, 9_000_000_000_u64 / seq);
    json!({
        "host": HOST, "boot": BOOT, "seq": seq, "ack_directive": ack, "heartbeat": {"libvirt_ok": true},
        "wall_ms": wall, "boot_ns": boot,
    })
}

impl Server {
    async fn reports(&self, reports: &Value) -> Answer {
        self.post(&format!("/v1/ha/hosts/{HOST}/reports"), reports).await
    }

    async fn directives(&self, query: &str) -> Answer {
        self.get(&format!("/v1/ha/hosts/{HOST}/directives?{query}")).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_without_a_stream_is_heard_and_told() {
    let server = watching().await;
    // Nothing without a Hello, nothing of another host, no more than there is room for.
    for answer in [server.reports(&json!([beat(1, 0)])).await, server.directives("").await] {
        assert!(answer.status == 409 && answer.body.contains("with a Hello"), "{}", answer.body);
    }
    let mut other = beat(1, 0);
    other["host"] = json!("6f000000-0000-0000-0000-000000000005");
    assert_eq!(server.reports(&json!([hello(), other])).await.status, 403);
    assert_eq!(server.reports(&json!([])).await.status, 400);
    let mut long = hello();
    long["hello"]["kernel"] = json!("x".repeat(256 << 10));
    assert_eq!(server.reports(&json!([long])).await.status, 413);

    // The Welcome comes again until it is acknowledged, for an answer may be lost.
    let answer = server.reports(&json!([hello(), beat(1, 0)])).await;
    assert_eq!(answer.status, 204, "{}", answer.body);
    for _ in 0..2 {
        let told = server.directives("wait=20s").await.json();
        assert_eq!((&told[0]["id"], &told[0]["welcome"]["incarnation"]), (&json!(1), &json!(1)), "{told}");
    }
    assert_eq!(server.directives("after=1").await.json(), json!([]), "it has that one");
    let hosts = server.get("/v1/ha/hosts").await.json();
    assert!(hosts["hosts"][0]["age_ms"].as_u64().is_some_and(|age| age < 60_000), "it was heard: {hosts}");
    assert_eq!(server.reports(&json!([beat(2, 1)])).await.status, 204);
    assert_eq!(server.directives("").await.json(), json!([]), "it was acknowledged");

    // A Goodbye counts until the host is heard again; what was said before changes nothing when it comes late.
    let goodbye = |seq: u64, down| json!([{"host": HOST, "boot": BOOT, "seq": seq, "ack_directive": 1, "goodbye": "reboot", "expected_down_s": down}]);
    let away = async || server.get("/v1/ha/hosts").await.json()["hosts"][0]["away_ms"].as_u64();
    assert_eq!(server.reports(&goodbye(2, 300)).await.status, 204);
    assert_eq!(away().await, None, "an old one");
    server.reports(&goodbye(3, 300)).await;
    assert!(away().await.is_some_and(|left| (200_000..=300_000).contains(&left)));
    server.reports(&json!([beat(4, 1)])).await;
    assert_eq!(away().await, None, "it is still here");
    server.reports(&goodbye(5, u32::MAX)).await;
    assert!(away().await.is_some_and(|left| left <= 900_000), "no longer than that");

    // A Hello that is refused begins nothing, and ends nothing.
    let mut bad = hello();
    bad["hello"]["previous_boot"] = json!("the last one");
    assert_eq!(server.reports(&json!([bad])).await.status, 400);
    assert_eq!(server.reports(&json!([beat(6, 1)])).await.status, 204);
    let told = server.directives("wait=500ms").await;
    assert_eq!((told.status, told.json()), (200, json!([])), "its session goes on");

    // One that waits is told at once: here that its life is over.
    let waits = async { server.directives("wait=25s").await };
    let newer = async {
        let mut client = HostAgentClient::new(server.grpc().await);
        let hello: ha::AgentReport = serde_json::from_value(hello()).unwrap();
        let (reports, receiver) = tokio::sync::mpsc::channel(1);
        reports.send(hello).await.unwrap();
        let mut directives = client.session(tokio_stream::wrappers::ReceiverStream::new(receiver)).await.unwrap();
        let welcome = directives.get_mut().message().await.unwrap().unwrap().welcome;
        assert!(welcome.is_some());
        // The older session sees it with the next report.
        server.reports(&json!([beat(7, 1)])).await;
    };
    let (ended, ()) = tokio::join!(waits, newer);
    assert!(ended.status == 409 && ended.body.contains("has ended"), "{} {}", ended.status, ended.body);
    assert_eq!(server.reports(&json!([beat(8, 1)])).await.status, 409);
    server.end().await;
}

/// What a host's guests wait for is told to the leader by where they write, and one whose own disk is full is left out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_that_stand_still_are_told_by_where_they_write() {
    let server = watching().await;
    let guest = |n: u64, state: &str, reason: i32, backends: &[&str]| json!({"uuid": format!("6f000000-0000-0000-0000-00000000010{n}"), "state": state, "state_reason": reason, "backends": backends});
    let list = |seq: u64, whole: bool, present: Vec<Value>| json!({"host": HOST, "boot": BOOT, "seq": seq, "instances": {"whole": whole, "present": present}});
    let told = || {
        let stalls = server.node.ears().overheard().stalls.into_iter();
        stalls.map(|(_, stall)| (stall.backend, stall.guests, stall.stalled)).collect::<Vec<_>>()
    };
    // A report is answered before it is taken in.
    let expect = async |of: &[(&str, u32, u32)]| {
        let of: Vec<_> = of.iter().map(|(place, guests, stalled)| ((*place).to_owned(), *guests, *stalled)).collect();
        let seen = tokio::time::timeout(Duration::from_secs(20), async {
            while told() != of {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        assert!(seen.await.is_ok(), "{:?}, and not {of:?}", told());
    };
    let guests = vec![
        guest(1, "paused", 5, &["rbd:a"]),
        guest(2, "paused", 5, &["local", "rbd:a"]),
        guest(3, "running", 1, &["rbd:a"]),
        // By a person.
        guest(4, "paused", 1, &["rbd:b"]),
    ];
    assert_eq!(server.reports(&json!([hello(), beat(1, 0), list(2, true, guests)])).await.status, 204);
    expect(&[("local", 1, 1), ("rbd:a", 3, 2)]).await;
    let event = json!({"host": HOST, "boot": BOOT, "seq": 3, "event": {
        "instance": "6f000000-0000-0000-0000-000000000102", "kind": "io_error", "detail": 1, "reason": "enospc",
    }});
    server.reports(&json!([event])).await;
    expect(&[("rbd:a", 3, 1)]).await;
    // It goes on, and stands still again: for another reason.
    for (seq, state, reason) in [(4, "running", 1), (5, "paused", 5)] {
        server.reports(&json!([list(seq, false, vec![guest(2, state, reason, &["rbd:a"])])])).await;
    }
    expect(&[("rbd:a", 3, 2)]).await;
    server.reports(&json!([list(6, true, vec![guest(3, "running", 1, &["rbd:a"])])])).await;
    expect(&[]).await;
    server.end().await;
}
