//! Sessions of agents: what a hypervisor says goes to this node's ears, a Hello to the log; what may run on
//! it goes back. Nothing is decided here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use raft::Freshness;
use raft::ears::Seen;
use scheduler::ha::HostId;
use scheduler::ha::host::{Hello, Host, Machine, Watchdog};
use scheduler::ha::liveness::Says;
use scheduler::ha::order::{Actor, Change, Done, Groups, Role};
use scheduler::ha::recovery::Life;
use scheduler::state::Tables;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::error::ApiError;
use crate::proto::ha;
use crate::service::Service;

/// Between two looks at the permits.
const LOOK: Duration = Duration::from_secs(1);
/// A session without a report for so long has ended.
const SILENT: Duration = Duration::from_secs(30);
/// Instances of one host that are taken in.
const INSTANCES: usize = 4_096;
/// Directives that wait for an agent.
const DIRECTIVES: usize = 16;
/// Sights of other hosts in one report.
const SIGHTS: usize = 1_024;

/// Lives of hosts, which of them are in quarantine, and what may run in each.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// Commands that were applied by then.
    commands: u64,
    /// This node does not reach the others: what agents tell it helps nobody.
    astray: bool,
    hosts: BTreeMap<HostId, (Life, bool)>,
    permits: BTreeMap<Life, BTreeSet<Uuid>>,
}

impl Places {
    fn of(tables: &Tables) -> Self {
        let failover = tables.failover();
        let life = |host: &Host| (host.id, (Life { host: host.id, incarnation: host.incarnation }, host.quarantined));
        let mut permits: BTreeMap<Life, BTreeSet<Uuid>> = BTreeMap::new();
        for permit in failover.permits.iter() {
            permits.entry(permit.life).or_default().insert(permit.instance);
        }
        Self {
            commands: tables.counters().commands,
            astray: false,
            hosts: failover.hosts.iter().map(|host| life(host)).collect(),
            permits,
        }
    }

    fn at(&self, life: Life) -> BTreeSet<Uuid> {
        self.permits.get(&life).cloned().unwrap_or_default()
    }
}

/// What all sessions look at.
pub(crate) struct Agents {
    places: watch::Sender<Arc<Places>>,
    /// Newest session of each host; an older one ends.
    sessions: std::sync::Mutex<BTreeMap<HostId, u64>>,
}

impl Default for Agents {
    fn default() -> Self {
        Self { places: watch::Sender::new(Arc::default()), sessions: std::sync::Mutex::default() }
    }
}

impl Agents {
    /// Looks at the permits while there are sessions. Ends never.
    pub(crate) async fn run(&self, service: &Service) {
        let mut seen = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let applied = service.node.status().applied;
            if self.places.receiver_count() > 0 && !service.node.in_touch() {
                self.places.send_replace(Arc::new(Places { astray: true, ..Places::default() }));
                seen = None;
                continue;
            }
            if self.places.receiver_count() == 0 || seen == Some(applied) {
                continue;
            }
            let Ok(tables) = service.node.query(|core| core.state().tables().clone()).await else { continue };
            let Ok(places) = tokio::task::spawn_blocking(move || Places::of(&tables)).await else { continue };
            self.places.send_replace(Arc::new(places));
            seen = Some(applied);
        }
    }

    fn begin(&self, host: HostId) -> u64 {
        let mut sessions = self.sessions.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let number = sessions.entry(host).or_default();
        *number += 1;
        *number
    }

    fn is_newest(&self, host: HostId, session: u64) -> bool {
        let sessions = self.sessions.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        sessions.get(&host) == Some(&session)
    }
}

fn uuid(field: &str, given: &str) -> Result<Uuid, ApiError> {
    Uuid::parse_str(given)
        .map_err(|_| ApiError::bad_request(format!("{field}: '{}' given, a uuid expected", given.escape_debug())))
}

