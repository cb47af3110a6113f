//! The steps of `test`: each runs commands, writes all they say to a log of its own, and counts.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::cache::Cache;
use crate::cargo::{self, cargo, targets};
use crate::{agent, chaos, failover, fuzz, hands, licences, masakari, nova, packages, simulate};

/// Test targets whose names begin so are other steps'.
const SPECIAL: [&str; 7] = ["faults", "chaos", "shared", "nova", "libvirt", "hands", "worlds"];
/// Lines of a failed step's log that are printed.
const TAIL: usize = 60;
/// Lines of failing tests that are printed.
const FAILURES: usize = 300;

/// A step of `test`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Step {
    /// rustfmt agrees
    Fmt,
    /// Clippy has no remark
    Clippy,
    /// Unit, property and front-door tests, and the examples in doc comments
    Test,
    /// Test targets named faults*: they kill processes, fill disks and cut links, one at a time
    Faults,
    /// Test targets named chaos*: a real cluster under faults, and its checker
    Chaos,
    /// Test targets named shared*: they read what lies in ../shared
    Shared,
    /// Stock Nova's filters and weighers against the real Nova
    Nova,
    /// The host agent against the real libvirtd, with guests under QEMU without KVM
    Agent,
    /// Failover's hands against a Redfish emulator and an IPMI simulator
    Hands,
    /// Masakari's API against its real client and monitors
    Masakari,
    /// Whole clusters under a few seeds, and faults that they must notice
    Simulate,
    /// Random worlds of failover under seeds, and faults that they must notice
    Failover,
    /// What strangers send, for a minute each
    Fuzz,
    /// Licences, bans and sources of the dependencies
    Deny,
    /// The alerts fire when they should, and only then
    Alerts,
}

/// Checks that passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub passed: u64,
    pub failed: u64,
}

impl Count {
    /// One check.
    pub fn one(passed: bool) -> Self {
        Self { passed: u64::from(passed), failed: u64::from(!passed) }
    }

    /// Adds more checks.
    pub fn add(&mut self, more: Self) {
        self.passed += more.passed;
        self.failed += more.failed;
    }
}

/// What became of a step.
pub enum Verdict {
    /// It ran.
    Ran(Count),
    /// It did not run, for this reason.
    Skipped(&'static str),
}

/// The log of a step.
pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// An empty log of this name.
    pub fn create(cache: &Cache, name: &str) -> Result<Self> {
        let path = cache.folder("logs")?.join(format!("{name}.log"));
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path, file })
    }

    /// Runs a command whose output goes to the log; false when it failed.
    pub fn run(&self, command: &mut Command) -> Result<bool> {
        command.stdin(Stdio::null()).stdout(self.file.try_clone()?).stderr(self.file.try_clone()?);
        cargo::succeeds(command)
    }

    /// All that it says.
    pub fn text(&self) -> String {
        fs::read(&self.path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

impl Step {
    /// What CI runs, the quickest to fail first.
    pub const ALL: [Self; 15] = [
        Self::Fmt,
        Self::Deny,
        Self::Alerts,
        Self::Clippy,
        Self::Test,
        Self::Faults,
        Self::Chaos,
        Self::Shared,
        Self::Nova,
        Self::Agent,
        Self::Hands,
        Self::Masakari,
        Self::Simulate,
        Self::Failover,
        Self::Fuzz,
    ];
    /// What a developer runs before each commit.
    pub const QUICK: [Self; 3] = [Self::Fmt, Self::Clippy, Self::Test];

    fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Clippy => "clippy",
            Self::Test => "test",
            Self::Faults => "faults",
            Self::Chaos => "chaos",
            Self::Shared => "shared",
            Self::Nova => "nova",
            Self::Agent => "agent",
            Self::Hands => "hands",
            Self::Masakari => "masakari",
            Self::Simulate => "simulate",
            Self::Failover => "failover",
            Self::Fuzz => "fuzz",
            Self::Deny => "deny",
            Self::Alerts => "alerts",
        }
    }

    fn run(self, cache: &Cache, log: &Log, seconds: u32) -> Result<Verdict> {
        let one = |arguments: &[&str]| Ok(Verdict::Ran(Count::one(log.run(&mut cargo(cache, arguments)?)?)));
        match self {
            Self::Fmt => one(&["fmt", "--all", "--", "--check"]),
            Self::Clippy => one(&["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-Dwarnings"]),
            Self::Test => plain_tests(cache, log),
            Self::Faults => special_tests(cache, log, "faults", &["--test-threads=1"]),
            Self::Chaos => {
                chaos::prepare();
                special_tests(cache, log, "chaos", &["--test-threads=1", "--nocapture"])
            }
            Self::Shared if !cargo::root()?.join("../shared").is_dir() => {
                Ok(Verdict::Skipped("there is no folder ../shared"))
            }
            Self::Shared => special_tests(cache, log, "shared", &[]),
            Self::Nova => nova::step(cache, log),
            Self::Agent => agent::step(cache, log),
            Self::Hands => hands::step(cache, log),
            Self::Masakari => masakari::step(cache, log),
            Self::Simulate => simulate::step(cache, log),
            Self::Failover => failover::step(cache, log),
            Self::Fuzz => fuzz::step(cache, log, seconds, &[]),
            Self::Deny => licences::step(cache, log),
            Self::Alerts => {
                let Some(promtool) = packages::unpacked(cache, "promtool", "prometheus")? else {
                    return Ok(Verdict::Skipped("promtool is not there, and Debian's package could not be fetched"));
                };
                let tests = cargo::root()?.join("deploy/prometheus/alerts-test.yaml");
                let mut test = Command::new(promtool);
                Ok(Verdict::Ran(Count::one(log.run(test.args(["test", "rules"]).arg(tests))?)))
            }
        }
    }
}

