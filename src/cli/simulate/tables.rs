//! The results as tables: a row for each policy.

use std::fmt::Write;

use serde_json::Value;
use simulation::trace::metrics::METRICS;

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
const TABLES: [(&str, &str, &[Cell]); 6] = [
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
            ("HOSTS FREED", &["replay", "migrations", "rebalanced", "hosts_freed"], plain, 1),
        ],
    ),
    (
        "Failures of hosts",
        "replay",
        &[
            ("HOSTS", &["replay", "failures", "hosts"], plain, 0),
            ("VMS", &["replay", "failures", "vms"], plain, 0),
            ("AT ONCE", &["replay", "failures", "restored_at_once"], percent, 0),
            ("LATER", &["replay", "failures", "later"], plain, 1),
            ("IN PLACE", &["replay", "failures", "in_place"], plain, 1),
            ("DELETED", &["replay", "failures", "deleted"], plain, 2),
            ("LOST", &["replay", "failures", "lost"], plain, 1),
            ("VM-SECONDS DOWN", &["replay", "failures", "down_vm_s"], plain, 0),
            ("REJECTED", &["replay", "failures", "rejected"], plain, 1),
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

/// More days than this are told as their sum: a table is to fit a terminal.
const DAYS: usize = 7;

fn days(value: &Value) -> String {
    let Some(days) = value.as_array() else { return "-".to_owned() };
    if days.len() <= DAYS {
        return days.iter().map(plain).collect::<Vec<_>>().join(" ");
    }
    let moves = || days.iter().filter_map(Value::as_u64);
    format!("{} in {} days, {} at most", moves().sum::<u64>(), days.len(), moves().max().unwrap_or(0))
}

fn points(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |value| format!("{:+.2} pt", value * 100.0))
}

fn ratio(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
}

/// The policies of a result, in their order.
pub fn policies(result: &Value) -> impl Iterator<Item = &str> {
    result["policy_order"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// All tables of a result.
pub fn tables(result: &Value) -> String {
    let mut out = String::new();
    let trace = &result["inputs"]["trace"];
    let _ = writeln!(
        out,
        "{} VMs of {} shapes over {:.1} days, {} hosts, seed {}",
        trace["vms"],
        trace["shapes"],
        trace["span_s"].as_f64().unwrap_or(0.0) / 86_400.0,
        result["inputs"]["hosts"]["count"],
        result["seed"]
    );
    let bounds = &result["bounds"];
    let empty = bounds["empty_hosts"].as_f64();
    let empty = empty.map(|_| format!("; at most {} of the hosts empty", percent(&bounds["empty_hosts"])));
    let _ = writeln!(
        out,
        "lower bounds: volume {}, L2 of CPU {}, L2 of memory {}, LP {}{}",
        plain(&bounds["volume"]),
        plain(&bounds["l2_cpu"]),
        plain(&bounds["l2_mem"]),
        plain(&bounds["lp"]),
        empty.unwrap_or_default()
    );
    let of = |name: &str| &result["policies"][name];
    for (title, key, cells) in TABLES {
        let ran: Vec<&str> = policies(result).filter(|name| !of(name)[key].is_null()).collect();
        if ran.is_empty() {
            continue;
        }
        // A column in which nobody has anything is left out.
        let cells: Vec<&Cell> =
            cells.iter().filter(|cell| ran.iter().any(|name| !at(of(name), cell.1).is_null())).collect();
        if cells.is_empty() {
            continue;
        }
        let columns: Vec<_> =
            std::iter::once(text("POLICY", 0)).chain(cells.iter().map(|cell| number(cell.0, cell.3))).collect();
        let rows: Vec<Vec<String>> = ran
            .iter()
            .map(|name| {
                let cells = cells.iter().map(|(_, path, show, _)| show(at(of(name), path)));
                std::iter::once((*name).to_owned()).chain(cells).collect()
            })
            .collect();
        let _ = write!(out, "\n{title}\n{}\n", listing(&columns, &rows));
    }
    for name in policies(result) {
        let worst = &of(name)["replay"]["failures"]["worst"];
        if let Some(time) = worst["time_s"].as_f64() {
            let hosts: Vec<&str> = worst["hosts"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let (without, vms, hosts) = (plain(&worst["without"]), plain(&worst["vms"]), hosts.join(", "));
            let _ =
                writeln!(out, "worst moment of {name}, at {time} s: {without} of {vms} VMs without a place; {hosts}");
        }
    }
    for name in policies(result) {
        lifetimes(&mut out, name, &of(name)["replay"]["lifetimes"]);
    }
    seeds(&mut out, result);
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

/// Figures that differ between seeds.
fn seeds(out: &mut String, result: &Value) {
    let seeds = &result["seeds"];
    let mut rows = Vec::new();
    for name in policies(result) {
        for metric in METRICS {
            let figure = &seeds["policies"][name][metric.path];
            let both = figure["mean"].as_f64().zip(figure["sd"].as_f64());
            let Some((mean, sd)) = both.filter(|(_, sd)| *sd > 0.0) else { continue };
            rows.push(vec![name.to_owned(), metric.label.to_owned(), metric.shown(mean), metric.shown(sd)]);
        }
    }
    if let Some(count) = seeds["seeds"].as_array().map(Vec::len) {
        let columns = [text("POLICY", 0), text("FIGURE", 0), number("MEAN", 0), number("DEVIATION", 0)];
        let same = if rows.is_empty() { "nothing differs".to_owned() } else { listing(&columns, &rows) };
        let _ = write!(out, "\nOver {count} seeds; what is not here is equal under all\n{same}\n");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::days;

    #[test]
    fn many_days_are_told_in_few_words() {
        let told = [json!([0, 104, 7]), json!([1, 0, 0, 0, 0, 2, 5, 4]), json!(null)].map(|value| days(&value));
        assert_eq!(told, ["0 104 7", "12 in 8 days, 5 at most", "-"]);
    }
}
