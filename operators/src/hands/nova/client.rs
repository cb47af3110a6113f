//! Requests to Nova: a token, a microversion, a connection each.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::header::HeaderName;
use hyper::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use scheduler::ha::coordinator::{Barrier, Told};
use scheduler::ha::host::HostId;
use serde_json::Value;
use uuid::Uuid;

use super::tally::Counts;
use crate::failover::Gate;
use crate::hands::Known;
use crate::hands::config::{self, ConfigError};
use crate::hands::http::{Ask, Failed, Place, Said, Session, Trust};
use crate::hands::keystone::{Keystone, Token};

/// One request.
const MOST: Duration = Duration::from_secs(10);
/// Bytes of an answer: a page of a thousand instances has about 4 MB.
const BYTES: usize = 32 << 20;
/// Pages of one list.
const PAGES: usize = 16;
/// From here on migrations have uuids (2.59; services have them since 2.53).
const LEAST: u32 = 59;
/// From 2.95 on Nova leaves an evacuated instance stopped, and somebody must start it.
const BEST: u32 = 94;

const AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");
const VERSION: HeaderName = HeaderName::from_static("openstack-api-version");
const OLD_VERSION: HeaderName = HeaderName::from_static("x-openstack-nova-api-version");

pub(super) struct Client {
    pub trust: Trust,
    pub keystone: Keystone,
    /// The microversion, 2.x, of an endpoint.
    version: Mutex<Option<(Place, u32)>>,
    pub(super) tally: Counts,
    /// Instances of which it was told that their words are not known.
    pub(super) strange: Mutex<BTreeSet<Uuid>>,
}

/// A compute service.
pub(super) struct Row {
    pub id: String,
    pub forced_down: bool,
    pub disabled: bool,
    /// Why, if it is disabled.
    pub reason: String,
    /// When it reported last.
    pub updated: String,
}

impl Row {
    pub(super) fn told(&self, host: HostId) -> Told {
        Told::Service { host, forced_down: self.forced_down, disabled: self.disabled }
    }
}

/// All that a request needs but the connection.
struct Ready {
    token: Arc<Token>,
    version: u32,
}

impl Ready {
    /// A request of Nova's API, from its root.
    fn sign(&self, mut ask: Ask) -> Ask {
        ask.path = format!("{}{}", self.token.nova.path, ask.path);
        ask.secret(AUTH_TOKEN, self.token.text())
            .secret(VERSION, &format!("compute 2.{}", self.version))
            .secret(OLD_VERSION, &format!("2.{}", self.version))
    }
}

impl Client {
    pub(super) fn open(config: config::Nova) -> Result<Self, ConfigError> {
        let place = Place::parse(&config.auth_url).map_err(|why| ConfigError::new("nova.auth_url", why))?;
        Ok(Self {
            trust: config.trust()?,
            keystone: Keystone::new(config, place),
            version: Mutex::new(None),
            tally: Counts::default(),
            strange: Mutex::default(),
        })
    }

    pub(super) async fn watch(&self) {
        self.trust.watch().await;
    }

    /// A token, and the microversion of its endpoint.
    async fn ready(&self) -> Result<Ready, Failed> {
        let token = self.keystone.token(&self.trust, MOST).await?;
        let known = self.version.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let version = match known.filter(|(place, _)| *place == token.nova) {
            Some((_, version)) => version,
            None => self.negotiate(&token).await?,
        };
        Ok(Ready { token, version })
    }

    async fn connect(&self, place: &Place) -> Result<Session, Failed> {
        self.trust.connect(place, MOST).await
    }

    /// Sends a request that changes something, once, on a connection of its own; nothing is sent unless the gate
    /// opens right in front of it. `sent`: from then on it may have arrived, whatever comes back.
    pub(super) async fn once(
        &self,
        ask: Ask,
        barrier: &Barrier,
        gate: &dyn Gate,
        sent: &AtomicBool,
    ) -> Result<Option<Said>, Failed> {
        let asked = self.tally.begin();
        let said = self.write(ask, barrier, gate, sent).await;
        asked.over(said.as_ref().map(Option::as_ref));
        said
    }

