//! The whole general-purpose pipeline against a plain one: loops over hosts and strings, written
//! from the rules and not from the steps. Over random fleets and requests both must keep the same
//! hosts, in the same order, with the same scores.

use std::collections::BTreeMap;

use proptest::prelude::*;
use scheduler::request::{Candidates, Destination, Group, GroupPolicy};
use scheduler::{HostReport, Intent, Inventory, Request, Settings};
use uuid::Uuid;

use crate::fleet::{Fleet, Host, aggregate_uuid, group, host, texts, vm};

const INTENTS: [Intent; 8] = [
    Intent::Create,
    Intent::Resize,
    Intent::LiveMigration,
    Intent::Evacuate,
    Intent::ReserveForFailover,
    Intent::ReuseFailoverReservation,
    Intent::ReserveForCommittedResource,
    Intent::CapacityProbe,
];

fn size(report: &HostReport, class: &str) -> Option<u64> {
    let inventory = report.inventories.as_ref()?.get(class)?;
    Some(((inventory.total - inventory.reserved.min(inventory.total)) as f64 * inventory.allocation_ratio) as u64)
}

fn used(report: &HostReport, class: &str) -> u64 {
    let reported = report.allocation.as_ref().and_then(|used| used.get(class)).copied().unwrap_or(0);
    let sizes = report.instances.iter().flatten().filter_map(|instance| instance.resources.as_ref()?.get(class));
    reported.max(sizes.sum())
}

fn runs(report: &HostReport, uuid: Uuid) -> bool {
    report.instances.iter().flatten().any(|instance| instance.uuid == uuid)
}

fn members(report: &HostReport, request: &Request) -> u64 {
    let Some(group) = &request.group else { return 0 };
    group.members.iter().filter(|member| !request.consumers.contains(member) && runs(report, **member)).count() as u64
}

fn has(list: Option<&Vec<String>>, wanted: &str) -> bool {
    list.is_some_and(|list| list.iter().any(|item| item == wanted))
}

fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

fn in_aggregate(report: &HostReport, uuid: &str) -> bool {
    report.aggregates.iter().flatten().any(|aggregate| aggregate.uuid.is_some_and(|own| own.to_string() == uuid))
}

