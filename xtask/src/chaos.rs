//! The cluster under faults: what the run needs of the system, and its long form.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::cache::Cache;
use crate::cargo::{self, cargo};
use crate::packages;

/// The test that is the run; the target has the checker's own tests too.
const RUN: &str = "no_claim_is_lost_doubled_or_made_up";
/// Programs and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 3] = [("ip", "iproute2"), ("nft", "nftables"), ("faketime", "faketime")];

/// Installs what is missing. The run leaves out what it cannot do without, and says so.
pub fn prepare() {
    for (program, package) in PROGRAMS {
        if let Err(error) = packages::need(program, package) {
            println!("  {error:#}");
        }
    }
}

/// The long form; false when a check failed.
pub fn run(cache: &Cache, minutes: u64, seed: Option<u64>, nodes: u64) -> Result<bool> {
    prepare();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut command = cargo(cache, &["test", "--locked", "--test", "chaos", "--", "--nocapture", "--exact", RUN])?;
    command
        .env("PALLIUM_CHAOS_MINUTES", minutes.to_string())
        .env("PALLIUM_CHAOS_SEED", seed.unwrap_or(now).to_string())
        .env("PALLIUM_CHAOS_NODES", nodes.to_string());
    cargo::succeeds(&mut command)
}
