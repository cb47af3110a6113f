//! The bytes of a snapshot file, which a backup is too: written and read a piece at a time.
//!
//! ```text
//! file    magic | u32 level | u32 length | u32 crc32c of all in front and of the header | header
//!         record…, the last of which is the end
//! record  u32 length | u8 kind | u32 crc32c of (number of the record, length, kind, body) | body
//! piece   u32 length when unpacked | zstd of a piece of the state
//! end     u64 number of pieces | u64 checksum of the state | u128 XXH3 of all bytes in front of the record
//! ```
//!
//! The header is JSON, for it is small and read by people too. Every byte is under a checksum, and
//! every record is bound to its place, so that damage anywhere is told with the offset where it
//! starts to matter. Nothing here opens a file or knows a folder.

use std::io::{self, Read, Write};

use scheduler::level::Unsupported;
use scheduler::{Frozen, Levels, Restore};
use serde::{Deserialize, Serialize};
use twox_hash::xxhash3_128::Hasher;
use uuid::Uuid;

use crate::types::{LogId, SnapshotMeta, StoredMembership};

pub const MAGIC: &[u8; 8] = b"palliumS";
const FRONT: usize = 20;
const RECORD: usize = 9;
const LEVEL: i32 = 1;
/// The most bytes a header or a piece may have; what claims more is damaged.
const MOST: usize = 1 << 30;

const PIECE: u8 = 1;
const END: u8 = 2;
const END_BODY: usize = 32;

/// What stands in front of the state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The last log id that is in the state.
    pub last: Option<LogId>,
    /// The last membership.
    pub membership: StoredMembership,
    /// The cluster, in a backup; a snapshot lies beside its identity.
    pub cluster: Option<Uuid>,
    /// Checksum of the state.
    pub state: u64,
    /// See [`scheduler::state::Counters::epoch`].
    pub epoch: u64,
    /// Wall time of the last command in it, milliseconds since 1970.
    pub wall: u64,
    /// Hosts in it.
    pub hosts: u64,
    /// Instances and claims in it.
    pub consumers: u64,
}

impl Header {
    /// For this state.
    pub fn of(frozen: &Frozen, last: Option<LogId>, membership: StoredMembership) -> Header {
        let counters = frozen.tables().counters();
        Header {
            last,
            membership,
            cluster: None,
            state: frozen.checksum(),
            epoch: counters.epoch,
            wall: counters.wall,
            hosts: counters.hosts,
            consumers: counters.consumers,
        }
    }

    /// The same for openraft.
    pub fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.last, last_membership: self.membership.clone() }
    }
}

/// Why bytes cannot be read as a snapshot.
#[derive(Debug)]
pub enum FormatError {
    /// They could not be read.
    Read(io::Error),
    /// They are of a feature level that is not supported.
    Level(Unsupported),
    /// They are damaged.
    Damaged {
        /// Where.
        offset: u64,
        /// What was found.
        what: String,
    },
}

/// Writes through a hash.
struct Hashed<W> {
    out: W,
    hash: Hasher,
}

impl<W: Write> Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.write(bytes);
        self.out.write_all(bytes)
    }

    fn record(&mut self, number: u64, kind: u8, body: &[u8]) -> io::Result<()> {
        let length = (body.len() as u32).to_le_bytes();
        self.write(&length)?;
        self.write(&[kind])?;
        self.write(&crc(number, length, kind, body).to_le_bytes())?;
        self.write(body)
    }
}

fn crc(number: u64, length: [u8; 4], kind: u8, body: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&number.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &length);
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &[kind]), body)
}

/// Writes a state; `progress` is told the records that were written since it was last told.
pub fn write(out: impl Write, header: &Header, frozen: &Frozen, mut progress: impl FnMut(u64)) -> io::Result<()> {
    let mut out = Hashed { out, hash: Hasher::new() };
    let text = serde_json::to_vec(header)?;
    let mut front = MAGIC.to_vec();
    front.extend_from_slice(&u32::from(frozen.level()).to_le_bytes());
    front.extend_from_slice(&(text.len() as u32).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&front), &text);
    front.extend_from_slice(&crc.to_le_bytes());
    out.write(&front)?;
    out.write(&text)?;
    let mut packer = zstd::bulk::Compressor::new(LEVEL)?;
    let mut pieces = 0_u64;
    for piece in frozen.pieces() {
        let mut body = (piece.bytes.len() as u32).to_le_bytes().to_vec();
        body.extend_from_slice(&packer.compress(&piece.bytes)?);
        out.record(pieces, PIECE, &body)?;
        pieces += 1;
        progress(piece.records);
    }
    let mut end = pieces.to_le_bytes().to_vec();
    end.extend_from_slice(&header.state.to_le_bytes());
    end.extend_from_slice(&out.hash.finish_128().to_le_bytes());
    out.record(pieces, END, &end)?;
    out.out.flush()
}

