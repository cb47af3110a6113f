//! A frozen state as a sequence of pieces, about 1 MiB each, and back. One piece is made or read at
//! a time, so that neither side ever holds all the bytes. No I/O: who stores the pieces keeps them
//! whole and in order, and what gets past it is caught by the checksum in the last one.

use std::sync::Arc;

use bitcode::{Decode, Encode};
use uuid::Uuid;

use crate::catalogue::Versions;
use crate::consumer::{Consumer, Phase, Purpose, Slot};
use crate::domain::Domain;
use crate::ha::drain::{Drain, Move};
use crate::ha::masakari::{Member, Notification, Segment};
use crate::ha::poison::Deaths;
use crate::ha::restart::Restart;
use crate::ha::table::Small;
use crate::ha::{Case, Failover, Host, Permit, Recovery};
use crate::intent::Intent;
use crate::level::{self, Levels, Unsupported};
use crate::names::Sym;
use crate::provider::{Aggregate, Amounts, Provider, Row};
use crate::sharded::{Sharded, hash_of};
use crate::state::{Counters, KeyEntry, Shapes, Stored, Tables};

/// Elements in a piece, so that it has about 1 MiB.
const NAMES: usize = 32_768;
const PROVIDERS: usize = 2_048;
const CONSUMERS: usize = 16_384;
const SLOTS: usize = 262_144;
const AGGREGATES: usize = 2_048;
const DECISIONS: usize = 4_096;
const KEYS: usize = 16_384;
const CASES: usize = 256;
const RECOVERIES: usize = 4_096;
const PERMITS: usize = 16_384;
/// Consumers that room is made for before they come, whatever the first piece says.
const MOST_ROOM: u64 = 1 << 24;

/// A consistent copy of the tables, cheap to take; encode it on any thread.
#[derive(Clone, Debug)]
pub struct Frozen(pub(crate) Tables);

/// Why bytes are no snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Of a feature level that is not supported.
    #[error("state of {0}")]
    Level(#[from] Unsupported),
    /// Not a snapshot.
    #[error("not a snapshot: {0}")]
    Malformed(String),
    /// The state inside has another checksum than its last piece says.
    #[error("the state's checksum is {found:016x}, its last piece says {expected:016x}: it is damaged")]
    Checksum {
        /// Sum of what was read.
        found: u64,
        /// Sum that was written.
        expected: u64,
    },
}

/// A piece of an encoded state.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Its bytes: the level, the kind of its content, then bitcode.
    pub bytes: Vec<u8>,
    /// Hosts and consumers in it.
    pub records: u64,
}

/// What a piece holds. Each kind is a format of its own, so that a new one changes no other.
enum Content {
    Head(Head),
    Names(Vec<Arc<str>>),
    Providers(Vec<Option<Arc<Provider>>>),
    Consumers(Packs),
    FreeSlots(Vec<Slot>),
    Aggregates(Vec<(Sym, Aggregate)>),
    History(Vec<Arc<Stored>>),
    Keys(Vec<KeyEntry>),
    Pipeline(NamedPipeline),
    FailoverHosts(Vec<Option<Arc<Host>>>),
    FailoverCases(Vec<Option<Arc<Case>>>),
    FailoverRecoveries(Vec<Option<Arc<Recovery>>>),
    FailoverPermits(Vec<Option<Permit>>),
    FailoverClosed(Vec<Arc<Case>>),
    FailoverRestarts(Vec<Option<Restart>>),
    FailoverDrains(Vec<Option<Arc<Drain>>>),
    FailoverMoves(Vec<Option<Arc<Move>>>),
    FailoverSegments(Vec<Option<Arc<Segment>>>),
    FailoverMembers(Vec<Option<Arc<Member>>>),
    FailoverNotified(Vec<Arc<Notification>>),
    FailoverDeaths(Vec<Option<Deaths>>),
    FailoverRest(FailoverRest),
    End(u64),
    #[cfg(feature = "next-level")]
    Notes(Vec<u64>),
}

#[derive(Encode, Decode)]
struct Head {
    counters: Counters,
    keys_arrived: u64,
    keys_horizon: u64,
    pipelines_floor: u32,
}

#[derive(Encode, Decode)]
struct NamedPipeline {
    name: String,
    versions: Arc<Versions>,
}

