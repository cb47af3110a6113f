//! Text into trees: JSON (also several values in a row) or YAML (also several documents), told
//! apart by content. A key that is given twice is an error, not the last one winning.
//!
//! Trees carry no lines. [`Documents::line`] finds the line of a path when there is an error to
//! tell: it reads the text again and stops at that place, so the answer is the parser's own.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// A step of a path in a tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Key of a map.
    Key(String),
    /// Position in a list, from 0.
    Item(usize),
}

/// Writes a path as people do: `hosts[3].inventories.VCPU`.
pub fn path_text(steps: &[Step]) -> String {
    let mut out = String::new();
    for step in steps {
        match step {
            Step::Key(key) => {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(key);
            }
            Step::Item(at) => {
                out.push('[');
                out.push_str(&at.to_string());
                out.push(']');
            }
        }
    }
    out
}

/// Reads what [`path_text`] writes.
pub fn path_steps(text: &str) -> Vec<Step> {
    let mut out = Vec::new();
    for part in text.split('.') {
        let (key, items) = part.split_once('[').map_or((part, ""), |(key, items)| (key, items));
        if !key.is_empty() {
            out.push(Step::Key(key.to_owned()));
        }
        out.extend(items.split('[').filter_map(|item| item.strip_suffix(']')?.parse().ok()).map(Step::Item));
    }
    out
}

/// A text that is no document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Line from 1, where the parser tells.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Syntax {
    Json,
    Yaml,
}

/// The documents of a text.
#[derive(Debug)]
pub struct Documents<'t> {
    text: &'t str,
    syntax: Syntax,
    /// Trees in order; empty documents are left out.
    pub trees: Vec<Value>,
    /// Position in the text of each tree.
    positions: Vec<usize>,
}

impl<'t> Documents<'t> {
    /// Parses `text`.
    pub fn parse(text: &'t str) -> Result<Self, SyntaxError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if !text.trim_start().starts_with(['{', '[']) {
            return Self::collect(text, Syntax::Yaml, yaml(text));
        }
        // Flow style YAML starts like JSON does; what JSON says is wrong is the better message.
        match json(text) {
            Ok(trees) => Self::collect(text, Syntax::Json, Ok(trees)),
            Err(error) => Self::collect(text, Syntax::Yaml, yaml(text)).map_err(|_| error),
        }
    }

    fn collect(text: &'t str, syntax: Syntax, trees: Result<Vec<Value>, SyntaxError>) -> Result<Self, SyntaxError> {
        let all = trees?;
        let positions = all.iter().enumerate().filter(|(_, tree)| !tree.is_null()).map(|(at, _)| at).collect();
        let trees = all.into_iter().filter(|tree| !tree.is_null()).collect();
        Ok(Self { text, syntax, trees, positions })
    }

    /// Line (from 1) of the place that `path` names in tree `tree`; of the innermost thing around
    /// it that exists, where it does not.
    pub fn line(&self, tree: usize, path: &[Step]) -> Option<usize> {
        let at = *self.positions.get(tree)?;
        match self.syntax {
            Syntax::Json => {
                let mut rest = serde_json::Deserializer::from_str(self.text);
                for _ in 0..at {
                    IgnoredAny::deserialize(&mut rest).ok()?;
                }
                Seek(path).deserialize(&mut rest).err().map(|error| error.line())
            }
            Syntax::Yaml => {
                let document = serde_norway::Deserializer::from_str(self.text).nth(at)?;
                Seek(path).deserialize(document).err()?.location().map(|location| location.line())
            }
        }
    }
}

fn json(text: &str) -> Result<Vec<Value>, SyntaxError> {
    let strict = serde_json::Deserializer::from_str(text).into_iter::<Strict>();
    strict
        .map(|tree| tree.map(|tree| tree.0))
        .collect::<Result<_, _>>()
        .map_err(|error| SyntaxError { line: Some(error.line()), message: without_place(&error.to_string()) })
}

fn yaml(text: &str) -> Result<Vec<Value>, SyntaxError> {
    serde_norway::Deserializer::from_str(text)
        .map(|document| Strict::deserialize(document).map(|tree| tree.0))
        .collect::<Result<_, _>>()
        .map_err(|error| SyntaxError {
            line: error.location().map(|location| location.line()),
            message: without_place(&error.to_string()),
        })
}

/// The parsers put the place into their messages; here it is told apart.
fn without_place(message: &str) -> String {
    let Some(start) = message.find(" at line ") else { return message.to_owned() };
    let end = message[start..].find(',').map_or(message.len(), |at| start + at);
    format!("{}{}", &message[..start], &message[end..])
}

/// A tree in which no key is given twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON or YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        serde_json::Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom(format!("{value} is no number that JSON knows")))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            out.push(item);
        }
        Ok(Value::Array(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(Key(key)) = entries.next_key()? {
            if out.contains_key(&key) {
                return Err(de::Error::custom(format!("key '{key}' is given twice")));
            }
            let Strict(value) = entries.next_value()?;
            out.insert(key, value);
        }
        Ok(Value::Object(out))
    }
}

