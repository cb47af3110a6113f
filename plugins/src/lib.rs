//! The steps that pipelines are made of: one file for each filter and weigher, in a module for each
//! domain, and the pipelines that ship with pallium.
//!
//! A step sees a [`Cx`](scheduler::pipeline::Cx), the request and a view of the fleet, and nothing
//! else: no clock, no network, no state of its own between two requests. It is prepared once for each
//! request (names become masks) and then drops or scores many hosts at a time; nothing is parsed,
//! allocated or hashed for each host. It cannot fail on missing data: what that means is part of its
//! documentation.
//!
//! ```text
//!  deploy/pipelines/*.yaml ──▶ parse_pipelines ──▶ PipelineResource ──▶ Engine::activate
//!                                                                          ▲
//!  nova/*.rs ───────────────▶ registry ────────────────────────────────────┘
//! ```

pub mod features;
pub mod manila;
pub mod nova;
pub mod nova_stock;
pub mod packing;
pub mod pods;
pub mod rules;
mod weighted_mean;

#[cfg(test)]
mod document;
#[cfg(test)]
mod fleet;
#[cfg(test)]
mod reference;

use std::collections::BTreeMap;

use scheduler::pipeline::Registry;
use scheduler::pipeline::spec::PipelineResource;
use scheduler::{Domain, Engine, Settings};
use serde::Deserialize;

/// Calls a macro with every filter and every weigher: the one list of steps.
macro_rules! steps {
    ($visit:ident) => {
        $visit! {
            filters:
            nova::status_conditions::StatusConditions,
            nova::correct_az::CorrectAz,
            nova::host_instructions::HostInstructions,
            nova::image_properties::ImageProperties,
            nova::capabilities::Capabilities,
            nova::has_requested_traits::HasRequestedTraits,
            nova::external_customer::ExternalCustomer,
            nova::has_accelerators::HasAccelerators,
            nova::instance_group_affinity::InstanceGroupAffinity,
            nova::instance_group_anti_affinity::InstanceGroupAntiAffinity,
            nova::has_enough_capacity::HasEnoughCapacity,
            nova::allowed_projects::AllowedProjects,
            nova::aggregate_metadata::AggregateMetadata,
            nova::live_migratable::LiveMigratable,
            nova::requested_destination::RequestedDestination,
            nova::quota_enforcement::QuotaEnforcement,
            nova::exclude_hosts::ExcludeHosts,
            nova_stock::compute::ComputeFilter,
            nova_stock::compute_capabilities::ComputeCapabilitiesFilter,
            nova_stock::image_properties::ImagePropertiesFilter,
            nova_stock::server_group_anti_affinity::ServerGroupAntiAffinityFilter,
            nova_stock::server_group_affinity::ServerGroupAffinityFilter,
            nova_stock::aggregate_instance_extra_specs::AggregateInstanceExtraSpecsFilter,
            nova_stock::aggregate_image_properties_isolation::AggregateImagePropertiesIsolation,
            nova_stock::aggregate_multi_tenancy_isolation::AggregateMultiTenancyIsolation,
            nova_stock::aggregate_type_affinity::AggregateTypeAffinityFilter,
            nova_stock::io_ops::IoOpsFilter,
            nova_stock::io_ops::AggregateIoOpsFilter,
            nova_stock::num_instances::NumInstancesFilter,
            nova_stock::num_instances::AggregateNumInstancesFilter,
            nova_stock::host_hints::DifferentHostFilter,
            nova_stock::host_hints::SameHostFilter,
            nova_stock::isolated_hosts::IsolatedHostsFilter,
            nova_stock::json::JsonFilter,
            nova_stock::metrics::MetricsFilter,
            nova_stock::simple_cidr_affinity::SimpleCidrAffinityFilter,
            nova_stock::numa_topology::NUMATopologyFilter,
            nova_stock::pci_passthrough::PciPassthroughFilter,
            nova_stock::all_hosts::AllHostsFilter,
            pods::noop::Noop,
            pods::taint::TaintFilter,
            pods::node_affinity::NodeAffinity,
            pods::node_available::NodeAvailable,
            pods::node_capacity::NodeCapacity,
            packing::device_slots::DeviceSlots,
            rules::cel_filter::CelFilter;
            weighers:
            nova::kvm_binpack::KvmBinpack,
            nova::kvm_prefer_smaller_hosts::KvmPreferSmallerHosts,
            nova::kvm_instance_group_soft_affinity::KvmInstanceGroupSoftAffinity,
            nova::kvm_failover_evacuation::KvmFailoverEvacuation,
            nova::kvm_committed_resource_reservation::KvmCommittedResourceReservation,
            nova::kvm_failover_reservation_consolidation::KvmFailoverReservationConsolidation,
            nova::vmware_binpack::VmwareBinpack,
            nova::vmware_anti_affinity_noisy_projects::VmwareAntiAffinityNoisyProjects,
            nova::vmware_contended_hosts::VmwareAvoidLongTermContendedHosts,
            nova::vmware_contended_hosts::VmwareAvoidShortTermContendedHosts,
            manila::netapp_cpu_usage_balancing::NetappCpuUsageBalancing,
            nova_stock::soft_affinity::ServerGroupSoftAffinityWeigher,
            nova_stock::soft_anti_affinity::ServerGroupSoftAntiAffinityWeigher,
            nova_stock::build_failure::BuildFailureWeigher,
            nova_stock::cpu::CPUWeigher,
            nova_stock::cross_cell::CrossCellWeigher,
            nova_stock::disk::DiskWeigher,
            nova_stock::hypervisor_version::HypervisorVersionWeigher,
            nova_stock::image_props_weigher::ImagePropertiesWeigher,
            nova_stock::io_ops_weigher::IoOpsWeigher,
            nova_stock::metrics_weigher::MetricsWeigher,
            nova_stock::num_instances_weigher::NumInstancesWeigher,
            nova_stock::pci::PCIWeigher,
            nova_stock::ram::RAMWeigher,
            pods::binpack::Binpack,
            packing::fit::Packing,
            packing::fragmentation::FragmentationGradient,
            packing::lifetime::LifetimeAlignment,
            packing::random_choice::RandomChoice,
            packing::slot_prices::SlotPrices,
            rules::cel_score::CelScore;
        }
    };
}
#[cfg(test)]
use steps;