/// What of failover is in no list of its own: what is small, and the free places of the tables.
#[derive(Encode, Decode)]
struct FailoverRest {
    small: Arc<Small>,
    free_hosts: Vec<u32>,
    free_cases: Vec<u32>,
    free_recoveries: Vec<u32>,
    free_permits: Vec<u32>,
    free_restarts: Vec<u32>,
    free_drains: Vec<u32>,
    free_moves: Vec<u32>,
    free_segments: Vec<u32>,
    free_members: Vec<u32>,
    free_deaths: Vec<u32>,
}

/// Consumers, and the amounts that they share.
#[derive(Encode, Decode)]
struct Packs {
    shapes: Vec<Arc<Amounts>>,
    slots: Vec<Option<Packed>>,
}

/// A piece that was decoded, on whichever thread.
pub struct Decoded(Content);

/// A consumer whose amounts stand elsewhere in its piece.
#[derive(Clone, Copy, Encode, Decode)]
struct Packed {
    domain: Domain,
    uuid: Uuid,
    purpose: Purpose,
    row: Row,
    shape: u32,
    phase: Phase,
    project: Option<Sym>,
    user: Option<Sym>,
    flavor: Option<Sym>,
    group: Option<Uuid>,
    intent: Intent,
    decision: u64,
    ticket: u64,
    request: Option<Uuid>,
    since: u64,
    since_wall: u64,
}

impl Packed {
    fn of(consumer: &Consumer, shape: u32) -> Self {
        let &Consumer { domain, uuid, purpose, row, phase, project, user, flavor, .. } = consumer;
        let &Consumer { intent, decision, ticket, since, since_wall, .. } = consumer;
        let (group, request) = (consumer.group.as_deref().copied(), consumer.request.as_deref().copied());
        Self {
            domain,
            uuid,
            purpose,
            row,
            shape,
            phase,
            project,
            user,
            flavor,
            group,
            intent,
            decision,
            ticket,
            request,
            since,
            since_wall,
        }
    }

    fn with(self, amounts: Arc<Amounts>) -> Consumer {
        let Self { domain, uuid, purpose, row, shape: _, phase, project, user, flavor, .. } = self;
        let Self { intent, decision, ticket, since, since_wall, .. } = self;
        let (group, request) = (self.group.map(Box::new), self.request.map(Box::new));
        Consumer {
            domain,
            uuid,
            purpose,
            row,
            amounts,
            phase,
            project,
            user,
            flavor,
            group,
            intent,
            decision,
            ticket,
            request,
            since,
            since_wall,
        }
    }
}

impl Content {
    fn piece(&self, level: u8) -> Piece {
        let records = match self {
            Self::Providers(rows) => rows.iter().flatten().count(),
            Self::Consumers(packs) => packs.slots.iter().flatten().count(),
            _ => 0,
        };
        let (kind, body) = match self {
            Self::Head(head) => (0, bitcode::encode(head)),
            Self::Names(texts) => (1, bitcode::encode(texts)),
            Self::Providers(rows) => (2, bitcode::encode(rows)),
            Self::Consumers(packs) => (3, bitcode::encode(packs)),
            Self::FreeSlots(slots) => (4, bitcode::encode(slots)),
            Self::Aggregates(aggregates) => (5, bitcode::encode(aggregates)),
            Self::History(stored) => (6, bitcode::encode(stored)),
            Self::Keys(entries) => (7, bitcode::encode(entries)),
            Self::End(checksum) => (8, bitcode::encode(checksum)),
            Self::Pipeline(pipeline) => (9, bitcode::encode(pipeline)),
            Self::FailoverHosts(hosts) => (10, bitcode::encode(hosts)),
            Self::FailoverCases(cases) => (11, bitcode::encode(cases)),
            Self::FailoverRecoveries(recoveries) => (12, bitcode::encode(recoveries)),
            Self::FailoverPermits(permits) => (13, bitcode::encode(permits)),
            Self::FailoverClosed(cases) => (14, bitcode::encode(cases)),
            Self::FailoverRest(rest) => (15, bitcode::encode(rest)),
            Self::FailoverRestarts(restarts) => (16, bitcode::encode(restarts)),
            Self::FailoverDrains(drains) => (17, bitcode::encode(drains)),
            Self::FailoverMoves(moves) => (18, bitcode::encode(moves)),
            Self::FailoverSegments(segments) => (19, bitcode::encode(segments)),
            Self::FailoverMembers(members) => (20, bitcode::encode(members)),
            Self::FailoverNotified(notified) => (21, bitcode::encode(notified)),
            Self::FailoverDeaths(deaths) => (22, bitcode::encode(deaths)),
            #[cfg(feature = "next-level")]
            Self::Notes(notes) => (255, bitcode::encode(notes)),
        };
        let mut bytes = Vec::with_capacity(2 + body.len());
        bytes.extend_from_slice(&[level, kind]);
        bytes.extend_from_slice(&body);
        Piece { bytes, records: records as u64 }
    }

