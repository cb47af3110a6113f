//! Drops nodes that have not enough left of what a pod, or a machine, asks for.
//!
//! For each resource class asked with an amount above 0:
//!
//! ```text
//! kept  iff  asked ≤ min(allocatable − used, max_unit)  and the node's min_unit and step_size allow it
//! ```
//!
//! Allocatable is the inventory's capacity: report the node's capacity as `total`, and what the system keeps
//! of it as `reserved`. Used counts the pods that the node lists and every open claim. Each pod takes one of
//! PODS, which is checked where a node reports it. Machine pools report what they have of each machine class
//! as a resource class of its own.
//!
//! Source: kubernetes/kubernetes, kube-scheduler's plugin NodeResourcesFit; the name is that of
//! cobaltcore-dev/cortex (which subtracts no pods).

use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::pod::PODS;
use scheduler::{Aspect, Domain, Request};

use crate::nova::has_enough_capacity::enough;

/// The step.
#[derive(Debug)]
pub struct NodeCapacity;

impl Filter for NodeCapacity {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        let empty = cx.request.options.assume_empty_hosts;
        enough(cx, hosts, empty, |class| (class == PODS).then_some("pods_unknown"))
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::OwnUse
    }

    fn acts_on(&self, _: &Request) -> Vec<Aspect> {
        vec![Aspect::Amounts]
    }
}

impl FilterPlugin for NodeCapacity {
    const NAME: &'static str = "nodecapacity";
    const DOMAINS: &'static [Domain] = &[Domain::Machines, Domain::Pods];
    const SUMMARY: &'static str = "Keeps nodes that have enough left of every asked resource class.";
    const MISSING_DATA: &'static str =
        "A node without an inventory of an asked class is dropped; without PODS it is kept with the note pods_unknown.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::NodeCapacity;
    use crate::fleet::{Case, Fleet, Host, case, node, vm};
    use scheduler::{InstanceReport, Inventory};

    fn asks(name: &str, amounts: &[(&str, u64)]) -> Case {
        case(name).pod(|_| ()).resources(amounts)
    }

    fn sized(name: &str, cpu: u64, memory: u64) -> Host {
        node(name).inventory("MILLICPU", Inventory::of(cpu)).inventory("MEMORY_MB", Inventory::of(memory))
    }

    #[test]
    fn what_is_left() {
        let mut busy = sized("busy", 2000, 2048);
        busy.0.instances = Some(vec![InstanceReport {
            uuid: vm("running"),
            resources: Some([("MILLICPU".to_owned(), 1600), ("MEMORY_MB".to_owned(), 512)].into()),
            ..InstanceReport::default()
        }]);
        let mut fleet = Fleet::of([
            sized("free", 2000, 2048),
            busy,
            sized("reserved", 0, 2048).inventory("MILLICPU", Inventory { reserved: 1600, ..Inventory::of(2000) }),
            sized("gpu", 2000, 2048).inventory("NVIDIA_COM_GPU", Inventory::of(1)),
            node("bare"),
        ]);
        let mut check = |case: Case| case.check::<NodeCapacity>(&mut fleet);
        check(asks("nothing", &[]).kept_all().skipped("nothing asked"));
        check(
            asks("500m and 1Gi", &[("MILLICPU", 500), ("MEMORY_MB", 1024)])
                .kept(&["free", "gpu"])
                .dropped("busy", "short of cpu: 500m asked, 400m free")
                .dropped("reserved", "short of cpu: 500m asked, 400m free")
                .dropped("bare", "no MEMORY_MB inventory"),
        );
        check(asks("3000m", &[("MILLICPU", 3000)]).kept(&[]).dropped("free", "short of cpu: 3000m asked, 2000m free"));
        check(asks("a gpu", &[("NVIDIA_COM_GPU", 1)]).kept(&["gpu"]).dropped("free", "no NVIDIA_COM_GPU inventory"));
    }

    #[test]
    fn room_for_pods_where_it_is_known() {
        let mut full = node("full").inventory("PODS", Inventory::of(1));
        full.0.instances = Some(vec![InstanceReport {
            uuid: vm("running"),
            resources: Some([("PODS".to_owned(), 1)].into()),
            ..InstanceReport::default()
        }]);
        let mut fleet = Fleet::of([full, node("room").inventory("PODS", Inventory::of(1)), node("unknown")]);
        asks("one", &[("PODS", 1)])
            .kept(&["room", "unknown"])
            .dropped("full", "short of PODS: 1 asked, 0 free")
            .note("pods_unknown: 1 hosts report no PODS and were not checked for it")
            .check::<NodeCapacity>(&mut fleet);
    }
}
