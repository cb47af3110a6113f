//! Prefers hosts whose instances end no earlier than the new one: a host on which all end together becomes empty, and can
//! take a large instance or be switched off.
//!
//! ```text
//! a(h) = −(class(max(end − now, exit_h − now)) − class(exit_h − now)); on an empty host exit_h = now, and ½ less
//! class(d) = min(20, ⌈log2(d / 300 s + 1)⌉)
//! ```
//!
//! The hint `lifetime_s` says how long the instance will live, the feature `exit_s` of a host when its last instance will
//! end (seconds since 1970). Who foresees them, and how well, is not this step's business.
//!
//! Source of the idea: Hadary et al., "Protean", OSDI 2020, and Barbalho et al., "Virtual Machine Allocation with Lifetime
//! Predictions", MLSys 2023 (lifetime alignment).

use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Verdict, Weigher, WeigherPlugin};
use scheduler::{Domain, Row};

use super::DOMAINS;

/// Hint with the lifetime of the instance, seconds.
pub const LIFETIME_HINT: &str = "lifetime_s";
/// Feature with the end of a host's last instance, seconds since 1970.
pub const EXIT_FEATURE: &str = "exit_s";

/// Class of what never ends.
const ENDLESS: f64 = 20.0;
/// Seconds of the shortest class.
const UNIT: f64 = 300.0;

/// The step.
#[derive(Debug)]
pub struct LifetimeAlignment;

fn class(seconds: f64) -> f64 {
    (seconds.max(0.0) / UNIT + 1.0).log2().ceil().min(ENDLESS)
}

impl Weigher for LifetimeAlignment {
    fn weigh(&self, cx: &Cx<'_>, hosts: &[Row], out: &mut [f64]) -> Verdict {
        let Some(life) = cx.request.hint(LIFETIME_HINT).and_then(|text| text.parse::<f64>().ok()) else {
            return Verdict::Skipped("no hint lifetime_s");
        };
        // As if its last instance ended now; of equal growth, a host in use is better.
        let empty = -class(life) - 0.5;
        let Some(exit) = cx.view.sym(EXIT_FEATURE) else {
            out.fill(empty);
            return Verdict::Ran;
        };
        let now = cx.view.wall() as f64 / 1000.0;
        for (row, a) in hosts.iter().zip(out) {
            let known = cx.view.provider(*row).and_then(|provider| provider.features.get(exit));
            *a = known.map_or(empty, |feature| {
                let left = feature.value - now;
                class(left) - class(left.max(life))
            });
        }
        Verdict::Ran
    }
}

impl WeigherPlugin for LifetimeAlignment {
    const NAME: &'static str = "lifetime_alignment";
    const DOMAINS: &'static [Domain] = DOMAINS;
    const SUMMARY: &'static str = "Prefers hosts whose instances end no earlier than the new one.";
    const MISSING_DATA: &'static str =
        "Skipped without the hint lifetime_s; a host without the feature exit_s counts as empty.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::LifetimeAlignment;
    use crate::fleet::{Fleet, case, host};
    use scheduler::Domain;

    #[test]
    fn growth_of_classes() {
        let mut fleet = Fleet::of([host("soon"), host("late"), host("empty")]);
        for (name, exit) in [("soon", 300.0), ("late", 9000.0)] {
            fleet.features(Domain::Nova, name, &[("exit_s", exit)]);
        }
        // The test's clock stands at about 0 s: classes 2 (of just below 300 s: 1) and 5 of the hosts.
        for (life, scores) in [
            ("200", [("soon", 0.0), ("late", 0.0)]),
            ("1000", [("soon", -2.0), ("late", 0.0)]),
            ("20000", [("soon", -6.0), ("late", -2.0)]),
        ] {
            let whole = -super::class(life.parse().expect("seconds")) - 0.5;
            let lived = case(life).request(|request| {
                request.hints.insert("lifetime_s".to_owned(), vec![life.to_owned()]);
            });
            lived.scores(&[scores[0], scores[1], ("empty", whole)]).weigh::<LifetimeAlignment>(&mut fleet);
        }
        case("not known").skipped("no hint lifetime_s").weigh::<LifetimeAlignment>(&mut fleet);
    }
}
