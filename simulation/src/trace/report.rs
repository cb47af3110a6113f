//! `report.html`: one file that needs no network. The table comes first, then charts as inline SVG, each with its numbers in
//! words for those who cannot see it. Light and dark follow the reader's system; on paper everything is black on white.

mod chart;

use std::fmt::Write;

use serde_json::Value;

use super::meter::Moment;
use super::run::{Done, Point, Study};
use chart::{Chart, Line};

/// A row of the table of metrics: label, path in the policy's results, how it is shown, definition.
type Metric = (&'static str, &'static [&'static str], Shown, &'static str);

#[derive(Clone, Copy)]
enum Shown {
    Count,
    Share,
    Factor,
}

const METRICS: [Metric; 23] = [
    ("Hosts needed", &["min_hosts"], Shown::Count, "least number of hosts without a rejection"),
    ("over the bound", &["min_hosts_over_bound"], Shown::Factor, "the same over the largest lower bound"),
    ("Rejections", &["replay", "rejections", "count"], Shown::Count, "creates that found no host"),
    (
        "Empty hosts",
        &["replay", "empty_hosts"],
        Shown::Share,
        "share of hosts without a VM, averaged over time after the warm-up",
    ),
    ("Hosts at the peak", &["replay", "hosts_peak"], Shown::Count, "most hosts in use at a time"),
    ("Density of CPU", &["replay", "density", "cpu"], Shown::Share, "in use over capacity of the hosts in use"),
    ("Density of memory", &["replay", "density", "mem"], Shown::Share, "in use over capacity of the hosts in use"),
    ("Density of GPUs", &["replay", "density", "gpu"], Shown::Share, "in use over capacity of the hosts in use"),
    ("Fragmentation", &["replay", "fragmentation"], Shown::Share, "free and of no use for the mix, over all capacity"),
    (
        "Stranded CPU",
        &["replay", "stranded", "cpu"],
        Shown::Share,
        "free where no shape of the mix fits, over all capacity",
    ),
    (
        "Stranded memory",
        &["replay", "stranded", "mem"],
        Shown::Share,
        "free where no shape of the mix fits, over all capacity",
    ),
    ("Large slots", &["replay", "large_slots"], Shown::Count, "further VMs of 16 vCPU and 64 GiB"),
    (
        "Imbalance of CPU",
        &["replay", "imbalance", "cpu"],
        Shown::Share,
        "standard deviation of use over capacity of hosts in use",
    ),
    ("Spread of groups", &["replay", "group_spread"], Shown::Share, "largest share of a group on one host"),
    (
        "Placed, fading",
        &["first_failure", "fading", "placed"],
        Shown::Count,
        "VMs before the first rejection, deletes ignored",
    ),
    ("Placed, recovering", &["first_failure", "recovering", "placed"], Shown::Count, "VMs before the first rejection"),
    (
        "Allocated at 100 %",
        &["inflate", "at_100"],
        Shown::Share,
        "of the scarce resource when demand reaches the capacity",
    ),
    (
        "Allocated at the end",
        &["inflate", "at_factor"],
        Shown::Share,
        "of the scarce resource when all demand has arrived",
    ),
    ("One host lost", &["survive", "n1"], Shown::Share, "losses whose VMs all restart elsewhere"),
    ("the worst snapshot", &["survive", "n1_worst"], Shown::Share, "the same at the worst snapshot"),
    ("VMs lost", &["survive", "n1_vms_lost"], Shown::Share, "VMs without a place over VMs on lost hosts"),
    ("Two hosts lost", &["survive", "n2"], Shown::Share, "random pairs whose VMs all restart elsewhere"),
    ("A domain lost", &["survive", "n_domain"], Shown::Share, "failure domains whose VMs all restart elsewhere"),
];

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1c2024;--soft:#5b6570;--line:#d5dae0;--back:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#9aa4af;--line:#3a4149;--back:#16191d}}
*{box-sizing:border-box}body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);margin:0 auto;max-width:64rem;padding:1rem}
h1{font-size:1.5rem;margin:.5rem 0}h2{font-size:1.15rem;margin:2rem 0 .25rem}p{margin:.25rem 0 .75rem}.soft,caption{color:var(--soft);text-align:left}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}th,td{padding:.3rem .7rem .3rem 0;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}td.why{text-align:left;color:var(--soft);white-space:normal;min-width:16rem}svg{width:100%;height:auto;display:block}
svg text{font:12px system-ui,sans-serif;fill:var(--soft)}.axis{stroke:var(--line);stroke-width:1}.curve{fill:none;stroke-width:2;stroke-linejoin:round}
.key{display:flex;flex-wrap:wrap;gap:.25rem 1rem;margin:.25rem 0;padding:0;list-style:none;font-size:.9rem}.key i{display:inline-block;width:1.4rem;height:0;border-top:3px solid;vertical-align:middle;margin-right:.4rem}
@media print{:root{--ink:#000;--soft:#333;--line:#999;--back:#fff}body{max-width:none;font-size:10pt}section{break-inside:avoid}}
";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn at<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(value, |value, key| &value[*key])
}

fn shown(value: &Value, how: Shown) -> String {
    let Some(number) = value.as_f64() else { return "–".to_owned() };
    match how {
        Shown::Count if number.fract() == 0.0 => format!("{number}"),
        Shown::Count => format!("{number:.1}"),
        Shown::Share => format!("{:.1} %", number * 100.0),
        Shown::Factor => format!("{number:.3}"),
    }
}

/// A curve for each policy, over days.
fn curves(study: &Study, done: &[Done], value: impl Fn(&Moment) -> Option<f64>) -> Vec<Line> {
    let line = |(point, done): (Point<'_>, &Done)| {
        let points = done.series.iter().filter_map(|moment| Some((moment.time_s / 86_400.0, value(moment)?)));
        Line::new(&point.policy.name, points.collect())
    };
    study.points().into_iter().zip(done).map(line).filter(|line| !line.points.is_empty()).collect()
}

/// The report of a study.
pub fn report(study: &Study, result: &Value, done: &[Done]) -> String {
    let mut out = String::new();
    let names: Vec<&str> = study.policies.iter().map(|policy| policy.name.as_str()).collect();
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>pallium simulate</title><style>{STYLE}</style></head><body><h1>Placement of {} VMs on {} hosts</h1>\
         <p class=\"soft\">{} events of {} shapes over {:.1} days; seed {}; the first {:.0} % of the time are left out of averages; \
         trace {}, hosts {} (SHA-256); pallium {}.</p>",
        study.inputs.trace.vms.len(),
        study.count,
        study.inputs.trace.events.len(),
        study.inputs.trace.shapes.len(),
        study.inputs.trace.end() as f64 / 86_400_000.0,
        study.inputs.seed,
        study.inputs.warm_up * 100.0,
        &study.inputs.trace.sha256.get(..12).unwrap_or("-"),
        &study.inputs.list.sha256.get(..12).unwrap_or("-"),
        env!("CARGO_PKG_VERSION"),
    );
    let _ = write!(
        out,
        "<div class=\"wide\"><table><caption>What each policy came to, and how it is defined</caption><tr><th></th>"
    );
    for name in &names {
        let _ = write!(out, "<th>{}</th>", escaped(name));
    }
    out.push_str("<th></th></tr>");
    for (label, path, how, why) in METRICS {
        let cells: Vec<&Value> = names.iter().map(|name| at(&result["policies"][*name], path)).collect();
        if cells.iter().all(|cell| cell.is_null()) {
            continue;
        }
        let _ = write!(out, "<tr><td>{label}</td>");
        for cell in cells {
            let _ = write!(out, "<td>{}</td>", shown(cell, how));
        }
        let _ = write!(out, "<td class=\"why\">{why}</td></tr>");
    }
    let bounds = &result["bounds"];
    let _ = write!(
        out,
        "</table></div><p class=\"soft\">Lower bounds of the number of hosts: volume {}, L2 of CPU {}, L2 of memory {}, LP {}. They \
         hold for one instant with free re-packing.</p>",
        shown(&bounds["volume"], Shown::Count),
        shown(&bounds["l2_cpu"], Shown::Count),
        shown(&bounds["l2_mem"], Shown::Count),
        shown(&bounds["lp"], Shown::Count),
    );
    let percent = |value: Option<f64>| value.map(|value| value * 100.0);
    let charts = [
        Chart {
            title: "Hosts in use",
            what: "hosts with a VM, by day",
            unit: "",
            lines: curves(study, done, |moment| Some(moment.hosts_used as f64)),
        },
        Chart {
            title: "Density of CPU",
            what: "use over capacity of the hosts in use, by day",
            unit: " %",
            lines: curves(study, done, |moment| percent(moment.used.cpu)),
        },
        Chart {
            title: "Density of memory",
            what: "use over capacity of the hosts in use, by day",
            unit: " %",
            lines: curves(study, done, |moment| percent(moment.used.mem)),
        },
        Chart {
            title: "Fragmentation",
            what: "free and of no use for the mix, by day",
            unit: " %",
            lines: curves(study, done, |moment| percent(moment.fragmentation)),
        },
        Chart {
            title: "Large slots",
            what: "further VMs of 16 vCPU and 64 GiB, by day",
            unit: "",
            lines: curves(study, done, |moment| moment.large_slots),
        },
        Chart {
            title: "Rejections so far",
            what: "creates without a host, by day",
            unit: "",
            lines: curves(study, done, |moment| Some(moment.rejected as f64)),
        },
        inflation(
            study,
            result,
            "allocated",
            "Allocation under growing demand",
            "% of the scarce resource allocated, by % asked for",
        ),
        inflation(
            study,
            result,
            "fragmentation",
            "Fragmentation under growing demand",
            "% free and of no use, by % asked for",
        ),
    ];
    charts.iter().filter(|chart| !chart.is_flat()).for_each(|chart| chart.draw(&mut out));
    reasons(&mut out, &names, result);
    uncovered(&mut out, &names, result);
    out.push_str("</body></html>\n");
    out
}

