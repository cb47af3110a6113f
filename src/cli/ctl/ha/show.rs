//! Failover in tables and words.

use std::collections::BTreeMap;
use std::fmt::Write;

use api::proto::ha;

use super::super::Client;
use crate::cli::output::{listing, number, text};
use crate::cli::{Failure, wording};

/// Names in one line.
const NAMED: usize = 8;

fn counts(counts: &BTreeMap<String, u64>) -> String {
    let mut parts: Vec<_> = counts.iter().map(|(name, count)| format!("{count} {}", name.replace('_', " "))).collect();
    parts.sort_unstable_by(|one, other| other.len().cmp(&one.len()).then(one.cmp(other)));
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

fn names(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let first: Vec<_> = names.iter().take(NAMED).map(String::as_str).collect();
    if more == 0 { first.join(", ") } else { format!("{} and {more} more", first.join(", ")) }
}

pub fn status(status: &ha::FailoverStatusResponse) -> String {
    let mode = match status.mode.as_str() {
        "enforce" => "it fences and evacuates",
        "dry_run" => "dry run: it decides, and does nothing (ha.mode)",
        "level" => "it waits for its feature level: upgrade every node (pallium ctl cluster status)",
        _ => "off: hosts are watched, nothing is done (ha.mode)",
    };
    let mut lines = vec![
        format!("failover   {mode}"),
        format!("hosts      {}: {}", status.hosts, counts(&status.detections)),
        format!("instances  {} have a place", wording::grouped(status.permits)),
        format!("cases      {}", counts(&status.phases)),
    ];
    if !status.instances.is_empty() {
        lines.push(format!("recovery   {}", counts(&status.instances)));
    }
    let single = status.policies.iter().all(|under| under.policies.is_empty() && under.mode == "enforce");
    for under in status.policies.iter().filter(|_| !single) {
        lines.push(format!("policy     {}: {}, {} hosts", chain(&under.policies), mode_of(&under.mode), under.hosts));
    }
    for stop in &status.stops {
        let act = match stop.act.as_str() {
            "kill" => "fencing",
            "recover" => "evacuations",
            _ => "everything",
        };
        let rest = stop.rest_ms.map(|rest| format!(", for {} still", wording::duration(rest))).unwrap_or_default();
        lines.push(format!("STOPPED    {act}: {}{rest}", stop.why));
    }
    for breaker in &status.breakers {
        let answer = breaker.answer.as_ref().map(|answer| format!("; answered: {answer}")).unwrap_or_default();
        lines.push(format!(
            "BREAKER    {}: {} of {} hosts ({} open it): {}, for {}{answer}",
            breaker.scope,
            breaker.unavailable,
            breaker.hosts,
            breaker.threshold,
            breaker.why,
            wording::duration(breaker.open_ms)
        ));
    }
    lines.extend(zones(&status.zones));
    for (label, hosts) in [
        ("UNCHECKED  no permit check on", &status.unchecked),
        ("QUARANTINE", &status.quarantined),
        ("QUARANTINE instances", &status.quarantined_instances),
    ] {
        if !hosts.is_empty() {
            lines.push(format!("{label} {}", names(hosts)));
        }
    }
    for unfenced in status.unfenced.iter().take(NAMED) {
        let (host, why, since) = (&unfenced.host, &unfenced.why, wording::duration(unfenced.since_ms));
        let counts = if unfenced.unprotected { ", counts as not protected" } else { "" };
        lines.push(format!("UNFENCED   {host}, for {since}{counts}: {why}"));
    }
    if let more @ 1.. = status.unfenced.len().saturating_sub(NAMED) {
        lines.push(format!("UNFENCED   and {more} more (-o json names them)"));
    }
    for order in status.orders.iter().take(NAMED) {
        let host = order.host.as_ref().map(|host| format!(", of {host}")).unwrap_or_default();
        let rest = match order.rest_ms {
            Some(0) => ", over".to_owned(),
            Some(rest) => format!(", for {} still", wording::duration(rest)),
            None => String::new(),
        };
        let (at, what, actor) = (wording::utc(order.wall_ms), &order.what, &order.actor);
        lines.push(format!("order      {at} {actor} {what}{host}: {}{rest}", order.reason));
    }
    lines.join("\n")
}

/// Zones that are not as ever, each in a line, and how many are.
fn zones(zones: &[ha::FailoverZone]) -> Vec<String> {
    let (normal, others): (Vec<_>, Vec<_>) = zones.iter().partition(|zone| zone.mode == "normal");
    let others = others.into_iter().map(|zone| {
        let (name, of) = (&zone.zone, format!("{} of {} hosts away", zone.unavailable, zone.hosts));
        match zone.mode.as_str() {
            "full" => format!("ZONE       {name}: full: no host is heard, none is fenced unasked"),
            "all_full" => format!("ZONE       {name}: all full: no host of any zone is heard, nothing is done"),
            mode => format!("ZONE       {name}: {mode}: {of}, no fence unasked, evacuations slow"),
        }
    });
    let mut lines: Vec<_> = others.collect();
    if !normal.is_empty() {
        lines.push(format!("zones      {} normal", normal.len()));
    }
    lines
}

/// Policies that hosts are under, the most specific first.
fn chain(policies: &[String]) -> String {
    if policies.is_empty() { "default".to_owned() } else { policies.join(" over ") }
}

/// A mode as the document has it.
pub fn mode_of(mode: &str) -> String {
    mode.replace('_', "-")
}

pub fn hosts(hosts: &[ha::FailoverHost]) -> String {
    if hosts.is_empty() {
        return "no host; tell which ones to watch: pallium ctl ha apply FILE".to_owned();
    }
    let columns = [
        text("HOST", 0),
        text("STATE", 0),
        number("HEARD", 1),
        number("LIFE", 4),
        number("INSTANCES", 2),
        text("CASE", 0),
        text("FENCED BY", 4),
        text("POLICY", 3),
        text("NOTES", 1),
    ];
    let dash = || "-".to_owned();
    let rows: Vec<Vec<String>> = hosts
        .iter()
        .map(|host| {
            let mut notes = Vec::new();
            let flags = [
                (!host.enabled, "not protected"),
                (host.quarantined, "quarantine"),
                (host.forced_down, "forced down"),
                (host.disabled, "disabled"),
                (host.exempt_ms.is_some(), "exempt"),
                (host.incarnation == 0, "never said Hello"),
            ];
            notes.extend(flags.iter().filter(|(is, _)| *is).map(|(_, note)| (*note).to_owned()));
            if let Some(left) = host.away_ms {
                notes.push(format!("went down on purpose, missed in {}", wording::duration(left)));
            }
            if host.maintenance != "none" {
                notes.push(format!("maintenance {}", host.maintenance));
            }
            // Else it is plain why.
            let plain = host.quarantined || host.maintenance != "none" || host.phase.is_some();
            if let Some(why) = host.cordon.as_ref().filter(|_| !plain) {
                notes.push(format!("takes nothing new: it {why}"));
            }
            vec![
                host.host.clone(),
                host.detection.clone(),
                host.age_ms.map_or_else(dash, |age| format!("{} ago", wording::duration(age))),
                host.incarnation.to_string(),
                host.permits.to_string(),
                host.phase.as_ref().map_or_else(dash, |phase| phase.replace('_', " ")),
                host.fencers.join(", "),
                format!("{} ({})", chain(&host.policies), mode_of(&host.mode)),
                if notes.is_empty() { dash() } else { notes.join(", ") },
            ]
        })
        .collect();
    listing(&columns, &rows)
}

pub fn drains(drains: &[ha::FailoverDrain]) -> String {
    if drains.is_empty() {
        return "no drain".to_owned();
    }
    let columns = [
        text("HOST", 0),
        text("STAGE", 0),
        number("SINCE", 1),
        number("MOVED", 0),
        number("LEFT", 0),
        text("NOTES", 0),
    ];
    let dash = || "-".to_owned();
    let rows: Vec<Vec<String>> = drains
        .iter()
        .map(|drain| {
            let mut notes: Vec<String> = drain.waits.iter().map(|why| format!("waits {why}")).collect();
            notes.extend((drain.maintenance != "none").then(|| format!("away for {}", drain.maintenance)));
            notes.extend(drain.disabled.then(|| "disabled".to_owned()));
            vec![
                drain.host.clone(),
                drain.stage.clone(),
                wording::duration(drain.stage_ms),
                drain.moved.to_string(),
                drain.remaining.to_string(),
                if notes.is_empty() { dash() } else { notes.join(", ") },
            ]
        })
        .collect();
    let mut told = listing(&columns, &rows);
    for drain in drains {
        for moving in &drain.moves {
            let how = if moving.live { "live" } else { "stopped" };
            let since = wording::duration(moving.state_ms);
            let _ = write!(
                told,
                "\n{} {} to {}, {how}, {} since {since}, try {}",
                drain.host, moving.instance, moving.target, moving.state, moving.tries
            );
        }
        for left in &drain.left {
            let _ = write!(told, "\n{} {} stays: {}", drain.host, left.instance, stays(&left.why));
        }
    }
    told
}

/// Why an instance of a drained host stays, in words.
fn stays(why: &str) -> &str {
    match why {
        "state" => "it is in error, or neither active nor stopped",
        "busy" => "something is being done with it",
        "no_target" => "no host has room for it",
        "tried" => "three migrations of it failed",
        "permit" => "it may run elsewhere only",
        "fixed" => "it cannot be moved",
        other => other,
    }
}

pub fn losses(losses: &[ha::FailoverLoss]) -> String {
    let Some(worst) = losses.first() else {
        return "no host that failover watches has an instance of a known size".to_owned();
    };
    let columns = [text("HOST", 0), number("INSTANCES", 0), number("WITHOUT ROOM", 0)];
    let row = |loss: &ha::FailoverLoss| vec![loss.host.clone(), loss.instances.to_string(), loss.left.to_string()];
    let uncovered = losses.iter().filter(|loss| loss.left > 0).count();
    let verdict = match worst.left {
        0 => format!("any one of these {} could be lost, by capacity", losses.len()),
        _ => format!("{uncovered} of these {} could not be lost: their instances would find no room", losses.len()),
    };
    format!("{}\n{verdict}", listing(&columns, &losses.iter().map(row).collect::<Vec<_>>()))
}

pub fn cases(cases: &[ha::FailoverCase]) -> String {
    if cases.is_empty() {
        return "no case".to_owned();
    }
    let columns = [
        text("HOST", 0),
        text("PHASE", 0),
        number("SINCE", 1),
        text("CAUSE", 3),
        text("INSTANCES", 1),
        text("WAITS FOR", 0),
    ];
    let rows: Vec<Vec<String>> = cases
        .iter()
        .map(|case| {
            vec![
                case.host.clone(),
                case.phase.replace('_', " "),
                wording::duration(case.phase_ms),
                case.cause.replace('_', " "),
                counts(&case.counts),
                waits(case).unwrap_or_else(|| "-".to_owned()),
            ]
        })
        .collect();
    listing(&columns, &rows)
}

/// Who ordered something, and why.
fn who(actor: Option<&str>, reason: Option<&str>) -> String {
    actor.map(|actor| format!(", by {actor}: {}", reason.unwrap_or_default())).unwrap_or_default()
}

fn waits(case: &ha::FailoverCase) -> Option<String> {
    let held = |act: &str, why: &Option<String>| why.as_ref().map(|why| format!("{act} is held: {why}"));
    let operator = case.needs_operator.as_ref().map(|why| format!("an operator: {why}"));
    let would = case.would.as_ref().map(|would| format!("dry run: it would {would}"));
    would.or(operator).or_else(|| held("fencing", &case.held_kill)).or_else(|| held("evacuation", &case.held_recover))
}

pub fn case(case: &ha::FailoverCase) -> String {
    let mut lines = vec![
        format!("case       {}", case.id),
        format!("host       {}", case.host),
        format!("phase      {}, for {}", case.phase.replace('_', " "), wording::duration(case.phase_ms)),
        format!("opened by  {}", case.cause.replace('_', " ")),
    ];
    lines.push(format!("proof      {}", case.proof.as_deref().unwrap_or("none: it may still run")));
    if let Some(waits) = waits(case) {
        lines.push(format!("WAITS FOR  {waits}"));
    }
    lines.push(String::new());
    for step in &case.steps {
        let (at, what) = (wording::utc(step.wall_ms), step.what.replace('_', " "));
        let who = who(step.actor.as_deref(), step.reason.as_deref());
        let until = step.until_ms.map(|until| format!(", until {}", wording::utc(until))).unwrap_or_default();
        lines.push(format!("{at}  {what}{who}{until}  (node {}, term {})", step.node, step.term));
    }
    if !case.instances.is_empty() {
        lines.push(String::new());
        let columns = [
            text("INSTANCE", 0),
            text("STATE", 0),
            text("RANK", 3),
            text("WHY", 1),
            text("TARGET", 0),
            number("TRY", 2),
            text("CALL", 3),
        ];
        let dash = || "-".to_owned();
        let rows: Vec<Vec<String>> = case
            .instances
            .iter()
            .map(|instance| {
                vec![
                    instance.instance.clone(),
                    instance.state.clone(),
                    instance.rank.clone(),
                    instance.why.as_ref().map_or_else(dash, |why| why.replace('_', " ")),
                    instance.target.clone().unwrap_or_else(dash),
                    instance.attempt.to_string(),
                    instance.attempt_state.clone().unwrap_or_else(dash),
                ]
            })
            .collect();
        lines.push(listing(&columns, &rows));
    }
    lines.join("\n")
}

/// Instances that may run on a host.
pub async fn protected(client: &Client, host: &str) -> Result<u64, Failure> {
    let all = super::hosts(client, None).await?;
    Ok(all.hosts.iter().find(|known| known.host == host).map_or(0, |known| known.permits))
}
