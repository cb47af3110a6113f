//! Gives each host a number between 0 and 1 that depends on the seed, the consumer and the host's row alone: a choice
//! that looks random and can be repeated. To compare other policies with; or, with a small multiplier, to spread the
//! choice among equals.

use scheduler::pipeline::{Cx, Verdict, Weigher, WeigherPlugin};
use scheduler::{Domain, Row};
use serde::{Deserialize, Serialize};

/// The step.
#[derive(Debug)]
pub struct RandomChoice(u64);

/// Options.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Options {
    /// Seed.
    pub seed: u64,
}

/// The finalizer of splitmix64.
fn mixed(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

impl Weigher for RandomChoice {
    fn weigh(&self, cx: &Cx<'_>, hosts: &[Row], out: &mut [f64]) -> Verdict {
        let (high, low) = cx.consumer.as_u64_pair();
        let seed = mixed(self.0 ^ mixed(high ^ mixed(low)));
        for (row, a) in hosts.iter().zip(out) {
            *a = (mixed(seed ^ u64::from(row.0)) >> 11) as f64 / (1_u64 << 53) as f64;
        }
        Verdict::Ran
    }
}

impl WeigherPlugin for RandomChoice {
    const NAME: &'static str = "random_choice";
    const DOMAINS: &'static [Domain] = &Domain::ALL;
    const SUMMARY: &'static str = "Scores hosts by a seeded draw for each consumer.";
    const MISSING_DATA: &'static str = "None is needed.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        Ok(Self(options.seed))
    }
}
