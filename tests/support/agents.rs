//! Agents of hosts, as gRPC sessions without a host.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::proto::ha;
use api::proto::ha::host_agent_client::HostAgentClient;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use super::server::Server;
use super::spec::uuid;

/// Id of host `n`.
pub fn id(n: u64) -> String {
    uuid(0xA000 + n)
}

/// What its agent says first.
pub fn hello(n: u64) -> ha::AgentReport {
    ha::AgentReport {
        host: id(n),
        boot: uuid(0xB000 + n),
        hello: Some(ha::AgentHello {
            machine_uuid: Some(uuid(0xC000 + n)),
            machine_serial: Some(format!("S{n}")),
            permit_check: true,
            ..ha::AgentHello::default()
        }),
        ..ha::AgentReport::default()
    }
}

/// A watchdog that is not fed for so long resets its host, milliseconds.
const BITES_AFTER: u64 = 10_000;

/// As the agent's own connections: one whose other end is gone is given up.
const ALIVE: Duration = Duration::from_secs(3);

/// What an agent was let start, in whichever session.
#[derive(Clone, Default)]
pub struct Permits(Arc<Mutex<BTreeSet<String>>>);

impl Permits {
    pub fn holds(&self, instance: &str) -> bool {
        self.0.lock().expect("no panic").contains(instance)
    }

    fn take(&self, directive: &ha::AgentDirective) {
        let mut permits = self.0.lock().expect("no panic");
        if let Some(welcome) = &directive.welcome {
            *permits = welcome.permits.iter().cloned().collect();
        }
        if let Some(changed) = &directive.permits {
            permits.retain(|instance| !changed.withdrawn.contains(instance));
            permits.extend(changed.granted.iter().cloned());
        }
    }
}

/// A watchdog that is fed while a lease lives.
#[derive(Clone, Default)]
pub struct Dog(Arc<Mutex<Leases>>);

#[derive(Default)]
struct Leases {
    /// When requests were sent.
    sent: BTreeMap<u64, Instant>,
    /// When the last lease ends.
    end: Option<Instant>,
    /// It was told to be armed.
    armed: bool,
}

impl Dog {
    /// What a host says of its watchdog.
    pub fn device(armed: bool) -> ha::AgentWatchdog {
        ha::AgentWatchdog { armed, hardware: true, nowayout: true, timeout_ms: BITES_AFTER, ..Default::default() }
    }

    /// When it resets its host, if nothing but silence comes from now on: an agent feeds up to the end of its lease.
    pub fn bites(&self) -> Option<Instant> {
        Some(self.0.lock().expect("no panic").end? + Duration::from_millis(BITES_AFTER))
    }

    /// Whether it was told to be armed in the session that is.
    pub fn is_armed(&self) -> bool {
        self.0.lock().expect("no panic").armed
    }

    /// It is armed no more, and knows of no lease.
    pub fn begins_anew(&self) {
        *self.0.lock().expect("no panic") = Leases::default();
    }

    fn sends(&self, seq: u64) {
        self.0.lock().expect("no panic").sent.insert(seq, Instant::now());
    }

    /// A lease ends its time after the request was sent that it names.
    fn take(&self, lease: &ha::AgentLease) {
        let mut leases = self.0.lock().expect("no panic");
        let end = leases.sent.get(&lease.for_seq).map(|sent| *sent + Duration::from_millis(lease.ttl_ms));
        leases.end = leases.end.max(end);
        leases.sent.retain(|seq, _| *seq > lease.for_seq);
    }
}

/// What an agent says of guests: those that are there, and those whose start waits.
#[derive(Clone, Default)]
pub struct Guests(Arc<Mutex<(Vec<ha::AgentInstance>, Vec<String>)>>);

impl Guests {
    /// One guest alone, in that state for that reason.
    pub fn one(&self, instance: &str, state: &str, state_reason: i32) {
        let (uuid, state) = (instance.to_owned(), state.to_owned());
        let guest = ha::AgentInstance { uuid, state, state_reason, ..ha::AgentInstance::default() };
        *self.0.lock().expect("no panic") = (vec![guest], Vec::new());
    }

    pub fn set(&self, running: &[String], waiting: &[String]) {
        let running = running.iter().map(|instance| ha::AgentInstance {
            uuid: instance.clone(),
            state: "running".to_owned(),
            ..ha::AgentInstance::default()
        });
        *self.0.lock().expect("no panic") = (running.collect(), waiting.to_vec());
    }
}

/// A session: reports go out, directives come in.
pub struct Agent {
    /// What it was let start.
    pub permits: Permits,
    /// What is on its host.
    pub guests: Guests,
    /// Its watchdog, once it was told to arm it.
    pub dog: Dog,
    /// When its last report went out.
    pub last: Arc<Mutex<Instant>>,
    report: ha::AgentReport,
    hello: Option<ha::AgentHello>,
    reports: mpsc::Sender<ha::AgentReport>,
    directives: Streaming<ha::AgentDirective>,
}

impl Agent {
    pub async fn begin(server: &Server, hello: ha::AgentReport) -> Result<Self, tonic::Status> {
        Self::connect(&server.url, hello).await
    }

