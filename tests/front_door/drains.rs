//! Planned work through the front door: a living host is emptied by migrations, never before the target's agent
//! lets the guest in, and given back. Nova is a model; agents are sessions.

#[allow(dead_code, reason = "the hands' own tests use all of it")]
#[path = "../../operators/tests/model/nova.rs"]
mod nova;

use std::collections::BTreeMap;
use std::sync::Arc;

use scheduler::{HostReport, InstanceReport};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use self::nova::{Check, Cloud, Model};
use crate::server::{Server, run};
use crate::spec::host;
use crate::support;
use crate::support::agents::{Agent, Guests, Permits, hello, watch, watched};
use crate::support::nodes::until;

const HOSTS: [&str; 3] = ["a", "b", "c"];

struct Estate {
    server: Server,
    model: Model,
    instances: Vec<Uuid>,
    guests: Vec<Guests>,
    permits: BTreeMap<String, Permits>,
    files: TempDir,
}

impl Estate {
    /// Four instances on the first of three hosts, one of them stopped.
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Cloud)) -> Self {
        let model = Model::start().await;
        change(&mut model.cloud());
        let files = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| support::file(files.path(), name, text);
        let nova = json!({
            "auth_url": format!("{}/identity", model.url), "user": nova::USER,
            "password_file": file("nova", nova::PASSWORD), "project": "service", "region": "one",
        });
        let config = file("server.yaml", &format!("ha: {}\n", json!({"mode": "enforce", "nova": nova})));
        let server = Server::start_with(&files.path().join("data"), &["--config", &config]);
        let services: Vec<Uuid> = HOSTS.iter().map(|name| model.cloud().add_host(name, "cell1")).collect();
        let instances: Vec<Uuid> = (0..4).map(|_| model.cloud().add_server("a")).collect();
        model.cloud().server(instances[3]).vm_state = "stopped";
        model.cloud().host("a").guests.remove(&instances[3]);
        let mut told = watched(&HOSTS);
        for (n, service) in services.iter().enumerate() {
            told["hosts"][n]["nova_service"] = service.to_string().into();
        }
        let (guests, permits) = Default::default();
        let mut estate = Self { server, model, instances, guests, permits, files };
        estate.report().await;
        watch(&estate.server, estate.files.path(), &told).await;
        for (n, name) in (1..).zip(HOSTS) {
            let agent = Agent::begin(&estate.server, hello(n)).await.expect("it is known");
            estate.permits.insert(name.to_owned(), agent.permits.clone());
            estate.guests.push(agent.guests.clone());
            agent.beat(None);
        }
        let permits = estate.permits.clone();
        let holds = move |host: &str, instance: Uuid| permits[host].holds(&instance.to_string());
        estate.model.cloud().check = Some(Check(Arc::new(holds)));
        let placed = async || {
            let status: Value = serde_json::from_str(&estate.server.ctl(&["ha", "status", "-o", "json"]).ok()?).ok()?;
            (status["permits"] == 4).then_some(())
        };
        until("places of all instances", placed).await;
        estate
    }

    /// Hosts report what is on them.
    async fn report(&self) {
        let report = |name: &&str| {
            let cloud = self.model.cloud();
            let here = cloud.servers.iter().filter(|(_, server)| server.host == *name);
            let listed = here.map(|(uuid, _)| InstanceReport {
                uuid: *uuid,
                resources: Some([("VCPU".to_owned(), 2), ("MEMORY_MB".to_owned(), 1024)].into()),
                ..InstanceReport::default()
            });
            HostReport { instances: Some(listed.collect()), ..host(name, 8, 8192) }
        };
        let reports: Vec<_> = HOSTS.iter().map(report).collect();
        self.server.apply(&reports).await;
    }

    fn drain(&self, name: &str) -> Value {
        let told = self.server.ctl(&["ha", "drain", name, "-o", "json"]).expect("drains");
        let told: Value = serde_json::from_str(&told).expect("JSON");
        told["drains"][0].clone()
    }

    fn under_way(&self) -> usize {
        self.model.cloud().migrations.iter().filter(|row| row.status == "running").count()
    }

    fn check(&self) {
        let cloud = self.model.cloud();
        for instance in &self.instances {
            assert!(cloud.runs_on(*instance).len() <= 1, "{instance} runs twice");
        }
        assert!(cloud.unpermitted.is_empty(), "called before the target let it in: {:?}", cloud.unpermitted);
        assert!(cloud.hosts.values().all(|host| !host.forced_down), "a living host is never forced down");
    }
}

