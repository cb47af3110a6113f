//! A hash index from a key's hash to a small number, in shards behind `Arc`: cheap to clone, grows
//! a shard at a time, and a write after a clone copies one shard. The keys live in the table that
//! the numbers point to, and so do their hashes: who inserts can tell the hash of each number.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

const SHARDS: usize = 1024;

/// A copy-on-write index. It never holds keys: the caller compares.
#[derive(Clone, Debug)]
pub struct Sharded {
    shards: Vec<Arc<HashTable<u32>>>,
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

/// The hash within a shard, of the half that does not choose it.
fn spread(hash: u64) -> u64 {
    u64::from(hash as u32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Sharded {
    /// The number stored under `hash` whose key satisfies `is_key`.
    pub fn find(&self, hash: u64, mut is_key: impl FnMut(u32) -> bool) -> Option<u32> {
        self.shards[shard_of(hash)].find(spread(hash), |&value| is_key(value)).copied()
    }

    /// Stores `value`; the caller makes sure that its key is not there yet. `hash_of` gives the hash of each number that
    /// was stored.
    pub fn insert(&mut self, hash: u64, value: u32, hash_of: impl Fn(u32) -> u64) {
        let shard = Arc::make_mut(&mut self.shards[shard_of(hash)]);
        shard.insert_unique(spread(hash), value, |&stored| spread(hash_of(stored)));
    }

    /// Room for `values` numbers in all, so that the shards need not grow one by one.
    pub fn with_room(values: usize) -> Self {
        Self { shards: (0..SHARDS).map(|_| Arc::new(HashTable::with_capacity(values / SHARDS))).collect() }
    }

    /// Removes `value` under `hash`, if it is there.
    pub fn remove(&mut self, hash: u64, value: u32) {
        let shard = Arc::make_mut(&mut self.shards[shard_of(hash)]);
        if let Ok(entry) = shard.find_entry(spread(hash), |&found| found == value) {
            entry.remove();
        }
    }
}
