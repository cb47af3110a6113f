//! What happens in failover, told to whoever wants to hear it: CloudEvents 1.0 in JSON, posted to webhooks by
//! the leader, each receiver's in order.
//!
//! The replicated state is the queue: what is to be told is read out of it, so nothing waits in memory, and no
//! receiver keeps failover waiting. How far each receiver was told goes through the log, and the next leader
//! goes on from there. An event's id is made of what it tells, so that one that is told twice is known by it.
//! A receiver that is away for so long that cases have left the state (4096 of them) misses those.

mod timeline;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use futures::future::join_all;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode};
use raft::Node;
use scheduler::ha::Leader;
use scheduler::ha::order::{Actor, Change, Role};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::hands::ConfigError;
use crate::hands::config::secret;
use crate::hands::http::{Ask, Place, Trust};

pub use timeline::{Event, since};

/// Receivers at most.
pub const MOST: usize = scheduler::ha::table::RECEIVERS;
/// Bytes of an answer that are read.
const ANSWER: usize = 64 << 10;

/// Who is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Receiver {
    /// Names it: how far it was told is remembered by that.
    pub name: String,
    /// Where events are posted, as in `https://events.example/pallium`.
    pub url: String,
    /// PEM file with the CA of its certificate; needed for https.
    pub ca: Option<PathBuf>,
    /// File with a token, and nothing else: it is sent as `Authorization: Bearer`.
    pub token_file: Option<PathBuf>,
}

/// Times.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two looks at the state.
    pub look: Duration,
    /// For one post, from connecting to the answer.
    pub deadline: Duration,
    /// After the first failure; it doubles with each further one.
    pub again: Duration,
    /// At most.
    pub most: Duration,
    /// Between two notes in the log of how far a receiver was told.
    pub note: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            look: Duration::from_secs(1),
            deadline: Duration::from_secs(10),
            again: Duration::from_secs(1),
            most: Duration::from_mins(1),
            note: Duration::from_secs(10),
        }
    }
}

/// All receivers.
pub struct Webhooks(Vec<Webhook>);

/// One receiver.
struct Webhook {
    receiver: Receiver,
    place: Place,
    trust: Trust,
}

impl Webhooks {
    /// Checks the receivers, and reads each of their files once.
    pub fn open(receivers: &[Receiver]) -> Result<Self, ConfigError> {
        if receivers.len() > MOST {
            return Err(ConfigError::new("events", format!("{} receivers given, {MOST} at most", receivers.len())));
        }
        let mut names = BTreeSet::new();
        let mut opened = Vec::new();
        for (at, receiver) in receivers.iter().enumerate() {
            let at = format!("events[{at}]");
            if receiver.name.is_empty() || receiver.name.len() > 64 || !names.insert(&receiver.name) {
                let what = format!("'{}' given, a name of 1 to 64 bytes that no other has expected", receiver.name);
                return Err(ConfigError::new(format!("{at}.name"), what));
            }
            let place = Place::parse(&receiver.url).map_err(|why| ConfigError::new(format!("{at}.url"), why))?;
            if place.https && receiver.ca.is_none() {
                let what = "no CA given, and the URL is https: name the PEM file with its CA (on Debian the public ones are \
                            in /etc/ssl/certs/ca-certificates.crt)";
                return Err(ConfigError::new(format!("{at}.ca"), what));
            }
            if let Some(file) = &receiver.token_file {
                secret(&format!("{at}.token_file"), file)?;
            }
            let trust = Trust::open(&at, receiver.ca.as_deref(), false)?;
            opened.push(Webhook { receiver: receiver.clone(), place, trust });
        }
        Ok(Self(opened))
    }

    /// Tells all of them what happens while this node leads, until dropped.
    pub async fn run(self, node: Node, pace: Pace) {
        let run = |webhook: Webhook| {
            let node = node.clone();
            async move {
                tokio::join!(webhook.run(&node, pace), webhook.trust.watch());
            }
        };
        join_all(self.0.into_iter().map(run)).await;
    }
}

/// One receiver in one leadership.
struct Telling {
    leader: Leader,
    /// All before this was told, replicated milliseconds.
    told: u64,
    /// What of that and later was told already.
    sent: BTreeSet<uuid::Uuid>,
    /// How far the log knows.
    noted: (u64, Instant),
}