/// Every test but the special ones.
fn plain_tests(cache: &Cache, log: &Log) -> Result<Verdict> {
    let targets = targets(cache, "test")?;
    let mut command = cargo(cache, &["test", "--workspace", "--locked", "--no-fail-fast", "--lib", "--bins"])?;
    let special = |name: &str| SPECIAL.iter().any(|prefix| name.starts_with(prefix));
    for target in targets.iter().filter(|name| !special(name)) {
        command.args(["--test", target]);
    }
    let tests = log.run(&mut command)?;
    let examples = log.run(&mut cargo(cache, &["test", "--workspace", "--locked", "--no-fail-fast", "--doc"])?)?;
    Ok(Verdict::Ran(counted(&log.text(), tests && examples)))
}

/// The test targets whose names start with `prefix`.
fn special_tests(cache: &Cache, log: &Log, prefix: &'static str, arguments: &[&str]) -> Result<Verdict> {
    if !targets(cache, "test")?.iter().any(|name| name.starts_with(prefix)) {
        return Ok(Verdict::Skipped("no test target has a name that starts so"));
    }
    let pattern = format!("{prefix}*");
    let mut command = cargo(cache, &["test", "--workspace", "--locked", "--no-fail-fast", "--test", &pattern])?;
    command.arg("--").args(arguments).env("PALLIUM_SHARED", cargo::root()?.join("../shared"));
    let passed = log.run(&mut command)?;
    Ok(Verdict::Ran(counted(&log.text(), passed)))
}

/// Tests counted from the runners' closing lines. A failure that no line counts (it did not compile,
/// it was killed) counts as one.
pub fn counted(log: &str, passed: bool) -> Count {
    let mut count = Count::default();
    for line in log.lines().filter_map(|line| line.strip_prefix("test result: ")) {
        let number = |what: &str| {
            let before = line.split(what).next()?;
            before.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
        };
        count.add(Count { passed: number(" passed").unwrap_or(0), failed: number(" failed").unwrap_or(0) });
    }
    if !passed && count.failed == 0 {
        count.failed = 1;
    }
    count
}