macro_rules! registered {
    (filters: $($filter:ty),+; weighers: $($weigher:ty),+;) => {
        Registry::default()$(.filter::<$filter>())+$(.weigher::<$weigher>())+
    };
}

/// Names that documents of C5C3 use, and the step that the peer has under another name since.
const OLDER: [(&str, &str); 5] = [
    ("vmware_hana_binpacking", "vmware_binpack"),
    ("vmware_general_purpose_balancing", "vmware_binpack"),
    ("weigher_general_purpose_balancing", "vmware_binpack"),
    ("weigher_avoid_long_term_contended_hosts", "vmware_avoid_long_term_contended_hosts"),
    ("weigher_avoid_short_term_contended_hosts", "vmware_avoid_short_term_contended_hosts"),
];

/// Every step of this crate, and how each domain infers a pipeline.
pub fn registry() -> Registry {
    let registry = steps!(registered).selector(Domain::Nova, nova::selector::select);
    OLDER.iter().fold(registry, |registry, (name, step)| registry.alias(name, step))
}

/// The text of the shipped pipelines.
const SHIPPED: [&str; 11] = [
    include_str!("../../deploy/pipelines/kvm-general-purpose-load-balancing.yaml"),
    include_str!("../../deploy/pipelines/kvm-hana-bin-packing.yaml"),
    include_str!("../../deploy/pipelines/vmware-general-purpose-load-balancing.yaml"),
    include_str!("../../deploy/pipelines/vmware-hana-bin-packing.yaml"),
    include_str!("../../deploy/pipelines/nova-general.yaml"),
    include_str!("../../deploy/pipelines/nova-default.yaml"),
    include_str!("../../deploy/pipelines/nova-packing.yaml"),
    include_str!("../../deploy/pipelines/cinder-external-scheduler.yaml"),
    include_str!("../../deploy/pipelines/manila-external-scheduler.yaml"),
    include_str!("../../deploy/pipelines/machines-scheduler.yaml"),
    include_str!("../../deploy/pipelines/pods-scheduler.yaml"),
];

