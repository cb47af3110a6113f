//! A frozen state and its bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcode::{Decode, Encode};

use crate::consumer::{Consumer, Slot};
use crate::names::{Names, Sym};
use crate::provider::{Aggregate, Provider, Row};
use crate::sharded::hash_of;
use crate::state::{Counters, KeyEntry, Keys, Stored, Tables};

/// Format of an encoded snapshot.
pub const VERSION: u8 = 1;

/// A consistent copy of the tables, cheap to take; encode it on any thread.
#[derive(Clone, Debug)]
pub struct Frozen(pub(crate) Tables);

/// Why bytes are no snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Unknown format version.
    #[error("snapshot of format version {found}, this program reads version {VERSION}: run a newer pallium")]
    Version {
        /// Version found.
        found: u8,
    },
    /// Not a snapshot.
    #[error("not a snapshot: {0}")]
    Malformed(String),
    /// The state inside has another checksum than its trailer says.
    #[error("snapshot checksum {found:016x}, its trailer says {expected:016x}: the file is damaged")]
    Checksum {
        /// Sum of what was read.
        found: u64,
        /// Sum that was written.
        expected: u64,
    },
}

#[derive(Encode, Decode)]
struct Image {
    counters: Counters,
    names: Vec<String>,
    rows: u32,
    providers: Vec<(Row, Provider)>,
    slots: u32,
    consumers: Vec<(Slot, Consumer)>,
    free_slots: Vec<Slot>,
    aggregates: BTreeMap<u32, Aggregate>,
    history: Vec<Stored>,
    keys: Vec<KeyEntry>,
    keys_arrived: u64,
    keys_horizon: u64,
    checksum: u64,
}

impl Frozen {
    /// The frozen tables.
    pub fn tables(&self) -> &Tables {
        &self.0
    }

    /// Checksum of the tables.
    pub fn checksum(&self) -> u64 {
        self.0.checksum()
    }

    /// The tables as bytes: a version, then bitcode.
    pub fn encode(&self) -> Vec<u8> {
        let tables = &self.0;
        let image = Image {
            counters: tables.counters,
            names: tables.names.texts().map(str::to_owned).collect(),
            rows: tables.rows() as u32,
            providers: tables.providers().map(|(row, provider)| (row, provider.clone())).collect(),
            slots: tables.consumers.len() as u32,
            consumers: (tables.consumers.iter().enumerate())
                .filter_map(|(at, consumer)| Some((Slot(at as u32), consumer.as_deref()?.clone())))
                .collect(),
            free_slots: tables.free_slots.to_vec(),
            aggregates: tables.aggregates.iter().map(|(key, aggregate)| (key.0, aggregate.clone())).collect(),
            history: tables.history.iter().map(|stored| (**stored).clone()).collect(),
            keys: tables.keys.entries.iter().cloned().collect(),
            keys_arrived: tables.keys.arrived,
            keys_horizon: tables.keys.horizon,
            checksum: tables.checksum(),
        };
        let mut out = vec![VERSION];
        out.extend_from_slice(&bitcode::encode(&image));
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Tables, SnapshotError> {
        let body = match bytes.split_first() {
            None => return Err(SnapshotError::Malformed("empty".to_owned())),
            Some((&VERSION, body)) => body,
            Some((&found, _)) => return Err(SnapshotError::Version { found }),
        };
        let image: Image = bitcode::decode(body).map_err(|e| SnapshotError::Malformed(e.to_string()))?;
        let mut names = Names::default();
        for text in &image.names {
            names.intern(text);
        }
        let mut tables = Tables { names, ..Tables::default() };
        let mut providers = image.providers.into_iter().peekable();
        for row in 0..image.rows {
            let provider = providers.next_if(|(at, _)| at.0 == row).map(|(_, provider)| provider);
            if let Some(provider) = &provider {
                tables.list_provider(Row(row), provider);
            }
            tables.providers.push(provider.map(Arc::new));
        }
        let mut consumers = image.consumers.into_iter().peekable();
        for slot in 0..image.slots {
            let consumer = consumers.next_if(|(at, _)| at.0 == slot).map(|(_, consumer)| consumer);
            if let Some(consumer) = &consumer {
                let key = (consumer.domain, consumer.uuid, consumer.purpose);
                tables.consumer_index.insert(hash_of(&key), slot);
            }
            tables.consumers.push(consumer.map(Arc::new));
        }
        tables.free_slots = Arc::new(image.free_slots);
        tables.aggregates = Arc::new(image.aggregates.into_iter().map(|(key, a)| (Sym(key), a)).collect());
        tables.history = image.history.into_iter().map(Arc::new).collect();
        let mut keys = Keys { arrived: image.keys_arrived, horizon: image.keys_horizon, ..Keys::default() };
        for (at, entry) in image.keys.iter().enumerate() {
            keys.index.insert(hash_of(&entry.key), at as u32);
        }
        keys.entries = image.keys.into_iter().collect();
        tables.keys = keys;
        tables.counters = image.counters;
        let found = tables.checksum();
        if found != image.checksum {
            return Err(SnapshotError::Checksum { found, expected: image.checksum });
        }
        Ok(tables)
    }
}
