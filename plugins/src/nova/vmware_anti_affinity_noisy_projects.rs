//! Keeps projects that use much CPU away from the hosts on which they already do (as the options are usually
//! set: activations that fall with the use).
//!
//! ```text
//! a(h) = clamp(from + (v − lower) / (upper − lower) × (to − from), from, to)
//! ```
//!
//! where v is the average CPU use of the request's project, as percent, on each host that has instances of it:
//! the feature `vmware-project-noisiness.<project id>` of the host, which a source of metrics reports (`POST
//! /v1/features`). 0 where both activation bounds are equal.
//!
//! Source: cobaltcore-dev/cortex, `vmware_anti_affinity_noisy_projects`, and the Knowledge object
//! `vmware-project-noisiness` (columns `Project`, `ComputeHost`, `AvgCPUOfProject`).

use scheduler::pipeline::{Cx, Reads, Verdict, Weigher, WeigherPlugin};
use scheduler::{Domain, Request, Row};
use serde::{Deserialize, Serialize};

use crate::features::min_max_scale::MinMaxScale;
use crate::features::{MaxAge, weigh};

/// The step: how the use is scaled.
#[derive(Debug)]
pub struct VmwareAntiAffinityNoisyProjects {
    scale: MinMaxScale,
    age: MaxAge,
}

/// Options.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Average use (%) that gets avgCPUUsageActivationLowerBound.
    #[serde(rename = "avgCPUUsageLowerBound")]
    pub lower: f64,
    /// Average use (%) that gets avgCPUUsageActivationUpperBound; another number than the lower bound.
    #[serde(rename = "avgCPUUsageUpperBound")]
    pub upper: f64,
    /// Activation at and below the lower bound.
    #[serde(rename = "avgCPUUsageActivationLowerBound")]
    pub from: f64,
    /// Activation at and above the upper bound.
    #[serde(rename = "avgCPUUsageActivationUpperBound")]
    pub to: f64,
    /// Seconds after which a feature is as if it were not there; 0: never.
    #[serde(rename = "maxAgeSeconds")]
    pub max_age: u64,
}

impl Weigher for VmwareAntiAffinityNoisyProjects {
    fn weigh(&self, cx: &Cx<'_>, hosts: &[Row], out: &mut [f64]) -> Verdict {
        let Some(project) = cx.request.project.as_deref() else { return Verdict::Skipped("no project") };
        let name = format!("vmware-project-noisiness.{project}");
        weigh(cx, [(name.as_str(), &self.scale)], self.age, hosts, out)
    }

    fn statistic(&self) -> (&'static str, &'static str) {
        ("avg cpu usage activation", "float")
    }

    fn reads(&self, _: &Request) -> Reads {
        self.age.reads(Reads::Facts)
    }
}

impl WeigherPlugin for VmwareAntiAffinityNoisyProjects {
    const NAME: &'static str = "vmware_anti_affinity_noisy_projects";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps projects that use much CPU away from hosts on which they already do.";
    const MISSING_DATA: &'static str = "A host without the feature gets 0, and every host without a project.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        let bounds = [options.lower, options.upper];
        let scale = MinMaxScale::new("avgCPUUsage", bounds, [options.from, options.to])?;
        Ok(Self { scale, age: MaxAge::of(options.max_age) })
    }
}

#[cfg(test)]
mod tests {
    use super::VmwareAntiAffinityNoisyProjects;
    use crate::fleet::{Fleet, case, host, weigher_options_error};
    use scheduler::Domain;
    use serde_json::json;

    #[test]
    fn vectors_of_the_peer() {
        let mut fleet = Fleet::of(["h1", "h2", "h3", "none"].map(host));
        fleet.features(Domain::Nova, "h1", &[("vmware-project-noisiness.project1", 25.0)]);
        fleet.features(
            Domain::Nova,
            "h2",
            &[("vmware-project-noisiness.project1", 30.0), ("vmware-project-noisiness.project2", 100.0)],
        );
        fleet.features(Domain::Nova, "h3", &[("vmware-project-noisiness.project2", 15.0)]);
        let options = json!({
            "avgCPUUsageLowerBound": 20.0, "avgCPUUsageUpperBound": 100.0,
            "avgCPUUsageActivationLowerBound": 0.0, "avgCPUUsageActivationUpperBound": -0.5,
        });
        let project = |name: &'static str| {
            case(name).request(|request| request.project = Some(name.to_owned())).options(options.clone())
        };
        project("project1")
            .scores(&[("h1", -0.031_25), ("h2", -0.0625), ("h3", 0.0), ("none", 0.0)])
            .weigh::<VmwareAntiAffinityNoisyProjects>(&mut fleet);
        project("project2")
            .scores(&[("h1", 0.0), ("h2", -0.5), ("h3", 0.0), ("none", 0.0)])
            .weigh::<VmwareAntiAffinityNoisyProjects>(&mut fleet);
        project("project3").skipped("no host has the features").weigh::<VmwareAntiAffinityNoisyProjects>(&mut fleet);
        case("no project")
            .options(options.clone())
            .skipped("no project")
            .weigh::<VmwareAntiAffinityNoisyProjects>(&mut fleet);
        assert_eq!(
            weigher_options_error::<VmwareAntiAffinityNoisyProjects>(json!({})),
            "avgCPUUsageLowerBound and avgCPUUsageUpperBound: 0 given for both, two different numbers expected"
        );
    }
}
