//! Keeps the hosts for which a rule holds: an expression in CEL over `request`, `host` and `features`
//! (see *Rules in CEL*). A rule that fails for a host, or that gives something else than true or
//! false, drops it: what cannot be said to fit does not.
//!
//! ```yaml
//! - name: filter_cel
//!   params:
//!     - {key: expression, stringValue: '!("CUSTOM_DECOMMISSIONING" in host.traits) || request.project == "ops"'}
//!     - {key: reason, stringValue: it is being decommissioned}
//! ```
//!
//! Source: pallium's own; the language is that of cel.dev.

use scheduler::pipeline::step::Reads;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Survivors, Verdict};
use scheduler::rows::Mask;
use scheduler::{Domain, Request};
use serde::{Deserialize, Serialize};

use super::rule::{Rule, Said};

/// Bytes of a reason: it is remembered with each decision.
const LONGEST_REASON: usize = 128;

/// The step.
#[derive(Debug)]
pub struct CelFilter {
    rule: Rule,
    reason: String,
}

/// Options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Options {
    /// The rule: true keeps the host.
    pub expression: String,
    /// What is told of a host that the rule does not keep, at most 128 bytes.
    #[serde(default = "reason")]
    pub reason: String,
}

fn reason() -> String {
    "the rule does not hold".to_owned()
}

impl Filter for CelFilter {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        let mut kept = Mask::none(hosts.mask().words().len() * 64);
        let mut failed = kept.clone();
        let mut first = None;
        let rows: Vec<_> = hosts.iter().collect();
        let asked = self.rule.ask(cx, rows.into_iter(), |row, said| match said {
            Said::Truth(true) => kept.insert(row),
            Said::Truth(false) => {}
            other => {
                failed.insert(row);
                if first.is_none() {
                    let why = match other {
                        Said::Failed(why) => why,
                        other => format!("it gives {other:?}, true or false expected"),
                    };
                    first = Some((row, why));
                }
            }
        });
        if let Some((row, why)) = first {
            hosts.note(format!("the rule fails for {} host(s), as for {}: {why}", failed.len(), cx.view.host(row)));
        }
        hosts.drop_mask(&failed, "the rule fails", |_| Detail::None);
        if let Err(why) = asked {
            hosts.note(format!("the rule was not asked: {why}"));
        }
        hosts.keep_mask(&kept, self.reason.clone(), |_| Detail::None);
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        self.rule.reads()
    }
}

impl FilterPlugin for CelFilter {
    const NAME: &'static str = "filter_cel";
    const DOMAINS: &'static [Domain] = &Domain::ALL;
    const SUMMARY: &'static str = "Keeps the hosts for which a rule in CEL holds.";
    const MISSING_DATA: &'static str = "A rule that asks for what is not there fails for that host, which is dropped.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        let Options { expression, reason } = options;
        if reason.is_empty() || reason.len() > LONGEST_REASON {
            return Err(format!("reason: {} bytes given, 1 to {LONGEST_REASON} expected", reason.len()));
        }
        Ok(Self { rule: Rule::new(&expression)?, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::CelFilter;
    use crate::fleet::{Fleet, case, filter_options_error, host};
    use serde_json::json;

    #[test]
    fn a_table_of_rules() {
        let mut fleet = Fleet::of([
            host("big").amounts(64, 1024).allocated(4, 128).traits(&["CUSTOM_SSD"]).zone("az-a"),
            host("small").amounts(8, 256).zone("az-b"),
            host("bare"),
        ]);
        let rows: &[(&str, &[&str])] = &[
            ("true", &["big", "small", "bare"]),
            (r#""CUSTOM_SSD" in host.traits"#, &["big"]),
            (r#"host.traits.exists(t, t.startsWith("CUSTOM_"))"#, &["big"]),
            ("size(host.traits) == 0", &["small", "bare"]),
            (r#"host.zone != "az-b" && host.name.startsWith("b")"#, &["big", "bare"]),
            (r#"host.free["VCPU"] >= request.resources["VCPU"] * 10"#, &["big"]),
            (r#"!("VCPU" in host.capacity) || host.used["VCPU"] * 16 >= host.capacity["VCPU"]"#, &["big", "bare"]),
            (r"host.instances == 0 && !host.disabled && !host.forced_down", &["big", "small", "bare"]),
            (
                r#"request.project == "p" && request.zone == "" && request.intent == "create""#,
                &["big", "small", "bare"],
            ),
            (r#"has(request.extra_specs.pool) && request.extra_specs["pool"] in ["a", "b"]"#, &[]),
            (r#""load" in features && features["load"] < 0.5"#, &[]),
            // Fails for the host without an inventory.
            (r#"host.free["VCPU"] > 0"#, &["big", "small"]),
            // No truth.
            ("1 + 1", &[]),
        ];
        for (rule, kept) in rows {
            case(rule)
                .resources(&[("VCPU", 6)])
                .request(|request| request.project = Some("p".to_owned()))
                .options(json!({"expression": rule, "reason": "said so"}))
                .kept(kept)
                .check::<CelFilter>(&mut fleet);
        }
        case("reason")
            .options(json!({"expression": "false", "reason": "said so"}))
            .kept(&[])
            .dropped("big", "said so")
            .check::<CelFilter>(&mut fleet);
        case("failure")
            .options(json!({"expression": "host.free[\"X\"] > 1"}))
            .kept(&[])
            .dropped("big", "the rule fails")
            .check::<CelFilter>(&mut fleet);
    }

    #[test]
    fn a_rule_is_checked_when_it_is_loaded() {
        let error = |rule: &str| filter_options_error::<CelFilter>(json!({ "expression": rule }));
        for (rule, start) in [
            ("", "expression: an empty one given"),
            ("host.name ==", "expression: ERROR: <input>:1:13"),
            ("hots.name == \"a\"", "expression: variable 'hots' is not known: request, host or features expected"),
            ("host.nmae == \"a\"", "expression: host.nmae is not known: one of name, node,"),
            ("host[\"nmae\"] == \"a\"", "expression: host.nmae is not known"),
            ("request.poject == \"a\"", "expression: request.poject is not known"),
            ("host.name.matches(\"a+\")", "expression: function 'matches' is not known: size,"),
            ("host.traits.all(a, host.traits.all(b, a == b))", "expression: a loop stands in a loop"),
            ("host.traits.map(t, host.traits) == []", "expression: host.traits stands in a loop"),
            ("host.traits.exists(t, t in host.aggregates)", "expression: host.aggregates stands in a loop"),
            ("host.traits.exists(t, host[t] == host.traits)", "expression: host as a whole stands in a loop"),
            ("{\"a\": 1}[\"a\"] == 1", "expression: a rule makes no maps"),
            ("timestamp(\"2026-01-01T00:00:00Z\") == 1", "expression: function 'timestamp' is not known"),
        ] {
            let error = error(rule);
            assert!(error.starts_with(start), "{rule}: {error}");
        }
        let long = format!("true{}", " || true".repeat(300));
        assert!(error(&long).starts_with("expression: 2404 bytes given, at most 2048 expected"), "{}", error(&long));
        let wide = format!("1{} == 1", "+1".repeat(200));
        assert!(error(&wide).contains("nodes") || error(&wide).contains("recursion"), "{}", error(&wide));
        let deep = format!("{}true{}", "(".repeat(900), ")".repeat(900));
        assert!(error(&deep).starts_with("expression: "), "{}", error(&deep));
        let reason = filter_options_error::<CelFilter>(json!({"expression": "true", "reason": "x".repeat(129)}));
        assert_eq!(reason, "reason: 129 bytes given, 1 to 128 expected");
    }
}
