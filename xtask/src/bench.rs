//! Running benches and making one table of what they measured.
//!
//! A bench program prints, among whatever else it says, one line for each thing that it measured:
//!
//! ```text
//! BENCH {"bench":"decide","case":"nova-general","hosts":10000,"unit":"µs","p50":61.2,"p99":84.0}
//! ```
//!
//! `bench` and `hosts` are demanded. `case` and `unit` are text. Every other key is a number and a
//! column: percentiles and extremes in `unit`, `per_second`, `count` in their own.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::iter;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow};
use serde_json::{Map, Value};

use crate::cache::Cache;
use crate::cargo::{self, cargo};

/// Columns in this order; any other key follows by name.
const COLUMNS: [&str; 8] = ["count", "p50", "p90", "p95", "p99", "p999", "max", "per_second"];
/// Keys that are no columns of numbers.
const WORDS: [&str; 4] = ["bench", "case", "hosts", "unit"];

/// What stands beside our own figures in the same run.
pub enum Peer {
    /// A Python that has Nova, for the bench `decide`.
    Nova(PathBuf),
    /// Runs of CloudSim Plus, beside the bench `replay`.
    CloudSim(Vec<Command>),
}

/// Runs `benches` (none = all; beside a peer: the one that has it) with `arguments` and prints the table; false when
/// one failed.
pub fn run(
    cache: &Cache,
    benches: &[String],
    markdown: bool,
    peer: Option<Peer>,
    arguments: &[String],
) -> Result<bool> {
    let mut command = cargo(cache, &["bench", "--workspace"])?;
    let (all, runs) = match peer {
        None => ("*", Vec::new()),
        Some(Peer::Nova(python)) => {
            command.env("PALLIUM_NOVA_PYTHON", python);
            ("decide", Vec::new())
        }
        Some(Peer::CloudSim(runs)) => ("replay", runs),
    };
    if benches.is_empty() {
        command.args(["--bench", all]);
    }
    for bench in benches {
        command.args(["--bench", bench]);
    }
    command.arg("--").args(arguments);
    let (mut measured, mut passed) = (Vec::new(), true);
    for command in iter::once(command).chain(runs) {
        passed &= measure(command, &mut measured)?;
    }
    let lines: Vec<String> = measured.iter().map(|row| Value::Object(row.clone()).to_string()).collect();
    let kept = cache.folder("logs")?.join("bench.jsonl");
    fs::write(&kept, lines.join("\n")).with_context(|| format!("cannot write {}", kept.display()))?;
    println!("\n{}\n", circumstances(cache)?);
    print!("{}", table(&measured, markdown));
    println!("\n{} rows, kept in {}", measured.len(), kept.display());
    Ok(passed)
}

/// Runs a command, takes its rows and prints all else; false when it failed.
fn measure(mut command: Command, measured: &mut Vec<Map<String, Value>>) -> Result<bool> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run {program}"))?;
    let stdout = child.stdout.take().with_context(|| format!("{program} has no output"))?;
    for line in BufReader::new(stdout).lines() {
        let line = line.with_context(|| format!("{program} printed what is no text"))?;
        match line.trim_start().strip_prefix("BENCH ") {
            Some(json) => measured.push(read(json).with_context(|| format!("a bench printed: {line}"))?),
            None => println!("{line}"),
        }
    }
    Ok(child.wait()?.success())
}

/// What a figure depends on.
fn circumstances(cache: &Cache) -> Result<String> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    let rustc = cargo::output(cargo::command(cache, "rustc")?.arg("-V"))?;
    let commit = cargo::output(cargo::command(cache, "git")?.args(["describe", "--always", "--dirty"]))?;
    Ok(format!("commit {}, {}, {cores} cores, load average {load}", commit.trim(), rustc.trim()))
}

fn read(json: &str) -> Result<Map<String, Value>> {
    let Value::Object(row) = serde_json::from_str(json)? else { return Err(anyhow!("no object")) };
    if !row.get("bench").is_some_and(Value::is_string) || !row.get("hosts").is_some_and(Value::is_u64) {
        return Err(anyhow!("`bench` (text) and `hosts` (a whole number) are demanded"));
    }
    for (key, value) in &row {
        if !WORDS.contains(&key.as_str()) && !value.is_number() {
            return Err(anyhow!("`{key}` is {value}, a number expected"));
        }
    }
    Ok(row)
}

