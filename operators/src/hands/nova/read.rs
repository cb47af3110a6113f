//! What is on a host, and how an instance stands.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use scheduler::ha::coordinator::{Migration, Told};
use scheduler::ha::order::{Clear, NovaRead};
use scheduler::ha::planner::{Asks, Listed, OnCrash};
use scheduler::ha::recovery::{Recorded, VmState};
use serde_json::Value;
use uuid::Uuid;

use hyper::StatusCode;

use super::client::{Client, encoded};
use crate::hands::http::{Ask, Failed};
use crate::hands::{Known, View};

/// Rows of migrations, the newest first, in which one of a cell is looked for.
const NEWEST: usize = 100;
/// Instances whose words nobody knows that are remembered.
const STRANGE: usize = 1_024;

/// An instance in Nova's answer.
pub(super) enum Server {
    /// Nova has no such instance, or its cell does not say.
    Missing,
    /// Its cell does not answer: only what stands outside of it is known.
    Partial,
    /// All of it.
    Whole(Value),
}

impl Client {
    /// What Nova lists on a host; an error unless the host's cell has answered.
    pub(super) async fn servers<V: View>(&self, known: &Known, view: &V) -> Result<Vec<Listed>, Failed> {
        let path = format!("/servers/detail?all_tenants=1&host={}", encoded(&known.nova_host));
        let rows = self.pages(&path, "servers", "id").await?;
        let mut servers = Vec::with_capacity(rows.len());
        for row in rows {
            match host_of(&row)? {
                Some(host) if host == known.nova_host => {
                    let (instance, recorded) = (uuid_of(&row, "id")?, recorded(&row));
                    servers.push(Listed { instance, recorded, asks: asks(&row) });
                }
                // Without the right to filter by host Nova leaves out the filter.
                Some(host) => {
                    return Err(Failed::Answer(format!(
                        "Nova lists an instance on '{host}' when asked for '{}': pallium's user may not filter by \
                         host; see docs/failover.md",
                        known.nova_host
                    )));
                }
                // Of a cell that is down: this host's own is looked at below.
                None => {}
            }
        }
        if !self.sentinel(known, view).await? {
            return Err(Failed::Answer(format!(
                "the cell of '{}' does not answer: the list is not whole",
                known.nova_host
            )));
        }
        Ok(servers)
    }

    /// An instance with all its migrations, beside a row that is known to be there.
    pub(super) async fn instance<V: View>(&self, instance: Uuid, source: &Known, view: &V) -> Result<Told, Failed> {
        let server = match self.server(instance).await? {
            Server::Missing => {
                let sentinel = self.sentinel(source, view).await?;
                return Ok(Told::Server { instance, read: None, sentinel });
            }
            Server::Partial => return Ok(Told::Server { instance, read: None, sentinel: false }),
            Server::Whole(server) => server,
        };
        let name = host_of(&server)?.unwrap_or_default();
        let Some((host, known)) = view.named(&name).and_then(|id| Some((id, view.host(id)?))) else {
            let what = format!("Nova has instance {instance} on host '{name}', which failover does not know");
            return Err(Failed::Answer(what));
        };
        let path = format!("/os-migrations?instance_uuid={instance}");
        let rows = self.pages(&path, "migrations", "uuid").await?;
        let sentinel = self.sentinel(&known, view).await?;
        let migrations = rows.iter().map(|row| migration(row, view)).collect::<Result<Vec<_>, _>>()?;
        // An evacuation from where it was before moves nothing: its target died over it, and Nova has it open for ever.
        let void = |row: &Value| row["migration_type"] == "evacuation" && row["source_compute"] != name.as_str();
        let mut moving = rows.iter().zip(&migrations).any(|(row, known)| known.over.is_none() && !void(row));
        // The newest is first. Where a live migration broke off, the guest may be on the other side.
        let live = rows.first().filter(|row| row["migration_type"] == "live-migration");
        let over = migrations.first().and_then(|migration| migration.over) == Some(true);
        let live = live.filter(|row| !over || row["dest_compute"] != name.as_str());
        let destination = live.map(|row| view.named(row["dest_compute"].as_str().unwrap_or_default()));
        // To a host that nobody knows: it is never clear, and a person must look.
        moving |= destination == Some(None);
        let destination = destination.flatten().map(|host| {
            let clear = view.absent(host, instance).map(|at| Clear::Absent { at });
            (host, clear)
        });
        self.complain_once(instance, &server);
        let read = NovaRead {
            host,
            now: recorded(&server),
            sentinel,
            migrations: migrations.iter().map(|migration| migration.id).collect(),
            moving,
            destination,
            on_crash: asks(&server).on_crash,
        };
        Ok(Told::Server { instance, read: Some((read, migrations)), sentinel })
    }