fn inflation(study: &Study, result: &Value, key: &str, title: &'static str, what: &'static str) -> Chart {
    let lines = study.policies.iter().filter_map(|policy| {
        let curve = result["policies"][&policy.name]["inflate"]["curve"].as_array()?;
        let percent = |value: &Value| Some(value.as_f64()? * 100.0);
        let points = curve.iter().filter_map(|point| Some((percent(&point["arrived"])?, percent(&point[key])?)));
        Some(Line::new(&policy.name, points.collect()))
    });
    Chart { title, what, unit: " %", lines: lines.collect() }
}

fn reasons(out: &mut String, names: &[&str], result: &Value) {
    let of = |name: &str| &result["policies"][name]["replay"]["rejections"];
    if names.iter().all(|name| of(name)["count"].as_u64().unwrap_or(0) == 0) {
        return;
    }
    out.push_str("<section><h2>Rejections by reason</h2><p class=\"soft\">The first resource that no host had enough of; combination: each by itself would fit somewhere.</p><div class=\"wide\"><table><tr><th></th><th>CPU</th><th>memory</th><th>GPU</th><th>GPU model</th><th>combination</th></tr>");
    for name in names {
        let _ = write!(out, "<tr><td>{}</td>", escaped(name));
        for key in ["cpu", "mem", "gpu", "gpu_model", "combination"] {
            let _ = write!(out, "<td>{}</td>", shown(&of(name)["by_reason"][key], Shown::Count));
        }
        out.push_str("</tr>");
    }
    out.push_str("</table></div></section>");
}

fn uncovered(out: &mut String, names: &[&str], result: &Value) {
    for name in names {
        let Some(hosts) =
            result["policies"][*name]["survive"]["not_covered"].as_array().filter(|hosts| !hosts.is_empty())
        else {
            continue;
        };
        let _ = write!(
            out,
            "<section><h2>Hosts whose loss is not covered: {}</h2><p class=\"soft\">At the last snapshot, the first {} of them.</p>\
             <div class=\"wide\"><table><tr><th>Host</th><th>VMs</th><th>without a place</th></tr>",
            escaped(name),
            hosts.len()
        );
        for host in hosts {
            let lost: Vec<&str> = host["lost"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let _ = write!(
                out,
                "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
                escaped(host["host"].as_str().unwrap_or_default()),
                host["vms"],
                escaped(&lost.join(", "))
            );
        }
        out.push_str("</table></div></section>");
    }
}
