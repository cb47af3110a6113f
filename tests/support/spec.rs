//! Hook requests made from the fixtures: small builders that change one thing.

use scheduler::{HostReport, Inventory};
use serde_json::{Value, json};

/// Names and texts of all recorded requests.
pub fn recorded() -> Vec<(&'static str, Value)> {
    simulation::fixtures::REQUESTS
        .iter()
        .map(|(name, text)| (*name, serde_json::from_str(text).expect("a recorded request is JSON")))
        .collect()
}

/// A recorded request by its number.
pub fn request(number: &str) -> Value {
    let found = recorded().into_iter().find(|(name, _)| name.starts_with(number));
    found.unwrap_or_else(|| panic!("no recorded request {number}")).1
}

/// `spec.nova_object.data` of a request.
pub fn data(body: &mut Value) -> &mut Value {
    &mut body["spec"]["nova_object.data"]
}

pub fn instance(body: &Value) -> String {
    body["spec"]["nova_object.data"]["instance_uuid"].as_str().expect("a uuid").to_owned()
}

pub fn hosts(body: &Value) -> Vec<String> {
    body["hosts"].as_array().expect("a list").iter().map(|h| h["host"].as_str().expect("a name").to_owned()).collect()
}

/// A create request with our own hosts, all of weight 0, and a flavor of this size.
pub fn create(instance: &str, hosts: &[String], vcpus: u64, memory_mb: u64) -> Value {
    let mut body = request("01");
    body["hosts"] = hosts.iter().map(|host| json!({"host": host, "hypervisor_hostname": host})).collect();
    body["weights"] = Value::Object(hosts.iter().map(|host| (host.clone(), json!(0.0))).collect());
    let spec = data(&mut body);
    spec["instance_uuid"] = json!(instance);
    let flavor = &mut spec["flavor"]["nova_object.data"];
    flavor["vcpus"] = json!(vcpus);
    flavor["memory_mb"] = json!(memory_mb);
    flavor["root_gb"] = json!(0);
    body
}

/// A uuid for number `n`.
pub fn uuid(n: u64) -> String {
    format!("00000000-0000-4000-8000-{n:012x}")
}

/// An empty host that [`create`] fits on, with so much of each.
pub fn host(name: &str, vcpus: u64, memory_mb: u64) -> HostReport {
    HostReport {
        name: name.to_owned(),
        hypervisor_hostname: Some(name.to_owned()),
        availability_zone: Some("az-a".to_owned()),
        hypervisor_type: Some("qemu".to_owned()),
        cpu_arch: Some("x86_64".to_owned()),
        inventories: Some(
            [("VCPU".to_owned(), Inventory::of(vcpus)), ("MEMORY_MB".to_owned(), Inventory::of(memory_mb))].into(),
        ),
        instances: Some(Vec::new()),
        ..HostReport::default()
    }
}
