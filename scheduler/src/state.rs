//! The replicated state: tables that are cheap to clone, and what is derived from them for apply.
//! It changes in `apply` only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcode::{Decode, Encode};
use rustc_hash::FxHashSet;
use uuid::Uuid;

use crate::catalogue::Catalogue;
use crate::chunked::Chunked;
use crate::command::Record;
use crate::consumer::{Consumer, Phase, Purpose, Slot};
use crate::domain::Domain;
use crate::ha::Failover;
use crate::intent::Intent;
use crate::level::Levels;
use crate::names::{Names, Sym};
use crate::provider::{Aggregate, Amounts, Provider, Row};
use crate::sharded::{Sharded, hash_of};

/// Decisions remembered.
pub const HISTORY: usize = 16_384;
/// Idempotency keys remembered.
pub const KEYS: usize = 65_536;

/// The replicated tables. `clone` is cheap and gives a consistent snapshot.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// Interned strings.
    pub names: Names,
    /// In small chunks: a provider is large, and a chunk is summed as a whole.
    pub(crate) providers: Chunked<Option<Arc<Provider>>, 16>,
    pub(crate) consumers: Chunked<Option<Consumer>>,
    pub(crate) free_slots: Chunked<Slot, 4096>,
    pub(crate) consumer_index: Sharded,
    pub(crate) provider_index: Sharded,
    pub(crate) host_index: Sharded,
    pub(crate) aggregates: Arc<BTreeMap<Sym, Aggregate>>,
    pub(crate) history: Chunked<Arc<Stored>>,
    pub(crate) keys: Keys,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) counters: Counters,
    pub(crate) failover: Failover,
    #[cfg(feature = "next-level")]
    pub(crate) notes: Vec<u64>,
}

/// Numbers that only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Counters {
    /// Replicated time, milliseconds.
    pub now: u64,
    /// Last wall time seen, milliseconds since 1970.
    pub wall: u64,
    /// Decisions ever remembered; the next gets this plus 1.
    pub decisions: u64,
    /// Commands ever applied.
    pub commands: u64,
    /// Claims ever made.
    pub claims: u64,
    /// Claims that were confirmed on their host.
    pub confirmed: u64,
    /// Claims that went because the instance was seen elsewhere.
    pub moved: u64,
    /// Claims that were released.
    pub released: u64,
    /// Claims that expired.
    pub expired: u64,
    /// Hosts that are registered now.
    pub hosts: u64,
    /// Consumers that are registered now.
    pub consumers: u64,
    /// Grows each time a cluster is made anew from this state, by a restore or by a survivor. What an
    /// older epoch recorded (a proof, a grant, an intent) authorises no act.
    pub epoch: u64,
    /// The [feature level](crate::level) that the cluster was raised to; 0: it never was.
    pub level: u8,
}

/// A remembered decision.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Stored {
    /// Its number.
    pub id: u64,
    /// Wall time.
    pub wall: u64,
    /// Domain.
    pub domain: Domain,
    /// What it was for.
    pub intent: Intent,
    /// Owner project.
    pub project: Option<Sym>,
    /// Flavor.
    pub flavor: Option<Sym>,
    /// Consumers with the row claimed or kept.
    pub parts: Vec<(Uuid, Option<Row>)>,
    /// The leader's record.
    pub record: Record,
}

/// Idempotency keys, oldest first by number of arrival.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    pub entries: Chunked<KeyEntry>,
    pub index: Sharded,
    /// Number of keys that ever arrived.
    pub arrived: u64,
    /// Highest timestamp (UUIDv7, milliseconds) among keys that were forgotten.
    pub horizon: u64,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct KeyEntry {
    pub key: Uuid,
    pub hash: u64,
    pub decision: u64,
    pub rows: Vec<Option<Row>>,
}

/// The state of a replica: tables, and what is derived from them.
#[derive(Debug, Default)]
pub struct State {
    pub(crate) tables: Tables,
    /// The queue of expiring claims.
    pub(crate) expiry: BTreeSet<(u64, Slot)>,
    pub(crate) shapes: Shapes,
}

/// Shapes remembered.
const SHAPES: usize = 16_384;

/// Amounts that consumers have, each once: there are few flavors and many instances. Consumers of
/// equal amounts share them; when they do not, nothing but memory is lost.
#[derive(Debug, Default)]
pub(crate) struct Shapes(FxHashSet<Arc<Amounts>>);

impl Shapes {
    pub fn share(&mut self, amounts: Amounts) -> Arc<Amounts> {
        if let Some(known) = self.0.get(&amounts) {
            return Arc::clone(known);
        }
        if self.0.len() >= SHAPES {
            self.0.retain(|shape| Arc::strong_count(shape) > 1);
            if self.0.len() > SHAPES / 2 {
                self.0.clear();
            }
        }
        let amounts = Arc::new(amounts);
        self.0.insert(Arc::clone(&amounts));
        amounts
    }
}

fn consumer_hash(domain: Domain, uuid: Uuid, purpose: Purpose) -> u64 {
    hash_of(&(domain, uuid, purpose))
}

