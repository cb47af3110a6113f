//! Numbers that sources of metrics say of hosts (load, steal time, contention), for rules and weighers to
//! read. No claim and no capacity depends on them. A feature stays until it is replaced or forgotten; how old
//! one may be is up to the step that reads it.

use std::collections::BTreeMap;

use bitcode::{Decode, Encode};

use crate::domain::Domain;
use crate::names::Sym;

/// Features of a host: one for each project on it is among what sources say.
pub const MOST: usize = 1024;
/// Names with a `*` in one report: each is compared with every feature of the host.
const MOST_PATTERNS: usize = 16;
/// Bytes of a name.
pub const LONGEST_NAME: usize = 128;

/// A number that is said of a host.
#[derive(Clone, Copy, Debug, PartialEq, Encode, Decode)]
pub struct Feature {
    /// Its name.
    pub name: Sym,
    /// A finite number, in the unit of the source.
    pub value: f64,
    /// When it was observed, wall milliseconds.
    pub observed_at: u64,
}

/// The features of a host, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Features(pub Vec<Feature>);

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
    /// Features to forget, before the values are taken; a `*` at the end matches any rest.
    pub forget: Vec<String>,
    /// When it was observed, wall milliseconds; `None` = when it is applied. A feature that was observed
    /// later is neither replaced nor forgotten.
    pub observed_at: Option<u64>,
}

impl Features {
    /// A feature by name.
    pub fn get(&self, name: Sym) -> Option<Feature> {
        self.0.binary_search_by_key(&name, |feature| feature.name).ok().map(|at| self.0[at])
    }
}

impl FeatureReport {
    /// What is wrong with it, naming the field.
    pub fn validate(&self) -> Result<(), String> {
        crate::report::name("name", &self.name)?;
        for (field, given) in [("values", self.values.len()), ("forget", self.forget.len())] {
            if given > MOST {
                return Err(format!("{field}: {given} features given, at most {MOST} expected"));
            }
        }
        let patterns = self.forget.iter().filter(|name| name.ends_with('*')).count();
        if patterns > MOST_PATTERNS {
            return Err(format!("forget: {patterns} names with a '*' given, at most {MOST_PATTERNS} expected"));
        }
        let values = self.values.keys().map(|name| ("values", name.as_str(), false));
        let forget = self.forget.iter().map(|name| match name.strip_suffix('*') {
            Some(begin) => ("forget", begin, true),
            None => ("forget", name.as_str(), false),
        });
        for (field, name, begin) in values.chain(forget) {
            let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
            if (name.is_empty() && !begin) || name.len() > LONGEST_NAME || !name.chars().all(good) {
                let shown: String = name.chars().take(80).collect();
                return Err(format!(
                    "{field}: '{}' is no name of a feature: 1 to {LONGEST_NAME} letters, digits, '_', '.' and '-' expected",
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
