//! Nova: the marks of a service, what is on a host, how an instance stands, and evacuation.
//!
//! Never here: `force`, a status code read as "it has happened", a missing row read as "it is not there"
//! unless its cell has answered in the same round.

mod act;
mod back;
mod client;
mod evacuate;
mod groups;
mod mark;
mod read;
mod tally;

use std::time::Duration;

use scheduler::ha::coordinator::{Barrier, Told};
use scheduler::ha::host::HostId;
use uuid::Uuid;

use super::config::{self, ConfigError};
use super::flights::Flights;
use super::http::Failed;
use super::{Known, View};
use crate::failover::{Gate, Tally};
pub(super) use act::Act;
use client::Client;

/// Calls to Nova at once, of those that evacuate and of the others.
const AT_ONCE: usize = 8;
/// The whole of one call of the coordinator that reads or marks, with its few requests.
const MOST: Duration = Duration::from_secs(30);

/// How the reason of a mark of ours begins.
const OURS: &str = "pallium:";

/// What is not done twice at once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Service(HostId),
    List(HostId),
    Groups,
    Mark,
    Server(Uuid),
    Progress(Uuid),
}

pub(super) struct Nova {
    client: Client,
    reads: Flights<Key>,
    /// Of their own, so that no read takes their room.
    evacuations: Flights<Uuid>,
}

impl Nova {
    pub(super) fn open(config: config::Nova) -> Result<Self, ConfigError> {
        Ok(Self { client: Client::open(config)?, reads: Flights::new(AT_ONCE), evacuations: Flights::new(AT_ONCE) })
    }

    pub(super) fn tally(&self) -> Tally {
        self.client.tally.read()
    }

    pub(super) async fn watch(&self) {
        self.client.watch().await;
    }

    /// Before `disable`: of a service that counts as up, Nova would call the dead host to disable it.
    pub(super) async fn force_down(
        &self,
        id: HostId,
        known: &Known,
        barrier: &Barrier,
        gate: &dyn Gate,
    ) -> Option<Told> {
        let mark =
            self.client.mark(known, |row| row.forced_down, serde_json::json!({"forced_down": true}), barrier, gate);
        self.told(Key::Service(id), "force down", known, async { Ok(mark.await?.told(id)) }).await
    }

    /// Both marks in one request: Nova calls nobody then, even if the first one was lost.
    pub(super) async fn disable(&self, id: HostId, known: &Known, barrier: &Barrier, gate: &dyn Gate) -> Option<Told> {
        let body = serde_json::json!({
            "forced_down": true,
            "status": "disabled",
            "disabled_reason": format!("{OURS} the host is proven dead, its instances are evacuated"),
        });
        let mark = self.client.mark(known, |row| row.forced_down && row.disabled, body, barrier, gate);
        self.told(Key::Service(id), "disable", known, async { Ok(mark.await?.told(id)) }).await
    }

    /// A living host: nothing else is marked, and Nova may call it.
    pub(super) async fn cordon(&self, id: HostId, known: &Known, barrier: &Barrier, gate: &dyn Gate) -> Option<Told> {
        let body = serde_json::json!({
            "status": "disabled",
            "disabled_reason": format!("{OURS} the host is drained for planned work"),
        });
        let mark = self.client.mark(known, |row| row.disabled, body, barrier, gate);
        self.told(Key::Service(id), "disable", known, async { Ok(mark.await?.told(id)) }).await
    }

    pub(super) async fn list<V: View>(&self, id: HostId, known: &Known, view: &V) -> Option<Told> {
        let list = async { Ok(Told::Servers(id, self.client.servers(known, view).await?)) };
        self.told(Key::List(id), "list its instances", known, list).await
    }

    /// What Nova does not tell for good is no group: a plan is not kept waiting for it.
    pub(super) async fn groups(&self) -> Option<Told> {
        let all = Known { nova_host: "all".to_owned(), ..Known::default() };
        let list = async { Ok(Told::Groups(self.client.groups().await?)) };
        self.told(Key::Groups, "list server groups", &all, list).await
    }

    pub(super) async fn read<V: View>(&self, instance: Uuid, view: &V) -> Option<Told> {
        let known = view.source(instance).and_then(|source| view.host(source)).unwrap_or_default();
        let read = self.client.instance(instance, &known, view);
        self.told(Key::Server(instance), &format!("read instance {instance}"), &known, read).await
    }

    /// One call of a kind at a time, in time, and its failure in the log.
    async fn told(
        &self,
        key: Key,
        what: &str,
        known: &Known,
        call: impl Future<Output = Result<Told, Failed>>,
    ) -> Option<Told> {
        let whole = async {
            match self.reads.enter(key).await {
                Some(_flight) => call.await.map(Some),
                None => Ok(None),
            }
        };
        let why = match tokio::time::timeout(MOST, whole).await {
            Ok(Ok(told)) => return told,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {MOST:?}"),
        };
        tracing::warn!(host = %known.nova_host, why, "Nova: cannot {what}");
        None
    }
}