/// What of a failed step's log is worth printing: what the failing tests said, else what follows the
/// first error, else the end.
fn excerpt(log: &str) -> Vec<&str> {
    let mut inside = false;
    let failures: Vec<&str> = log
        .lines()
        .filter(|line| {
            inside |= *line == "failures:";
            let wanted = inside;
            inside &= !line.starts_with("test result:");
            wanted
        })
        .take(FAILURES)
        .collect();
    if !failures.is_empty() {
        return failures;
    }
    let lines: Vec<&str> = log.lines().collect();
    let error = lines.iter().position(|line| line.starts_with("error"));
    let from = error.unwrap_or(lines.len().saturating_sub(TAIL));
    lines.into_iter().skip(from).take(TAIL).collect()
}

/// Runs `steps`; false when one failed.
pub fn check(cache: &Cache, steps: &[Step], seconds: u32) -> Result<bool> {
    cache.bound()?;
    let start = Instant::now();
    let mut results = Vec::with_capacity(steps.len());
    for &step in steps {
        println!("{} …", step.name());
        let began = Instant::now();
        let log = Log::create(cache, step.name())?;
        // A step that cannot even start has failed; the others still run.
        let verdict = step.run(cache, &log, seconds).unwrap_or_else(|error| {
            println!("  {error:#}");
            Verdict::Ran(Count { passed: 0, failed: 1 })
        });
        match &verdict {
            Verdict::Skipped(why) => println!("  skipped: {why}"),
            Verdict::Ran(count) if count.failed == 0 => println!("  ok in {}", words(began.elapsed())),
            Verdict::Ran(_) => println!("  FAILED in {}, log: {}", words(began.elapsed()), log.path.display()),
        }
        results.push((step, verdict, log));
    }

    for (step, _, log) in results.iter().filter(|(_, verdict, _)| matches!(verdict, Verdict::Ran(c) if c.failed > 0)) {
        println!("\n── {} failed: {}", step.name(), log.path.display());
        let text = log.text();
        for line in excerpt(&text) {
            println!("{line}");
        }
    }

    println!("\n{} steps in {}", results.len(), words(start.elapsed()));
    let mut total = Count::default();
    let mut skipped = 0;
    for (step, verdict, _) in &results {
        match verdict {
            Verdict::Ran(count) => {
                total.add(*count);
                println!("{}: {} passed, {} failed", step.name(), count.passed, count.failed);
            }
            Verdict::Skipped(_) => {
                skipped += 1;
                println!("{}: 0 passed, 0 failed, 1 skipped", step.name());
            }
        }
    }
    println!("total: {} passed, {} failed, {skipped} skipped", total.passed, total.failed);
    Ok(total.failed == 0)
}

/// Runs a cargo command that changes files.
pub fn fix(cache: &Cache, arguments: &[&str]) -> Result<bool> {
    cargo::succeeds(&mut cargo(cache, arguments)?)
}

/// A duration for people.
pub fn words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 {
        return format!("{:.1} s", duration.as_secs_f64());
    }
    format!("{} min {} s", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::{Count, counted, excerpt};

    const LOG: &str = "\
running 2 tests
test a ... ok
test b ... FAILED

failures:

---- b stdout ----
assertion failed

failures:
    b

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s

     Running tests/door.rs
test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    #[test]
    fn closing_lines_are_summed() {
        assert_eq!(counted(LOG, false), Count { passed: 13, failed: 1 });
        assert_eq!(counted("error: could not compile", false), Count { passed: 0, failed: 1 });
        assert_eq!(counted("", true), Count::default());
    }

    #[test]
    fn a_failure_is_shown_without_what_passed() {
        let lines = excerpt(LOG);
        assert_eq!(lines.first(), Some(&"failures:"));
        assert!(lines.contains(&"assertion failed") && !lines.contains(&"test a ... ok"), "{lines:?}");
        assert!(lines.last().is_some_and(|line| line.starts_with("test result: FAILED")), "{lines:?}");
        assert_eq!(excerpt("Checking a\nerror[E0308]: types\n  --> a.rs"), ["error[E0308]: types", "  --> a.rs"]);
        let long: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        assert_eq!(excerpt(&long.join("\n")).first(), Some(&"40"));
    }
}
