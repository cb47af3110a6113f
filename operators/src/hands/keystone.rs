//! Keystone v3: a token for pallium's user by its password, and where Nova is by the catalog that comes
//! with it.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderName;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::config::{self, secret};
use super::http::{Ask, Failed, Place, Trust};

/// Bytes of a catalog.
const MOST: usize = 4 << 20;

pub(super) const SUBJECT: HeaderName = HeaderName::from_static("x-subject-token");

/// A token, and where Nova is with it.
pub(super) struct Token {
    text: String,
    pub nova: Place,
}

impl Token {
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

pub(super) struct Keystone {
    config: config::Nova,
    place: Place,
    token: Mutex<Option<Arc<Token>>>,
}

impl Keystone {
    pub(super) fn new(config: config::Nova, place: Place) -> Self {
        Self { config, place, token: Mutex::new(None) }
    }

    /// The token that is known, else a new one. One caller asks at a time; the others wait for it.
    pub(super) async fn token(&self, trust: &Trust, most: Duration) -> Result<Arc<Token>, Failed> {
        let mut known = self.token.lock().await;
        if let Some(token) = &*known {
            return Ok(Arc::clone(token));
        }
        let token = Arc::new(self.ask(trust, most).await?);
        *known = Some(Arc::clone(&token));
        Ok(token)
    }

    /// A token that was refused is not used again.
    pub(super) async fn refused(&self, token: &Arc<Token>) {
        let mut known = self.token.lock().await;
        if known.as_ref().is_some_and(|known| Arc::ptr_eq(known, token)) {
            *known = None;
        }
    }

    async fn ask(&self, trust: &Trust, most: Duration) -> Result<Token, Failed> {
        let config::Nova { user, user_domain, password_file, project, project_domain, .. } = &self.config;
        let password =
            secret("nova.password_file", password_file).map_err(|error| Failed::Answer(error.to_string()))?;
        let body = json!({"auth": {
            "identity": {
                "methods": ["password"],
                "password": {"user": {"name": user, "domain": {"name": user_domain}, "password": password.expose()}},
            },
            "scope": {"project": {"name": project, "domain": {"name": project_domain}}},
        }});
        // Some write the version into OS_AUTH_URL, some do not.
        let base = self.place.path.strip_suffix("/v3").unwrap_or(&self.place.path);
        let mut session = trust.connect(&self.place, most).await?;
        let said = session.ask(Ask::with(Method::POST, format!("{base}/v3/auth/tokens"), body), MOST).await?;
        let place = &self.place;
        if said.status != StatusCode::CREATED {
            let who = format!("user '{user}' of domain '{user_domain}' in project '{project}' of '{project_domain}'");
            return Err(Failed::Answer(match said.status {
                StatusCode::UNAUTHORIZED => {
                    format!("Keystone at {place} refuses {who}: look at 'nova.user' and its password file")
                }
                // What it says may repeat what it was sent, and that has the password.
                status => format!("Keystone at {place} answered {status} to {who}"),
            }));
        }
        let text = said.headers.get(SUBJECT).and_then(|token| token.to_str().ok()).map(str::to_owned);
        let Some(text) = text else {
            return Err(Failed::Answer(format!(
                "Keystone at {place} answered 201 without a token: is it Keystone v3?"
            )));
        };
        let nova = match &self.config.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => self.endpoint(&said.json(place)?).map_err(Failed::Answer)?,
        };
        let mut nova = Place::parse(&nova).map_err(Failed::Answer)?;
        // Endpoints of old end in the project: the API itself needs none.
        if let Some(at) = nova.path.find("/v2.1/") {
            nova.path.truncate(at + "/v2.1".len());
        }
        Ok(Token { text, nova })
    }

    /// The URL of Nova in a catalog.
    fn endpoint(&self, body: &Value) -> Result<String, String> {
        let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
        let services = list(body.pointer("/token/catalog"));
        let compute = services.iter().filter(|service| service.get("type").and_then(Value::as_str) == Some("compute"));
        let interface = self.config.interface.as_str();
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let endpoints: Vec<Value> = compute
            .flat_map(|service| list(service.get("endpoints")))
            .filter(|endpoint| text(endpoint, "interface") == interface)
            .collect();
        let region = |endpoint: &Value| match text(endpoint, "region_id") {
            id if id.is_empty() => text(endpoint, "region"),
            id => id,
        };
        let wanted = |endpoint: &&Value| self.config.region.as_ref().is_none_or(|wanted| region(endpoint) == *wanted);
        let found: Vec<&Value> = endpoints.iter().filter(wanted).collect();
        let regions = || endpoints.iter().map(region).collect::<Vec<_>>().join(", ");
        match (found.as_slice(), &self.config.region) {
            ([one], _) => Ok(text(one, "url")),
            ([], Some(given)) => Err(format!(
                "the catalog has no {interface} endpoint of compute in region '{given}': it has some in [{}]; set \
                 'nova.region', 'nova.interface' or 'nova.endpoint'",
                regions()
            )),
            ([], None) => Err(format!(
                "the catalog has no {interface} endpoint of compute: set 'nova.interface' or 'nova.endpoint'"
            )),
            (_, None) => Err(format!("the catalog has compute in several regions [{}]: set 'nova.region'", regions())),
            (_, Some(given)) => {
                Err(format!("the catalog has several endpoints of compute in region '{given}': set 'nova.endpoint'"))
            }
        }
    }
}
