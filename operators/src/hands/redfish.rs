//! Redfish (DMTF DSP0266): the resource of a system says who it is and whether it has power, and its one
//! action that is used here is `ComputerSystem.Reset`, with `ForceOff` or `On`.

use std::time::Duration;

use hyper::header::{HeaderName, LOCATION};
use hyper::{Method, StatusCode};
use scheduler::ha::proof::{Power, PowerRead};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Known;
use super::config::{self, ConfigError, RedfishAuth, Secret, secret};
use super::http::{Ask, Place, Said, Session, Trust};
use super::power::{Switch, Why, read};

/// Bytes of an answer.
const MOST: usize = 1 << 20;
/// Systems behind one BMC that are looked at.
const SYSTEMS: usize = 16;
/// The time that a connection for reads may take to be acknowledged.
const READ: Duration = Duration::from_secs(5);

const LOGIN: &str = "/redfish/v1/SessionService/Sessions";
const TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

pub(super) struct Redfish {
    config: config::Redfish,
    trust: Trust,
}

/// What is known of one system.
struct System {
    path: String,
    body: Value,
    read: PowerRead,
}

impl Redfish {
    pub(super) fn open(config: config::Redfish) -> Result<Self, ConfigError> {
        let trust = config.trust()?;
        Ok(Self { config, trust })
    }

    pub(super) async fn watch(&self) {
        self.trust.watch().await;
    }

    pub(super) async fn read(&self, bmc: &str, known: &Known) -> Result<PowerRead, Why> {
        let mut talk = self.begin(bmc, known, READ).await?;
        let system = talk.system(known).await;
        talk.end().await;
        Ok(system?.read)
    }

    pub(super) async fn switch<P: Future<Output = bool>>(
        &self,
        bmc: &str,
        known: &Known,
        to: Switch,
        most: Duration,
        passes: impl FnOnce() -> P,
    ) -> Result<PowerRead, Why> {
        let mut talk = self.begin(bmc, known, most).await?;
        let done = talk.switch(known, to, passes).await;
        talk.end().await;
        done
    }

    async fn begin(&self, bmc: &str, known: &Known, most: Duration) -> Result<Talk<'_>, Why> {
        let login = self.config.hosts.get(&known.nova_host);
        let (user, file, address) = match login {
            Some(login) => (&login.user, &login.password_file, login.address.as_deref().unwrap_or(bmc)),
            None => (&self.config.user, &self.config.password_file, bmc),
        };
        let place = Place::of(address)?;
        let password = secret("redfish.password_file", file).map_err(|error| error.to_string())?;
        let session = self.trust.connect(&place, most).await?;
        let mut talk = Talk { trust: &self.trust, most, session, user, password, token: None, ends: None };
        if self.config.auth == RedfishAuth::Session {
            talk.log_in().await?;
        }
        Ok(talk)
    }
}

/// A session with a BMC.
struct Talk<'a> {
    trust: &'a Trust,
    most: Duration,
    session: Session,
    user: &'a str,
    password: Secret,
    token: Option<String>,
    ends: Option<String>,
}

