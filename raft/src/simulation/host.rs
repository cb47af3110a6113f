//! One simulated host: a disk, a clock, a folder, and the node that runs on it, if it runs.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::ServerState;
use scheduler::settings::ClaimExpiry;
use scheduler::{Batch, Core, Levels};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::history::{Durable, History, Promised};
use super::net::SimulatedLink;
use super::random::Random;
use super::runtime::Tasks;
use super::truth::LIFE;
use super::world::World;
use crate::clock::Wall;
use crate::identity::Identity;
use crate::node::{Begin, Node, Options, Stage};
use crate::owner::Limits;
use crate::wal::faulty::Disk;
use crate::wal::{self, AtRest, Wal, Watch};

/// Time from which on a leader must know that a host does not run the new version any more.
const LATELY: Duration = Duration::from_secs(20);

/// How a host goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process ends; what it wrote is there.
    Killed,
    /// Of what was written and not synced any sectors may be lost.
    PowerLost,
    /// The same, and a bit of the log turns over.
    Rotten,
}

/// A host.
pub struct Host {
    /// Its number, and its node's.
    pub id: u64,
    founder: bool,
    disk: Disk,
    folder: PathBuf,
    clock: Arc<AtomicI64>,
    /// A sync takes up to so many milliseconds.
    slowest: Arc<AtomicU64>,
    promised: Promised,
    state: Mutex<State>,
}

struct State {
    random: Random,
    /// Counts its starts.
    life: u64,
    tasks: Tasks,
    running: Running,
    program: Levels,
    /// When it was last seen to run the new version.
    new_at: Option<Instant>,
}

enum Running {
    Down {
        rotten: bool,
    },
    Starting,
    Up(Node),
    /// It cannot be started any more, and that is right.
    Lost,
}

impl Host {
    /// A new host, down. The founder begins the cluster, others wait to be added.
    pub fn new(world: &World, id: u64, founder: bool) -> Host {
        let state = State {
            random: Random::new(world.seed, 1000 + id),
            life: 0,
            tasks: Tasks::default(),
            running: Running::Down { rotten: false },
            program: Levels::PROGRAM,
            new_at: None,
        };
        Host {
            id,
            founder,
            disk: Disk::default(),
            folder: world.folder.join(id.to_string()),
            clock: Arc::default(),
            slowest: Arc::new(AtomicU64::new(3)),
            promised: Promised::default(),
            state: Mutex::new(state),
        }
    }

