//! Keeps hosts for which the query in the hint `query` holds: JSON, a list of an operator and its
//! arguments, as in `["and", [">=", "$free_ram_mb", 1024], ["=", "$stats.rack", "r1"]]`.
//!
//! `=` `<` `>` `<=` `>=` compare the first argument with each other one, `in` says whether it is among
//! them; with one argument they are false. `and`, `or`, and `not`, which negates each of its arguments. An
//! argument is a value, another list, or `$a.b`: attribute a of the host state, key b of the map in it;
//! what has no value is left out. An empty list is true.
//!
//! Source: openstack/nova, `JsonFilter`. What fails the whole request in Nova (texts compared in order with
//! numbers, a key of what is no map, an unknown operator) fails the host.

use scheduler::host_state::node::{Node, Value};
use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict, View};
use scheduler::{Domain, Request, Row};
use serde_json::Value as Json;
use std::cmp::Ordering;

use super::attributes::{Attribute, Leaf};

/// The step.
#[derive(Debug)]
pub struct JsonFilter;

/// Most arguments of an operator.
const MOST: usize = 128;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    Less,
    Greater,
    In,
    AtMost,
    AtLeast,
    Not,
    Or,
    And,
}

/// A part of a query, read once for a request.
enum Term<'a> {
    Value(Argument<'a>),
    Owned(Node),
    Attribute(Option<Attribute<'a>>, Vec<&'a str>),
    Call(Operator, Vec<Self>),
}

/// A value of an argument.
#[derive(Clone, Copy)]
enum Argument<'a> {
    Bool(bool),
    Number(f64),
    Text(&'a str),
    Leaf(Leaf<'a>),
    /// What `not` gives: a bit for each of its arguments.
    Flags(u128, usize),
}

/// What fails the whole request in Nova.
struct Raised;

fn term<'a>(view: &View<'a>, query: &'a Json) -> Option<Term<'a>> {
    Some(match query {
        Json::Array(list) => {
            let Some((operator, arguments)) = list.split_first() else {
                return Some(Term::Value(Argument::Bool(true)));
            };
            let operator = match operator.as_str()? {
                "=" => Operator::Equal,
                "<" => Operator::Less,
                ">" => Operator::Greater,
                "in" => Operator::In,
                "<=" => Operator::AtMost,
                ">=" => Operator::AtLeast,
                "not" => Operator::Not,
                "or" => Operator::Or,
                "and" => Operator::And,
                _ => return None,
            };
            if arguments.len() > MOST {
                return None;
            }
            // null has no value, and neither has an empty text.
            let there = arguments.iter().filter(|argument| !argument.is_null() && argument.as_str() != Some(""));
            Term::Call(operator, there.map(|argument| term(view, argument)).collect::<Option<_>>()?)
        }
        Json::String(text) => match text.strip_prefix('$') {
            None => Term::Value(Argument::Text(text)),
            Some(path) => {
                let mut path = path.split('.');
                let attribute = path.next().and_then(|name| Attribute::of(view, name));
                Term::Attribute(attribute, path.collect())
            }
        },
        Json::Bool(flag) => Term::Value(Argument::Bool(*flag)),
        Json::Number(number) => Term::Value(Argument::Number(number.as_f64()?)),
        Json::Object(_) | Json::Null => Term::Owned(Node::of(query.clone())),
    })
}

impl<'a> Argument<'a> {
    fn of(leaf: Leaf<'a>) -> Self {
        match leaf {
            Leaf::Whole(number) => Self::Number(number as f64),
            Leaf::Text(text) => Self::Text(text),
            Leaf::Node(node) => match &node.value {
                Value::Bool(flag) => Self::Bool(*flag),
                Value::Number(number) => Self::Number(*number),
                Value::Text(_) => Self::Text(&node.text),
                _ => Self::Leaf(leaf),
            },
            Leaf::Uuid(_) => Self::Leaf(leaf),
        }
    }

    fn is_true(self) -> bool {
        match self {
            Self::Bool(flag) => flag,
            Self::Number(number) => number != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::Flags(_, count) => count > 0,
            Self::Leaf(Leaf::Node(node)) => match &node.value {
                Value::List(items) => !items.is_empty(),
                Value::Map(items) => !items.is_empty(),
                _ => false,
            },
            Self::Leaf(_) => true,
        }
    }

    /// Its number; True and False are 1 and 0.
    fn number(self) -> Option<f64> {
        match self {
            Self::Bool(flag) => Some(f64::from(flag)),
            Self::Number(number) => Some(number),
            _ => None,
        }
    }

    fn equals(self, other: Self) -> bool {
        if let (Some(a), Some(b)) = (self.number(), other.number()) {
            return a.partial_cmp(&b) == Some(Ordering::Equal);
        }
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Text(text), Self::Leaf(leaf @ Leaf::Uuid(_)))
            | (Self::Leaf(leaf @ Leaf::Uuid(_)), Self::Text(text)) => leaf.with_text(|uuid| uuid == text),
            (Self::Leaf(Leaf::Uuid(a)), Self::Leaf(Leaf::Uuid(b))) => a == b,
            _ => match (self.len(), other.len()) {
                (Some(m), Some(n)) => m == n && (0..m).all(|at| self.item(at).equals(other.item(at))),
                (None, None) => match (self, other) {
                    (Self::Leaf(Leaf::Node(a)), Self::Leaf(Leaf::Node(b))) => a == b,
                    _ => false,
                },
                _ => false,
            },
        }
    }

    fn order(self, other: Self) -> Result<Option<Ordering>, Raised> {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => Ok(Some(a.cmp(b))),
            (Self::Leaf(leaf @ Leaf::Uuid(_)), Self::Text(text)) => Ok(Some(leaf.with_text(|uuid| uuid.cmp(text)))),
            (Self::Text(text), Self::Leaf(leaf @ Leaf::Uuid(_))) => Ok(Some(leaf.with_text(|uuid| text.cmp(uuid)))),
            _ => match (self.len(), other.len()) {
                (Some(m), Some(n)) => {
                    let differ = (0..m.min(n)).find(|&at| !self.item(at).equals(other.item(at)));
                    differ.map_or(Ok(Some(m.cmp(&n))), |at| self.item(at).order(other.item(at)))
                }
                _ => self.number().zip(other.number()).map(|(a, b)| a.partial_cmp(&b)).ok_or(Raised),
            },
        }
    }

    /// Length of a list.
    fn len(self) -> Option<usize> {
        match self {
            Self::Flags(_, count) => Some(count),
            Self::Leaf(Leaf::Node(Node { value: Value::List(items), .. })) => Some(items.len()),
            _ => None,
        }
    }

    /// An item of a list.
    fn item(self, at: usize) -> Self {
        match self {
            Self::Flags(flags, _) => Self::Bool(flags >> at & 1 == 1),
            Self::Leaf(Leaf::Node(Node { value: Value::List(items), .. })) => Self::of(Leaf::Node(&items[at])),
            other => other,
        }
    }
}