/// The pipelines that ship with pallium.
pub fn shipped() -> Vec<PipelineResource> {
    let parsed = SHIPPED.iter().map(|text| parse_pipelines(text).expect("a test parses the shipped pipelines"));
    parsed.flatten().collect()
}

/// An engine with every step, and with the shipped pipelines active.
pub fn engine(settings: Settings) -> Engine {
    let mut engine = Engine::new(registry(), settings);
    for resource in shipped() {
        engine.activate(&resource).expect("a test activates the shipped pipelines");
    }
    engine
}

/// Reads Pipeline resources from YAML (or JSON) with any number of documents; empty ones are left
/// out. The error names the document, counted from 1, and the path of the bad value in it. Whether
/// the steps exist and take their options is the engine's to say.
pub fn parse_pipelines(text: &str) -> Result<Vec<PipelineResource>, String> {
    let mut pipelines = Vec::new();
    let mut seen = BTreeMap::new();
    for (at, document) in serde_norway::Deserializer::from_str(text).enumerate() {
        let number = at + 1;
        let resource =
            Option::<PipelineResource>::deserialize(document).map_err(|error| format!("document {number}: {error}"))?;
        let Some(resource) = resource else { continue };
        if let Some(first) = seen.insert(resource.metadata.name.clone(), number) {
            return Err(format!(
                "document {number}: metadata.name: '{}' is the name of document {first} as well",
                resource.metadata.name
            ));
        }
        pipelines.push(resource);
    }
    Ok(pipelines)
}

#[cfg(test)]
mod tests {
    use super::{OLDER, engine, parse_pipelines, registry, shipped};
    use scheduler::Settings;
    use scheduler::pipeline::Engine;

    #[test]
    fn shipped_pipelines_are_active() {
        let engine = engine(Settings::default());
        let names: Vec<&str> = engine.pipelines().map(|pipeline| pipeline.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "cinder-external-scheduler",
                "kvm-general-purpose-load-balancing",
                "kvm-hana-bin-packing",
                "machines-scheduler",
                "manila-external-scheduler",
                "nova-default",
                "nova-general",
                "nova-packing",
                "pods-scheduler",
                "vmware-general-purpose-load-balancing",
                "vmware-hana-bin-packing"
            ]
        );
        for resource in shipped() {
            let errors = engine.compile(&resource).err();
            assert_eq!(errors, None, "{}", resource.metadata.name);
        }
    }

    #[test]
    fn every_file_in_deploy_can_be_applied() {
        let engine = engine(Settings::default());
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/pipelines")).expect("a folder");
        for file in folder.map(|file| file.expect("an entry").path()) {
            let text = std::fs::read_to_string(&file).expect("a file");
            for resource in parse_pipelines(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display())) {
                assert_eq!(engine.lint(&resource), (Vec::new(), Vec::new()), "{}", file.display());
            }
        }
    }

    #[test]
    fn older_names_are_read_with_a_warning() {
        let registry = registry();
        for (name, step) in OLDER {
            assert!(registry.weighers().any(|kind| kind.name == step), "{name} stands for {step}, which there is not");
        }
        let engine = Engine::new(registry, Settings::default());
        let step = "{name: vmware_hana_binpacking, params: [{key: resourceWeights, floatMapValue: {memory: 1.0}}]}";
        let text = GOOD
            .replace("NAME", "one")
            .replace("type: filter-weigher", &format!("type: filter-weigher, weighers: [{step}]"));
        let resource = &parse_pipelines(&text).expect("a good text")[0];
        assert_eq!(engine.compile(resource).expect("it runs").weighers[0].0, "vmware_binpack");
        let warnings: Vec<String> = engine.lint(resource).1.iter().map(ToString::to_string).collect();
        assert_eq!(
            warnings[0],
            "pipeline one: spec.weighers[0].name: 'vmware_hana_binpacking' is an older name of 'vmware_binpack': use that one"
        );
    }

    #[test]
    fn hana_packs_where_general_purpose_spreads() {
        let resources = shipped();
        let [general, hana, ..] = resources.as_slice() else { panic!("at least two pipelines expected") };
        assert_eq!(general.spec.filters, hana.spec.filters);
        let multipliers = |pipeline: &scheduler::pipeline::spec::PipelineResource| -> Vec<(String, f64)> {
            pipeline.spec.weighers.iter().map(|step| (step.name.clone(), step.multiplier.unwrap_or(1.0))).collect()
        };
        for (general, hana) in multipliers(general).into_iter().zip(multipliers(hana)) {
            assert_eq!(general.0, hana.0);
            let expected = if general.0 == "kvm_binpack" { (-1.0, 1.0) } else { (1.0, 1.0) };
            assert_eq!((general.1, hana.1), expected, "{}", general.0);
        }
    }

    const GOOD: &str = "apiVersion: cortex.cloud/v1alpha1