#[test]
fn a_host_is_emptied_and_given_back() {
    run(async {
        let estate = Estate::new().await;
        let (server, model) = (&estate.server, &estate.model);
        let drain = |arguments: &[&str]| server.ctl(&[&["ha", "drain"], arguments].concat());
        assert_eq!(drain(&[]).expect("drains").trim(), "no drain");
        for (arguments, why) in [
            (&["nowhere", "--reason", "x"][..], "none that failover watches"),
            (&["a", "--mode", "tea", "--reason", "x"], "mode: 'tea' given, auto, manual or termination expected"),
            (&["a", "--done", "--reason", "x"], "'a' is not drained"),
            (&["a", "--cancel"], "--reason"),
        ] {
            let refused = drain(arguments).expect_err("refused");
            assert!(refused.contains(why), "{arguments:?}: {refused}");
        }

        drain(&["a", "--reason", "new DIMMs"]).expect("a drain");
        // The computes work once two are under way: no more are begun at a time.
        let mut most = 0;
        let over = until("an empty host", async || {
            estate.check();
            most = most.max(estate.under_way());
            if estate.under_way() == 2 || model.cloud().migrations.len() == 4 {
                model.cloud().arrive();
            }
            let drain = estate.drain("a");
            let stage = drain["stage"].as_str().expect("a stage");
            (stage != "waiting" && stage != "moving").then_some(drain)
        })
        .await;
        assert_eq!((&over["stage"], &over["moved"], &over["remaining"]), (&json!("succeeded"), &json!(4), &json!(0)));
        assert_eq!(most, 2, "two at a time");
        {
            let cloud = model.cloud();
            assert!(cloud.hosts["a"].disabled && cloud.hosts["a"].guests.is_empty());
            let stopped = &cloud.servers[&estate.instances[3]];
            assert!(stopped.vm_state == "stopped" && stopped.host != "a", "{stopped:?}");
            let rows: Vec<_> = cloud.migrations.iter().map(|row| (row.kind, row.status)).collect();
            assert_eq!(rows.iter().filter(|row| **row == ("live-migration", "completed")).count(), 3, "{rows:?}");
            assert!(rows.contains(&("migration", "confirmed")), "{rows:?}");
        }
        let told = drain(&["a"]).expect("how far it is");
        assert!(told.contains("succeeded") && told.contains("away for auto"), "{told}");

        // The work is done.
        drain(&["a", "--done", "--reason", "they are in"]).expect("given back");
        until("a service that is enabled", async || (!model.cloud().hosts["a"].disabled).then_some(())).await;
        until("the drain's end", async || (drain(&[]).ok()?.trim() == "no drain").then_some(())).await;
        estate.report().await;

        // Another one, taken back half-way: what is on its way arrives, the rest stays.
        let from = if model.cloud().hosts["b"].guests.is_empty() { "c" } else { "b" };
        let before = model.cloud().servers.values().filter(|server| server.host == from).count();
        drain(&[from, "--reason", "a fan"]).expect("a drain");
        let begun = before.min(2);
        until("migrations under way", async || (estate.under_way() == begun).then_some(())).await;
        let refused = drain(&[from, "--done", "--reason", "x"]).expect_err("not over");
        assert!(refused.contains("is not over"), "{refused}");
        drain(&[from, "--cancel", "--reason", "not today"]).expect("taken back");
        model.cloud().arrive();
        until("a service that is enabled", async || (!model.cloud().hosts[from].disabled).then_some(())).await;
        until("the drain's end", async || (drain(&[]).ok()?.trim() == "no drain").then_some(())).await;
        estate.check();
        let left = model.cloud().servers.values().filter(|server| server.host == from).count();
        assert_eq!(left, before - begun, "what was not begun stays");
    });
}

