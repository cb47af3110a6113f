//! PCI devices and NUMA cells that a guest asks, as messages carry them, made into the core's words.

use std::collections::BTreeMap;

use scheduler::numa::{CELLS, CpuPolicy, GuestCell, GuestTopology, ThreadPolicy};
use scheduler::request::PciRequest;

use crate::body::{BadRequest, shortened};
use crate::proto::v1;

/// Most requests for devices, specs of one, and physical networks.
const MOST: usize = 64;

fn bounded(path: &str, count: usize, most: usize) -> Result<(), BadRequest> {
    if count <= most {
        return Ok(());
    }
    Err(BadRequest::at(path, format!("{count} items given, at most {most} expected")))
}

/// One of a few words; an empty text is the first.
fn word<T: Copy>(path: &str, given: &str, known: &[(&str, T)]) -> Result<T, BadRequest> {
    let found = known.iter().find(|(name, _)| given.is_empty() || *name == given);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        let shown = shortened(given).escape_debug().to_string();
        BadRequest::at(path, format!("'{shown}' given, one of {} expected", names.join(", ")))
    })
}

/// Requests for PCI devices.
pub(crate) fn pci(from: Vec<v1::PciRequest>) -> Result<Vec<PciRequest>, BadRequest> {
    bounded("pci_requests", from.len(), MOST)?;
    let requests = from.into_iter().enumerate().map(|(at, request)| {
        let path = format!("pci_requests[{at}].specs");
        bounded(&path, request.specs.len(), MOST)?;
        if request.specs.is_empty() {
            return Err(BadRequest::at(&path, "none given, at least one expected"));
        }
        let specs = request.specs.into_iter().enumerate().map(|(at, spec)| {
            spec_of(spec).map_err(|message| BadRequest::at(&format!("{path}[{at}].without"), message))
        });
        Ok(PciRequest { count: request.count.max(1).into(), specs: specs.collect::<Result<_, _>>()? })
    });
    requests.collect()
}

/// Value of each key; none: it must not be there.
fn spec_of(from: v1::PciSpec) -> Result<BTreeMap<String, Option<String>>, String> {
    let mut spec: BTreeMap<_, _> = from.properties.into_iter().map(|(key, value)| (key, Some(value))).collect();
    for key in from.without {
        if spec.get(&key).is_some_and(Option::is_some) {
            return Err(format!("'{}' is one of the properties too", shortened(&key).escape_debug()));
        }
        spec.insert(key, None);
    }
    Ok(spec)
}

/// NUMA cells; without any nothing is asked.
pub(crate) fn numa(from: Option<v1::GuestNumaTopology>) -> Result<Option<GuestTopology>, BadRequest> {
    let Some(from) = from.filter(|from| !from.cells.is_empty()) else { return Ok(None) };
    bounded("numa_topology.cells", from.cells.len(), CELLS)?;
    bounded("numa_topology.physnets", from.physnets.len(), MOST)?;
    let policies = [("share", false), ("isolate", true)];
    Ok(Some(GuestTopology {
        cells: from.cells.iter().enumerate().map(cell).collect::<Result<_, _>>()?,
        emulator_isolated: word("numa_topology.emulator_threads_policy", &from.emulator_threads_policy, &policies)?,
        physnets: from.physnets,
        tunneled: from.tunneled,
    }))
}

fn cell((at, from): (usize, &v1::GuestNumaCell)) -> Result<GuestCell, BadRequest> {
    let path = |field: &str| format!("numa_topology.cells[{at}].{field}");
    let (shared, dedicated) = (from.shared_vcpus, from.dedicated_vcpus);
    let policy = if from.cpu_policy.is_empty() {
        match (shared, dedicated) {
            (_, 0) => CpuPolicy::Shared,
            (0, _) => CpuPolicy::Dedicated,
            _ => CpuPolicy::Mixed,
        }
    } else {
        let known = [("shared", CpuPolicy::Shared), ("dedicated", CpuPolicy::Dedicated), ("mixed", CpuPolicy::Mixed)];
        word(&path("cpu_policy"), &from.cpu_policy, &known)?
    };
    if matches!((policy, shared, dedicated), (CpuPolicy::Shared, _, 1..) | (CpuPolicy::Dedicated, 1.., _)) {
        let message = format!("'{}' given with {shared} shared and {dedicated} dedicated VCPUs", from.cpu_policy);
        return Err(BadRequest::at(&path("cpu_policy"), message));
    }
    if from.page_kib < -3 {
        return Err(BadRequest::at(&path("page_kib"), format!("{} given, at least -3 expected", from.page_kib)));
    }
    let threads =
        [("prefer", ThreadPolicy::Prefer), ("isolate", ThreadPolicy::Isolate), ("require", ThreadPolicy::Require)];
    Ok(GuestCell {
        shared: shared.into(),
        dedicated: dedicated.into(),
        memory_mb: from.memory_mb,
        page_kib: from.page_kib,
        policy,
        threads: word(&path("cpu_thread_policy"), &from.cpu_thread_policy, &threads)?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{CpuPolicy, numa, pci, v1};

    fn one(cell: v1::GuestNumaCell) -> v1::GuestNumaTopology {
        v1::GuestNumaTopology { cells: vec![cell], ..v1::GuestNumaTopology::default() }
    }

    #[test]
    fn the_policy_is_that_of_the_vcpus() {
        for ((shared_vcpus, dedicated_vcpus), policy) in
            [((2, 0), CpuPolicy::Shared), ((0, 2), CpuPolicy::Dedicated), ((1, 2), CpuPolicy::Mixed)]
        {
            let cell = v1::GuestNumaCell { shared_vcpus, dedicated_vcpus, ..v1::GuestNumaCell::default() };
            assert_eq!(numa(Some(one(cell))).unwrap().unwrap().cells[0].policy, policy);
        }
        assert_eq!(numa(Some(v1::GuestNumaTopology::default())).unwrap(), None, "without cells nothing is asked");
    }

    #[test]
    fn what_cannot_be_is_named() {
        let cell = v1::GuestNumaCell { shared_vcpus: 2, ..v1::GuestNumaCell::default() };
        let cells = |cells| v1::GuestNumaTopology { cells, ..v1::GuestNumaTopology::default() };
        for (asked, message) in [
            (
                one(v1::GuestNumaCell { cpu_policy: "own".to_owned(), ..cell.clone() }),
                "numa_topology.cells[0].cpu_policy: 'own' given, one of shared, dedicated, mixed expected",
            ),
            (
                one(v1::GuestNumaCell { cpu_policy: "dedicated".to_owned(), ..cell.clone() }),
                "numa_topology.cells[0].cpu_policy: 'dedicated' given with 2 shared and 0 dedicated VCPUs",
            ),
            (
                one(v1::GuestNumaCell { page_kib: -4, ..cell.clone() }),
                "numa_topology.cells[0].page_kib: -4 given, at least -3 expected",
            ),
            (cells(vec![cell; 65]), "numa_topology.cells: 65 items given, at most 64 expected"),
        ] {
            assert_eq!(numa(Some(asked)).unwrap_err().to_string(), message);
        }
        let spec =
            v1::PciSpec { properties: [("vendor_id".into(), "8086".into())].into(), without: vec!["vendor_id".into()] };
        for (request, message) in [
            (v1::PciRequest::default(), "pci_requests[0].specs: none given, at least one expected"),
            (
                v1::PciRequest { count: 1, specs: vec![spec] },
                "pci_requests[0].specs[0].without: 'vendor_id' is one of the properties too",
            ),
        ] {
            assert_eq!(pci(vec![request]).unwrap_err().to_string(), message);
        }
    }
}
