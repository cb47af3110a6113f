//! Weights of resources, as the binpack and size weighers take them.

use serde::{Deserialize, Serialize};

/// Weight of each resource; an absent one does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResourceWeights {
    /// Weight of MEMORY_MB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<f64>,
    /// Weight of VCPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
}

impl ResourceWeights {
    /// Resource class and weight of each that counts; `good` says which weights are allowed, and
    /// `expected` says so in words.
    pub fn check(self, good: fn(f64) -> bool, expected: &str) -> Result<Vec<(&'static str, f64)>, String> {
        let given = [("memory", "MEMORY_MB", self.memory), ("cpu", "VCPU", self.cpu)];
        let given: Vec<_> = given.into_iter().filter_map(|(key, class, weight)| Some((key, class, weight?))).collect();
        if given.is_empty() {
            return Err("resourceWeights: an empty map given, memory or cpu expected".to_owned());
        }
        if let Some((key, _, weight)) = given.iter().find(|(_, _, weight)| !weight.is_finite() || !good(*weight)) {
            return Err(format!("resourceWeights.{key}: {weight} given, {expected} expected"));
        }
        Ok(given.into_iter().map(|(_, class, weight)| (class, weight)).collect())
    }
}
