//! kill -9 at any moment loses no answered claim, and leaves no claim without a request that was
//! sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use scheduler::HostReport;

use crate::server::{Server, run};
use crate::spec::{create, host, uuid};

const KILLS: u64 = 50;
const CLIENTS: u64 = 8;
const HOSTS: [&str; 4] = ["a", "b", "c", "d"];
const SEED: u64 = 7;

fn fleet() -> Vec<HostReport> {
    HOSTS.map(|name| host(name, 100_000, 100_000_000)).into()
}

/// instance → host, of every consumer in the state.
async fn claims(server: &Server) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for host in HOSTS {
        let mut page = String::new();
        loop {
            let list = server.get(&format!("/v1/instances?host={host}&page_size=1000&page_token={page}")).await.json();
            for place in list["instances"].as_array().expect("a list") {
                let uuid = place["uuid"].as_str().expect("a uuid").to_owned();
                assert_eq!(out.insert(uuid, host.to_owned()), None, "one place for each instance");
            }
            match list["next_page_token"].as_str() {
                Some(next) if !next.is_empty() => next.clone_into(&mut page),
                _ => break,
            }
        }
    }
    out
}

#[test]
fn kill_at_any_moment_loses_no_answered_claim() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut random = SmallRng::seed_from_u64(SEED);
    let next = AtomicU64::new(0);
    let sent = Mutex::new(BTreeSet::new());
    let answered = Mutex::new(BTreeMap::new());
    let hosts: Vec<String> = HOSTS.iter().map(|&host| host.to_owned()).collect();
    let mut loaded = false;
    for kill in 0..=KILLS {
        run(async {
            let mut server = Server::start(dir.path());
            if loaded {
                let claims = claims(&server).await;
                for (instance, host) in answered.lock().expect("whole").iter() {
                    assert_eq!(claims.get(instance), Some(host), "kill {kill}: an answered claim is lost");
                }
                let sent = sent.lock().expect("whole");
                assert!(claims.keys().all(|instance| sent.contains(instance)), "kill {kill}: a claim nobody asked for");
            } else {
                server.apply(&fleet()).await;
                loaded = true;
            }
            if kill == KILLS {
                return;
            }
            let answers = AtomicU64::new(0);
            let enough = random.random_range(1..60);
            let client = async || {
                loop {
                    let instance = uuid(next.fetch_add(1, Ordering::Relaxed));
                    sent.lock().expect("whole").insert(instance.clone());
                    let body = create(&instance, &hosts, 1, 512).to_string();
                    let Ok(answer) = server.send("POST", "/scheduler/nova/external", body).await else { break };
                    if answer.status != 200 {
                        break;
                    }
                    let host = answer.hosts()[0].clone();
                    answered.lock().expect("whole").insert(instance, host);
                    if answers.fetch_add(1, Ordering::Relaxed) + 1 >= enough {
                        break;
                    }
                }
            };
            // The killer strikes when enough were answered, while the others are in the middle.
            let clients: Vec<_> = (0..CLIENTS).map(|_| Box::pin(client())).collect();
            let _ = futures::future::select_all(clients).await;
            server.kill();
        });
    }
    assert!(answered.lock().expect("whole").len() as u64 >= KILLS);
}