/// The step that drops a host, if any does.
fn dropped_by(fleet: &[HostReport], report: &HostReport, request: &Request, intent: Intent) -> Option<&'static str> {
    let reservation = intent.is_internal();
    let ownerless = reservation && intent != Intent::ReserveForCommittedResource;
    let project = request.project.as_deref().unwrap_or("");

    for (kind, value) in report.conditions.iter().flatten() {
        match kind.as_str() {
            "Ready" if value != "True" => return Some("filter_status_conditions"),
            "HypervisorDisabled" | "Terminating" if value != "False" => return Some("filter_status_conditions"),
            _ => {}
        }
    }
    if report.disabled == Some(true) || report.forced_down == Some(true) {
        return Some("filter_status_conditions");
    }
    if let Some(zone) = &request.zone
        && !zone.is_empty()
        && report.availability_zone.as_ref() != Some(zone)
    {
        return Some("filter_correct_az");
    }
    if request.ignore_hosts.iter().any(|name| same(name, &report.name))
        || (!request.force_hosts.is_empty() && !request.force_hosts.iter().any(|name| same(name, &report.name)))
    {
        return Some("filter_host_instructions");
    }
    if !reservation
        && let Some(kind) = request.image_properties.get("img_hv_type")
        && (kind == "vmware" || kind == "baremetal")
    {
        return Some("filter_image_properties");
    }
    let wanted: Vec<(&str, &String)> = request
        .extra_specs
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix("capabilities:")?, value)))
        .collect();
    if !wanted.is_empty() {
        let kind = match report.hypervisor_type.as_deref().map(str::to_lowercase).as_deref() {
            Some("kvm" | "qemu") => "qemu",
            Some("ch") => "ch",
            _ => return Some("filter_capabilities"),
        };
        for (key, value) in wanted {
            let fits = match key {
                "hypervisor_type" => same(value, kind),
                "cpu_arch" => match value.strip_prefix("<in> ") {
                    Some(part) => report.cpu_arch.as_ref().is_some_and(|arch| arch.contains(part)),
                    None => report.cpu_arch.as_ref() == Some(value),
                },
                _ => false,
            };
            if !fits {
                return Some("filter_capabilities");
            }
        }
    }
    if !request.required_traits.iter().all(|name| has(report.traits.as_ref(), name))
        || request.forbidden_traits.iter().any(|name| has(report.traits.as_ref(), name))
    {
        return Some("filter_has_requested_traits");
    }
    if !ownerless
        && request
            .hints
            .get("domain_name")
            .and_then(|names| names.first())
            .is_some_and(|name| name.starts_with("iaas-"))
        && !has(report.traits.as_ref(), "CUSTOM_EXTERNAL_CUSTOMER_EXCLUSIVE")
    {
        return Some("filter_external_customer");
    }
    if request.extra_specs.contains_key("accel:device_profile") && !has(report.traits.as_ref(), "COMPUTE_ACCELERATORS")
    {
        return Some("filter_has_accelerators");
    }
    if let Some(group) = &request.group
        && !reservation
    {
        let known = !group.hosts.is_empty() || fleet.iter().any(|other| members(other, request) > 0);
        let named = group.hosts.iter().any(|name| same(name, &report.name));
        if group.policy == Some(GroupPolicy::Affinity) && known && !named && members(report, request) == 0 {
            return Some("filter_instance_group_affinity");
        }
        let own = request.consumers.iter().any(|uuid| runs(report, *uuid));
        if group.policy == Some(GroupPolicy::AntiAffinity) && !own && members(report, request) >= group.max_per_host {
            return Some("filter_instance_group_anti_affinity");
        }
    }
    for (class, asked) in &request.resources {
        let Some(capacity) = size(report, class) else {
            if *asked == 0 || class == "DISK_GB" {
                continue;
            }
            return Some("filter_has_enough_capacity");
        };
        let held = report
            .instances
            .iter()
            .flatten()
            .filter(|instance| intent == Intent::Resize && request.consumers.contains(&instance.uuid))
            .filter_map(|instance| instance.resources.as_ref()?.get(class))
            .sum();
        let more = asked.saturating_sub(held);
        let taken = if request.options.assume_empty_hosts { 0 } else { used(report, class) };
        let inventory = report.inventories.as_ref().expect("it has a size")[class];
        let uneven = !asked.is_multiple_of(inventory.step_size) || *asked < inventory.min_unit;
        let fits = more == 0 || taken + more <= capacity;
        if *asked > 0 && (!fits || uneven || *asked > inventory.max_unit) {
            return Some("filter_has_enough_capacity");
        }
    }
    if !ownerless && !project.is_empty() {
        let allowed = report.allowed_projects.as_deref().unwrap_or_default();
        if !allowed.is_empty() && !allowed.iter().any(|id| id == project) {
            return Some("filter_allowed_projects");
        }
    }
    if !ownerless {
        let tenants: Vec<&str> = report
            .aggregates
            .iter()
            .flatten()
            .flat_map(|aggregate| aggregate.metadata.iter().flatten())
            .filter(|(key, _)| key.starts_with("filter_tenant_id"))
            .flat_map(|(_, value)| value.split(',').map(str::trim))
            .filter(|id| !id.is_empty())
            .collect();
        if !tenants.is_empty() && !tenants.contains(&project) {
            return Some("filter_aggregate_metadata");
        }
    }
    if intent == Intent::LiveMigration || intent == Intent::Move {
        let present = fleet.iter().find(|other| request.consumers.iter().any(|uuid| runs(other, *uuid)));
        let named = request.source_host.as_ref().map(|name| fleet.iter().find(|other| same(&other.name, name)));
        let source = if intent == Intent::Move { present.map(Some).or(named) } else { named.or(present.map(Some)) };
        if let Some(source) = source {
            let Some(source) = source else { return Some("filter_live_migratable") };
            let covers = |mine: &Option<Vec<String>>, theirs: &Option<Vec<String>>| {
                theirs.iter().flatten().all(|item| has(mine.as_ref(), item))
            };
            if report.cpu_arch != source.cpu_arch
                || !covers(&report.cpu_models, &source.cpu_models)
                || !covers(&report.cpu_features, &source.cpu_features)
                || !covers(&report.cpu_devices, &source.cpu_devices)
            {
                return Some("filter_live_migratable");
            }
        }
    }
    if !reservation {
        let wanted = &request.destination;
        if !wanted.aggregates.iter().all(|any| any.iter().any(|uuid| in_aggregate(report, uuid)))
            || wanted.forbidden_aggregates.iter().any(|uuid| in_aggregate(report, uuid))
            || wanted.host.as_ref().is_some_and(|name| !same(name, &report.name))
        {
            return Some("filter_requested_destination");
        }
    }
    None
}

