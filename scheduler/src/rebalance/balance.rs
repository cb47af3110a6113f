//! Evening out: instances that detectors name go from fuller to emptier hosts.

use std::collections::BTreeMap;

use super::coverage::{covered_but, uncovered};
use super::detect::{Detection, levels};
use super::{Item, MEMORY, Move, Site, Step, carry_out, fits, share, take_back};

/// Σ and Σ² of the use of hosts, CPU and memory, as shares of their capacity.
#[derive(Clone, Copy)]
struct Spread {
    count: f64,
    sums: [[f64; 2]; 2],
}

impl Spread {
    fn of(sites: &[Site]) -> Self {
        let mut spread = Self { count: 0.0, sums: [[0.0; 2]; 2] };
        for site in sites.iter().filter(|site| site.capacity != [0; 2]) {
            spread.count += 1.0;
            spread.add(levels(site), 1.0);
        }
        spread
    }

    fn add(&mut self, levels: [f64; 2], sign: f64) {
        for (sums, level) in self.sums.iter_mut().zip(levels) {
            sums[0] += sign * level;
            sums[1] += sign * level * level;
        }
    }

    fn deviation(&self) -> f64 {
        let of = |[sum, squares]: [f64; 2]| {
            let mean = sum / self.count.max(1.0);
            (squares / self.count.max(1.0) - mean * mean).max(0.0).sqrt()
        };
        self.sums.into_iter().map(of).sum()
    }

    /// The deviation when an item has gone from one site to another.
    fn after(mut self, item: &Item, from: &Site, to: &Site) -> f64 {
        for (site, sign) in [(from, -1.0), (to, 1.0)] {
            let before = levels(site);
            self.add(before, -1.0);
            self.add(std::array::from_fn(|r| before[r] + sign * share(item.sizes[r], site.capacity[r])), 1.0);
        }
        self.deviation()
    }
}

/// Standard deviation of the use of hosts as a share of their capacity, over all hosts: that of CPU plus that of memory.
pub fn imbalance(sites: &[Site]) -> f64 {
    Spread::of(sites).deviation()
}

/// Steps of one move each, at most `most`: of the fullest host on which something was detected, the instance and the emptier
/// host that lower the imbalance most, by at least `least`. `allowed` says whether an instance may go to a host, beyond its
/// size.
pub fn balance(
    sites: &[Site],
    detected: &[Detection],
    most: usize,
    least: f64,
    allowed: impl Fn(u32, usize) -> bool,
) -> Vec<Step> {
    let mut sites = sites.to_vec();
    let before = uncovered(&sites);
    let mut left: BTreeMap<usize, Vec<(Item, &str)>> = BTreeMap::new();
    for one in detected {
        let items = sites.get(one.host).map_or(&[][..], |site| &site.items);
        if let Some(item) = items.iter().find(|item| item.id == one.item && item.movable) {
            left.entry(one.host).or_default().push((*item, &one.reason));
        }
    }
    let level = |site: &Site| levels(site).into_iter().sum::<f64>();
    let mut steps = Vec::new();
    while steps.len() < most {
        let fullest = |one: &&usize, other: &&usize| level(&sites[**one]).total_cmp(&level(&sites[**other]));
        let Some(from) = left.keys().max_by(fullest).copied() else { break };
        let spread = Spread::of(&sites);
        let (now, full) = (spread.deviation(), level(&sites[from]));
        let emptier: Vec<usize> =
            (0..sites.len()).filter(|&at| sites[at].capacity != [0; 2] && level(&sites[at]) < full).collect();
        let mut best: Option<(f64, usize, usize)> = None;
        for (at, (item, _)) in left[&from].iter().enumerate() {
            for &to in emptier.iter().filter(|&&to| fits(item.sizes, sites[to].free)) {
                let gain = now - spread.after(item, &sites[from], &sites[to]);
                if gain >= least && best.is_none_or(|best| gain > best.0) && allowed(item.id, to) {
                    best = Some((gain, at, to));
                }
            }
        }
        let Some((_, at, to)) = best else {
            left.remove(&from);
            continue;
        };
        let (item, reason) = left.entry(from).or_default().remove(at);
        let moves = vec![Move { item: item.id, from, to }];
        carry_out(&mut sites, &moves);
        if covered_but(&sites, before) {
            let gain = now - imbalance(&sites);
            steps.push(Step { moves, cost: item.sizes[MEMORY], gain, reason: reason.to_owned() });
        } else {
            take_back(&mut sites, &moves);
        }
    }
    steps
}
