//! `report.html`: one file that needs no network. The table of all figures with their definitions comes first, then charts as
//! inline SVG, each with its numbers in words for those who cannot see it. Light and dark follow the reader's system; on paper
//! everything is black on white; on a phone what is wide is moved sideways.

mod bars;
mod chart;
mod heat;
mod scatter;
mod sections;

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use super::meter::Moment;
use super::metrics::{METRICS, Metric, grouped};
use super::picture::Picture;
use super::run::{Done, Mode, Study};
use chart::{Chart, Line};

/// What a study came to, and what its charts are drawn from.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What it is called beside another one; empty when it is alone.
    pub label: String,
    /// Its `result.json`.
    pub result: Value,
    /// Its replays, by policy.
    pub replays: BTreeMap<String, (Vec<Moment>, Option<Picture>)>,
}

impl Outcome {
    /// Of a study that is done.
    pub fn of(study: &Study, result: Value, done: &[Done]) -> Self {
        let replays = study.points().into_iter().zip(done).filter(|(point, _)| point.mode == Mode::Replay);
        let replays =
            replays.map(|(point, done)| (point.policy.name.clone(), (done.series.clone(), done.picture.clone())));
        Self { label: String::new(), replays: replays.collect(), result }
    }

    /// Its policies, in their order.
    pub fn policies(&self) -> impl Iterator<Item = &str> {
        self.result["policy_order"].as_array().into_iter().flatten().filter_map(Value::as_str)
    }
}

/// One policy of one study: a column of the table.
struct Column<'a> {
    name: String,
    values: &'a Value,
    /// Mean and standard deviation over seeds, by path.
    spread: &'a Value,
    series: &'a [Moment],
    picture: Option<&'a Picture>,
    /// The column that differences are told to.
    base: Option<usize>,
}

const STYLE: &str = include_str!("report/style.css");

/// A count of a result; what is none is not shown.
fn count(value: &Value) -> String {
    value.as_f64().map_or_else(|| "–".to_owned(), grouped)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The columns of one study: differences to its first policy. Of two: equal policies stand side by side, and differences are to
/// the first study.
fn columns(outcomes: &[Outcome]) -> Vec<Column<'_>> {
    let mut order: Vec<(&str, usize)> = Vec::new();
    for (at, outcome) in outcomes.iter().enumerate() {
        order.extend(outcome.policies().map(|name| (name, at)));
    }
    let place = |name: &str| order.iter().position(|other| other.0 == name);
    let mut sorted = order.clone();
    sorted.sort_by_key(|&(name, at)| (place(name), at));
    let mut columns: Vec<Column<'_>> = Vec::new();
    for &(name, at) in &sorted {
        let outcome = &outcomes[at];
        let (series, picture) =
            outcome.replays.get(name).map_or((&[][..], None), |(series, picture)| (&series[..], picture.as_ref()));
        let first = sorted.iter().position(|other| other.0 == name);
        let base = if outcomes.len() > 1 { first } else { Some(0) };
        columns.push(Column {
            name: if outcome.label.is_empty() { name.to_owned() } else { format!("{name} · {}", outcome.label) },
            values: &outcome.result["policies"][name],
            spread: &outcome.result["seeds"]["policies"][name],
            series,
            picture,
            base: base.filter(|&base| base != columns.len()),
        });
    }
    columns
}

/// The report of a study, or of two side by side.
pub fn report(outcomes: &[Outcome]) -> String {
    let columns = columns(outcomes);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>pallium simulate</title><style>{STYLE}</style></head><body>"
    );
    for outcome in outcomes {
        heading(&mut out, outcome);
    }
    table(&mut out, &columns, outcomes.len() > 1);
    for outcome in outcomes {
        bounds(&mut out, outcome);
    }
    over_time(&mut out, outcomes, &columns);
    sections::rejections(&mut out, &columns);
    under_demand(&mut out, &columns);
    heat::heat(&mut out, &columns);
    scatter::scatter(&mut out, &columns);
    sections::survival(&mut out, &columns);
    sections::failures(&mut out, &columns);
    sections::migrations(&mut out, &columns);
    sections::rebalancing(&mut out, &columns);
    sections::lifetimes(&mut out, &columns);
    out.push_str("</body></html>\n");
    out
}

