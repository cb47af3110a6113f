//! `simulate`: recorded requests, played into the same core that serves live ones. Without a server.

mod compare;
mod failures;
mod folder;
mod policies;
mod progress;
mod recording;
mod tables;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;
use scheduler::Domain;
use serde_json::Value;
use simulation::trace::lifetimes::Knowledge;
use simulation::trace::policy::{Policy, USUAL};
use simulation::trace::rebalance::{Objective, Rebalance};
use simulation::trace::record::{self, Record};
use simulation::trace::report::{Outcome, report};
use simulation::trace::run::{Done, Point, summary};
use simulation::trace::seeds::spread;
use simulation::trace::sheet::Sheet;
use simulation::trace::{HostList, Inputs, Mode, Ratios, Study, Trace};

use super::Failure;
use super::output::{complain, print};
use folder::Folder;
use policies::{Lifetimes, policies};
use progress::Progress;

/// Moments at which lower bounds are evaluated for a replay.
const MOMENTS: u64 = 60;

const EXAMPLES: &str = "\
Examples:
  pallium simulate --trace events.csv.gz --hosts nodes.csv
  pallium simulate --trace events.csv.gz --hosts nodes.csv --mode min-hosts \\
    --policy best-fit --policy first-fit --policy my-pipeline.yaml
  pallium simulate --trace events.csv.gz --hosts nodes.csv --hosts-count 1160 \\
    --mode replay,survive --out study
  pallium simulate --trace events.csv.gz --hosts nodes.csv --mode min-hosts \\
    --migrations 1%
  pallium simulate --trace events.csv.gz --hosts nodes.csv --mtbf 365d \\
    --mttr 4h --domain-share 10%
  pallium simulate --trace events.csv.gz --hosts nodes.csv --migrations 1% \\
    --rebalance consolidate
  pallium simulate --trace events.csv.gz --hosts state.backup
  pallium simulate --recording recording
  pallium simulate --shapes shapes.csv.gz --hosts nodes.csv --mode inflate \\
    --policy fgd
  pallium simulate --trace events.csv.gz --hosts nodes.csv --mode min-hosts \\
    --until 50% --policy nova-packing \\
    --policy nova-packing:slot_prices.smooth=0:slot_prices.power=1
  pallium simulate --compare study-before study-after --out difference

A policy is a pipeline: a file, one that ships with pallium, or one of the
references random, first-fit, best-fit, worst-fit, dot-product, l2-norm,
ram-cpu-spread, kvm-binpack, fgd, lifetime-oracle, lifetime-learned. Options of
its steps may follow, as :STEP.OPTION=VALUE; a list has | between its items.
With --out a study that broke off goes on where it stood. Formats and figures:
docs/simulation.md.";