    fn read(kind: u8, body: &[u8]) -> Result<Option<Self>, bitcode::Error> {
        Ok(Some(match kind {
            0 => Self::Head(bitcode::decode(body)?),
            1 => Self::Names(bitcode::decode(body)?),
            2 => Self::Providers(bitcode::decode(body)?),
            3 => Self::Consumers(bitcode::decode(body)?),
            4 => Self::FreeSlots(bitcode::decode(body)?),
            5 => Self::Aggregates(bitcode::decode(body)?),
            6 => Self::History(bitcode::decode(body)?),
            7 => Self::Keys(bitcode::decode(body)?),
            8 => Self::End(bitcode::decode(body)?),
            9 => Self::Pipeline(bitcode::decode(body)?),
            10 => Self::FailoverHosts(bitcode::decode(body)?),
            11 => Self::FailoverCases(bitcode::decode(body)?),
            12 => Self::FailoverRecoveries(bitcode::decode(body)?),
            13 => Self::FailoverPermits(bitcode::decode(body)?),
            14 => Self::FailoverClosed(bitcode::decode(body)?),
            15 => Self::FailoverRest(bitcode::decode(body)?),
            16 => Self::FailoverRestarts(bitcode::decode(body)?),
            17 => Self::FailoverDrains(bitcode::decode(body)?),
            18 => Self::FailoverMoves(bitcode::decode(body)?),
            19 => Self::FailoverSegments(bitcode::decode(body)?),
            20 => Self::FailoverMembers(bitcode::decode(body)?),
            21 => Self::FailoverNotified(bitcode::decode(body)?),
            22 => Self::FailoverDeaths(bitcode::decode(body)?),
            #[cfg(feature = "next-level")]
            255 => Self::Notes(bitcode::decode(body)?),
            _ => return Ok(None),
        }))
    }

    fn consumers(slots: Vec<Option<&Consumer>>) -> Self {
        let mut shapes = Vec::new();
        let mut known = rustc_hash::FxHashMap::default();
        let slots = slots.into_iter().map(|consumer| {
            let consumer = consumer?;
            let shape = *known.entry(&*consumer.amounts).or_insert_with(|| {
                shapes.push(Arc::clone(&consumer.amounts));
                shapes.len() as u32 - 1
            });
            Some(Packed::of(consumer, shape))
        });
        let slots = slots.collect();
        Self::Consumers(Packs { shapes, slots })
    }
}