/// A key; YAML keys that look like numbers or booleans count as their text.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        match input.deserialize_any(StrictVisitor)? {
            Value::String(text) => Ok(Self(text)),
            value @ (Value::Bool(_) | Value::Number(_)) => Ok(Self(value.to_string())),
            _ => Err(de::Error::custom("a key must be text")),
        }
    }
}

/// Reads until it stands at the end of its path, then fails there: the error has the place.
struct Seek<'p>(&'p [Step]);

const HERE: &str = "here";

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        match self.0 {
            // Whatever it is, it is refused before it is entered.
            [] => input.deserialize_bool(self),
            _ => input.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the place looked for")
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        Err(E::custom(HERE))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        Err(E::custom(HERE))
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        Err(E::custom(HERE))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        Err(E::custom(HERE))
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        Err(E::custom(HERE))
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Err(E::custom(HERE))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        if let Some((Step::Item(wanted), rest)) = self.0.split_first() {
            for _ in 0..*wanted {
                if items.next_element::<IgnoredAny>()?.is_none() {
                    return Err(de::Error::custom(HERE));
                }
            }
            items.next_element_seed(Seek(rest))?;
        }
        Err(de::Error::custom(HERE))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Some((Step::Key(wanted), rest)) = self.0.split_first() else {
            return Err(de::Error::custom(HERE));
        };
        loop {
            match entries.next_key_seed(SeekKey { wanted, last: rest.is_empty() })? {
                None => return Err(de::Error::custom(HERE)),
                Some(true) => entries.next_value_seed(Seek(rest))?,
                Some(false) => {
                    entries.next_value::<IgnoredAny>()?;
                }
            }
        }
    }
}

/// True for the wanted key; fails there when the path ends with it.
struct SeekKey<'p> {
    wanted: &'p str,
    last: bool,
}

impl<'de> DeserializeSeed<'de> for SeekKey<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<bool, D::Error> {
        input.deserialize_any(self)
    }
}

impl SeekKey<'_> {
    fn found<E: de::Error>(&self, key: &str) -> Result<bool, E> {
        match key == self.wanted {
            true if self.last => Err(E::custom(HERE)),
            same => Ok(same),
        }
    }
}

impl Visitor<'_> for SeekKey<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<bool, E> {
        self.found(key)
    }

    fn visit_bool<E: de::Error>(self, key: bool) -> Result<bool, E> {
        self.found(&key.to_string())
    }

    fn visit_u64<E: de::Error>(self, key: u64) -> Result<bool, E> {
        self.found(&key.to_string())
    }

    fn visit_i64<E: de::Error>(self, key: i64) -> Result<bool, E> {
        self.found(&key.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{Documents, path_steps, path_text};

    const YAML: &str = "\
# a comment
domain: nova
hosts:
  - name: a
    inventories:
      VCPU:
        total: 4
  - name: b
    traits: [X,
      Y]
---
---
hosts:
- name: c
";

    const JSON: &str = "{
  \"hosts\": [
    {\"name\": \"a\",
     \"inventories\": {
       \"VCPU\": {\"total\": 4}}},
    {
      \"name\": \"b\"
    }
  ]
}
{
  \"hosts\": []
}";

    #[test]
    fn finds_lines() {
        for (text, tree, path, want) in [
            (YAML, 0, "domain", 2),
            (YAML, 0, "hosts[0]", 4),
            (YAML, 0, "hosts[0].inventories.VCPU.total", 7),
            (YAML, 0, "hosts[0].inventories.VCPU.reserved", 7),
            (YAML, 0, "hosts[1].name", 8),
            (YAML, 0, "hosts[1].traits[1]", 10),
            (YAML, 0, "hosts[1].traits[9]", 9),
            (YAML, 1, "hosts[0].name", 14),
            (JSON, 0, "hosts[0].inventories.VCPU", 5),
            (JSON, 0, "hosts[1].name", 7),
            (JSON, 0, "hosts[1]", 6),
            (JSON, 1, "hosts", 12),
        ] {
            let documents = Documents::parse(text).unwrap();
            assert_eq!(documents.line(tree, &path_steps(path)), Some(want), "{path}");
            assert_eq!(path_text(&path_steps(path)), path);
        }
    }

    #[test]
    fn refuses_double_keys_and_bad_syntax() {
        for (text, line, part) in [
            ("a: 1\nb: 2\na: 3\n", 1, "'a' is given twice"),
            ("{\"a\": 1,\n\"a\": 2}", 2, "'a' is given twice"),
            ("{\"a\": 1,\n\"b\" 2}", 2, "expected `:`"),
            ("a:\n  - b\n c: [", 3, "did not find"),
        ] {
            let error = Documents::parse(text).unwrap_err();
            assert!(error.message.contains(part), "{text}: {error:?}");
            assert_eq!(error.line, Some(line), "{text}: {error:?}");
        }
    }

    #[test]
    fn takes_flow_yaml_and_no_document() {
        assert_eq!(Documents::parse("{hosts: [{name: a}]}").unwrap().trees.len(), 1);
        assert_eq!(Documents::parse("# nothing\n").unwrap().trees.len(), 0);
        assert_eq!(Documents::parse("").unwrap().trees.len(), 0);
    }
}
