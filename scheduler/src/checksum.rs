//! The checksum that replicas compare.

use std::hash::Hasher;

use bitcode::Encode;
use rustc_hash::FxHasher;

use crate::state::Tables;

struct Sum(FxHasher);

impl Sum {
    fn add<T: Encode + ?Sized>(&mut self, tag: u64, value: &T) {
        self.0.write_u64(tag);
        self.0.write(&bitcode::encode(value));
    }
}

impl Tables {
    pub(crate) fn checksum(&self) -> u64 {
        let mut sum = Sum(FxHasher::default());
        sum.add(1, &self.counters);
        for text in self.names.texts() {
            sum.0.write(text.as_bytes());
            sum.0.write_u8(0xff);
        }
        for (row, provider) in self.providers() {
            sum.add(u64::from(row.0), provider);
        }
        for (at, consumer) in self.consumers.iter().enumerate() {
            if let Some(consumer) = consumer.as_deref() {
                sum.add(at as u64, consumer);
            }
        }
        sum.add(2, &*self.free_slots);
        for (key, aggregate) in self.aggregates.iter() {
            sum.add(u64::from(key.0), aggregate);
        }
        for stored in self.history.iter() {
            sum.add(stored.id, &**stored);
        }
        for entry in self.keys.entries.iter() {
            sum.add(3, entry);
        }
        sum.add(4, &(self.keys.arrived, self.keys.horizon));
        sum.0.finish()
    }
}
