//! Stock Nova's filters and weighers, under Nova's own names and options: what an estate that runs an
//! unmodified Nova has configured can be written down as a pipeline and gives the same answers. A test
//! against the real Nova holds them to that (`tests/nova`); what differs on purpose is listed in
//! `docs/differences.md`.
//!
//! What they read of a host beside Placement's data is its [`HostState`](scheduler::HostState).

pub mod aggregate_image_properties_isolation;
pub mod aggregate_instance_extra_specs;
pub mod aggregate_multi_tenancy_isolation;
pub mod aggregate_type_affinity;
pub mod aggregates;
pub mod all_hosts;
pub mod attributes;
pub mod build_failure;
pub mod compute;
pub mod compute_capabilities;
pub mod count_limit;
pub mod cpu;
pub mod cross_cell;
pub mod disk;
pub mod host_hints;
pub mod hypervisor_version;
pub mod image_properties;
pub mod image_props_weigher;
pub mod instances;
pub mod io_ops;
pub mod io_ops_weigher;
pub mod isolated_hosts;
pub mod json;
pub mod metrics;
pub mod metrics_weigher;
pub mod multipliers;
pub mod num_instances;
pub mod num_instances_weigher;
pub mod numa_topology;
pub mod pci;
pub mod pci_passthrough;
pub mod python;
pub mod ram;
pub mod server_group_affinity;
pub mod server_group_anti_affinity;
pub mod simple_cidr_affinity;
pub mod soft_affinity;
pub mod soft_anti_affinity;
