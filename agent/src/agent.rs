//! The agent at work on this host: ties [`Core`] to the clock, libvirt, the disk, the permit check and the
//! watchdog. A transport asks it for a [`Session`] and carries what comes out; it may come and go.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, sleep};
use uuid::Uuid;

use crate::core::{Core, Effect, Facts, Mark, Vitals};
use crate::hook::{self, Hook};
use crate::host::{self, Compute, Now};
use crate::identity::Identity;
use crate::libvirt::{self, Libvirt, Seen};
use crate::permits::Kept;
use crate::report::{Directive, Envelope, Goodbye, Uptime};
use crate::{disk, watchdog};

/// Between heartbeats.
const BEAT: Duration = Duration::from_secs(2);
/// Between words of how long the host runs.
const UPTIME: Duration = Duration::from_secs(30);
/// Between looks at what changes seldom.
const LOOK: Duration = Duration::from_mins(1);
/// Between looks for nova-compute.
const COMPUTE: Duration = Duration::from_secs(5);
/// A Hello waits so long at most for libvirt and the hook.
const SETTLE: Duration = Duration::from_secs(10);
/// A Goodbye waits so long at most for somebody to take it.
const FAREWELL: Duration = Duration::from_secs(2);
/// Envelopes that a transport has in hand.
const IN_HAND: usize = 1;
/// Commands and news that wait.
const WAITING: usize = 256;

/// How an agent runs. The host id is the one of its credential.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The host.
    pub host: Uuid,
    /// Nova's name of the host (`[DEFAULT] host` of nova.conf).
    pub nova_host: String,
    /// The cluster that it belongs to. Without it the first that answers; with it this one, whatever was known.
    #[serde(default)]
    pub cluster: Option<Uuid>,
    /// What must outlive a boot.
    #[serde(default = "state")]
    pub state: PathBuf,
    /// What must not.
    #[serde(default = "run")]
    pub run: PathBuf,
    /// libvirt.
    #[serde(default)]
    pub libvirt: Libvirt,
    /// The permit check.
    #[serde(default)]
    pub hook: Hook,
    /// nova-compute.
    #[serde(default)]
    pub nova_compute: Option<Compute>,
    /// The watchdog, `watchdog0`; without it there is none.
    #[serde(default)]
    pub watchdog: Option<String>,
    /// Where `/proc`, `/sys` and `/etc` are.
    #[serde(default = "root")]
    pub root: PathBuf,
}

fn state() -> PathBuf {
    "/var/lib/pallium-agent".into()
}

fn run() -> PathBuf {
    "/run/pallium".into()
}

fn root() -> PathBuf {
    "/".into()
}

/// Why an agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Its disk.
    #[error(transparent)]
    Disk(#[from] disk::Failure),
    /// Its socket.
    #[error("cannot listen for the libvirt hook at {path}: {error}; is another agent running?")]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Its thread.
    #[error("cannot start the thread that feeds the watchdog: {0}")]
    Thread(std::io::Error),
}

/// A lease that outlives the agent, for one that starts anew in time.
#[derive(Debug, Default, Serialize, Deserialize)]
struct KeptLease {
    boot: Uuid,
    until_ns: u64,
    armed: bool,
    /// It was opened, and not stopped since: armed or not, it runs.
    #[serde(default)]
    opened: bool,
}

enum Command {
    /// A session of this number begins.
    Connect(u64, mpsc::Sender<Envelope>),
    /// In that session.
    Told(u64, Directive),
    Leave(Goodbye, u32),
}

/// An agent at work. Dropped, it ends without a word; guests and watchdog stay as they are.
pub struct Agent {
    commands: mpsc::Sender<Command>,
    sessions: AtomicU64,
    work: JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.work.abort();
    }
}

/// One session with a server: what is to be sent, in order, from the Hello on. Dropped, it ends.
pub struct Session {
    reports: mpsc::Receiver<Envelope>,
    teller: Teller,
}

impl Session {
    /// The next envelope: send it at once, its number and time are of now. `None`: the agent has ended, or
    /// another session has begun.
    pub async fn next(&mut self) -> Option<Envelope> {
        self.reports.recv().await
    }

    /// What a server said in this session.
    pub async fn told(&self, directive: Directive) {
        self.teller.told(directive).await;
    }

    /// The other half of a session, for a task that reads while this one sends.
    pub fn teller(&self) -> Teller {
        self.teller.clone()
    }
}

/// Hands on what a server says.
#[derive(Clone)]
pub struct Teller {
    session: u64,
    commands: mpsc::Sender<Command>,
}