/// The hash of a consumer that is in the table: of what the index lists.
fn hash_at(consumers: &Chunked<Option<Consumer>>, slot: u32) -> u64 {
    let consumer = consumers.get(slot as usize).and_then(Option::as_ref);
    consumer.map_or(0, |consumer| consumer_hash(consumer.domain, consumer.uuid, consumer.purpose))
}

impl State {
    /// The tables.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Replicated time in milliseconds.
    pub fn now(&self) -> u64 {
        self.tables.counters.now
    }

    /// When the next claim expires, replicated milliseconds.
    pub fn next_expiry(&self) -> Option<u64> {
        self.expiry.first().map(|&(at, _)| at)
    }

    /// Checksum of the tables: equal on every replica that applied the same log.
    pub fn checksum(&self) -> u64 {
        self.tables.checksum()
    }

    pub(crate) fn of(tables: Tables) -> Self {
        let expiry = tables
            .consumers
            .iter()
            .enumerate()
            .filter_map(|(at, consumer)| match consumer.as_ref()?.phase {
                Phase::Claimed { expires } => Some((expires, Slot(at as u32))),
                _ => None,
            })
            .collect();
        Self { tables, expiry, shapes: Shapes::default() }
    }
}

impl Tables {
    /// Rows that were ever given.
    pub fn rows(&self) -> usize {
        self.providers.len()
    }

    /// The provider of a row, if it is still registered.
    pub fn provider(&self, row: Row) -> Option<&Provider> {
        self.providers.get(row.0 as usize)?.as_deref()
    }

    /// All providers by row.
    pub fn providers(&self) -> impl Iterator<Item = (Row, &Provider)> {
        self.providers.iter().enumerate().filter_map(|(at, provider)| Some((Row(at as u32), provider.as_deref()?)))
    }

    /// Row of a provider uuid.
    pub fn row_of(&self, uuid: Uuid) -> Option<Row> {
        self.provider_index
            .find(hash_of(&uuid), |row| self.provider(Row(row)).is_some_and(|provider| provider.uuid == uuid))
            .map(Row)
    }

    /// Row of (domain, host, node). A provider or a caller that does not know the node matches any.
    pub fn row_of_node(&self, domain: Domain, host: &str, node: Option<&str>) -> Option<Row> {
        let host = self.names.get(host)?;
        let node_sym = node.map(|node| self.names.get(node));
        let find = |fits: &dyn Fn(Option<Sym>) -> bool| {
            self.host_index.find(hash_of(&(domain, host)), |row| {
                self.provider(Row(row)).is_some_and(|p| p.domain == domain && p.host == host && fits(p.node))
            })
        };
        match node_sym {
            None => find(&|_| true),
            Some(node) => find(&|known| known.is_some() && known == node).or_else(|| find(&|known| known.is_none())),
        }
        .map(Row)
    }

    /// The consumer of a key.
    pub fn consumer(&self, domain: Domain, uuid: Uuid, purpose: Purpose) -> Option<&Consumer> {
        self.slot_of(domain, uuid, purpose).and_then(|slot| self.consumer_at(slot))
    }

    /// All consumers, by slot.
    pub fn consumers(&self) -> impl Iterator<Item = &Consumer> {
        self.consumers.iter().filter_map(Option::as_ref)
    }

    /// The consumer of a slot.
    pub fn consumer_at(&self, slot: Slot) -> Option<&Consumer> {
        self.consumers.get(slot.0 as usize)?.as_ref()
    }

    /// An aggregate by its key.
    pub fn aggregate(&self, key: Sym) -> Option<&Aggregate> {
        self.aggregates.get(&key)
    }