impl Webhook {
    async fn run(&self, node: &Node, pace: Pace) {
        let mut telling: Option<Telling> = None;
        let mut failures = 0_u32;
        loop {
            let wait = match failures {
                0 => pace.look,
                some => pace.again.saturating_mul(1_u32.checked_shl(some - 1).unwrap_or(u32::MAX)).min(pace.most),
            };
            tokio::time::sleep(wait).await;
            let Some(leader) = node.leadership().filter(|_| node.has_failover()) else {
                (telling, failures) = (None, 0);
                continue;
            };
            if telling.as_ref().is_none_or(|telling| telling.leader != leader) {
                telling = self.begin(node, leader).await;
            }
            let Some(now) = &mut telling else { continue };
            match self.tell(node, now, pace).await {
                Ok(()) => failures = 0,
                Err(why) => {
                    failures = failures.saturating_add(1);
                    tracing::warn!(
                        receiver = self.receiver.name,
                        failures,
                        why,
                        "an event was not taken; it is told again"
                    );
                }
            }
            self.note(node, now, pace).await;
        }
    }

    /// Where the last leader left off; one that was never told hears what happens from now on.
    async fn begin(&self, node: &Node, leader: Leader) -> Option<Telling> {
        let name = self.receiver.name.clone();
        let look = move |core: &mut scheduler::Core, _: &mut scheduler::Engine| {
            (core.state().tables().failover().small.told.get(&name).copied(), core.clock())
        };
        let (known, now) = node.lead(look).await.ok()?;
        let told = known.unwrap_or(now);
        let noted = (known.unwrap_or(0), Instant::now());
        let mut telling = Telling { leader, told, sent: BTreeSet::new(), noted };
        if known.is_none() {
            self.commit(node, &mut telling).await;
        }
        Some(telling)
    }

    /// Tells what was not told, in order, until something is not taken.
    async fn tell(&self, node: &Node, telling: &mut Telling, pace: Pace) -> Result<(), String> {
        let look = |core: &mut scheduler::Core, _: &mut scheduler::Engine| core.state().tables().clone();
        let Ok(tables) = node.lead(look).await else { return Ok(()) };
        let (told, cluster) = (telling.told, node.identity().cluster);
        let looked = tokio::task::spawn_blocking(move || since(&tables, cluster, told)).await;
        let events = looked.map_err(|error| error.to_string())?;
        let present: BTreeSet<_> = events.iter().map(|event| event.id).collect();
        telling.sent.retain(|id| present.contains(id));
        for event in events {
            if node.leadership() != Some(telling.leader) {
                return Ok(());
            }
            if !telling.sent.contains(&event.id) {
                match tokio::time::timeout(pace.deadline, self.post(&event, cluster, pace.deadline)).await {
                    Err(_) => return Err(format!("no answer within {:?}", pace.deadline)),
                    Ok(told) => told?,
                }
                telling.sent.insert(event.id);
            }
            telling.told = telling.told.max(event.at);
        }
        Ok(())
    }

    async fn post(&self, event: &Event, cluster: uuid::Uuid, most: Duration) -> Result<(), String> {
        let path = if self.place.path.is_empty() { "/" } else { &self.place.path };
        let mut ask = Ask::with(Method::POST, path, event.cloud(cluster));
        ask.headers.push((CONTENT_TYPE, HeaderValue::from_static("application/cloudevents+json; charset=utf-8")));
        if let Some(file) = &self.receiver.token_file {
            let token = secret("token_file", file).map_err(|error| error.to_string())?;
            ask = ask.secret(AUTHORIZATION, &format!("Bearer {}", token.expose()));
        }
        let mut session = self.trust.connect(&self.place, most).await?;
        let said = session.ask(ask, ANSWER).await?;
        match said.status {
            status if status.is_success() => Ok(()),
            // It will never take this one, and the others behind it shall not wait for that.
            StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::UNPROCESSABLE_ENTITY => {
                let (receiver, id, status) = (&self.receiver.name, event.id, said.status.as_u16());
                tracing::error!(receiver, %id, kind = event.kind, status, text = said.text(), "an event is refused for good; it is left out");
                Ok(())
            }
            status => Err(format!("{} answered {status}: {}", self.place, said.text())),
        }
    }

    /// Notes how far it was told, not too often.
    async fn note(&self, node: &Node, telling: &mut Telling, pace: Pace) {
        let (noted, at) = telling.noted;
        if telling.told > noted && at.elapsed() >= pace.note {
            self.commit(node, telling).await;
        }
    }

    async fn commit(&self, node: &Node, telling: &mut Telling) {
        let change = Change::EventsTold { receiver: self.receiver.name.clone(), at: telling.told };
        let actor = Actor { role: Role::Coordinator, name: "events".to_owned(), reason: String::new() };
        telling.noted.1 = Instant::now();
        match node.order(actor, change).await {
            Ok(Ok(_)) => telling.noted.0 = telling.told,
            Ok(Err(why)) => tracing::warn!(receiver = self.receiver.name, %why, "how far it was told is not noted"),
            Err(why) => tracing::debug!(receiver = self.receiver.name, %why, "how far it was told is not noted"),
        }
    }
}