/// `items` in lists of at most `most`.
fn lists<'a, T: 'a>(items: impl Iterator<Item = T> + 'a, most: usize) -> impl Iterator<Item = Vec<T>> + 'a {
    let mut items = items.peekable();
    std::iter::from_fn(move || items.peek().is_some().then(|| items.by_ref().take(most).collect()))
}

/// What came with failover.
fn failover(failover: &Failover) -> impl Iterator<Item = Content> + '_ {
    let rest = FailoverRest {
        small: Arc::clone(&failover.small),
        free_hosts: failover.hosts.free(),
        free_cases: failover.cases.free(),
        free_recoveries: failover.recoveries.free(),
        free_permits: failover.permits.free(),
        free_restarts: failover.restarts.free(),
        free_drains: failover.drains.free(),
        free_moves: failover.moves.free(),
        free_segments: failover.segments.free(),
        free_members: failover.members.free(),
        free_deaths: failover.deaths.free(),
    };
    lists(failover.hosts.places(), PROVIDERS)
        .map(Content::FailoverHosts)
        .chain(lists(failover.cases.places(), CASES).map(Content::FailoverCases))
        .chain(lists(failover.recoveries.places(), RECOVERIES).map(Content::FailoverRecoveries))
        .chain(lists(failover.permits.places(), PERMITS).map(Content::FailoverPermits))
        .chain(lists(failover.restarts.places(), PERMITS).map(Content::FailoverRestarts))
        .chain(lists(failover.drains.places(), CASES).map(Content::FailoverDrains))
        .chain(lists(failover.moves.places(), RECOVERIES).map(Content::FailoverMoves))
        .chain(lists(failover.segments.places(), RECOVERIES).map(Content::FailoverSegments))
        .chain(lists(failover.members.places(), RECOVERIES).map(Content::FailoverMembers))
        .chain(lists(failover.notified.iter().cloned(), RECOVERIES).map(Content::FailoverNotified))
        .chain(lists(failover.deaths.places(), PERMITS).map(Content::FailoverDeaths))
        .chain(lists(failover.closed.iter().cloned(), CASES).map(Content::FailoverClosed))
        .chain(std::iter::once(Content::FailoverRest(rest)))
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

    /// The feature level that it is written at.
    pub fn level(&self) -> u8 {
        self.0.level()
    }

    /// Hosts and consumers in it: the records of all pieces.
    pub fn records(&self) -> u64 {
        self.0.counters.hosts + self.0.counters.consumers
    }

    /// The same state as that of a cluster made anew from it. See [`Counters::epoch`].
    #[must_use]
    pub fn in_new_epoch(mut self) -> Self {
        self.0.counters.epoch += 1;
        self
    }

    /// The tables as pieces, each made when it is asked for.
    pub fn pieces(&self) -> impl Iterator<Item = Piece> + '_ {
        let tables = &self.0;
        let keys = &tables.keys;
        let head = Head {
            counters: tables.counters,
            keys_arrived: keys.arrived,
            keys_horizon: keys.horizon,
            pipelines_floor: tables.catalogue.floor(),
        };
        let pipeline = |(name, versions): (&String, &Arc<Versions>)| {
            Content::Pipeline(NamedPipeline { name: name.clone(), versions: Arc::clone(versions) })
        };
        let end = || Content::End(tables.checksum());
        let level = tables.level();
        // What came with a level is written from that level on.
        let later = (level >= level::FAILOVER).then(|| failover(&tables.failover)).into_iter().flatten();
        #[cfg(feature = "next-level")]
        let later = later.chain((level == level::NEWEST).then(|| Content::Notes(tables.notes.clone())));
        let aggregates = tables.aggregates.iter().map(|(key, aggregate)| (*key, aggregate.clone()));
        std::iter::once(Content::Head(head))
            .chain(lists(tables.names.texts().cloned(), NAMES).map(Content::Names))
            .chain(lists(tables.providers.iter().cloned(), PROVIDERS).map(Content::Providers))
            .chain(lists(tables.consumers.iter().map(Option::as_ref), CONSUMERS).map(Content::consumers))
            .chain(lists(tables.free_slots.iter().copied(), SLOTS).map(Content::FreeSlots))
            .chain(lists(aggregates, AGGREGATES).map(Content::Aggregates))
            .chain(lists(tables.history.iter().cloned(), DECISIONS).map(Content::History))
            .chain(lists(keys.entries.iter().cloned(), KEYS).map(Content::Keys))
            .chain(tables.catalogue.entries().map(pipeline))
            .chain(later)
            .chain(std::iter::once_with(end))
            .map(move |content| content.piece(level))
    }

    /// All pieces, each behind its length.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in self.pieces() {
            out.extend_from_slice(&(piece.bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(&piece.bytes);
        }
        out
    }

    /// Reads what [`Frozen::encode`] wrote.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut restore = Restore::default();
        while !bytes.is_empty() {
            let cut = || SnapshotError::Malformed("it ends within a piece".to_owned());
            let (length, rest) = bytes.split_first_chunk().ok_or_else(cut)?;
            let (piece, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(cut)?;
            restore.push(piece)?;
            bytes = rest;
        }
        restore.finish()
    }
}

/// A state on its way back from its pieces.
#[derive(Debug, Default)]
pub struct Restore {
    tables: Tables,
    shapes: Shapes,
    begun: bool,
    end: Option<u64>,
}

impl Decoded {
    /// Decodes a piece; in any order, on any thread.
    pub fn of(piece: &[u8]) -> Result<Self, SnapshotError> {
        let malformed = |what: &str| SnapshotError::Malformed(what.to_owned());
        let (&[level, kind], body) = piece.split_first_chunk().ok_or_else(|| malformed("a piece without content"))?;
        Levels::PROGRAM.check(level)?;
        match Content::read(kind, body) {
            Ok(content) => content.map(Self).ok_or_else(|| malformed(&format!("a piece of unknown kind {kind}"))),
            Err(error) => Err(malformed(&error.to_string())),
        }
    }
}