/// Play a recorded trace against policies, offline
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Creates and deletes (CSV, plain, gzip or zstd)
    #[arg(long, value_name = "FILE", required_unless_present_any = ["shapes", "recording", "compare"], conflicts_with = "shapes")]
    trace: Option<PathBuf>,
    /// Shapes of VMs, for --mode inflate (CSV)
    #[arg(long, value_name = "FILE")]
    shapes: Option<PathBuf>,
    /// Hosts (CSV), or what is free on those of a backup of `pallium ctl backup`
    #[arg(long, value_name = "FILE", required_unless_present_any = ["recording", "compare"])]
    hosts: Option<PathBuf>,
    /// Decide again what `pallium ctl decisions export` recorded, and compare
    #[arg(long, value_name = "FOLDER", exclusive = true)]
    recording: Option<PathBuf>,
    /// Put the results of two studies, folders of --out, side by side
    #[arg(long, value_names = ["FOLDER", "FOLDER"], num_args = 2, conflicts_with_all = ["trace", "shapes", "hosts"])]
    compare: Vec<PathBuf>,
    /// Take the first N hosts; beyond the end of the file it begins anew [default: all]
    #[arg(long, value_name = "N")]
    hosts_count: Option<usize>,
    /// What to do [default: replay; with --shapes: inflate]
    #[arg(long = "mode", value_name = "MODE", value_enum, value_delimiter = ',')]
    modes: Vec<ModeName>,
    /// A pipeline file, or the name of a shipped pipeline or of a reference policy; as often as you like
    #[arg(long = "policy", value_name = "NAME|FILE", value_delimiter = ',')]
    policies: Vec<String>,
    /// Who tells a pipeline with the weigher lifetime_alignment how long VMs live
    #[arg(long, value_name = "SOURCE", value_enum, default_value_t)]
    lifetimes: Lifetimes,
    /// Begin at this part of the trace's time: 20%. What lives then is created first
    #[arg(long, value_name = "SHARE", value_parser = share, default_value = "0%")]
    from: f64,
    /// Play up to this part of the trace's time: 50%
    #[arg(long, value_name = "SHARE", value_parser = share, default_value = "100%")]
    until: f64,
    /// Seed of every random choice
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
    /// Run under so many seeds, this one and the next; figures get a mean and a deviation
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Share of the trace's time that averages leave out
    #[arg(long, value_name = "SHARE", default_value_t = 0.25)]
    warm_up: f64,
    /// vCPU for each CPU thread
    #[arg(long, value_name = "RATIO", default_value_t = 1.0)]
    cpu_ratio: f64,
    /// Memory for each physical memory
    #[arg(long, value_name = "RATIO", default_value_t = 1.0)]
    memory_ratio: f64,
    /// Starts of first-failure
    #[arg(long, value_name = "K", default_value_t = 10)]
    starts: usize,
    /// Demand over capacity up to which inflate goes
    #[arg(long, value_name = "FACTOR", default_value_t = 1.3)]
    factor: f64,
    /// Hours between snapshots of survive
    #[arg(long, value_name = "HOURS", default_value_t = 6.0)]
    snapshot_hours: f64,
    /// Seconds between points of the series
    #[arg(long, value_name = "S", default_value_t = 300)]
    series_seconds: u64,
    /// Play the trace so many times at once
    #[arg(long, value_name = "COPIES", default_value_t = 1)]
    scale: u32,
    /// VMs that may be moved on a day, as a share of those alive when it begins: 1%
    #[arg(long, value_name = "SHARE", value_parser = share, default_value = "0")]
    migrations: f64,
    #[command(flatten)]
    failures: failures::Failing,
    /// Rebalance in periods, with what --migrations allows
    #[arg(long, value_name = "OBJECTIVE", value_enum, conflicts_with = "shapes")]
    rebalance: Option<ObjectiveName>,
    /// Hours from one rebalancing to the next
    #[arg(long, value_name = "HOURS", default_value_t = 24.0)]
    rebalance_hours: f64,
    /// Check all invariants of the core after every event
    #[arg(long)]
    check: bool,
    /// Runs at a time [default: one for each processor]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Folder for result.json, report.html, timing.json, and series and summary as CSV and Parquet
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Write each decision and move of a replay as well
    #[arg(long, requires = "out")]
    decisions: bool,
    /// Print result.json instead of tables
    #[arg(long)]
    json: bool,
}

/// Modes by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModeName {
    /// All events; creates without a host are dropped
    Replay,
    /// Up to the first create without a host, from several starts
    FirstFailure,
    /// The least number of hosts without a rejection
    MinHosts,
    /// Shapes in a drawn order until the hosts are full and beyond
    Inflate,
    /// Which losses of hosts would not come back
    Survive,
}

/// Objectives by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ObjectiveName {
    /// Empty hosts with the fewest moves
    Consolidate,
    /// Move from fuller to emptier hosts
    Balance,
}

impl Args {
    fn rebalance(&self) -> Result<Option<Rebalance>, Failure> {
        let Some(name) = self.rebalance else { return Ok(None) };
        if self.migrations <= 0.0 {
            return Err(Failure::Usage(
                "--rebalance: no move is allowed, a budget expected with it, as --migrations 1%".to_owned(),
            ));
        }
        let hours = self.rebalance_hours;
        if !(0.1..=10_000.0).contains(&hours) {
            return Err(Failure::Usage(format!("--rebalance-hours: {hours} given, 0.1 to 10000 expected")));
        }
        let objective = match name {
            ObjectiveName::Consolidate => Objective::Consolidate,
            ObjectiveName::Balance => Objective::Balance,
        };
        Ok(Some(Rebalance { objective, every: (hours * 3_600_000.0) as u64 }))
    }

    fn mode(&self, name: ModeName) -> Result<Mode, Failure> {
        let above = |flag: &str, value: f64, most: f64| {
            if value.is_finite() && value > 0.0 && value <= most {
                return Ok(value);
            }
            Err(Failure::Usage(format!("{flag}: {value} given, a number above 0 and at most {most} expected")))
        };
        Ok(match name {
            ModeName::Replay => Mode::Replay,
            ModeName::FirstFailure if !(1..=1000).contains(&self.starts) => {
                return Err(Failure::Usage(format!("--starts: {} given, 1 to 1000 expected", self.starts)));
            }
            ModeName::FirstFailure => Mode::FirstFailure { starts: self.starts },
            ModeName::MinHosts => Mode::MinHosts,
            ModeName::Inflate => Mode::Inflate { factor: above("--factor", self.factor, 10.0)? },
            ModeName::Survive => {
                let hours = above("--snapshot-hours", self.snapshot_hours, 10_000.0)?;
                Mode::Survive { every: (hours * 3_600_000.0) as u64 }
            }
        })
    }

