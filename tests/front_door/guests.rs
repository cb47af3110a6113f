//! A gRPC client asks for all that Nova's hook asks of a host: NUMA cells, PCI devices, the image, the cell.

use api::proto::v1;
use api::proto::v1::scheduler_client::SchedulerClient;
use scheduler::HostReport;
use serde_json::{Value, json};

use crate::server::{Server, run};
use crate::spec::{data, host, request, uuid};

const IMAGE: &str = "5e0c1f9e-0d38-4a0f-9d3a-0d6f7d1a2b3c";

/// A cell with 16 CPUs, of which the first `pinned` are taken.
fn cell(id: u64, pinned: u64) -> Value {
    let cpus: Vec<u64> = (16 * id..16 * id + 16).collect();
    json!({"id": id, "cpuset": [], "pcpuset": cpus, "pinned_cpus": cpus[..pinned as usize],
        "siblings": cpus.chunks(2).collect::<Vec<_>>(), "memory": 65536, "memory_usage": 0})
}

fn fleet() -> Vec<HostReport> {
    let both = [cell(0, 0), cell(1, 0)];
    let card = json!([{"count": 1, "vendor_id": "10de", "product_id": "1eb8", "dev_type": "type-PCI"}]);
    [
        ("far", json!({"cell_uuid": "cell-1", "pci_stats": card, "numa_topology": {"cells": both}})),
        ("near", json!({"cell_uuid": "cell-2", "pci_stats": card, "numa_topology": {"cells": both}})),
        ("no-card", json!({"cell_uuid": "cell-2", "numa_topology": {"cells": both}})),
        ("one-cell", json!({"cell_uuid": "cell-2", "pci_stats": card, "numa_topology": {"cells": [cell(0, 0)]}})),
        (
            "pinned",
            json!({"cell_uuid": "cell-2", "pci_stats": card, "numa_topology": {"cells": [cell(0, 0), cell(1, 9)]}}),
        ),
        ("common", json!({"cell_uuid": "cell-2", "pci_stats": card, "numa_topology": {"cells": both}})),
    ]
    .map(|(name, state)| HostReport { nova_host_state: Some(state.to_string()), ..host(name, 1000, 1_000_000) })
    .into()
}

fn pipeline() -> Value {
    let list = |key: &str, items: &[&str]| json!({"key": key, "stringListValue": items});
    let hosts = ["far", "near", "no-card", "one-cell", "pinned"];
    json!({
        "apiVersion": "cortex.cloud/v1alpha1", "kind": "Pipeline", "metadata": {"name": "guests"},
        "spec": {"schedulingDomain": "nova", "type": "filter-weigher", "scoring": "nova",
            "filters": [
                {"name": "IsolatedHostsFilter",
                    "params": [list("isolated_hosts", &hosts), list("isolated_images", &[IMAGE])]},
                {"name": "PciPassthroughFilter"},
                {"name": "NUMATopologyFilter"},
                {"name": "filter_has_enough_capacity"},
            ],
            "weighers": [{"name": "CrossCellWeigher"}]},
    })
}

/// Hosts in order, and why the others were dropped.
fn told(decision: &v1::Decision) -> (Vec<String>, Vec<(String, u64)>) {
    let reasons = decision.steps.iter().flat_map(|step| &step.reasons);
    let reasons = reasons.map(|reason| (reason.reason.clone(), reason.hosts)).collect();
    (decision.hosts.iter().map(|host| host.host.clone()).collect(), reasons)
}