impl Restore {
    /// Takes the next piece.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), SnapshotError> {
        self.take(Decoded::of(piece)?)
    }

    /// Takes the next piece, which was decoded.
    pub fn take(&mut self, Decoded(content): Decoded) -> Result<(), SnapshotError> {
        let malformed = |what: &str| Err(SnapshotError::Malformed(what.to_owned()));
        if self.end.is_some() {
            return malformed("a piece behind the last one");
        }
        if self.begun == matches!(content, Content::Head(_)) {
            return malformed("the first piece is missing or comes twice");
        }
        let tables = &mut self.tables;
        match content {
            Content::Head(Head { counters, keys_arrived, keys_horizon, pipelines_floor }) => {
                self.begun = true;
                tables.consumer_index = Sharded::with_room(counters.consumers.min(MOST_ROOM) as usize);
                tables.counters = counters;
                tables.keys.arrived = keys_arrived;
                tables.keys.horizon = keys_horizon;
                Arc::make_mut(&mut tables.catalogue).set_floor(pipelines_floor);
            }
            Content::Names(texts) => texts.into_iter().for_each(|text| tables.names.append(text)),
            Content::Providers(rows) => {
                for provider in rows {
                    if let Some(provider) = &provider {
                        tables.list_provider(Row(tables.providers.len() as u32), provider);
                    }
                    tables.providers.push(provider);
                }
            }
            Content::Consumers(Packs { shapes, slots }) => {
                let shapes: Vec<_> =
                    shapes.into_iter().map(|shape| self.shapes.share(Arc::unwrap_or_clone(shape))).collect();
                for packed in slots {
                    let slot = tables.consumers.len() as u32;
                    let Some(packed) = packed else {
                        tables.consumers.push(None);
                        continue;
                    };
                    let Some(amounts) = shapes.get(packed.shape as usize) else {
                        return malformed("a consumer without amounts");
                    };
                    tables.consumers.push(Some(packed.with(Arc::clone(amounts))));
                    tables.list_consumer(Slot(slot));
                }
            }
            Content::FreeSlots(slots) => tables.free_slots.extend(slots),
            Content::Aggregates(aggregates) => Arc::make_mut(&mut tables.aggregates).extend(aggregates),
            Content::History(stored) => tables.history.extend(stored),
            Content::Keys(entries) => {
                for entry in entries {
                    tables.keys.list(hash_of(&entry.key), tables.keys.entries.len() as u32);
                    tables.keys.entries.push(entry);
                }
            }
            Content::Pipeline(NamedPipeline { name, versions }) => {
                Arc::make_mut(&mut tables.catalogue).put(name, versions);
            }
            Content::FailoverHosts(hosts) => tables.failover.hosts.append(hosts),
            Content::FailoverCases(cases) => tables.failover.cases.append(cases),
            Content::FailoverRecoveries(recoveries) => tables.failover.recoveries.append(recoveries),
            Content::FailoverPermits(permits) => tables.failover.permits.append(permits),
            Content::FailoverRestarts(restarts) => tables.failover.restarts.append(restarts),
            Content::FailoverDrains(drains) => tables.failover.drains.append(drains),
            Content::FailoverMoves(moves) => tables.failover.moves.append(moves),
            Content::FailoverSegments(segments) => tables.failover.segments.append(segments),
            Content::FailoverMembers(members) => tables.failover.members.append(members),
            Content::FailoverNotified(notified) => tables.failover.notified.extend(notified),
            Content::FailoverDeaths(deaths) => tables.failover.deaths.append(deaths),
            Content::FailoverClosed(cases) => tables.failover.closed.extend(cases),
            Content::FailoverRest(rest) => {
                let failover = &mut tables.failover;
                failover.small = rest.small;
                failover.hosts.set_free(rest.free_hosts);
                failover.cases.set_free(rest.free_cases);
                failover.recoveries.set_free(rest.free_recoveries);
                failover.permits.set_free(rest.free_permits);
                failover.restarts.set_free(rest.free_restarts);
                failover.drains.set_free(rest.free_drains);
                failover.moves.set_free(rest.free_moves);
                failover.segments.set_free(rest.free_segments);
                failover.members.set_free(rest.free_members);
                failover.deaths.set_free(rest.free_deaths);
            }
            Content::End(checksum) => self.end = Some(checksum),
            #[cfg(feature = "next-level")]
            Content::Notes(notes) => tables.notes = notes,
        }
        Ok(())
    }

    /// The state, when all its pieces came.
    pub fn finish(self) -> Result<Frozen, SnapshotError> {
        let Some(expected) = self.end else {
            return Err(SnapshotError::Malformed("the last piece is missing".to_owned()));
        };
        match self.tables.checksum() {
            found if found == expected => Ok(Frozen(self.tables)),
            found => Err(SnapshotError::Checksum { found, expected }),
        }
    }
}