    async fn write(
        &self,
        ask: Ask,
        barrier: &Barrier,
        gate: &dyn Gate,
        sent: &AtomicBool,
    ) -> Result<Option<Said>, Failed> {
        let ready = self.ready().await?;
        let ask = ready.sign(ask);
        let mut session = self.connect(&ready.token.nova).await?;
        // Nothing stands between this check and the socket but the write itself.
        if !gate.passes(*barrier).await {
            tracing::warn!(%ask.method, ask.path, intent = %barrier.intent, "not sent: the barrier does not hold");
            return Ok(None);
        }
        sent.store(true, Ordering::Relaxed);
        let said = session.ask(ask, BYTES).await?;
        if said.status == StatusCode::UNAUTHORIZED {
            self.keystone.refused(&ready.token).await;
        }
        Ok(Some(said))
    }

    async fn negotiate(&self, token: &Arc<Token>) -> Result<u32, Failed> {
        let place = &token.nova;
        let ask = Ask::get(format!("{}/", place.path)).secret(AUTH_TOKEN, token.text());
        let said = self.connect(place).await?.ask(ask, BYTES).await?;
        if said.status == StatusCode::UNAUTHORIZED {
            self.keystone.refused(token).await;
        }
        let body = said.json(place)?;
        let minor = |name: &str| {
            let version = body.pointer(&format!("/version/{name}")).and_then(Value::as_str)?;
            version.strip_prefix("2.")?.parse::<u32>().ok()
        };
        let (Some(least), Some(most)) = (minor("min_version"), minor("version")) else {
            return Err(Failed::Answer(format!(
                "{place}{} answered {} and no microversions of Nova: set 'nova.endpoint' to the root of its API, \
                 https://host:8774/v2.1",
                place.path, said.status
            )));
        };
        let version = most.min(BEST);
        if version < LEAST.max(least) {
            return Err(Failed::Answer(format!(
                "Nova at {place} offers microversions 2.{least} to 2.{most}; one from 2.{LEAST} to 2.{BEST} expected"
            )));
        }
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = Some((place.clone(), version));
        Ok(version)
    }

    /// A request that may be repeated: once, when its token has run out.
    pub(super) async fn call(&self, ask: Ask) -> Result<(Said, Place), Failed> {
        let once = async || {
            let ready = self.ready().await?;
            let place = ready.token.nova.clone();
            let said = self.connect(&place).await?.ask(ready.sign(ask.clone()), BYTES).await?;
            Ok::<_, Failed>((said, place, ready.token))
        };
        // On the heap: the futures of all that calls this stay small.
        let whole = Box::pin(async {
            let (said, place, token) = once().await?;
            match said.status {
                StatusCode::UNAUTHORIZED => {
                    self.keystone.refused(&token).await;
                    once().await.map(|(said, place, _)| (said, place))
                }
                StatusCode::NOT_ACCEPTABLE => {
                    // Another version of Nova is there now.
                    *self.version.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    Ok((said, place))
                }
                _ => Ok((said, place)),
            }
        });
        let late = |_| Failed::Answer(format!("{} {}: no answer within {MOST:?}", ask.method, ask.path));
        let asked = self.tally.begin();
        let said = tokio::time::timeout(MOST, whole).await.map_err(late).flatten();
        asked.over(said.as_ref().map(|(said, _)| Some(said)));
        said
    }

    /// The JSON of a request that was answered with 200.
    pub(super) async fn json(&self, ask: Ask) -> Result<Value, Failed> {
        Ok(self.json_said(ask).await?.0)
    }

