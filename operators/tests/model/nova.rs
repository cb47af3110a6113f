//! Keystone and Nova as far as failover meets them, for tests: a server with their documented rules, and with
//! the dangers that come of them. Each rule names where it stands in `openstack/nova` (master, 2026-08) or
//! in the API reference.
//!
//! It holds a truth of its own beside what its API says: which guests run where. A test asks it whether an
//! instance ever ran twice.

#[path = "nova/api.rs"]
mod api;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use uuid::Uuid;

pub const USER: &str = "pallium";
pub const PASSWORD: &str = "correct horse";

/// A host with its nova-compute.
#[derive(Clone, Debug)]
pub struct Host {
    pub service: Uuid,
    pub cell: &'static str,
    /// It reports: its service counts as up unless it is forced down.
    pub reports: bool,
    pub forced_down: bool,
    pub disabled: bool,
    pub disabled_reason: Option<String>,
    /// Guests that run there, by the truth.
    pub guests: BTreeSet<Uuid>,
}

/// An instance.
#[derive(Clone, Debug)]
pub struct Server {
    pub host: String,
    pub vm_state: &'static str,
    pub task_state: Option<&'static str>,
    pub power_state: u8,
    pub launched: bool,
    pub metadata: BTreeMap<&'static str, &'static str>,
}

/// A migration.
#[derive(Clone, Debug)]
pub struct Migration {
    pub uuid: Uuid,
    pub instance: Uuid,
    pub kind: &'static str,
    pub status: &'static str,
    pub source: String,
    pub dest: String,
}

/// Whether a host's check lets a guest begin there: libvirt's hook asks when a migration arrives.
#[derive(Clone)]
pub struct Check(pub Arc<May>);

/// By host and instance.
type May = dyn Fn(&str, Uuid) -> bool + Send + Sync;

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Check")
    }
}

/// A server group.
#[derive(Clone, Debug)]
pub struct Group {
    pub uuid: Uuid,
    pub policy: &'static str,
    pub most: Option<u64>,
    pub members: Vec<Uuid>,
}

/// What is wrong with requests whose "METHOD path" contains the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This status comes, and nothing is done.
    Refuse(u16),
    /// It is done, and no answer comes.
    LoseAnswer,
    /// This status comes although it is done: a proxy gave up.
    Answer(u16),
}

/// All of it.
#[derive(Debug)]
pub struct Cloud {
    pub hosts: BTreeMap<String, Host>,
    pub servers: BTreeMap<Uuid, Server>,
    pub migrations: Vec<Migration>,
    pub groups: Vec<Group>,
    /// Aggregates by name, with their metadata.
    pub aggregates: BTreeMap<String, BTreeMap<String, String>>,
    /// Cells whose database does not answer.
    pub down: BTreeSet<&'static str>,
    /// The newest microversion, 2.x.
    pub newest: u32,
    /// `[api] max_limit`.
    pub page: usize,
    /// Older branches answer 409 to an instance with a task (`task_state=[None]`).
    pub checks_task: bool,
    /// The user may see hosts and filter by them.
    pub admin: bool,
    pub faults: Vec<(&'static str, Fault)>,
    tokens: BTreeSet<String>,
    /// Requests, as "METHOD path?query".
    pub asked: Vec<String>,
    /// Asked when a migration of a living guest is called; none: everything may begin.
    pub check: Option<Check>,
    /// Migrations that were called although the target's check would have refused the guest.
    pub unpermitted: Vec<Uuid>,
    /// Hard reboots.
    pub reboots: Vec<Uuid>,
    /// Blocking RPC calls to a compute service, to sync a trait.
    pub rpcs: usize,
    made: u128,
    url: String,
}

/// A running model.
#[derive(Clone)]
pub struct Model {
    cloud: Arc<Mutex<Cloud>>,
    pub url: String,
}

impl Model {
    /// Serves an empty cloud on a port of its own until the runtime ends.
    pub async fn start() -> Self {
        Self::start_at(std::net::Ipv4Addr::LOCALHOST.into(), |app| app).await
    }

    /// The same at an address, with something in front of it.
    pub async fn start_at(at: std::net::IpAddr, front: impl FnOnce(Router) -> Router) -> Self {
        let listener = tokio::net::TcpListener::bind((at, 0)).await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let cloud = Cloud {
            hosts: BTreeMap::new(),
            servers: BTreeMap::new(),
            migrations: Vec::new(),
            groups: Vec::new(),
            aggregates: BTreeMap::new(),
            down: BTreeSet::new(),
            newest: 104,
            page: 1000,
            checks_task: false,
            admin: true,
            faults: Vec::new(),
            tokens: BTreeSet::new(),
            asked: Vec::new(),
            check: None,
            unpermitted: Vec::new(),
            reboots: Vec::new(),
            rpcs: 0,
            made: 0,
            url: url.clone(),
        };
        let model = Self { cloud: Arc::new(Mutex::new(cloud)), url };
        let app = front(Router::new().fallback(serve).with_state(model.clone()));
        tokio::spawn(async move { axum::serve(listener, app).await });
        model
    }

    pub fn cloud(&self) -> MutexGuard<'_, Cloud> {
        self.cloud.lock().expect("no handler panics")
    }
}

