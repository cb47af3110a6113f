//! Numbers that sources of metrics say of hosts (load, steal time, contention), for rules to read. No
//! claim and no capacity depends on them.

use std::collections::BTreeMap;

use bitcode::{Decode, Encode};

use crate::domain::Domain;
use crate::names::Sym;

/// Features of a host.
pub const MOST: usize = 64;
/// Bytes of a name.
pub const LONGEST_NAME: usize = 64;

/// The features of a host.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Features {
    /// Value of each, sorted by name.
    pub values: Vec<(Sym, f64)>,
    /// When the last applied report was observed, wall milliseconds.
    pub observed_at: u64,
}

/// What a source says of a host. Features that it does not name stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct FeatureReport {
    /// Domain.
    pub domain: Domain,
    /// Compute host name.
    pub name: String,
    /// Node name; `None` = the host has one node.
    pub hypervisor_hostname: Option<String>,
    /// Finite numbers, in the unit of the source.
    pub values: BTreeMap<String, f64>,
    /// Features to forget.
    pub forget: Vec<String>,
    /// When it was observed, wall milliseconds; `None` = when it is applied. An older report than the
    /// last one is ignored.
    pub observed_at: Option<u64>,
}

impl Features {
    /// The value of a feature.
    pub fn get(&self, name: Sym) -> Option<f64> {
        self.values.binary_search_by_key(&name, |&(known, _)| known).ok().map(|at| self.values[at].1)
    }
}

impl FeatureReport {
    /// What is wrong with it, naming the field.
    pub fn validate(&self) -> Result<(), String> {
        crate::report::name("name", &self.name)?;
        if self.values.len() > MOST || self.forget.len() > MOST {
            let given = self.values.len().max(self.forget.len());
            return Err(format!("values: {given} features given, at most {MOST} expected"));
        }
        for name in self.values.keys().chain(&self.forget) {
            let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
            if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(good) {
                let shown: String = name.chars().take(80).collect();
                return Err(format!(
                    "values: '{}' is no name of a feature: 1 to {LONGEST_NAME} letters, digits, '_', '.' and '-' expected",
                    shown.escape_debug()
                ));
            }
        }
        match self.values.iter().find(|(_, value)| !value.is_finite()) {
            Some((name, value)) => Err(format!("values.{name}: {value} given, a finite number expected")),
            None => Ok(()),
        }
    }
}
