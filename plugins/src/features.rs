//! What weighers over features have in common: the sum of scaled features, and how old one may be.
//!
//! ```text
//! a(h) = Σ scale_f(f(h))
//! ```
//!
//! over the features that h has and that are not too old. Nothing of a feature is looked up by its text for a
//! host: names become numbers once for a request.

pub mod min_max_scale;

use scheduler::features::Feature;
use scheduler::pipeline::{Cx, Reads, Verdict};
use scheduler::{Row, Sym};

use min_max_scale::MinMaxScale;

/// How old a feature may be when it is read.
#[derive(Clone, Copy, Debug)]
pub struct MaxAge {
    seconds: u64,
}

impl MaxAge {
    /// From the option `maxAgeSeconds`; 0: any age.
    pub fn of(seconds: u64) -> Self {
        Self { seconds }
    }

    /// A feature observed before this moment is too old; wall milliseconds.
    pub fn since(self, cx: &Cx<'_>) -> u64 {
        if self.seconds == 0 { 0 } else { cx.view.wall().saturating_sub(self.seconds.saturating_mul(1000)) }
    }

    /// What a step looks at that would look at `reads` if features had no age: with an age the verdict changes
    /// with the time alone.
    pub fn reads(self, reads: Reads) -> Reads {
        if self.seconds == 0 { reads } else { Reads::Everything }
    }
}

/// Writes the sum of the scaled features of each host. Skipped when there is nothing to sum for any of them.
pub fn weigh<'a>(
    cx: &Cx<'_>,
    terms: impl IntoIterator<Item = (&'a str, &'a MinMaxScale)>,
    age: MaxAge,
    hosts: &[Row],
    out: &mut [f64],
) -> Verdict {
    let terms: Vec<(Sym, &MinMaxScale)> =
        terms.into_iter().filter_map(|(name, scale)| Some((cx.view.sym(name)?, scale))).collect();
    let since = age.since(cx);
    let mut seen = Seen::default();
    for (row, out) in hosts.iter().zip(out) {
        let Some(provider) = cx.view.provider(*row) else { continue };
        for (name, scale) in &terms {
            if let Some(feature) = seen.note(provider.features.get(*name), since) {
                *out += scale.of(feature);
            }
        }
    }
    seen.verdict()
}

/// What a step has found of the features that it reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    good: bool,
    old: bool,
}

impl Seen {
    /// The value, unless it is too old.
    pub fn note(&mut self, feature: Option<Feature>, since: u64) -> Option<f64> {
        let feature = feature?;
        let good = feature.observed_at >= since;
        self.good |= good;
        self.old |= !good;
        good.then_some(feature.value)
    }

    /// Something else than a feature was found to go by.
    pub fn other(&mut self) {
        self.good = true;
    }

    /// Whether the step ran: it says when it had nothing to go by.
    pub fn verdict(self) -> Verdict {
        match (self.good, self.old) {
            (true, _) => Verdict::Ran,
            (false, true) => Verdict::Skipped("the features of all hosts are older than maxAgeSeconds"),
            (false, false) => Verdict::Skipped("no host has the features"),
        }
    }
}
