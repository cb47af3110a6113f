//! A JSON value as stock Nova's Python code sees it: beside the value itself its text, `str(value)`,
//! made once when the value is read.

use std::fmt::Write as _;

use serde_json::Value as Json;

/// A value and its text.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What Python's `str()` makes of it: `True`, `1.0`, `['a', 'b']`.
    pub text: Box<str>,
    /// The value.
    pub value: Value,
}

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// null.
    Null,
    /// true or false.
    Bool(bool),
    /// A number.
    Number(f64),
    /// A text, and what it holds when it is itself JSON of a map.
    Text(Option<Box<Node>>),
    /// A list.
    List(Vec<Node>),
    /// A map, by key.
    Map(Vec<(Box<str>, Node)>),
}

impl Node {
    /// Reads a value; the caller bounds its depth.
    pub fn of(json: Json) -> Self {
        let mut text = String::new();
        let value = match json {
            Json::Null => Value::Null,
            Json::Bool(flag) => Value::Bool(flag),
            Json::Number(number) => {
                let value = number.as_f64().unwrap_or(0.0);
                text = if number.is_f64() { float_text(value) } else { number.to_string() };
                Value::Number(value)
            }
            Json::String(held) => {
                text.push_str(&held);
                let map = held.starts_with('{').then(|| serde_json::from_str(&held).ok()).flatten();
                Value::Text(map.filter(Json::is_object).map(|map| Box::new(Self::of(map))))
            }
            Json::Array(items) => Value::List(items.into_iter().map(Self::of).collect()),
            Json::Object(map) => {
                let mut map: Vec<(Box<str>, Self)> =
                    map.into_iter().map(|(key, value)| (key.into_boxed_str(), Self::of(value))).collect();
                map.sort_by(|a, b| a.0.cmp(&b.0));
                Value::Map(map)
            }
        };
        let mut node = Self { text: "".into(), value };
        if text.is_empty() {
            node.render(&mut text);
        }
        node.text = text.into_boxed_str();
        node
    }

    /// The number, when it is one.
    pub fn number(&self) -> Option<f64> {
        match self.value {
            Value::Number(number) => Some(number),
            _ => None,
        }
    }

    /// The value under a key of a map, or of a text that holds a map.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(map) => {
                let at = map.binary_search_by(|(known, _)| (**known).cmp(key)).ok()?;
                Some(&map[at].1).filter(|node| node.value != Value::Null)
            }
            Value::Text(Some(inner)) => inner.get(key),
            _ => None,
        }
    }

    fn render(&self, out: &mut String) {
        match &self.value {
            Value::Null => out.push_str("None"),
            Value::Bool(flag) => out.push_str(if *flag { "True" } else { "False" }),
            Value::Number(_) | Value::Text(_) => {}
            Value::List(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { ", " });
                    item.repr(out);
                }
                out.push(']');
            }
            Value::Map(map) => {
                out.push('{');
                for (at, (key, item)) in map.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { ", " });
                    quoted(key, out);
                    out.push_str(": ");
                    item.repr(out);
                }
                out.push('}');
            }
        }
    }

    fn repr(&self, out: &mut String) {
        match self.value {
            Value::Text(_) => quoted(&self.text, out),
            _ => out.push_str(&self.text),
        }
    }
}

/// `repr` of a float: the shortest digits that give it back, with an exponent below 1e-4 and from 1e16.
pub fn float_text(number: f64) -> String {
    let size = number.abs();
    if number == 0.0 || (1e-4..1e16).contains(&size) {
        return format!("{number:?}");
    }
    let text = format!("{number:e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// `repr` of a text.
fn quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if c < ' ' || c == '\u{7f}' => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

#[cfg(test)]
mod tests {
    use super::Node;
    use serde_json::json;

    #[test]
    fn texts_are_those_of_python() {
        for (value, wanted) in [
            (json!(null), "None"),
            (json!(true), "True"),
            (json!(7), "7"),
            (json!(-7), "-7"),
            (json!(1.0), "1.0"),
            (json!(0.1), "0.1"),
            (json!(1e16), "1e+16"),
            (json!(123_456_789_012_345_680.0), "1.2345678901234568e+17"),
            (json!(1e-5), "1e-05"),
            (json!("it"), "it"),
            (json!(["a", 1, null, "it's", "a\"'", "\\"]), r#"['a', 1, None, "it's", 'a"\'', '\\']"#),
            (json!({"b": {"x": [false]}, "a": 1.5}), "{'a': 1.5, 'b': {'x': [False]}}"),
            (json!([]), "[]"),
            (json!(["\n\u{1}é"]), "['\\n\\x01é']"),
        ] {
            assert_eq!(&*Node::of(value).text, wanted);
        }
    }

    #[test]
    fn texts_that_hold_maps_are_maps() {
        let node = Node::of(json!({"a": "{\"b\": {\"c\": 3, \"n\": null}}", "l": "[1]"}));
        let inner = node.get("a").and_then(|a| a.get("b"));
        assert_eq!(inner.and_then(|b| b.get("c")).and_then(Node::number), Some(3.0));
        assert_eq!(inner.and_then(|b| b.get("n")), None);
        assert_eq!(node.get("l").and_then(|l| l.get("0")), None);
    }
}