#[test]
fn grpc_asks_what_the_hook_asks() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let server = Server::start(&dir.path().join("data"));
        server.apply(&fleet()).await;
        let write = |name: &str, value: &Value| {
            let file = dir.path().join(name);
            std::fs::write(&file, value.to_string()).expect("written");
            file.to_str().expect("UTF-8").to_owned()
        };
        server.ctl(&["pipelines", "apply", &write("guests.json", &pipeline())]).expect("applied");

        // A recorded guest with two NUMA cells, as Nova sends it; and a card, its image, and a cell to prefer.
        let mut body = request("20");
        let names: Vec<String> = fleet().into_iter().map(|host| host.name).collect();
        body["hosts"] = names.iter().map(|name| json!({"host": name, "hypervisor_hostname": name})).collect();
        body["weights"] = names.iter().map(|name| (name.clone(), json!(0.0))).collect::<serde_json::Map<_, _>>().into();
        body["pipeline"] = json!("guests");
        let wrapped = |data: Value| json!({ "nova_object.data": data });
        let spec = data(&mut body);
        spec["instance_uuid"] = json!(uuid(1));
        spec["image"]["nova_object.data"]["id"] = json!(IMAGE);
        let card = json!({"vendor_id": "10DE", "product_id": "1eb8", "numa_policy": null});
        spec["pci_requests"] = wrapped(json!({"requests": [wrapped(json!({"count": 1, "spec": [card]}))]}));
        let cell = wrapped(json!({"uuid": "cell-2"}));
        spec["requested_destination"] = wrapped(json!({"cell": cell, "allow_cross_cell_move": true}));

        // The same by hand.
        let resources = [("VCPU", 16), ("MEMORY_MB", 65536), ("DISK_GB", 64)];
        let cell = v1::GuestNumaCell { dedicated_vcpus: 8, memory_mb: 32768, ..v1::GuestNumaCell::default() };
        let properties = [("vendor_id", "10DE"), ("product_id", "1eb8")].map(|(key, value)| (key.into(), value.into()));
        let card = v1::PciSpec { properties: properties.into(), without: vec!["numa_policy".into()] };
        let asked = v1::PlaceRequest {
            consumers: vec![uuid(1)],
            pipeline: Some("guests".into()),
            resources: resources.map(|(class, amount)| (class.to_owned(), amount)).into(),
            candidates: names
                .iter()
                .map(|name| v1::Candidate { host: name.clone(), ..v1::Candidate::default() })
                .collect(),
            image_id: Some(IMAGE.into()),
            pci_requests: vec![v1::PciRequest { count: 1, specs: vec![card] }],
            numa_topology: Some(v1::GuestNumaTopology { cells: vec![cell; 2], ..v1::GuestNumaTopology::default() }),
            destination: Some(v1::Destination {
                cell: Some("cell-2".into()),
                allow_cross_cell_move: true,
                ..v1::Destination::default()
            }),
            dry_run: true,
            ..v1::PlaceRequest::default()
        };
        let mut client = SchedulerClient::connect(server.url.clone()).await.expect("a connection");
        let decision =
            client.place(asked.clone()).await.expect("a decision").into_inner().decision.expect("it is there");
        let (hosts, reasons) = told(&decision);
        assert_eq!(hosts, ["near", "far"], "{reasons:?}");
        let reasons: Vec<(&str, u64)> = reasons.iter().map(|(reason, hosts)| (reason.as_str(), *hosts)).collect();
        let expected = [
            ("not set apart for this image", 1),
            ("lacks the PCI devices that are asked for", 1),
            ("has no NUMA cells that fit the guest's", 2),
        ];
        assert_eq!(reasons, expected);

        // `ctl` makes a message of the body; the hook reads it itself, and claims.
        let explained = server.ctl(&["place", "--dry-run", "-o", "json", "--request", &write("body.json", &body)]);
        let explained: Value = serde_json::from_str(&explained.expect("it fits")).expect("JSON");
        let by_ctl = serde_json::from_value(explained["detail"]["decision"].clone()).expect("a decision");
        assert_eq!(told(&by_ctl), told(&decision));
        let answer = server.hook(&body).await;
        assert_eq!(answer.hosts(), hosts);
        let by_hook = server.explain(&answer).await["detail"]["decision"].clone();
        assert_eq!(told(&serde_json::from_value(by_hook).expect("a decision")), told(&decision));

        // And what makes no sense is refused with its place.
        let cell = v1::GuestNumaCell { cpu_policy: "own".into(), ..v1::GuestNumaCell::default() };
        let bad = v1::GuestNumaTopology { cells: vec![cell], ..v1::GuestNumaTopology::default() };
        let refused = client.place(v1::PlaceRequest { numa_topology: Some(bad), ..asked }).await.expect_err("refused");
        let expected = "numa_topology.cells[0].cpu_policy: 'own' given, one of shared, dedicated, mixed expected";
        assert!(refused.message().contains(expected), "{refused}");
    });
}