impl Talk<'_> {
    /// A BMC may close after each answer: then the next request has a connection of its own.
    async fn open(&mut self) -> Result<(), Why> {
        if !self.session.is_open().await {
            let place = self.session.place().clone();
            self.session = self.trust.connect(&place, self.most).await?;
        }
        Ok(())
    }

    fn sign(&self, ask: Ask) -> Ask {
        match &self.token {
            Some(token) => ask.secret(TOKEN, token),
            None => ask.basic(self.user, self.password.expose()),
        }
    }

    async fn log_in(&mut self) -> Result<(), Why> {
        let body = json!({"UserName": self.user, "Password": self.password.expose()});
        let ask = Ask::with(Method::POST, LOGIN, body);
        let said = self.session.ask(ask, MOST).await?;
        let header = |name| said.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let Some(token) = header(TOKEN).filter(|_| said.status.is_success()) else {
            return Err(self.refused(&said, LOGIN));
        };
        self.token = Some(token);
        // Some say the whole URL of it.
        self.ends = header(LOCATION).and_then(|at| at.find("/redfish/").map(|from| at[from..].to_owned()));
        Ok(())
    }

    /// BMCs hold few sessions. One that is cut off ends by its own timeout.
    async fn end(&mut self) {
        if let Some(path) = self.ends.take() {
            let ask = self.sign(Ask { method: Method::DELETE, ..Ask::get(path) });
            if self.open().await.is_ok() {
                let _ = self.session.ask(ask, MOST).await;
            }
        }
    }

    async fn switch<P: Future<Output = bool>>(
        &mut self,
        known: &Known,
        to: Switch,
        passes: impl FnOnce() -> P,
    ) -> Result<PowerRead, Why> {
        let system = self.system(known).await?;
        if to.is_done(system.read.power) || !known.machine.is(&system.read.machine) {
            return Ok(system.read);
        }
        let kind = match to {
            Switch::Off => "ForceOff",
            Switch::On => "On",
        };
        let path = system.body.pointer("/Actions/#ComputerSystem.Reset/target").and_then(Value::as_str);
        let path = path.filter(|path| is_path(path)).map(str::to_owned);
        let path = path.unwrap_or_else(|| format!("{}/Actions/ComputerSystem.Reset", system.path));
        let ask = self.sign(Ask::with(Method::POST, path, json!({"ResetType": kind})));
        self.open().await?;
        // Nothing stands between this check and the socket but the write itself.
        if !passes().await {
            return Err("not sent: the barrier does not hold".to_owned());
        }
        match self.session.ask(ask, MOST).await {
            Ok(said) => {
                tracing::info!(host = %known.nova_host, status = %said.status, kind, "power switched by Redfish");
            }
            Err(error) => tracing::warn!(host = %known.nova_host, %error, kind, "power switched by Redfish"),
        }
        // Whatever it answered: the state says what is true.
        Ok(self.system(known).await?.read)
    }

    async fn get(&mut self, path: &str) -> Result<Value, Why> {
        let ask = self.sign(Ask::get(path));
        self.open().await?;
        let said = self.session.ask(ask, MOST).await?;
        if said.status != StatusCode::OK {
            return Err(self.refused(&said, path));
        }
        Ok(said.json(self.session.place())?)
    }

    /// The system that the address names, else the one with the wanted identity, else the only one.
    async fn system(&mut self, known: &Known) -> Result<System, Why> {
        let named = self.session.place().path.clone();
        if named.contains("/Systems/") {
            return self.look(named).await;
        }
        let list = self.get("/redfish/v1/Systems").await?;
        let members = list.get("Members").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let paths: Vec<String> = members
            .iter()
            .filter_map(|member| member.get("@odata.id").and_then(Value::as_str))
            .filter(|path| is_path(path))
            .take(SYSTEMS)
            .map(|path| path.trim_end_matches('/').to_owned())
            .collect();
        let alone = paths.len() == 1;
        for path in paths {
            let system = self.look(path).await?;
            if alone || known.machine.is(&system.read.machine) {
                return Ok(system);
            }
        }
        Err(format!(
            "{}: none of its {} systems is {}: look at the host's BMC address and machine in the inventory",
            self.session.place(),
            members.len(),
            known.machine
        ))
    }

    async fn look(&mut self, path: String) -> Result<System, Why> {
        let body = self.get(&path).await?;
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        let raw = text("PowerState").unwrap_or("none");
        let uuid = text("UUID").and_then(|uuid| Uuid::parse_str(uuid.trim()).ok());
        let read = read(power(raw), raw, uuid, text("SerialNumber"));
        Ok(System { path, body, read })
    }

    fn refused(&self, said: &Said, what: &str) -> Why {
        let place = self.session.place();
        match said.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => format!(
                "{place} refuses user '{}' ({}): look at the credentials in 'redfish', and at the user's role",
                self.user, said.status
            ),
            // It may repeat what it was sent.
            status if what == LOGIN => format!("{place} answered {status} to {what}"),
            status => format!("{place} answered {status} to {what}: {}", said.text()),
        }
    }
}

/// `Off` is off, exactly; `PoweringOff` and whatever else a BMC may say is not.
fn power(raw: &str) -> Power {
    match raw {
        "Off" => Power::Off,
        "On" => Power::On,
        "PoweringOn" => Power::PoweringOn,
        "PoweringOff" => Power::PoweringOff,
        _ => Power::Unknown,
    }
}

/// Whether a BMC's link stays with that BMC.
fn is_path(link: &str) -> bool {
    link.starts_with("/redfish/")
}
