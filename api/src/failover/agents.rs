//! Sessions of agents: what a hypervisor says goes to this node's ears, a Hello to the log; what may run on
//! it goes back. Nothing is decided here.

mod guests;
mod stops;
mod watchdog;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use raft::Freshness;
use raft::ears::{Held, Order, Seen};
use scheduler::ha::coordinator::lease::Ask;
use scheduler::ha::host::{Degraded, Hello, Machine, Watchdog};
use scheduler::ha::liveness::Says;
use scheduler::ha::order::{Actor, Change, Done, Groups, Role};
use scheduler::ha::recovery::Life;
use scheduler::ha::{AWAY, HostId};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::places::{Place, Places, may_begin};
use crate::error::ApiError;
use crate::identity::{Caller, Denied};
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
/// Starts of a host that wait for a permit.
const WAITING: usize = 16;
/// Boots of a host that are read.
const BOOTS: usize = 8;
/// Sights of other hosts in one report.
const SIGHTS: usize = 1_024;

/// Between two looks for a lease, where they are given.
const LEASE: Duration = Duration::from_millis(500);

/// Why a session ends.
const DEAF: &str = "it takes no directives";

/// What all sessions look at.
pub(crate) struct Agents {
    places: watch::Sender<Arc<Places>>,
    sessions: Mutex<Sessions>,
}

#[derive(Default)]
struct Sessions {
    /// As many as have begun.
    begun: u64,
    /// Newest of each host, from when its Hello was taken in until it ends; an older one ends.
    newest: BTreeMap<HostId, u64>,
}

impl Default for Agents {
    fn default() -> Self {
        Self { places: watch::Sender::new(Arc::default()), sessions: Mutex::default() }
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
                self.places.send_replace(Arc::new(Places::astray()));
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

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self) -> u64 {
        let mut sessions = self.sessions();
        sessions.begun += 1;
        sessions.begun
    }

    fn begin(&self, host: HostId, session: u64) {
        let mut sessions = self.sessions();
        let newest = sessions.newest.entry(host).or_default();
        *newest = session.max(*newest);
    }

    fn is_newest(&self, host: HostId, session: u64) -> bool {
        self.sessions().newest.get(&host) == Some(&session)
    }

    fn end(&self, host: HostId, session: u64) {
        let mut sessions = self.sessions();
        if sessions.newest.get(&host) == Some(&session) {
            sessions.newest.remove(&host);
        }
    }
}

pub(super) fn uuid(field: &str, given: &str) -> Result<Uuid, ApiError> {
    Uuid::parse_str(given)
        .map_err(|_| ApiError::bad_request(format!("{field}: '{}' given, a uuid expected", given.escape_debug())))
}

/// How a session's reports and directives go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// As they come.
    Stream,
    /// With the next request: no lease is asked for.
    Requests,
}

/// One session.
struct Session {
    service: Arc<Service>,
    host: HostId,
    boot: Uuid,
    number: u64,
    last: (u64, u64),
    domains: BTreeSet<Uuid>,
    /// Those of them that crashed and were not started since.
    crashed: BTreeSet<Uuid>,
    /// Those of them that execute, and those that are shut off.
    running: BTreeSet<Uuid>,
    off: BTreeSet<Uuid>,
    /// Those of them whose memory a migration left in two halves.
    split: BTreeSet<Uuid>,
    /// Those that ran and were then destroyed, and until when that is told.
    destroyed: BTreeMap<Uuid, Instant>,
    /// Those that libvirt lost its hold of.
    unmanaged: BTreeSet<Uuid>,
    /// Where each of them writes, and whether it stands still for an I/O error.
    writes: BTreeMap<Uuid, (Vec<String>, bool)>,
    /// Those whose own disk is full: no host and no backend is at fault.
    full: BTreeSet<Uuid>,
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
    holds: bool,
    /// Permits that were told and not taken in yet, with the directive that told them.
    told: VecDeque<(u64, Vec<Uuid>)>,
    /// What it was told to stop.
    stops: stops::Stops,
    watchdog: Watchdog,
    /// Its host lives on leases, as far as the last look.
    leased: bool,
    /// A lease was given in this session, and the watchdog was told to be armed.
    granted_lease: bool,
    arming: bool,
    /// Leases are given: each heartbeat asks for one.
    asks: bool,
    way: Way,
}

