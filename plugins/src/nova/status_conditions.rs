//! Drops hosts that are not fit to take an instance.
//!
//! A condition that is present and differs from the wanted value drops the host: `Ready` must be
//! True, `HypervisorDisabled` and `Terminating` must be False; `Unknown` differs from both. The other
//! conditions (`Tainted`, `Onboarding`, `TraitsUpdated`, `AggregatesUpdated`, …) are not looked at.
//! A disabled or forced-down compute service drops the host as well: Nova would not start anything
//! there.
//!
//! Source: cobaltcore-dev/cortex, `filter_status_conditions` (service state is pallium's own).

use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Domain, Facet, Request};

/// The step.
#[derive(Debug)]
pub struct StatusConditions;

/// A value that drops a host, and why.
const UNWANTED: [(&str, &str); 6] = [
    ("Ready=False", "Ready is not True"),
    ("Ready=Unknown", "Ready is not True"),
    ("HypervisorDisabled=True", "HypervisorDisabled is not False"),
    ("HypervisorDisabled=Unknown", "HypervisorDisabled is not False"),
    ("Terminating=True", "Terminating is not False"),
    ("Terminating=Unknown", "Terminating is not False"),
];

impl Filter for StatusConditions {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        for (condition, why) in UNWANTED {
            if let Some(sym) = cx.view.sym(condition) {
                hosts.drop(cx.view.facet(Facet::Condition, condition), why, |_| Detail::Has(sym));
            }
        }
        hosts.drop(cx.view.flag(Facet::Disabled), "service disabled", |_| Detail::None);
        hosts.drop(cx.view.flag(Facet::ForcedDown), "forced down", |_| Detail::None);
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl FilterPlugin for StatusConditions {
    const NAME: &'static str = "filter_status_conditions";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps hosts that are ready, enabled and not terminating.";
    const MISSING_DATA: &'static str = "A condition that the host does not report keeps it.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::StatusConditions;
    use crate::fleet::{Fleet, case, host};

    #[test]
    fn hosts_that_are_not_fit_are_dropped() {
        let good = ["Ready=True", "HypervisorDisabled=False", "Terminating=False", "Tainted=False"];
        let mut fleet = Fleet::of([
            host("good").conditions(&good),
            host("bare"),
            host("tainted").conditions(&["Ready=True", "Tainted=True", "Onboarding=True", "TraitsUpdated=False"]),
            host("not-ready").conditions(&["Ready=False"]),
            host("lost").conditions(&["Ready=Unknown"]),
            host("disabled").conditions(&["Ready=True", "HypervisorDisabled=True"]),
            host("perhaps").conditions(&["HypervisorDisabled=Unknown"]),
            host("terminating").conditions(&["Ready=True", "Terminating=True"]),
            host("fading").conditions(&["Terminating=Unknown"]),
            host("off").disabled(),
            host("down").forced_down(),
        ]);
        case("every state")
            .kept(&["good", "bare", "tainted"])
            .dropped("not-ready", "Ready is not True: the host has Ready=False")
            .dropped("lost", "Ready is not True: the host has Ready=Unknown")
            .dropped("disabled", "HypervisorDisabled is not False: the host has HypervisorDisabled=True")
            .dropped("perhaps", "HypervisorDisabled is not False: the host has HypervisorDisabled=Unknown")
            .dropped("terminating", "Terminating is not False: the host has Terminating=True")
            .dropped("fading", "Terminating is not False: the host has Terminating=Unknown")
            .dropped("off", "service disabled")
            .dropped("down", "forced down")
            .check::<StatusConditions>(&mut fleet);
    }
}
