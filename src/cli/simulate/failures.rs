//! Which hosts fail in a replay.

use std::path::PathBuf;

use simulation::trace::failures::Rates;
use simulation::trace::{Failures, Host};

use super::{Failure, share};

#[derive(Debug, clap::Args)]
pub struct Failing {
    /// Hosts that fail and come back in a replay (CSV: time_s,node_id,event); what ran on them is evacuated
    #[arg(long, value_name = "FILE", conflicts_with_all = ["mtbf", "mttr", "domain_share"])]
    failures: Option<PathBuf>,
    /// Draw failures instead: mean time of a host between its return and its next failure, as 365d
    #[arg(long, value_name = "TIME", value_parser = seconds, requires = "mttr")]
    mtbf: Option<f64>,
    /// Mean time until it returns, as 4h
    #[arg(long, value_name = "TIME", value_parser = seconds, requires = "mtbf")]
    mttr: Option<f64>,
    /// Share of failures that take the whole failure domain of the host at once: 10%
    #[arg(long, value_name = "SHARE", value_parser = share, default_value = "0%", requires = "mtbf")]
    domain_share: f64,
}

impl Failing {
    /// Failures of these hosts; `None`: none fails.
    pub fn of(&self, hosts: &[Host]) -> Result<Option<Failures>, Failure> {
        Ok(match (&self.failures, self.mtbf.zip(self.mttr)) {
            (Some(file), _) => Some(Failures::open(file, hosts).map_err(|error| Failure::new(error.to_string()))?),
            (_, Some((mtbf_s, mttr_s))) => {
                Some(Failures::Drawn(Rates { mtbf_s, mttr_s, domain_share: self.domain_share }))
            }
            _ => None,
        })
    }
}

/// A time, as 90d, 4h, 30m or 20s, in seconds.
fn seconds(text: &str) -> Result<f64, String> {
    let units = [("d", 86_400.0), ("h", 3_600.0), ("m", 60.0), ("s", 1.0)];
    let read = units.iter().find_map(|(unit, each)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * each));
    // Up to a thousand years.
    read.filter(|time| (0.001..=3.2e10).contains(time))
        .ok_or_else(|| "a time above 0 expected, as 365d, 4h, 30m or 20s".to_owned())
}