impl Teller {
    /// What a server said in the session that this is of.
    pub async fn told(&self, directive: Directive) {
        // The agent has ended: nobody is there to be told.
        let _ = self.commands.send(Command::Told(self.session, directive)).await;
    }
}

impl Agent {
    /// Starts on this host. The permit check is closed from here on, unless permits of this boot were kept.
    pub fn start(settings: Settings) -> Result<Self, Failure> {
        let mut identity = Identity::of_this_host(settings.host, &settings.root, &settings.state)?;
        if let Some(cluster) = settings.cluster.filter(|cluster| identity.memory.cluster != Some(*cluster)) {
            tracing::warn!(%cluster, former = ?identity.memory.cluster, "this agent belongs to another cluster from now on");
            identity.memory.cluster = Some(cluster);
            identity.keep()?;
        }
        disk::folder(&settings.run)?;
        let kept = read_or_none::<Kept>(&settings.state.join("permits.json"));
        let lease = read_or_none::<KeptLease>(&settings.run.join("lease.json"));
        let lease = lease.filter(|lease| lease.boot == identity.boot).unwrap_or_default();
        let core = Core::new(identity, facts(&settings, false), kept, lease.until_ns, Now::read());
        let path = &settings.hook.socket;
        let listener = hook::listen(path).map_err(|error| Failure::Socket { path: path.clone(), error })?;
        let dog = Dog::start(&settings, &lease)?;

        let (commands, commanded) = mpsc::channel(WAITING);
        let work = Work {
            settings: Arc::new(settings),
            core,
            commands: commanded,
            session: None,
            opened: dog.opened(),
            dog,
            asks: Arc::new(Notify::new()),
            writes: JoinSet::new(),
            stops: JoinSet::new(),
            unwritten: false,
        };
        Ok(Self { commands, sessions: AtomicU64::new(1), work: tokio::spawn(work.run(listener)) })
    }

    /// Begins a session; a former one ends.
    pub async fn session(&self) -> Session {
        let (sender, reports) = mpsc::channel(IN_HAND);
        let session = self.sessions.fetch_add(1, Ordering::Relaxed);
        let _ = self.commands.send(Command::Connect(session, sender)).await;
        Session { reports, teller: Teller { session, commands: self.commands.clone() } }
    }

    /// Says Goodbye, if somebody listens, and ends. Guests and watchdog stay as they are.
    pub async fn leave(mut self, reason: Goodbye, expected_down_s: u32) {
        let _ = self.commands.send(Command::Leave(reason, expected_down_s)).await;
        let _ = (&mut self.work).await;
    }
}

fn read_or_none<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    disk::read(path, "it is left aside: a server says it anew").unwrap_or_else(|error| {
        tracing::warn!("{error}");
        None
    })
}

fn facts(settings: &Settings, permit_check: bool) -> Facts {
    let device = settings.watchdog.as_deref();
    Facts {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: host::kernel(),
        nova_host: settings.nova_host.clone(),
        watchdog: device.map(|device| watchdog::facts(&settings.root, device)).unwrap_or_default(),
        permit_check,
        resumes_by: host::resumes(&settings.root),
    }
}

/// The thread that feeds, where there is a watchdog.
struct Dog {
    thread: Option<watchdog::Thread>,
    /// It was told to arm.
    wanted: bool,
}

impl Dog {
    fn start(settings: &Settings, lease: &KeptLease) -> Result<Self, Failure> {
        let Some(device) = &settings.watchdog else { return Ok(Self { thread: None, wanted: false }) };
        let path = watchdog::path(device);
        let nowayout = watchdog::facts(&settings.root, device).nowayout;
        let shared = Arc::new(watchdog::Shared::new(lease.until_ns, lease.opened));
        let open = Box::new(move || watchdog::Kernel::open(&path));
        let thread = watchdog::Thread::start(open, nowayout, lease.armed, shared).map_err(Failure::Thread)?;
        Ok(Self { thread: Some(thread), wanted: lease.armed })
    }

    fn alive(&self, now: u64) {
        if let Some(thread) = &self.thread {
            thread.shared.alive_ns.store(now, Ordering::Release);
        }
    }

    fn lease(&self, until_ns: u64) {
        if let Some(thread) = &self.thread {
            thread.shared.until_ns.store(until_ns, Ordering::Release);
        }
    }

    fn arm(&mut self, on: bool) {
        if let Some(thread) = &self.thread {
            self.wanted = on;
            thread.arm(on);
        }
    }

    fn opened(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| thread.shared.opened())
    }

    fn state(&self) -> (bool, bool) {
        self.thread.as_ref().map_or((false, false), |thread| (thread.shared.armed(), thread.shared.fed()))
    }
}

