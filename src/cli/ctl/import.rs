//! `ctl import`: loads hosts. The whole file is read and checked before anything is sent.

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::PathBuf;

use api::proto::v1;
use indicatif::{ProgressBar, ProgressStyle};
use operators::{Import, ImportError};
use scheduler::HostReport;
use serde_json::json;

use super::{Client, Target, input};
use crate::cli::output::{Format, complain, emit};
use crate::cli::{Failure, wording};

const EXAMPLES: &str = "\
Examples:
  pallium ctl import fleet.yaml --dry-run
  pallium ctl import fleet.yaml --prune
  kubectl get hypervisors -o json | pallium ctl import -

FILE holds Hypervisor resources (kvm.cloud.sap/v1, hypervisor.c5c3.io/v1) as
kubectl prints them, or a fleet file (`pallium schema fleet`), YAML or JSON.
Loading a file twice changes nothing the second time.";

/// Load hosts from a file
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// File, or - for stdin
    file: PathBuf,
    /// Remove the known hosts that the file does not name
    #[arg(long)]
    prune: bool,
    /// Check the file and tell what would change, change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Bytes of hosts in one message, by their JSON.
const CHUNK: usize = 4 << 20;

pub async fn run(target: &Target, format: Format, args: &Args) -> Result<(), Failure> {
    let (name, text) = input::read(&args.file)?;
    let import = operators::read(&text).map_err(|errors| told(&name, &errors))?;
    for note in &import.notes {
        complain(&format!("note: {note}"));
    }
    if args.prune && import.reports.is_empty() {
        return Err(Failure::new(format!("{name} names no host: --prune would remove every host that is known")));
    }
    let client = Client::connect(target).await?;
    let done = apply(&client, &import.reports, args.prune, args.dry_run).await?;
    for refused in done.results.iter().filter(|result| result.result == "refused") {
        let why = refused.message.as_deref().unwrap_or("no reason was given");
        complain(&format!("refused: {}: {why}", refused.name));
    }
    let value = json!({
        "file": name,
        "kind": import.kind.to_string(),
        "hosts": import.reports.len(),
        "added": done.added,
        "changed": done.changed,
        "removed": done.removed,
        "unchanged": done.unchanged,
        "stale": done.stale,
        "refused": done.refused,
        "dry_run": args.dry_run,
        "skipped": import.skipped.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    emit(format, &value, || summary(&name, &import, &done, args.dry_run))?;
    if done.refused > 0 {
        return Err(Failure::new(format!("{} refused", wording::count(done.refused, "host"))));
    }
    Ok(())
}

fn told(name: &str, errors: &[ImportError]) -> Failure {
    for error in errors {
        complain(&format!("{name}: {error}"));
    }
    Failure::new(format!("{name} has errors: nothing was changed"))
}

fn summary(name: &str, import: &Import, done: &v1::ApplyHostsResponse, dry_run: bool) -> String {
    let mut lines: Vec<String> = import.skipped.iter().map(|skipped| format!("left out: {skipped}")).collect();
    lines.push(format!("{name}: {}, {}", import.kind, wording::count(import.reports.len() as u64, "host")));
    let mut counts = format!(
        "{} added, {} changed, {} removed, {} unchanged",
        done.added, done.changed, done.removed, done.unchanged
    );
    if done.stale > 0 {
        let _ = write!(counts, ", {} older than what is known", done.stale);
    }
    if dry_run {
        counts.push_str(" (dry run: nothing was changed)");
    }
    lines.push(counts);
    lines.join("\n")
}

/// Sends hosts in messages that the server takes; the sums of what they did.
pub async fn apply(
    client: &Client,
    reports: &[HostReport],
    prune: bool,
    dry_run: bool,
) -> Result<v1::ApplyHostsResponse, Failure> {
    let chunks = chunks(reports)?;
    let many = chunks.len() > 1;
    let bar = (many && std::io::stderr().is_terminal()).then(|| progress(reports.len()));
    let mut total = v1::ApplyHostsResponse { dry_run, ..v1::ApplyHostsResponse::default() };
    let mut sent: Vec<v1::HostKey> = Vec::new();
    let last = chunks.len().saturating_sub(1);
    for (at, hosts) in chunks.into_iter().enumerate() {
        let is_last = at == last;
        let count = hosts.len();
        let keys: Vec<v1::HostKey> =
            if prune && many && !is_last { hosts.iter().map(key).collect() } else { Vec::new() };
        let keep = if prune && is_last { std::mem::take(&mut sent) } else { Vec::new() };
        let request = v1::ApplyHostsRequest { hosts, prune: prune && is_last, keep, dry_run };
        let done = client.inventory().apply(request).await.map_err(|status| client.refusal(&status))?.into_inner();
        sent.extend(keys);
        total.added += done.added;
        total.changed += done.changed;
        total.removed += done.removed;
        total.unchanged += done.unchanged;
        total.stale += done.stale;
        total.refused += done.refused;
        total.results.extend(done.results);
        match &bar {
            Some(bar) => bar.inc(count as u64),
            None if many => {
                complain(&format!("{} of {} sent", total.results.len(), wording::count(reports.len() as u64, "host")));
            }
            None => {}
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    Ok(total)
}

fn progress(hosts: usize) -> ProgressBar {
    let bar = ProgressBar::new(hosts as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos} of {len} hosts") {
        bar.set_style(style);
    }
    bar
}

fn key(host: &v1::HostReport) -> v1::HostKey {
    v1::HostKey {
        domain: host.domain.clone(),
        name: host.name.clone(),
        hypervisor_hostname: host.hypervisor_hostname.clone(),
        uuid: host.uuid.clone(),
    }
}

fn chunks(reports: &[HostReport]) -> Result<Vec<Vec<v1::HostReport>>, Failure> {
    let mut out = vec![Vec::new()];
    let mut size = 0;
    for report in reports {
        let text = serde_json::to_string(report).map_err(|error| Failure::new(error.to_string()))?;
        // A host of the fleet file is the JSON of the message.
        let host = serde_json::from_str(&text).map_err(|error| Failure::new(format!("{}: {error}", report.name)))?;
        if size + text.len() > CHUNK && size > 0 {
            out.push(Vec::new());
            size = 0;
        }
        size += text.len();
        if let Some(chunk) = out.last_mut() {
            chunk.push(host);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_fleet_is_cut_into_messages() {
        let fleet = simulation::FleetSpec::new(2000, 1).generate();
        let chunks = chunks(&fleet).unwrap();
        assert!(chunks.len() > 1);
        let names: Vec<&str> = chunks.iter().flatten().map(|host| host.name.as_str()).collect();
        assert_eq!(names, fleet.iter().map(|host| host.name.as_str()).collect::<Vec<_>>());
        let first = &chunks[0][0];
        assert_eq!(first.instances.as_ref().unwrap().items.len(), fleet[0].instances.as_ref().unwrap().len());
        assert_eq!(super::chunks(&[]).unwrap().len(), 1, "an empty list can still prune");
    }
}
