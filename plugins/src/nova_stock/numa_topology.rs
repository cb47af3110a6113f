//! Keeps hosts whose NUMA cells (`numa_topology` of the host state) fit the cells of the guest, each guest
//! cell a host cell of its own.
//!
//! A cell fits by its memory pages or memory, by shared CPUs and memory within the host's allocation ratios,
//! and by free dedicated CPUs as the thread policy wants them; physical and tunneled networks that the host
//! ties to cells must have one of these among the chosen. A guest with dedicated CPUs and the thread policy
//! `require` (extra specs or image) is kept off hosts without hyperthreads, even when it asks for no cells.
//!
//! The NUMA affinity of PCI devices is not compared. CPUs and pages that open claims will take are not known.
//!
//! Source: openstack/nova, `NUMATopologyFilter` and `nova/virt/hardware.py`. Nova marks pairs of cells that
//! it has tried by ids that it changes on the way, so with several guest cells it can miss a fit or take one
//! that is none; here every way is tried.

mod fit;

use std::cell::RefCell;

use scheduler::host_state::HostState;
use scheduler::host_state::node::Node;
use scheduler::numa::HostTopology;
use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Domain, Request, Row};

use self::fit::{Ratios, fits};

/// The step.
#[derive(Debug)]
pub struct NUMATopologyFilter;

/// Whether the extra spec or the image property says this.
fn says(request: &Request, name: &str, value: &str) -> bool {
    let extra = request.extra_specs.get(&format!("hw:{name}"));
    let image = request.image_properties.get(&format!("hw_{name}"));
    extra.into_iter().chain(image).any(|said| said == value)
}

fn ratio(state: &HostState, name: &str) -> f64 {
    // A host that says no ratio offers what it has once.
    state.attribute(name).and_then(Node::number).unwrap_or(1.0)
}

