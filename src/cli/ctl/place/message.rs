//! A request of Nova's hook as a message of pallium's own API: all that the one asks the other can ask too.

use std::collections::BTreeMap;

use api::proto::v1;
use scheduler::numa::{CpuPolicy, GuestCell, GuestTopology, ThreadPolicy};
use scheduler::request::{Candidate, Candidates, GroupPolicy, PciRequest};
use scheduler::{Intent, Request};

/// A translated hook request as a message of pallium's own API.
pub(super) fn message(request: Request) -> v1::PlaceRequest {
    let candidates = match request.candidates {
        Candidates::All => Vec::new(),
        Candidates::Sent(hosts) => {
            let candidate = |h: Candidate| v1::Candidate { host: h.host.into(), node: h.node.into(), weight: h.weight };
            hosts.into_iter().map(candidate).collect()
        }
    };
    let options = &request.options;
    let destination = request.destination;
    v1::PlaceRequest {
        request_id: None,
        domain: Some(request.domain.to_string()),
        consumers: request.consumers.iter().map(ToString::to_string).collect(),
        count: 0,
        pipeline: request.pipeline,
        project_id: request.project,
        user_id: request.user,
        intent: request.label.map(|label: Intent| label.as_str().to_owned()),
        source_host: request.source_host,
        resources: request.resources,
        flavor: request.flavor,
        extra_specs: request.extra_specs,
        image_properties: request.image_properties,
        required_traits: request.required_traits,
        forbidden_traits: request.forbidden_traits,
        availability_zone: request.zone,
        candidates,
        ignore_hosts: request.ignore_hosts,
        retry_hosts: request.retry_hosts,
        force_hosts: request.force_hosts,
        force_nodes: request.force_nodes,
        destination: Some(v1::Destination {
            host: destination.host,
            node: destination.node,
            aggregates: destination.aggregates.into_iter().map(|any_of| v1::AggregateSet { any_of }).collect(),
            forbidden_aggregates: destination.forbidden_aggregates,
            allow_cross_cell_move: destination.preferred_cell.is_some(),
            cell: destination.preferred_cell.or_else(|| destination.cell_named.then(String::new)),
        }),
        group: request.group.map(|group| v1::ServerGroup {
            uuid: group.uuid.map(|uuid| uuid.to_string()),
            policy: policy(group.policy).to_owned(),
            members: group.members.iter().map(ToString::to_string).collect(),
            hosts: group.hosts,
            max_server_per_host: group.max_per_host,
        }),
        hints: request.hints.into_iter().map(|(key, items)| (key, v1::StringList { items })).collect(),
        options: Some(v1::PlaceOptions {
            read_only: options.read_only,
            assume_empty_hosts: options.assume_empty_hosts,
            lock_reservations: options.lock_reservations,
            ignored_reservation_types: options.ignored_reservation_types.clone(),
            max_candidates: options.max_candidates,
            skip_history: options.skip_history,
            skip_inflight: options.skip_inflight,
            skip_committed_resource_tracking: options.skip_committed_resource_tracking,
            without_steps: false,
        }),
        dry_run: false,
        trace_id: None,
        pod: None,
        image_id: request.image,
        pci_requests: request.pci.into_iter().map(pci).collect(),
        numa_topology: request.numa.map(numa),
    }
}

fn pci(from: PciRequest) -> v1::PciRequest {
    let spec = |spec: BTreeMap<String, Option<String>>| {
        let mut out = v1::PciSpec::default();
        for (key, value) in spec {
            match value {
                Some(value) => drop(out.properties.insert(key, value)),
                None => out.without.push(key),
            }
        }
        out
    };
    let count = u32::try_from(from.count).unwrap_or(u32::MAX);
    v1::PciRequest { count, specs: from.specs.into_iter().map(spec).collect() }
}

fn numa(from: GuestTopology) -> v1::GuestNumaTopology {
    let count = |vcpus| u32::try_from(vcpus).unwrap_or(u32::MAX);
    let cell = |cell: GuestCell| v1::GuestNumaCell {
        shared_vcpus: count(cell.shared),
        dedicated_vcpus: count(cell.dedicated),
        memory_mb: cell.memory_mb,
        page_kib: cell.page_kib,
        cpu_policy: match cell.policy {
            CpuPolicy::Shared => "shared",
            CpuPolicy::Dedicated => "dedicated",
            CpuPolicy::Mixed => "mixed",
        }
        .to_owned(),
        cpu_thread_policy: match cell.threads {
            ThreadPolicy::Prefer => "prefer",
            ThreadPolicy::Isolate => "isolate",
            ThreadPolicy::Require => "require",
        }
        .to_owned(),
    };
    v1::GuestNumaTopology {
        cells: from.cells.into_iter().map(cell).collect(),
        emulator_threads_policy: if from.emulator_isolated { "isolate" } else { "share" }.to_owned(),
        physnets: from.physnets,
        tunneled: from.tunneled,
    }
}

fn policy(policy: Option<GroupPolicy>) -> &'static str {
    match policy {
        Some(GroupPolicy::Affinity) => "affinity",
        Some(GroupPolicy::AntiAffinity) => "anti-affinity",
        Some(GroupPolicy::SoftAffinity) => "soft-affinity",
        Some(GroupPolicy::SoftAntiAffinity) => "soft-anti-affinity",
        None => "",
    }
}
