//! The `FailoverPolicy` document: read with every fault at once, and written again.
//!
//! ```yaml
//! apiVersion: pallium.dev/v1alpha1
//! kind: FailoverPolicy
//! metadata: {name: az-a-trial}
//! spec:
//!   selector: {domain: "az:az-a"}
//!   mode: dry-run
//! ```
//!
//! What the specification names and nothing carries out yet is refused as planned, never ignored.

mod keys;
mod selector;

use serde_json::{Map, Value, json};

use self::keys::{KEYS, PLANNED, PLANNED_VALUES, time};
use super::{DRAINS, FROM_SOURCE, FailoverPolicy, ISOLATED, POLICY_NAME, Rules, Selector, TO_TARGET};

/// `apiVersion` of the document.
pub const API_VERSION: &str = "pallium.dev/v1alpha1";
/// `kind` of the document.
pub const KIND: &str = "FailoverPolicy";

/// What is wrong at a place of a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct Fault {
    /// Where, as in `spec.selector.hosts[3]`.
    pub path: String,
    /// What was given, what was expected.
    pub message: String,
}

/// What a policy says, key by key, as the document has it.
pub fn keys(rules: &Rules) -> impl Iterator<Item = (&'static str, String)> + '_ {
    KEYS.iter().filter_map(|key| {
        let value = (key.write)(rules)?;
        Some((key.path, value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
    })
}

/// A policy as a document: read again it is the same.
pub fn write(policy: &FailoverPolicy) -> Value {
    let mut spec = Map::new();
    spec.insert("selector".to_owned(), selector::write(&policy.selector));
    for key in &KEYS {
        let Some(value) = (key.write)(&policy.rules) else { continue };
        match key.path.split_once('.') {
            None => drop(spec.insert(key.path.to_owned(), value)),
            Some((group, key)) => spec.entry(group).or_insert_with(|| json!({}))[key] = value,
        }
    }
    json!({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": policy.name}, "spec": spec})
}

/// Reads a document. Errors: everything that is wrong with it.
pub fn read(document: &Value) -> Result<FailoverPolicy, Vec<Fault>> {
    let mut reader = Reader::default();
    let Some(root) = document.as_object() else {
        let message = format!("{} given, a map with apiVersion, kind, metadata and spec expected", brief(document));
        return Err(vec![Fault { path: "document".to_owned(), message }]);
    };
    let policy = reader.policy(root).normal();
    let mut faults = reader.0;
    // What could not be read was told: that nothing is there instead is no second fault.
    let told = |fault: &Fault| {
        faults.iter().any(|known| known.path.starts_with(&fault.path) || fault.path.starts_with(&known.path))
    };
    let more: Vec<_> = policy.faults().into_iter().filter(|fault| !told(fault)).collect();
    faults.extend(more);
    if faults.is_empty() { Ok(policy) } else { Err(faults) }
}

impl FailoverPolicy {
    /// The same with its lists in order, each name once.
    #[must_use]
    pub fn normal(mut self) -> Self {
        let Selector { hosts, aggregates, traits, labels, .. } = &mut self.selector;
        for list in [hosts, aggregates, traits].into_iter().chain(labels.iter_mut().map(|term| &mut term.values)) {
            list.sort_unstable();
            list.dedup();
        }
        labels.sort_unstable();
        labels.dedup();
        self
    }

    /// What is out of bounds, whoever wrote it.
    pub fn faults(&self) -> Vec<Fault> {
        let mut reader = Reader::default();
        let name = &self.name;
        let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let inner = |c: u8| edge(Some(c)) || matches!(c, b'-' | b'.');
        let bytes = name.as_bytes();
        let fine = edge(bytes.first().copied()) && edge(bytes.last().copied()) && bytes.iter().all(|c| inner(*c));
        if !fine || name.len() > POLICY_NAME {
            let expected = "1 to 63 lower-case letters, digits, '-' and '.', with a letter or digit at both ends";
            reader.wrong("metadata.name", &brief(&name.as_str().into()), expected);
        }
        let Rules { fence_isolated, from_source, to_target, drains, admission, .. } = self.rules;
        if self.rules == Rules::default() {
            reader.wrong("spec", "nothing but a selector", "one key more at least, as in 'mode: dry-run'");
        }
        if let Some(after) = fence_isolated.filter(|after| *after > 0)
            && (!(ISOLATED..=86_400_000).contains(&after) || after % 1_000 != 0)
        {
            reader.wrong("spec.isolationResponse", &format!("'fence_after {}'", time(after)), "60s to 24h");
        }
        if let Some(rule) = admission.filter(|rule| !rule.is_valid()) {
            reader.wrong("spec.admission.policy", &format!("'{rule}'"), "percent 1 to 90");
        }
        for (path, given, most) in [
            ("spec.rates.evacuationsFromHost", from_source, FROM_SOURCE),
            ("spec.rates.evacuationsToHost", to_target, TO_TARGET.1),
            ("spec.drain.maxUnavailable", drains, DRAINS),
        ] {
            if let Some(given) = given.filter(|given| !(1..=most).contains(given)) {
                reader.wrong(path, &given.to_string(), &format!("1 to {most}"));
            }
        }
        reader.selector_bounds(&self.selector);
        reader.0
    }
}

/// What is wrong so far.
#[derive(Default)]
struct Reader(Vec<Fault>);

impl Reader {
    fn fault(&mut self, path: &str, message: String) {
        self.0.push(Fault { path: path.to_owned(), message });
    }

    fn wrong(&mut self, path: &str, given: &str, expected: &str) {
        self.fault(path, format!("{given} given, {expected} expected"));
    }

    fn map<'v>(&mut self, path: &str, given: Option<&'v Value>) -> Option<&'v Map<String, Value>> {
        let map = given.and_then(Value::as_object);
        if map.is_none() {
            self.wrong(path, &brief(given.unwrap_or(&Value::Null)), "a map");
        }
        map
    }

    fn only(&mut self, path: &str, map: &Map<String, Value>, known: &[&str]) {
        for key in map.keys().filter(|key| !known.contains(&key.as_str())) {
            self.fault(&join(path, key), format!("unknown key, known are {}", known.join(", ")));
        }
    }

    fn exactly(&mut self, map: &Map<String, Value>, key: &str, expected: &str) {
        let given = map.get(key).unwrap_or(&Value::Null);
        if given.as_str() != Some(expected) {
            self.wrong(key, &brief(given), expected);
        }
    }

    fn policy(&mut self, root: &Map<String, Value>) -> FailoverPolicy {
        let mut policy = FailoverPolicy::default();
        self.only("", root, &["apiVersion", "kind", "metadata", "spec", "status"]);
        self.exactly(root, "apiVersion", API_VERSION);
        self.exactly(root, "kind", KIND);
        // Kubernetes keeps more there.
        if let Some(metadata) = self.map("metadata", root.get("metadata")) {
            policy.name = self.text("metadata.name", metadata.get("name").unwrap_or(&Value::Null));
        }
        if let Some(spec) = self.map("spec", root.get("spec")) {
            if let Some(selector) = self.map("spec.selector", spec.get("selector")) {
                policy.selector = self.selector(selector);
            }
            self.rules("", spec, &mut policy.rules);
        }
        policy
    }

    fn rules(&mut self, group: &str, map: &Map<String, Value>, rules: &mut Rules) {
        for (key, given) in
            map.iter().filter(|(key, given)| !(given.is_null() || group.is_empty() && *key == "selector"))
        {
            let path = join(group, key);
            let at = join("spec", &path);
            let begins = |known: &str| known.strip_prefix(&*path).is_some_and(|rest| rest.starts_with('.'));
            if let Some((_, instead)) = PLANNED.iter().find(|(known, _)| *known == path) {
                self.fault(&at, format!("planned, and does nothing in this version: {instead}; take this key out"));
            } else if let Some(known) = KEYS.iter().find(|known| known.path == path) {
                let planned = PLANNED_VALUES.iter().find(|(known, value)| *known == path && given == value);
                if let Some((_, value)) = planned {
                    let expected = known.expected;
                    self.fault(
                        &at,
                        format!("'{value}' is planned and does nothing in this version, {expected} expected"),
                    );
                } else if !(known.read)(rules, given) {
                    self.wrong(&at, &brief(given), known.expected);
                }
            } else if KEYS.iter().any(|known| begins(known.path)) {
                if let Some(map) = self.map(&at, Some(given)) {
                    self.rules(&path, map, rules);
                }
            } else {
                let mut known: Vec<&str> = KEYS
                    .iter()
                    .filter_map(|known| {
                        if group.is_empty() {
                            Some(known.path)
                        } else {
                            known.path.strip_prefix(group)?.strip_prefix('.')
                        }
                    })
                    .map(|rest| rest.split_once('.').map_or(rest, |(first, _)| first))
                    .chain(group.is_empty().then_some("selector"))
                    .collect();
                known.dedup();
                self.fault(&at, format!("unknown key, known are {}", known.join(", ")));
            }
        }
    }

    fn text(&mut self, path: &str, given: &Value) -> String {
        let text = given.as_str();
        if text.is_none() {
            self.wrong(path, &brief(given), "text");
        }
        text.unwrap_or_default().to_owned()
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A value in few words, as messages tell what was given.
pub fn brief(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) if text.chars().count() > 60 => {
            format!("'{}…'", text.chars().take(60).collect::<String>().escape_debug())
        }
        Value::String(text) => format!("'{}'", text.escape_debug()),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a map".to_owned(),
    }
}
