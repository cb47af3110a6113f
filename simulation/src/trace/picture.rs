//! How full each host was, over time: what a heat map and a scatter plot of the report are drawn from, small enough to be kept.

use serde::{Deserialize, Serialize};

use super::estate::Estate;

/// Moments of a picture.
pub const MOMENTS: u64 = 120;
/// Most rows: neighbours in the host list share one when there are more hosts.
const MOST_ROWS: usize = 100;
/// Levels of a host in use.
pub const LEVELS: u32 = 8;

/// Hosts over time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    /// Hosts.
    pub hosts: usize,
    /// Seconds from the start of the trace, and a digit for each row of hosts: 0 when none of them has a VM, else how full they
    /// are, from 1 to [`LEVELS`]. A host is as full as the resource that it has least of.
    pub moments: Vec<(u64, String)>,
    /// At the last moment: free CPU and free memory in percent of the largest host, and the number of such hosts.
    pub free: Vec<(u32, u32, u32)>,
}

impl Picture {
    /// Adds the hosts as they stand.
    pub fn take(&mut self, now: u64, estate: &Estate) {
        self.hosts = estate.hosts().len();
        let rows = self.hosts.min(MOST_ROWS);
        let digit = |row: usize| {
            let hosts = row * self.hosts / rows..(row + 1) * self.hosts / rows;
            if hosts.clone().all(|host| estate.held()[host].vms.is_empty()) {
                return '0';
            }
            let full = hosts.clone().map(|host| fullness(estate, host)).sum::<f64>() / hosts.len() as f64;
            let level = (full * f64::from(LEVELS)).ceil().clamp(1.0, f64::from(LEVELS)) as u32;
            char::from_digit(level, 10).unwrap_or('0')
        };
        let digits = (0..rows).map(digit).collect();
        self.moments.push((now / 1000, digits));
    }

    /// What is free on the hosts as they stand.
    pub fn take_free(&mut self, estate: &Estate) {
        let capacity = estate.capacity();
        let most = |r: usize| capacity.iter().map(|capacity| capacity[r]).max().unwrap_or(0).max(1);
        let most = [most(0), most(1)];
        let mut points: Vec<(u32, u32)> = (0..capacity.len())
            .map(|host| {
                let free = estate.free(host);
                let percent = |r: usize| (free[r] as f64 / most[r] as f64 * 100.0).round() as u32;
                (percent(0), percent(1))
            })
            .collect();
        points.sort_unstable();
        self.free =
            points.chunk_by(|one, other| one == other).map(|all| (all[0].0, all[0].1, all.len() as u32)).collect();
    }
}

/// Largest share of any resource that is in use.
fn fullness(estate: &Estate, host: usize) -> f64 {
    let (used, capacity) = (estate.held()[host].used, estate.capacity()[host]);
    let shares = used.iter().zip(capacity).filter(|(_, capacity)| *capacity > 0);
    shares.map(|(used, capacity)| *used as f64 / capacity as f64).fold(0.0, f64::max)
}