async fn serve(State(model): State<Model>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let asked = format!("{method} {uri}");
    let fault = {
        let mut cloud = model.cloud();
        cloud.asked.push(asked.clone());
        cloud.faults.iter().find(|(part, _)| asked.contains(part)).map(|(_, fault)| *fault)
    };
    if let Some(Fault::Refuse(status)) = fault {
        return StatusCode::from_u16(status).expect("a status").into_response();
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let query: BTreeMap<String, String> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), percent_encoding::percent_decode_str(value).decode_utf8_lossy().into()))
        .collect();
    let answer = model.cloud().answer(&method, uri.path(), &query, &headers, &body);
    match fault {
        Some(Fault::LoseAnswer) => std::future::pending().await,
        Some(Fault::Answer(status)) => StatusCode::from_u16(status).expect("a status").into_response(),
        _ => answer.into_response(),
    }
}

impl Cloud {
    pub fn add_host(&mut self, name: &str, cell: &'static str) -> Uuid {
        let service = self.next(0x5e);
        let host = Host {
            service,
            cell,
            reports: true,
            forced_down: false,
            disabled: false,
            disabled_reason: None,
            guests: BTreeSet::new(),
        };
        self.hosts.insert(name.to_owned(), host);
        service
    }

    /// An instance that runs.
    pub fn add_server(&mut self, host: &str) -> Uuid {
        let id = self.next(0xf0);
        let server = Server {
            host: host.to_owned(),
            vm_state: "active",
            task_state: None,
            power_state: 1,
            launched: true,
            metadata: BTreeMap::new(),
        };
        self.servers.insert(id, server);
        self.host(host).guests.insert(id);
        id
    }

    /// A row of `os-migrations`.
    pub fn add_migration(
        &mut self,
        instance: Uuid,
        kind: &'static str,
        status: &'static str,
        source: &str,
        dest: &str,
    ) -> Uuid {
        let uuid = self.next(0x33);
        let (source, dest) = (source.to_owned(), dest.to_owned());
        self.migrations.push(Migration { uuid, instance, kind, status, source, dest });
        uuid
    }

    /// A host that is there.
    pub fn host(&mut self, name: &str) -> &mut Host {
        self.hosts.get_mut(name).expect("the host")
    }

    /// An instance that is there.
    pub fn server(&mut self, id: Uuid) -> &mut Server {
        self.servers.get_mut(&id).expect("the instance")
    }

    /// A host loses power.
    pub fn die(&mut self, host: &str) {
        let host = self.host(host);
        host.reports = false;
        host.guests.clear();
    }

    /// Every token has run out.
    pub fn expire(&mut self) {
        self.tokens.clear();
    }

    /// The computes do what they were told: each evacuation that was accepted ends at its target. Two of one
    /// instance both do, as nothing in Nova keeps them from it.
    pub fn rebuild(&mut self) {
        for migration in self.migrations.iter_mut().filter(|row| row.kind == "evacuation" && row.status == "accepted") {
            migration.status = "done";
            self.hosts.get_mut(&migration.dest).expect("the target").guests.insert(migration.instance);
            let server = self.servers.get_mut(&migration.instance).expect("the instance");
            server.host.clone_from(&migration.dest);
            server.task_state = None;
        }
    }

    /// A host comes back with these guests on it, and its nova-compute starts: it destroys those that were
    /// evacuated, and takes note (`compute/manager.py`, `_destroy_evacuated_instances`).
    pub fn come_back(&mut self, name: &str, guests: &[Uuid]) {
        let host = self.hosts.get_mut(name).expect("the host");
        host.reports = true;
        host.guests.extend(guests);
        let evacuated = ["accepted", "pre-migrating", "done"];
        for row in &mut self.migrations {
            if row.kind == "evacuation" && row.source == name && evacuated.contains(&row.status) {
                host.guests.remove(&row.instance);
                if row.status == "done" {
                    row.status = "completed";
                }
            }
        }
    }

    /// Where an instance runs, by the truth.
    pub fn runs_on(&self, instance: Uuid) -> Vec<&str> {
        let hosts = self.hosts.iter().filter(|(_, host)| host.guests.contains(&instance));
        hosts.map(|(name, _)| name.as_str()).collect()
    }

    fn next(&mut self, kind: u128) -> Uuid {
        self.made += 1;
        Uuid::from_u128(kind << 120 | self.made)
    }

    fn is_up(host: &Host) -> bool {
        host.reports && !host.forced_down
    }

    fn answers(&self, host: &str) -> bool {
        self.hosts.get(host).is_none_or(|host| !self.down.contains(host.cell))
    }

    /// The computes do what they were told: each migration that is under way arrives. One of a stopped instance
    /// waits to be confirmed (`VERIFY_RESIZE`).
    pub fn arrive(&mut self) {
        for at in 0..self.migrations.len() {
            let Migration { instance, kind, status, source, dest, .. } = self.migrations[at].clone();
            if kind == "evacuation" || status != "running" {
                continue;
            }
            let live = kind == "live-migration";
            self.migrations[at].status = if live { "completed" } else { "finished" };
            if self.host(&source).guests.remove(&instance) {
                self.host(&dest).guests.insert(instance);
            }
            let server = self.server(instance);
            (server.host, server.task_state) = (dest, None);
            server.vm_state = if live { "active" } else { "resized" };
        }
    }
}
