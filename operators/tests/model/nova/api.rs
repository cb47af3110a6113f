//! What the model answers: its rules, each with its place in Nova.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Cloud, Host, Migration, PASSWORD, Server, USER};

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
    pub(super) fn answer(
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
            ("GET", ["os-aggregates"]) => self.list_aggregates(),
            ("POST", ["os-aggregates"]) => self.add_aggregate(&body["aggregate"]["name"]),
            ("POST", ["os-aggregates", nth, "action"]) => self.set_metadata(nth, &body["set_metadata"]["metadata"]),
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
            "metadata": server.metadata,
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

    fn list_aggregates(&self) -> Answer {
        let rows = self.aggregates.iter().enumerate();
        let rows =
            rows.map(|(nth, (name, metadata))| json!({"id": nth, "name": name, "metadata": metadata, "hosts": []}));
        say(200, &json!({"aggregates": rows.collect::<Vec<_>>()}))
    }

    /// Names are unique (`objects/aggregate.py`, `AggregateNameExists`).
    fn add_aggregate(&mut self, name: &Value) -> Answer {
        let name = name.as_str().unwrap_or_default().to_owned();
        if self.aggregates.contains_key(&name) {
            return fault(409, &format!("Aggregate {name} already exists."));
        }
        self.aggregates.insert(name, BTreeMap::new());
        self.list_aggregates()
    }

    /// Keys are merged, and those that are null are removed (`objects/aggregate.py`, `update_metadata`).
    fn set_metadata(&mut self, nth: &str, given: &Value) -> Answer {
        let known = nth.parse::<usize>().ok().and_then(|nth| self.aggregates.values_mut().nth(nth));
        let (Some(known), Some(given)) = (known, given.as_object()) else {
            return fault(404, "Aggregate could not be found.");
        };
        for (key, value) in given {
            match value.as_str() {
                Some(text) => drop(known.insert(key.clone(), text.to_owned())),
                None => drop(known.remove(key)),
            }
        }
        self.list_aggregates()
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
                let runs = self.hosts[&source].guests.contains(&id);
                self.server(id).vm_state = if runs { "active" } else { "stopped" };
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