impl Filter for NUMATopologyFilter {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        let request = cx.request;
        let threads = says(request, "cpu_policy", "dedicated") && says(request, "cpu_thread_policy", "require");
        if request.numa.is_none() && !threads {
            return Verdict::Skipped("no NUMA cells asked");
        }
        let state = |row: Row| cx.view.host_state(row);
        // A topology without cells is none.
        let cells = |row| state(row).and_then(|state| state.numa.as_ref()).filter(|numa| !numa.cells.is_empty());
        if threads {
            let good = |row| cells(row).is_none_or(HostTopology::has_threads);
            hosts.keep_where("has no hyperthreads, which the thread policy 'require' needs", good, |_| Detail::None);
        }
        let Some(guest) = &request.numa else { return Verdict::Ran };
        hosts.keep_where("reports no NUMA cells", |row| cells(row).is_some(), |_| Detail::None);
        let room = RefCell::new(Vec::new());
        let good = |row| {
            let Some((state, numa)) = state(row).zip(cells(row)) else { return false };
            let ratios =
                Ratios { cpu: ratio(state, "cpu_allocation_ratio"), ram: ratio(state, "ram_allocation_ratio") };
            fits(numa, guest, ratios, &mut room.borrow_mut())
        };
        hosts.keep_where("has no NUMA cells that fit the guest's", good, |_| Detail::None);
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl FilterPlugin for NUMATopologyFilter {
    const NAME: &'static str = "NUMATopologyFilter";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps hosts whose NUMA cells fit those of the guest.";
    const MISSING_DATA: &'static str = "A host that reports no NUMA cells is dropped when the guest has some.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::NUMATopologyFilter;
    use crate::fleet::{Fleet, case, host};
    use scheduler::numa::{CpuPolicy, GuestCell, GuestTopology, ThreadPolicy};
    use serde_json::{Value, json};

    /// A cell with four cores of two threads, of which the first `pinned` are taken, and 4 GiB of memory.
    fn cell(id: u64, pinned: u64) -> Value {
        let cpus: Vec<u64> = (8 * id..8 * id + 8).collect();
        json!({"id": id, "cpuset": cpus, "pcpuset": cpus, "memory": 4096, "memory_usage": 1024,
            "pinned_cpus": cpus[..pinned as usize],
            "siblings": cpus.chunks(2).collect::<Vec<_>>(),
            "mempages": [{"size_kb": 4, "total": 1 << 20, "used": 0}, {"size_kb": 2048, "total": 512, "used": 500}]})
    }

    fn guest(cells: &[GuestCell]) -> GuestTopology {
        GuestTopology { cells: cells.to_vec(), ..GuestTopology::default() }
    }

    fn dedicated(count: u64, threads: ThreadPolicy) -> GuestCell {
        GuestCell { dedicated: count, policy: CpuPolicy::Dedicated, threads, memory_mb: 1024, ..GuestCell::default() }
    }

    #[test]
    fn cells_of_the_guest_fit_cells_of_the_host() {
        let wrapped = json!({"nova_object.data": {"cells": [{"nova_object.data": cell(0, 0)}]}}).to_string();
        let mut fleet = Fleet::of([
            host("free").state(json!({"numa_topology": {"cells": [cell(0, 0), cell(1, 0)]}})),
            host("half").state(json!({"numa_topology": {"cells": [cell(0, 3), cell(1, 6)]}})),
            host("one").state(json!({ "numa_topology": wrapped })),
            host("bare"),
        ]);
        let small = GuestCell { shared: 2, memory_mb: 1024, ..GuestCell::default() };
        let pages = |page_kib| GuestCell { page_kib, ..small };
        for (cells, kept) in [
            (vec![small], &["free", "half", "one"][..]),
            (vec![small, small], &["free", "half"]),
            (vec![GuestCell { shared: 9, ..small }], &[]),
            (vec![dedicated(6, ThreadPolicy::Prefer)], &["free", "one"]),
            (vec![dedicated(5, ThreadPolicy::Prefer), dedicated(2, ThreadPolicy::Prefer)], &["free", "half"]),
            // The other way round, too: which guest cell comes first says nothing.
            (vec![dedicated(2, ThreadPolicy::Prefer), dedicated(5, ThreadPolicy::Prefer)], &["free", "half"]),
            // Three threads are taken on half's first cell: two whole cores and one half are left.
            (vec![dedicated(4, ThreadPolicy::Require)], &["free", "half", "one"]),
            (vec![dedicated(5, ThreadPolicy::Require)], &["free", "one"]),
            (vec![dedicated(2, ThreadPolicy::Isolate)], &["free", "half", "one"]),
            (vec![dedicated(3, ThreadPolicy::Isolate)], &["free", "one"]),
            (vec![pages(-1)], &["free", "half", "one"]),
            (vec![pages(-2)], &[]),
            (vec![GuestCell { memory_mb: 24, ..pages(2048) }], &["free", "half", "one"]),
            (vec![GuestCell { memory_mb: 25, ..pages(2048) }], &[]),
            (vec![pages(1 << 20)], &[]),
        ] {
            case("numa").request(|r| r.numa = Some(guest(&cells))).kept(kept).check::<NUMATopologyFilter>(&mut fleet);
        }
        case("plain").kept_all().skipped("no NUMA cells asked").check::<NUMATopologyFilter>(&mut fleet);
    }

    #[test]
    fn networks_and_threads_choose_cells() {
        let mut near = cell(1, 8);
        near["network_metadata"] = json!({"physnets": ["net1"], "tunneled": true});
        let mut single = cell(0, 0);
        single["siblings"] = json!((0..8).map(|cpu| [cpu]).collect::<Vec<_>>());
        let mut fleet = Fleet::of([
            host("near").state(json!({"numa_topology": {"cells": [cell(0, 0), near]}})),
            host("single").state(json!({"numa_topology": {"cells": [single]}})),
        ]);
        let pinned = guest(&[dedicated(2, ThreadPolicy::Prefer)]);
        let on = |physnets: &[&str], tunneled| {
            let mut guest = pinned.clone();
            guest.physnets = physnets.iter().map(|net| (*net).to_owned()).collect();
            guest.tunneled = tunneled;
            Some(guest)
        };
        for (numa, kept) in [
            (on(&[], false), &["near", "single"][..]),
            (on(&["net1"], false), &["single"]),
            (on(&["net2"], false), &["near", "single"]),
            (on(&[], true), &["single"]),
        ] {
            case("near").request(|r| r.numa = numa).kept(kept).check::<NUMATopologyFilter>(&mut fleet);
        }
        let require = |r: &mut scheduler::Request| {
            r.extra_specs.insert("hw:cpu_policy".to_owned(), "dedicated".to_owned());
            r.image_properties.insert("hw_cpu_thread_policy".to_owned(), "require".to_owned());
        };
        case("threads").request(require).kept(&["near"]).check::<NUMATopologyFilter>(&mut fleet);
    }
}