/// One table, ordered by bench, case and hosts.
fn table(measured: &[Map<String, Value>], markdown: bool) -> String {
    let known: BTreeSet<&str> = measured.iter().flat_map(Map::keys).map(String::as_str).collect();
    let mut columns: Vec<&str> = COLUMNS.into_iter().filter(|column| known.contains(column)).collect();
    columns.extend(known.iter().copied().filter(|key| !COLUMNS.contains(key) && !WORDS.contains(key)));
    let text =
        |row: &Map<String, Value>, key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut sorted: Vec<_> = measured.iter().collect();
    sorted.sort_by_key(|row| (text(row, "bench"), text(row, "case"), row.get("hosts").and_then(Value::as_u64)));

    let mut lines = vec![["bench", "case", "hosts", "unit"].iter().chain(&columns).map(ToString::to_string).collect()];
    lines.extend(sorted.into_iter().map(|row| {
        let hosts = row.get("hosts").map_or_else(String::new, Value::to_string);
        let mut cells = vec![text(row, "bench"), text(row, "case"), hosts, text(row, "unit")];
        cells.extend(
            columns.iter().map(|column| row.get(*column).and_then(Value::as_f64).map_or_else(String::new, figure)),
        );
        cells
    }));
    render(&lines, markdown)
}

/// Three significant digits, and no decimals from 100 up.
fn figure(value: f64) -> String {
    let decimals = match value.abs() {
        v if v == 0.0 || v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

/// Lines of cells, the first of them the head; words left, numbers right.
fn render(lines: &[Vec<String>], markdown: bool) -> String {
    let width = |at: usize| lines.iter().map(|cells| cells[at].chars().count()).max().unwrap_or(0);
    let numeric = |at: usize| at == 2 || at > 3;
    let joined = |cells: &[String]| {
        let padded = cells.iter().enumerate().map(|(at, cell)| {
            let width = width(at);
            if numeric(at) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        let padded: Vec<String> = padded.collect();
        if markdown { format!("| {} |", padded.join(" | ")) } else { padded.join("  ").trim_end().to_owned() }
    };
    let mut out: Vec<String> = lines.iter().map(|cells| joined(cells)).collect();
    if markdown {
        let rules: Vec<_> = (0..lines[0].len()).map(|at| if numeric(at) { "---:" } else { "---" }).collect();
        out.insert(1, format!("| {} |", rules.join(" | ")));
    }
    out.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::{read, table};

    #[test]
    fn rows_of_several_benches_make_one_table() {
        let rows: Vec<_> = [
            r#"{"bench":"http","hosts":1000,"unit":"ms","p50":1.25,"per_second":15234.7}"#,
            r#"{"bench":"decide","case":"nova","hosts":10000,"unit":"µs","p50":61.24,"p99":184.0}"#,
            r#"{"bench":"decide","case":"nova","hosts":1000,"unit":"µs","p50":9.5,"p99":0.25}"#,
        ]
        .map(|json| read(json).expect(json))
        .into();
        let expected = "\
bench   case  hosts  unit   p50    p99  per_second
decide  nova   1000  µs    9.50  0.250
decide  nova  10000  µs    61.2    184
http           1000  ms    1.25              15235
";
        assert_eq!(table(&rows, false), expected);
        let markdown = table(&rows, true);
        assert_eq!(markdown.lines().nth(1), Some("| --- | --- | ---: | --- | ---: | ---: | ---: |"));
    }

    #[test]
    fn a_row_that_cannot_be_shown_is_refused() {
        for (json, why) in [
            ("[]", "no object"),
            (r#"{"bench":"x"}"#, "`hosts`"),
            (r#"{"bench":"x","hosts":1,"p50":"fast"}"#, "`p50` is \"fast\""),
        ] {
            let error = read(json).expect_err(json).to_string();
            assert!(error.contains(why), "{json}: {error}");
        }
    }
}