struct Work {
    settings: Arc<Settings>,
    core: Core,
    commands: mpsc::Receiver<Command>,
    session: Option<(u64, mpsc::Sender<Envelope>)>,
    dog: Dog,
    /// As it was written down last: the device was opened.
    opened: bool,
    asks: Arc<Notify>,
    /// The write of permits that is under way: one at a time.
    writes: JoinSet<Option<Mark>>,
    /// Guests that are being stopped: the core lets it be one set at a time.
    stops: JoinSet<(Mark, Result<(), String>)>,
    /// Permits have changed since it began.
    unwritten: bool,
}

impl Work {
    async fn run(mut self, listener: tokio::net::UnixListener) {
        let (seen, mut news) = mpsc::channel(WAITING);
        let (looked, mut looks) = mpsc::channel(1);
        let (computed, compute_runs) = watch::channel(None);
        // They end with this task: a set aborts what is in it when it is dropped.
        let mut tasks = JoinSet::new();
        tasks.spawn(hook::serve(listener, Arc::clone(self.core.gate())));
        let (mut libvirt, asks) = (self.settings.libvirt.clone(), Arc::clone(&self.asks));
        libvirt.shared_paths.extend(host::shared_mounts(&self.settings.root));
        tasks.spawn(async move { libvirt::watch(libvirt, host::boot_ns, seen, &asks).await });
        tasks.spawn(look(Arc::clone(&self.settings), Arc::clone(self.core.gate()), looked));
        tasks.spawn(compute(Arc::clone(&self.settings), computed));

        let every = |period| {
            let mut interval = interval(period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        };
        let (mut beat, mut uptime) = (every(BEAT), every(UPTIME));
        let (mut reached, mut checked, mut settled) = (false, false, false);
        let mut settle = std::pin::pin!(sleep(SETTLE));
        let mut farewell = std::pin::pin!(sleep(Duration::MAX));
        let mut leaving = false;
        loop {
            self.dog.alive(host::boot_ns());
            if leaving && !(self.session.is_some() && self.core.has_next()) {
                break;
            }
            let sender = self.session.as_ref().map(|(_, sender)| sender.clone()).filter(|_| self.core.has_next());
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(Command::Connect(session, sender)) => {
                        self.session = Some((session, sender));
                        self.core.connect();
                    }
                    // What a former session still says is numbered otherwise.
                    Some(Command::Told(session, directive)) => if self.session.as_ref().is_some_and(|(now, _)| *now == session) {
                        self.told(directive);
                    },
                    Some(Command::Leave(reason, seconds)) => {
                        self.core.leave(reason, seconds);
                        leaving = true;
                        farewell.as_mut().reset(tokio::time::Instant::now() + FAREWELL);
                    }
                    None => break,
                },
                () = &mut farewell, if leaving => break,
                _ = beat.tick() => self.beat(*compute_runs.borrow()),
                room = reserve(sender.as_ref()), if sender.is_some() => match room {
                    Some(room) => if let Some(envelope) = self.core.next(Now::read()) { room.send(envelope) },
                    None => self.disconnect(),
                },
                () = closed(self.session.as_ref().map(|(_, sender)| sender)), if self.session.is_some() => self.disconnect(),
                Some(Ok(done)) = self.stops.join_next() => self.stopped(done),
                Some(written) = self.writes.join_next() => self.wrote(written.ok().flatten()),
                Some(seen) = news.recv() => {
                    reached |= matches!(seen, Seen::Whole(..));
                    self.core.see(seen, Now::read());
                }
                Some(facts) = looks.recv() => {
                    checked = true;
                    self.core.know(facts);
                }
                _ = uptime.tick() => self.uptime(),
                () = &mut settle, if !settled => (reached, checked) = (true, true),
            }
            if reached && checked && !settled {
                settled = true;
                self.core.settle();
            }
        }
        // What was told and is not on the disk yet.
        while self.writes.join_next().await.is_some() {}
    }

    fn disconnect(&mut self) {
        self.session = None;
        self.core.disconnect();
    }

    fn beat(&mut self, nova_compute_ok: Option<bool>) {
        let root = &self.settings.root;
        let (armed, fed) = self.dog.state();
        let (load1, pressure) = (host::load1(root), host::pressure(root));
        self.core.beat(Vitals { load1, pressure, nova_compute_ok, armed, fed });
        if self.opened != self.dog.opened() {
            self.keep_lease();
        }
        if self.unwritten {
            self.write();
        }
    }

    fn uptime(&mut self) {
        let now = Now::read();
        let boot_wall_ms = now.wall_ms.saturating_sub(now.boot_ns / 1_000_000);
        self.core.uptime(Uptime { boot_ns: now.boot_ns, boot_wall_ms, suspended_ns: host::suspended_ns() });
    }

    fn told(&mut self, directive: Directive) {
        for effect in self.core.told(directive, Now::read()) {
            match effect {
                Effect::KeepIdentity => {
                    // Once in a boot. It matters only for the next one.
                    if let Err(error) = self.core.identity().keep() {
                        tracing::error!("{error}: after its next boot this host goes into quarantine");
                    }
                }
                Effect::KeepPermits => self.write(),
                Effect::KeepLease => {
                    self.dog.lease(self.core.lease_until_ns());
                    self.keep_lease();
                }
                Effect::Arm(on) => {
                    self.dog.arm(on);
                    self.keep_lease();
                }
                Effect::Snapshot => self.asks.notify_one(),
                Effect::Stop(guests, mark) => {
                    let settings = Arc::clone(&self.settings);
                    self.stops.spawn(async move { (mark, libvirt::stop(&settings.libvirt, &guests).await) });
                }
            }
        }
    }

    fn stopped(&mut self, (mark, done): (Mark, Result<(), String>)) {
        if let Err(why) = &done {
            tracing::error!(why, "guests that may not run here were not stopped");
        }
        self.core.stopped(mark, done);
        // What is left is told at once.
        self.asks.notify_one();
    }

    /// Into memory, not onto a disk: it is worth nothing after this boot.
    fn keep_lease(&mut self) {
        self.opened = self.dog.opened();
        let armed = self.dog.wanted;
        let (boot, until_ns) = (self.core.identity().boot, self.core.lease_until_ns());
        let lease = KeptLease { boot, until_ns, armed, opened: self.opened };
        if self.settings.watchdog.is_some()
            && let Err(error) = disk::write(&self.settings.run.join("lease.json"), &lease)
        {
            tracing::warn!("{error}: should this agent end now, its watchdog goes unfed until a new lease");
        }
    }

    fn write(&mut self) {
        if !self.writes.is_empty() {
            self.unwritten = true;
            return;
        }
        self.unwritten = false;
        let (kept, mark) = self.core.permits();
        let path = self.settings.state.join("permits.json");
        self.writes.spawn(async move {
            spawn_blocking(move || write_permits(&path, kept.as_ref()).then_some(mark)).await.ok().flatten()
        });
    }

    fn wrote(&mut self, mark: Option<Mark>) {
        match mark {
            Some(mark) => {
                self.core.kept(mark);
                if self.unwritten {
                    self.write();
                }
            }
            // Tried again with the next heartbeat; until then it is not acknowledged.
            None => self.unwritten = true,
        }
    }
}