/// One session.
struct Session {
    service: Arc<Service>,
    host: HostId,
    boot: Uuid,
    number: u64,
    last: (u64, u64),
    domains: BTreeSet<Uuid>,
    /// A whole list was given; what changed before it says nothing.
    listed: bool,
    directives: mpsc::Sender<Result<ha::AgentDirective, tonic::Status>>,
    directive: u64,
    cluster: Uuid,
    granted: BTreeSet<Uuid>,
    life: Life,
    /// What was told with the Welcome is of this many commands: an older look knows less.
    since: u64,
    quarantined: bool,
}

/// Takes a session up: its first report must be a Hello.
pub(crate) async fn session(
    service: Arc<Service>,
    mut reports: impl Stream<Item = Result<ha::AgentReport, tonic::Status>> + Send + Unpin + 'static,
) -> Result<mpsc::Receiver<Result<ha::AgentDirective, tonic::Status>>, ApiError> {
    let held = service.agent_slots.take(1).ok_or_else(|| {
        ApiError::unavailable("overloaded", "as many agents as may are connected to this node: try another", 5)
    })?;
    let first = tokio::time::timeout(SILENT, reports.next()).await.ok().flatten();
    let Some(Ok(first)) = first else {
        return Err(ApiError::bad_request("no report came: a session begins with a Hello"));
    };
    let (host, boot) = (HostId(uuid("host", &first.host)?), uuid("boot", &first.boot)?);
    let Some(hello) = &first.hello else {
        return Err(ApiError::bad_request("hello: missing in the first report of the session"));
    };
    let cluster = service.node.identity().cluster;
    if let Some(given) = &hello.cluster
        && uuid("hello.cluster", given)? != cluster
    {
        return Err(ApiError::conflict(format!(
            "hello.cluster: {given} given, this is cluster {cluster}: the agent belongs to another one. Remove its state \
             file on the host, if it is meant to change"
        )));
    }
    let (directives, receiver) = mpsc::channel(DIRECTIVES);
    let number = service.agents.begin(host);
    let mut session = Session {
        host,
        boot,
        number,
        last: (first.agent_epoch, first.seq),
        domains: BTreeSet::new(),
        listed: false,
        directives,
        directive: 0,
        cluster,
        granted: BTreeSet::new(),
        life: Life { host, incarnation: 0 },
        since: 0,
        quarantined: true,
        service,
    };
    session.hello(hello).await?;
    tokio::spawn(async move {
        let _held = held;
        session.run(reports).await;
    });
    Ok(receiver)
}

impl Session {
    /// A Hello is taken in through the log, then answered with what may run on the host.
    async fn hello(&mut self, said: &ha::AgentHello) -> Result<(), ApiError> {
        let watchdog = said.watchdog.unwrap_or_default();
        let hello = Hello {
            boot: self.boot,
            previous: said.previous_boot.as_deref().map(|boot| uuid("hello.previous_boot", boot)).transpose()?,
            machine: Machine {
                uuid: said.machine_uuid.as_deref().map(|id| uuid("hello.machine_uuid", id)).transpose()?,
                serial: said.machine_serial.clone(),
            },
            permit_check: said.permit_check,
            resumes_guests: said.resumes_guests,
            watchdog: Watchdog {
                armed: watchdog.armed,
                hardware: watchdog.hardware,
                nowayout: watchdog.nowayout,
                virtual_host: watchdog.virtual_host,
                suspends: watchdog.suspends,
                timeout: watchdog.timeout_ms,
            },
        };
        let name = format!("agent of {}", self.host);
        let actor = Actor { role: Role::Coordinator, name, reason: String::new() };
        let change = Change::IncarnationOpen { host: self.host, hello: Box::new(hello) };
        let node = &self.service.node;
        match node.order(actor, change).await?.map_err(|refusal| ApiError::conflict(refusal.to_string()))? {
            Done::Quarantined(why) => {
                tracing::warn!(host = %self.host, boot = %self.boot, why, "a Hello is not believed: the host is in quarantine");
            }
            Done::ProofViolated => {
                tracing::error!(host = %self.host, boot = %self.boot, "a life that was proven over has said Hello: the proof was wrong");
                self.service.metrics.proof_violations.inc();
            }
            _ => {}
        }
        node.read_barrier(Freshness::Linearizable).await?;
        let tables = node.query(|core| core.state().tables().clone()).await?;
        let Some(host) = tables.failover().hosts.get(self.host) else {
            return Err(ApiError::not_found(format!("host: {} is none that failover watches", self.host)));
        };
        // In the boot that it said, or it stays shut: a stranger's Hello opens nothing.
        let believed = host.boot == Some(self.boot);
        self.life = Life { host: host.id, incarnation: if believed { host.incarnation } else { 0 } };
        self.since = tables.counters().commands;
        self.quarantined = host.quarantined || !believed;
        let of_life = tables.failover().permits.iter().filter(|permit| believed && permit.life == self.life);
        self.granted = of_life.map(|permit| permit.instance).collect();
        self.heard(believed);
        let welcome = ha::AgentWelcome {
            incarnation: self.life.incarnation,
            quarantined: self.quarantined,
            permits: self.granted.iter().map(Uuid::to_string).collect(),
        };
        self.say(ha::AgentDirective { welcome: Some(welcome), ..ha::AgentDirective::default() });
        Ok(())
    }

