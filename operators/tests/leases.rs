//! Hosts that live on watchdog leases are granted them by whoever leads, whatever else it may do.

#![allow(clippy::unwrap_used)]

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use operators::failover::{Gate, Hands, Settings, Tally, run};
use raft::{Node, Options};
use scheduler::ha::coordinator::lease::Ask;
use scheduler::ha::coordinator::{Call, Told};
use scheduler::ha::host::{Fencer, Hello, Machine, PlaceNames, Watchdog};
use scheduler::ha::order::Voter;
use scheduler::ha::policy::Mode;
use scheduler::ha::proof::{Lease, LeaseMode};
use scheduler::ha::{Actor, Change, HostId, HostSpec, Role};
use scheduler::pipeline::Registry;
use scheduler::{Engine, Settings as Engines};
use uuid::Uuid;

/// They reach nothing.
#[derive(Default)]
struct Idle(AtomicUsize);

impl Hands for Idle {
    fn act(self: Arc<Self>, _: Call, _: Arc<dyn Gate>) -> Pin<Box<dyn Future<Output = Option<Told>> + Send>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { None })
    }

    fn tally(&self) -> Tally {
        Tally::default()
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_mins(1), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what}: not within a minute"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leads_grants_leases() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::new(Registry::default(), Engines::default());
    let node = Node::open(Options::new(folder.path(), 1), engine).await.unwrap();
    until("the level", || node.has_failover()).await;
    let order = async |change| {
        let actor = Actor { role: Role::Operator, name: "test".to_owned(), reason: "test".to_owned() };
        node.order(actor, change).await.unwrap().unwrap()
    };
    let (host, boot) = (HostId(Uuid::from_u128(7)), Uuid::from_u128(9));
    let machine = Machine { uuid: Some(Uuid::from_u128(8)), serial: Some("s".to_owned()) };
    let text = |text: &str| text.to_owned();
    let spec = HostSpec {
        id: host,
        nova_host: text("node-1"),
        machine: machine.clone(),
        places: PlaceNames { az: text("a"), cell: text("c"), cluster: text("b"), power: text("p"), chassis: text("x") },
        bmc: Some(text("bmc-1")),
        fencers: vec![Fencer::Redfish, Fencer::WatchdogLease, Fencer::Manual],
        enabled: true,
        permit_check: true,
        ..HostSpec::default()
    };
    order(Change::HostUpsert(Box::new(spec))).await;
    let watchdog = Watchdog { armed: true, hardware: true, nowayout: true, timeout: 10_000, ..Watchdog::default() };
    let hello = Hello { boot, machine, permit_check: true, watchdog, ..Hello::default() };
    order(Change::IncarnationOpen { host, hello: Box::new(hello) }).await;
    let voter = |node| Voter { node, host: None, chassis: text("control"), power: text("control") };
    order(Change::Voters((1..=3).map(voter).collect())).await;
    order(Change::LeaseEpoch(Lease { mode: LeaseMode::Strict, ..Lease::default() })).await;

    let mut seq = 0;
    for mode in [Mode::Off, Mode::DryRun, Mode::Enforce] {
        let hands = Arc::new(Idle::default());
        let settings = Settings { mode, ..Settings::default() };
        let running = tokio::spawn(run(node.clone(), settings, Arc::clone(&hands) as _));
        for _ in 0..2 {
            seq += 1;
            node.ears().heard(host, boot, 0);
            node.ears().ask(Ask { host, boot, seq });
            let granted = || node.ears().grant(host).is_some_and(|grant| grant.seq == seq);
            until(&format!("a lease of a leader under {mode:?}"), granted).await;
        }
        if mode == Mode::Off {
            assert_eq!(hands.0.load(Ordering::SeqCst), 0, "off is off");
        }
        running.abort();
    }
    node.shutdown().await;
}
