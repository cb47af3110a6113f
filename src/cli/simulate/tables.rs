//! The results as tables: a row for each policy.

use std::fmt::Write;

use serde_json::Value;
use simulation::trace::Study;

use super::super::output::{listing, number, text};

fn at<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(value, |value, key| &value[*key])
}

fn percent(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |value| format!("{:.1}%", value * 100.0))
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Number(number) if number.is_f64() => format!("{:.1}", number.as_f64().unwrap_or_default()),
        other => other.to_string(),
    }
}

type Cell = (&'static str, &'static [&'static str], fn(&Value) -> String, u8);

/// A table: its title, the key that a policy's results have when it was run, and its columns.
const TABLES: [(&str, &str, &[Cell]); 5] = [
    (
        "Hosts needed for no rejection",
        "min_hosts",
        &[
            ("HOSTS", &["min_hosts"], plain, 0),
            ("OVER BOUND", &["min_hosts_over_bound"], ratio, 0),
            ("MOVED BY DAY", &["min_hosts_migrations", "moves"], days, 0),
        ],
    ),
    (
        "Replay (averages after the warm-up)",
        "replay",
        &[
            ("EMPTY", &["replay", "empty_hosts"], percent, 0),
            ("OVER BEST-FIT", &["replay", "empty_hosts_over_best_fit"], points, 1),
            ("REJECTED", &["replay", "rejections", "count"], plain, 0),
            ("DENSITY CPU", &["replay", "density", "cpu"], percent, 0),
            ("MEM", &["replay", "density", "mem"], percent, 0),
            ("GPU", &["replay", "density", "gpu"], percent, 4),
            ("PEAK", &["replay", "hosts_peak"], plain, 1),
            ("SLOTS", &["replay", "large_slots"], plain, 2),
            ("FRAGM.", &["replay", "fragmentation"], percent, 3),
            ("MOVED BY DAY", &["replay", "migrations", "moves"], days, 0),
        ],
    ),
    (
        "VMs placed before the first rejection (mean over starts)",
        "first_failure",
        &[
            ("FADING", &["first_failure", "fading", "placed"], plain, 0),
            ("SD", &["first_failure", "fading", "placed_sd"], plain, 2),
            ("CPU", &["first_failure", "fading", "allocation", "cpu"], percent, 1),
            ("MEM", &["first_failure", "fading", "allocation", "mem"], percent, 1),
            ("RECOVERING", &["first_failure", "recovering", "placed"], plain, 0),
            ("SD", &["first_failure", "recovering", "placed_sd"], plain, 2),
        ],
    ),
    (
        "Allocation of the scarce resource under growing demand",
        "inflate",
        &[
            ("AT 100 %", &["inflate", "at_100"], percent, 0),
            ("AT THE END", &["inflate", "at_factor"], percent, 0),
            ("REJECTED", &["inflate", "rejected"], plain, 1),
            ("FRAGM. 80 %", &["fragmentation_at", "80"], percent, 2),
            ("100 %", &["fragmentation_at", "100"], percent, 2),
        ],
    ),
    (
        "Losses whose VMs all restart elsewhere",
        "survive",
        &[
            ("ONE HOST", &["survive", "n1"], percent, 0),
            ("WORST", &["survive", "n1_worst"], percent, 0),
            ("VMS LOST", &["survive", "n1_vms_lost"], percent, 1),
            ("TWO HOSTS", &["survive", "n2"], percent, 0),
            ("DOMAIN", &["survive", "n_domain"], percent, 1),
        ],
    ),
];

fn days(value: &Value) -> String {
    let days = value.as_array().map(|days| days.iter().map(plain).collect::<Vec<_>>().join(" "));
    days.unwrap_or_else(|| "-".to_owned())
}

fn points(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |value| format!("{:+.2} pt", value * 100.0))
}

fn ratio(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
}

/// All tables of a result.
pub fn tables(study: &Study, result: &Value) -> String {
    let mut out = String::new();
    let inputs = &study.inputs;
    let _ = writeln!(
        out,
        "{} VMs of {} shapes over {:.1} days, {} hosts, seed {}",
        inputs.trace.vms.len(),
        inputs.trace.shapes.len(),
        inputs.trace.end() as f64 / 86_400_000.0,
        study.count,
        inputs.seed
    );
    let bounds = &result["bounds"];
    let _ = writeln!(
        out,
        "lower bounds: volume {}, L2 of CPU {}, L2 of memory {}, LP {}",
        plain(&bounds["volume"]),
        plain(&bounds["l2_cpu"]),
        plain(&bounds["l2_mem"]),
        plain(&bounds["lp"])
    );
    for (title, key, cells) in TABLES {
        let of = |name: &str| &result["policies"][name];
        let policies: Vec<&str> = study.policies.iter().map(|policy| policy.name.as_str()).collect();
        let ran: Vec<&&str> = policies.iter().filter(|name| !of(name)[key].is_null()).collect();
        if ran.is_empty() {
            continue;
        }
        let columns: Vec<_> =
            std::iter::once(text("POLICY", 0)).chain(cells.iter().map(|cell| number(cell.0, cell.3))).collect();
        let rows: Vec<Vec<String>> = ran
            .iter()
            .map(|name| {
                let cells = cells.iter().map(|(_, path, show, _)| show(at(of(name), path)));
                std::iter::once((**name).to_owned()).chain(cells).collect()
            })
            .collect();
        let _ = write!(out, "\n{title}\n{}\n", listing(&columns, &rows));
    }
    for policy in &study.policies {
        lifetimes(&mut out, &policy.name, &result["policies"][&policy.name]["replay"]["lifetimes"]);
    }
    out.trim_end().to_owned()
}

/// Lifetimes as they were foretold against what came.
fn lifetimes(out: &mut String, name: &str, told: &Value) {
    let headings = ["< 1 H", "< 10 H", "< 100 H", "LONGER", "NO END"];
    for (key, title) in [("created", "new VMs"), ("an_hour_old", "VMs an hour old, how long they live on")] {
        let Some(rows) = told[key]["vms"].as_array() else { continue };
        let columns: Vec<_> =
            std::iter::once(text("FORETOLD", 0)).chain(headings.map(|heading| number(heading, 0))).collect();
        let rows: Vec<Vec<String>> = rows
            .iter()
            .zip(headings)
            .map(|(row, class)| {
                let cells = row.as_array().into_iter().flatten().map(plain);
                std::iter::once(class.to_lowercase()).chain(cells).collect()
            })
            .collect();
        let _ = write!(
            out,
            "\nLifetimes foretold by {name}, {title}: {} right, {} by always saying one class\n{}\n",
            percent(&told[key]["right"]),
            percent(&told[key]["right_by_one_class"]),
            listing(&columns, &rows)
        );
    }
}
