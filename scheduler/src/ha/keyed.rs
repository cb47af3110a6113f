//! A replicated table by key: a copy-on-write vector, an index to it, and free places. Its order is the
//! log's, so it may be iterated.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use bitcode::Encode;

use crate::checksum::fold;
use crate::chunked::Chunked;
use crate::sharded::{Sharded, hash_of};

/// What a table holds: each has a key.
pub trait Entry: Clone + Debug + Encode {
    /// The key.
    type Key: Copy + Eq + Hash;
    /// Its key.
    fn key(&self) -> Self::Key;
}

impl<T: Entry> Entry for Arc<T>
where
    Arc<T>: Encode,
{
    type Key = T::Key;
    fn key(&self) -> T::Key {
        T::key(self)
    }
}

/// The table. A clone is cheap and consistent.
#[derive(Clone, Debug)]
pub struct Keyed<T> {
    entries: Chunked<Option<T>>,
    index: Sharded,
    free: Chunked<u32, 4096>,
}

impl<T> Default for Keyed<T> {
    fn default() -> Self {
        Self { entries: Chunked::default(), index: Sharded::default(), free: Chunked::default() }
    }
}

impl<T: Entry> Keyed<T> {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// True without entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry of a key.
    pub fn get(&self, key: T::Key) -> Option<&T> {
        self.entries.get(self.place(key)? as usize)?.as_ref()
    }

    /// All entries, in an order that is the same on every replica.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().filter_map(Option::as_ref)
    }

    fn place(&self, key: T::Key) -> Option<u32> {
        let is = |at: u32| self.entries.get(at as usize).and_then(Option::as_ref).is_some_and(|e| e.key() == key);
        self.index.find(hash_of(&key), is)
    }

    pub(crate) fn get_mut(&mut self, key: T::Key) -> Option<&mut T> {
        let at = self.place(key)?;
        self.entries.get_mut(at as usize)?.as_mut()
    }

    /// Puts an entry in the place of the one with its key, or in a new one.
    pub(crate) fn put(&mut self, entry: T) {
        let key = entry.key();
        if let Some(known) = self.get_mut(key) {
            *known = entry;
            return;
        }
        let at = match self.free.pop() {
            Some(at) => {
                if let Some(place) = self.entries.get_mut(at as usize) {
                    *place = Some(entry);
                }
                at
            }
            None => self.entries.push(Some(entry)) as u32,
        };
        self.list(key, at);
    }

    fn list(&mut self, key: T::Key, at: u32) {
        let hash = |at| self.entries.get(at as usize).and_then(Option::as_ref).map_or(0, |e| hash_of(&e.key()));
        self.index.insert(hash_of(&key), at, hash);
    }

    pub(crate) fn remove(&mut self, key: T::Key) -> Option<T> {
        let at = self.place(key)?;
        let entry = self.entries.get_mut(at as usize)?.take()?;
        self.index.remove(hash_of(&key), at);
        self.free.push(at);
        Some(entry)
    }

    pub(crate) fn sum(&self) -> u64 {
        fold([self.entries.sum(), self.free.sum()].into_iter())
    }

    pub(crate) fn sum_anew(&self) -> u64 {
        fold([self.entries.sum_anew(), self.free.sum_anew()].into_iter())
    }

    /// Places in their order, for a snapshot.
    pub(crate) fn places(&self) -> impl Iterator<Item = Option<T>> + '_ {
        self.entries.iter().cloned()
    }

    /// Free places in their order, for a snapshot.
    pub(crate) fn free(&self) -> Vec<u32> {
        self.free.iter().copied().collect()
    }

    /// Takes up places that come from a snapshot, in their order.
    pub(crate) fn append(&mut self, places: Vec<Option<T>>) {
        for place in places {
            if let Some(entry) = &place {
                self.list(entry.key(), self.entries.len() as u32);
            }
            self.entries.push(place);
        }
    }

    pub(crate) fn set_free(&mut self, free: Vec<u32>) {
        self.free.extend(free);
    }

    /// True when each entry is found by its key alone, and the free places are those without one.
    pub(crate) fn is_whole(&self) -> bool {
        let found = self
            .entries
            .iter()
            .enumerate()
            .all(|(at, e)| e.as_ref().is_none_or(|e| self.place(e.key()) == Some(at as u32)));
        let mut free: Vec<_> = self.free.iter().copied().collect();
        free.sort_unstable();
        let empty = self.entries.iter().enumerate().filter(|(_, e)| e.is_none()).map(|(at, _)| at as u32);
        found && free.into_iter().eq(empty)
    }
}
