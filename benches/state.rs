//! What the state costs: memory for each consumer, the pause of taking a snapshot, the snapshot file
//! and its way back, and how long a command waits while one is being written.
//!
//! 10,000 hosts and 500,000 consumers; `--full` for 100,000 and 5,000,000. The state is built as a
//! server builds it, from reports and claims through `Core::apply`. A process of its own reads the
//! file back, as a restart does, and tells what it takes: nothing else has been in its memory.

#[path = "support/estate.rs"]
mod estate;

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command as Process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use raft::Backup;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use scheduler::{Batch, Command, Core, Frozen, HostReport, Proposer};
use serde_json::{Value, json};

use self::estate::{apply, claim, with_instances};

/// The program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ON_EACH: usize = 50;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--restore") {
        return restore(Path::new(&arguments[at + 1]));
    }
    let hosts = if arguments.iter().any(|argument| argument == "--full") { 100_000 } else { 10_000 };
    let mut random = SmallRng::seed_from_u64(42);
    let began = Instant::now();
    let (mut core, reports) = estate::build(hosts, ON_EACH, &mut random);
    let consumers = core.state().tables().counters().consumers;
    let built = began.elapsed();
    bench("built", hosts, json!({ "consumers": consumers, "seconds": built.as_secs_f64() }));
    checksums(&mut core, hosts, &mut random);
    let file = std::env::temp_dir().join(format!("pallium-bench-{}.backup", std::process::id()));
    encode(&mut core, hosts, &file, &reports, &mut random);
    let restored = Process::new(std::env::current_exe().expect("this program")).arg("--restore").arg(&file).status();
    let _ = fs::remove_file(&file);
    assert!(restored.expect("it starts").success(), "the file is read back");
}

fn bench(case: &str, hosts: usize, figures: Value) {
    let mut line = json!({ "bench": "state", "case": case, "hosts": hosts });
    let Value::Object(figures) = figures else { return };
    line.as_object_mut().expect("an object").extend(figures);
    println!("BENCH {line}");
}

/// Asking for the checksum: first, again, and after a thousand commands.
fn checksums(core: &mut Core, hosts: usize, random: &mut SmallRng) {
    let timed = |core: &Core| {
        let began = Instant::now();
        black_box(core.state().checksum());
        began.elapsed().as_secs_f64() * 1000.0
    };
    let (first, again) = (timed(core), timed(core));
    for number in 0..16 {
        let commands = (0..64).map(|more| claim(core, number * 64 + more, hosts, random)).collect();
        apply(core, commands);
    }
    let after = timed(core);
    bench("checksum", hosts, json!({ "unit": "ms", "first": first, "again": again, "after_1024": after }));
}

/// Takes a snapshot, writes it on another thread, and applies reports and claims meanwhile.
fn encode(core: &mut Core, hosts: usize, file: &Path, reports: &[HostReport], random: &mut SmallRng) {
    let pauses: Vec<(Duration, Frozen)> = (0..20)
        .map(|_| {
            let began = Instant::now();
            let frozen = core.freeze();
            (began.elapsed(), frozen)
        })
        .collect();
    let longest = pauses.iter().map(|(pause, _)| *pause).max().unwrap_or_default();
    drop(pauses);
    let frozen = core.freeze();
    let alone = Instant::now();
    write(&frozen, file);
    let alone = alone.elapsed();
    drop(frozen);
    let frozen = core.freeze();
    let done = AtomicBool::new(false);
    let (busy, mut times) = thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let began = Instant::now();
            write(&frozen, file);
            done.store(true, Ordering::Relaxed);
            began.elapsed()
        });
        let mut times = Vec::new();
        let mut number = 0;
        while !done.load(Ordering::Relaxed) {
            let command = if number % 8 == 0 {
                let report = with_instances(&reports[random.random_range(0..hosts)], ON_EACH, random);
                Command::Report(Box::new(report))
            } else {
                claim(core, random.random_range(0..hosts), hosts, random)
            };
            number += 1;
            let commands = vec![command];
            let batch = Batch { proposer: Proposer::default(), now: core.state().now() + 1, wall: 1, commands };
            let began = Instant::now();
            black_box(core.apply(&batch));
            times.push(began.elapsed());
        }
        (writing.join().expect("written"), times)
    });
    times.sort_unstable();
    let micros = |at: usize| times[at].as_secs_f64() * 1e6;
    bench("freeze", hosts, json!({ "unit": "µs", "max": longest.as_secs_f64() * 1e6 }));
    bench(
        "encode to a synced file",
        hosts,
        json!({
            "seconds": alone.as_secs_f64(), "seconds_with_applies": busy.as_secs_f64(),
            "mib": fs::metadata(file).expect("written").len() as f64 / f64::from(1 << 20),
        }),
    );
    bench(
        "one apply meanwhile",
        hosts,
        json!({
            "unit": "µs", "count": times.len(),
            "p50": micros(times.len() / 2), "p99": micros(times.len() * 99 / 100), "max": micros(times.len() - 1),
        }),
    );
}

fn write(frozen: &Frozen, file: &Path) {
    let mut out = BufWriter::new(File::create(file).expect("a file"));
    Backup::of(frozen.clone()).write(&mut out, |_| ()).expect("written");
    out.flush().expect("written");
    out.get_ref().sync_all().expect("synced");
}

/// Reads the file as a restart does.
fn restore(file: &Path) {
    let before = resident();
    let began = Instant::now();
    let (summary, core) = raft::backup::load(file).expect("a whole file");
    let took = began.elapsed();
    let bytes = resident() - before;
    bench(
        "restore",
        summary.hosts as usize,
        json!({
            "consumers": summary.consumers, "seconds": took.as_secs_f64(), "resident_mib": bytes / f64::from(1 << 20),
            "bytes_each": bytes / summary.consumers as f64,
        }),
    );
    black_box(core);
}

/// Bytes of this process that are in memory.
fn resident() -> f64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()).unwrap_or(0.0) * 4096.0
}
