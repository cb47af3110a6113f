//! Webhooks against receivers that fail, hang and come back: every event arrives, in order, under the same id,
//! and failover goes on meanwhile.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use operators::events::{Pace, Receiver, Webhooks};
use raft::{Node, Options};
use scheduler::ha::case::{Act, Cause};
use scheduler::ha::host::{Fencer, Hello, Machine, PlaceNames};
use scheduler::ha::mark::Mark;
use scheduler::ha::order::{Groups, NovaRead, PermitCause};
use scheduler::ha::proof::{Power, PowerRead};
use scheduler::ha::recovery::{Life, Recorded, VmState};
use scheduler::ha::trouble;
use scheduler::ha::{Actor, Change, Detection, Evidence, HostId, HostSpec, Phase, Role};
use scheduler::pipeline::Registry;
use scheduler::{Engine, Settings};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use uuid::Uuid;

const PACE: Pace = Pace {
    look: Duration::from_millis(10),
    deadline: Duration::from_millis(300),
    again: Duration::from_millis(10),
    most: Duration::from_millis(40),
    note: Duration::ZERO,
};

/// What a receiver does with the next posts.
#[derive(Clone, Copy, Debug)]
enum Mood {
    Takes,
    Fails(StatusCode),
    Hangs,
}

#[derive(Default)]
struct Heard {
    taken: Mutex<Vec<Value>>,
    asked: AtomicUsize,
}

/// A receiver that takes its moods in turn, and then takes all.
async fn receiver(address: &str, heard: &Arc<Heard>, moods: &'static [Mood]) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (heard, turn) = (Arc::clone(heard), Arc::new(AtomicUsize::new(0)));
    let take = move |headers: HeaderMap, body: String| {
        let (heard, turn) = (Arc::clone(&heard), Arc::clone(&turn));
        async move {
            heard.asked.fetch_add(1, Ordering::SeqCst);
            assert_eq!(headers["content-type"], "application/cloudevents+json; charset=utf-8");
            assert_eq!(headers["authorization"], "Bearer open sesame");
            match moods.get(turn.fetch_add(1, Ordering::SeqCst)).copied().unwrap_or(Mood::Takes) {
                Mood::Takes => {
                    heard.taken.lock().unwrap().push(serde_json::from_str(&body).unwrap());
                    (StatusCode::NO_CONTENT, Json(()))
                }
                Mood::Fails(status) => (status, Json(())),
                Mood::Hangs => std::future::pending().await,
            }
        }
    };
    let router = Router::new().route("/hook", post(take));
    let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, serving)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_mins(1), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what}: not within a minute"));
}

struct World {
    node: Node,
    host: HostId,
}

impl World {
    async fn begin(folder: &std::path::Path) -> Self {
        let engine = Engine::new(Registry::default(), Settings::default());
        let node = Node::open(Options::new(folder, 1), engine).await.unwrap();
        until("the level", || node.has_failover()).await;
        let world = Self { node, host: HostId(Uuid::from_u128(7)) };
        let machine = Machine { uuid: Some(Uuid::from_u128(8)), serial: Some("s".to_owned()) };
        let text = |text: &str| text.to_owned();
        let spec = HostSpec {
            id: world.host,
            nova_host: text("node-1"),
            machine: machine.clone(),
            places: PlaceNames {
                az: text("a"),
                cell: text("c"),
                cluster: text("b"),
                power: text("p"),
                chassis: text("x"),
            },
            fencers: vec![Fencer::Manual],
            enabled: true,
            permit_check: true,
            ..HostSpec::default()
        };
        world.order(Change::HostUpsert(Box::new(spec))).await;
        let hello = Hello { boot: Uuid::from_u128(9), machine, permit_check: true, ..Hello::default() };
        world.order(Change::IncarnationOpen { host: world.host, hello: Box::new(hello) }).await;
        world
    }

    async fn order(&self, change: Change) {
        let actor = Actor { role: Role::Operator, name: "test".to_owned(), reason: "test".to_owned() };
        self.node.order(actor, change).await.unwrap().unwrap();
    }

