//! Mode `survive`: what would not come back if a host, two, or a whole failure domain were lost. At each snapshot the VMs of
//! the lost hosts are placed again, the largest first, by the policy itself on the hosts that are left; then all is as before.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

use super::estate::Estate;
use super::events::Trace;
use super::policy::Policy;
use super::replay::{Inputs, Player, Watch};

/// Random pairs of hosts at each snapshot.
const PAIRS: usize = 300;
/// Hosts that are named.
pub const NAMED: usize = 20;

/// What losses did not come back.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Survival {
    /// Snapshots.
    pub snapshots: u64,
    /// Share of (snapshot, host in use) whose VMs all restart elsewhere.
    pub n1: Option<f64>,
    /// The same of the worst snapshot.
    pub n1_worst: Option<f64>,
    /// VMs without a place over VMs on lost hosts, over all single losses.
    pub n1_vms_lost: Option<f64>,
    /// Share of random pairs whose VMs all restart.
    pub n2: Option<f64>,
    /// Share of failure domains whose VMs all restart.
    pub n_domain: Option<f64>,
    /// The shares at each snapshot.
    pub over_time: Vec<Snapshot>,
    /// Losses of single hosts at the last snapshot after which VMs do not restart.
    pub not_covered: Vec<Uncovered>,
}

/// What would come back at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Snapshot {
    /// Seconds from the start of the trace.
    pub time_s: f64,
    /// Share of hosts in use whose VMs all restart elsewhere.
    pub n1: Option<f64>,
    /// The same of random pairs.
    pub n2: Option<f64>,
    /// The same of failure domains.
    pub n_domain: Option<f64>,
}

/// A loss that is not covered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Uncovered {
    /// The host.
    pub host: String,
    /// VMs on it, and those without a place.
    pub vms: u64,
    /// VMs without a place.
    pub lost: Vec<String>,
}

#[derive(Default)]
struct Tally {
    losses: u64,
    covered: u64,
    vms: u64,
    lost: u64,
}

impl Tally {
    fn add(&mut self, vms: u64, lost: u64) {
        self.losses += 1;
        self.covered += u64::from(lost == 0);
        self.vms += vms;
        self.lost += lost;
    }

    /// Takes in another tally, and gives its share.
    fn take(&mut self, other: &Self) -> Option<f64> {
        self.losses += other.losses;
        self.covered += other.covered;
        self.vms += other.vms;
        self.lost += other.lost;
        other.share()
    }

    fn share(&self) -> Option<f64> {
        (self.losses > 0).then(|| self.covered as f64 / self.losses as f64)
    }
}

/// Takes hosts away, places their VMs again, and puts everything back. VMs that were on them, and those without a place.
pub fn lose(trace: &Trace, estate: &mut Estate, hosts: &[usize]) -> Result<(u64, Vec<u32>), String> {
    let most: [f64; 2] =
        std::array::from_fn(|r| estate.capacity().iter().map(|capacity| capacity[r]).max().unwrap_or(1).max(1) as f64);
    let size = |vm: u32| {
        let sizes = trace.shape(vm).sizes();
        sizes[0] as f64 / most[0] + sizes[1] as f64 / most[1]
    };
    let of_host = |&host: &usize| estate.held()[host].vms.iter().map(move |&vm| (vm, host));
    let mut vms: Vec<(u32, usize)> = hosts.iter().flat_map(of_host).collect();
    vms.sort_by(|one, other| size(other.0).total_cmp(&size(one.0)).then(one.0.cmp(&other.0)));
    // Given back in another order, shares of GPUs might not fit any more.
    let devices: Vec<_> = vms.iter().map(|&(vm, _)| estate.devices_of(vm).cloned()).collect();
    for &(vm, _) in &vms {
        estate.delete(vm)?;
    }
    estate.keep_out(hosts)?;
    let mut lost = Vec::new();
    for &(vm, _) in &vms {
        if estate.place(vm)?.is_none() {
            lost.push(vm);
        }
    }
    for &(vm, _) in &vms {
        estate.delete(vm)?;
    }
    estate.keep_out(&[])?;
    for (&(vm, host), devices) in vms.iter().zip(devices) {
        estate.put(vm, host as u32, devices)?;
    }
    Ok((vms.len() as u64, lost))
}

/// Runs it on the first `count` hosts with a snapshot every `every` milliseconds after the warm-up.
pub fn survive(
    inputs: &Inputs,
    policy: &Arc<Policy>,
    count: usize,
    every: u64,
    watch: &dyn Watch,
) -> Result<Survival, String> {
    let mut player = Player::new(inputs, inputs.estate(policy, count)?, watch);
    let mut rng = SmallRng::seed_from_u64(inputs.seed);
    let mut next = inputs.warm();
    let (mut one, mut two, mut domain) = (Tally::default(), Tally::default(), Tally::default());
    let mut out = Survival::default();
    let trace = &inputs.trace;
    player.play(
        0,
        |time, estate| {
            if time < next {
                return Ok(());
            }
            while next <= time {
                next += every;
            }
            out.snapshots += 1;
            watch.step(&format!("snapshot {}", out.snapshots));
            let mut estate = estate.fork()?;
            let used: Vec<usize> = (0..count).filter(|&host| !estate.held()[host].vms.is_empty()).collect();
            let (mut here, mut pairs, mut domains_here) = (Tally::default(), Tally::default(), Tally::default());
            out.not_covered.clear();
            for &host in &used {
                let (vms, lost) = lose(trace, &mut estate, &[host])?;
                here.add(vms, lost.len() as u64);
                if !lost.is_empty() && out.not_covered.len() < NAMED {
                    let lost = lost.iter().take(NAMED).map(|&vm| trace.vms[vm as usize].id.to_string()).collect();
                    out.not_covered.push(Uncovered { host: estate.hosts()[host].id.clone(), vms, lost });
                }
            }
            out.n1_worst = match (out.n1_worst, here.share()) {
                (Some(worst), Some(share)) => Some(worst.min(share)),
                (worst, share) => worst.or(share),
            };
            if used.len() > 1 {
                for _ in 0..PAIRS {
                    let first = rng.random_range(0..used.len());
                    let second = (first + rng.random_range(1..used.len())) % used.len();
                    let (vms, lost) = lose(trace, &mut estate, &[used[first], used[second]])?;
                    pairs.add(vms, lost.len() as u64);
                }
            }
            let mut domains: BTreeMap<String, Vec<usize>> = BTreeMap::new();
            for &host in &used {
                let name = &estate.hosts()[host].domain;
                if !name.is_empty() {
                    domains.entry(name.clone()).or_default().push(host);
                }
            }
            for hosts in domains.into_values() {
                let (vms, lost) = lose(trace, &mut estate, &hosts)?;
                domains_here.add(vms, lost.len() as u64);
            }
            out.over_time.push(Snapshot {
                time_s: time as f64 / 1000.0,
                n1: one.take(&here),
                n2: two.take(&pairs),
                n_domain: domain.take(&domains_here),
            });
            Ok(())
        },
        |_, _, _| {},
    )?;
    let lost = (one.vms > 0).then(|| one.lost as f64 / one.vms as f64);
    Ok(Survival { n1: one.share(), n1_vms_lost: lost, n2: two.share(), n_domain: domain.share(), ..out })
}
