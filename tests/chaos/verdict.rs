//! What is checked when all is healed: the nodes agree, and the history has an order.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::check::counter::Bounds;
use crate::check::register::{self, Call, Host};
use crate::check::{Timed, Verdict};
use crate::cluster::Cluster;
use crate::nemesis::RECOVERY;
use crate::workload::{HOSTS, Workload, claims, host_name, places};

/// Time for the search of one instance's order.
const SEARCH: Duration = Duration::from_secs(20);
/// Calls before the one without an order that are shown.
const SHOWN: usize = 30;
const PAUSE: Duration = Duration::from_millis(100);

/// What was checked.
#[derive(Default)]
pub struct Report {
    /// Checks that passed.
    pub passed: u64,
    /// What failed, in words.
    pub failed: Vec<String>,
}

impl Report {
    /// Adds a check.
    pub fn check(&mut self, failure: Option<String>) {
        match failure {
            None => self.passed += 1,
            Some(failure) => self.failed.push(failure),
        }
    }
}

/// Checks the nodes against each other, and records what they have as the last reads of the history.
pub async fn agreement(cluster: &Cluster, workload: &Workload, report: &mut Report) {
    report.check(checksums(cluster, workload).await.err());
    let mut lists = Vec::new();
    for &id in &cluster.voters {
        let from = workload.history.now();
        let instances = everything(cluster, workload, id, "instances").await;
        let to = workload.history.now();
        if let Some(instances) = &instances {
            last_reads(workload, instances, from, to);
        }
        lists.push((instances, everything(cluster, workload, id, "hosts").await));
    }
    let complete = lists.iter().all(|(instances, hosts)| instances.is_some() && hosts.is_some());
    report.check((!complete).then(|| "a node does not list what it has".to_owned()));
    let equal = lists.windows(2).all(|two| two[0] == two[1]);
    report.check((!equal).then(|| format!("the nodes list different things: {lists:?}")));
}

/// Ends the nodes and reads what lies in their folders.
pub fn folders(cluster: &mut Cluster, report: &mut Report) {
    for id in cluster.voters.clone() {
        cluster.kill(id);
        let whole = match raft::verify::verify(&cluster.data(id)) {
            Ok(found) if found.damaged.is_empty() => None,
            Ok(found) => Some(format!("the folder of node {id} is damaged: {}", found.damaged.join("; "))),
            Err(error) => Some(format!("the folder of node {id} cannot be read: {error}")),
        };
        report.check(whole);
    }
}

/// Waits until all members have applied the same and have the same checksum.
async fn checksums(cluster: &Cluster, workload: &Workload) -> Result<(), String> {
    let until = Instant::now() + RECOVERY;
    loop {
        let status = workload.http.get(&format!("{}/v1/cluster", cluster.url(cluster.voters[0]))).await;
        let status = status.unwrap_or_default();
        let members = status["members"].as_array().cloned().unwrap_or_default();
        let sums: Vec<_> = members.iter().map(|member| (&member["commands"], &member["checksum"])).collect();
        let known = sums.len() == cluster.voters.len() && sums.iter().all(|sum| sum.1.is_string());
        if known && sums.windows(2).all(|two| two[0] == two[1]) {
            println!("checksums equal: {} at {} commands", sums[0].1, sums[0].0);
            return Ok(());
        }
        if Instant::now() > until {
            return Err(format!("the states of the nodes are not equal: {status}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// All pages of a list, without what depends on the time of asking.
async fn everything(cluster: &Cluster, workload: &Workload, id: u64, list: &str) -> Option<Value> {
    let mut all = Vec::new();
    let mut token = String::new();
    loop {
        let url = format!("{}/v1/{list}?page_size=1000&page_token={token}", cluster.url(id));
        let url = url.trim_end_matches("&page_token=");
        let until = Instant::now() + RECOVERY;
        let page = loop {
            match workload.http.get(url).await {
                Some(page) => break page,
                None if Instant::now() > until => return None,
                None => tokio::time::sleep(PAUSE).await,
            }
        };
        all.extend(page[list].as_array()?.iter().cloned());
        match page["next_page_token"].as_str() {
            Some(next) if !next.is_empty() => next.clone_into(&mut token),
            _ => break,
        }
    }
    for item in &mut all {
        if let Some(map) = item.as_object_mut() {
            map.remove("expires_in_ms");
        }
    }
    Some(serde_json::json!({list: all}))
}

/// The whole list is a read of every instance there ever was, and of every host.
fn last_reads(workload: &Workload, instances: &Value, from: u64, to: u64) {
    let claims = match claims(instances) {
        Ok(claims) => claims,
        Err(what) => return workload.history.wrong(what),
    };
    let known: Vec<u64> = workload.history.records().calls.keys().copied().collect();
    for instance in
        known.into_iter().chain(claims.iter().map(|claim| claim.0)).collect::<std::collections::BTreeSet<_>>()
    {
        workload.history.call(instance, Call::List(places(&claims, instance)), from, Some(to));
    }
    for host in 0..HOSTS {
        let count = claims.iter().filter(|claim| claim.2 == host).count() as i64;
        workload.history.count(host, from, to, count);
    }
}

/// Checks the history.
pub fn history(workload: &Workload, report: &mut Report) {
    let records = workload.history.records();
    let mut bounds = Bounds::default();
    for (instance, calls) in &records.calls {
        bounds.add(HOSTS, calls);
        report.check(match register::check(HOSTS, calls, SEARCH) {
            Verdict::Ordered => None,
            Verdict::Undecided => {
                Some(format!("instance {instance}: {} calls, no order found in time: use it less", calls.len()))
            }
            Verdict::Broken(at) => {
                Some(format!("instance {instance}: no order explains call {at}:\n{}", shown(calls, at)))
            }
        });
    }
    for host in 0..HOSTS {
        report.check(counts(&bounds, host, records.counts.get(&host).map_or(&[], Vec::as_slice)));
    }
    for wrong in &records.wrong {
        report.check(Some(wrong.clone()));
    }
}

fn counts(bounds: &Bounds, host: Host, reads: &[(u64, u64, i64)]) -> Option<String> {
    let impossible = bounds.impossible(host, reads);
    let first = impossible.first()?;
    Some(format!(
        "{}: {} of {} counts cannot be, the first: {} claims at {:.6} to {:.6} s",
        host_name(host),
        impossible.len(),
        reads.len(),
        first.2,
        seconds(first.0),
        seconds(first.1)
    ))
}

fn seconds(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64()
}

/// The calls up to the one that broke the order, in the order of their invocation, without those that
/// saw the instance not on a host.
fn shown(calls: &[Timed<Call>], broken: usize) -> String {
    let end = calls[broken].to.unwrap_or(u64::MAX);
    let mut order: Vec<usize> = (0..calls.len())
        .filter(|&at| calls[at].from <= end)
        .filter(|&at| at == broken || !matches!(calls[at].call, Call::On { seen: [false, false], .. }))
        .collect();
    order.sort_by_key(|&at| calls[at].from);
    let line = |&at: &usize| {
        let Timed { call, from, to } = &calls[at];
        let to = to.map_or_else(|| "never".to_owned(), |to| format!("{:.6}", seconds(to)));
        format!("  {at}: {:.6} to {to}: {call:?}\n", seconds(*from))
    };
    order[order.len().saturating_sub(SHOWN)..].iter().map(line).collect()
}