/// Takes a session up: its first report must be a Hello.
pub(crate) async fn session(
    service: Arc<Service>,
    caller: Option<Caller>,
    way: Way,
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
    service.speaks_for(caller.as_ref(), host)?;
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
    let mut session = Session {
        host,
        boot,
        number: service.agents.number(),
        last: (first.agent_epoch, first.seq),
        domains: BTreeSet::new(),
        crashed: BTreeSet::new(),
        running: BTreeSet::new(),
        off: BTreeSet::new(),
        split: BTreeSet::new(),
        destroyed: BTreeMap::new(),
        unmanaged: BTreeSet::new(),
        writes: BTreeMap::new(),
        full: BTreeSet::new(),
        listed: false,
        directives,
        directive: 0,
        cluster,
        granted: BTreeSet::new(),
        life: Life { host, incarnation: 0 },
        since: 0,
        quarantined: true,
        holds: true,
        told: VecDeque::new(),
        stops: stops::Stops::default(),
        watchdog: Watchdog::default(),
        leased: false,
        granted_lease: false,
        arming: false,
        asks: false,
        way,
        service,
    };
    session.hello(hello, clock(&first)).await?;
    // Of a host that failover watches: there are as many as it knows.
    session.service.agents.begin(host, session.number);
    tokio::spawn(async move {
        let _held = held;
        session.run(reports).await;
    });
    Ok(receiver)
}