    /// The replicated pipelines.
    pub fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }

    /// The feature level that this state is written at.
    pub fn level(&self) -> u8 {
        Levels::PROGRAM.written(self.counters.level)
    }

    /// What the next level remembers.
    #[cfg(feature = "next-level")]
    pub fn notes(&self) -> &[u64] {
        &self.notes
    }

    /// What failover knows.
    pub fn failover(&self) -> &Failover {
        &self.failover
    }

    /// The numbers that only grow.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// A remembered decision.
    pub fn decision(&self, id: u64) -> Option<&Stored> {
        let at = usize::try_from(id.checked_sub(1)?).ok()? % HISTORY;
        self.history.get(at).map(|stored| &**stored).filter(|stored| stored.id == id)
    }

    /// Remembered decisions, newest first.
    pub fn decisions(&self) -> impl Iterator<Item = &Stored> {
        let newest = self.counters.decisions;
        (0..self.history.len() as u64).map_while(move |back| self.decision(newest.checked_sub(back)?))
    }

    pub(crate) fn slot_of(&self, domain: Domain, uuid: Uuid, purpose: Purpose) -> Option<Slot> {
        self.consumer_index
            .find(consumer_hash(domain, uuid, purpose), |slot| {
                self.consumer_at(Slot(slot)).is_some_and(|consumer| {
                    consumer.uuid == uuid && consumer.purpose == purpose && consumer.domain == domain
                })
            })
            .map(Slot)
    }

    pub(crate) fn provider_mut(&mut self, row: Row) -> Option<&mut Provider> {
        self.providers.get_mut(row.0 as usize)?.as_mut().map(Arc::make_mut)
    }

    pub(crate) fn consumer_mut(&mut self, slot: Slot) -> Option<&mut Consumer> {
        self.consumers.get_mut(slot.0 as usize)?.as_mut()
    }

    pub(crate) fn add_provider(&mut self, provider: Provider) -> Row {
        let row = Row(self.providers.len() as u32);
        self.list_provider(row, &provider);
        self.providers.push(Some(Arc::new(provider)));
        self.counters.hosts += 1;
        row
    }

    pub(crate) fn list_provider(&mut self, row: Row, provider: &Provider) {
        self.list_uuid(row, provider.uuid);
        let providers = &self.providers;
        let hash = |at: u32| {
            let provider = providers.get(at as usize).and_then(Option::as_ref);
            provider.map_or(0, |provider| hash_of(&(provider.domain, provider.host)))
        };
        self.host_index.insert(hash_of(&(provider.domain, provider.host)), row.0, hash);
    }

    pub(crate) fn list_uuid(&mut self, row: Row, uuid: Uuid) {
        let providers = &self.providers;
        let hash = |at: u32| {
            let provider = providers.get(at as usize).and_then(Option::as_ref);
            provider.map_or(0, |provider| hash_of(&provider.uuid))
        };
        self.provider_index.insert(hash_of(&uuid), row.0, hash);
    }

    pub(crate) fn drop_provider(&mut self, row: Row) {
        if let Some((uuid, key)) = self.provider(row).map(|p| (p.uuid, (p.domain, p.host))) {
            self.provider_index.remove(hash_of(&uuid), row.0);
            self.host_index.remove(hash_of(&key), row.0);
            self.counters.hosts -= 1;
        }
        if let Some(provider) = self.providers.get_mut(row.0 as usize) {
            *provider = None;
        }
    }

    pub(crate) fn put_consumer(&mut self, consumer: Consumer) -> Slot {
        let slot = match self.free_slots.pop() {
            Some(slot) => {
                if let Some(place) = self.consumers.get_mut(slot.0 as usize) {
                    *place = Some(consumer);
                }
                slot
            }
            None => Slot(self.consumers.push(Some(consumer)) as u32),
        };
        self.list_consumer(slot);
        self.counters.consumers += 1;
        slot
    }

    pub(crate) fn take_consumer(&mut self, slot: Slot) -> Option<Consumer> {
        let consumer = self.consumers.get_mut(slot.0 as usize)?.take()?;
        let hash = consumer_hash(consumer.domain, consumer.uuid, consumer.purpose);
        self.consumer_index.remove(hash, slot.0);
        self.free_slots.push(slot);
        self.counters.consumers -= 1;
        Some(consumer)
    }

    /// Turns the place of a move into the place of the instance; everything else stays.
    pub(crate) fn promote(&mut self, slot: Slot) {
        let Some(consumer) = self.consumer_mut(slot) else { return };
        let old = consumer_hash(consumer.domain, consumer.uuid, consumer.purpose);
        consumer.purpose = Purpose::Instance;
        self.consumer_index.remove(old, slot.0);
        self.list_consumer(slot);
    }

    /// Lists a consumer that is in the table.
    pub(crate) fn list_consumer(&mut self, slot: Slot) {
        let hash = |slot| hash_at(&self.consumers, slot);
        self.consumer_index.insert(hash(slot.0), slot.0, hash);
    }

    pub(crate) fn remember(&mut self, stored: Stored) {
        let at = (stored.id - 1) as usize % HISTORY;
        let stored = Arc::new(stored);
        match self.history.get_mut(at) {
            Some(place) => *place = stored,
            None => {
                self.history.push(stored);
            }
        }
    }
}

impl Keys {
    pub fn get(&self, key: Uuid) -> Option<&KeyEntry> {
        let at = self.index.find(hash_of(&key), |at| self.entries.get(at as usize).is_some_and(|e| e.key == key))?;
        self.entries.get(at as usize)
    }

    pub fn put(&mut self, entry: KeyEntry) {
        let at = (self.arrived % KEYS as u64) as u32;
        self.arrived += 1;
        let hash = hash_of(&entry.key);
        if let Some(place) = self.entries.get_mut(at as usize) {
            self.index.remove(hash_of(&place.key), at);
            self.horizon = self.horizon.max(issued(place.key).unwrap_or(0));
            *place = entry;
        } else {
            self.entries.push(entry);
        }
        self.list(hash, at);
    }

    /// Lists an entry.
    pub fn list(&mut self, hash: u64, at: u32) {
        let entries = &self.entries;
        self.index.insert(hash, at, |at| entries.get(at as usize).map_or(0, |entry| hash_of(&entry.key)));
    }
}

/// Milliseconds since 1970 in a UUIDv7.
pub fn issued(key: Uuid) -> Option<u64> {
    (key.get_version_num() == 7).then(|| (key.as_u128() >> 80) as u64)
}