impl Operator {
    fn apply<'a>(self, arguments: &[Argument<'a>]) -> Result<Argument<'a>, Raised> {
        let compare = |good: fn(Ordering) -> bool| {
            let Some((first, others)) = arguments.split_first().filter(|(_, others)| !others.is_empty()) else {
                return Ok(Argument::Bool(false));
            };
            let mut all = true;
            for other in others {
                all &= first.order(*other)?.is_some_and(good);
            }
            Ok(Argument::Bool(all))
        };
        let equal = |good: fn(usize, usize) -> bool| {
            let Some((first, others)) = arguments.split_first().filter(|(_, others)| !others.is_empty()) else {
                return Argument::Bool(false);
            };
            let count = others.iter().filter(|other| first.equals(**other)).count();
            Argument::Bool(good(count, others.len()))
        };
        match self {
            Self::Equal => Ok(equal(|equal, all| equal == all)),
            Self::In => Ok(equal(|equal, _| equal > 0)),
            Self::Less => compare(Ordering::is_lt),
            Self::Greater => compare(Ordering::is_gt),
            Self::AtMost => compare(Ordering::is_le),
            Self::AtLeast => compare(Ordering::is_ge),
            Self::Or => Ok(Argument::Bool(arguments.iter().any(|argument| argument.is_true()))),
            Self::And => Ok(Argument::Bool(arguments.iter().all(|argument| argument.is_true()))),
            Self::Not => {
                let flag = |(at, argument): (usize, &Argument<'_>)| u128::from(!argument.is_true()) << at;
                Ok(Argument::Flags(arguments.iter().enumerate().map(flag).sum(), arguments.len()))
            }
        }
    }
}

impl<'a> Term<'a> {
    /// Its value for a host; `stack` holds arguments, and is left as it was.
    fn value<'s>(
        &'s self,
        view: &View<'a>,
        row: Row,
        stack: &mut Vec<Argument<'s>>,
    ) -> Result<Option<Argument<'s>>, Raised>
    where
        'a: 's,
    {
        match self {
            Self::Value(value) => Ok(Some(*value)),
            Self::Owned(node) => Ok(Some(Argument::of(Leaf::Node(node)))),
            Self::Attribute(attribute, path) => {
                let mut found = attribute.and_then(|attribute| attribute.get(view, row));
                for key in path {
                    found = match found {
                        None => return Ok(None),
                        Some(Leaf::Node(Node { value: Value::Map(_), .. })) => found.and_then(|leaf| leaf.get(key)),
                        Some(_) => return Err(Raised),
                    };
                }
                Ok(found.map(Argument::of))
            }
            Self::Call(operator, arguments) => {
                let base = stack.len();
                for argument in arguments {
                    let value = argument.value(view, row, stack)?;
                    stack.extend(value);
                }
                let result = operator.apply(&stack[base..]);
                stack.truncate(base);
                result.map(Some)
            }
        }
    }
}