/// Hosts in order with their scores.
fn rank(fleet: &[HostReport], request: &Request, intent: Intent) -> Vec<(String, f64)> {
    let kept: Vec<(usize, &HostReport)> =
        fleet.iter().enumerate().filter(|(_, report)| dropped_by(fleet, report, request, intent).is_none()).collect();
    let memory = |report: &HostReport| size(report, "MEMORY_MB").unwrap_or(0);
    let sizes = || kept.iter().map(|(_, report)| memory(report)).filter(|&size| size > 0);
    let (min, max) = (sizes().min().unwrap_or(0), sizes().max().unwrap_or(0));
    let asked = request.resources.get("MEMORY_MB").copied().unwrap_or(0);
    let mut scored: Vec<(i64, usize, String)> = kept
        .iter()
        .map(|&(at, report)| {
            let mut score = 0.0;
            if memory(report) > 0 && min < max {
                score += (1.0 - (memory(report) - min) as f64 / (max - min) as f64).tanh();
            }
            let count = members(report, request) as f64;
            match request.group.as_ref().and_then(|group| group.policy) {
                Some(GroupPolicy::SoftAffinity) => score += count.tanh(),
                Some(GroupPolicy::SoftAntiAffinity) => score -= count.tanh(),
                _ => {}
            }
            if memory(report) > 0 && asked > 0 {
                score -= ((used(report, "MEMORY_MB") + asked) as f64 / memory(report) as f64).tanh();
            }
            if intent == Intent::Evacuate {
                score += 0.1_f64.tanh();
            }
            if request.hints.contains_key("_cortex_resource_group") && intent != Intent::ReserveForFailover {
                score += 0.1_f64.tanh();
            }
            ((score * 1e9).round() as i64, at, report.name.clone())
        })
        .collect();
    scored.sort_by_key(|&(score, at, _)| (-score, at));
    scored.into_iter().map(|(score, _, name)| (name, score as f64 / 1e9)).collect()
}

const TRAITS: [&str; 4] = ["A", "B", "CUSTOM_EXTERNAL_CUSTOMER_EXCLUSIVE", "COMPUTE_ACCELERATORS"];

/// One in `n`.
fn rarely(n: u32) -> BoxedStrategy<bool> {
    (0..n).prop_map(|draw| draw == 0).boxed()
}

fn some<T: Clone + std::fmt::Debug + 'static>(choices: &[T]) -> BoxedStrategy<T> {
    proptest::sample::select(choices.to_vec()).boxed()
}

/// `usual` as often as `times` to one for each of `others`.
fn mostly<T: Clone + std::fmt::Debug + 'static>(times: usize, usual: T, others: &[T]) -> BoxedStrategy<T> {
    let mut choices = vec![usual; times];
    choices.extend_from_slice(others);
    some(&choices)
}