/// A person has Nova move instances between watched hosts: a resize waits at its target's check until the former host
/// says that it is off there, and Nova that it belongs here; what was live-migrated is let in, and its place follows.
#[test]
fn permits_follow_what_nova_moves_itself() {
    run(async {
        let estate = Estate::new().await;
        let [resized, migrated] = [0, 1].map(|n| estate.instances[n].to_string());
        let both = [resized.clone(), migrated.clone()];
        estate.guests[0].set(&both, &[]);
        let placed = async |host: &str, instance: &str| {
            let holders: Vec<_> = HOSTS.into_iter().filter(|name| estate.permits[*name].holds(instance)).collect();
            (holders == [host]).then_some(())
        };
        for instance in &both {
            until("their first place", async || placed("a", instance).await).await;
        }
        estate.guests[0].set(&both[1..], &[]);
        estate.guests[1].set(&[], &both[..1]);
        estate.model.cloud().server(estate.instances[0]).host = "b".to_owned();
        until("the place of the resized one", async || placed("b", &resized).await).await;
        estate.guests[1].set(&both[..1], &[]);

        estate.guests[0].set(&[], &[]);
        estate.guests[2].set(&both[1..], &[]);
        until("the place of the migrated one", async || placed("c", &migrated).await).await;
    });
}

/// Another cluster acts on the same cloud: nothing is written to Nova before an operator lets this one act in its place.
#[test]
fn a_cluster_whose_mark_another_has_does_nothing() {
    const MARK: &str = "pallium-ha";
    run(async {
        let other = format!("pallium_cluster:{}", Uuid::from_u128(0xC9));
        let mark = [(other.clone(), "acts on this cloud".to_owned())];
        let mut estate = Estate::with(|cloud| drop(cloud.aggregates.insert(MARK.to_owned(), mark.into()))).await;
        let status = |estate: &Estate| estate.server.ctl(&["ha", "status"]).unwrap_or_default();
        let refuses =
            async || status(&estate).contains("names cluster 00000000-0000-0000-0000-0000000000c9").then_some(());
        until("another's mark", refuses).await;
        estate.server.ctl(&["ha", "drain", "a", "--reason", "new DIMMs"]).expect("a drain");
        let reads = |estate: &Estate| {
            let cloud = estate.model.cloud();
            cloud.asked.iter().filter(|asked| *asked == "GET /compute/v2.1/os-aggregates").count()
        };
        let before = reads(&estate);
        until("looks at the mark", async || (reads(&estate) >= before + 3).then_some(())).await;
        let writes = |asked: &&String| !asked.starts_with("GET") && !asked.contains("/auth/tokens");
        let written = estate.model.cloud().asked.iter().find(writes).cloned();
        assert_eq!(written, None, "nothing is written while it is another's");
        assert!(estate.server.get("/metrics").await.text.contains("pallium_ha_unmarked 1\n"));

        estate.server.ctl(&["ha", "release", "--after-restore", "--reason", "that one is gone"]).expect("released");
        until("migrations under way", async || (estate.under_way() == 2).then_some(())).await;
        let ours = |estate: &Estate| estate.model.cloud().aggregates[MARK].keys().cloned().collect::<Vec<_>>();
        let named = ours(&estate);
        assert!(named.len() == 1 && named[0] != other, "{named:?}");

        // After a restart it is read and known; what is gone is made again, by the same name.
        let folder = estate.files.path().to_owned();
        let (data, config) = (folder.join("data"), folder.join("server.yaml").display().to_string());
        for gone in [false, true] {
            estate.server.stop();
            let before = reads(&estate);
            if gone {
                estate.model.cloud().aggregates.clear();
            }
            estate.server = Server::start_with(&data, &["--config", &config]);
            let acts = async || {
                let status = status(&estate);
                let free = status.contains("hosts      3") && !status.contains("STOPPED");
                (free && reads(&estate) > before).then_some(())
            };
            until("a leader that has read the mark", acts).await;
            until("the same mark", async || {
                let there = estate.model.cloud().aggregates.contains_key(MARK);
                (there && ours(&estate) == named).then_some(())
            })
            .await;
        }
    });
}
