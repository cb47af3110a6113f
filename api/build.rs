//! Compiles the protocol files, without a `protoc`, into messages that are also JSON and OpenAPI.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;
use prost_types::FileDescriptorSet;

const FILES: [&str; 7] = [
    "pallium/v1/scheduler.proto",
    "pallium/v1/inventory.proto",
    "pallium/v1/pipelines.proto",
    "pallium/v1/cluster.proto",
    "pallium/v1/what_if.proto",
    "pallium/ha/v1/agent.proto",
    "pallium/ha/v1/failover.proto",
];

/// Messages that exist only so that an empty list or map differs from an absent one: in JSON they
/// are that list or map.
const PLAIN: [&str; 7] =
    ["StringList", "InventoryMap", "AmountMap", "StringMap", "AggregateList", "NumaCellList", "InstanceReportList"];

/// Messages that REST takes from the query of a GET.
const QUERIES: [&str; 13] = [
    "AgentDirectivesRequest",
    "DecisionsRequest",
    "WatchDecisionsRequest",
    "ListHostsRequest",
    "ListInstancesRequest",
    "WatchHostsRequest",
    "ListPipelinesRequest",
    "ListShadowsRequest",
    "FailoverDrainsRequest",
    "FailoverHostsRequest",
    "FailoverLossesRequest",
    "FailoverCasesRequest",
    "FailoverPoliciesRequest",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let set = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    std::fs::write(out.join("pallium.bin"), set.encode_to_vec())?;
    let builder = tonic_prost_build::configure()
        .btree_map(".")
        .message_attribute(".", "#[derive(serde::Serialize, serde::Deserialize)]");
    json(builder, &set).compile_fds(set)?;
    Ok(())
}

/// Gives every message the JSON of the REST API.
fn json(mut builder: tonic_prost_build::Builder, set: &FileDescriptorSet) -> tonic_prost_build::Builder {
    for file in &set.file {
        for message in &file.message_type {
            let path = format!(".{}.{}", file.package(), message.name());
            let of_message = if PLAIN.contains(&message.name()) {
                "#[serde(transparent)]"
            } else if QUERIES.contains(&message.name()) {
                "#[derive(utoipa::ToSchema, utoipa::IntoParams)]\n\
                 #[into_params(parameter_in = Query)]\n\
                 #[serde(default, deny_unknown_fields)]"
            } else {
                "#[derive(utoipa::ToSchema)]\n#[serde(default, deny_unknown_fields)]"
            };
            builder = builder.message_attribute(&path, of_message);
            for field in &message.field {
                let path = format!("{path}.{}", field.name());
                if field.proto3_optional() {
                    builder = builder.field_attribute(&path, "#[serde(skip_serializing_if = \"Option::is_none\")]");
                }
            }
        }
    }
    // JSON that travels as its text in gRPC.
    let objects = [
        "HostReport.nova_host_state",
        "Pipeline.resource",
        "ApplyPipelineRequest.resource",
        "DiffPipelineRequest.resource",
        "LintPipelineRequest.resource",
        "FailoverPolicy.document",
        "FailoverPolicyRequest.document",
    ];
    for field in objects {
        builder = builder
            .field_attribute(field, "#[serde(with = \"crate::proto::json_text\")]")
            .field_attribute(field, "#[schema(value_type = Option<Object>)]");
    }
    builder.field_attribute("DecisionsRequest.consumer", "#[serde(alias = \"instance\")]")
}
