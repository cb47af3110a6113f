//! The hook's bodies: what each of the recorded ones becomes, and what is no request.

#![allow(clippy::unwrap_used)]

use std::fmt::Write;

use api::body::BadRequest;
use api::nova::translate;
use expect_test::{expect, expect_file};
use proptest::prelude::*;
use scheduler::Request;
use scheduler::numa::{CpuPolicy, GuestCell, GuestTopology, ThreadPolicy};
use scheduler::request::{Caller, Candidates};
use serde_json::{Value, json};

fn fixtures() -> Vec<(String, Vec<u8>)> {
    simulation::fixtures::REQUESTS.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
}

fn fixture(start: &str) -> Value {
    let (_, body) = fixtures().into_iter().find(|(name, _)| name.starts_with(start)).unwrap();
    serde_json::from_slice(&body).unwrap()
}

fn summary(request: &Request) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: String| {
        if !matches!(text.as_str(), "" | "None" | "[]" | "{}") {
            writeln!(out, "  {name}: {text}").unwrap();
        }
    };
    line("consumer", request.consumers[0].to_string());
    line(
        "caller",
        match &request.caller {
            Caller::Hook { request: Some(id) } => format!("hook {id}"),
            other => format!("{other:?}"),
        },
    );
    line("trace", request.trace_id.clone());
    line("label", format!("{:?}", request.label));
    line("source_host", format!("{:?}", request.source_host));
    line("project", format!("{:?}", request.project));
    line("user", format!("{:?}", request.user));
    line("zone", format!("{:?}", request.zone));
    line("flavor", format!("{:?}", request.flavor));
    line("resources", format!("{:?}", request.resources));
    line("extra_specs", format!("{:?}", request.extra_specs));
    line("image", format!("{:?}", request.image_properties));
    line("required", format!("{:?}", request.required_traits));
    line("forbidden", format!("{:?}", request.forbidden_traits));
    if let Candidates::Sent(hosts) = &request.candidates {
        let first = hosts.first().map(|first| format!("{} {} {}", first.host, first.node, first.weight));
        line("hosts", format!("{}, first {}", hosts.len(), first.unwrap_or_default()));
    }
    line("ignore", format!("{:?}", request.ignore_hosts));
    line("force", format!("{:?}", request.force_hosts));
    line("force_nodes", format!("{:?}", request.force_nodes));
    line("retry", format!("{:?}", request.retry_hosts));
    if request.destination != scheduler::request::Destination::default() {
        line("destination", format!("{:?}", request.destination));
    }
    line(
        "group",
        request
            .group
            .as_ref()
            .map(|group| {
                let (members, hosts) = (group.members.len(), &group.hosts);
                format!(
                    "{:?} {:?} {members} members, at most {}, on {hosts:?}",
                    group.uuid, group.policy, group.max_per_host
                )
            })
            .unwrap_or_default(),
    );
    line("hints", format!("{:?}", request.hints));
    if request.num_instances != 1 {
        line("num_instances", request.num_instances.to_string());
    }
    out
}

#[test]
fn recorded_requests() {
    let mut out = String::new();
    for (name, body) in fixtures() {
        let request = translate(&body).unwrap_or_else(|error| panic!("{name}: {error}"));
        writeln!(out, "{name}\n{}", summary(&request)).unwrap();
    }
    expect_file!["fixtures/nova-requests.expected"].assert_eq(&out);
}

/// A small request, changed at one place.
fn changed(pointer: &str, value: Value) -> Vec<u8> {
    let mut body = fixture("01");
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = parent.replace("/~", "/nova_object.data");
    match body.pointer_mut(&parent).unwrap() {
        Value::Object(map) => {
            map.insert(key.to_owned(), value);
        }
        Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
        _ => panic!("{pointer}"),
    }
    serde_json::to_vec(&body).unwrap()
}