    /// What an instance, or its flavor, wants in words that nobody knows counts as not said. It is told once.
    fn complain_once(&self, instance: Uuid, server: &Value) {
        let [metadata, flavor] = [&server["metadata"], &server["flavor"]["extra_specs"]].map(texts);
        let given: Vec<_> = [&metadata, &flavor].into_iter().flatten().filter_map(OnCrash::said).collect();
        let strange = given.into_iter().find_map(Result::err);
        let mut told = self.strange.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(given) = strange else {
            told.remove(&instance);
            return;
        };
        if told.len() >= STRANGE {
            told.clear();
        }
        if told.insert(instance) {
            let names = OnCrash::ALL.map(|(name, _)| name).join(", ");
            tracing::warn!(
                %instance,
                "pallium:recovery is '{}', and one of {names} is expected: it counts as not said; see docs/failover.md",
                given.chars().take(60).collect::<String>().escape_debug()
            );
        }
    }

    pub(super) async fn server(&self, instance: Uuid) -> Result<Server, Failed> {
        let (said, place) = self.call(Ask::get(format!("/servers/{instance}"))).await?;
        match said.status {
            StatusCode::NOT_FOUND => Ok(Server::Missing),
            StatusCode::OK => {
                let body = said.json(&place)?.get_mut("server").map(Value::take).unwrap_or_default();
                Ok(if host_of(&body)?.is_some() { Server::Whole(body) } else { Server::Partial })
            }
            status => {
                Err(Failed::Answer(format!("{place} answered {status} for instance {instance}: {}", said.text())))
            }
        }
    }

