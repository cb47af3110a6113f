//! Reading typed values out of a tree: every error is kept with its path, and reading goes on, so
//! that one run tells everything that is wrong.

use scheduler::ha::policy::document::brief;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::document::Step;
use crate::nearest;

/// A place in a tree, on the stack: no path is built until something is wrong there.
#[derive(Clone, Copy, Debug)]
pub enum Place<'p> {
    /// The whole document.
    Root,
    /// Under a key.
    Key(&'p Place<'p>, &'p str),
    /// An item of a list.
    Item(&'p Place<'p>, usize),
}

impl Place<'_> {
    /// The path from the root.
    pub fn steps(&self) -> Vec<Step> {
        match self {
            Self::Root => Vec::new(),
            Self::Key(parent, key) => with(parent.steps(), Step::Key((*key).to_owned())),
            Self::Item(parent, at) => with(parent.steps(), Step::Item(*at)),
        }
    }
}

fn with(mut steps: Vec<Step>, step: Step) -> Vec<Step> {
    steps.push(step);
    steps
}

/// Something wrong at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Number of the tree.
    pub tree: usize,
    /// Path in it.
    pub path: Vec<Step>,
    /// What was given, what was expected.
    pub message: String,
}

/// Reads one tree and keeps what is wrong with it.
#[derive(Debug, Default)]
pub struct Reader {
    /// Number of the tree that is read.
    pub tree: usize,
    /// Everything wrong so far.
    pub faults: Vec<Fault>,
}

/// A map at its place.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'v, 'p> {
    /// The map.
    pub map: &'v Map<String, Value>,
    /// Where it is.
    pub at: &'p Place<'p>,
}

impl<'v> Fields<'v, '_> {
    /// The value of a key; `null` counts as absent.
    pub fn get(&self, key: &str) -> Option<&'v Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }
}

impl Reader {
    /// Keeps an error at a place.
    pub fn fault(&mut self, at: &Place<'_>, message: impl Into<String>) {
        self.faults.push(Fault { tree: self.tree, path: at.steps(), message: message.into() });
    }

    fn expected(&mut self, at: &Place<'_>, what: &str, given: &Value) {
        self.fault(at, format!("{what} expected, {} given", brief(given)));
    }

    /// The value as a map.
    pub fn fields<'v, 'p>(&mut self, value: &'v Value, at: &'p Place<'p>) -> Option<Fields<'v, 'p>> {
        match value {
            Value::Object(map) => Some(Fields { map, at }),
            other => {
                self.expected(at, "a map", other);
                None
            }
        }
    }

    /// Keeps an error for each key that is not `known`, with the key that was probably meant.
    pub fn only(&mut self, fields: Fields<'_, '_>, known: &[&str]) {
        for key in fields.map.keys().filter(|key| !known.contains(&key.as_str())) {
            self.fault(&Place::Key(fields.at, key), format!("unknown key, {}", nearest::hint(key, known)));
        }
    }

    /// Text.
    pub fn text(&mut self, fields: Fields<'_, '_>, key: &str) -> Option<String> {
        let value = fields.get(key)?;
        match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(_) | Value::Bool(_) => {
                let message = format!("text expected, {value} given: put it in quotes");
                self.fault(&Place::Key(fields.at, key), message);
                None
            }
            other => {
                self.expected(&Place::Key(fields.at, key), "text", other);
                None
            }
        }
    }

    /// Text that must be there.
    pub fn required(&mut self, fields: Fields<'_, '_>, key: &str) -> Option<String> {
        if fields.get(key).is_none() {
            self.fault(&Place::Key(fields.at, key), "missing");
            return None;
        }
        self.text(fields, key)
    }

    /// A whole number of at least 0.
    pub fn whole(&mut self, fields: Fields<'_, '_>, key: &str) -> Option<u64> {
        let value = fields.get(key)?;
        let number = value.as_u64();
        if number.is_none() {
            self.expected(&Place::Key(fields.at, key), "a whole number of at least 0", value);
        }
        number
    }

    /// A number.
    pub fn number(&mut self, fields: Fields<'_, '_>, key: &str) -> Option<f64> {
        let value = fields.get(key)?;
        let number = value.as_f64();
        if number.is_none() {
            self.expected(&Place::Key(fields.at, key), "a number", value);
        }
        number
    }

    /// True or false.
    pub fn flag(&mut self, fields: Fields<'_, '_>, key: &str) -> Option<bool> {
        let value = fields.get(key)?;
        let flag = value.as_bool();
        if flag.is_none() {
            self.expected(&Place::Key(fields.at, key), "true or false", value);
        }
        flag
    }

    /// A uuid; an empty text counts as absent.
    pub fn uuid(&mut self, fields: Fields<'_, '_>, key: &str) -> Option<Uuid> {
        let text = self.text(fields, key).filter(|text| !text.is_empty())?;
        let uuid = Uuid::try_parse(&text).ok();
        if uuid.is_none() {
            self.fault(&Place::Key(fields.at, key), format!("a uuid expected, '{text}' given"));
        }
        uuid
    }

    /// A list.
    pub fn list<'v>(&mut self, fields: Fields<'v, '_>, key: &str) -> Option<&'v [Value]> {
        match fields.get(key)? {
            Value::Array(items) => Some(items),
            other => {
                self.expected(&Place::Key(fields.at, key), "a list", other);
                None
            }
        }
    }

    /// A list of texts.
    pub fn texts(&mut self, fields: Fields<'_, '_>, key: &str) -> Option<Vec<String>> {
        let items = self.list(fields, key)?;
        let mut out = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            match item {
                Value::String(text) => out.push(text.clone()),
                other => self.expected(&Place::Item(&Place::Key(fields.at, key), at), "text", other),
            }
        }
        Some(out)
    }

    /// The map under a key.
    pub fn map<'v>(&mut self, fields: Fields<'v, '_>, key: &str) -> Option<&'v Map<String, Value>> {
        match fields.get(key)? {
            Value::Object(map) => Some(map),
            other => {
                self.expected(&Place::Key(fields.at, key), "a map", other);
                None
            }
        }
    }
}