fn heading(out: &mut String, outcome: &Outcome) {
    let result = &outcome.result;
    let (inputs, trace) = (&result["inputs"], &result["inputs"]["trace"]);
    let short = |value: &Value| value.as_str().and_then(|text| text.get(..12)).unwrap_or("-").to_owned();
    let label = if outcome.label.is_empty() { String::new() } else { format!("{}: ", escaped(&outcome.label)) };
    let _ = write!(
        out,
        "<h1>{label}Placement of {} VMs on {} hosts</h1><p class=\"soft\">{} events of {} shapes over {:.1} days; seed {}; the first \
         {:.0} % of the time are left out of averages; trace {}, hosts {} (SHA-256); among equal scores {} wins; pallium {}.</p>",
        count(&trace["vms"]),
        count(&inputs["hosts"]["count"]),
        count(&trace["events"]),
        count(&trace["shapes"]),
        trace["span_s"].as_f64().unwrap_or(0.0) / 86_400.0,
        count(&result["seed"]),
        inputs["warm_up"].as_f64().unwrap_or(0.0) * 100.0,
        short(&trace["sha256"]),
        short(&inputs["hosts"]["sha256"]),
        escaped(inputs["ties"].as_str().unwrap_or("-")),
        escaped(result["version"].as_str().unwrap_or("-")),
    );
}

/// What the first key of a figure is the mode of.
fn group(path: &str) -> &'static str {
    match path.split('.').next().unwrap_or_default() {
        "min_hosts" | "min_hosts_over_bound" => "Hosts needed",
        "replay" => "Replay",
        "first_failure" => "Up to the first rejection",
        "survive" => "Losses of hosts",
        _ => "Growing demand",
    }
}

/// Figures that say nothing where there are no GPUs.
fn about_gpus(metric: &Metric) -> bool {
    metric.path.contains("gpu")
}

