//! Holds a project to its quota of a flavor group. No quota is known yet: every host is kept, and the
//! step counts what it would have looked at.
//!
//! Each run counts one event `quota_decision` with the labels of the peer's metric: `mode` (`enforce`
//! or `shadow`), `decision`, `resource` (empty), `availability_zone`, `flavor_group` (the extra spec
//! `quota:hw_version`).
//!
//! | decision | when |
//! | --- | --- |
//! | accept_skipped_intent_migration | evacuation, live migration, unlabelled move: nothing grows |
//! | accept_skipped_intent_internal | pallium's own reservations |
//! | accept_skipped | probes |
//! | accept_skipped_missing_data | no project, availability zone or flavor group |
//! | accept_no_quota | otherwise: there is no quota for the project and zone |
//!
//! Source: cobaltcore-dev/cortex, `filter_quota_enforcement`.

use scheduler::pipeline::{Cx, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Domain, Intent, Request};
use serde::{Deserialize, Serialize};

/// The step.
#[derive(Debug)]
pub struct QuotaEnforcement(Options);

/// Options.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Options {
    /// Drop every host when the quota is exceeded; false: only count it.
    pub enforce: bool,
}

impl Filter for QuotaEnforcement {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        let request = cx.request;
        let text = |value: Option<&String>| value.cloned().unwrap_or_default();
        let (zone, group) = (text(request.zone.as_ref()), text(request.extra_specs.get("quota:hw_version")));
        let owned = request.project.as_deref().is_some_and(|project| !project.is_empty());
        let (decision, verdict) = match cx.intent {
            Intent::Evacuate | Intent::LiveMigration | Intent::Move => {
                ("accept_skipped_intent_migration", Verdict::Skipped("nothing grows in a move"))
            }
            Intent::ReserveForFailover | Intent::ReuseFailoverReservation | Intent::ReserveForCommittedResource => {
                ("accept_skipped_intent_internal", Verdict::Skipped("internal intent"))
            }
            Intent::CapacityProbe => ("accept_skipped", Verdict::Skipped("internal intent")),
            Intent::Create | Intent::Rebuild | Intent::Resize if !owned || zone.is_empty() || group.is_empty() => {
                ("accept_skipped_missing_data", Verdict::Skipped("no project, availability zone or quota:hw_version"))
            }
            Intent::Create | Intent::Rebuild | Intent::Resize => ("accept_no_quota", Verdict::Ran),
        };
        hosts.event(
            "quota_decision",
            vec![
                ("mode", if self.0.enforce { "enforce" } else { "shadow" }.to_owned()),
                ("decision", decision.to_owned()),
                ("resource", String::new()),
                ("availability_zone", zone),
                ("flavor_group", group),
            ],
        );
        verdict
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl FilterPlugin for QuotaEnforcement {
    const NAME: &'static str = "filter_quota_enforcement";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Holds a project to its quota of a flavor group.";
    const MISSING_DATA: &'static str = "Without a quota, a project, a zone or a flavor group every host is kept.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        Ok(Self(options))
    }
}

#[cfg(test)]
mod tests {
    use super::QuotaEnforcement;
    use crate::fleet::{Fleet, case, host};
    use scheduler::Intent;
    use serde_json::json;

    #[test]
    fn decisions_are_counted() {
        let mut fleet = Fleet::of([host("h1"), host("h2")]);
        let rows = [
            (Intent::Create, "accept_no_quota", None),
            (Intent::Resize, "accept_no_quota", None),
            (Intent::Evacuate, "accept_skipped_intent_migration", Some("nothing grows in a move")),
            (Intent::LiveMigration, "accept_skipped_intent_migration", Some("nothing grows in a move")),
            (Intent::ReserveForFailover, "accept_skipped_intent_internal", Some("internal intent")),
            (Intent::ReuseFailoverReservation, "accept_skipped_intent_internal", Some("internal intent")),
            (Intent::ReserveForCommittedResource, "accept_skipped_intent_internal", Some("internal intent")),
            (Intent::CapacityProbe, "accept_skipped", Some("internal intent")),
        ];
        for (intent, decision, skipped) in rows {
            for (mode, options) in [("shadow", json!({})), ("enforce", json!({"enforce": true}))] {
                let mut case = case(decision)
                    .intent(intent)
                    .options(options)
                    .extra_specs(&[("quota:hw_version", "hana_v2")])
                    .request(|r| {
                        r.project = Some("p".to_owned());
                        r.zone = Some("az-1".to_owned());
                    })
                    .kept_all()
                    .event(
                        "quota_decision",
                        &[
                            ("mode", mode),
                            ("decision", decision),
                            ("resource", ""),
                            ("availability_zone", "az-1"),
                            ("flavor_group", "hana_v2"),
                        ],
                    );
                if let Some(why) = skipped {
                    case = case.skipped(why);
                }
                case.check::<QuotaEnforcement>(&mut fleet);
            }
        }
    }

    #[test]
    fn missing_data_accepts() {
        let mut fleet = Fleet::of([host("h1")]);
        case("no zone")
            .extra_specs(&[("quota:hw_version", "hana_v2")])
            .request(|r| r.project = Some("p".to_owned()))
            .kept_all()
            .skipped("no project, availability zone or quota:hw_version")
            .event(
                "quota_decision",
                &[
                    ("mode", "shadow"),
                    ("decision", "accept_skipped_missing_data"),
                    ("resource", ""),
                    ("availability_zone", ""),
                    ("flavor_group", "hana_v2"),
                ],
            )
            .check::<QuotaEnforcement>(&mut fleet);
    }
}