    fn get(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its node, while it runs.
    pub fn node(&self) -> Option<Node> {
        match &self.get().running {
            Running::Up(node) => Some(node.clone()),
            _ => None,
        }
    }

    /// Whether it runs the version before the newest, or is about to.
    pub fn is_old(&self) -> bool {
        let state = self.get();
        matches!(state.running, Running::Up(_) | Running::Starting) && state.program != Levels::PROGRAM
    }

    /// Whether it has stopped for the feature level that the cluster reached. That may be only when it
    /// ran the new version a moment ago, and the leader counted on it.
    pub fn is_outdated(&self, world: &World) -> bool {
        let state = self.get();
        let Running::Up(node) = &state.running else { return false };
        if !node.status().fatal.is_some_and(|fatal| fatal.contains("feature level")) {
            return false;
        }
        if state.new_at.is_none_or(|at| at.elapsed() > LATELY) {
            world.trace.broken(format_args!("the level was raised although host {} did not support it", self.id));
        }
        true
    }

    /// What runs on it now.
    pub fn tasks(&self) -> Tasks {
        self.get().tasks.clone()
    }

    /// Whether its disk was damaged so that it may not come back.
    pub fn is_lost(&self) -> bool {
        matches!(self.get().running, Running::Lost | Running::Down { rotten: true })
    }

    /// Sets the wall clock forward or back, milliseconds.
    pub fn set_clock(&self, step: i64) {
        self.clock.fetch_add(step, Ordering::Relaxed);
    }

    /// From now on a sync takes up to so many milliseconds.
    pub fn slow_disk(&self, most: u64) {
        self.slowest.store(most, Ordering::Relaxed);
    }

    /// Notes whether it leads.
    pub fn watch(&self, node: &Node, history: &History) {
        if !self.is_old() {
            self.get().new_at = Some(Instant::now());
        }
        let metrics = node.local().metrics();
        if metrics.state == ServerState::Leader {
            history.leads(metrics.vote, self.id, self.get().life);
        }
    }

    /// How it is doing, for a message.
    pub fn describe(&self, node: &Node) -> String {
        let status = node.status();
        format!(
            "host {}: term {}, leader {:?}, last {:?}, committed {:?}, applied {:?}, ready {}, fatal {:?}",
            self.id,
            status.term,
            status.leader,
            status.last,
            status.committed,
            status.applied,
            status.ready,
            status.fatal
        )
    }

    /// Crashes it, if it runs.
    pub fn crash(&self, world: &World, how: Crash) {
        let mut state = self.get();
        if !matches!(state.running, Running::Up(_) | Running::Starting) {
            return;
        }
        world.trace.event(format_args!("host {} crashes: {how:?}", self.id));
        world.net.leave(self.id);
        state.tasks.abort();
        let State { random, .. } = &mut *state;
        if how != Crash::Killed {
            let kept = random.below(1001);
            self.disk.crash(|_| random.per_mille(kept));
        }
        let rotten = how == Crash::Rotten && self.disk.rot(|end| random.below(end as u64) as usize);
        state.running = Running::Down { rotten };
    }

    /// Starts it, if it is down.
    pub async fn start(&self, world: &World) {
        // The guard must be gone before the world looks at this host too.
        let next = self.get().life + 1;
        let program = world.program(self.id, next, reached(&self.folder));
        let (tasks, life, rotten) = {
            let mut state = self.get();
            let Running::Down { rotten } = state.running else { return };
            state.life += 1;
            state.tasks = Tasks::default();
            state.running = Running::Starting;
            state.program = program;
            world.trace.event(format_args!("host {} starts with {program}", self.id));
            (state.tasks.clone(), state.life, rotten)
        };
        let opened = tasks.spawn(open(self.opening(world, &tasks, life))).await;
        // The folder has another name in each process, and a seed replays to the letter.
        let opened = opened.map(|opened| opened.map_err(|why| why.replace(&*self.folder.to_string_lossy(), "folder")));
        let mut state = self.get();
        if state.life != life || !matches!(state.running, Running::Starting) {
            return;
        }
        state.running = match opened {
            Ok(Ok(node)) => {
                world.trace.event(format_args!("host {} is up, start {life}", self.id));
                Running::Up(node)
            }
            Ok(Err(why)) if state.program != Levels::PROGRAM && why.contains("feature level") => {
                world.trace.event(format_args!("host {} refuses to start: {why}", self.id));
                world.net.leave(self.id);
                tasks.abort();
                Running::Down { rotten }
            }
            Ok(Err(why)) if rotten => {
                world.trace.event(format_args!("host {} refuses to start: {why}", self.id));
                world.net.leave(self.id);
                tasks.abort();
                Running::Lost
            }
            Ok(Err(why)) => {
                world.trace.broken(format_args!("host {} does not start although its disk is whole: {why}", self.id));
                Running::Lost
            }
            Err(error) => {
                world.trace.broken(format_args!("host {} does not start: {error}", self.id));
                Running::Lost
            }
        };
    }

    fn opening(&self, world: &World, tasks: &Tasks, life: u64) -> Opening {
        Opening {
            world: world.clone(),
            id: self.id,
            life,
            founder: self.founder,
            levels: self.get().program,
            disk: self.disk.clone(),
            folder: self.folder.clone(),
            tasks: tasks.clone(),
            clock: Arc::clone(&self.clock),
            syncs: Syncs {
                promised: self.promised.clone(),
                slowest: Arc::clone(&self.slowest),
                random: Mutex::new(Random::new(world.seed, self.id << 32 | life)),
            },
        }
    }
}

/// What a start needs.
struct Opening {
    world: World,
    id: u64,
    life: u64,
    founder: bool,
    levels: Levels,
    disk: Disk,
    folder: PathBuf,
    tasks: Tasks,
    clock: Arc<AtomicI64>,
    syncs: Syncs,
}

/// What a node does not start for.
fn refused(error: &impl fmt::Display) -> String {
    error.to_string()
}

async fn open(opening: Opening) -> Result<Node, String> {
    let Opening { world, id, life, founder, levels, disk, folder, tasks, clock, syncs } = opening;
    identify(&world, id, founder, &folder).map_err(|error| refused(&error))?;
    let mut options = Options::new(&folder, id);
    options.begin = if founder { Begin::Alone } else { Begin::Wait };
    options.limits = Limits { batch_bytes: 8 << 10, ..Limits::default() };
    options.levels = levels;
    options.snapshot_entries = 300;
    options.kept_entries = 100;
    options.snapshot_rate = 0;
    options.wal = wal::Options {
        segment_bytes: 64 << 10,
        ready_segments: 1,
        first_segment_bytes: 16 << 10,
        tail_bytes: 16 << 10,
        batch_bytes: 16 << 10,
        accept_loss_from: None,
    };
    let AtRest { wal, writer, .. } = Wal::at_rest(&disk.files(), &options.wal).map_err(|error| refused(&error))?;
    syncs.promised.check(id, &wal, &world.trace);
    tasks.spawn(writer.drive(syncs));
    let mut engine = crate::fixture::engine();
    engine.settings.claim_expiry = ClaimExpiry { create: LIFE.as_secs(), ..ClaimExpiry::default() };
    let (net, seat) = (world.net.clone(), tasks.clone());
    let (history, mut applied) = (world.history.clone(), None);
    let trace = world.trace.clone();
    let stage = Stage {
        link: Arc::new(SimulatedLink { from: id, net: net.clone(), tasks: tasks.clone() }),
        listens: Box::new(move |door| net.join(id, door, seat)),
        run: Random::new(world.seed, id << 32 | life).next(),
        wall: Wall::new(move || {
            let since = trace.elapsed().as_millis() as i64;
            (1_700_000_000_000 + since + clock.load(Ordering::Relaxed)) as u64
        }),
        watch: Box::new(move |core: &Core, batch: Option<&Batch>| {
            let after = core.state().tables().counters().commands;
            let before = applied.unwrap_or(after - batch.map_or(0, |batch| batch.commands.len() as u64));
            applied = Some(history.applied(id, before, core, batch));
        }),
    };
    Node::simulated(&options, engine, Arc::new(wal), stage).await.map_err(|error| refused(&error))
}

/// The feature level that a folder has seen.
fn reached(folder: &std::path::Path) -> u8 {
    let text = std::fs::read(folder.join("identity")).unwrap_or_default();
    serde_json::from_slice::<Identity>(&text).map_or(0, |identity| identity.level)
}

/// Writes the identity of a new folder, which would be drawn at random otherwise.
fn identify(world: &World, id: u64, founder: bool, folder: &std::path::Path) -> std::io::Result<()> {
    if folder.join("identity").exists() {
        return Ok(());
    }
    std::fs::create_dir_all(folder)?;
    let identity = Identity {
        version: crate::identity::VERSION,
        cluster: if founder { world.cluster } else { Uuid::nil() },
        node: id,
        store: Uuid::from_u128(0x5704E << 64 | u128::from(id)),
        level: 0,
    };
    std::fs::write(folder.join("identity"), serde_json::to_vec_pretty(&identity)?)
}

/// The syncs of a disk: how long they take, and what they promise.
struct Syncs {
    promised: Promised,
    slowest: Arc<AtomicU64>,
    random: Mutex<Random>,
}

impl Watch for Syncs {
    fn writes(&self, truncated: Option<u64>) {
        if let Some(from) = truncated {
            self.promised.may_end_at(from);
        }
    }

    async fn syncs(&self) {
        let took = {
            let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
            random.millis(0, self.slowest.load(Ordering::Relaxed))
        };
        if took > Duration::ZERO {
            sleep(took).await;
        }
    }

    fn durable(&self, vote: Option<wal::Vote>, next: u64) {
        self.promised.is(Durable { vote, next });
    }
}