fn subset(choices: &'static [&'static str], most: usize) -> BoxedStrategy<Vec<&'static str>> {
    proptest::sample::subsequence(choices.to_vec(), 0..=most).boxed()
}

fn a_host() -> impl Strategy<Value = Host> {
    let facts = (
        mostly(6, Some("az-1"), &[None, Some("az-2")]),
        mostly(8, Some("kvm"), &[None, Some("QEMU"), Some("ch"), Some("xen")]),
        mostly(8, Some("x86_64"), &[None, Some("aarch64")]),
        subset(&TRAITS, 4),
        subset(&["Ready=True", "HypervisorDisabled=False", "Terminating=False", "Tainted=True"], 4),
        mostly(20, "", &["Ready=False", "Terminating=Unknown", "HypervisorDisabled=True"]),
        (rarely(30), rarely(30)),
        prop_oneof![3 => Just(Vec::new()), 1 => subset(&["a", "b"], 1)],
        subset(&["agg-a", "agg-ab", "agg-plain"], 2),
        (
            mostly(6, vec!["m1", "m2"], &[vec!["m1"], vec!["m2"], vec![]]),
            mostly(6, vec!["f1", "f2"], &[vec!["f1"], vec!["f1", "f2", "f3"], vec![]]),
            subset(&["d1"], 1),
        ),
    );
    let amounts = (
        mostly(8, Some(16), &[None, Some(0), Some(4), Some(64)]),
        mostly(4, Some(8192), &[None, Some(2048), Some(6000), Some(32768), Some(65536)]),
        mostly(3, None, &[Some(10), Some(100)]),
        some(&[None, None, Some(2), Some(8)]),
        some(&[1.0, 1.0, 1.5, 4.0]),
        some(&[0_u64, 0, 512]),
        mostly(3, None, &[Some((0_u64, 0_u64)), Some((2, 1024)), Some((3, 2000)), Some((20, 40000))]),
        0..4_usize,
    );
    (facts, amounts).prop_map(|(facts, amounts)| {
        let (zone, kind, arch, traits, conditions, bad, (disabled, down), projects, aggregates, cpu) = facts;
        let mut out = host("").traits(&traits).allowed_projects(&projects).cpu(&cpu.0, &cpu.1, &cpu.2);
        if let Some(zone) = zone {
            out = out.zone(zone);
        }
        if let Some(kind) = kind {
            out = out.hypervisor(kind);
        }
        if let Some(arch) = arch {
            out = out.arch(arch);
        }
        let mut conditions = conditions;
        if !bad.is_empty() {
            conditions.retain(|text| text.split('=').next() != bad.split('=').next());
            conditions.push(bad);
        }
        out = out.conditions(&conditions);
        if disabled {
            out = out.disabled();
        }
        if down {
            out = out.forced_down();
        }
        for name in aggregates {
            let metadata: &[(&str, &str)] = match name {
                "agg-a" => &[("filter_tenant_id", "a")],
                "agg-ab" => &[("filter_tenant_id", "b"), ("filter_tenant_id2", "a , ")],
                _ => &[("ssd", "true")],
            };
            out = out.aggregate(name, metadata);
        }
        let (cpu, memory, disk, gpu, ratio, reserved, allocated, instances) = amounts;
        if let Some(cpu) = cpu {
            out = out.inventory("VCPU", Inventory { allocation_ratio: ratio, ..Inventory::of(cpu) });
        }
        if let Some(memory) = memory {
            out = out.inventory("MEMORY_MB", Inventory { reserved, ..Inventory::of(memory) });
        }
        if let Some(disk) = disk {
            out = out.inventory("DISK_GB", Inventory { max_unit: 60, ..Inventory::of(disk) });
        }
        if let Some(gpu) = gpu {
            out =
                out.inventory("CUSTOM_GPU", Inventory { step_size: gpu / 2, min_unit: gpu / 2, ..Inventory::of(gpu) });
        }
        if let Some((cpu, memory)) = allocated {
            out = out.allocated(cpu, memory);
        }
        // Named when the fleet is put together.
        for at in 0..instances {
            out = out.sized(&at.to_string(), at as u64, 512 * at as u64);
        }
        out
    })
}

