//! Lives through random worlds of failover: `--seeds N --seed S --minutes M [--kinds K] [--hosts N] [--mutant NAME] [--enough N]
//! [--print]`. A seed that finds something prints what, its last events, and how to see it again; none begins after `--enough`
//! of them did.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use simulation::failover::random::{KINDS, Plan, live, usual};
use simulation::failover::{Flaw, World};

/// Events of a seed that found something.
const EVENTS: usize = 200;
/// How long a seed took is told from so many simulated minutes on.
const LONG: u64 = 360;
/// Hosts that an estate may have.
const HOSTS: std::ops::RangeInclusive<u128> = 3..=200;

struct Asked {
    seed: u64,
    seeds: u64,
    minutes: u64,
    kinds: u8,
    hosts: Option<u128>,
    enough: u64,
    mutant: Option<Flaw>,
    print: bool,
}

fn asked() -> Result<Asked, String> {
    let mut asked = Asked {
        seed: 1,
        seeds: 1,
        minutes: 30,
        kinds: KINDS,
        hosts: None,
        enough: u64::MAX,
        mutant: None,
        print: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || -> Result<u64, String> {
            let given = words.next().ok_or(format!("{word}: nothing given, a number expected"))?;
            given.parse().map_err(|_| format!("{word}: '{given}' given, a number expected"))
        };
        match word.as_str() {
            "--seed" => asked.seed = number()?,
            "--seeds" => asked.seeds = number()?,
            "--minutes" => asked.minutes = number()?,
            "--enough" => asked.enough = number()?,
            "--kinds" => {
                let given = number()?;
                let kinds = u8::try_from(given).ok().filter(|kinds| *kinds <= KINDS);
                asked.kinds = kinds.ok_or_else(|| format!("--kinds: {given} given, {KINDS} at most expected"))?;
            }
            "--hosts" => {
                let given = u128::from(number()?);
                let hosts = Some(given).filter(|hosts| HOSTS.contains(hosts));
                let (least, most) = (HOSTS.start(), HOSTS.end());
                asked.hosts = Some(hosts.ok_or_else(|| format!("--hosts: {given} given, {least} to {most} expected"))?);
            }
            "--print" => asked.print = true,
            "--mutant" => {
                let name = words.next().unwrap_or_default();
                let known = || Flaw::ALL.map(Flaw::name).join(", ");
                let flaw = Flaw::ALL.into_iter().find(|flaw| flaw.name() == name);
                asked.mutant =
                    Some(flaw.ok_or_else(|| format!("--mutant: '{name}' given, one of {} expected", known()))?);
            }
            other => {
                let known = "--seed, --seeds, --minutes, --kinds, --hosts, --mutant, --enough, --print";
                return Err(format!("'{other}': unknown; {known} are known"));
            }
        }
    }
    Ok(asked)
}

fn report(plan: Plan, world: &World) -> String {
    let Plan { seed, minutes, kinds, hosts, flaw } = plan;
    let last = world.log.len().saturating_sub(EVENTS);
    let kinds = if kinds == KINDS { String::new() } else { format!(" --kinds {kinds}") };
    let hosts = if hosts == usual(seed) { String::new() } else { format!(" --hosts {hosts}") };
    let mutant = flaw.map(|flaw| format!(" --mutant {}", flaw.name())).unwrap_or_default();
    let broken: Vec<_> = world.broken.iter().map(|what| format!("BROKEN {what}")).collect();
    format!(
        "{}\n{}\nagain: cargo xtask failover --seed {seed} --minutes {minutes}{kinds}{hosts}{mutant} --print",
        world.log[last..].join("\n"),
        broken.join("\n")
    )
}

fn main() -> ExitCode {
    let asked = match asked() {
        Ok(asked) => asked,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    let (next, failed) = (AtomicU64::new(asked.seed), AtomicU64::new(0));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while failed.load(Ordering::Relaxed) < asked.enough {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= asked.seed + asked.seeds {
                        return;
                    }
                    let hosts = asked.hosts.unwrap_or(usual(seed));
                    let plan = Plan { seed, minutes: asked.minutes, kinds: asked.kinds, hosts, flaw: asked.mutant };
                    let began = Instant::now();
                    let world = live(plan);
                    if asked.minutes >= LONG {
                        let (hosts, minutes) = (world.hosts.len(), world.now / 60_000);
                        let took = began.elapsed().as_secs();
                        println!("seed {seed}: {hosts} hosts for {minutes} min, in {took} s");
                    }
                    if asked.print {
                        println!("{}", world.log.join("\n"));
                    }
                    if !world.broken.is_empty() {
                        failed.fetch_add(1, Ordering::Relaxed);
                        println!("{}", report(plan, &world));
                    }
                }
            });
        }
    });
    let (failed, lived) = (failed.into_inner(), next.into_inner().min(asked.seed + asked.seeds) - asked.seed);
    println!("{lived} seeds of {} min: {failed} broke an invariant", asked.minutes);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
