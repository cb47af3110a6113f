//! Detectors: functions that name instances which should leave their host, each with a reason.

use std::collections::BTreeMap;

use super::{Site, share};

/// An instance that should leave its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detection {
    /// It.
    pub item: u32,
    /// Place of its host among the sites.
    pub host: usize,
    /// Why.
    pub reason: String,
}

/// What several detectors say together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Combined {
    /// One for each instance, by its number.
    pub kept: Vec<Detection>,
    /// Instances of which detectors say different hosts: they stay.
    pub disputed: Vec<u32>,
}

/// Detections of several detectors, each with its name: reasons are joined in the order of the names.
pub fn combined(mut found: Vec<(&str, Vec<Detection>)>) -> Combined {
    found.sort_by_key(|(name, _)| *name);
    let mut by_item: BTreeMap<u32, Vec<Detection>> = BTreeMap::new();
    for one in found.into_iter().flat_map(|(_, found)| found) {
        by_item.entry(one.item).or_default().push(one);
    }
    let mut out = Combined::default();
    for (item, found) in by_item {
        let host = found[0].host;
        if found.iter().any(|other| other.host != host) {
            out.disputed.push(item);
            continue;
        }
        let reasons: Vec<&str> = found.iter().map(|one| one.reason.as_str()).collect();
        let reason = match reasons[..] {
            [reason] => reason.to_owned(),
            _ => format!("multiple reasons: {}", reasons.join("; ")),
        };
        out.kept.push(Detection { item, host, reason });
    }
    out
}

/// Use of a site as a share of its capacity, CPU and memory.
pub(super) fn levels(site: &Site) -> [f64; 2] {
    std::array::from_fn(|r| share(site.capacity[r].saturating_sub(site.free[r]), site.capacity[r]))
}

/// Movable instances of hosts of which more than a share of CPU or memory is in use.
pub fn fuller_than(sites: &[Site], most: [f64; 2]) -> Vec<Detection> {
    let mut out = Vec::new();
    for (host, site) in sites.iter().enumerate() {
        let levels = levels(site);
        let Some(r) = (0..2).find(|&r| levels[r] > most[r]) else { continue };
        let what = ["CPU", "memory"][r];
        let reason = format!("{what} of its host is {:.1} % in use, above {:.1} %", levels[r] * 100.0, most[r] * 100.0);
        let movable = site.items.iter().filter(|item| item.movable);
        out.extend(movable.map(|item| Detection { item: item.id, host, reason: reason.clone() }));
    }
    out
}

/// The same where more is in use than the mean of all hosts and so much more.
pub fn above_mean(sites: &[Site], by: f64) -> Vec<Detection> {
    let counted: Vec<[f64; 2]> = sites.iter().filter(|site| site.capacity != [0; 2]).map(levels).collect();
    let mean = |r: usize| counted.iter().map(|levels| levels[r]).sum::<f64>() / counted.len().max(1) as f64;
    fuller_than(sites, [mean(0) + by, mean(1) + by])
}

/// Instances with a value of theirs above a threshold, as (instance, host, value); a threshold of 0 and below detects nothing.
pub fn above(values: &[(u32, usize, f64)], threshold: f64, what: &str) -> Vec<Detection> {
    let over = values.iter().filter(|(.., value)| threshold > 0.0 && *value > threshold);
    let told = |&(item, host, value): &(u32, usize, f64)| Detection {
        item,
        host,
        reason: format!("{what} {value:.2}, above {threshold:.2}"),
    };
    over.map(told).collect()
}