    fn heard(&self, believed: bool) {
        if believed {
            self.service.node.ears().heard(self.host, self.boot);
        }
    }

    /// Says something; an agent that does not take it loses its session, and begins anew.
    fn say(&mut self, directive: ha::AgentDirective) -> bool {
        self.directive += 1;
        let directive = ha::AgentDirective { id: self.directive, cluster: self.cluster.to_string(), ..directive };
        self.directives.try_send(Ok(directive)).is_ok()
    }

    async fn run(mut self, mut reports: impl Stream<Item = Result<ha::AgentReport, tonic::Status>> + Send + Unpin) {
        let mut places = self.service.agents.places.subscribe();
        tracing::info!(host = %self.host, boot = %self.boot, "an agent's session begins");
        let why = loop {
            tokio::select! {
                report = tokio::time::timeout(SILENT, reports.next()) => match report {
                    Err(_) => break "it was silent for 30 s".to_owned(),
                    Ok(None) => break "the agent ended it".to_owned(),
                    Ok(Some(Err(status))) => break status.message().to_owned(),
                    Ok(Some(Ok(report))) => if let Err(error) = self.take(report).await {
                        let _ = self.directives.try_send(Err(error.clone().into()));
                        break error.to_string();
                    },
                },
                changed = places.changed() => {
                    let now = Arc::clone(&places.borrow_and_update());
                    if changed.is_err() {
                        break "the server stops".to_owned();
                    }
                    if let Err(why) = self.look(&now) {
                        break why.to_owned();
                    }
                }
            }
            if !self.service.agents.is_newest(self.host, self.number) {
                break "a newer session of the same host has begun".to_owned();
            }
        };
        tracing::info!(host = %self.host, boot = %self.boot, why, "an agent's session has ended");
    }

    async fn take(&mut self, report: ha::AgentReport) -> Result<(), ApiError> {
        if uuid("host", &report.host)? != self.host.0 || uuid("boot", &report.boot)? != self.boot {
            return Err(ApiError::bad_request("host, boot: others than the session's Hello named"));
        }
        let at = (report.agent_epoch, report.seq);
        if at <= self.last {
            return Ok(());
        }
        self.last = at;
        if let Some(hello) = &report.hello {
            return self.hello(hello).await;
        }
        self.heard(self.life.incarnation != 0);
        if let Some(instances) = &report.instances {
            self.instances(instances)?;
        }
        let ears = self.service.node.ears();
        let sights: Vec<_> = report.sights.iter().take(SIGHTS).map(sight).collect::<Result<_, _>>()?;
        ears.seen(sights);
        if let Some(beat) = report.heartbeat
            && (!beat.libvirt_ok || beat.nova_compute_ok == Some(false) || beat.unasked_starts > 0)
        {
            tracing::warn!(
                host = %self.host,
                libvirt = beat.libvirt_ok,
                nova_compute = ?beat.nova_compute_ok,
                unasked_starts = beat.unasked_starts,
                "a host lives, and is not well"
            );
        }
        if let Some(event) = &report.event {
            let ha::AgentEvent { instance, kind, detail, text, .. } = event;
            tracing::info!(host = %self.host, instance, kind, detail, text, "a guest's event");
        }
        if let Some(why) = &report.goodbye {
            tracing::info!(host = %self.host, why, "an agent says goodbye");
        }
        if let Some(ha::AgentResult { directive, refused: Some(why) }) = &report.result {
            tracing::warn!(host = %self.host, directive, why, "an agent has refused a directive");
        }
        Ok(())
    }

