//! Whole clusters in one thread, under a seed: what happens is drawn from the seed, takes no real
//! time, and can be repeated exactly.
//!
//! The code that runs is the program's: owner, log, store, openraft, door, routing and membership. Only
//! the [wire](net), the [disk under the log](crate::wal::faulty) and the clocks are others. One process
//! simulates one seed, built with `--cfg tokio_unstable`: only then does tokio draw from the seed too.
//! Snapshot files are real files. Compiled with the feature `simulation` only.

mod clients;
mod history;
mod host;
mod nemesis;
mod net;
mod random;
pub mod runtime;
mod trace;
mod truth;
mod world;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use scheduler::mutant;
pub use scheduler::mutant::Mutant;
use tokio::runtime::Builder;

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// Simulated time.
    pub length: Duration,
    /// A promise that is broken on purpose.
    pub mutant: Option<Mutant>,
    /// Print every event to standard error.
    pub print: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Promises that were broken, in words.
    pub broken: Vec<String>,
    /// Simulated time.
    pub simulated: Duration,
    /// Hash of all that happened.
    pub hash: u64,
    /// Events, letters between nodes among them.
    pub events: u64,
    /// Letters between nodes.
    pub letters: u64,
    /// Leaders.
    pub terms: usize,
    /// The last events in words.
    pub last: Vec<String>,
}

/// Whether equal seeds give equal traces in this build.
pub const EXACT: bool = cfg!(tokio_unstable);

static BEAT: AtomicU64 = AtomicU64::new(0);
static PANICS: AtomicU64 = AtomicU64::new(0);

/// Simulated seconds so far, for who watches from another thread.
pub fn beat() -> u64 {
    BEAT.load(Ordering::Relaxed)
}

/// Simulates a cluster. Once in a process.
pub fn simulate(options: &Options) -> io::Result<Outcome> {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        told(panic);
    }));
    if let Some(mutant) = options.mutant {
        mutant::choose(mutant);
    }
    // Snapshots and identities are synced: in memory that costs nothing.
    let memory = std::path::Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = parent.join(format!("pallium-simulation-{}", std::process::id()));
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&options.seed.to_le_bytes()));
    let outcome = builder.build()?.block_on(runtime::seeded(options.seed, run(options, folder.clone())));
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(outcome),
    }
}

async fn run(options: &Options, folder: std::path::PathBuf) -> Outcome {
    let world = world::World::new(options.seed, folder, options.print);
    world.tasks.spawn(async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            BEAT.fetch_add(1, Ordering::Relaxed);
        }
    });
    world.live(options.length).await;
    match PANICS.load(Ordering::Relaxed) {
        0 => {}
        panics => world.trace.broken(format_args!("{panics} panics")),
    }
    let (hash, events, letters) = world.trace.sums();
    Outcome {
        broken: world.trace.all_broken(),
        simulated: world.trace.elapsed(),
        hash,
        events,
        letters,
        terms: world.history.terms(),
        last: world.trace.last(),
    }
}
