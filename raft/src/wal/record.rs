//! The bytes of one record: how it is written and how it is told from what is not one.
//!
//! `u32 length of the body | u32 crc32c over (segment epoch, kind, body) | u8 kind | body`, padded
//! with zeros to a multiple of eight, all little endian. The epoch is not stored: a record left over
//! from an earlier use of a recycled segment fails its checksum. Never reads or writes a file.
//!
//! Every write of the writer thread starts with a `Mark` that holds its own offset. A write is begun
//! only after the one before it was synced, so a valid mark proves that everything in front of it
//! was once durable. That tells a torn last write from damage to older records.

use std::ops::Range;

use bytes::Bytes;

/// Bytes in front of a body.
pub const HEADER: usize = 9;
/// Bytes of zeros behind the last record, so that a recycled segment ends visibly.
pub const TERMINATOR: usize = 8;
/// Bytes of a mark, padding included.
pub const MARK: usize = padded(8);

/// Where an entry stands: which leader proposed it, and at which index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogId {
    /// Term of the leader that proposed the entry.
    pub term: u64,
    /// Node id of that leader.
    pub node: u64,
    /// Position in the log.
    pub index: u64,
}

/// Whom this node voted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vote {
    /// Term voted in.
    pub term: u64,
    /// Candidate voted for.
    pub node: u64,
    /// Whether a quorum granted it.
    pub committed: bool,
}

/// One log entry. What `kind` and `data` mean is the caller's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub id: LogId,
    /// Kind of the payload.
    pub kind: u8,
    /// The payload.
    pub data: Bytes,
}

/// Kinds of records. The numbers are the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Start of a write: its own offset.
    Mark = 1,
    /// A log entry.
    Entry = 2,
    /// A vote.
    Vote = 3,
    /// Entries behind an index are gone.
    Truncate = 4,
    /// Entries up to a log id are gone.
    Purged = 5,
    /// Entries up to a log id are committed.
    Committed = 6,
}

impl Kind {
    fn of(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Mark,
            2 => Kind::Entry,
            3 => Kind::Vote,
            4 => Kind::Truncate,
            5 => Kind::Purged,
            6 => Kind::Committed,
            _ => return None,
        })
    }
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// See [`Kind::Mark`].
    Mark(u64),
    /// See [`Kind::Entry`].
    Entry(Entry),
    /// See [`Kind::Vote`].
    Vote(Vote),
    /// Entries from an index on are gone.
    Truncate {
        /// The index.
        from: u64,
        /// The entry in front of it, when there is one.
        last: Option<LogId>,
    },
    /// See [`Kind::Purged`].
    Purged(LogId),
    /// See [`Kind::Committed`].
    Committed(LogId),
}

/// What stands at an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A record whose checksum holds.
    Valid {
        /// Its kind.
        kind: Kind,
        /// Where its body is.
        body: Range<usize>,
        /// Where the next record starts.
        next: usize,
    },
    /// Nothing was written here.
    End,
    /// Bytes that are no record of this epoch.
    Bad,
    /// The buffer ends before the record does; this many bytes are needed from its start.
    More(usize),
}

/// Size of a record with a body of `body` bytes.
pub const fn padded(body: usize) -> usize {
    (HEADER + body).next_multiple_of(8)
}

/// Size of the record of an entry with `data` bytes.
pub const fn entry_size(data: usize) -> usize {
    padded(ENTRY_FIXED + data)
}

const LOG_ID: usize = 24;
const ENTRY_FIXED: usize = LOG_ID + 1;

fn checksum(epoch: u64, kind: u8, body: &[u8]) -> u32 {
    let mut head = [0; 9];
    head[..8].copy_from_slice(&epoch.to_le_bytes());
    head[8] = kind;
    crc32c::crc32c_append(crc32c::crc32c(&head), body)
}

fn push(out: &mut Vec<u8>, epoch: u64, kind: Kind, parts: &[&[u8]]) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    for part in parts {
        out.extend_from_slice(part);
    }
    let body = start + HEADER;
    let length = (out.len() - body) as u32;
    let crc = checksum(epoch, kind as u8, &out[body..]);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    out[start + 8] = kind as u8;
    out.resize(start + padded(length as usize), 0);
}