    /// A case that is opened by a person, flagged and cleared: five events.
    async fn case(&self) {
        let incarnation = 1;
        self.order(Change::CaseOpen { host: self.host, incarnation, cause: Cause::Operator }).await;
        let host = self.host;
        let case = self.node.query(move |core| core.state().tables().failover().cases.get(host).unwrap().id).await;
        let case = case.unwrap();
        self.order(Change::NeedsOperator { case, reason: Some("look".to_owned()) }).await;
        let (from, to) = (Phase::Unreachable, Phase::FencePending);
        self.order(Change::CasePhase { case, from, to }).await;
    }

    async fn clear(&self) {
        let host = self.host;
        let case = self.node.query(move |core| core.state().tables().failover().cases.get(host).unwrap().id).await;
        let (from, to) = (Phase::FencePending, Phase::Cleared);
        self.order(Change::CasePhase { case: case.unwrap(), from, to }).await;
    }

    fn tell(&self, receiver: &Receiver) -> JoinHandle<()> {
        tokio::spawn(Webhooks::open(std::slice::from_ref(receiver)).unwrap().run(self.node.clone(), PACE))
    }

    /// How far the receiver was told, as the log knows it.
    async fn noted(&self) -> u64 {
        let look = |core: &scheduler::Core| core.state().tables().failover().small.told.get("one").copied();
        self.node.query(look).await.unwrap().unwrap_or(0)
    }

