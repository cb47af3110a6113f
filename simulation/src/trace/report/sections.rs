//! Parts of the report that are more than lines over time.

use std::fmt::Write;

use serde_json::Value;

use super::bars::bars;
use super::chart::{Chart, Line};
use super::{Column, count, escaped};
use crate::trace::survive::NAMED;

/// Why creates were rejected.
pub fn rejections(out: &mut String, columns: &[Column<'_>]) {
    let keys = ["cpu", "mem", "gpu", "gpu_model", "combination"];
    let rows: Vec<(&str, Vec<f64>)> = columns
        .iter()
        .filter_map(|column| {
            let reasons = column.values["replay"]["rejections"]["by_reason"].as_object()?;
            let number = |key: &&str| reasons.get(*key).and_then(Value::as_f64).unwrap_or(0.0);
            Some((&*column.name, keys.iter().map(number).collect()))
        })
        .collect();
    let what = "creates without a host, by the first resource that no host had enough of; combination: some host had enough of each \
                by itself";
    bars(out, "Rejections by reason", what, &["CPU", "memory", "GPU", "GPU model", "combination"], &rows);
}

/// What would come back after losses, over time, and what would not.
pub fn survival(out: &mut String, columns: &[Column<'_>]) {
    let lines = |key: &str| {
        let line = |column: &Column<'_>| {
            let snapshots = column.values["survive"]["over_time"].as_array()?;
            let point =
                |snapshot: &Value| Some((snapshot["time_s"].as_f64()? / 86_400.0, snapshot[key].as_f64()? * 100.0));
            Some(Line::new(&column.name, snapshots.iter().filter_map(point).collect()))
        };
        columns.iter().filter_map(line).filter(|line: &Line| !line.points.is_empty()).collect()
    };
    let charts = [
        Chart {
            title: "One host lost",
            what: "hosts in use whose VMs would all restart elsewhere, the largest first, placed by the same policy; at each snapshot, by day",
            unit: " %",
            lines: lines("n1"),
        },
        Chart { title: "Two hosts lost", what: "the same of 300 random pairs", unit: " %", lines: lines("n2") },
        Chart {
            title: "A domain lost",
            what: "the same of whole failure domains",
            unit: " %",
            lines: lines("n_domain"),
        },
    ];
    charts.iter().filter(|chart| !chart.lines.is_empty()).for_each(|chart| chart.draw(out));
    for column in columns {
        let hosts = column.values["survive"]["not_covered"].as_array().filter(|hosts| !hosts.is_empty());
        let Some(hosts) = hosts else { continue };
        let _ = write!(
            out,
            "<section><h2>Hosts whose loss is not covered: {}</h2><p class=\"soft\">at the last snapshot, at most {NAMED} hosts and {NAMED} VMs of each</p>\
             <div class=\"wide\"><table><thead><tr><th>Host</th><th>VMs</th><th class=\"names\">of them without a place</th></tr></thead>",
            escaped(&column.name)
        );
        for host in hosts {
            let lost: Vec<&str> = host["lost"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let _ = write!(
                out,
                "<tr><td>{}</td><td>{}</td><td class=\"names\">{}</td></tr>",
                escaped(host["host"].as_str().unwrap_or_default()),
                count(&host["vms"]),
                escaped(&lost.join(", "))
            );
        }
        out.push_str("</table></div></section>");
    }
}

/// What became of VMs of hosts that failed, and the worst moment by name.
pub fn failures(out: &mut String, columns: &[Column<'_>]) {
    let failed = columns.iter().map(|column| (&*column.name, &column.values["replay"]["failures"]));
    let failed: Vec<_> = failed.filter(|(_, failures)| !failures.is_null()).collect();
    let keys = ["at_once", "later", "in_place", "deleted", "lost"];
    let number = |failures: &Value, key: &str| failures[key].as_f64().unwrap_or(0.0);
    let rows: Vec<(&str, Vec<f64>)> =
        failed.iter().map(|(name, failures)| (*name, keys.map(|key| number(failures, key)).to_vec())).collect();
    let what = "VMs on hosts when they failed: placed elsewhere at once, or by a later plan of the planner of failover; started where \
                they were, when their host came back; deleted while they waited; lost, without a place when the trace ended";
    bars(out, "VMs of failed hosts", what, &["at once", "later", "in place", "deleted", "lost"], &rows);
    if failed.iter().all(|(_, failures)| failures["worst"].is_null()) {
        return;
    }
    out.push_str(
        "<section><h2>Worst moments of failure</h2><p class=\"soft\">the moment at which most VMs found no place at once, with the first \
         20 hosts and VMs</p><div class=\"wide\"><table><tr><th></th><th>day</th><th>hosts</th><th>VMs on them</th>\
         <th>without a place</th><th>hosts by name</th><th>VMs by name</th></tr>",
    );
    for (name, worst) in failed.iter().map(|(name, failures)| (name, &failures["worst"])).filter(|one| !one.1.is_null())
    {
        let names = |key: &str| {
            let names: Vec<&str> = worst[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            escaped(&names.join(", "))
        };
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{:.2}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escaped(name),
            number(worst, "time_s") / 86_400.0,
            count(&worst["failed"]),
            count(&worst["vms"]),
            count(&worst["without"]),
            names("hosts"),
            names("waiting"),
        );
    }
    out.push_str("</table></div></section>");
}

/// Moves by day, and what they were good for.
pub fn migrations(out: &mut String, columns: &[Column<'_>]) {
    let studies = columns.iter().filter_map(|column| {
        let migrations = &column.values["replay"]["migrations"];
        Some((column, migrations, migrations["moves"].as_array()?, migrations["budget"].as_array()?))
    });
    let studies: Vec<_> = studies.collect();
    let days = studies.iter().map(|(_, _, moves, _)| moves.len()).max().unwrap_or(0);
    if days == 0 {
        return;
    }
    out.push_str(
        "<section><h2>Moves by day</h2><p class=\"soft\">VMs moved to make room for one that fitted nowhere, and by rebalancing, of those \
         that might be moved on that day; and how many VMs found a place by it</p><div class=\"wide\"><table><tr><th></th>",
    );
    for day in 1..=days {
        let _ = write!(out, "<th>day {day}</th>");
    }
    out.push_str("<th>VMs placed by it</th></tr>");
    for (column, migrations, moves, budget) in studies {
        let _ = write!(out, "<tr><td>{}</td>", escaped(&column.name));
        for day in 0..days {
            match (moves.get(day), budget.get(day)) {
                (Some(moves), Some(budget)) => {
                    let _ = write!(out, "<td>{} of {}</td>", count(moves), count(budget));
                }
                _ => out.push_str("<td>–</td>"),
            }
        }
        let _ = write!(out, "<td>{}</td></tr>", count(&migrations["made_room"]));
    }
    out.push_str("</table></div></section>");
}

/// What each period of rebalancing moved, against the hosts that it freed.
pub fn rebalancing(out: &mut String, columns: &[Column<'_>]) {
    let line = |column: &Column<'_>| {
        let periods = column.values["replay"]["migrations"]["periods"].as_array()?;
        let mut sums = (0.0, 0.0);
        let point = |period: &Value| {
            let number = |key: &str| period[key].as_f64().unwrap_or(0.0);
            sums = (sums.0 + number("moves"), sums.1 + number("hosts_freed"));
            sums
        };
        Some(Line::new(&column.name, std::iter::once((0.0, 0.0)).chain(periods.iter().map(point)).collect()))
    };
    let chart = Chart {
        title: "Hosts freed against moves",
        what: "hosts with a VM before and none after a period of rebalancing, by moves, both so far; a point for each period",
        unit: "",
        lines: columns.iter().filter_map(line).collect(),
    };
    if !chart.is_flat() {
        chart.draw(out);
    }
}

/// Lifetimes as they were foretold, against what came.
pub fn lifetimes(out: &mut String, columns: &[Column<'_>]) {
    const CLASSES: [&str; 4] = ["below 1 h", "1 to 10 h", "10 to 100 h", "100 h and more"];
    for column in columns {
        let told = &column.values["replay"]["lifetimes"];
        if told.is_null() {
            continue;
        }
        let _ = write!(
            out,
            "<section><h2>Lifetimes foretold: {}</h2><p class=\"soft\">VMs by the class of lifetime that was foretold (rows) and that \
             came (columns); what was said is learned from the trace so far and nothing else</p>",
            escaped(&column.name)
        );
        for (key, title) in [("created", "New VMs"), ("an_hour_old", "VMs an hour old: how long they live on")] {
            let _ = write!(out, "<h3>{title}</h3><div class=\"wide\"><table><tr><th>foretold</th>");
            for class in CLASSES.iter().chain(&["no end in the trace"]) {
                let _ = write!(out, "<th>{class}</th>");
            }
            out.push_str("</tr>");
            for (row, class) in told[key]["vms"].as_array().into_iter().flatten().zip(CLASSES) {
                let _ = write!(out, "<tr><td>{class}</td>");
                for number in row.as_array().into_iter().flatten() {
                    let _ = write!(out, "<td>{}</td>", count(number));
                }
                out.push_str("</tr>");
            }
            out.push_str("</table></div>");
        }
        out.push_str("</section>");
    }
}