impl Filter for JsonFilter {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        let Some(query) = cx.request.hint("query").filter(|query| !query.is_empty()) else {
            return Verdict::Skipped("no hint query");
        };
        let view = cx.view;
        let query: Option<Json> = serde_json::from_str(query).ok();
        let false_query = |query: &Json| match query {
            Json::Null | Json::Bool(false) => true,
            Json::Object(map) => map.is_empty(),
            Json::String(text) => text.is_empty(),
            Json::Number(number) => number.as_f64() == Some(0.0),
            _ => false,
        };
        if query.as_ref().is_some_and(false_query) {
            return Verdict::Skipped("an empty query");
        }
        let term = query.as_ref().filter(|query| query.is_array()).and_then(|query| term(&view, query));
        let Some(term) = term else {
            hosts.drop_all("the hint query cannot be evaluated");
            return Verdict::Ran;
        };
        let stack = std::cell::RefCell::new(Vec::with_capacity(16));
        let holds = |row: Row| {
            let mut stack = stack.borrow_mut();
            stack.clear();
            match term.value(&view, row, &mut stack) {
                Ok(Some(Argument::Flags(flags, _))) => flags != 0,
                Ok(value) => value.is_some_and(Argument::is_true),
                Err(Raised) => false,
            }
        };
        hosts.keep_where("the hint query does not hold", holds, |_| Detail::None);
        Verdict::Ran
    }

    fn reads(&self, request: &Request) -> Reads {
        if request.hint("query").is_some() { Reads::Everything } else { Reads::Facts }
    }
}

impl FilterPlugin for JsonFilter {
    const NAME: &'static str = "JsonFilter";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps hosts for which the query in the hint `query` holds.";
    const MISSING_DATA: &'static str = "What a host does not say is left out of the query.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::JsonFilter;
    use crate::fleet::{Fleet, case, host};
    use serde_json::json;

    #[test]
    fn queries() {
        let mut fleet = Fleet::of([
            host("a").state(
                json!({"free_ram_mb": 512, "stats": {"rack": "r1", "n": 1, "on": true}, "cpu_info": "{\"x\": 1}"}),
            ),
            host("b").state(json!({"free_ram_mb": 2048, "stats": {"rack": "r2", "l": [1]}})),
            host("c"),
        ]);
        for (query, kept) in [
            (r#"[">=", "$free_ram_mb", 512]"#, &["a", "b"][..]),
            (r#"["=", "$stats.rack", "r1"]"#, &["a"]),
            (r#"["in", "$host", "a", "c"]"#, &["a", "c"]),
            (r#"["and", ["<", "$free_ram_mb", 4096, 1024], ["not", ["=", "$host", "c"]]]"#, &["a", "c"]),
            (r#"["not", ["=", "$host", "c"]]"#, &["a", "b"]),
            (r#"["not", ["=", "$host", "c"], ["=", "$host", "a"]]"#, &["a", "b", "c"]),
            (r#"["or", "$stats.rack"]"#, &["a", "b"]),
            (r#"["=", "$stats.n", "$stats.on"]"#, &["a"]),
            (r#"["=", "$free_ram_mb"]"#, &[]),
            (r#"["<", "$host", 3]"#, &[]),
            (r#"["=", "$host", 3]"#, &[]),
            // A key of a text: raises in Nova.
            (r#"["or", "$host.x", true]"#, &[]),
            (r#"["or", "$cpu_info.x", true]"#, &["b", "c"]),
            (r#"["or", "$unheard", "$"]"#, &[]),
            (r#"["xor", true]"#, &[]),
            (r#"{"a": 1}"#, &[]),
            ("[", &[]),
            ("[]", &["a", "b", "c"]),
            (r#"["and", []]"#, &["a", "b", "c"]),
            (r#"["=", {"a": 1}, {"a": 1}]"#, &["a", "b", "c"]),
            (r#"["<", "$stats.l", ["not", false, true]]"#, &["b"]),
            (r#"["=", "$stats.l", ["not", false]]"#, &["b"]),
        ] {
            case(query)
                .request(|request| {
                    request.hints.insert("query".to_owned(), vec![query.to_owned()]);
                })
                .kept(kept)
                .check::<JsonFilter>(&mut fleet);
        }
    }
}