    fn modes(&self) -> Result<Vec<Mode>, Failure> {
        let usual = [if self.shapes.is_some() { ModeName::Inflate } else { ModeName::Replay }];
        let names = if self.modes.is_empty() { &usual[..] } else { &self.modes };
        if self.shapes.is_some() && names != [ModeName::Inflate] {
            return Err(Failure::Usage(
                "--shapes: a list of shapes has no time: only --mode inflate expected with it".into(),
            ));
        }
        names.iter().map(|&name| self.mode(name)).collect()
    }

    /// The study under the first seed.
    fn study(&self) -> Result<Study, Failure> {
        for (flag, value, most) in [
            ("--warm-up", self.warm_up, 0.99),
            ("--cpu-ratio", self.cpu_ratio, 1000.0),
            ("--memory-ratio", self.memory_ratio, 1000.0),
        ] {
            if !(value.is_finite() && (0.0..=most).contains(&value) && (value > 0.0 || flag == "--warm-up")) {
                return Err(Failure::Usage(format!("{flag}: {value} given, a number up to {most} expected")));
            }
        }
        let modes = self.modes()?;
        let bad = |error: simulation::trace::BadInput| Failure::new(error.to_string());
        let trace = match (&self.trace, &self.shapes) {
            (Some(trace), _) => Trace::open(trace).map_err(bad)?,
            (_, Some(shapes)) => Trace::open_shapes(shapes).map_err(bad)?,
            _ => return Err(Failure::Usage("--trace or --shapes expected".to_owned())),
        };
        if !(1..=1000).contains(&self.scale) || trace.vms.len() * self.scale as usize > u32::MAX as usize / 2 {
            return Err(Failure::Usage(format!(
                "--scale: {} given, 1 to 1000 expected, and at most 2 billion VMs in all",
                self.scale
            )));
        }
        let trace = trace.part(self.from, self.until).scaled(self.scale);
        if self.decisions && trace.vms.len() > record::MOST {
            let (given, most) = (trace.vms.len(), record::MOST);
            return Err(Failure::Usage(format!("--decisions: {given} creates given, at most {most} expected")));
        }
        if trace.events.is_empty() || self.from >= self.until {
            return Err(Failure::Usage(
                "--from, --until: nothing happens in this part of the trace, a larger one expected".into(),
            ));
        }
        let hosts = self.hosts.as_deref().unwrap_or(Path::new(""));
        let list = hosts_of(hosts)?;
        let count = self.hosts_count.unwrap_or(list.hosts.len());
        if !(1..=1_000_000).contains(&count) {
            return Err(Failure::Usage(format!("--hosts-count: {count} given, 1 to 1000000 expected")));
        }
        let policies = self.policies_for(&trace, &list, self.seed)?;
        let failures = self.failures.of(&list.first(count))?;
        let inputs = Inputs {
            trace: Arc::new(trace),
            list: Arc::new(list),
            ratios: Ratios { cpu: self.cpu_ratio, memory: self.memory_ratio },
            warm_up: self.warm_up,
            seed: self.seed,
            check: self.check,
            migrations: self.migrations,
            failures,
            rebalance: self.rebalance()?,
        };
        let series = (self.out.is_some() && self.series_seconds > 0).then_some(self.series_seconds * 1000);
        let study = Study { inputs, policies, modes, count, series, decisions: self.decisions };
        study.check().map_err(Failure::new)?;
        Ok(study)
    }
}

impl Args {
    fn policies_for(&self, trace: &Trace, list: &HostList, seed: u64) -> Result<Vec<Arc<Policy>>, Failure> {
        let gpus = list.hosts.iter().any(|host| host.gpus > 0);
        let fractions = trace.shapes.iter().any(|shape| !shape.milli_cpu.is_multiple_of(1000) || shape.gpus > 0);
        let domain = if gpus || fractions { Domain::Pods } else { Domain::Nova };
        let usual: Vec<String> = if domain == Domain::Nova {
            USUAL.map(str::to_owned).to_vec()
        } else {
            ["first-fit", "best-fit", "fgd"].map(str::to_owned).to_vec()
        };
        let names = if self.policies.is_empty() { &usual } else { &self.policies };
        let policies = names.iter().map(|name| policies(name, domain, gpus, seed, self.lifetimes));
        Ok(policies.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().map(Arc::new).collect())
    }

    /// A study under another seed.
    fn under(&self, study: &Study, seed: u64) -> Result<Study, Failure> {
        let policies = self.policies_for(&study.inputs.trace, &study.inputs.list, seed)?;
        let inputs = Inputs { seed, ..study.inputs.clone() };
        let (modes, count, series) = (study.modes.clone(), study.count, study.series);
        Ok(Study { inputs, policies, modes, count, series, decisions: false })
    }
}

