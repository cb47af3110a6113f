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
    /// Half of the hash, and the number.
    shards: Vec<Arc<HashTable<(u32, u32)>>>,
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

/// The hash within a shard, of the half that is kept.
fn spread(half: u32) -> u64 {
    u64::from(half).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Sharded {
    /// The number stored under `hash` whose key satisfies `is_key`.
    pub fn find(&self, hash: u64, mut is_key: impl FnMut(u32) -> bool) -> Option<u32> {
        let half = hash as u32;
        self.shards[shard_of(hash)]
            .find(spread(half), |&(stored, value)| stored == half && is_key(value))
            .map(|&(_, value)| value)
    }

    /// Stores `value`; the caller makes sure that its key is not there yet.
    pub fn insert(&mut self, hash: u64, value: u32) {
        let half = hash as u32;
        let shard = Arc::make_mut(&mut self.shards[shard_of(hash)]);
        shard.insert_unique(spread(half), (half, value), |&(stored, _)| spread(stored));
    }

    /// Makes room for `more` numbers in all, so that the shards need not grow one by one.
    pub fn reserve(&mut self, more: usize) {
        for shard in &mut self.shards {
            Arc::make_mut(shard).reserve(more / SHARDS, |&(stored, _)| spread(stored));
        }
    }

    /// Removes `value` under `hash`, if it is there.
    pub fn remove(&mut self, hash: u64, value: u32) {
        let shard = Arc::make_mut(&mut self.shards[shard_of(hash)]);
        let half = hash as u32;
        if let Ok(entry) = shard.find_entry(spread(half), |&(stored, found)| stored == half && found == value) {
            entry.remove();
        }
    }
}
