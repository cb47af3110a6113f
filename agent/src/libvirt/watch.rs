//! Watches libvirt for as long as the agent lives: connects, asks each second whether it still answers,
//! lists what is there, and passes on what happens. A libvirtd that is dead or silent is seen within five
//! seconds.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use uuid::Uuid;

use super::client::{Client, Failure};
use super::description;
use super::wire::{Domain, NO_DOMAIN, short};
use crate::report::{DomainEvent, DomainState, Event, INSTANCES, Instance, Lifecycle};

/// How often it is asked whether it answers.
const PROBE: Duration = Duration::from_secs(1);
/// What an answer may take: a probe that is lost is noticed within five seconds of the last good one.
const DEADLINE: Duration = Duration::from_secs(4);
/// Between attempts to connect, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// `VIR_CONNECT_LIST_DOMAINS_AUTOSTART`.
const AUTOSTART: u32 = 1 << 10;

/// Where libvirt is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Libvirt {
    /// Sockets; the first that is there is used.
    pub sockets: Vec<PathBuf>,
    /// Sockets that guests can be changed through; the first that is there is used, and only to stop guests that have no right
    /// to run here. None: nothing is stopped.
    pub control: Vec<PathBuf>,
    /// What is opened.
    pub uri: String,
    /// Where QEMU's process numbers lie.
    pub pids: PathBuf,
    /// Folders that other hosts reach too.
    pub shared_paths: Vec<String>,
    /// Seconds between whole lists.
    pub snapshot_seconds: u64,
}

impl Default for Libvirt {
    fn default() -> Self {
        Self {
            sockets: ["/run/libvirt/virtqemud-sock-ro", "/run/libvirt/libvirt-sock-ro"].map(PathBuf::from).to_vec(),
            control: ["/run/libvirt/virtqemud-sock", "/run/libvirt/libvirt-sock"].map(PathBuf::from).to_vec(),
            uri: "qemu:///system".to_owned(),
            pids: PathBuf::from("/run/libvirt/qemu"),
            shared_paths: vec!["/var/lib/nova/mnt/".to_owned()],
            snapshot_seconds: 60,
        }
    }
}

/// What was seen.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// It was reached: version and hypervisor.
    Reached {
        /// Such as `9.0.0`.
        version: String,
        /// Such as `QEMU`.
        hypervisor: String,
    },
    /// It answers.
    Answered {
        /// After so many milliseconds.
        rtt_ms: u32,
        /// Guests that run.
        active: u32,
    },
    /// It cannot be reached, does not answer, or says what makes no sense.
    Lost(String),
    /// All that is there, asked for at that time.
    Whole(u64, Vec<Instance>),
    /// What one domain is now; `None`: it is gone.
    One(u64, Uuid, Option<Box<Instance>>),
    /// What happened.
    Happened(DomainEvent),
    /// So many events were lost.
    Dropped(u64),
}

/// Watches until `seen` is closed. `ask` makes it list everything at once.
pub async fn watch(libvirt: Libvirt, now: fn() -> u64, seen: mpsc::Sender<Seen>, ask: &Notify) {
    let mut wait = BACKOFF.0;
    let mut said = String::new();
    while !seen.is_closed() {
        let lost = match connect(&libvirt, now).await {
            Ok(client) => {
                wait = BACKOFF.0;
                said.clear();
                match (Watch { libvirt: &libvirt, now, seen: &seen, client, rtt_ms: 0, active: 0 }).run(ask).await {
                    Ok(()) => return,
                    Err(failure) => failure,
                }
            }
            Err(failure) => failure,
        };
        let lost = lost.to_string();
        if lost != said {
            tracing::warn!("{lost}");
            said.clone_from(&lost);
        }
        if seen.send(Seen::Lost(lost)).await.is_err() {
            return;
        }
        sleep(wait).await;
        wait = (wait * 2).min(BACKOFF.1);
    }
}

async fn connect(libvirt: &Libvirt, now: fn() -> u64) -> Result<Client, Failure> {
    let socket = there(&libvirt.sockets).cloned().unwrap_or_default();
    Client::open(&socket, &libvirt.uri, DEADLINE, now).await
}

/// The first socket that is there, else the last.
pub(super) fn there(sockets: &[PathBuf]) -> Option<&PathBuf> {
    sockets.iter().find(|socket| socket.exists()).or(sockets.last())
}

struct Watch<'a> {
    libvirt: &'a Libvirt,
    now: fn() -> u64,
    seen: &'a mpsc::Sender<Seen>,
    client: Client,
    /// What the last probe found.
    rtt_ms: u32,
    active: u32,
}

/// Nobody wants to know any more.
struct Unheard;

enum End {
    Unheard,
    Failed(Failure),
}

impl From<Unheard> for End {
    fn from(_: Unheard) -> Self {
        Self::Unheard
    }
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Watch<'_> {
    async fn tell(&self, seen: Seen) -> Result<(), Unheard> {
        self.seen.send(seen).await.map_err(|_| Unheard)
    }

    async fn run(&mut self, ask: &Notify) -> Result<(), Failure> {
        match self.steps(ask).await {
            Ok(()) | Err(End::Unheard) => Ok(()),
            Err(End::Failed(failure)) => Err(failure),
        }
    }

