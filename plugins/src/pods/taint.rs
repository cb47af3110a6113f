//! Drops nodes with a taint that the pod does not tolerate, of effect `NoSchedule` or `NoExecute`.
//!
//! A toleration covers a taint when each of key, value and effect that it names is the taint's: without an
//! operator, or with `Equal`, the value must be equal; with `Exists` any is; no key with `Exists` is every
//! taint; no effect is every effect.
//!
//! Source: kubernetes/kubernetes, kube-scheduler's plugin TaintToleration; the name is that of
//! cobaltcore-dev/cortex (which looks at `NoSchedule` only, ignores the effect of a toleration, and takes
//! neither an empty operator nor an empty key).

use std::collections::BTreeMap;

use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::pod::{Effect, Taint};
use scheduler::{Domain, Facet, Request};

/// The step.
#[derive(Debug)]
pub struct TaintFilter;

impl Filter for TaintFilter {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        let taints: BTreeMap<_, _> = cx.view.facet_values(Facet::Taint).collect();
        for (text, rows) in taints {
            // A taint that cannot be read was refused in its report.
            let Some(taint) = Taint::read(text) else { continue };
            if taint.effect != Effect::PreferNoSchedule && !cx.request.pod.tolerates(taint) {
                hosts.drop(rows, format!("taint {text} is not tolerated"), |_| Detail::None);
            }
        }
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl FilterPlugin for TaintFilter {
    const NAME: &'static str = "taint";
    const DOMAINS: &'static [Domain] = &[Domain::Machines, Domain::Pods];
    const SUMMARY: &'static str = "Drops nodes with a taint that the pod does not tolerate.";
    const MISSING_DATA: &'static str = "A node that reports no taints has none.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::TaintFilter;
    use crate::fleet::{Case, Fleet, case, node};
    use scheduler::pod::{Effect, Toleration};

    fn bears(name: &str, tolerations: &[(&str, Option<&str>, Option<Effect>)]) -> Case {
        let read = |&(key, value, effect): &(&str, Option<&str>, Option<Effect>)| Toleration {
            key: key.to_owned(),
            value: value.map(str::to_owned),
            effect,
        };
        case(name).pod(|pod| pod.tolerations = tolerations.iter().map(read).collect())
    }

    #[test]
    fn taints_that_are_not_borne() {
        let mut fleet = Fleet::of([
            node("n1").taints(&["node-role.kubernetes.io/master:NoSchedule"]),
            node("n2"),
            node("n3").taints(&["app=database:NoSchedule"]),
            node("n4").taints(&["app=database:NoExecute"]),
            node("n5").taints(&["app=database:PreferNoSchedule"]),
            node("n6").taints(&["app=database:NoSchedule", "gpu:NoSchedule"]),
        ]);
        let mut check = |case: Case| case.check::<TaintFilter>(&mut fleet);
        check(
            bears("none", &[])
                .kept(&["n2", "n5"])
                .dropped("n1", "taint node-role.kubernetes.io/master:NoSchedule is not tolerated")
                .dropped("n4", "taint app=database:NoExecute is not tolerated"),
        );
        let database = Some("database");
        check(bears("an equal value", &[("app", database, None)]).kept(&["n2", "n3", "n4", "n5"]));
        check(bears("another value", &[("app", Some("web"), None)]).kept(&["n2", "n5"]));
        check(bears("the key exists", &[("app", None, None)]).kept(&["n2", "n3", "n4", "n5"]));
        check(bears("one effect", &[("app", database, Some(Effect::NoSchedule))]).kept(&["n2", "n3", "n5"]));
        check(bears("the other effect", &[("app", None, Some(Effect::NoExecute))]).kept(&["n2", "n4", "n5"]));
        check(bears("every taint", &[("", None, None)]).kept_all());
        check(bears("two", &[("app", None, None), ("gpu", None, None)]).kept(&["n2", "n3", "n4", "n5", "n6"]));
    }
}
