//! Mirrors `scheduler::Settings` for the schema.

use std::collections::BTreeMap;

use schemars::JsonSchema;

/// How decisions are made.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "a schema, never a value")]
pub struct Scheduling {
    /// Domain to the pipeline for requests that name none and from which none can be inferred.
    pub default_pipeline: Option<BTreeMap<String, String>>,
    /// Refuse a request whose flavor names no known hypervisor type.
    pub strict_inference: Option<bool>,
    /// Hosts that were sent but are not known: leave them out, or append them unclaimed.
    pub unknown_hosts: Option<UnknownHosts>,
    /// Life of an unconfirmed claim, seconds.
    pub claim_expiry: Option<ClaimExpiry>,
    /// Age up to which a repeat without a request id counts as the same request, milliseconds.
    pub same_request_ms: Option<u64>,
    /// Hosts of an answer that are remembered with their score.
    pub record_top: Option<u64>,
    /// Candidates up to which a reason is kept for each dropped host.
    pub detail_hosts: Option<u64>,
    /// Decisions whose detail is kept.
    pub detail_decisions: Option<u64>,
}

/// What to do with hosts that are not known.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "a schema, never a value")]
pub enum UnknownHosts {
    /// Leave them out.
    Drop,
    /// Put them last.
    Append,
}

/// Life of a claim by intent, seconds.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "a schema, never a value")]
pub struct ClaimExpiry {
    /// Create and evacuate.
    pub create: Option<u64>,
    /// Resize, cold migration and unlabelled moves.
    pub resize: Option<u64>,
    /// Live migration.
    pub live_migration: Option<u64>,
}
