//! A segment: one file of the log, its name and its header.
//!
//! Segments are named `<epoch>-<first index>.wal`, both as 16 hex digits. The epoch counts uses of
//! segment files and never repeats, so it gives the order of the log. The index alone cannot: after
//! a truncation a later segment may start at a lower index, or at the same one. The header names
//! the segment before and where that one ended, so that a lost file and a lost tail are seen.

use std::io;
use std::sync::Arc;

use super::files::{File, read_full, write_all};
use super::record::{u32_at, u64_at};

/// Bytes of the header; the first record follows.
pub const HEADER: u64 = 64;
/// Version of the log format this program writes and reads.
pub const VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"palliumW";
const SUFFIX: &str = ".wal";

/// What the header of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// This use of the file; grows by one with each new segment.
    pub epoch: u64,
    /// Epoch of the segment before, 0 for none.
    pub previous: u64,
    /// Where the records of the segment before ended.
    pub previous_end: u64,
    /// The index the next entry had when the segment was begun.
    pub first: u64,
}

/// An open segment.
pub struct Segment {
    /// File name.
    pub name: String,
    /// The file.
    pub file: Arc<dyn File>,
    /// Its header.
    pub header: Header,
    /// Length of the file: how much fits.
    pub length: u64,
}

/// Why a header could not be read.
#[derive(Debug)]
pub enum HeaderError {
    /// The file could not be read.
    Read(io::Error),
    /// Not a segment, or a damaged one.
    Damaged,
    /// A format of another version.
    Version(u32),
}

impl Header {
    /// The name of the segment's file.
    pub fn name(&self) -> String {
        format!("{:016x}-{:016x}{SUFFIX}", self.epoch, self.first)
    }

    fn encode(&self) -> [u8; HEADER as usize] {
        let mut bytes = [0; HEADER as usize];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        for (at, field) in [(16, self.epoch), (24, self.previous), (32, self.previous_end), (40, self.first)] {
            bytes[at..at + 8].copy_from_slice(&field.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Writes the header, followed by a terminator.
    pub fn write(&self, file: &dyn File) -> io::Result<()> {
        let mut bytes = self.encode().to_vec();
        bytes.extend_from_slice(&[0; super::record::TERMINATOR]);
        write_all(file, &bytes, 0)
    }

    /// Reads the header.
    pub fn read(file: &dyn File) -> Result<Header, HeaderError> {
        let mut bytes = [0; HEADER as usize];
        let read = read_full(file, &mut bytes, 0).map_err(HeaderError::Read)?;
        if read < bytes.len() || &bytes[..8] != MAGIC {
            return Err(HeaderError::Damaged);
        }
        let version = u32_at(&bytes, 8);
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        if crc32c::crc32c(&bytes[16..]) != u32_at(&bytes, 12) {
            return Err(HeaderError::Damaged);
        }
        Ok(Header {
            epoch: u64_at(&bytes, 16),
            previous: u64_at(&bytes, 24),
            previous_end: u64_at(&bytes, 32),
            first: u64_at(&bytes, 40),
        })
    }
}

/// The epoch in a segment's file name, or none for another file.
pub fn epoch_of(name: &str) -> Option<u64> {
    let (epoch, first) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    if epoch.len() != 16 || first.len() != 16 {
        return None;
    }
    u64::from_str_radix(first, 16).ok()?;
    u64::from_str_radix(epoch, 16).ok()
}