/// What cannot be written is removed: after a new start of the agent nothing may count that was withdrawn.
fn write_permits(path: &Path, kept: Option<&Kept>) -> bool {
    let Some(kept) = kept else { return true };
    let Err(error) = disk::write(path, kept) else { return true };
    tracing::error!("{error}: permits are not kept");
    if let Err(error) = std::fs::remove_file(path) {
        tracing::error!(%error, "nor can the former ones be removed");
    }
    false
}

async fn reserve(sender: Option<&mpsc::Sender<Envelope>>) -> Option<mpsc::Permit<'_, Envelope>> {
    sender?.reserve().await.ok()
}

async fn closed(sender: Option<&mpsc::Sender<Envelope>>) {
    if let Some(sender) = sender {
        sender.closed().await;
    }
}

/// Looks at what changes seldom, now and each minute.
async fn look(settings: Arc<Settings>, gate: Arc<std::sync::Mutex<crate::permits::Gate>>, looked: mpsc::Sender<Facts>) {
    let mut every = interval(LOOK);
    loop {
        every.tick().await;
        let permit_check = hook::reaches(&settings.hook, &gate).await;
        let here = Arc::clone(&settings);
        let Ok(facts) = spawn_blocking(move || facts(&here, permit_check)).await else { continue };
        if looked.send(facts).await.is_err() {
            return;
        }
    }
}

/// Looks for nova-compute every few seconds.
async fn compute(settings: Arc<Settings>, computed: watch::Sender<Option<bool>>) {
    let Some(how) = settings.nova_compute.clone() else { return };
    let mut every = interval(COMPUTE);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !computed.is_closed() {
        every.tick().await;
        let (how, root) = (how.clone(), settings.root.clone());
        let runs = spawn_blocking(move || how.runs(&root)).await.unwrap_or(None);
        computed.send_replace(runs);
    }
}
