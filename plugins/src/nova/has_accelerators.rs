//! Keeps the hosts with accelerators (trait `COMPUTE_ACCELERATORS`) when the flavor has the extra
//! spec `accel:device_profile`, whatever its value. Devices are neither matched nor counted.
//!
//! Source: cobaltcore-dev/cortex, `filter_has_accelerators`.

use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Domain, Facet, Request};

/// The step.
#[derive(Debug)]
pub struct HasAccelerators;

impl Filter for HasAccelerators {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        if !cx.request.extra_specs.contains_key("accel:device_profile") {
            return Verdict::Skipped("no accelerator asked");
        }
        hosts.keep(cx.view.facet(Facet::Trait, "COMPUTE_ACCELERATORS"), "no accelerators", |_| Detail::None);
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl FilterPlugin for HasAccelerators {
    const NAME: &'static str = "filter_has_accelerators";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps hosts with accelerators when the flavor asks for a device profile.";
    const MISSING_DATA: &'static str = "A host without the trait has no accelerators.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::HasAccelerators;
    use crate::fleet::{Fleet, case, host};

    #[test]
    fn device_profiles_need_accelerators() {
        let mut fleet = Fleet::of([
            host("h1").traits(&["COMPUTE_ACCELERATORS"]),
            host("h2").traits(&["COMPUTE_ACCELERATORS"]),
            host("h3"),
        ]);
        case("nothing asked").kept_all().skipped("no accelerator asked").check::<HasAccelerators>(&mut fleet);
        for profile in [&[("accel:device_profile", "gpu")], &[("accel:device_profile", "")]] {
            case("profile")
                .extra_specs(profile)
                .kept(&["h1", "h2"])
                .dropped("h3", "no accelerators")
                .check::<HasAccelerators>(&mut fleet);
        }
        case("none has it")
            .extra_specs(&[("accel:device_profile", "gpu")])
            .hosts(&["h3"])
            .kept(&[])
            .check::<HasAccelerators>(&mut fleet);
    }
}
