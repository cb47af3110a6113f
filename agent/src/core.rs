//! The agent without a clock, a socket or a file: what is seen and told goes in, envelopes and [`Effect`]s come
//! out. Everything that waits is bounded: events and results by a number, the rest by having one place each.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use crate::host::Now;
use crate::identity::Identity;
use crate::lease::Lease;
use crate::libvirt::Seen;
use crate::permits::{Gate, Kept};
use crate::report::{
    Body, Directive, DomainEvent, Envelope, Event, Goodbye, Heartbeat, Hello, INSTANCES, Lifecycle, Order, Pressure,
    Uptime, Watchdog,
};
use crate::table::Table;

/// Events that wait; the oldest go first, and a whole snapshot makes up for them.
pub const EVENTS: usize = 1_000;
/// Results of directives that wait, and changes of permits that wait for the disk.
const RESULTS: usize = 256;
/// libvirt is well when its last answer is not older, nanoseconds.
const ANSWERED_NS: u64 = 5_000_000_000;
/// A guest may have asked the former agent: starts are held against questions only after this, nanoseconds.
const SETTLED_NS: u64 = 10_000_000_000;
/// With so many guests that it lost its hold of libvirt is ill, however fast it answers.
const UNMANAGED: usize = 3;
/// Those that a heartbeat names.
const NAMED: usize = 16;
/// What starts guests by itself is named so many times.
const RESUMES: usize = 8;

/// What the host says of itself, and what changes seldom.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The agent's version.
    pub agent_version: String,
    /// The kernel's release.
    pub kernel: String,
    /// Nova's name of the host.
    pub nova_host: String,
    /// The watchdog; whether it is armed comes with the [`Vitals`].
    pub watchdog: Watchdog,
    /// libvirt's hook reaches this agent.
    pub permit_check: bool,
    /// What starts guests by itself, but for autostart.
    pub resumes_by: Vec<String>,
}

/// What changes all the time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Vitals {
    /// Load of one minute.
    pub load1: f32,
    /// Pressure.
    pub pressure: Pressure,
    /// nova-compute runs.
    pub nova_compute_ok: Option<bool>,
    /// The watchdog is armed.
    pub armed: bool,
    /// It is fed.
    pub fed: bool,
}

/// What is to be done outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write the identity before anything more is taken in.
    KeepIdentity,
    /// Write the permits, then say [`Core::kept`].
    KeepPermits,
    /// Write down until when the lease holds.
    KeepLease,
    /// Arm the watchdog, or disarm it.
    Arm(bool),
    /// Ask libvirt for a whole list.
    Snapshot,
    /// Stop these guests, then say [`Core::stopped`].
    Stop(BTreeSet<Uuid>, Mark),
}

#[derive(Debug, Default)]
struct Libvirt {
    version: Option<String>,
    hypervisor: Option<String>,
    answered_ns: Option<u64>,
    rtt_ms: u32,
    active: u32,
}

/// A session with a server.
#[derive(Debug, Default)]
struct Session {
    greeted: bool,
    /// The highest directive that came.
    last: u64,
    /// Directives whose permits are not on the disk yet, the first first.
    unkept: VecDeque<u64>,
    /// What became of directives, not said yet.
    results: VecDeque<(u64, Option<String>)>,
}

impl Session {
    fn acknowledged(&self) -> u64 {
        self.unkept.front().map_or(self.last, |first| first - 1)
    }

    fn result(&mut self, directive: u64, refused: Option<String>) {
        if self.results.len() == RESULTS {
            self.results.pop_front();
        }
        self.results.push_back((directive, refused));
    }
}

/// Up to where permits were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    session: u64,
    directive: u64,
}

/// The agent's state.
#[derive(Debug)]
pub struct Core {
    identity: Identity,
    facts: Facts,
    vitals: Vitals,
    started_ns: u64,
    settled: bool,
    gate: Arc<Mutex<Gate>>,
    lease: Lease,
    libvirt: Libvirt,
    table: Table,
    unasked: u32,
    /// Guests that libvirt has lost its hold of.
    unmanaged: BTreeSet<Uuid>,
    seq: u64,
    sessions: u64,
    session: Option<Session>,
    hello: Option<Hello>,
    goodbye: Option<(Goodbye, u32)>,
    uptime: Option<Uptime>,
    heartbeat: bool,
    events: VecDeque<DomainEvent>,
    dropped: u64,
}