    /// Whether the cell of a host answers, by a row of it: one of the newest migrations of all, or else the
    /// host's service, for which Nova reads all services. Lists leave out a cell that does not answer and say
    /// 200 all the same (2.59 and later, `openstack/nova:nova/compute/multi_cell_list.py`).
    pub(super) async fn sentinel<V: View>(&self, known: &Known, view: &V) -> Result<bool, Failed> {
        let body = self.json(Ask::get(format!("/os-migrations?limit={NEWEST}"))).await?;
        let rows = body.get("migrations").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let of_cell = |name: &str| {
            let cell = || view.named(name).and_then(|id| view.host(id)).map(|host| host.cell);
            name == known.nova_host || !known.cell.is_empty() && cell().is_some_and(|cell| cell == known.cell)
        };
        // A migration stays in its source's cell but for a resize across cells, whose row is in either.
        let stays = |row: &&Value| row["migration_type"] == "evacuation" || row["migration_type"] == "live-migration";
        let mut sources = rows.iter().filter(stays).filter_map(|row| row["source_compute"].as_str());
        if sources.any(of_cell) {
            return Ok(true);
        }
        match self.service(known).await {
            Ok(_) => Ok(true),
            Err(Failed::Answer(why)) => {
                tracing::warn!(host = %known.nova_host, why, "no sign of the host's cell");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// The host of an instance: empty where Nova names none; none where the cell did not answer.
fn host_of(server: &Value) -> Result<Option<String>, Failed> {
    match server.get("OS-EXT-SRV-ATTR:host") {
        Some(host) => Ok(Some(host.as_str().unwrap_or_default().to_owned())),
        None if server["status"] == "UNKNOWN" => Ok(None),
        None => {
            let what =
                "Nova does not show the host of instances: give pallium's user the rights that docs/failover.md lists";
            Err(Failed::Answer(what.to_owned()))
        }
    }
}

/// How an instance stands. One that was never started is in no state that can be evacuated.
pub(super) fn recorded(server: &Value) -> Recorded {
    let launched = server["OS-SRV-USG:launched_at"].is_string();
    let vm = match server["OS-EXT-STS:vm_state"].as_str() {
        Some("active") if launched => VmState::Active,
        Some("stopped") if launched => VmState::Stopped,
        Some("error") if launched => VmState::Error,
        _ => VmState::Other,
    };
    Recorded { vm, running: server["OS-EXT-STS:power_state"] == 1, task: server["OS-EXT-STS:task_state"].is_string() }
}

fn texts(from: &Value) -> Option<BTreeMap<String, String>> {
    let pairs = from.as_object()?.iter();
    Some(pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect())
}

/// What an instance asked for. Nova tells the zone from 2.96 on, and the flavor's extra specs to whom it shows them.
fn asks(server: &Value) -> Asks {
    let metadata = texts(&server["metadata"]).unwrap_or_default();
    let zone = server.get("pinned_availability_zone").map(|zone| zone.as_str().map(str::to_owned));
    let image = server["image"]["id"].as_str().map(str::to_owned);
    Asks { zone, image, ..Asks::new(texts(&server["flavor"]["extra_specs"]), &metadata) }
}

/// A migration. What is over is what Nova's own list of those in progress leaves out
/// (`openstack/nova:nova/db/main/api.py`, `migration_get_in_progress_by_host_and_node`).
fn migration<V: View>(row: &Value, view: &V) -> Result<Migration, Failed> {
    let over = match row["status"].as_str() {
        Some("done" | "completed" | "confirmed") => Some(true),
        Some("error" | "failed" | "cancelled" | "reverted") => Some(false),
        _ => None,
    };
    let evacuates = (row["migration_type"] == "evacuation").then(|| view.named(row["dest_compute"].as_str()?));
    Ok(Migration { id: uuid_of(row, "uuid")?, over, evacuates })
}

fn uuid_of(row: &Value, name: &str) -> Result<Uuid, Failed> {
    let uuid = row.get(name).and_then(Value::as_str).and_then(|uuid| Uuid::parse_str(uuid).ok());
    uuid.ok_or_else(|| Failed::Answer(format!("Nova gives a row without a '{name}' that is a uuid")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_an_instance_asked_for_is_read_as_far_as_nova_tells_it() {
        let said = asks(&json!({
            "flavor": {"extra_specs": {"trait:CUSTOM_FAST": "required", "pallium:class": "high"}},
            "metadata": {"pallium:priority": "20", "HA_Enabled": "False", "pallium:min_available": "2"},
            "image": {"id": "6f1"},
            "pinned_availability_zone": "az-b",
        }));
        assert_eq!((said.rank.to_string().as_str(), said.unprotected), ("high 20", true));
        assert!(said.min_available);
        assert_eq!(said.traits(), Some((vec!["CUSTOM_FAST"], Vec::new())));
        assert_eq!((said.image.as_deref(), said.zone), (Some("6f1"), Some(Some("az-b".to_owned()))));
        // From 2.96 on: for any zone. Before: nobody says. A volume has no image.
        assert_eq!(asks(&json!({"pinned_availability_zone": null})).zone, Some(None));
        assert_eq!(asks(&json!({"flavor": {"vcpus": 2}, "image": "", "metadata": null})), Asks::default());
    }
}