/// The same, changed as text.
fn text_changed(from: &str, to: &str) -> Vec<u8> {
    let body = fixture("01").to_string();
    assert!(body.contains(from), "{from}");
    body.replacen(from, to, 1).into_bytes()
}

/// Lists in lists.
fn deeper(depth: usize) -> Value {
    (0..depth).fold(json!(1), |inner, _| json!([inner]))
}

fn text(result: Result<Request, BadRequest>) -> String {
    result.map_or_else(|error| error.to_string(), |_| "accepted".to_owned())
}

/// Byte at which a body nests deeper than 64, found byte by byte.
fn too_deep(body: &str) -> Option<usize> {
    let (mut depth, mut in_string, mut escaped) = (0, false, false);
    body.bytes().position(|byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth -= 1,
            _ => {}
        }
        depth > 64
    })
}

proptest! {
    /// Hosts and weights are not looked at a second time for how deep they nest. It makes no difference, whatever stands
    /// in them and around them.
    #[test]
    fn what_nests_too_deep_is_told_wherever_it_stands(
        fields in Just((0..8).collect::<Vec<usize>>()).prop_shuffle(),
        most in 0_usize..=8,
        depths in prop::collection::vec(prop_oneof![Just(0_usize), 58_usize..70], 4),
        blank in "[ \n]{0,2}",
    ) {
        let nested = |depth: usize| "[".repeat(depth) + r#""]\"{""# + &"]".repeat(depth);
        let fields = fields.into_iter().take(most).map(|field| match field {
            0 => r#""hosts":[{"host":"a","hypervisor_hostname":"]"},{"host":"b"}]"#.to_owned(),
            1 => format!(r#""h\u006fsts":[{{"host":"a","x":{}}},{{"host":"b"}}]"#, nested(depths[0])),
            2 => format!(r#""hosts":[{{"host":"a"}},{{"x":{},"host":"b"}}]"#, nested(depths[1])),
            3 => r#""weights":{"a":1,"b":2.5}"#.to_owned(),
            4 => r#""w\u0065ights":null"#.to_owned(),
            5 => format!(r#""x":{}"#, nested(depths[2])),
            6 => format!(r#""\u0078":{}"#, nested(depths[3])),
            _ => r#""spec":null"#.to_owned(),
        });
        let body = format!("{{{}}}", fields.collect::<Vec<_>>().join(&format!(",{blank}")));
        let told = Some(text(translate(body.as_bytes()))).filter(|text| text.starts_with("nested deeper"));
        let wanted = too_deep(&body).map(|at| format!("nested deeper than 64 at byte {at}"));
        prop_assert_eq!(told, wanted, "{}", body);
    }

    /// Each host gets its weight, in whatever order either is listed and wherever it stands.
    #[test]
    fn every_host_gets_its_weight(
        hosts in prop::collection::vec("[a-d]", 0..6),
        weights in prop::collection::vec(("[a-d]", 0_u8..9), 0..6),
        alike in any::<bool>(),
        weights_first in any::<bool>(),
    ) {
        let weights: Vec<(String, u8)> =
            if alike { hosts.iter().cloned().zip(weights.iter().map(|(_, weight)| *weight)).collect() } else { weights };
        let listed = |items: Vec<String>| items.join(",");
        let sent = listed(hosts.iter().map(|host| format!(r#"{{"host":"{host}"}}"#)).collect());
        let given = listed(weights.iter().map(|(host, weight)| format!(r#""{host}":{weight}"#)).collect());
        let (sent, given) = (format!(r#""hosts":[{sent}]"#), format!(r#""weights":{{{given}}}"#));
        let (first, second) = if weights_first { (given, sent) } else { (sent, given) };
        let mut rest = fixture("01");
        rest.as_object_mut().unwrap().retain(|key, _| key != "hosts" && key != "weights");
        let rest = rest.to_string();
        let told = translate(format!("{{{first},{second},{}", &rest[1..]).as_bytes());

        let in_order = hosts.iter().eq(weights.iter().map(|(host, _)| host));
        let weight = |at: usize, host: &String| {
            let last = weights.iter().rev().find(|(name, _)| name == host);
            if in_order { weights.get(at) } else { last }.map(|(_, weight)| f64::from(*weight))
        };
        let wanted: Option<Vec<(String, f64)>> =
            hosts.iter().enumerate().map(|(at, host)| Some((host.clone(), weight(at, host)?))).collect();
        let missing = hosts.iter().find(|host| !weights.iter().any(|(name, _)| name == *host));
        let stranger = weights.iter().map(|(name, _)| name).filter(|name| !hosts.contains(name)).min();
        match (told, missing, stranger) {
            (Err(error), Some(host), _) => {
                prop_assert_eq!(error.to_string(), format!("weights: missing weight for host '{host}'"));
            }
            (Err(error), None, Some(host)) => {
                prop_assert_eq!(error.to_string(), format!("weights: weight assigned to unknown host '{host}'"));
            }
            (Ok(Request { candidates: Candidates::Sent(sent), .. }), None, None) => {
                let sent = sent.into_iter().map(|one| (one.host.to_string(), one.weight)).collect();
                prop_assert_eq!(Some(sent), wanted);
            }
            (told, ..) => prop_assert!(false, "{:?}", told),
        }
    }
}

#[test]
fn what_is_no_request() {
    let deep = |depth: usize| [b"{\"x\":".to_vec(), vec![b'['; depth], vec![b']'; depth], b"}".to_vec()].concat();
    let valid = serde_json::to_vec(&fixture("01")).unwrap();
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("no JSON", b"hosts=1".to_vec()),
        ("cut off", valid[..200].to_vec()),
        ("trailing bytes", [&valid[..], b" {}"].concat()),
        ("trailing blanks", [&valid[..], b" \r\n\t"].concat()),
        ("no object", b"[1]".to_vec()),
        ("null", b"null".to_vec()),
        ("no spec", b"{}".to_vec()),
        ("64 deep", deep(63)),
        ("65 deep", deep(64)),
        ("100000 deep", deep(100_000)),
        ("brackets in a string", changed("/pipeline", json!("\"[{".repeat(100)))),
        ("65 deep behind a string", [br#"{"s":"\"[\\","x":"#.to_vec(), vec![b'['; 64]].concat()),
        ("65 deep in a host", changed("/hosts/1/x", deeper(62))),
        ("64 deep in a host", changed("/hosts/1/x", deeper(61))),
        ("65 deep in a weight", changed("/weights/node000-bb00", deeper(63))),
        ("65 deep behind the weights", changed("/zzz", deeper(64))),
        ("a string without an end", br#"{"x":"[[\"#.to_vec()),
        ("no flavor", changed("/spec/~/flavor", Value::Null)),
        ("uuid", changed("/spec/~/instance_uuid", json!("server-1"))),
        ("uuid absent", changed("/spec/~/instance_uuid", Value::Null)),
        ("uuid number", changed("/spec/~/instance_uuid", json!(7))),
        ("num_instances negative", changed("/spec/~/num_instances", json!(-1))),
        ("num_instances fraction", changed("/spec/~/num_instances", json!(1.5))),
        ("num_instances 1.0", changed("/spec/~/num_instances", json!(1.0))),
        ("vcpus text", changed("/spec/~/flavor/~/vcpus", json!("4"))),
        ("memory null", changed("/spec/~/flavor/~/memory_mb", json!(null))),
        ("extra spec bool", changed("/spec/~/flavor/~/extra_specs", json!({"hw:x": true}))),
        ("zone list", changed("/spec/~/availability_zone", json!(["az-a"]))),
        ("hints list", changed("/spec/~/scheduler_hints", json!(["a"]))),
        ("ignore_hosts text", changed("/spec/~/ignore_hosts", json!("a"))),
        ("hosts object", changed("/hosts", json!({}))),
        ("host number", changed("/hosts/1", json!({"host": 1}))),
        ("host without name", changed("/hosts/1", json!({"hypervisor_hostname": "a"}))),
        ("host twice", text_changed(r#""host":"node000-bb00""#, r#""host":"a","host":"a""#)),
        ("hosts twice", text_changed(r#""hosts":["#, r#""hosts":null,"hosts":["#)),
        ("weights twice", text_changed(r#""weights":{"#, r#""weights":null,"weights":{"#)),
        ("host empty", changed("/hosts/1", json!({"host": ""}))),
        ("host without weight", changed("/hosts/1", json!({"host": "stranger", "hypervisor_hostname": "s"}))),
        ("weights absent", changed("/weights", Value::Null)),
        ("weight text", changed("/weights/node000-bb00", json!("1"))),
        ("weight null", changed("/weights/node000-bb00", Value::Null)),
        ("weight of nobody", changed("/weights/stranger", json!(1))),
        ("pipeline number", changed("/pipeline", json!(1))),
        ("options list", changed("/options", json!([]))),
        ("option text", changed("/options", json!({"read_only": "yes"}))),
        ("context text", changed("/context", json!("req-1"))),
        ("request id number", changed("/context", json!({"request_id": 1}))),
    ];
    let mut out = String::new();
    for (name, body) in table {
        writeln!(out, "{name}: {}", text(translate(&body))).unwrap();
    }
    expect![[r#"
        empty: EOF while parsing a value at line 1 column 0
        no JSON: expected value at line 1 column 1
        cut off: EOF while parsing a string at line 1 column 200
        trailing bytes: one JSON value expected, more bytes follow it
        trailing blanks: accepted
        no object: invalid type: sequence, expected an object at line 1 column 0
        null: invalid type: null, expected an object at line 1 column 4
        no spec: spec: absent, a RequestSpec expected: this is no scheduling request
        64 deep: spec: absent, a RequestSpec expected: this is no scheduling request
        65 deep: nested deeper than 64 at byte 68
        100000 deep: nested deeper than 64 at byte 68
        brackets in a string: accepted
        65 deep behind a string: nested deeper than 64 at byte 80
        65 deep in a host: nested deeper than 64 at byte 236
        64 deep in a host: accepted
        65 deep in a weight: nested deeper than 64 at byte 3445
        65 deep behind the weights: nested deeper than 64 at byte 3607
        a string without an end: EOF while parsing a string at line 1 column 9
        no flavor: spec.flavor: absent, a Flavor expected: this is no scheduling request
        uuid: spec.instance_uuid: 'server-1' given, a uuid expected
        uuid absent: spec.instance_uuid: '' given, a uuid expected
        uuid number: spec.instance_uuid: invalid type: integer `7`, expected a string at line 1 column 1836
        num_instances negative: spec.num_instances: invalid value: integer `-1`, expected u64 at line 1 column 2384
        num_instances fraction: spec.num_instances: invalid type: floating point `1.5`, expected u64 at line 1 column 2385
        num_instances 1.0: spec.num_instances: invalid type: floating point `1.0`, expected u64 at line 1 column 2385
        vcpus text: spec.flavor.vcpus: invalid type: string "4", expected u64 at line 1 column 1048
        memory null: spec.flavor.memory_mb: absent, a number expected: a flavor says it
        extra spec bool: spec.flavor.extra_specs.hw:x: invalid type: boolean `true`, expected a string at line 1 column 823
        zone list: spec.availability_zone: invalid type: sequence, expected a string at line 1 column 637
        hints list: spec.scheduler_hints: invalid type: sequence, expected a map at line 1 column 3047
        ignore_hosts text: spec.ignore_hosts: invalid type: string "a", expected a sequence at line 1 column 1204
        hosts object: hosts: invalid type: map, expected a sequence at line 1 column 9
        host number: hosts[1].host: invalid type: integer `1`, expected a string at line 1 column 100
        host without name: hosts[1]: missing field `host` at line 1 column 118
        host twice: hosts[3]: duplicate field `host` at line 1 column 271
        hosts twice: duplicate field `hosts` at line 1 column 21
        weights twice: duplicate field `weights` at line 1 column 3381
        host empty: hosts[1].host: an empty name given, a host name expected
        host without weight: weights: missing weight for host 'stranger'
        weights absent: weights: missing weight for host 'node001-bb00'
        weight text: weights.node000-bb00: invalid type: string "1", expected f64 at line 1 column 3386
        weight null: weights.node000-bb00: invalid type: null, expected f64 at line 1 column 3387
        weight of nobody: weights: weight assigned to unknown host 'stranger'
        pipeline number: pipeline: invalid type: integer `1`, expected a string at line 1 column 441
        options list: options: invalid type: sequence, expected an object at line 1 column 439
        option text: options.read_only: invalid type: string "yes", expected a boolean at line 1 column 457
        context text: context: invalid type: string "req-1", expected an object at line 1 column 18
        request id number: context.request_id: invalid type: integer `1`, expected a string at line 1 column 26
    "#]].assert_eq(&out);
}

fn with(pointer: &str, value: Value) -> Request {
    translate(&changed(pointer, value)).unwrap()
}

#[test]
fn null_and_absent_are_one() {
    for key in ["availability_zone", "num_instances", "is_bfv", "image", "scheduler_hints", "instance_group", "retry"] {
        with(&format!("/spec/~/{key}"), Value::Null);
    }
    for key in ["context", "pipeline", "options", "rebuild", "live", "vmware"] {
        with(&format!("/{key}"), Value::Null);
    }

    assert_eq!(with("/pipeline", json!("")).pipeline, None);
    assert_eq!(with("/spec/~/flavor/~/extra_specs", json!({"a": null, "b": ""})).extra_specs.len(), 1);
}

#[test]
fn amounts() {
    let flavor = |bfv: bool, more: Value| {
        let mut body = fixture("01");
        let spec = body.pointer_mut("/spec/nova_object.data").unwrap();
        spec["is_bfv"] = json!(bfv);
        let flavor = &mut spec["flavor"]["nova_object.data"];
        for (key, value) in more.as_object().unwrap() {
            flavor[key] = value.clone();
        }
        format!("{:?}", translate(&serde_json::to_vec(&body).unwrap()).unwrap().resources)
    };
    expect![[r#"
        {"DISK_GB": 65, "MEMORY_MB": 16384, "VCPU": 4}
        {"DISK_GB": 5, "MEMORY_MB": 16384, "VCPU": 4}
        {"MEMORY_MB": 16384, "VCPU": 4}
        {"MEMORY_MB": 16384}
        {"CUSTOM_BAREMETAL": 1, "DISK_GB": 64, "MEMORY_MB": 16384}
        {"DISK_GB": 64, "MEMORY_MB": 16384, "VCPU": 4}
        {"DISK_GB": 18446744073709551615, "MEMORY_MB": 16384, "VCPU": 4}"#]]
    .assert_eq(
        &[
            flavor(false, json!({"swap": 1})),
            flavor(true, json!({"swap": 1025, "ephemeral_gb": 3})),
            flavor(true, json!({})),
            flavor(false, json!({"root_gb": 0, "vcpus": 0})),
            flavor(false, json!({"extra_specs": {"resources:VCPU": "0", "resources:CUSTOM_BAREMETAL": "1"}})),
            flavor(
                false,
                json!({"extra_specs": {"resources:MEMORY_MB": "1.5", "resources:vcpu": "1", "resources1:VGPU": "1"}}),
            ),
            flavor(false, json!({"root_gb": u64::MAX, "ephemeral_gb": u64::MAX})),
        ]
        .join("\n"),
    );
}

#[test]
fn traits() {
    let mut body = fixture("07");
    body.pointer_mut("/spec/nova_object.data/flavor/nova_object.data").unwrap()["extra_specs"] = json!({
        "trait:A": "required", "trait:B": "forbidden", "trait:C": "Required", "trait:D": "maybe", "trait1:E": "required",
        "trait:COMPUTE_GRAPHICS_MODEL_VIRTIO": "required",
    });
    let request = translate(&serde_json::to_vec(&body).unwrap()).unwrap();
    assert_eq!(request.required_traits, ["A", "COMPUTE_GRAPHICS_MODEL_VIRTIO"]);
    assert_eq!(request.forbidden_traits, ["B"]);
}

#[test]
fn hints_as_nova_means_them() {
    let request = with(
        "/spec/~/scheduler_hints",
        json!({
            "_nova_check_type": "live_migrate", "source_host": ["h1"], "domain_name": ["d"], "empty": [], "number": 1,
            "flag": true, "null": null, "numbers": [1, 2], "mixed": ["a", 1, "b"], "object": {"a": 1}, "nested": [["a"]],
        }),
    );
    expect![[r#"{"_nova_check_type": ["live_migrate"], "domain_name": ["d"], "empty": [], "mixed": ["a", "b"], "source_host": ["h1"]}"#]].assert_eq(&format!("{:?}", request.hints));
    assert_eq!(request.label, Some(scheduler::Intent::LiveMigration));
    assert_eq!(request.source_host.as_deref(), Some("h1"));
    let other = with("/spec/~/scheduler_hints", json!({"_nova_check_type": ["Rebuild"]}));
    assert_eq!(other.label, Some(scheduler::Intent::Create));
}

#[test]
fn groups() {
    let group = |data: Value| {
        let group = with("/spec/~/instance_group", json!({"nova_object.data": data})).group.unwrap();
        format!("{:?} {} {:?} {:?} {:?}", group.policy, group.max_per_host, group.uuid, group.members, group.hosts)
    };
    expect![[r#"
        None 1 None [] []
        Some(SoftAffinity) 1 None [] []
        Some(AntiAffinity) 3 None [] []
        Some(AntiAffinity) 4 None [] ["h1"]
        None 1 None [] []
        None 1 Some(1d30dab6-de95-4b2d-83de-04c6d01a6975) [] []"#]]
    .assert_eq(
        &[
            group(json!({})),
            group(json!({"policy": null, "policies": ["soft-affinity"], "members": null, "hosts": null})),
            group(json!({"policy": "anti-affinity", "policies": ["affinity"], "_rules": {"max_server_per_host": 3}})),
            group(json!({"policy": "anti-affinity", "_rules": {"max_server_per_host": "4"}, "hosts": ["h1"]})),
            group(json!({"policy": "legacy", "_rules": {"max_server_per_host": "x"}, "members": ["no uuid"]})),
            group(json!({"uuid": "1d30dab6-de95-4b2d-83de-04c6d01a6975", "_rules": {"max_server_per_host": 0}})),
        ]
        .join("\n"),
    );
}

#[test]
fn retries_in_every_form() {
    let hosts = |hosts: Value| with("/spec/~/retry", json!({"nova_object.data": {"num_attempts": 2, "hosts": hosts}}));
    let node = |host: &str| json!({"nova_object.data": {"host": host, "hypervisor_hostname": "n"}});
    for list in [
        json!({"nova_object.data": {"objects": [node("h1"), node("h2")]}}),
        json!([node("h1"), node("h2")]),
        json!([["h1", "n1"], ["h2", "n2"]]),
        json!(["h1", "h2"]),
    ] {
        assert_eq!(hosts(list.clone()).retry_hosts, ["h1", "h2"], "{list}");
    }
    assert!(hosts(json!(null)).retry_hosts.is_empty());
    assert!(hosts(json!(7)).retry_hosts.is_empty());
}

#[test]
fn ids_of_the_context() {
    let ids = |context: Value| {
        let request = with("/context", context);
        let Caller::Hook { request: id } = request.caller else { panic!("a hook's caller") };
        (id.map(|id| id.to_string()), request.trace_id)
    };
    let (a, b) = ("5a8f5d0e-3d0e-4c9f-a5a3-0a8f5d0e3d0e", "6a8f5d0e-3d0e-4c9f-a5a3-0a8f5d0e3d0e");
    let (req_a, req_b) = (format!("req-{a}"), format!("req-{b}"));
    assert_eq!(ids(json!({"request_id": req_a, "global_request_id": req_b})), (Some(a.to_owned()), req_a));
    assert_eq!(ids(json!({"request_id": null, "global_request_id": req_b})), (Some(b.to_owned()), req_b));
    assert_eq!(ids(json!({"request_id": "x y"})), (None, String::new()));
    assert_eq!(ids(json!({"request_id": "z".repeat(65)})), (None, String::new()));
    assert_eq!(ids(json!({})), (None, String::new()));
}

#[test]
fn secrets_are_read_into_nothing() {
    let secret = "canary-4711";
    let mut body = fixture("14");
    let cell = "/spec/nova_object.data/requested_destination/nova_object.data/cell/nova_object.data";
    let cell = body.pointer_mut(cell).unwrap();
    cell["database_connection"] = json!(format!("mysql://u:{secret}@db"));
    cell["transport_url"] = json!(format!("rabbit://u:{secret}@mq"));
    body["context"] = json!({"auth_token": secret, "service_catalog": [{"x": secret}], "request_id": "req-1"});
    let request = translate(&serde_json::to_vec(&body).unwrap()).unwrap();
    assert!(request.destination.cell_named);
    assert!(!format!("{request:?}").contains(secret));
}

#[test]
fn volumes_and_shares_by_any_spec() {
    let id = "1d30dab6-de95-4b2d-83de-04c6d01a6975";
    for (spec, named) in [
        (json!({"volume_id": id, "volume_properties": {"size": 1}}), true),
        (json!({"share_id": id, "volume_id": null}), true),
        (json!({"volume_id": "vol-1"}), false),
        (json!({"volume_id": [id]}), false),
        (json!({"other": id}), false),
        (json!([1, {"a": []}]), false),
        (json!(-1.5), false),
        (json!(true), false),
        (Value::Null, false),
    ] {
        let body = json!({"spec": spec, "hosts": [{"host": "a@b#c"}], "weights": {"a@b#c": 1}});
        let body = serde_json::to_vec(&body).unwrap();
        for (translate, domain) in [
            (api::storage::cinder as fn(&[u8]) -> _, scheduler::Domain::Cinder),
            (api::storage::manila, scheduler::Domain::Manila),
        ] {
            let request: Request = translate(&body).unwrap();
            assert_eq!(request.consumers[0].to_string() == id, named, "{spec}");
            assert_eq!((request.domain, request.options.skip_inflight), (domain, true));
        }
    }
}

#[test]
fn what_stock_novas_steps_ask_for() {
    let mut body = fixture("14");
    let data = |value: Value| json!({ "nova_object.data": value });
    let spec = &mut body["spec"]["nova_object.data"];
    spec["image"] = data(json!({"id": "image-1", "properties": null}));
    spec["pci_requests"] = data(json!({"instance_uuid": null, "requests": [data(json!({
        "count": 2, "spec": [{"vendor_id": "8086", "physical_network": null}], "alias_name": "nic"}))]}));
    let cells = [
        json!({"id": 0, "cpuset": [0, 1], "pcpuset": [2], "memory": 1024, "pagesize": -2, "cpu_policy": "mixed",
            "cpu_thread_policy": "isolate", "cpu_topology": null}),
        // Before version 1.5 there was one set.
        json!({"id": 1, "cpuset": [3, 4], "memory": 512, "pagesize": null, "cpu_policy": "dedicated"}),
    ];
    spec["numa_topology"] = data(json!({"cells": cells.map(data), "emulator_threads_policy": "isolate"}));
    spec["network_metadata"] = data(json!({"physnets": ["net1"], "tunneled": true}));
    let cell = data(json!({"id": 2, "uuid": "cell-2"}));
    spec["requested_destination"] = data(json!({"cell": cell, "allow_cross_cell_move": true}));
    let request = translate(&serde_json::to_vec(&body).unwrap()).unwrap();
    assert_eq!(request.image.as_deref(), Some("image-1"));
    assert_eq!(request.destination.preferred_cell.as_deref(), Some("cell-2"));
    let [pci] = request.pci.as_slice() else { panic!("one request: {:?}", request.pci) };
    assert_eq!(
        (pci.count, &pci.specs[0]["vendor_id"], &pci.specs[0]["physical_network"]),
        (2, &Some("8086".to_owned()), &None)
    );
    let first = GuestCell {
        shared: 2,
        dedicated: 1,
        memory_mb: 1024,
        page_kib: -2,
        policy: CpuPolicy::Mixed,
        threads: ThreadPolicy::Isolate,
    };
    let second = GuestCell { dedicated: 2, memory_mb: 512, policy: CpuPolicy::Dedicated, ..GuestCell::default() };
    let numa = GuestTopology {
        cells: vec![first, second],
        emulator_isolated: true,
        physnets: vec!["net1".to_owned()],
        tunneled: true,
    };
    assert_eq!(request.numa, Some(numa));
    // Without leave to cross cells none is preferred.
    body["spec"]["nova_object.data"]["requested_destination"]["nova_object.data"]["allow_cross_cell_move"] =
        json!(false);
    let request = translate(&serde_json::to_vec(&body).unwrap()).unwrap();
    assert_eq!((request.destination.cell_named, request.destination.preferred_cell), (true, None));
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,6}", inner, 0..4).prop_map(Value::from_iter),
        ]
    })
}

fn places(value: &Value, here: &str, out: &mut Vec<String>) {
    out.push(here.to_owned());
    let escape = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, inner)| places(inner, &format!("{here}/{}", escape(key)), out));
        }
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(at, inner)| places(inner, &format!("{here}/{at}"), out));
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_bodies_never_panic(
        which in 0..24_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), value()), 1..4),
    ) {
        let (_, body) = fixtures().swap_remove(which);
        let mut body: Value = serde_json::from_slice(&body).unwrap();
        for (at, value) in changes {
            let mut all = Vec::new();
            places(&body, "", &mut all);
            *body.pointer_mut(at.get(&all[..]).as_str()).unwrap() = value;
        }
        let _ = translate(&serde_json::to_vec(&body).unwrap());
    }

    #[test]
    fn damaged_bodies_never_panic(
        which in 0..24_usize,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let (_, mut body) = fixtures().swap_remove(which);
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let _ = translate(&body);
    }
}

/// Weights in the order of the hosts are taken along with them, in any other order they are looked up.
#[test]
fn weights_belong_to_their_hosts_in_any_order() {
    let sent = |hosts: &[Value]| match translate(&changed("/hosts", json!(hosts))).unwrap().candidates {
        Candidates::Sent(sent) => sent,
        Candidates::All => panic!("hosts were sent"),
    };
    // As the weights are written here.
    let mut hosts = fixture("01")["hosts"].as_array().unwrap().clone();
    hosts.sort_by_key(|host| host["host"].to_string());
    let mut ordered = sent(&hosts);
    hosts.reverse();
    let reversed = sent(&hosts);
    assert!(ordered.windows(2).any(|two| two[0].weight.to_bits() != two[1].weight.to_bits()), "weights that differ");
    ordered.reverse();
    assert_eq!(reversed, ordered);
}
