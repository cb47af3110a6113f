//! The steps of the Nova domain: hypervisors that take instances.

use scheduler::Intent;

pub mod aggregate_metadata;
pub mod allowed_projects;
pub mod capabilities;
pub mod correct_az;
pub mod exclude_hosts;
pub mod external_customer;
pub mod extra_specs;
pub mod has_accelerators;
pub mod has_enough_capacity;
pub mod has_requested_traits;
pub mod host_instructions;
pub mod hosts;
pub mod image_properties;
pub mod instance_group_affinity;
pub mod instance_group_anti_affinity;
pub mod kvm_binpack;
pub mod kvm_committed_resource_reservation;
pub mod kvm_failover_evacuation;
pub mod kvm_failover_reservation_consolidation;
pub mod kvm_instance_group_soft_affinity;
pub mod kvm_prefer_smaller_hosts;
pub mod live_migratable;
pub mod quota_enforcement;
pub mod requested_destination;
pub mod resource_weights;
pub mod selector;
pub mod status_conditions;
pub mod vmware_anti_affinity_noisy_projects;
pub mod vmware_binpack;
pub mod vmware_contended_hosts;

/// True for the intents that act for no customer: failover reservations and probes. A committed
/// slot belongs to a project.
pub(crate) fn is_ownerless(intent: Intent) -> bool {
    matches!(intent, Intent::ReserveForFailover | Intent::ReuseFailoverReservation | Intent::CapacityProbe)
}
