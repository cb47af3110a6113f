//! `verify`: is a data folder or a backup whole? Without a server.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use raft::verify::{Report, Snapshot, verify};

use super::output::{Format, complain, emit};
use super::{Failure, wording};

const EXAMPLES: &str = "\
Examples:
  pallium verify data
  pallium verify pallium.backup -o json

Reads the identity, every record of the log and every byte of the snapshots,
replays the log onto the newest snapshot up to what was committed, and checks
the state that comes out. Changes nothing; the node must be stopped. Exit code 1
when something is damaged: what and what to do is told on stderr.";

/// Check a data folder or a backup, offline
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Data folder of a node that is stopped, or a backup file
    path: PathBuf,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let report = verify(&args.path).map_err(|error| Failure::new(error.to_string()))?;
    emit(args.output, &report, || told(&report))?;
    for note in &report.notes {
        complain(&format!("note: {note}"));
    }
    for damage in &report.damaged {
        complain(&format!("damaged: {damage}"));
    }
    match report.damaged.len() {
        0 => Ok(()),
        found => {
            let path = args.path.display();
            Err(Failure::new(format!("{path}: {} found", wording::count(found as u64, "damage"))))
        }
    }
}

fn told(report: &Report) -> String {
    let mut lines = Vec::new();
    let mut line = |label: &str, text: String| lines.push(format!("{label:<10} {text}"));
    if let Some(cluster) = report.cluster {
        line("cluster", cluster.to_string());
    }
    if let (Some(node), Some(store)) = (report.node, report.store) {
        line("node", format!("{node}, store {store}"));
    }
    for snapshot in &report.snapshots {
        line("snapshot", self::snapshot(snapshot));
    }
    if let Some(log) = &report.log {
        let mut text = format!(
            "entries {} to {}, committed up to {}, {} in {}",
            index(log.first),
            index(log.last),
            index(log.committed),
            mib(log.bytes),
            wording::count(log.segments as u64, "segment")
        );
        if let (Some(term), Some(node)) = (log.vote_term, log.vote_node) {
            let granted = if log.vote_committed { ", granted" } else { "" };
            let _ = write!(text, "; voted for node {node} in term {term}{granted}");
        }
        line("log", text);
    }
    if let Some(state) = &report.state {
        let hosts = wording::count(state.hosts, "host");
        let consumers = wording::count(state.consumers, "consumer");
        let (index, epoch, checksum) = (index(state.index), state.epoch, &state.checksum);
        line("state", format!("{hosts} and {consumers} at index {index}, epoch {epoch}, checksum {checksum}"));
    }
    line("result", if report.damaged.is_empty() { "whole".to_owned() } else { "DAMAGED".to_owned() });
    lines.join("\n")
}

fn index(index: Option<u64>) -> String {
    index.map_or("none".to_owned(), |index| index.to_string())
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", wording::grouped(bytes.div_ceil(1 << 20)))
}

fn snapshot(snapshot: &Snapshot) -> String {
    let name = snapshot.file.file_name().unwrap_or_default().to_string_lossy();
    let Some(summary) = &snapshot.summary else {
        return format!("{name}: DAMAGED, {}", mib(snapshot.bytes));
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let when = match summary.wall {
        0 => "before the first command".to_owned(),
        wall => format!("of {} UTC ({} ago)", wording::utc(wall), wording::duration(now.saturating_sub(wall))),
    };
    format!(
        "{name}: index {}, {when}, {}, {} and {}",
        index(summary.index),
        mib(snapshot.bytes),
        wording::count(summary.hosts, "host"),
        wording::count(summary.consumers, "consumer")
    )
}