    fn instances(&mut self, told: &ha::AgentInstances) -> Result<(), ApiError> {
        let (present, gone) = (told.present.iter().map(|instance| &instance.uuid), &told.gone);
        let read = |texts: Vec<&String>| {
            let read = texts.into_iter().map(|text| uuid("instances", text));
            read.collect::<Result<BTreeSet<_>, ApiError>>()
        };
        let (present, gone) = (read(present.collect())?, read(gone.iter().collect())?);
        if told.whole {
            self.domains = present;
            self.listed = true;
        } else {
            self.domains.extend(present);
            self.domains.retain(|instance| !gone.contains(instance));
        }
        if self.domains.len() > INSTANCES {
            return Err(ApiError::bad_request(format!(
                "instances: {} given, {INSTANCES} at most expected",
                self.domains.len()
            )));
        }
        if self.listed && self.life.incarnation != 0 {
            self.service.node.ears().listed(self.host, self.boot, self.domains.clone());
        }
        Ok(())
    }

    /// What has changed of this host's permits is told. Why the session must end, if it must: an agent whose
    /// life is over says Hello anew, which is refused and told if it was proven over while it lived.
    fn look(&mut self, places: &Places) -> Result<(), &'static str> {
        const DEAF: &str = "it takes no directives";
        if places.astray {
            return Err("this node has lost the others: the agent is to try another");
        }
        let Some(&(life, quarantined)) = places.hosts.get(&self.host) else { return Ok(()) };
        if places.commands < self.since || self.life.incarnation == 0 {
            return Ok(());
        }
        if life != self.life {
            let withdrawn = std::mem::take(&mut self.granted);
            let _ = self.permits(&BTreeSet::new(), &withdrawn);
            return Err("this life of the host is over");
        }
        if quarantined != self.quarantined {
            self.quarantined = quarantined;
            if !self.say(ha::AgentDirective { quarantine: Some(quarantined), ..ha::AgentDirective::default() }) {
                return Err(DEAF);
            }
        }
        let now = places.at(life);
        let (granted, withdrawn) = (&now - &self.granted, &self.granted - &now);
        self.granted = now;
        let told = (granted.is_empty() && withdrawn.is_empty()) || self.permits(&granted, &withdrawn);
        if told { Ok(()) } else { Err(DEAF) }
    }

    fn permits(&mut self, granted: &BTreeSet<Uuid>, withdrawn: &BTreeSet<Uuid>) -> bool {
        let texts = |ids: &BTreeSet<Uuid>| ids.iter().map(Uuid::to_string).collect();
        let incarnation = self.life.incarnation;
        let permits = ha::AgentPermits { incarnation, granted: texts(granted), withdrawn: texts(withdrawn) };
        self.say(ha::AgentDirective { permits: Some(permits), ..ha::AgentDirective::default() })
    }
}

fn sight(sight: &ha::AgentSight) -> Result<Seen, ApiError> {
    let group = match sight.group.as_str() {
        "storage" => Groups::STORAGE,
        "data" => Groups::DATA,
        given => {
            return Err(ApiError::bad_request(format!(
                "sights.group: '{}' given, storage or data expected",
                given.escape_debug()
            )));
        }
    };
    let says = if sight.runs { Says::Runs } else { Says::Silent };
    Ok(Seen { host: HostId(uuid("sights.host", &sight.host)?), group, says })
}
