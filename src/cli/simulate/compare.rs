//! `simulate --compare`: what two studies came to, side by side. Nothing is run.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use simulation::trace::Mode;
use simulation::trace::metrics::METRICS;
use simulation::trace::report::{Outcome, report};
use simulation::trace::run::point_name;

use super::super::output::{complain, listing, number, print, text};
use super::Failure;
use super::folder::Folder;
use super::tables::policies;

pub fn run(before: &Path, after: &Path, out: Option<&Path>, json: bool) -> Result<(), Failure> {
    let labels = labels(before, after);
    let studies = [open(before, &labels[0])?, open(after, &labels[1])?];
    let [before, after] = [&studies[0].result, &studies[1].result];
    if json {
        let both: BTreeMap<&str, &Value> = labels.iter().map(String::as_str).zip([before, after]).collect();
        print(&serde_json::to_string_pretty(&both).map_err(|error| Failure::new(error.to_string()))?);
    } else {
        print(&told(before, after, &labels));
    }
    if let Some(out) = out {
        let folder = Folder::make(out)?;
        folder.write("report.html", report(&studies).as_bytes())?;
        complain(&format!("written to {}", folder.path().display()));
    }
    Ok(())
}

/// What the studies are called: the names of their folders, or the whole paths when those are equal.
fn labels(before: &Path, after: &Path) -> [String; 2] {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    match (name(before), name(after)) {
        (Some(one), Some(other)) if one != other => [one, other],
        _ if before != after => [before.display().to_string(), after.display().to_string()],
        _ => ["before".to_owned(), "after".to_owned()],
    }
}

fn open(path: &Path, label: &str) -> Result<Outcome, Failure> {
    let file = path.join("result.json");
    let wrong = |what: String| {
        Failure::new(format!("{}: {what}; the folder of a study (simulate --out) expected", file.display()))
    };
    let text = std::fs::read(&file).map_err(|error| wrong(error.to_string()))?;
    let result: Value = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    if policies(&result).next().is_none() {
        return Err(wrong("no policy_order in it".to_owned()));
    }
    // A policy that was replayed has what its charts are drawn from beside it.
    let folder = Folder::at(path);
    let replayed = policies(&result).filter(|name| !result["policies"][name]["replay"].is_null());
    let done = replayed.filter_map(|name| Some((name.to_owned(), folder.kept(&point_name(Mode::Replay, name))?)));
    let replays = done.map(|(name, done)| (name, (done.series, done.picture))).collect();
    Ok(Outcome { label: label.to_owned(), replays, result })
}

/// What was not equal about the two studies, and every figure of policies that are in both.
fn told(before: &Value, after: &Value, labels: &[String; 2]) -> String {
    let mut out = Vec::new();
    let inputs: [(&str, &[&str]); 11] = [
        ("version", &["version"]),
        ("trace", &["inputs", "trace", "sha256"]),
        ("VMs", &["inputs", "trace", "vms"]),
        ("host list", &["inputs", "hosts", "sha256"]),
        ("hosts", &["inputs", "hosts", "count"]),
        ("ratios", &["inputs", "ratios"]),
        ("warm-up", &["inputs", "warm_up"]),
        ("migrations", &["inputs", "migrations"]),
        ("failures", &["inputs", "failures"]),
        ("rebalancing", &["inputs", "rebalance"]),
        ("seed", &["seed"]),
    ];
    for (what, path) in inputs {
        let [one, other] = [before, after].map(|result| path.iter().fold(result, |value, key| &value[*key]));
        if one != other {
            out.push(format!("not equal: {what}, {one} and {other}"));
        }
    }
    let both: Vec<&str> = policies(before).filter(|name| policies(after).any(|other| other == *name)).collect();
    let mut rows = Vec::new();
    for name in &both {
        for metric in METRICS {
            let values = [before, after].map(|result| metric.of(&result["policies"][*name]));
            if values == [None, None] {
                continue;
            }
            let shown = values.map(|value| value.map_or_else(|| "-".to_owned(), |value| metric.shown(value)));
            let change = match values {
                [Some(before), Some(after)] => metric.difference(after, before),
                _ => "-".to_owned(),
            };
            let [one, other] = shown;
            rows.push(vec![(*name).to_owned(), metric.label.to_owned(), one, other, change]);
        }
    }
    if both.is_empty() {
        out.push("no policy is in both".to_owned());
    } else {
        let columns =
            [text("POLICY", 0), text("FIGURE", 0), number("BEFORE", 0), number("AFTER", 0), number("DIFFERENCE", 0)];
        out.push(format!("before: {}, after: {}", labels[0], labels[1]));
        out.push(listing(&columns, &rows));
    }
    out.join("\n")
}