fn log_id(id: &LogId) -> [u8; LOG_ID] {
    let mut bytes = [0; LOG_ID];
    bytes[..8].copy_from_slice(&id.term.to_le_bytes());
    bytes[8..16].copy_from_slice(&id.node.to_le_bytes());
    bytes[16..].copy_from_slice(&id.index.to_le_bytes());
    bytes
}

/// Appends a mark that stands at `offset` of its segment.
pub fn push_mark(out: &mut Vec<u8>, epoch: u64, offset: u64) {
    push(out, epoch, Kind::Mark, &[&offset.to_le_bytes()]);
}

/// Appends an entry.
pub fn push_entry(out: &mut Vec<u8>, epoch: u64, entry: &Entry) {
    push(out, epoch, Kind::Entry, &[&log_id(&entry.id), &[entry.kind], &entry.data]);
}

/// Appends a vote.
pub fn push_vote(out: &mut Vec<u8>, epoch: u64, vote: &Vote) {
    let (term, node) = (vote.term.to_le_bytes(), vote.node.to_le_bytes());
    push(out, epoch, Kind::Vote, &[&term, &node, &[u8::from(vote.committed)]]);
}

/// Appends "entries from `from` on are gone, and `last` is the last one".
pub fn push_truncate(out: &mut Vec<u8>, epoch: u64, from: u64, last: Option<&LogId>) {
    let from = from.to_le_bytes();
    match last {
        Some(last) => push(out, epoch, Kind::Truncate, &[&from, &log_id(last)]),
        None => push(out, epoch, Kind::Truncate, &[&from]),
    }
}

/// Appends "entries up to `id` are gone".
pub fn push_purged(out: &mut Vec<u8>, epoch: u64, id: &LogId) {
    push(out, epoch, Kind::Purged, &[&log_id(id)]);
}

/// Appends "entries up to `id` are committed".
pub fn push_committed(out: &mut Vec<u8>, epoch: u64, id: &LogId) {
    push(out, epoch, Kind::Committed, &[&log_id(id)]);
}

/// Looks at what stands at `at`. `more` says that the segment goes on behind the buffer.
pub fn find(buffer: &[u8], at: usize, epoch: u64, more: bool) -> Found {
    let rest = &buffer[at.min(buffer.len())..];
    if rest.len() < HEADER {
        return if more { Found::More(HEADER) } else { Found::End };
    }
    let length = u32_at(rest, 0) as usize;
    if length == 0 {
        return Found::End;
    }
    let size = padded(length);
    let Some(kind) = Kind::of(rest[8]) else { return Found::Bad };
    if size > rest.len() {
        return if more { Found::More(size) } else { Found::Bad };
    }
    let body = HEADER..HEADER + length;
    let padding = &rest[body.end..size];
    if checksum(epoch, rest[8], &rest[body.clone()]) != u32_at(rest, 4) || padding.iter().any(|byte| *byte != 0) {
        return Found::Bad;
    }
    Found::Valid { kind, body: at + body.start..at + body.end, next: at + size }
}

/// Decodes the body of a valid record. None when its shape is wrong, which only a program that
/// writes another format can cause.
pub fn decode(kind: Kind, body: &[u8]) -> Option<Record> {
    let id = |bytes: &[u8]| {
        (bytes.len() >= LOG_ID).then(|| LogId {
            term: u64_at(bytes, 0),
            node: u64_at(bytes, 8),
            index: u64_at(bytes, 16),
        })
    };
    Some(match kind {
        Kind::Mark if body.len() == 8 => Record::Mark(u64_at(body, 0)),
        Kind::Entry if body.len() >= ENTRY_FIXED => Record::Entry(Entry {
            id: id(body)?,
            kind: body[LOG_ID],
            data: Bytes::copy_from_slice(&body[ENTRY_FIXED..]),
        }),
        Kind::Vote if body.len() == 17 => {
            Record::Vote(Vote { term: u64_at(body, 0), node: u64_at(body, 8), committed: body[16] != 0 })
        }
        Kind::Truncate if body.len() >= 8 => Record::Truncate { from: u64_at(body, 0), last: id(&body[8..]) },
        Kind::Purged => Record::Purged(id(body)?),
        Kind::Committed => Record::Committed(id(body)?),
        _ => return None,
    })
}

/// The index in the body of an entry.
pub fn entry_index(body: &[u8]) -> Option<u64> {
    (body.len() >= ENTRY_FIXED).then(|| u64_at(body, 16))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}
