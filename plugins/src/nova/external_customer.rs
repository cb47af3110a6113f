//! Keeps external customers on the hosts that are set apart for them: those with the trait
//! `CUSTOM_EXTERNAL_CUSTOMER_EXCLUSIVE`. It does not keep others off these hosts.
//!
//! A project is external when the hint `domain_name` (the Keystone domain of the project) begins with
//! one of the prefixes and is not among the ignored names; both are compared exactly.
//!
//! Skipped for the intents `reserve_for_failover`, `reuse_failover_reservation`, `capacity_probe`.
//!
//! Source: cobaltcore-dev/cortex, `filter_external_customer`.

use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Domain, Facet, Request};
use serde::{Deserialize, Serialize};

/// The trait of the hosts set apart.
pub const EXCLUSIVE: &str = "CUSTOM_EXTERNAL_CUSTOMER_EXCLUSIVE";

/// The step.
#[derive(Debug)]
pub struct ExternalCustomer(Options);

/// Options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Options {
    /// A Keystone domain whose name begins with one of these is external; at least one.
    pub domain_name_prefixes: Vec<String>,
    /// Names of Keystone domains that are not external all the same.
    #[serde(default)]
    pub ignored_domain_names: Vec<String>,
}

impl Filter for ExternalCustomer {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        if super::is_ownerless(cx.intent) {
            return Verdict::Skipped("internal intent");
        }
        let Some(domain) = cx.request.hint("domain_name") else {
            return Verdict::Skipped("no domain_name hint");
        };
        let Options { domain_name_prefixes, ignored_domain_names } = &self.0;
        let external = domain_name_prefixes.iter().any(|prefix| domain.starts_with(prefix.as_str()));
        if !external || ignored_domain_names.iter().any(|name| name == domain) {
            return Verdict::Skipped("not an external customer");
        }
        hosts.keep(cx.view.facet(Facet::Trait, EXCLUSIVE), "not set apart for external customers", |_| Detail::None);
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl FilterPlugin for ExternalCustomer {
    const NAME: &'static str = "filter_external_customer";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps external customers on the hosts set apart for them.";
    const MISSING_DATA: &'static str =
        "Without the hint every host is kept. For an external customer a host without the trait is dropped.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        if options.domain_name_prefixes.is_empty() {
            return Err("domainNamePrefixes: an empty list given, at least one prefix expected".to_owned());
        }
        Ok(Self(options))
    }
}

#[cfg(test)]
mod tests {
    use super::{EXCLUSIVE, ExternalCustomer};
    use crate::fleet::{Case, Fleet, case, filter_options_error, host};
    use scheduler::Intent;
    use serde_json::json;

    fn from(domain: &'static str, options: serde_json::Value) -> Case {
        case(domain).options(options).request(move |r| {
            r.hints.insert("domain_name".to_owned(), vec![domain.to_owned()]);
        })
    }

    #[test]
    fn external_customers_keep_to_their_hosts() {
        let mut fleet = Fleet::of([
            host("h1").traits(&[EXCLUSIVE]),
            host("h2").traits(&["OTHER", EXCLUSIVE]),
            host("h3").traits(&["OTHER"]),
            host("h4"),
        ]);
        let ext = || json!({"domainNamePrefixes": ["ext-"]});
        from("ext-customer1", ext())
            .kept(&["h1", "h2"])
            .dropped("h3", "not set apart for external customers")
            .check::<ExternalCustomer>(&mut fleet);
        from("internal-customer", ext())
            .kept_all()
            .skipped("not an external customer")
            .check::<ExternalCustomer>(&mut fleet);
        from("EXT-customer", ext()).kept_all().check::<ExternalCustomer>(&mut fleet);
        from("ext", json!({"domainNamePrefixes": ["ext"]}))
            .hosts(&["h1", "h3"])
            .kept(&["h1"])
            .check::<ExternalCustomer>(&mut fleet);
        from("ext-a", json!({"domainNamePrefixes": ["ext-"], "ignoredDomainNames": ["ext-a"]}))
            .kept_all()
            .skipped("not an external customer")
            .check::<ExternalCustomer>(&mut fleet);
        case("no hint").options(ext()).kept_all().skipped("no domain_name hint").check::<ExternalCustomer>(&mut fleet);
        for intent in [Intent::ReserveForFailover, Intent::ReuseFailoverReservation, Intent::CapacityProbe] {
            from("ext-a", ext())
                .intent(intent)
                .kept_all()
                .skipped("internal intent")
                .check::<ExternalCustomer>(&mut fleet);
        }
        from("ext-a", ext())
            .intent(Intent::ReserveForCommittedResource)
            .kept(&["h1", "h2"])
            .check::<ExternalCustomer>(&mut fleet);
    }

    #[test]
    fn prefixes_are_demanded() {
        assert_eq!(
            filter_options_error::<ExternalCustomer>(json!({"domainNamePrefixes": []})),
            "domainNamePrefixes: an empty list given, at least one prefix expected"
        );
        assert_eq!(filter_options_error::<ExternalCustomer>(json!({})), "missing field `domainNamePrefixes`");
        let unknown = filter_options_error::<ExternalCustomer>(json!({"domainNamePrefixes": ["a"], "prefixes": []}));
        assert!(unknown.starts_with("unknown field `prefixes`"), "{unknown}");
    }
}
