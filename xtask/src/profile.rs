//! Where the time of a bench goes.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cache::Cache;
use crate::cargo::{self, cargo};
use crate::packages::has;

/// Lines of a report that are printed.
const LINES: usize = 60;

/// Builds `bench`, runs it under perf or callgrind and prints the functions that took longest.
pub fn run(cache: &Cache, bench: &str, arguments: &[String]) -> Result<bool> {
    let program = build(cache, bench)?;
    let folder = cache.folder("profiles")?;
    // perf may be there and still be forbidden, as in many containers.
    let perf = has("perf")
        && cargo::command(cache, "perf")?.args(["record", "-qo", "/dev/null", "true"]).output()?.status.success();
    if perf {
        let data = folder.join(format!("{bench}.perf"));
        let mut record = cargo::command(cache, "perf")?;
        record.args(["record", "--freq=499", "--call-graph=dwarf,16384", "-o"]).arg(&data);
        if !cargo::succeeds(record.arg(program).arg("--bench").args(arguments))? {
            return Ok(false);
        }
        let mut report = cargo::command(cache, "perf")?;
        report
            .args(["report", "--stdio", "--no-children", "--call-graph=none", "--percent-limit=0.5", "-i"])
            .arg(&data);
        print(&cargo::output(&mut report)?);
        println!("\nkept in {0}; callers: perf report -i {0}", data.display());
        return Ok(true);
    }
    if has("valgrind") {
        println!(
            "perf is not there, or not allowed (kernel.perf_event_paranoid): callgrind counts instructions instead"
        );
        let data = folder.join(format!("{bench}.callgrind"));
        let mut valgrind = cargo::command(cache, "valgrind")?;
        valgrind.args(["--tool=callgrind", &format!("--callgrind-out-file={}", data.display())]);
        if !cargo::succeeds(valgrind.arg(program).arg("--bench").args(arguments))? {
            return Ok(false);
        }
        print(&cargo::output(cargo::command(cache, "callgrind_annotate")?.arg(&data))?);
        println!("\nkept in {}", data.display());
        return Ok(true);
    }
    bail!("neither perf nor valgrind is there: on Debian `sudo apt-get install linux-perf` or `… valgrind`")
}

fn build(cache: &Cache, bench: &str) -> Result<PathBuf> {
    let arguments = ["bench", "--workspace", "--no-run", "--message-format=json-render-diagnostics", "--bench", bench];
    let text = cargo::output(&mut cargo(cache, &arguments)?)?;
    let program = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|message| {
        let ours = message["target"]["name"] == bench && message["target"]["kind"][0] == "bench";
        ours.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
    });
    program.with_context(|| format!("cargo built no program for the bench {bench}"))
}

fn print(report: &str) {
    for line in report.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).take(LINES) {
        println!("{}", line.trim_end());
    }
}
