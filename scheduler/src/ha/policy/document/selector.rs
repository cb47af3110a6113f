//! `spec.selector`: read, written, and its bounds.

use serde_json::{Map, Value, json};

use super::keys::{word, written};
use super::{Reader, brief, join};
use crate::ha::breaker::ScopeName;
use crate::ha::policy::{NAME, NAMED, Operator, Selector, Term};

const OPERATORS: [(&str, Operator); 4] = [
    ("In", Operator::In),
    ("NotIn", Operator::NotIn),
    ("Exists", Operator::Exists),
    ("DoesNotExist", Operator::DoesNotExist),
];

/// A selector as the document has it.
pub(super) fn write(selector: &Selector) -> Value {
    let mut out = Map::new();
    if let Some(domain) = &selector.domain {
        out.insert("domain".to_owned(), domain.to_string().into());
    }
    for (key, list) in [("hosts", &selector.hosts), ("aggregates", &selector.aggregates), ("traits", &selector.traits)]
    {
        if !list.is_empty() {
            out.insert(key.to_owned(), json!(list));
        }
    }
    let (mut labels, mut terms) = (Map::new(), Vec::new());
    for term in &selector.labels {
        match (term.operator, term.values.as_slice()) {
            (Operator::In, [value]) if !labels.contains_key(&term.key) => {
                labels.insert(term.key.clone(), value.as_str().into());
            }
            (operator, []) => terms.push(json!({"key": term.key, "operator": written(&OPERATORS, operator)})),
            (operator, values) => {
                terms.push(json!({"key": term.key, "operator": written(&OPERATORS, operator), "values": values}));
            }
        }
    }
    if !labels.is_empty() {
        out.insert("matchLabels".to_owned(), labels.into());
    }
    if !terms.is_empty() {
        out.insert("matchExpressions".to_owned(), terms.into());
    }
    out.into()
}

impl Reader {
    fn texts(&mut self, path: &str, given: Option<&Value>) -> Vec<String> {
        let Some(given) = given.filter(|given| !given.is_null()) else { return Vec::new() };
        let Some(list) = given.as_array().filter(|list| !list.is_empty()) else {
            self.wrong(path, &brief(given), "a list with one text at least");
            return Vec::new();
        };
        list.iter().enumerate().map(|(at, given)| self.text(&format!("{path}[{at}]"), given)).collect()
    }

    pub(super) fn selector(&mut self, map: &Map<String, Value>) -> Selector {
        const AT: &str = "spec.selector";
        self.only(AT, map, &["domain", "hosts", "aggregates", "traits", "matchLabels", "matchExpressions"]);
        let at = |key| join(AT, key);
        let mut selector = Selector::default();
        if let Some(given) = map.get("domain").filter(|given| !given.is_null()) {
            let domain: Option<ScopeName> = given.as_str().and_then(|text| text.parse().ok());
            if domain.is_none() {
                self.wrong(&at("domain"), &brief(given), ScopeName::EXPECTED);
            }
            selector.domain = domain;
        }
        selector.hosts = self.texts(&at("hosts"), map.get("hosts"));
        selector.aggregates = self.texts(&at("aggregates"), map.get("aggregates"));
        selector.traits = self.texts(&at("traits"), map.get("traits"));
        if let Some(given) = map.get("matchLabels").filter(|given| !given.is_null())
            && let Some(labels) = self.map(&at("matchLabels"), Some(given))
        {
            for (key, value) in labels {
                let values = vec![self.text(&join(&at("matchLabels"), key), value)];
                selector.labels.push(Term { key: key.clone(), operator: Operator::In, values });
            }
        }
        if let Some(given) = map.get("matchExpressions").filter(|given| !given.is_null()) {
            let path = at("matchExpressions");
            match given.as_array().filter(|list| !list.is_empty()) {
                None => self.wrong(&path, &brief(given), "a list with one expression at least"),
                Some(list) => {
                    for (at, given) in list.iter().enumerate() {
                        let term = self.term(&format!("{path}[{at}]"), given);
                        selector.labels.extend(term);
                    }
                }
            }
        }
        selector
    }

    fn term(&mut self, path: &str, given: &Value) -> Option<Term> {
        let map = self.map(path, Some(given))?;
        self.only(path, map, &["key", "operator", "values"]);
        let key = self.text(&join(path, "key"), map.get("key").unwrap_or(&Value::Null));
        let given = map.get("operator").unwrap_or(&Value::Null);
        let operator = word(&OPERATORS, given);
        if operator.is_none() {
            self.wrong(&join(path, "operator"), &brief(given), "In, NotIn, Exists or DoesNotExist");
        }
        let values = self.texts(&join(path, "values"), map.get("values"));
        let operator = operator?;
        let (wants, path) = (matches!(operator, Operator::In | Operator::NotIn), join(path, "values"));
        if wants && map.get("values").is_none() {
            self.wrong(&path, "nothing", "a list with one text at least");
        } else if !wants && !values.is_empty() {
            self.wrong(&path, "a list", "none with Exists and DoesNotExist");
        }
        Some(Term { key, operator, values })
    }

    pub(super) fn selector_bounds(&mut self, selector: &Selector) {
        let at = |key: &str| join("spec.selector", key);
        if *selector == Selector::default() {
            self.wrong("spec.selector", "nothing", "one of domain, hosts, aggregates, traits, matchLabels, matchExpressions (every host: 'domain: region')");
        }
        let name = |reader: &mut Self, path: &str, name: &str| {
            if name.is_empty() || name.len() > NAME {
                reader.wrong(path, &format!("{} bytes", name.len()), &format!("1 to {NAME}"));
            }
        };
        if let Some(ScopeName::Az(domain) | ScopeName::Cell(domain) | ScopeName::Cluster(domain)) = &selector.domain {
            name(self, &at("domain"), domain);
        }
        for (key, list) in
            [("hosts", &selector.hosts), ("aggregates", &selector.aggregates), ("traits", &selector.traits)]
        {
            if list.len() > NAMED {
                self.wrong(&at(key), &format!("{} names", list.len()), &format!("{NAMED} at most"));
            }
            for given in list {
                name(self, &at(key), given);
            }
        }
        let texts: usize = selector.labels.iter().map(|term| 1 + term.values.len()).sum();
        if texts > NAMED {
            self.wrong("spec.selector", &format!("{texts} keys and values of labels"), &format!("{NAMED} at most"));
        }
        for term in &selector.labels {
            name(self, &at("matchExpressions"), &term.key);
            for value in term.values.iter().filter(|value| value.len() > NAME) {
                self.wrong(&at("matchExpressions"), &format!("a value of {} bytes", value.len()), "255 at most");
            }
        }
    }
}
