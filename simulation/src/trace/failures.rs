//! When hosts fail and come back: as a file says it (`failures.csv`), or at times drawn from rates.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use hashbrown::HashMap;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::events::LATEST;
use super::hosts::Host;
use super::table::{BadInput, Table, read};

/// Most turns of a run: they are kept in memory.
const MOST: usize = 1_000_000;
const COLUMNS: &[&str] = &["time_s", "node_id", "event"];

/// A host fails or comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Milliseconds from the start of the trace.
    pub time: u64,
    /// The host, by its place.
    pub host: u32,
    /// It comes back.
    pub up: bool,
}

/// Which hosts fail.
#[derive(Clone, Debug)]
pub enum Failures {
    /// As a file lists them.
    Listed {
        /// In order of time.
        turns: Arc<[Turn]>,
        /// SHA-256 of the file, hex.
        sha256: String,
    },
    /// As they are drawn.
    Drawn(Rates),
}

/// How often hosts fail. Times are exponential.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Mean time of a host from its return, or the start, to its failure, seconds.
    pub mtbf_s: f64,
    /// Mean time to its return, seconds.
    pub mttr_s: f64,
    /// Share of failures that take the host's whole failure domain.
    pub domain_share: f64,
}

impl Failures {
    /// Reads a file for these hosts.
    pub fn open(path: &Path, hosts: &[Host]) -> Result<Self, BadInput> {
        let (bytes, sha256) = read(path)?;
        Ok(Self::Listed { turns: listed(&path.display().to_string(), bytes, hosts)?.into(), sha256 })
    }

    /// What happens to these hosts, in order of time.
    pub fn turns(&self, hosts: &[Host], begin: u64, end: u64, seed: u64) -> Result<Vec<Turn>, String> {
        match self {
            Self::Listed { turns, .. } => Ok(turns.to_vec()),
            Self::Drawn(rates) => rates.draw(hosts, begin, end, seed),
        }
    }

    /// What `result.json` says of them.
    pub fn told(&self) -> Value {
        match self {
            Self::Listed { turns, sha256 } => json!({ "sha256": sha256, "turns": turns.len() }),
            Self::Drawn(Rates { mtbf_s, mttr_s, domain_share }) => {
                json!({ "mtbf_s": mtbf_s, "mttr_s": mttr_s, "domain_share": domain_share })
            }
        }
    }
}

/// Reads bytes; `file` is for messages.
pub fn listed(file: &str, bytes: Vec<u8>, hosts: &[Host]) -> Result<Vec<Turn>, BadInput> {
    let mut table = Table::new(file, bytes, COLUMNS, 0)?;
    let places: HashMap<&str, u32> = (0..).zip(hosts).map(|(at, host)| (&*host.id, at)).collect();
    let mut is_up = vec![true; hosts.len()];
    let mut turns: Vec<Turn> = Vec::new();
    while let Some(line) = table.next_line()? {
        let time = line.given(0, line.thousandths(0, LATEST)?)?;
        if let Some(last) = turns.last().filter(|last| time < last.time) {
            let (given, before) = (time as f64 / 1000.0, last.time as f64 / 1000.0);
            return Err(line.wrong_cell(0, format!("{given} given after {before}: events in order of time expected")));
        }
        let id = line.name(1)?;
        let Some(&host) = places.get(id) else {
            let what = format!("{id} is none of the {} hosts of this run, one of them expected", hosts.len());
            return Err(line.wrong_cell(1, what));
        };
        let up = match line.text(2)? {
            "fail" => false,
            "recover" => true,
            other => {
                return Err(line.wrong_cell(2, format!("'{}' given, fail or recover expected", other.escape_debug())));
            }
        };
        let was_up = std::mem::replace(&mut is_up[host as usize], up);
        if up == was_up {
            let what = if up { "recovers and is not down, a fail" } else { "fails and is down already, a recover" };
            return Err(line.wrong_cell(2, format!("{id} {what} before it expected")));
        }
        if turns.len() >= MOST {
            return Err(line.wrong(format!("more than {MOST} events, fewer expected")));
        }
        turns.push(Turn { time, host, up });
    }
    if turns.is_empty() {
        let what = "no fail given, at least one expected".to_owned();
        return Err(BadInput::File { file: file.to_owned(), what });
    }
    Ok(turns)
}

impl Rates {
    /// Draws times from `begin` to `end`, milliseconds: each host has a stream of its own, and all are up when it begins.
    pub fn draw(&self, hosts: &[Host], begin: u64, end: u64, seed: u64) -> Result<Vec<Turn>, String> {
        let stream =
            |host: usize| SmallRng::seed_from_u64(seed ^ (host as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut streams: Vec<SmallRng> = (0..hosts.len()).map(stream).collect();
        let mut share = |host: u32| streams[host as usize].random::<f64>();
        let after = |time: u64, mean_s: f64, share: f64| {
            time.saturating_add((-(1.0 - share).ln() * mean_s * 1000.0).round().max(1.0) as u64)
        };
        let mut domains: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for (at, host) in (0..).zip(hosts).filter(|(_, host)| !host.domain.is_empty()) {
            domains.entry(&host.domain).or_default().push(at);
        }
        // What is next of each host: when, and whether it comes back then.
        let mut next: Vec<(u64, bool)> =
            (0..).zip(hosts).map(|(at, _)| (after(begin, self.mtbf_s, share(at)), false)).collect();
        let mut due: BTreeSet<(u64, u32)> = (0..).zip(&next).map(|(at, &(time, _))| (time, at)).collect();
        let mut turns = Vec::new();
        while let Some((time, host)) = due.pop_first().filter(|(time, _)| *time <= end) {
            let taken = if next[host as usize].1 {
                next[host as usize] = (after(time, self.mtbf_s, share(host)), false);
                turns.push(Turn { time, host, up: true });
                vec![host]
            } else {
                // Drawn whatever the share is: with another one no more of the times changes than must.
                let whole = share(host) < self.domain_share;
                let back = after(time, self.mttr_s, share(host));
                let domain = domains.get(&*hosts[host as usize].domain).filter(|_| whole);
                let mut taken = domain.cloned().unwrap_or_else(|| vec![host]);
                taken.retain(|&host| !next[host as usize].1);
                for &host in &taken {
                    due.remove(&(next[host as usize].0, host));
                    next[host as usize] = (back, true);
                    turns.push(Turn { time, host, up: false });
                }
                taken
            };
            due.extend(taken.into_iter().map(|host| (next[host as usize].0, host)));
            if turns.len() > MOST {
                return Err(format!(
                    "more than {MOST} failures and returns are drawn: longer times between them expected"
                ));
            }
        }
        Ok(turns)
    }
}