    async fn steps(&mut self, ask: &Notify) -> Result<(), End> {
        let (version, hypervisor) = self.client.version().await?;
        tracing::info!(version, hypervisor, "libvirt is watched");
        self.tell(Seen::Reached { version, hypervisor }).await?;
        let mut probe = interval(PROBE);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut whole = interval(Duration::from_secs(self.libvirt.snapshot_seconds.clamp(1, 3_600)));
        whole.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Not fair on purpose: a flood of events must not keep it from being asked whether it answers.
            tokio::select! {
                biased;
                _ = probe.tick() => self.probe().await?,
                _ = whole.tick() => self.whole().await?,
                () = ask.notified() => self.whole().await?,
                event = self.client.event() => {
                    let Some(event) = event else { return Err(Failure::Closed.into()) };
                    self.happened(event).await?;
                }
                () = self.seen.closed() => return Ok(()),
            }
        }
    }

    async fn answered(&self) -> Result<(), Unheard> {
        self.tell(Seen::Answered { rtt_ms: self.rtt_ms, active: self.active }).await
    }

    async fn probe(&mut self) -> Result<(), End> {
        let asked = Instant::now();
        self.active = self.client.active().await?;
        self.rtt_ms = asked.elapsed().as_millis() as u32;
        self.answered().await?;
        let lost = self.client.lost();
        if lost > 0 {
            self.tell(Seen::Dropped(lost)).await?;
            self.whole().await?;
        }
        Ok(())
    }

    async fn whole(&mut self) -> Result<(), End> {
        let asked = (self.now)();
        let autostart: HashSet<Uuid> = self.client.domains(AUTOSTART).await?.iter().map(|domain| domain.uuid).collect();
        let mut domains = self.client.domains(0).await?;
        if domains.len() > INSTANCES {
            tracing::error!(domains = domains.len(), most = INSTANCES, "too many domains: only the first are reported");
            domains.truncate(INSTANCES);
        }
        let mut instances = Vec::with_capacity(domains.len());
        let mut probed = Instant::now();
        for domain in domains {
            if let Some(mut instance) = self.instance(&domain).await? {
                instance.autostart = autostart.contains(&domain.uuid);
                instances.push(instance);
            }
            if probed.elapsed() > PROBE {
                probed = Instant::now();
                self.answered().await?;
            }
        }
        self.tell(Seen::Whole(asked, instances)).await?;
        Ok(())
    }

    async fn happened(&mut self, event: DomainEvent) -> Result<(), End> {
        let (uuid, name) = (event.instance, event.name.clone());
        let changes = matches!(event.event, Event::Lifecycle { .. } | Event::ControlError);
        let started = matches!(event.event, Event::Lifecycle { event: Lifecycle::Started, .. });
        self.tell(Seen::Happened(event)).await?;
        if changes {
            let asked = (self.now)();
            // The id is what libvirt gives to a domain that runs; any will do to name it.
            let known = self.client.domains(0).await?.into_iter().find(|domain| domain.uuid == uuid);
            let mut one = match known {
                Some(domain) => self.instance(&domain).await?,
                None => None,
            };
            if let Some(instance) = &mut one {
                let autostart = self.client.domains(AUTOSTART).await?;
                instance.autostart = autostart.iter().any(|domain| domain.uuid == uuid);
            }
            if started && one.is_none() {
                tracing::info!(name, "a guest that started is gone again");
            }
            self.tell(Seen::One(asked, uuid, one.map(Box::new))).await?;
        }
        Ok(())
    }

    /// `None`: it is gone. A domain that cannot be asked is listed with an unknown state: it is there.
    async fn instance(&mut self, domain: &Domain) -> Result<Option<Instance>, Failure> {
        let (state, state_reason) = match self.client.state(domain).await {
            Ok((state, reason)) => (state_of(state), reason),
            Err(Failure::Refused(refused)) if refused.code == NO_DOMAIN => return Ok(None),
            Err(Failure::Refused(_)) => (DomainState::Unknown, 0),
            Err(failure) => return Err(failure),
        };
        let xml = match self.client.xml(domain).await {
            Ok(xml) => xml,
            Err(Failure::Refused(refused)) if refused.code == NO_DOMAIN => return Ok(None),
            Err(Failure::Refused(_)) => String::new(),
            Err(failure) => return Err(failure),
        };
        let said = description::read(&xml, &self.libvirt.shared_paths).unwrap_or_default();
        let domain_id = u32::try_from(domain.id).ok();
        Ok(Some(Instance {
            uuid: domain.uuid,
            name: short(domain.name.clone()),
            state,
            state_reason,
            domain_id,
            pid: domain_id.and_then(|_| self.pid(&domain.name)),
            autostart: false,
            disks: said.disks,
            pci: said.pci,
            has_vtpm: said.has_vtpm,
            migrating: migrates(state, state_reason),
        }))
    }

    fn pid(&self, name: &str) -> Option<u32> {
        if name.contains('/') {
            return None;
        }
        let text = std::fs::read_to_string(self.libvirt.pids.join(format!("{name}.pid"))).ok()?;
        text.trim().parse().ok()
    }
}

fn state_of(code: i32) -> DomainState {
    match code {
        1 => DomainState::Running,
        2 => DomainState::Blocked,
        3 => DomainState::Paused,
        4 => DomainState::ShuttingDown,
        5 => DomainState::ShutOff,
        6 => DomainState::Crashed,
        7 => DomainState::PmSuspended,
        _ => DomainState::Unknown,
    }
}

/// `virDomainPausedReason` migration, post-copy and failed post-copy; `virDomainRunningReason` the last two.
fn migrates(state: DomainState, reason: i32) -> bool {
    matches!((state, reason), (DomainState::Paused, 2 | 12 | 13) | (DomainState::Running, 10 | 11))
}