impl Session {
    /// A Hello is taken in through the log, then answered with what may run on the host.
    async fn hello(&mut self, said: &ha::AgentHello, clock: u64) -> Result<(), ApiError> {
        let watchdog = said.watchdog.unwrap_or_default();
        let previous = said.previous_boot.as_deref().map(|boot| uuid("hello.previous_boot", boot)).transpose()?;
        let boots = said.boots.iter().take(BOOTS).map(|boot| uuid("hello.boots", boot));
        let boots = boots.collect::<Result<Vec<_>, ApiError>>()?;
        let hello = Hello {
            boot: self.boot,
            previous: self.last_known(&boots).await.or(previous),
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
        self.watchdog = hello.watchdog;
        self.arming &= !self.watchdog.armed;
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
        self.holds = Place::of(&tables, host).holds || !believed;
        let of_life = may_begin(tables.failover()).filter(|(life, _)| believed && *life == self.life);
        self.granted = of_life.map(|(_, instance)| instance).collect();
        self.heard(believed, clock);
        let welcome = ha::AgentWelcome {
            incarnation: self.life.incarnation,
            quarantined: self.quarantined,
            permits: self.granted.iter().map(Uuid::to_string).collect(),
            holds_nova_compute: self.holds,
        };
        self.say(ha::AgentDirective { welcome: Some(welcome), ..ha::AgentDirective::default() });
        let arriving = tables.failover().moves.iter().filter(|known| known.is_live() && known.to == self.life);
        self.told.clear();
        self.told.push_back((self.directive, arriving.map(|known| known.instance).collect()));
        if believed && host.watchdog != self.watchdog {
            self.replicate_watchdog(self.watchdog).await?;
        }
        Ok(())
    }

    /// The last boot that failover knows of, if the host's disk remembers it: in the boots since then nobody
    /// was reached.
    async fn last_known(&self, boots: &[Uuid]) -> Option<Uuid> {
        let id = self.host;
        let last = self.service.node.query(move |core| {
            let host = core.state().tables().failover().hosts.get(id)?;
            host.boot.or_else(|| host.boots.first().copied())
        });
        last.await.ok().flatten().filter(|last| boots.contains(last))
    }

    fn heard(&self, believed: bool, clock: u64) {
        if believed {
            self.service.node.ears().heard(self.host, self.boot, clock);
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
        let mut lease = tokio::time::interval(LEASE);
        let mut silent = tokio::time::Instant::now() + SILENT;
        tracing::info!(host = %self.host, boot = %self.boot, "an agent's session begins");
        let why = loop {
            tokio::select! {
                report = tokio::time::timeout_at(silent, reports.next()) => match report {
                    Err(_) => break "it was silent for 30 s".to_owned(),
                    Ok(None) => break "the agent ended it".to_owned(),
                    Ok(Some(Err(status))) => break status.message().to_owned(),
                    Ok(Some(Ok(report))) => {
                        silent = tokio::time::Instant::now() + SILENT;
                        let lists = report.instances.is_some();
                        if let Err(error) = self.take(report).await {
                            let _ = self.directives.try_send(Err(error.clone().into()));
                            break error.to_string();
                        }
                        let now = Arc::clone(&places.borrow());
                        if lists && !self.stop_guests(&now) {
                            break DEAF.to_owned();
                        }
                    }
                },
                changed = places.changed() => {
                    let now = Arc::clone(&places.borrow_and_update());
                    if changed.is_err() {
                        break "the server stops".to_owned();
                    }
                    if let Err(why) = self.look(&now).await {
                        break why;
                    }
                }
                _ = lease.tick(), if self.asks => if let Err(why) = self.lease().await {
                    break why;
                },
            }
            if !self.service.agents.is_newest(self.host, self.number) {
                break "a newer session of the same host has begun".to_owned();
            }
        };
        self.service.agents.end(self.host, self.number);
        tracing::info!(host = %self.host, boot = %self.boot, why, "an agent's session has ended");
    }

    async fn take(&mut self, report: ha::AgentReport) -> Result<(), ApiError> {
        let (host, boot) = (HostId(uuid("host", &report.host)?), uuid("boot", &report.boot)?);
        if host != self.host {
            let message = format!("host: {host} given in a session of {}", self.host);
            return Err(self.service.denied(Denied { reason: "other_host", message }));
        }
        if boot != self.boot {
            return Err(ApiError::bad_request(format!(
                "boot: {boot} given, {} expected, as the Hello named it: a new boot begins a new session",
                self.boot
            )));
        }
        let at = (report.agent_epoch, report.seq);
        if at <= self.last {
            return Ok(());
        }
        self.last = at;
        if let Some(hello) = &report.hello {
            return self.hello(hello, clock(&report)).await;
        }
        self.heard(self.life.incarnation != 0, clock(&report));
        if self.service.node.ears().wants_list(self.host) {
            self.say(ha::AgentDirective { report_now: Some(true), ..ha::AgentDirective::default() });
        }
        self.acknowledged(report.ack_directive);
        if let Some(instances) = &report.instances {
            self.instances(instances, Order(at.0, at.1), clock(&report))?;
        }
        let mut sights: Vec<_> =
            report.sights.iter().take(SIGHTS).map(|seen| sight(self.host, seen)).collect::<Result<_, _>>()?;
        // Of itself it speaks by speaking; who is not believed has seen nothing.
        sights.retain(|seen| seen.host != self.host && self.life.incarnation != 0);
        self.service.node.ears().seen(sights);
        if let Some(beat) = &report.heartbeat
            && self.life.incarnation != 0
        {
            self.beat(beat, report.seq)?;
        }
        if let Some(event) = &report.event {
            let ha::AgentEvent { instance, kind, detail, text, reason, .. } = event;
            if kind == "io_error" && reason == "enospc" && self.full.len() < INSTANCES {
                self.full.insert(uuid("event.instance", instance)?);
                self.service.node.ears().stalls(self.host, self.stalls());
            }
            tracing::info!(host = %self.host, instance, kind, detail, text, "a guest's event");
        }
        if let Some(why) = &report.goodbye {
            let back_in = Duration::from_secs(report.expected_down_s.into()).min(Duration::from_millis(AWAY));
            tracing::info!(host = %self.host, why, ?back_in, "an agent says goodbye");
            if self.life.incarnation != 0 && !back_in.is_zero() {
                self.service.node.ears().goodbye(self.host, back_in);
            }
        }
        if let Some(ha::AgentResult { directive, refused: Some(why) }) = &report.result {
            tracing::warn!(host = %self.host, directive, why, "an agent has refused a directive");
        }
        Ok(())
    }

    /// How the host is, what begins or runs on it without a permit, and a request for a lease.
    fn beat(&mut self, beat: &ha::AgentHeartbeat, seq: u64) -> Result<(), ApiError> {
        let unmanaged = beat.unmanaged.iter().take(WAITING).map(|text| uuid("heartbeat.unmanaged", text));
        let unmanaged = unmanaged.collect::<Result<_, ApiError>>()?;
        if unmanaged != self.unmanaged {
            self.unmanaged = unmanaged;
            self.tell_troubles();
        }
        let ears = self.service.node.ears();
        let waiting = beat.waiting_starts.iter().take(WAITING).map(|text| uuid("heartbeat.waiting_starts", text));
        // One that crashed before its place had followed is to be started there.
        let begin = self.running.union(&self.crashed).copied().map(Ok).chain(waiting);
        let strangers = begin.filter(|instance| !instance.as_ref().is_ok_and(|known| self.granted.contains(known)));
        ears.strangers(self.host, strangers.collect::<Result<_, ApiError>>()?);
        let ills = [(!beat.libvirt_ok, Degraded::LIBVIRT), (beat.nova_compute_ok == Some(false), Degraded::COMPUTE)];
        let ill = ills.into_iter().filter(|(ill, _)| *ill).fold(Degraded::default(), |all, (_, ill)| all.and(ill));
        ears.health(self.host, ill);
        if !ill.is_empty() || beat.unasked_starts > 0 {
            tracing::warn!(
                host = %self.host,
                libvirt = beat.libvirt_ok,
                nova_compute = ?beat.nova_compute_ok,
                unasked_starts = beat.unasked_starts,
                "a host lives, and is not well"
            );
        }
        if self.asks {
            ears.ask(Ask { host: self.host, boot: self.boot, seq });
        }
        Ok(())
    }

    /// Directives up to that one are done, and on the agent's disk.
    fn acknowledged(&mut self, directive: u64) {
        let mut held = Vec::new();
        while let Some((_, instances)) = self.told.pop_front_if(|(told, _)| *told <= directive) {
            held.extend(instances.into_iter().map(|instance| Held { host: self.host, boot: self.boot, instance }));
        }
        if !held.is_empty() {
            self.service.node.ears().holds(held);
        }
    }

    /// What has changed of this host's permits is told. Why the session must end, if it must: an agent whose
    /// life is over says Hello anew, which is refused and told if it was proven over while it lived.
    async fn look(&mut self, places: &Places) -> Result<(), String> {
        if places.astray {
            return Err("this node has lost the others: the agent is to try another".to_owned());
        }
        let Some(&Place { life, quarantined, holds, leased, .. }) = places.hosts.get(&self.host) else {
            return Ok(());
        };
        if places.commands < self.since {
            return Ok(());
        }
        if self.life.incarnation == 0 {
            return if self.stop_guests(places) { Ok(()) } else { Err(DEAF.to_owned()) };
        }
        if life != self.life {
            let withdrawn = std::mem::take(&mut self.granted);
            let _ = self.permits(&BTreeSet::new(), &withdrawn);
            return Err("this life of the host is over".to_owned());
        }
        let mut heard = true;
        if quarantined != self.quarantined {
            self.quarantined = quarantined;
            heard &= self.say(ha::AgentDirective { quarantine: Some(quarantined), ..ha::AgentDirective::default() });
        }
        if holds != self.holds {
            self.holds = holds;
            heard &= self.say(ha::AgentDirective { nova_compute: Some(!holds), ..ha::AgentDirective::default() });
        }
        self.asks = places.leases && self.way == Way::Stream;
        self.leased = leased;
        self.arm().await?;
        if !heard {
            return Err(DEAF.to_owned());
        }
        let now = places.at(life);
        let (granted, withdrawn) = (&now - &self.granted, &self.granted - &now);
        self.granted = now;
        let told = (granted.is_empty() && withdrawn.is_empty()) || self.permits(&granted, &withdrawn);
        // Once their permits are withdrawn.
        let told = told && self.stop_guests(places);
        if told { Ok(()) } else { Err(DEAF.to_owned()) }
    }

    fn permits(&mut self, granted: &BTreeSet<Uuid>, withdrawn: &BTreeSet<Uuid>) -> bool {
        let texts = |ids: &BTreeSet<Uuid>| ids.iter().map(Uuid::to_string).collect();
        let incarnation = self.life.incarnation;
        let permits = ha::AgentPermits { incarnation, granted: texts(granted), withdrawn: texts(withdrawn) };
        let said = self.say(ha::AgentDirective { permits: Some(permits), ..ha::AgentDirective::default() });
        if !withdrawn.is_empty() {
            // What it held before says nothing of the next time that an instance arrives.
            let gone = |instance: &Uuid| Held { host: self.host, boot: Uuid::nil(), instance: *instance };
            self.service.node.ears().holds(withdrawn.iter().map(gone).collect());
        }
        // More than an agent lets wait: it has not spoken for long, and its session ends.
        if self.told.len() < DIRECTIVES * DIRECTIVES {
            self.told.push_back((self.directive, granted.iter().copied().collect()));
        }
        said
    }
}

/// What the host's clock said when a report was handed out, milliseconds since it booted.
fn clock(report: &ha::AgentReport) -> u64 {
    report.boot_ns / 1_000_000
}

fn sight(by: HostId, sight: &ha::AgentSight) -> Result<Seen, ApiError> {
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
    Ok(Seen { by, host: HostId(uuid("sights.host", &sight.host)?), group, says })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// None is kept of a host whose newest has ended, and an older one that has not noticed yet is no newest for that.
    #[test]
    fn the_newest_session_of_a_host_is_known_until_it_ends() {
        let (agents, host) = (Agents::default(), HostId::default());
        let [old, new] = [(); 2].map(|()| agents.number());
        assert!(!agents.is_newest(host, old), "its Hello was not taken in");
        agents.begin(host, new);
        agents.begin(host, old);
        agents.end(host, old);
        assert_eq!([old, new].map(|session| agents.is_newest(host, session)), [false, true]);
        agents.end(host, new);
        assert!(agents.sessions().newest.is_empty());
        agents.begin(host, agents.number());
        assert_eq!([old, new].map(|session| agents.is_newest(host, session)), [false; 2]);
    }
}
