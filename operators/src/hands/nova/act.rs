//! Actions on one instance that its host lives for: migrations of a drain, hard reboots, stops. Each is one
//! POST on a connection of its own behind the gate, and is never sent again. Nova's `task_state` keeps a
//! second migration out while one is under way (`openstack/nova:nova/compute/api.py`, `live_migrate` and
//! `resize`), so a refusal says that nothing was taken.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::{Method, StatusCode};
use scheduler::ha::coordinator::{Answer, Barrier, Told};
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::Client;
use super::{Key, Nova};
use crate::failover::Gate;
use crate::hands::Known;
use crate::hands::http::{Ask, Failed, Said};

/// What is asked of Nova.
#[derive(Clone, Copy, Debug)]
pub(in crate::hands) enum Act<'a> {
    /// Migrates it there: live, or stopped.
    Migrate(&'a str, bool),
    /// Says that a stopped one may stay where it was moved.
    Confirm,
    /// Starts it again.
    Reboot,
    /// Stops it.
    Stop,
    /// Finishes its live migration by force.
    Force(Uuid),
    /// Gives its live migration up.
    Abort(Uuid),
}

impl Act<'_> {
    fn body(self) -> Value {
        match self {
            Self::Migrate(host, true) => json!({"os-migrateLive": {"host": host, "block_migration": "auto"}}),
            Self::Migrate(host, false) => json!({"migrate": {"host": host}}),
            Self::Confirm => json!({"confirmResize": null}),
            Self::Reboot => json!({"reboot": {"type": "HARD"}}),
            Self::Stop => json!({"os-stop": null}),
            Self::Force(_) => json!({"force_complete": null}),
            Self::Abort(_) => Value::Null,
        }
    }
}

impl Nova {
    /// Does it once.
    pub(in crate::hands) async fn act(
        &self,
        instance: Uuid,
        act: Act<'_>,
        barrier: &Barrier,
        gate: &dyn Gate,
    ) -> Answer {
        // From here on it may have arrived.
        let sent = AtomicBool::new(false);
        let most = Duration::from_millis(barrier.deadline);
        let answer = match tokio::time::timeout(most, self.send_act(instance, act, barrier, gate, &sent)).await {
            Ok(Ok(Some(said))) => meaning(&said, instance, act),
            Ok(Ok(None)) => Answer::NotSent,
            Ok(Err(error)) => {
                tracing::warn!(%instance, ?act, %error, "Nova gave no answer");
                if sent.load(Ordering::Relaxed) { Answer::Unknown } else { Answer::NotSent }
            }
            Err(_) => {
                tracing::warn!(%instance, ?act, "no answer of Nova within {most:?}");
                if sent.load(Ordering::Relaxed) { Answer::Unknown } else { Answer::NotSent }
            }
        };
        tracing::info!(%instance, ?act, intent = %barrier.intent, ?answer, "asked of Nova");
        answer
    }

    async fn send_act(
        &self,
        instance: Uuid,
        act: Act<'_>,
        barrier: &Barrier,
        gate: &dyn Gate,
        sent: &AtomicBool,
    ) -> Result<Option<Said>, Failed> {
        let Some(_flight) = self.evacuations.enter(instance).await else { return Ok(None) };
        let ask = match act {
            Act::Force(migration) => {
                let id = self.client.migration_id(instance, migration).await?;
                Ask::with(Method::POST, format!("/servers/{instance}/migrations/{id}/action"), act.body())
            }
            Act::Abort(migration) => {
                let id = self.client.migration_id(instance, migration).await?;
                Ask { method: Method::DELETE, ..Ask::get(format!("/servers/{instance}/migrations/{id}")) }
            }
            _ => Ask::with(Method::POST, format!("/servers/{instance}/action"), act.body()),
        };
        self.client.once(ask, barrier, gate, sent).await
    }

    /// How much of a live migration is left; none: it is over, or Nova's compute has not said it yet.
    pub(in crate::hands) async fn progress(&self, instance: Uuid, migration: Uuid) -> Option<Told> {
        let read = async {
            let row = self.client.live(instance, migration).await?;
            let left = |name: &str| row[name].as_u64();
            let (memory, disk) = (left("memory_remaining_bytes"), left("disk_remaining_bytes"));
            let remaining = memory.map(|memory| memory.saturating_add(disk.unwrap_or(0)));
            remaining
                .map(|remaining| Told::Progress { instance, remaining })
                .ok_or_else(|| Failed::Answer("it says not how much is left".to_owned()))
        };
        self.told(Key::Progress(instance), &format!("read the migration of {instance}"), &Known::default(), read).await
    }
}

impl Client {
    /// A live migration that is under way, as its instance lists it
    /// (`openstack/nova:nova/api/openstack/compute/server_migrations.py`; uuids since 2.59).
    async fn live(&self, instance: Uuid, migration: Uuid) -> Result<Value, Failed> {
        let mut body = self.json(Ask::get(format!("/servers/{instance}/migrations"))).await?;
        let rows = body.get_mut("migrations").map(Value::take);
        let uuid = migration.to_string();
        let row = rows.and_then(|rows| rows.as_array()?.iter().find(|row| row["uuid"] == uuid.as_str()).cloned());
        row.ok_or_else(|| Failed::Answer(format!("instance {instance} has no live migration {migration} under way")))
    }

    /// Its number: the paths of single migrations know no uuids.
    async fn migration_id(&self, instance: Uuid, migration: Uuid) -> Result<u64, Failed> {
        let row = self.live(instance, migration).await?;
        row["id"].as_u64().ok_or_else(|| Failed::Answer(format!("migration {migration} has no number")))
    }
}

/// What an answer means. A refusal is of these calls alone: nothing was taken.
fn meaning(said: &Said, instance: Uuid, act: Act<'_>) -> Answer {
    if !said.status.is_success() {
        tracing::warn!(%instance, ?act, status = %said.status, text = said.text(), "Nova refuses");
    }
    match said.status {
        status if status.is_success() => Answer::Taken,
        StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::CONFLICT => {
            Answer::Refused { forever: false }
        }
        _ => Answer::Unknown,
    }
}
