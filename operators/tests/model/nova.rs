//! Keystone and Nova as far as failover meets them, for tests: a server with their documented rules, and with
//! the dangers that come of them. Each rule names where it stands in `openstack/nova` (master, 2026-08) or
//! in the API reference.
//!
//! It holds a truth of its own beside what its API says: which guests run where. A test asks it whether an
//! instance ever ran twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
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

type Answer = (StatusCode, HeaderMap, String);

/// A fault as Nova writes it (`nova/api/openstack/wsgi.py`).
fn fault(status: u16, message: &str) -> Answer {
    let name = match status {
        400 => "badRequest",
        401 => "unauthorized",
        403 => "forbidden",
        404 => "itemNotFound",
        409 => "conflictingRequest",
        _ => "computeFault",
    };
    say(status, &json!({name: {"code": status, "message": message}}))
}

fn say(status: u16, body: &Value) -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/json".parse().expect("a header"));
    (StatusCode::from_u16(status).expect("a status"), headers, body.to_string())
}

/// As services report it: without a zone, in UTC.
fn now() -> String {
    let now = time::OffsetDateTime::now_utc();
    let date = format!("{:04}-{:02}-{:02}", now.year(), u8::from(now.month()), now.day());
    format!("{date}T{:02}:{:02}:{:02}.000000", now.hour(), now.minute(), now.second())
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
        let server =
            Server { host: host.to_owned(), vm_state: "active", task_state: None, power_state: 1, launched: true };
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

    fn answer(
        &mut self,
        method: &Method,
        path: &str,
        query: &BTreeMap<String, String>,
        headers: &HeaderMap,
        body: &Value,
    ) -> Answer {
        if path == "/identity/v3/auth/tokens" {
            return self.token(body);
        }
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if !header("x-auth-token").is_some_and(|token| self.tokens.contains(token)) {
            return fault(401, "The request you have made requires authentication.");
        }
        let Some(path) = path.strip_prefix("/compute/v2.1") else {
            return fault(404, "The resource could not be found.");
        };
        if path == "/" {
            let version = format!("2.{}", self.newest);
            return say(200, &json!({"version": {"id": "v2.1", "version": version, "min_version": "2.1"}}));
        }
        let asked = header("openstack-api-version").and_then(|value| value.strip_prefix("compute 2."));
        let version: u32 = asked.and_then(|minor| minor.parse().ok()).unwrap_or(1);
        if version > self.newest {
            return fault(406, &format!("Version 2.{version} is not supported by the API."));
        }
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let uuid = |text: &str| Uuid::parse_str(text).unwrap_or_default();
        match (method.as_str(), parts.as_slice()) {
            ("GET", ["servers", "detail"]) => self.list(query),
            ("GET", ["servers", id]) => self.show(uuid(id), version),
            ("POST", ["servers", id, "action"]) => self.action(uuid(id), body, version),
            ("GET", ["servers", id, "migrations"]) => self.live(uuid(id)),
            ("POST", ["servers", id, "migrations", nth, "action"]) => self.press(uuid(id), nth, body),
            ("DELETE", ["servers", id, "migrations", nth]) => self.press(uuid(id), nth, &Value::Null),
            ("GET", ["os-server-groups"]) => self.server_groups(query, version),
            ("GET", ["os-services"]) => self.services(query, version),
            ("PUT", ["os-services", id]) => self.mark(uuid(id), body),
            ("GET", ["os-migrations"]) => self.moving(query, version),
            _ => fault(404, "The resource could not be found."),
        }
    }

    /// Keystone: password, scoped to a project (api-ref, "Password authentication with scoped authorization").
    fn token(&mut self, body: &Value) -> Answer {
        let user = &body["auth"]["identity"]["password"]["user"];
        let known = user["name"] == USER && user["password"] == PASSWORD && user["domain"]["name"] == "Default";
        let scoped = body["auth"]["scope"]["project"]["name"] == "service";
        if !known || !scoped {
            let error = json!({"code": 401, "title": "Unauthorized",
                "message": "The request you have made requires authentication."});
            return say(401, &json!({"error": error}));
        }
        let token = format!("gAAAA{}", self.next(0));
        self.tokens.insert(token.clone());
        let endpoint = |interface: &str, region: &str, url: String| json!({"interface": interface, "region": region, "region_id": region, "url": url});
        let compute = format!("{}/compute/v2.1", self.url);
        let catalog = json!([
            {"type": "identity", "endpoints": [endpoint("internal", "one", format!("{}/identity", self.url))]},
            {"type": "compute", "endpoints": [
                endpoint("public", "one", "http://192.0.2.1/compute".into()),
                endpoint("internal", "one", compute),
                endpoint("internal", "two", "http://192.0.2.2/compute".into()),
            ]},
        ]);
        let mut answer = say(201, &json!({"token": {"methods": ["password"], "catalog": catalog}}));
        answer.1.insert("x-subject-token", token.parse().expect("a header"));
        answer
    }

    fn shown(&self, id: Uuid, server: &Server) -> Value {
        let mut shown = json!({
            "id": id,
            "status": server.vm_state.to_uppercase(),
            "OS-EXT-STS:vm_state": server.vm_state,
            "OS-EXT-STS:task_state": server.task_state,
            "OS-EXT-STS:power_state": server.power_state,
            "OS-SRV-USG:launched_at": server.launched.then_some("2026-01-01T00:00:00.000000"),
        });
        // `os_compute_api:os-extended-server-attributes` is for admins.
        if self.admin {
            shown["OS-EXT-SRV-ATTR:host"] = server.host.as_str().into();
        }
        shown
    }

    /// Of a cell that is down nothing is listed once there is a filter (`compute/servers.py`), and the filter
    /// by host is left out for who may not use it.
    fn list(&self, query: &BTreeMap<String, String>) -> Answer {
        let host = query.get("host").filter(|_| self.admin);
        let rows = self.servers.iter().filter(|(_, server)| self.answers(&server.host));
        let rows = rows.filter(|(_, server)| host.is_none_or(|host| server.host == *host));
        let rows = rows.map(|(id, server)| self.shown(*id, server)).collect();
        self.paged("servers", "id", rows, query)
    }

    /// By offset, without links; `policy` and `rules` since 2.64 (`compute/server_groups.py`).
    fn server_groups(&self, query: &BTreeMap<String, String>, version: u32) -> Answer {
        if !self.admin || !query.contains_key("all_projects") {
            return fault(403, "Policy doesn't allow os_compute_api:os-server-groups:index:all_projects.");
        }
        let number = |name: &str| query.get(name).and_then(|value| value.parse::<usize>().ok());
        let limit = number("limit").unwrap_or(self.page).min(self.page);
        let shown = self.groups.iter().skip(number("offset").unwrap_or(0)).take(limit).map(|group| {
            let mut row = json!({"id": group.uuid, "name": "group", "members": group.members});
            if version >= 64 {
                let rules = group.most.map_or_else(|| json!({}), |most| json!({"max_server_per_host": most}));
                (row["policy"], row["rules"]) = (group.policy.into(), rules);
            } else {
                (row["policies"], row["metadata"]) = (json!([group.policy]), json!({}));
            }
            row
        });
        say(200, &json!({"server_groups": shown.collect::<Vec<_>>()}))
    }

    /// Of a cell that is down only the row outside of it is shown (2.69), and before that nothing
    /// (`compute/api.py`, `_get_instance_from_cell`).
    fn show(&self, id: Uuid, version: u32) -> Answer {
        match self.servers.get(&id) {
            None => fault(404, &format!("Instance {id} could not be found.")),
            Some(server) if self.answers(&server.host) => say(200, &json!({"server": self.shown(id, server)})),
            Some(_) if version >= 69 => say(200, &json!({"server": {"id": id, "status": "UNKNOWN"}})),
            Some(_) => fault(500, "Unexpected API Error."),
        }
    }

    fn service(name: &str, host: &Host) -> Value {
        json!({
            "id": host.service, "binary": "nova-compute", "host": name, "zone": "nova",
            "status": if host.disabled { "disabled" } else { "enabled" },
            "state": if Self::is_up(host) { "up" } else { "down" },
            "forced_down": host.forced_down, "disabled_reason": host.disabled_reason,
            "updated_at": if host.reports { now() } else { "2026-01-01T00:00:00.000000".to_owned() },
        })
    }

    /// Services of a cell that is down have nothing but a name (2.69), and before that are left out.
    fn services(&self, query: &BTreeMap<String, String>, version: u32) -> Answer {
        let wanted = self.hosts.iter().filter(|(name, _)| query.get("host").is_none_or(|host| host == *name));
        let rows: Vec<Value> = wanted
            .filter_map(|(name, host)| {
                let partial = || json!({"binary": "nova-compute", "host": name, "status": "UNKNOWN"});
                let down = self.down.contains(host.cell);
                if down { (version >= 69).then(partial) } else { Some(Self::service(name, host)) }
            })
            .collect();
        say(200, &json!({"services": rows}))
    }

    /// `compute/services.py`, `_update_v253`; and `compute/api.py`, `service_update`: a service that counts as
    /// up is called when it is disabled.
    fn mark(&mut self, id: Uuid, body: &Value) -> Answer {
        let Some((name, host)) = self.hosts.iter_mut().find(|(_, host)| host.service == id) else {
            return fault(404, &format!("Service {id} could not be found."));
        };
        if self.down.contains(host.cell) {
            return fault(404, &format!("Service {id} could not be found."));
        }
        let was = host.disabled;
        match body["status"].as_str() {
            Some("disabled") => {
                host.disabled = true;
                host.disabled_reason = body["disabled_reason"].as_str().map(str::to_owned);
            }
            Some("enabled") => (host.disabled, host.disabled_reason) = (false, None),
            _ => {}
        }
        if let Some(forced_down) = body["forced_down"].as_bool() {
            let done = |row: &Migration| row.kind == "evacuation" && row.status == "done" && row.source == *name;
            if !forced_down && self.migrations.iter().any(done) {
                return fault(
                    400,
                    &format!("Unable to force up host {name} as `done` evacuation migration records remain"),
                );
            }
            host.forced_down = forced_down;
        }
        self.rpcs += usize::from(was != host.disabled && Self::is_up(host));
        let (name, host) = (name.clone(), host.clone());
        say(200, &json!({"service": Self::service(&name, &host)}))
    }

    /// The newest first; a cell that is down is left out, and the status is 200 (`compute/multi_cell_list.py`).
    /// Before 2.59 there are no uuids and no pages.
    fn moving(&self, query: &BTreeMap<String, String>, version: u32) -> Answer {
        let wanted = |row: &&Migration| query.get("instance_uuid").is_none_or(|id| row.instance.to_string() == *id);
        let rows = self.migrations.iter().rev().filter(|row| self.answers(&row.source)).filter(wanted);
        let rows = rows
            .map(|row| {
                let mut shown = json!({
                    "instance_uuid": row.instance, "migration_type": row.kind, "status": row.status,
                    "source_compute": row.source, "dest_compute": row.dest,
                });
                if version >= 59 {
                    shown["uuid"] = json!(row.uuid);
                }
                shown
            })
            .collect();
        self.paged("migrations", "uuid", rows, query)
    }

    fn paged(&self, name: &str, key: &str, rows: Vec<Value>, query: &BTreeMap<String, String>) -> Answer {
        let marker = query.get("marker").map(String::as_str);
        let from = match marker {
            Some(marker) => match rows.iter().position(|row| row[key] == marker) {
                Some(at) => at + 1,
                None => return fault(400, &format!("Marker {marker} could not be found.")),
            },
            None => 0,
        };
        let limit = query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(self.page).min(self.page);
        let page: Vec<Value> = rows.into_iter().skip(from).take(limit).collect();
        let mut body = json!({name: page});
        if page.len() == limit {
            body[format!("{name}_links")] = json!([{"rel": "next", "href": "…"}]);
        }
        say(200, &body)
    }

    /// Actions on one instance, each with the states that Nova lets it begin in (`compute/api.py`,
    /// `check_instance_state`).
    fn action(&mut self, id: Uuid, body: &Value, version: u32) -> Answer {
        if !body["evacuate"].is_null() {
            return self.evacuate(id, body, version);
        }
        let Some(server) = self.servers.get(&id) else {
            return fault(404, &format!("Instance {id} could not be found."));
        };
        let (name, states): (&str, &[&str]) = match body.as_object().and_then(|body| body.keys().next()) {
            Some(name) if name == "os-migrateLive" => ("os-migrateLive", &["active", "paused"]),
            Some(name) if name == "migrate" => ("migrate", &["active", "stopped"]),
            Some(name) if name == "confirmResize" => ("confirmResize", &["resized"]),
            Some(name) if name == "reboot" => ("reboot", &["active", "stopped", "paused", "suspended", "error"]),
            Some(name) if name == "os-stop" => ("stop", &["active", "error"]),
            _ => return fault(400, "Invalid input: no such action"),
        };
        let (state, task) = (server.vm_state, server.task_state);
        if !states.contains(&state) {
            return fault(409, &format!("Cannot '{name}' instance {id} while it is in vm_state {state}"));
        }
        // A hard reboot may begin within another one.
        if let Some(task) = task.filter(|_| name != "reboot") {
            return fault(409, &format!("Cannot '{name}' instance {id} while it is in task_state {task}"));
        }
        let source = server.host.clone();
        if !Self::is_up(&self.hosts[&source]) {
            return fault(400, &format!("Compute service of {source} is unavailable at this time."));
        }
        match name {
            "os-migrateLive" | "migrate" => self.migrate(id, &source, &body[name]["host"], name != "migrate"),
            "confirmResize" => {
                let row = self.migrations.iter_mut().find(|row| row.instance == id && row.status == "finished");
                row.expect("of a resized instance").status = "confirmed";
                self.server(id).vm_state = "stopped";
                (StatusCode::NO_CONTENT, HeaderMap::new(), String::new())
            }
            "reboot" => {
                self.reboots.push(id);
                self.host(&source).guests.insert(id);
                self.server(id).vm_state = "active";
                (StatusCode::ACCEPTED, HeaderMap::new(), String::new())
            }
            _ => {
                self.host(&source).guests.remove(&id);
                self.server(id).vm_state = "stopped";
                (StatusCode::ACCEPTED, HeaderMap::new(), String::new())
            }
        }
    }

    fn migrate(&mut self, id: Uuid, source: &str, host: &Value, live: bool) -> Answer {
        let host = host.as_str().unwrap_or_default().to_owned();
        if !self.hosts.contains_key(&host) || host == source {
            return fault(400, &format!("Compute host {host} could not be found, or is the instance's own."));
        }
        if self.check.as_ref().is_some_and(|check| !(check.0)(&host, id)) {
            self.unpermitted.push(id);
        }
        let (task, kind) = if live { ("migrating", "live-migration") } else { ("resize_prep", "migration") };
        self.server(id).task_state = Some(task);
        self.add_migration(id, kind, "running", source, &host);
        (StatusCode::ACCEPTED, HeaderMap::new(), String::new())
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

    /// Live migrations of an instance that are under way (`compute/server_migrations.py`).
    fn live(&self, id: Uuid) -> Answer {
        let rows = self.migrations.iter().enumerate();
        let rows =
            rows.filter(|(_, row)| row.instance == id && row.kind == "live-migration" && row.status == "running");
        let rows = rows.map(|(nth, row)| {
            json!({"id": nth + 1, "uuid": row.uuid, "status": row.status, "source_compute": row.source,
                "dest_compute": row.dest, "memory_total_bytes": 1 << 30, "memory_processed_bytes": 1 << 29,
                "memory_remaining_bytes": 1 << 29, "disk_remaining_bytes": 0})
        });
        say(200, &json!({"migrations": rows.collect::<Vec<_>>()}))
    }

    /// Finishes a live migration by force, or gives it up. They are known by their numbers alone.
    fn press(&mut self, id: Uuid, nth: &str, body: &Value) -> Answer {
        let at = nth.parse::<usize>().ok().and_then(|nth| nth.checked_sub(1));
        let Some(at) = at.filter(|at| self.migrations.get(*at).is_some_and(|row| row.instance == id)) else {
            return fault(404, &format!("Migration {nth} for server {id} could not be found."));
        };
        if self.migrations[at].status != "running" {
            return fault(400, &format!("Migration {nth} state of instance {id} is not running"));
        }
        if body.is_null() {
            self.migrations[at].status = "cancelled";
            self.server(id).task_state = None;
        } else {
            self.arrive();
        }
        (StatusCode::ACCEPTED, HeaderMap::new(), String::new())
    }

    /// `compute/evacuate.py` and `compute/api.py`, `evacuate`, in the order of their checks. Nothing looks at
    /// the task of the instance or at migrations of it that are under way: a second call is taken too (bug
    /// 1978983). The migration is there before the answer.
    fn evacuate(&mut self, id: Uuid, body: &Value, version: u32) -> Answer {
        let Some(server) = self.servers.get(&id) else {
            return fault(404, &format!("Instance {id} could not be found."));
        };
        if !self.answers(&server.host) {
            return fault(500, "Unexpected API Error.");
        }
        if !self.admin {
            return fault(403, "Policy doesn't allow os_compute_api:os-evacuate to be performed.");
        }
        let Some(asked) = body["evacuate"].as_object() else { return fault(400, "Invalid input: no such action") };
        let allowed: &[&str] = match version {
            ..14 => &["host", "adminPass", "onSharedStorage"],
            29..68 => &["host", "adminPass", "force"],
            _ => &["host", "adminPass"],
        };
        if let Some(other) = asked.keys().find(|key| !allowed.contains(&key.as_str())) {
            return fault(400, &format!("Additional properties are not allowed ('{other}' was unexpected)"));
        }
        let host = asked.get("host").and_then(Value::as_str).unwrap_or_default().to_owned();
        if !self.hosts.contains_key(&host) {
            return fault(404, &format!("Compute host {host} not found."));
        }
        if server.host == host {
            return fault(400, "The target host can't be the same one.");
        }
        if !["active", "stopped", "error"].contains(&server.vm_state) || !server.launched {
            let state = server.vm_state;
            return fault(409, &format!("Cannot 'evacuate' instance {id} while it is in vm_state {state}"));
        }
        if let Some(task) = server.task_state.filter(|_| self.checks_task) {
            return fault(409, &format!("Cannot 'evacuate' instance {id} while it is in task_state {task}"));
        }
        let source = server.host.clone();
        if Self::is_up(&self.hosts[&source]) {
            return fault(400, &format!("Compute service of {source} is still in use."));
        }
        self.server(id).task_state = Some("rebuilding");
        self.add_migration(id, "evacuation", "accepted", &source, &host);
        (StatusCode::OK, HeaderMap::new(), String::new())
    }
}