    pub async fn connect(url: &str, hello: ha::AgentReport) -> Result<Self, tonic::Status> {
        let endpoint = Endpoint::from_shared(url.to_owned()).expect("a URL").http2_keep_alive_interval(ALIVE);
        let endpoint = endpoint.keep_alive_timeout(ALIVE).keep_alive_while_idle(true);
        let connected = endpoint.connect().await;
        Self::over(connected.map_err(|error| tonic::Status::unavailable(error.to_string()))?, hello).await
    }

    pub async fn over(channel: Channel, hello: ha::AgentReport) -> Result<Self, tonic::Status> {
        let mut client = HostAgentClient::new(channel);
        let (reports, receiver) = mpsc::channel(16);
        reports.send(hello.clone()).await.expect("room");
        let directives = client.session(tokio_stream::wrappers::ReceiverStream::new(receiver));
        let directives = tokio::time::timeout(ALIVE, directives)
            .await
            .map_err(|_| tonic::Status::deadline_exceeded("no answer to the Hello"))??
            .into_inner();
        let (report, hello) = (ha::AgentReport { hello: None, ..hello.clone() }, hello.hello);
        let last = Arc::new(Mutex::new(Instant::now()));
        Ok(Self {
            permits: Permits::default(),
            guests: Guests::default(),
            dog: Dog::default(),
            last,
            report,
            hello,
            reports,
            directives,
        })
    }

    /// Says something.
    pub async fn say(&mut self, report: ha::AgentReport) {
        self.reports.send(report).await.expect("a session");
    }

    /// Waits until the server refuses the session: why.
    pub async fn refused(&mut self) -> tonic::Status {
        let refused = async {
            loop {
                if let Err(status) = self.directives.message().await.map(|directive| directive.expect("a refusal")) {
                    return status;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), refused).await.expect("a refusal in time")
    }

    /// Waits until the server ends the session.
    pub async fn ends(&mut self) {
        let ended = async { while let Ok(Some(_)) = self.directives.message().await {} };
        tokio::time::timeout(Duration::from_secs(20), ended).await.expect("the session ends");
    }

    pub async fn next(&mut self) -> ha::AgentDirective {
        let directive = tokio::time::timeout(Duration::from_secs(30), self.directives.message())
            .await
            .expect("a directive in time")
            .expect("a session")
            .expect("a directive");
        self.take(&directive);
        directive
    }

    fn take(&mut self, directive: &ha::AgentDirective) {
        self.permits.take(directive);
        self.report.ack_directive = directive.id;
        if let Some(lease) = &directive.lease {
            self.dog.take(lease);
        }
    }

    /// Heartbeats until it is dropped; `sees`: a host that its probes do not reach.
    pub fn beat(self, sees: Option<String>) -> tokio::task::JoinHandle<()> {
        tokio::spawn(self.beat_on(sees))
    }

    /// The same, until the session ends.
    pub async fn beat_on(mut self, sees: Option<String>) {
        let mut interval = tokio::time::interval(Duration::from_millis(500));
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                directive = self.directives.message() => match directive {
                    Ok(Some(directive)) => {
                        self.take(&directive);
                        // It says who it is anew, with its watchdog as it is now.
                        if let (Some(armed), Some(mut hello)) = (directive.watchdog, self.hello.clone()) {
                            hello.watchdog = Some(Dog::device(armed));
                            self.dog.0.lock().expect("no panic").armed = armed;
                            self.report.seq += 1;
                            let report = ha::AgentReport { hello: Some(hello), ..self.report.clone() };
                            if self.reports.send(report).await.is_err() {
                                return;
                            }
                        }
                        continue;
                    }
                    _ => return,
                }
            }
            let sights =
                sees.iter().map(|host| ha::AgentSight { host: host.clone(), group: "data".to_owned(), runs: false });
            let (present, waiting_starts) = self.guests.0.lock().expect("no panic").clone();
            let heartbeat = ha::AgentHeartbeat { libvirt_ok: true, waiting_starts, ..ha::AgentHeartbeat::default() };
            self.report.seq += 1;
            let report = ha::AgentReport {
                heartbeat: Some(heartbeat),
                sights: sights.collect(),
                instances: Some(ha::AgentInstances { whole: true, present, ..ha::AgentInstances::default() }),
                ..self.report.clone()
            };
            self.dog.sends(self.report.seq);
            if self.reports.send(report).await.is_err() {
                return;
            }
            *self.last.lock().expect("no panic") = Instant::now();
        }
    }
}

/// Has failover watch hosts, once the cluster has reached its feature level.
pub async fn watch(server: &Server, folder: &std::path::Path, hosts: &Value) {
    let hosts = super::file(folder, "hosts.json", &hosts.to_string());
    super::nodes::until("the feature level", async || server.ctl(&["ha", "apply", &hosts]).ok()).await;
}

/// The hosts of these names, from 1 on, as `ctl ha apply` takes them.
pub fn watched(names: &[&str]) -> Value {
    let host = |(n, name): (u64, &&str)| json!({"host": name, "id": id(n), "machine_uuid": uuid(0xC000 + n), "machine_serial": format!("S{n}")});
    json!({"hosts": (1..).zip(names).map(host).collect::<Vec<_>>()})
}