fn table(out: &mut String, columns: &[Column<'_>], compared: bool) {
    out.push_str("<p class=\"soft\">What each policy came to, and what each figure means.");
    if columns.iter().any(|column| column.base.is_some()) {
        out.push_str(if compared {
            " Small: the difference to the same policy of the first study; pt are points of a percentage."
        } else {
            " Small: the difference to the first policy; pt are points of a percentage."
        });
    }
    if columns.iter().any(|column| !column.spread.is_null()) {
        out.push_str(" ± is the standard deviation over seeds, before it their mean.");
    }
    out.push_str("</p><div class=\"wide\"><table class=\"figures\"><thead><tr><th></th>");
    for column in columns {
        let _ = write!(out, "<th>{}</th>", escaped(&column.name));
    }
    out.push_str("</tr></thead>");
    let gpus = columns.iter().any(|column| {
        METRICS.iter().any(|metric| about_gpus(metric) && metric.of(column.values).is_some_and(|value| value != 0.0))
    });
    let mut last = "";
    for metric in METRICS {
        let values: Vec<Option<f64>> = columns.iter().map(|column| metric.of(column.values)).collect();
        if values.iter().all(Option::is_none) || about_gpus(metric) && !gpus {
            continue;
        }
        let here = group(metric.path);
        if here != last {
            let _ = write!(out, "<tr><th class=\"group\" colspan=\"{}\">{here}</th></tr>", columns.len() + 1);
            last = here;
        }
        let unit = metric.unit_shown();
        let unit = if unit.is_empty() { String::new() } else { format!("{unit}: ") };
        let _ = write!(out, "<tr><td>{}<small>{unit}{}</small></td>", metric.label, metric.means);
        for (column, value) in columns.iter().zip(&values) {
            let Some(value) = *value else {
                out.push_str("<td>–</td>");
                continue;
            };
            let spread = &column.spread[metric.path];
            let sd = spread["sd"].as_f64().filter(|sd| *sd > 0.0);
            let value = spread["mean"].as_f64().unwrap_or(value);
            let _ = write!(out, "<td>{}", metric.shown(value));
            if let Some(sd) = sd {
                let _ = write!(out, " ± {}", metric.shown(sd));
            }
            if let Some(before) = column.base.and_then(|base| values[base]) {
                let _ = write!(out, "<small>{}</small>", metric.difference(value, before));
            }
            out.push_str("</td>");
        }
        out.push_str("</tr>");
    }
    out.push_str("</table></div>");
}

fn bounds(out: &mut String, outcome: &Outcome) {
    let bounds = &outcome.result["bounds"];
    let label = if outcome.label.is_empty() { String::new() } else { format!("{}: ", escaped(&outcome.label)) };
    let names = [("volume", "volume"), ("L2 of CPU", "l2_cpu"), ("L2 of memory", "l2_mem"), ("LP", "lp")];
    let known = names.iter().filter(|(_, key)| bounds[key].is_number());
    let known: Vec<String> = known.map(|(name, key)| format!("{name} {}", count(&bounds[key]))).collect();
    let _ = write!(out, "<p class=\"soft\">{label}Lower bounds of the number of hosts: {}", known.join(", "));
    if let Some(empty) = bounds["empty_hosts"].as_f64() {
        let _ = write!(out, "; at most {:.1} % of the hosts empty", empty * 100.0);
    }
    out.push_str(". They hold for instants with free re-packing, so a policy that moves nothing cannot reach them in general.</p>");
}

/// A curve for each policy, over days.
fn curves(columns: &[Column<'_>], value: impl Fn(&Moment) -> Option<f64>) -> Vec<Line> {
    let lines = columns.iter().map(|column| {
        let points = column.series.iter().filter_map(|moment| Some((moment.time_s / 86_400.0, value(moment)?)));
        Line::new(&column.name, points.collect())
    });
    lines.filter(|line| !line.points.is_empty()).collect()
}

fn over_time(out: &mut String, outcomes: &[Outcome], columns: &[Column<'_>]) {
    let mut hosts = curves(columns, |moment| Some(moment.hosts_used as f64));
    let any = !hosts.is_empty();
    for outcome in outcomes.iter().filter(|_| any) {
        let points = outcome.result["bounds"]["over_time"].as_array().into_iter().flatten();
        let points = points.filter_map(|point| Some((point[0].as_f64()? / 86_400.0, point[1].as_f64()?)));
        let name = ["lower bound", " · ", &outcome.label].concat();
        let line = Line::bound(name.trim_end_matches(" · "), points.collect());
        hosts.extend(Some(line).filter(|line| !line.points.is_empty()));
    }
    let percent = |value: Option<f64>| value.map(|value| value * 100.0);
    let charts = [
        Chart {
            title: "Hosts in use",
            what: "hosts with a VM, by day; dashed the hosts that are needed at that instant however one packs (the largest lower bound)",
            unit: "",
            lines: hosts,
        },
        Chart {
            title: "Density of CPU",
            what: "CPU in use over that of the hosts in use, by day",
            unit: " %",
            lines: curves(columns, |moment| percent(moment.used.cpu)),
        },
        Chart {
            title: "Density of memory",
            what: "memory in use over that of the hosts in use, by day",
            unit: " %",
            lines: curves(columns, |moment| percent(moment.used.mem)),
        },
        Chart {
            title: "Density of GPUs",
            what: "GPUs in use over those of the hosts in use, by day",
            unit: " %",
            lines: curves(columns, |moment| percent(moment.used.gpu)),
        },
        Chart {
            title: "Fragmentation",
            what: "free, and of no use for the most frequent shapes that make 95 % of the creates, over all capacity; once an hour after the warm-up, by day",
            unit: " %",
            lines: curves(columns, |moment| percent(moment.fragmentation)),
        },
        Chart {
            title: "Large slots",
            what: "further VMs of 16 vCPU and 64 GiB that would fit; once an hour after the warm-up, by day",
            unit: "",
            lines: curves(columns, |moment| moment.large_slots),
        },
        Chart {
            title: "Rejections so far",
            what: "creates without a host, by day",
            unit: "",
            lines: curves(columns, |moment| Some(moment.rejected as f64)),
        },
    ];
    charts.iter().filter(|chart| !chart.is_flat()).for_each(|chart| chart.draw(out));
}

fn under_demand(out: &mut String, columns: &[Column<'_>]) {
    let lines = |key: &str| {
        let percent = |value: &Value| Some(value.as_f64()? * 100.0);
        let line = |column: &Column<'_>| {
            let curve = column.values["inflate"]["curve"].as_array()?;
            let points = curve.iter().filter_map(|point| Some((percent(&point["arrived"])?, percent(&point[key])?)));
            Some(Line::new(&column.name, points.collect()))
        };
        columns.iter().filter_map(line).collect()
    };
    let charts = [
        Chart {
            title: "Allocation under growing demand",
            what: "allocated of the scarce resource (the GPU if there is one, else what is asked for most), in % of its capacity, by % asked for; the result is where a line ends",
            unit: " %",
            lines: lines("allocated"),
        },
        Chart {
            title: "Fragmentation under growing demand",
            what: "% of the capacity that is free and of no use for the most frequent shapes, by % asked for",
            unit: " %",
            lines: lines("fragmentation"),
        },
    ];
    charts.iter().filter(|chart| !chart.is_flat()).for_each(|chart| chart.draw(out));
}
