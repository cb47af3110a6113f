//! A hash index from a key's hash to a small number, in shards behind `Arc`: cheap to clone, grows
//! a shard at a time, and a write after a clone copies one shard. The keys live in the table that
//! the numbers point to.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

const SHARDS: usize = 1024;

/// A copy-on-write index. It never holds keys: the caller compares.
#[derive(Clone, Debug)]
pub struct Sharded {
    shards: Vec<Arc<HashTable<(u64, u32)>>>,
}

impl Default for Sharded {
    fn default() -> Self {
        let empty = Arc::new(HashTable::new());
        Self { shards: vec![empty; SHARDS] }
    }
}

/// The hash that [`Sharded`] takes, of any key. Stable within a process; never stored.
pub fn hash_of<K: Hash + ?Sized>(key: &K) -> u64 {
    FxBuildHasher.hash_one(key)
}

fn shard_of(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}

impl Sharded {
    /// The number stored under `hash` whose key satisfies `is_key`.
    pub fn find(&self, hash: u64, mut is_key: impl FnMut(u32) -> bool) -> Option<u32> {
        self.shards[shard_of(hash)]
            .find(hash, |&(stored, value)| stored == hash && is_key(value))
            .map(|&(_, value)| value)
    }

    /// Stores `value`; the caller makes sure that its key is not there yet.
    pub fn insert(&mut self, hash: u64, value: u32) {
        Arc::make_mut(&mut self.shards[shard_of(hash)]).insert_unique(hash, (hash, value), |&(stored, _)| stored);
    }

    /// Removes `value` under `hash`, if it is there.
    pub fn remove(&mut self, hash: u64, value: u32) {
        let shard = Arc::make_mut(&mut self.shards[shard_of(hash)]);
        if let Ok(entry) = shard.find_entry(hash, |&(stored, found)| stored == hash && found == value) {
            entry.remove();
        }
    }
}