/// Reads with a hash and an offset.
struct Source<R> {
    from: R,
    hash: Hasher,
    /// End of what is good.
    offset: u64,
    /// Bytes that were taken behind it.
    taken: u64,
}

impl<R: Read> Source<R> {
    fn new(from: R) -> Self {
        Self { from, hash: Hasher::new(), offset: 0, taken: 0 }
    }

    fn damaged(&self, what: impl Into<String>) -> FormatError {
        FormatError::Damaged { offset: self.offset, what: what.into() }
    }

    /// The next `count` bytes; the offset moves when the caller says that they are good.
    fn take(&mut self, count: usize) -> Result<Vec<u8>, FormatError> {
        let mut bytes = Vec::new();
        self.from.by_ref().take(count as u64).read_to_end(&mut bytes).map_err(FormatError::Read)?;
        self.taken += bytes.len() as u64;
        if bytes.len() < count {
            let offset = self.offset + self.taken;
            return Err(FormatError::Damaged { offset, what: "it ends too early".to_owned() });
        }
        Ok(bytes)
    }

    fn good(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.hash.write(part);
        }
        self.offset += std::mem::take(&mut self.taken);
    }

    fn header(&mut self, levels: Levels) -> Result<Header, FormatError> {
        let front = self.take(FRONT)?;
        if &front[..8] != MAGIC {
            return Err(self.damaged("it does not start like a snapshot or a backup"));
        }
        let level = u8::try_from(number(&front[8..12])).unwrap_or(u8::MAX);
        levels.check(level).map_err(FormatError::Level)?;
        let length = number(&front[12..16]) as usize;
        if length > MOST {
            return Err(self.damaged(format!("a header of {length} bytes")));
        }
        let text = self.take(length)?;
        if u64::from(crc32c::crc32c_append(crc32c::crc32c(&front[..16]), &text)) != number(&front[16..]) {
            return Err(self.damaged("the checksum of the header does not hold"));
        }
        let header = serde_json::from_slice(&text).map_err(|error| self.damaged(format!("the header: {error}")))?;
        self.good(&[&front, &text]);
        Ok(header)
    }

    /// The next record: its kind and body. The caller says when it is good.
    fn record(&mut self, index: u64) -> Result<(Vec<u8>, Vec<u8>), FormatError> {
        let front = self.take(RECORD)?;
        let length = number(&front[..4]) as usize;
        if length > MOST {
            return Err(self.damaged(format!("record {index} of {length} bytes")));
        }
        let body = self.take(length)?;
        let length = [front[0], front[1], front[2], front[3]];
        if u64::from(crc(index, length, front[4], &body)) != number(&front[5..]) {
            return Err(self.damaged(format!("the checksum of record {index} does not hold")));
        }
        Ok((front, body))
    }
}

/// Up to eight bytes, little endian.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// Reads a whole file and checks every byte of it.
pub fn read(from: impl Read, levels: Levels) -> Result<(Header, Frozen), FormatError> {
    let mut source = Source::new(from);
    let header = source.header(levels)?;
    let mut restore = Restore::default();
    let mut pieces = 0;
    loop {
        let (front, body) = source.record(pieces)?;
        match front[4] {
            PIECE => {
                let piece = unpack(&body).map_err(|what| source.damaged(format!("record {pieces}: {what}")))?;
                restore.push(&piece).map_err(|error| source.damaged(format!("record {pieces}: {error}")))?;
                source.good(&[&front, &body]);
                pieces += 1;
            }
            END if body.len() == END_BODY => {
                let hash = source.hash.finish_128().to_le_bytes();
                if number(&body[..8]) != pieces || number(&body[8..16]) != header.state || body[16..] != hash {
                    return Err(source.damaged("what the last record says of the file does not hold"));
                }
                source.good(&[&front, &body]);
                break;
            }
            kind => return Err(source.damaged(format!("record {pieces} of unknown kind {kind}"))),
        }
    }
    if source.from.read(&mut [0]).map_err(FormatError::Read)? > 0 {
        return Err(source.damaged("bytes behind the end"));
    }
    let frozen = restore.finish().map_err(|error| source.damaged(error.to_string()))?;
    match frozen.checksum() {
        found if found == header.state => Ok((header, frozen)),
        found => {
            Err(source.damaged(format!("the checksum of the state is {found:016x}, expected {:016x}", header.state)))
        }
    }
}

fn unpack(body: &[u8]) -> Result<Vec<u8>, String> {
    let (length, packed) = body.split_at_checked(4).ok_or("it is too short")?;
    let length = number(length) as usize;
    if length > MOST {
        return Err(format!("{length} bytes when unpacked"));
    }
    zstd::bulk::decompress(packed, length).map_err(|error| error.to_string())
}
