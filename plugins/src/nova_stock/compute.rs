//! Keeps hosts whose compute service is enabled and up.
//!
//! Down is a service that is forced down, or whose last sign of life (`last_seen_up` of the host
//! state) was more than `service_down_time` away from the moment at which the source looked at the
//! host: steps have no clock, and a source that reports seldom must not make its hosts look dead.
//!
//! Source: openstack/nova, `ComputeFilter` and the database driver of its service groups.

use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Domain, Facet, HostNumber, Request, Row};
use serde::{Deserialize, Serialize};

/// The step: milliseconds after which a service is down.
#[derive(Debug)]
pub struct ComputeFilter(f64);

/// Options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Seconds without a sign of life after which a service counts as down.
    pub service_down_time: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { service_down_time: 60 }
    }
}

impl Filter for ComputeFilter {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        let none = |_: Row| Detail::None;
        hosts.drop(cx.view.flag(Facet::Disabled), "the compute service is disabled", none);
        hosts.drop(cx.view.flag(Facet::ForcedDown), "the compute service is forced down", none);
        let silence = cx.view.host_numbers(HostNumber::Silence);
        let alive = |row: Row| silence.get(row.0 as usize).is_none_or(|&silence| silence <= self.0);
        hosts.keep_where("the compute service has not been heard from in a while", alive, none);
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::OwnUse
    }
}

impl FilterPlugin for ComputeFilter {
    const NAME: &'static str = "ComputeFilter";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps hosts whose compute service is enabled and up.";
    const MISSING_DATA: &'static str = "A host of which no sign of life is reported counts as up.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        Ok(Self(options.service_down_time as f64 * 1000.0))
    }
}

#[cfg(test)]
mod tests {
    use super::ComputeFilter;
    use crate::fleet::{Fleet, case, host};
    use serde_json::json;

    #[test]
    fn services_are_up() {
        let seen = |name: &str, at: i64| {
            let mut host = host(name).state(json!({ "last_seen_up": at }));
            host.0.observed_at = Some(1_000_000);
            host
        };
        let mut fleet = Fleet::of([
            host("plain"),
            host("disabled").disabled(),
            host("down").forced_down(),
            seen("fresh", 940_000),
            seen("ahead", 1_060_000),
            seen("stale", 939_999),
            seen("far ahead", 1_060_001),
        ]);
        case("default")
            .kept(&["plain", "fresh", "ahead"])
            .dropped("disabled", "the compute service is disabled")
            .dropped("down", "the compute service is forced down")
            .dropped("stale", "the compute service has not been heard from in a while")
            .check::<ComputeFilter>(&mut fleet);
        case("longer")
            .options(json!({ "service_down_time": 61 }))
            .kept(&["plain", "fresh", "ahead", "stale", "far ahead"])
            .check::<ComputeFilter>(&mut fleet);
    }
}