    async fn wait_noted(&self, more_than: u64) -> u64 {
        loop {
            let noted = self.noted().await;
            if noted > more_than {
                return noted;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn kinds(heard: &Heard) -> Vec<String> {
    let kind = |event: &Value| {
        let kind = event["type"].as_str().unwrap();
        kind.strip_prefix("dev.pallium.ha.").and_then(|kind| kind.strip_suffix(".v1")).unwrap().to_owned()
    };
    heard.taken.lock().unwrap().iter().map(kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_arrives_in_order_whatever_the_receiver_does() {
    const MOODS: [Mood; 5] = [
        Mood::Fails(StatusCode::INTERNAL_SERVER_ERROR),
        Mood::Fails(StatusCode::UNAUTHORIZED),
        Mood::Hangs,
        Mood::Takes,
        Mood::Fails(StatusCode::SERVICE_UNAVAILABLE),
    ];
    let folder = tempfile::tempdir().unwrap();
    let world = World::begin(folder.path()).await;
    let heard = Arc::new(Heard::default());
    let (address, serving) = receiver("127.0.0.1:0", &heard, &MOODS).await;
    let token = folder.path().join("token");
    std::fs::write(&token, "open sesame\n").unwrap();
    let to =
        Receiver { name: "one".to_owned(), url: format!("http://{address}/hook"), ca: None, token_file: Some(token) };
    let telling = world.tell(&to);
    let began = world.wait_noted(0).await;

    // The receiver fails, hangs and fails again; orders are committed meanwhile, as fast as ever.
    world.case().await;
    until("all of it", || heard.taken.lock().unwrap().len() >= 4).await;
    let first = ["case.opened", "case.needs-operator", "fence.pending", "operator.ordered"];
    let mut sorted = kinds(&heard);
    sorted.sort();
    let mut expected = first.map(str::to_owned);
    expected.sort();
    assert_eq!(sorted, expected);
    assert_eq!(kinds(&heard)[0], "case.opened");
    let noted = world.wait_noted(began).await;
    {
        let events = heard.taken.lock().unwrap();
        let event = &events[0];
        assert_eq!((&event["specversion"], &event["data"]["host"]), (&"1.0".into(), &"node-1".into()), "{event}");
        assert_eq!(event["subject"], format!("host/{}", world.host));
        assert_eq!(event["source"], format!("/pallium/{}", world.node.identity().cluster));
        assert!(event["time"].as_str().unwrap().ends_with('Z'));
    }

    // It is gone; what happens meanwhile is not lost, though whoever told it is another one by then.
    serving.abort();
    let _ = serving.await;
    world.clear().await;
    telling.abort();
    let _ = telling.await;
    let (_, serving) = receiver(&address, &heard, &[]).await;
    let telling = world.tell(&to);
    until("what happened while it was gone", || kinds(&heard).contains(&"case.cleared".to_owned())).await;
    world.wait_noted(noted).await;

    // What came twice came under the same id, and nothing else did.
    let events = heard.taken.lock().unwrap().clone();
    let mut by_id = std::collections::BTreeMap::new();
    for event in &events {
        let id = event["id"].as_str().unwrap().to_owned();
        assert_eq!(by_id.entry(id).or_insert(event), &event);
    }
    assert_eq!(by_id.len(), 5, "{events:#?}");
    telling.abort();
    serving.abort();
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_refused_for_good_keeps_no_other_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::begin(folder.path()).await;
    let heard = Arc::new(Heard::default());
    let (address, serving) = receiver("127.0.0.1:0", &heard, &[Mood::Fails(StatusCode::BAD_REQUEST)]).await;
    let token = folder.path().join("token");
    std::fs::write(&token, "open sesame\n").unwrap();
    let to =
        Receiver { name: "one".to_owned(), url: format!("http://{address}/hook"), ca: None, token_file: Some(token) };
    let telling = world.tell(&to);
    world.wait_noted(0).await;
    world.case().await;
    until("the others", || heard.taken.lock().unwrap().len() >= 2).await;
    assert!(!kinds(&heard).contains(&"case.opened".to_owned()), "{:?}", kinds(&heard));
    telling.abort();
    serving.abort();
    world.node.shutdown().await;
}

/// What was seen, what a person said, and a proof that was wrong: each once, with the record that it is about.
#[tokio::test(flavor = "multi_thread")]
async fn sightings_orders_and_wrong_proofs_are_events_too() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::begin(folder.path()).await;
    let host = world.host;
    let seen = |from, to| Change::DetectionSet { host, incarnation: 1, from, to, groups: Groups(5), age: 7_000 };
    world.order(seen(Detection::Alive, Detection::Suspect)).await;
    world.order(seen(Detection::Suspect, Detection::Isolated)).await;
    world.order(seen(Detection::Isolated, Detection::Alive)).await;
    world.order(seen(Detection::Alive, Detection::Suspect)).await;
    world.order(Change::Pause { act: Act::Kill, until: 1_000 }).await;
    world.order(Change::CaseOpen { host, incarnation: 1, cause: Cause::PowerOff }).await;
    let machine = Machine { uuid: Some(Uuid::from_u128(8)), serial: Some("s".to_owned()) };
    let off = |at| PowerRead { power: Power::Off, raw: "Off".to_owned(), machine: machine.clone(), at };
    let evidence = Evidence::PowerOff(Box::new([off(0), off(2_000)]));
    world.order(Change::DeathProof { host, incarnation: 1, evidence }).await;
    let hello = Hello { boot: Uuid::from_u128(9), machine: machine.clone(), permit_check: true, ..Hello::default() };
    for _ in 0..2 {
        world.order(Change::IncarnationOpen { host, hello: Box::new(hello.clone()) }).await;
    }
    let tables = world.node.query(|core| core.state().tables().clone()).await.unwrap();
    let events = operators::events::since(&tables, world.node.identity().cluster, 0);
    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    let expected = [
        "host.suspected",
        "host.isolated",
        "host.heard-again",
        "host.suspected",
        "case.opened",
        "host.proven-dead",
        "host.proof-violated",
        "operator.ordered",
    ];
    let count = |kind| kinds.iter().filter(|known| **known == kind).count();
    for kind in expected {
        let given = expected.iter().filter(|known| **known == kind).count();
        // The pause, the case and the proof were a person's here.
        assert_eq!(count(kind), if kind == "operator.ordered" { 3 } else { given }, "{kind}: {kinds:?}");
    }
    let of = |kind| events.iter().find(|event| event.kind == kind).unwrap();
    assert_eq!(of("host.isolated").data["silent_to"], serde_json::json!(["management", "storage"]));
    assert_eq!(
        (&of("host.isolated").data["silent_ms"], &of("host.isolated").subject),
        (&7_000.into(), &format!("host/{host}"))
    );
    assert_eq!(of("host.proof-violated").data["boot"], Uuid::from_u128(9).to_string());
    let pause = events.iter().find(|event| event.data["what"] == "pauses kill").unwrap();
    assert_eq!((&pause.data["actor"], &pause.subject[..]), (&"test".into(), "failover"));
    assert!(pause.data["until"].is_string(), "{pause:?}");
    let ids: std::collections::BTreeSet<_> = events.iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), events.len(), "{events:#?}");
    world.node.shutdown().await;
}

/// A guest that three restarts did not help, and what befalls it further.
#[tokio::test(flavor = "multi_thread")]
async fn what_befalls_single_guests_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::begin(folder.path()).await;
    world.order(Change::Mark(Mark::Ours)).await;
    let (host, instance) = (world.host, Uuid::from_u128(20));
    let life = Life { host, incarnation: 1 };
    world.order(Change::PermitMove { instance, from: None, to: life, cause: PermitCause::Placed }).await;
    let now = Recorded { vm: VmState::Active, running: false, task: false };
    let nova =
        NovaRead { host, now, sentinel: true, migrations: vec![], moving: false, destination: None, on_crash: None };
    let events = async || {
        let tables = world.node.query(|core| core.state().tables().clone()).await.unwrap();
        let events = operators::events::since(&tables, world.node.identity().cluster, 0);
        events.into_iter().filter(|event| event.subject == format!("instance/{instance}")).collect::<Vec<_>>()
    };
    for nth in 1..=3 {
        assert_eq!(events().await, [], "not after {nth}");
        let op = Uuid::from_u128(30 + nth);
        world.order(Change::RestartIntent { instance, life, op, to: None, nova: Box::new(nova.clone()) }).await;
        world.order(Change::RestartOutcome { instance, op, well: false }).await;
    }
    let told = events().await;
    assert_eq!((told.len(), told[0].kind), (1, "instance.recovery-exhausted"), "{told:?}");
    assert_eq!((&told[0].data["host"], &told[0].data["restarts"]), (&"node-1".into(), &3.into()));
    for kind in trouble::Kind::ALL {
        world.order(Change::GuestTrouble { instance, life, kind }).await;
    }
    let told = events().await;
    let kinds: Vec<_> = told[1..].iter().map(|event| event.kind).collect();
    let expected = ["instance.destroyed", "instance.postcopy-failed", "instance.quarantined", "instance.unmanaged"];
    assert!(expected.iter().all(|kind| kinds.contains(kind)) && kinds.len() == 4, "{told:?}");
    let quarantined = told.iter().find(|event| event.kind == "instance.quarantined").unwrap();
    assert_eq!(quarantined.data["reason"], "postcopy_split");
    world.node.shutdown().await;
}

#[test]
fn what_cannot_work_is_refused_by_its_key() {
    let receiver =
        |name: &str, url: &str| Receiver { name: name.to_owned(), url: url.to_owned(), ca: None, token_file: None };
    let ok = receiver("one", "http://127.0.0.1:1/hook");
    let cases = [
        (vec![ok.clone(), ok.clone()], "events[1].name: 'one' given"),
        (vec![receiver("", "http://x/")], "events[0].name: '' given"),
        (vec![receiver("one", "ftp://x/")], "events[0].url: 'ftp://x/' given"),
        (vec![receiver("one", "https://x/")], "events[0].ca: no CA given"),
        (vec![Receiver { token_file: Some("/nowhere".into()), ..ok.clone() }], "events[0].token_file: /nowhere"),
        (vec![ok; 17], "events: 17 receivers given, 16 at most"),
    ];
    for (receivers, expected) in cases {
        let refused = Webhooks::open(&receivers).map(|_| ()).unwrap_err().to_string();
        assert!(refused.starts_with(expected), "{refused}");
    }
}