impl Core {
    /// An agent that starts now. `kept` and `lease_until_ns` are what a former one of this boot left.
    pub fn new(identity: Identity, facts: Facts, kept: Option<Kept>, lease_until_ns: u64, now: Now) -> Self {
        let gate = Gate::new(identity.boot, identity.memory.cluster, kept);
        Self {
            identity,
            facts,
            vitals: Vitals::default(),
            started_ns: now.boot_ns,
            settled: false,
            gate: Arc::new(Mutex::new(gate)),
            lease: Lease::until(lease_until_ns),
            libvirt: Libvirt::default(),
            table: Table::default(),
            unasked: 0,
            unmanaged: BTreeSet::new(),
            seq: 0,
            sessions: 0,
            session: None,
            hello: None,
            goodbye: None,
            uptime: None,
            heartbeat: false,
            events: VecDeque::new(),
            dropped: 0,
        }
    }

    /// The permit check, which is answered elsewhere too.
    pub fn gate(&self) -> &Arc<Mutex<Gate>> {
        &self.gate
    }

    fn locked(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who this is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The permits, as they are to be kept, and what to say to [`Self::kept`] when they are.
    pub fn permits(&self) -> (Option<Kept>, Mark) {
        let directive = self.session.as_ref().map_or(0, |session| session.last);
        (self.locked().kept().cloned(), Mark { session: self.sessions, directive })
    }

    /// When the lease ends.
    pub fn lease_until_ns(&self) -> u64 {
        self.lease.until_ns()
    }

    /// Facts are known as well as they will be: a Hello may be said. Later changes are said with another one.
    pub fn settle(&mut self) {
        self.settled = true;
    }

    /// Facts have changed.
    pub fn know(&mut self, facts: Facts) {
        self.facts = facts;
    }

    /// A session begins: a Hello, then a whole snapshot.
    pub fn connect(&mut self) {
        self.sessions += 1;
        self.session = Some(Session::default());
        self.hello = None;
        self.table.say_all();
        self.heartbeat = true;
    }

    /// It has ended. Events wait for the next one; results are of this one's numbers, and go with it.
    pub fn disconnect(&mut self) {
        self.session = None;
    }

    /// It is time for a heartbeat. One that was not handed out yet is replaced.
    pub fn beat(&mut self, vitals: Vitals) {
        self.vitals = vitals;
        self.heartbeat = true;
    }

    /// It is time to say how long the host runs.
    pub fn uptime(&mut self, uptime: Uptime) {
        self.uptime = Some(uptime);
    }

    /// The agent leaves on purpose.
    pub fn leave(&mut self, reason: Goodbye, expected_down_s: u32) {
        self.goodbye = Some((reason, expected_down_s));
    }

    /// Something was seen of libvirt.
    pub fn see(&mut self, seen: Seen, now: Now) {
        match seen {
            Seen::Reached { version, hypervisor } => {
                self.libvirt.version = Some(version);
                self.libvirt.hypervisor = Some(hypervisor);
                // A libvirtd that starts takes hold of all of them anew.
                self.unmanaged.clear();
                self.libvirt.answered_ns = Some(now.boot_ns);
            }
            Seen::Answered { rtt_ms, active } => {
                self.libvirt.answered_ns = Some(now.boot_ns);
                (self.libvirt.rtt_ms, self.libvirt.active) = (rtt_ms, active);
            }
            Seen::Lost(_) => {
                self.libvirt.answered_ns = None;
                self.heartbeat = true;
            }
            Seen::Whole(asked, instances) => {
                self.libvirt.answered_ns = Some(now.boot_ns);
                self.unmanaged.retain(|known| instances.iter().any(|instance| instance.uuid == *known));
                self.table.replace(asked, instances);
            }
            Seen::One(asked, uuid, instance) => {
                self.libvirt.answered_ns = Some(now.boot_ns);
                self.table.set(asked, uuid, instance.map(|instance| *instance));
            }
            Seen::Happened(event) => self.happened(event, now),
            Seen::Dropped(events) => {
                self.dropped += events;
                self.table.say_all();
            }
        }
    }

    fn happened(&mut self, event: DomainEvent, now: Now) {
        // Booted, migrated here, restored, from a snapshot: each asks first. Woken up and recovered do not.
        if let Event::Lifecycle { event: Lifecycle::Started, detail: 0..=3 } = event.event {
            let asked = self.locked().started(event.instance);
            let fresh = now.boot_ns.saturating_sub(self.started_ns) < SETTLED_NS;
            if !asked && !fresh && self.facts.permit_check {
                self.unasked = self.unasked.saturating_add(1);
                tracing::error!(
                    instance = %event.instance, name = event.name,
                    "libvirt started a guest without asking this agent: its hook is not in force (restart libvirtd after a hook was installed)"
                );
            }
        }
        match event.event {
            Event::ControlError if self.unmanaged.len() < EVENTS => {
                self.heartbeat |= self.unmanaged.insert(event.instance);
            }
            // It ended, or is another process.
            Event::Lifecycle { event: Lifecycle::Started | Lifecycle::Stopped | Lifecycle::Crashed, .. } => {
                self.unmanaged.remove(&event.instance);
            }
            _ => {}
        }
        if self.events.len() == EVENTS {
            self.events.pop_front();
            self.dropped += 1;
            self.table.say_all();
        }
        self.events.push_back(event);
    }

    /// A server says something. Numbers that came in this session are not done twice.
    pub fn told(&mut self, directive: Directive, now: Now) -> Vec<Effect> {
        let Some(session) = &mut self.session else { return Vec::new() };
        if directive.id <= session.last || directive.id == u64::MAX {
            return Vec::new();
        }
        session.last = directive.id;
        let full = session.unkept.len() == RESULTS;
        let kind = std::mem::discriminant(&directive.order);
        let told = !matches!(directive.order, Order::LeaseGrant { .. } | Order::ReportNow);
        let done = if full
            && matches!(
                directive.order,
                Order::Welcome { .. } | Order::Permits { .. } | Order::Quarantine { .. } | Order::Compute { .. }
            ) {
            Err(format!("{RESULTS} changes wait for the disk: say it again later"))
        } else {
            self.obey(directive.cluster, directive.order, now)
        };
        let Some(session) = &mut self.session else { return Vec::new() };
        match done {
            Ok(effects) if effects.iter().any(|effect| matches!(effect, Effect::Stop(..))) => effects,
            // Its result is told, and it is acknowledged, when it is kept; what came after it not before.
            Ok(effects) if effects.contains(&Effect::KeepPermits) => {
                session.unkept.push_back(directive.id);
                effects
            }
            Ok(effects) => {
                if told {
                    session.result(directive.id, None);
                }
                effects
            }
            Err(why) => {
                tracing::error!(directive = directive.id, ?kind, why, "a directive is refused");
                session.result(directive.id, Some(why));
                Vec::new()
            }
        }
    }

    /// The permits up to that mark are on the disk.
    pub fn kept(&mut self, mark: Mark) {
        let Some(session) = self.session.as_mut().filter(|_| mark.session == self.sessions) else { return };
        while let Some(directive) = session.unkept.pop_front_if(|directive| *directive <= mark.directive) {
            session.result(directive, None);
        }
    }

    /// What became of guests that were to be stopped: why some may run still, if they may.
    pub fn stopped(&mut self, mark: Mark, done: Result<(), String>) {
        self.locked().stopped();
        if let Some(session) = self.session.as_mut().filter(|_| mark.session == self.sessions) {
            session.result(mark.directive, done.err());
        }
    }

    fn obey(&mut self, cluster: Uuid, order: Order, now: Now) -> Result<Vec<Effect>, String> {
        match self.identity.memory.cluster {
            Some(ours) if ours != cluster => {
                return Err(format!(
                    "cluster {cluster} speaks, and this agent belongs to {ours}: if the cluster was restored or replaced, \
                     set `cluster: {cluster}` in the agent's configuration and start it anew"
                ));
            }
            None if !matches!(order, Order::Welcome { .. }) => {
                return Err(format!("cluster {cluster} has not answered this agent's Hello yet"));
            }
            _ => {}
        }
        match order {
            Order::Welcome { incarnation, quarantined, holds_compute, permits } => {
                if !self.session.as_ref().is_some_and(|session| session.greeted) {
                    return Err("a Welcome came before the Hello that it answers".to_owned());
                }
                let permits = permits.into_iter().collect();
                let kept = Kept { boot: self.identity.boot, cluster, incarnation, quarantined, permits, holds_compute };
                self.locked().welcome(kept).map_err(|refused| refused.to_string())?;
                let mut effects = vec![Effect::KeepPermits];
                if self.identity.answered(cluster) {
                    effects.insert(0, Effect::KeepIdentity);
                }
                Ok(effects)
            }
            Order::Permits { incarnation, whole, granted, withdrawn } => {
                let changed = self.locked().change(incarnation, whole, &granted, &withdrawn);
                changed.map_err(|refused| refused.to_string())?;
                Ok(vec![Effect::KeepPermits])
            }
            Order::LeaseGrant { lease, for_seq, ttl_ms } => {
                self.lease.granted(lease, for_seq, ttl_ms, now.boot_ns).map_err(|refused| refused.to_string())?;
                Ok(vec![Effect::KeepLease])
            }
            Order::Quarantine { on } => {
                self.locked().quarantine(on);
                Ok(vec![Effect::KeepPermits])
            }
            Order::Compute { on } => {
                self.locked().hold_compute(!on);
                Ok(vec![Effect::KeepPermits])
            }
            Order::Watchdog { on } => {
                if on {
                    crate::watchdog::may_arm("of this host", &self.facts.watchdog)
                        .map_err(|refused| refused.to_string())?;
                }
                Ok(vec![Effect::Arm(on)])
            }
            Order::StopGuests { instances } => {
                if instances.len() > INSTANCES {
                    return Err(format!("{} guests to stop, {INSTANCES} at most expected", instances.len()));
                }
                let mut gate = self.locked();
                if !gate.stopping().is_empty() {
                    return Err("others are being stopped: say it again later".to_owned());
                }
                let guests: BTreeSet<_> = instances.into_iter().collect();
                let stops = gate.stops(guests.clone());
                stops.map_err(|guest| format!("instance {guest} is permitted here: none was stopped"))?;
                drop(gate);
                let directive = self.session.as_ref().map_or(0, |session| session.last);
                Ok(vec![Effect::Stop(guests, Mark { session: self.sessions, directive })])
            }
            Order::ReportNow => {
                self.heartbeat = true;
                self.table.say_all();
                Ok(vec![Effect::Snapshot])
            }
        }
    }

    fn hello(&self) -> Hello {
        let autostarted = self.table.autostarted().map(|name| format!("autostart of {name}"));
        let resumes_by: Vec<String> = self.facts.resumes_by.iter().cloned().chain(autostarted).take(RESUMES).collect();
        Hello {
            agent_version: self.facts.agent_version.clone(),
            kernel: self.facts.kernel.clone(),
            libvirt_version: self.libvirt.version.clone(),
            hypervisor: self.libvirt.hypervisor.clone(),
            nova_host: self.facts.nova_host.clone(),
            previous: self.identity.previous(),
            boots: self.identity.boots(),
            cluster: self.identity.memory.cluster,
            machine_uuid: self.identity.machine.uuid,
            machine_serial: self.identity.machine.serial.clone(),
            permit_check: self.facts.permit_check && self.unasked == 0,
            resumes_guests: !resumes_by.is_empty(),
            resumes_by,
            watchdog: Watchdog { armed: self.vitals.armed, ..self.facts.watchdog },
            quarantined: self.locked().is_quarantined(),
        }
    }

    fn heartbeat(&self, now: Now) -> Heartbeat {
        let answered = self.libvirt.answered_ns;
        let gate = self.locked();
        Heartbeat {
            libvirt_ok: answered.is_some_and(|at| now.boot_ns.saturating_sub(at) < ANSWERED_NS)
                && self.unmanaged.len() < UNMANAGED,
            libvirt_rtt_ms: self.libvirt.rtt_ms,
            nova_compute_ok: self.vitals.nova_compute_ok,
            domains_active: self.libvirt.active,
            unasked_starts: self.unasked,
            waiting: gate.waiting().collect(),
            unmanaged: self.unmanaged.iter().copied().take(NAMED).collect(),
            load1: self.vitals.load1,
            pressure: self.vitals.pressure,
            lease: self.lease.echo(),
            fed: self.vitals.fed,
            quarantined: gate.is_quarantined(),
        }
    }

    /// The Hello that is to be said, if one is: none was in this session, or what it says has changed. That
    /// quarantine ended is the server's own news.
    fn new_hello(&self) -> Option<Hello> {
        if !self.settled || self.session.is_none() {
            return None;
        }
        let mut hello = self.hello();
        if let Some(said) = &self.hello {
            (hello.quarantined, hello.cluster) = (said.quarantined, said.cluster);
        }
        (self.hello.as_ref() != Some(&hello)).then_some(hello)
    }

    /// The next envelope, numbered and dated now: hand it out for sending at once. A session begins with a
    /// Hello; heartbeats come before everything else, then results, then what is on the host, then events.
    pub fn next(&mut self, now: Now) -> Option<Envelope> {
        self.session.as_ref()?;
        let body = self.body(now)?;
        self.seq += 1;
        if matches!(body, Body::Heartbeat(_)) {
            self.lease.sent(self.seq, now.boot_ns);
        }
        Some(Envelope {
            host: self.identity.host,
            boot: self.identity.boot,
            agent_epoch: self.identity.memory.agent_epoch,
            seq: self.seq,
            boot_ns: now.boot_ns,
            wall_ms: now.wall_ms,
            ack_directive: self.session.as_ref().map_or(0, Session::acknowledged),
            body,
        })
    }

    fn body(&mut self, now: Now) -> Option<Body> {
        if let Some(hello) = self.new_hello() {
            self.session.as_mut()?.greeted = true;
            self.hello = Some(hello.clone());
            return Some(Body::Hello(Box::new(hello)));
        }
        if !self.session.as_ref()?.greeted {
            return None;
        }
        if std::mem::take(&mut self.heartbeat) {
            return Some(Body::Heartbeat(self.heartbeat(now)));
        }
        if let Some((directive, refused)) = self.session.as_mut()?.results.pop_front() {
            return Some(Body::DirectiveResult { directive, refused });
        }
        if self.dropped > 0 {
            return Some(Body::EventsDropped { events: std::mem::take(&mut self.dropped) });
        }
        // Events before what changed by them: a server that sees a guest gone knows how it went.
        if let Some(event) = self.events.pop_front() {
            return Some(Body::DomainEvent(event));
        }
        if let Some(instances) = self.table.say() {
            return Some(Body::Instances(instances));
        }
        if let Some(uptime) = self.uptime.take() {
            return Some(Body::Uptime(uptime));
        }
        self.goodbye.take().map(|(reason, expected_down_s)| Body::Goodbye { reason, expected_down_s })
    }

    /// Whether [`Self::next`] has something to hand out.
    pub fn has_next(&self) -> bool {
        let Some(session) = &self.session else { return false };
        self.new_hello().is_some()
            || session.greeted
                && (self.heartbeat
                    || self.dropped > 0
                    || !session.results.is_empty()
                    || !self.events.is_empty()
                    || self.table.is_unsaid()
                    || self.uptime.is_some()
                    || self.goodbye.is_some())
    }
}

#[cfg(test)]
mod tests;