    async fn json_said(&self, ask: Ask) -> Result<(Value, Said), Failed> {
        let what = format!("{} {}", ask.method, ask.path);
        let (said, place) = self.call(ask).await?;
        match said.status {
            StatusCode::OK => Ok((said.json(&place)?, said)),
            StatusCode::FORBIDDEN => Err(Failed::Answer(format!(
                "{place} forbids {what}: give pallium's user the rights that docs/failover.md lists; {}",
                said.text()
            ))),
            status => Err(Failed::Answer(format!("{place} answered {status} to {what}: {}", said.text()))),
        }
    }

    /// All pages of a list. A page that is missing makes it no list.
    pub(super) async fn pages(&self, path: &str, name: &str, marker: &str) -> Result<Vec<Value>, Failed> {
        let mut rows: Vec<Value> = Vec::new();
        let mut next = path.to_owned();
        for _ in 0..PAGES {
            let mut body = self.json(Ask::get(next)).await?;
            let Some(Value::Array(page)) = body.get_mut(name).map(Value::take) else {
                return Err(Failed::Answer(format!("GET {path}: no '{name}' in the answer")));
            };
            let last = page.last().and_then(|row| row.get(marker)).and_then(Value::as_str).map(str::to_owned);
            rows.extend(page);
            let links = body.get(format!("{name}_links")).and_then(Value::as_array);
            let more = links.is_some_and(|links| links.iter().any(|link| link["rel"] == "next"));
            match last {
                Some(last) if more => next = format!("{path}&marker={last}"),
                _ => return Ok(rows),
            }
        }
        Err(Failed::Answer(format!("GET {path}: more than {PAGES} pages")))
    }

    /// The compute service of a host, as its cell has it.
    pub(super) async fn service(&self, known: &Known) -> Result<Row, Failed> {
        Ok(self.service_said(known).await?.0)
    }

    /// The same, with the answer that it stood in.
    pub(super) async fn service_said(&self, known: &Known) -> Result<(Row, Said), Failed> {
        let host = known.nova_host.as_str();
        let path = format!("/os-services?binary=nova-compute&host={}", encoded(host));
        let (body, said) = self.json_said(Ask::get(path)).await?;
        let rows = body.get("services").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let Some(row) = rows.iter().find(|row| row["host"] == host && row["binary"] == "nova-compute") else {
            return Err(Failed::Answer(format!(
                "Nova lists no nova-compute on '{host}': its cell does not answer, or the inventory names it wrongly"
            )));
        };
        // Of a cell that is down only the name is known.
        let (Some(id), Some(forced_down), Some(status)) =
            (row["id"].as_str(), row["forced_down"].as_bool(), row["status"].as_str())
        else {
            return Err(Failed::Answer(format!("the cell of '{host}' does not answer: its service is {row}")));
        };
        if let Some(expected) = known.nova_service.filter(|expected| Uuid::parse_str(id) != Ok(*expected)) {
            return Err(Failed::Answer(format!(
                "the nova-compute on '{host}' is service {id}, and the inventory has {expected}: look which is right"
            )));
        }
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let (reason, updated) = (text("disabled_reason"), text("updated_at"));
        let row = Row { id: id.to_owned(), forced_down, disabled: status == "disabled", reason, updated };
        Ok((row, said))
    }

    /// Marks a service unless it is marked so, and reads it. The gate is asked right in front of the write; to mark it
    /// twice is the same as once.
    pub(super) async fn mark(
        &self,
        known: &Known,
        is: fn(&Row) -> bool,
        body: Value,
        barrier: &Barrier,
        gate: &dyn Gate,
    ) -> Result<Row, Failed> {
        let row = self.service(known).await?;
        if is(&row) {
            return Ok(row);
        }
        if !gate.passes(*barrier).await {
            return Err(Failed::Answer("not sent: the barrier does not hold".to_owned()));
        }
        self.json(Ask::with(Method::PUT, format!("/os-services/{}", row.id), body)).await?;
        self.service(known).await
    }
}

/// A value in a query.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
