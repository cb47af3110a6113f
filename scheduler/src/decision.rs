//! What was decided and why: the answer, the short record that is replicated, and the detail that
//! the deciding node keeps for `explain`.

use std::sync::Arc;

use bitcode::{Decode, Encode};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use uuid::Uuid;

use crate::domain::Domain;
use crate::intent::Intent;
use crate::pipeline::survivors::Event;
use crate::request::Request;

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Number in the history; 0 for a question that left no trace.
    pub id: u64,
    /// Domain.
    pub domain: Domain,
    /// What the request was for, after derivation.
    pub intent: Intent,
    /// Pipeline that ran.
    pub pipeline: String,
    /// Its version; 0 = the one that ships with the program.
    #[serde(default)]
    pub version: u32,
    /// One placement for each consumer, in the request's order; empty when nothing fits.
    pub placements: Vec<Placement>,
    /// Hosts in order, best (for a claim: the claimed one) first. Of the first consumer.
    pub hosts: Vec<RankedHost>,
    /// What happened to the claim.
    pub claim: Claim,
    /// Candidates that entered the pipeline.
    pub candidates: u64,
    /// Hosts that were sent but are not known.
    pub unknown_hosts: Vec<String>,
    /// Steps in order, filters then weighers; shared with other decisions of the same request.
    pub steps: Arc<Vec<StepReport>>,
    /// Smallest and largest activation by each of these steps; none by filters and skipped weighers.
    #[serde(default)]
    pub ranges: Vec<Option<(f64, f64)>>,
    /// Notes that hold for the whole run ("source_host hint ignored: …").
    pub notes: Vec<String>,
    /// Wall time of the decision, milliseconds since 1970.
    pub wall: u64,
    /// Caller's trace id.
    pub trace_id: String,
    /// Events of steps, with the step's name; for metrics.
    #[serde(skip)]
    pub events: Vec<(String, Event)>,
    /// Duration of each step in nanoseconds, in the order of `steps`; for metrics.
    #[serde(skip)]
    pub timings: Vec<u64>,
}

/// The end of the note on a request of several consumers that do not all fit; before it stands `6 of 13`.
pub const NOT_TOGETHER: &str = "consumers could be placed together: none was claimed";

/// Where one consumer goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// The consumer.
    pub consumer: Uuid,
    /// Its host.
    pub host: String,
    /// Its node, when known.
    pub node: Option<String>,
    /// Provider uuid.
    pub provider: Uuid,
}

/// A host of the answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RankedHost {
    /// Compute host name, as it was sent.
    pub host: SmolStr,
    /// Final score, rounded to 1e-9.
    pub score: f64,
}

/// What a decision did to the claims of its consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    /// New claims were made.
    Made,
    /// The open claim of a former call stands.
    Kept,
    /// The open claim of a former call was released for a new one.
    Replaced,
    /// Nothing was claimed (rebuild, alternates, read-only, nothing fits).
    None,
}

/// What one step did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Name in the pipeline.
    pub name: String,
    /// `filter` or `weigher`.
    pub kind: StepKind,
    /// Hosts before.
    pub hosts_in: u64,
    /// Hosts after.
    pub hosts_out: u64,
    /// Why it did not run, when it did not.
    pub skipped: Option<String>,
    /// Reasons with the number of hosts that each dropped.
    pub reasons: Vec<(String, u64)>,
    /// First dropped hosts by name (at most 10).
    pub dropped: Vec<SmolStr>,
    /// Weigher: multiplier.
    pub multiplier: Option<f64>,
    /// Weigher: how far it moved the first hosts, in a sample of the decisions; for metrics.
    #[serde(skip)]
    pub impact: Option<Impact>,
}

/// How far a weigher moved the first five hosts of the order: Σ |old position − position| ×
/// |statistic of the host that was there − statistic of the host that is there now|. Source of the
/// formula: cobaltcore-dev/cortex, `cortex_filter_weigher_pipeline_step_impact`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Impact {
    /// Name of the statistic.
    pub statistic: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// The sum.
    pub value: f64,
}

/// Kind of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepKind {
    /// Drops hosts.
    Filter,
    /// Scores hosts.
    Weigher,
}

/// Everything that is known of a past decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The decision's short record.
    pub record: RecordView,
    /// The detail, where this node decided and still has it.
    pub detail: Option<DetailView>,
    /// Why there is no detail, when there is none.
    pub note: Option<String>,
    /// The request, when nothing fitted it and this node still has it: for what would help.
    #[serde(default)]
    pub request: Option<Box<Request>>,
}

/// The replicated record with names instead of numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordView {
    /// Number in the history.
    pub id: u64,
    /// Wall time, milliseconds since 1970.
    pub wall: u64,
    /// Domain.
    pub domain: Domain,
    /// Consumers.
    pub consumers: Vec<Uuid>,
    /// Intent.
    pub intent: Intent,
    /// Pipeline.
    pub pipeline: String,
    /// Its version; 0 = the one that ships with the program.
    #[serde(default)]
    pub version: u32,
    /// Project.
    pub project: Option<String>,
    /// Flavor.
    pub flavor: Option<String>,
    /// Candidates.
    pub candidates: u64,
    /// Sent but unknown hosts.
    pub unknown_hosts: u64,
    /// Step name → reason → hosts dropped, in step order, only steps that dropped something.
    pub drops: Vec<(String, Vec<(String, u64)>)>,
    /// Hosts left.
    pub hosts_out: u64,
    /// The first hosts with their scores.
    pub top: Vec<RankedHost>,
    /// Claimed hosts, one for each consumer.
    pub claimed: Vec<String>,
    /// What happened to the claim.
    pub claim: Claim,
    /// Caller's trace id.
    pub trace_id: String,
}

/// The detail of a decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DetailView {
    /// The full decision.
    pub decision: Decision,
    /// The hosts asked for (or the first of the answer), each with its story.
    pub hosts: Vec<HostStory>,
}

/// What happened to one host in one decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostStory {
    /// Host name.
    pub host: String,
    /// Position in the answer, from 1.
    pub rank: Option<u64>,
    /// Name of the filter that dropped it.
    pub dropped_by: Option<String>,
    /// Why, in words.
    pub reason: Option<String>,
    /// The caller's weight as it entered the score.
    pub base: Option<f64>,
    /// Weigher name, raw activation, contribution to the score.
    pub scores: Vec<(String, f64, f64)>,
    /// Final score.
    pub score: Option<f64>,
}
