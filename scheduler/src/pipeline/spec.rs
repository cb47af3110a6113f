//! The Pipeline resource (`resources` 4): what a file or an object says, and what is wrong with it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::domain::Domain;
use crate::pipeline::scoring::Scoring;

/// A Pipeline resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PipelineResource {
    /// `cortex.cloud/v1alpha1`, or the group of the C5C3 documents.
    pub api_version: String,
    /// `Pipeline`.
    pub kind: String,
    /// Its name and whatever else Kubernetes keeps there.
    pub metadata: Metadata,
    /// What it does.
    pub spec: PipelineSpec,
    /// Ignored on input.
    #[serde(default, skip_serializing)]
    pub status: serde::de::IgnoredAny,
}

/// The part of Kubernetes metadata that is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// Pipeline name.
    pub name: String,
    /// Everything else, kept as it is.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

/// `spec` of a Pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PipelineSpec {
    /// Domain.
    pub scheduling_domain: Domain,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// `filter-weigher` or `detector`.
    #[serde(rename = "type")]
    pub kind: PipelineKind,
    /// True: the caller's weights count as 0. Candidates stay hosts sent ∩ hosts known.
    #[serde(default)]
    pub ignore_preselection: bool,
    /// How activations add up: `cortex` (tanh), `nova` (stretched over the hosts that are left) or `raw` (as they are).
    #[serde(default, skip_serializing_if = "Scoring::is_default")]
    pub scoring: Scoring,
    /// Filters in order.
    #[serde(default)]
    pub filters: Vec<StepSpec>,
    /// Weighers.
    #[serde(default)]
    pub weighers: Vec<StepSpec>,
    /// Detectors (only in a `detector` pipeline).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub detectors: Vec<StepSpec>,
}

/// Type of a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PipelineKind {
    /// Drops and scores hosts.
    FilterWeigher,
    /// Finds consumers that should move.
    Detector,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StepSpec {
    /// Name of a known step.
    pub name: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Options.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<Param>,
    /// Weighers: factor of the score, default 1; negative inverts.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "finite")]
    pub multiplier: Option<f64>,
}

/// One option: a key and exactly one value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Param {
    /// Option name.
    pub key: String,
    /// String.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub string_value: Option<String>,
    /// Boolean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bool_value: Option<bool>,
    /// Integer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub int_value: Option<i64>,
    /// Float.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "finite")]
    pub float_value: Option<f64>,
    /// List of strings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub string_list_value: Option<Vec<String>>,
    /// Map of floats.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "all_finite")]
    pub float_map_value: Option<BTreeMap<String, f64>>,
}

/// YAML knows NaN and infinities, JSON, as which a pipeline is replicated, drops them.
fn finite<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    Option::deserialize(from)?.map(is_finite).transpose()
}

fn all_finite<'de, D: Deserializer<'de>>(from: D) -> Result<Option<BTreeMap<String, f64>>, D::Error> {
    let map = Option::<BTreeMap<String, f64>>::deserialize(from)?;
    map.map(|map| map.into_iter().map(|(key, value)| Ok((key, is_finite(value)?))).collect()).transpose()
}

fn is_finite<E: serde::de::Error>(value: f64) -> Result<f64, E> {
    if value.is_finite() { Ok(value) } else { Err(E::custom(format!("{value} given, a finite number expected"))) }
}

/// Why a pipeline cannot be activated; the path names the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pipeline {pipeline}: {path}: {message}")]
pub struct SpecError {
    /// Pipeline name.
    pub pipeline: String,
    /// Path in the resource, as in `spec.filters[3].params[0]`.
    pub path: String,
    /// What was given, what was expected.
    pub message: String,
}

impl SpecError {
    /// The path and the message, without the name.
    pub fn placed(&self) -> String {
        format!("{}: {}", self.path, self.message)
    }
}

impl PipelineResource {
    /// The text under which it is replicated: the same for the same content.
    /// Of the metadata it keeps name and labels: what Kubernetes writes there changes with each writing.
    pub fn text(&self) -> String {
        let mut kept = self.clone();
        kept.metadata.rest.retain(|key, _| key == "labels");
        serde_json::to_string(&kept).unwrap_or_default()
    }

    /// Reads such a text.
    pub fn read(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| format!("not a Pipeline resource: {error}"))
    }
}

impl StepSpec {
    /// The options as one JSON object; the error names the bad param.
    pub fn options(&self) -> Result<serde_json::Value, (String, String)> {
        let mut out = serde_json::Map::new();
        for (at, param) in self.params.iter().enumerate() {
            let path = format!("params[{at}]");
            if param.key.is_empty() {
                return Err((path, "key: a non-empty name expected".to_owned()));
            }
            let value = param.value().map_err(|message| (path.clone(), message))?;
            if out.insert(param.key.clone(), value).is_some() {
                return Err((path, format!("key '{}' is given twice", param.key)));
            }
        }
        Ok(serde_json::Value::Object(out))
    }
}

impl Param {
    fn value(&self) -> Result<serde_json::Value, String> {
        use serde_json::json;
        let values: Vec<serde_json::Value> = [
            self.string_value.as_ref().map(|v| json!(v)),
            self.bool_value.map(|v| json!(v)),
            self.int_value.map(|v| json!(v)),
            self.float_value.map(|v| json!(v)),
            self.string_list_value.as_ref().map(|v| json!(v)),
            self.float_map_value.as_ref().map(|v| json!(v)),
        ]
        .into_iter()
        .flatten()
        .collect();
        match <[_; 1]>::try_from(values) {
            Ok([value]) => Ok(value),
            Err(values) => Err(format!(
                "key '{}' has {} values, exactly one of stringValue, boolValue, intValue, floatValue, \
                 stringListValue, floatMapValue expected",
                self.key,
                values.len()
            )),
        }
    }
}