kind: Pipeline
metadata: {name: NAME, labels: {a: b}}
spec: {schedulingDomain: nova, type: filter-weigher}
status: {conditions: []}
";

    #[test]
    fn many_documents() {
        let text = format!("---\n{}---\n---\n{}", GOOD.replace("NAME", "one"), GOOD.replace("NAME", "two"));
        let names: Vec<String> =
            parse_pipelines(&text).expect("a good text").into_iter().map(|p| p.metadata.name).collect();
        assert_eq!(names, ["one", "two"]);
        assert_eq!(parse_pipelines(""), Ok(Vec::new()));
        assert_eq!(parse_pipelines("---\n"), Ok(Vec::new()));
    }

    #[test]
    fn errors_name_document_and_path() {
        let one = GOOD.replace("NAME", "one");
        let twice = format!("{one}---\n{one}");
        assert_eq!(
            parse_pipelines(&twice).expect_err("a bad text"),
            "document 2: metadata.name: 'one' is the name of document 1 as well"
        );
        let bad = format!(
            "{one}---\n{}",
            GOOD.replace("NAME", "two").replace("filter-weigher", "filter-weigher, filters: [{name: a}, {nam: b}]")
        );
        let error = parse_pipelines(&bad).expect_err("a bad text");
        assert!(error.starts_with("document 2: spec.filters[1]: unknown field `nam`"), "{error}");
        // JSON, as which a pipeline goes to the server, knows neither: they must not become 1 on the way.
        for (given, told) in [
            ("multiplier: .nan", "NaN given, a finite number expected"),
            ("multiplier: -.inf", "-inf given, a finite number expected"),
            ("params: [{key: a, floatValue: .inf}]", "inf given, a finite number expected"),
            ("params: [{key: a, floatMapValue: {b: .nan}}]", "NaN given, a finite number expected"),
        ] {
            let weighers = format!("filter-weigher, weighers: [{{name: a, {given}}}]");
            let error = parse_pipelines(&one.replace("filter-weigher", &weighers)).expect_err("a bad text");
            assert!(error.contains("spec.weighers[0]") && error.contains(told), "{given}: {error}");
        }
        let error = parse_pipelines("spec: [").expect_err("a bad text");
        assert!(error.starts_with("document 1: "), "{error}");
    }

    #[test]
    fn multipliers_have_a_bound() {
        let engine = Engine::new(registry(), Settings::default());
        for (multiplier, errors) in [("-1e9", 0), ("1e10", 1), ("-1e308", 1)] {
            let weighers = format!("filter-weigher, weighers: [{{name: kvm_binpack, multiplier: {multiplier}}}]");
            let text = GOOD.replace("NAME", "one").replace("filter-weigher", &weighers);
            let resource = &parse_pipelines(&text).expect("a good text")[0];
            let mut found = engine.lint(resource).0;
            found.retain(|error| error.path == "spec.weighers[0].multiplier");
            assert_eq!(found.len(), errors, "{multiplier}: {found:?}");
        }
    }

    #[test]
    fn unknown_steps_and_options_are_errors() {
        let engine = Engine::new(registry(), Settings::default());
        let text = GOOD.replace("NAME", "one").replace(
            "type: filter-weigher",
            "type: filter-weigher, filters: [{name: filter_magic}, {name: filter_exclude_hosts, params: [{key: hosts, stringListValue: [a]}]}]",
        );
        let errors: Vec<String> = engine
            .compile(&parse_pipelines(&text).expect("a good text")[0])
            .expect_err("a bad text")
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(
            errors[0].starts_with("pipeline one: spec.filters[0].name: step 'filter_magic' is not known"),
            "{errors:?}"
        );
        assert_eq!(errors[1], "pipeline one: spec.filters[1].params: unknown field `hosts`, expected `excludedHosts`");
    }
}
