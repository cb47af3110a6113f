//! Simulates one seed in this process and prints one line; `cargo xtask simulate` runs many.
//!
//! Ends with 0 when every promise was kept, 1 when one was broken, 2 when it was called wrongly, 3 when
//! simulated time stands still.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use raft::simulation::{self, EXACT, Mutant, Options};

/// Real time without progress after which the tasks spin.
const STANDSTILL: Duration = Duration::from_mins(2);

const USAGE: &str = "simulate --seed N [--minutes N] [--mutant NAME] [--print]";

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("error: {why}\nusage: {USAGE}");
            return ExitCode::from(2);
        }
    };
    if !EXACT {
        eprintln!("warning: built without --cfg tokio_unstable: equal seeds need not give equal traces");
    }
    std::thread::spawn(move || watch(options.seed));
    let began = Instant::now();
    let outcome = match simulation::simulate(&options) {
        Ok(outcome) => outcome,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let whole = outcome.broken.is_empty();
    if !whole {
        for line in &outcome.last {
            println!("{line}");
        }
        for broken in &outcome.broken {
            println!("BROKEN {broken}");
        }
    }
    println!(
        "seed {} {} minutes {:.2} seconds {:.1} events {} letters {} leaders {} hash {:016x}",
        options.seed,
        if whole { "ok" } else { "FAILED" },
        outcome.simulated.as_secs_f64() / 60.0,
        began.elapsed().as_secs_f64(),
        outcome.events,
        outcome.letters,
        outcome.terms,
        outcome.hash
    );
    ExitCode::from(u8::from(!whole))
}

/// Ends the process when simulated time does not go on.
fn watch(seed: u64) {
    let mut last = (simulation::beat(), Instant::now());
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let now = simulation::beat();
        if now != last.0 {
            last = (now, Instant::now());
        } else if last.1.elapsed() > STANDSTILL {
            println!("seed {seed} FAILED: simulated time stands still after {now} s: a task spins");
            std::process::exit(3);
        }
    }
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { seed: 0, length: Duration::from_mins(5), mutant: None, print: false };
    let mut seeded = false;
    while let Some(name) = arguments.next() {
        if name == "--print" {
            options.print = true;
            continue;
        }
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{name}: {value} given, a number expected"));
        match name.as_str() {
            "--seed" => (options.seed, seeded) = (number()?, true),
            "--minutes" => options.length = Duration::from_mins(number()?),
            "--mutant" => {
                let known = Mutant::ALL.map(Mutant::name).join(", ");
                let mutant = Mutant::named(&value).ok_or_else(|| format!("--mutant: {value} given, one of {known}"))?;
                options.mutant = Some(mutant);
            }
            _ => return Err(format!("{name} is not known")),
        }
    }
    if seeded { Ok(options) } else { Err("--seed is missing".to_owned()) }
}