/// A share, as 1% or 0.01.
fn share(text: &str) -> Result<f64, String> {
    let (number, parts) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    let share = number.parse::<f64>().map(|number| number / parts).ok();
    share.filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "a share expected, from 0 to 100%".to_owned())
}

/// Hosts from a table, or from a backup.
fn hosts_of(path: &Path) -> Result<HostList, Failure> {
    let mut begin = Vec::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(raft::backup::MAGIC.len() as u64).read_to_end(&mut begin));
    if read.is_ok() && begin == raft::backup::MAGIC {
        let (summary, core) = raft::backup::load(path).map_err(|error| Failure::new(error.to_string()))?;
        return HostList::of_state(core.state().tables(), Domain::Nova, &summary.checksum)
            .map_err(|why| Failure::new(format!("{}: {why}", path.display())));
    }
    HostList::open(path).map_err(|error| Failure::new(error.to_string()))
}

pub fn run(args: &Args) -> Result<(), Failure> {
    if let Some(folder) = &args.recording {
        return recording::run(folder);
    }
    if let [before, after] = &args.compare[..] {
        return compare::run(before, after, args.out.as_deref(), args.json);
    }
    let study = args.study()?;
    for policy in study.policies.iter().filter(|policy| policy.asks_lifetimes()) {
        if policy.lifetimes == Knowledge::None {
            complain(&format!(
                "note: {} weighs lifetimes and is told none; --lifetimes learned or oracle tells it some",
                policy.name
            ));
        }
    }
    let folder = args.out.as_deref().map(Folder::open).transpose()?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(args.threads.unwrap_or(0)).build();
    let pool = pool.map_err(|error| Failure::new(format!("no threads: {error}")))?;
    let limits = pool.install(|| study.limits(MOMENTS));
    let progress = Progress::new(&study, args.seeds);
    let run = |study: &Study| -> Result<(Value, Vec<Done>), Failure> {
        // The first seed is not named, so that a study of one can be made one of several.
        let seed = if study.inputs.seed == args.seed { String::new() } else { format!(".seed{}", study.inputs.seed) };
        let name = |point: Point<'_>| format!("{}{seed}", point.name());
        let done = pool.install(|| {
            study.run(
                &limits,
                |point| {
                    let again = study.decisions && point.mode == Mode::Replay;
                    folder.as_ref().filter(|_| !again).and_then(|folder| folder.kept(&name(point)))
                },
                |point, done| {
                    let Some(folder) = &folder else { return Ok(()) };
                    for (table, sheet) in done.record.take().into_iter().flat_map(Record::sheets) {
                        let file = name(point).replacen(point.mode.name(), table, 1);
                        write_sheet(folder, &file, &sheet).map_err(|failure| failure.to_string())?;
                    }
                    folder.keep(&name(point), done)
                },
                |point| progress.of(name(point)),
            )
        });
        let done = done.map_err(Failure::new)?;
        Ok((study.result(&limits, &done), done))
    };
    let (mut result, done) = run(&study)?;
    if args.seeds > 1 {
        let mut results = vec![result.clone()];
        for more in 1..args.seeds {
            let study = args.under(&study, args.seed.wrapping_add(more))?;
            results.push(run(&study)?.0);
        }
        result["seeds"] = spread(&results);
    }
    let timing = progress.finish();
    let text = serde_json::to_string_pretty(&result).map_err(|error| Failure::new(error.to_string()))?;
    let told = tables::tables(&result);
    if let Some(folder) = &folder {
        folder.write("result.json", format!("{text}\n").as_bytes())?;
        write_sheet(folder, "series", &study.series(&done))?;
        write_sheet(folder, "summary", &summary(&result))?;
        folder.write("report.html", report(&[Outcome::of(&study, result, &done)]).as_bytes())?;
        folder.write("timing.json", format!("{:#}\n", timing.json()).as_bytes())?;
    }
    if args.json {
        print(&text);
    } else {
        print(&told);
        if let Some(folder) = &folder {
            complain(&format!("written to {}", folder.path().display()));
        }
        complain(&timing.told());
    }
    Ok(())
}

/// Writes a table as CSV and as Parquet.
fn write_sheet(folder: &Folder, name: &str, sheet: &Sheet) -> Result<(), Failure> {
    folder.write(&format!("{name}.csv"), sheet.csv().as_bytes())?;
    #[cfg(feature = "parquet")]
    folder.write(&format!("{name}.parquet"), &sheet.parquet().map_err(Failure::new)?)?;
    Ok(())
}
