//! Interned strings: one replicated table for hosts, traits, classes, projects and the rest, so
//! that state, index and commands hold numbers. Numbers are given in log order, so every replica
//! gives the same ones.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use bitcode::{Decode, Encode};

use crate::chunked::Chunked;
use crate::sharded::{Sharded, hash_of};

/// An interned string, by its number plus 1: an `Option` of it takes no more room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Sym(NonZeroU32);

impl Sym {
    /// The string of this number, the highest of which is none.
    pub const fn of(number: u32) -> Self {
        Self(NonZeroU32::MIN.saturating_add(number))
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        self.0.get() - 1
    }
}

/// A string inside a command: the number when the leader knows it already, else the text.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Text {
    /// Interned before the command was made.
    Known(Sym),
    /// Interned by apply.
    New(String),
}

/// The table of interned strings. Strings are never removed.
#[derive(Clone, Default)]
pub struct Names {
    texts: Chunked<Arc<str>>,
    by_text: Sharded,
}

impl Names {
    /// The number of `text`, if it was ever interned.
    pub fn get(&self, text: &str) -> Option<Sym> {
        self.by_text.find(hash_of(text), |at| self.text(Sym::of(at)) == text).map(Sym::of)
    }

    /// The text of `sym`; the empty string for a number that was never given.
    pub fn text(&self, sym: Sym) -> &str {
        self.texts.get(sym.number() as usize).map_or("", |text| text)
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// True when nothing was interned yet.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// `text` as it goes into a command.
    pub fn refer(&self, text: &str) -> Text {
        self.get(text).map_or_else(|| Text::New(text.to_owned()), Text::Known)
    }

    pub(crate) fn intern(&mut self, text: &str) -> Sym {
        let hash = hash_of(text);
        if let Some(at) = self.by_text.find(hash, |at| self.text(Sym::of(at)) == text) {
            return Sym::of(at);
        }
        self.append(text.into());
        Sym::of(self.len() as u32 - 1)
    }

    /// The next string, which is not there yet.
    pub(crate) fn append(&mut self, text: Arc<str>) {
        let (hash, at) = (hash_of(&*text), self.texts.push(text) as u32);
        let texts = &self.texts;
        self.by_text.insert(hash, at, |at| texts.get(at as usize).map_or(0, |text| hash_of(&**text)));
    }

    pub(crate) fn resolve(&mut self, text: &Text) -> Sym {
        match text {
            // A number from another state (an absurd command) reads as the empty string, it never panics.
            Text::Known(sym) => *sym,
            Text::New(text) => self.intern(text),
        }
    }

    pub(crate) fn texts(&self) -> impl Iterator<Item = &Arc<str>> {
        self.texts.iter()
    }

    pub(crate) fn sum(&self) -> u64 {
        self.texts.sum()
    }

    pub(crate) fn sum_anew(&self) -> u64 {
        self.texts.sum_anew()
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Names({})", self.len())
    }
}
