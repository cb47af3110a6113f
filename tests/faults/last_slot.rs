//! Many ask for few slots: exactly as many claims as there is room, before and after a crash.

use std::collections::BTreeMap;

use scheduler::HostReport;
use serde_json::Value;

use crate::server::{Server, run};
use crate::spec::{create, host, uuid};

const REQUESTS: u64 = 1000;
const HOSTS: u64 = 20;
/// Room of each host: 12 or 13 instances of 1 VCPU and 512 MiB.
const SLOTS: u64 = HOSTS * 12 + HOSTS / 2;

fn fleet() -> Vec<HostReport> {
    (0..HOSTS)
        .map(|n| {
            let slots = 12 + n % 2;
            host(&format!("node-{n:02}"), slots, 512 * slots + 300)
        })
        .collect()
}

/// Claims by host, from the state.
async fn claims(server: &Server) -> BTreeMap<String, u64> {
    let mut out = BTreeMap::new();
    for host in fleet() {
        let list = server.get(&format!("/v1/instances?host={}&page_size=1000", host.name)).await.json();
        out.insert(host.name, list["instances"].as_array().expect("a list").len() as u64);
    }
    out
}

async fn nothing_is_overbooked(server: &Server, answered: &BTreeMap<String, u64>) {
    let claims = claims(server).await;
    for (host, capacity) in fleet().iter().map(|h| (&h.name, h.inventories.as_ref().expect("given")["VCPU"].total)) {
        assert_eq!(claims[host], capacity, "{host} is exactly full");
    }
    assert_eq!(&claims, answered, "a claim for each answer, on the host that was answered");
}

#[test]
fn a_thousand_requests_get_exactly_the_slots_there_are() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let mut server = Server::start(dir.path());
        server.apply(&fleet()).await;
        let hosts: Vec<String> = fleet().into_iter().map(|host| host.name).collect();
        let bodies: Vec<Value> = (0..REQUESTS).map(|n| create(&uuid(n), &hosts, 1, 512)).collect();
        let answers = futures::future::join_all(bodies.iter().map(|body| server.hook(body))).await;
        let mut answered: BTreeMap<String, u64> = BTreeMap::new();
        for host in answers.iter().filter_map(|answer| answer.hosts().first().cloned()) {
            *answered.entry(host).or_default() += 1;
        }
        assert_eq!(answered.values().sum::<u64>(), SLOTS);
        nothing_is_overbooked(&server, &answered).await;

        server.kill();
        let server = Server::start(dir.path());
        nothing_is_overbooked(&server, &answered).await;
    });
}
