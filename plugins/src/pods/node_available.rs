//! Drops nodes that are not ready or must not be given anything.
//!
//! | dropped | the same as the taint |
//! | --- | --- |
//! | condition Ready is False or not reported | `node.kubernetes.io/not-ready:NoSchedule` |
//! | condition Ready is Unknown | `node.kubernetes.io/unreachable:NoSchedule` |
//! | MemoryPressure, DiskPressure, PIDPressure, NetworkUnavailable is True | `node.kubernetes.io/memory-pressure:NoSchedule`, … |
//! | `disabled` (spec.unschedulable) | `node.kubernetes.io/unschedulable:NoSchedule` |
//! | `forced_down` | none |
//!
//! A pod that tolerates the taint is placed all the same: Kubernetes sets that taint for the condition, and
//! its DaemonSets count on it.
//!
//! Source: cobaltcore-dev/cortex, `nodeavailable`; kubernetes/kubernetes, the node lifecycle controller
//! (which taint stands for which condition) and kube-scheduler's plugin NodeUnschedulable.

use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::pod::{Effect, Taint};
use scheduler::{Domain, Facet, Request};

/// The step.
#[derive(Debug)]
pub struct NodeAvailable;

/// Conditions that keep pods away, with the taints that stand for them.
const PRESSURES: [(&str, &str, &str); 4] = [
    ("MemoryPressure=True", "node.kubernetes.io/memory-pressure", "the node is short of memory (MemoryPressure)"),
    ("DiskPressure=True", "node.kubernetes.io/disk-pressure", "the node is short of disk (DiskPressure)"),
    ("PIDPressure=True", "node.kubernetes.io/pid-pressure", "the node is short of process ids (PIDPressure)"),
    (
        "NetworkUnavailable=True",
        "node.kubernetes.io/network-unavailable",
        "the node has no network (NetworkUnavailable)",
    ),
];

impl Filter for NodeAvailable {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        let bears = |key| cx.request.pod.tolerates(Taint { key, value: "", effect: Effect::NoSchedule });
        let is = |condition| cx.view.facet(Facet::Condition, condition);
        let (ready, unknown) = (is("Ready=True"), is("Ready=Unknown"));
        if !bears("node.kubernetes.io/unreachable") {
            hosts.drop(unknown, "the node cannot be reached (Ready is Unknown)", |_| Detail::None);
        }
        if !bears("node.kubernetes.io/not-ready") {
            let good = |row| ready.has(row) || unknown.has(row);
            hosts.keep_where("the node is not ready", good, |_| Detail::None);
        }
        for (condition, taint, why) in PRESSURES {
            if !bears(taint) {
                hosts.drop(is(condition), why, |_| Detail::None);
            }
        }
        if !bears("node.kubernetes.io/unschedulable") {
            hosts.drop(cx.view.flag(Facet::Disabled), "the node is unschedulable", |_| Detail::None);
        }
        hosts.drop(cx.view.flag(Facet::ForcedDown), "forced down", |_| Detail::None);
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl FilterPlugin for NodeAvailable {
    const NAME: &'static str = "nodeavailable";
    const DOMAINS: &'static [Domain] = &[Domain::Pods];
    const SUMMARY: &'static str = "Drops nodes that are not ready, under pressure or unschedulable.";
    const MISSING_DATA: &'static str =
        "A node without the condition Ready is dropped; the other conditions count as not met.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::NodeAvailable;
    use crate::fleet::{Fleet, case, node};
    use scheduler::pod::{Effect, Toleration};

    #[test]
    fn nodes_that_take_nothing() {
        let mut fleet = Fleet::of([
            node("good").conditions(&["Ready=True", "MemoryPressure=False"]),
            node("down").conditions(&["Ready=False"]),
            node("lost").conditions(&["Ready=Unknown"]),
            node("silent").conditions(&["MemoryPressure=False"]),
            node("bare"),
            node("memory").conditions(&["Ready=True", "MemoryPressure=True"]),
            node("disk").conditions(&["Ready=True", "DiskPressure=True"]),
            node("pids").conditions(&["Ready=True", "PIDPressure=True"]),
            node("network").conditions(&["Ready=True", "NetworkUnavailable=True"]),
            node("unsure").conditions(&["Ready=True", "MemoryPressure=Unknown"]),
            node("cordoned").conditions(&["Ready=True"]).disabled(),
            node("fenced").conditions(&["Ready=True"]).forced_down(),
        ]);
        case("any pod")
            .pod(|_| ())
            .kept(&["good", "unsure"])
            .dropped("down", "the node is not ready")
            .dropped("lost", "the node cannot be reached (Ready is Unknown)")
            .dropped("silent", "the node is not ready")
            .dropped("bare", "the node is not ready")
            .dropped("memory", "the node is short of memory (MemoryPressure)")
            .dropped("disk", "the node is short of disk (DiskPressure)")
            .dropped("pids", "the node is short of process ids (PIDPressure)")
            .dropped("network", "the node has no network (NetworkUnavailable)")
            .dropped("cordoned", "the node is unschedulable")
            .dropped("fenced", "forced down")
            .check::<NodeAvailable>(&mut fleet);
        let mut bears = |key: &str, effect, kept: &[&str]| {
            let key = key.to_owned();
            case(&key)
                .pod(|pod| pod.tolerations = vec![Toleration { key: key.clone(), value: None, effect }])
                .kept(kept)
                .check::<NodeAvailable>(&mut fleet);
        };
        bears("node.kubernetes.io/memory-pressure", None, &["good", "unsure", "memory"]);
        bears("node.kubernetes.io/unschedulable", Some(Effect::NoSchedule), &["good", "unsure", "cordoned"]);
        bears("node.kubernetes.io/unreachable", None, &["good", "unsure", "lost"]);
        bears("node.kubernetes.io/not-ready", None, &["good", "unsure", "down", "silent", "bare"]);
        // Running pods may stay; new ones do not come.
        bears("node.kubernetes.io/not-ready", Some(Effect::NoExecute), &["good", "unsure"]);
    }
}