/// Hosts h0, h1, … with instances v0, v1, … spread over them.
fn a_fleet() -> impl Strategy<Value = Vec<HostReport>> {
    proptest::collection::vec(a_host(), 1..90).prop_map(|hosts| {
        let mut next = 0;
        let name = |(at, Host(mut report)): (usize, Host)| {
            report.name = format!("h{at}");
            for instance in report.instances.iter_mut().flatten() {
                instance.uuid = vm(&format!("v{next}"));
                next += 1;
            }
            report
        };
        hosts.into_iter().enumerate().map(name).collect()
    })
}

fn a_group() -> impl Strategy<Value = Option<Group>> {
    let policies = some(&[
        GroupPolicy::Affinity,
        GroupPolicy::AntiAffinity,
        GroupPolicy::AntiAffinity,
        GroupPolicy::SoftAffinity,
        GroupPolicy::SoftAntiAffinity,
    ]);
    let members = proptest::collection::btree_set(0..40_u32, 0..12);
    let made = (policies, members, subset(&["H0", "h1", "h7", "nowhere"], 2), 1..3_u64);
    let made = made.prop_map(|(policy, members, hosts, max_per_host)| {
        let names: Vec<String> = members.into_iter().map(|at| format!("v{at}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Group { hosts: texts(&hosts), max_per_host, ..group(policy, &names) }
    });
    prop_oneof![Just(None), made.prop_map(Some)]
}

fn a_request() -> impl Strategy<Value = Request> {
    let asked = (
        some(&[0_u64, 1, 2, 4]),
        some(&[0_u64, 512, 1024, 4096]),
        mostly(4, None, &[Some(5_u64), Some(61)]),
        mostly(12, None, &[Some(0_u64), Some(1), Some(4)]),
    );
    let names = (
        some(&["new", "new", "v0", "v3", "v11"]),
        mostly(6, None, &[Some(""), Some("az-1"), Some("az-1"), Some("az-2"), Some("az-9")]),
        some(&[None, Some("a"), Some("a"), Some("b"), Some("")]),
        mostly(12, None, &[Some("kvm"), Some("KVM"), Some("vmware")]),
        mostly(8, None, &[Some("iaas-x"), Some("other")]),
        mostly(4, vec![], &[vec!["A"], vec!["B"], vec!["A", "B"]]),
        mostly(4, vec![], &[vec!["B"], vec!["X"]]),
        subset(&["h2", "H3", "nowhere"], 2),
        mostly(12, &[][..], &[&["h1", "H4", "h5", "h6", "h8", "h10"]]),
    );
    let specs = mostly(
        6,
        vec![],
        &[
            vec!["capabilities:hypervisor_type=QEMU"],
            vec!["capabilities:hypervisor_type=qemu", "capabilities:cpu_arch=x86_64"],
            vec!["capabilities:cpu_arch=<in> 64", "hw:mem_page_size=large"],
            vec!["accel:device_profile="],
        ],
    );
    let rest = (
        some(&[None, None, Some(0), Some(1), Some(2), Some(3), Some(4), Some(5), Some(6), Some(7)]),
        mostly(3, None, &[Some("h0"), Some("H2"), Some("h4"), Some("nowhere")]),
        rarely(4),
        rarely(6),
        mostly(8, "", &["all", "any", "not", "host"]),
    );
    (asked, names, specs, a_group(), rest).prop_map(|(asked, names, specs, group, rest)| {
        let (cpu, memory, disk, gpu) = asked;
        let (consumer, zone, project, image, domain, required, forbidden, ignored, forced) = names;
        let (label, source, empty, slot, destination) = rest;
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let mut request = Request {
            consumers: vec![vm(consumer)],
            label: label.map(|at: usize| INTENTS[at]),
            source_host: owned(source),
            zone: owned(zone),
            project: owned(project),
            required_traits: texts(&required),
            forbidden_traits: texts(&forbidden),
            ignore_hosts: texts(&ignored),
            force_hosts: texts(forced),
            group,
            ..Request::default()
        };
        request.options.assume_empty_hosts = empty;
        let amounts = [("VCPU", Some(cpu)), ("MEMORY_MB", Some(memory)), ("DISK_GB", disk), ("CUSTOM_GPU", gpu)];
        request.resources =
            amounts.into_iter().filter_map(|(class, amount)| Some((class.to_owned(), amount?))).collect();
        request.extra_specs = specs
            .iter()
            .filter_map(|text| text.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        if let Some(image) = image {
            request.image_properties.insert("img_hv_type".to_owned(), image.to_owned());
        }
        if let Some(domain) = domain {
            request.hints.insert("domain_name".to_owned(), vec![domain.to_owned()]);
        }
        if slot {
            request.hints.insert("_cortex_resource_group".to_owned(), vec!["g".to_owned()]);
        }
        let uuid = |name: &str| aggregate_uuid(name).to_string();
        let all = vec![vec![uuid("agg-a"), uuid("agg-plain")], vec![uuid("agg-ab"), uuid("agg-a")]];
        request.destination = match destination {
            "all" => Destination { aggregates: all, ..Destination::default() },
            "any" => Destination { aggregates: all[..1].to_vec(), ..Destination::default() },
            "not" => Destination { forbidden_aggregates: vec![uuid("agg-a")], ..Destination::default() },
            "host" => Destination { host: Some("H1".to_owned()), ..Destination::default() },
            _ => Destination::default(),
        };
        request
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_pipeline_equals_the_plain_one(reports in a_fleet(), mut request in a_request()) {
        let engine = crate::engine(Settings::default());
        let mut fleet = Fleet::of(reports.iter().cloned().map(Host));
        request.pipeline = Some("kvm-general-purpose-load-balancing".to_owned());
        request.candidates = fleet.candidates(None);
        let decision = fleet.core.probe(&engine, &request).expect("every request makes sense");
        // What the intent is, is the state's to say; the rules start from it.
        let expected = rank(&reports, &request, decision.intent);
        let found: Vec<&str> = decision.hosts.iter().map(|host| host.host.as_str()).collect();
        let names: Vec<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        prop_assert_eq!(found, names, "{} {:?}", decision.intent, decision.steps);
        for (host, (name, score)) in decision.hosts.iter().zip(&expected) {
            prop_assert!((host.score - score).abs() < 1e-9, "{} got {}, {} expected", name, host.score, score);
        }
        // And each step drops what its rule says.
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for report in &reports {
            if let Some(step) = dropped_by(&reports, report, &request, decision.intent) {
                *counts.entry(step).or_default() += 1;
            }
        }
        for step in decision.steps.iter() {
            let expected = counts.get(step.name.as_str()).copied().unwrap_or(0);
            prop_assert_eq!(step.hosts_in - step.hosts_out, expected, "{}", step.name);
        }
    }

    #[test]
    fn all_hosts_of_the_domain_give_the_same_survivors(reports in a_fleet(), mut request in a_request()) {
        let engine = crate::engine(Settings::default());
        let mut fleet = Fleet::of(reports.into_iter().map(Host));
        request.pipeline = Some("kvm-hana-bin-packing".to_owned());
        request.candidates = fleet.candidates(None);
        let names = |decision: scheduler::Decision| {
            let mut names: Vec<String> = decision.hosts.into_iter().map(|host| host.host.into()).collect();
            names.sort_unstable();
            names
        };
        let sent = names(fleet.core.probe(&engine, &request).expect("every request makes sense"));
        request.candidates = Candidates::All;
        let all = names(fleet.core.probe(&engine, &request).expect("every request makes sense"));
        prop_assert_eq!(sent, all);
    }
}
