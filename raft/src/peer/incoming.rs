//! A snapshot file that comes in parts. What has come stays when the sender breaks off, so that the
//! next one of the same snapshot goes on from there. It is installed only when the whole file is
//! durable and its checksum holds.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::message::Part;
use crate::types::LogId;

/// Bytes of a part.
pub const PART: usize = 1 << 20;
/// Most bytes of a snapshot file that are taken.
const MOST: u64 = 1 << 40;

/// The snapshot that is coming in.
#[derive(Debug)]
pub struct Incoming {
    folder: PathBuf,
    current: Mutex<Option<Arriving>>,
}

#[derive(Debug)]
struct Arriving {
    last: Option<LogId>,
    total: u64,
    path: PathBuf,
    here: u64,
}

impl Incoming {
    /// In this folder, which the snapshots are in too.
    pub fn new(folder: PathBuf) -> Incoming {
        Incoming { folder, current: Mutex::default() }
    }

    /// Takes a part and tells how many bytes are there. May wait for the disk.
    pub fn take(&self, part: &Part) -> io::Result<u64> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if part.total > MOST {
            return Err(invalid(format!("a snapshot of {} bytes is too large", part.total)));
        }
        let same = current.as_ref().is_some_and(|at| at.last == part.last && at.total == part.total);
        if !same {
            if let Some(old) = current.take() {
                let _ = fs::remove_file(old.path);
            }
            fs::create_dir_all(&self.folder)?;
            let path = self.folder.join("incoming.unfinished");
            File::create(&path)?;
            *current = Some(Arriving { last: part.last, total: part.total, path, here: 0 });
        }
        let Some(at) = current.as_mut() else { return Ok(0) };
        if part.bytes.is_empty() || part.offset != at.here {
            return Ok(at.here);
        }
        if crc32c::crc32c(&part.bytes) != part.crc {
            return Err(invalid(format!("the part at {} was damaged on its way", part.offset)));
        }
        if at.here + part.bytes.len() as u64 > at.total {
            return Err(invalid(format!("the part at {} goes beyond the end, {}", part.offset, at.total)));
        }
        let mut file = OpenOptions::new().write(true).open(&at.path)?;
        file.seek(SeekFrom::Start(at.here))?;
        file.write_all(&part.bytes)?;
        at.here += part.bytes.len() as u64;
        Ok(at.here)
    }

    /// The whole file, durable, when its checksum holds.
    pub fn finish(&self, last: Option<LogId>, total: u64, crc: u32) -> io::Result<PathBuf> {
        let at = self.current.lock().unwrap_or_else(PoisonError::into_inner).take();
        let at = at.filter(|at| at.last == last && at.total == total && at.here == total);
        let at = at.ok_or_else(|| invalid("the snapshot is not here as a whole".to_owned()))?;
        let found = sum_of(&at.path)?;
        if found != (total, crc) {
            return Err(invalid("the snapshot was damaged on its way".to_owned()));
        }
        File::open(&at.path)?.sync_all()?;
        Ok(at.path)
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Length and crc32c of a file.
pub fn sum_of(path: &Path) -> io::Result<(u64, u32)> {
    let mut file = File::open(path)?;
    let (mut length, mut crc) = (0, 0);
    let mut buffer = vec![0; PART];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((length, crc)),
            read => {
                crc = crc32c::crc32c_append(crc, &buffer[..read]);
                length += read as u64;
            }
        }
    }
}

/// The part of a file at an offset.
pub fn read_part(path: &Path, offset: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::with_capacity(PART);
    file.take(PART as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn part(offset: u64, bytes: &[u8]) -> Part {
        Part { last: None, total: 6, offset, crc: crc32c::crc32c(bytes), bytes: bytes.to_vec() }
    }

    #[test]
    fn parts_arrive_in_order_go_on_and_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let incoming = Incoming::new(folder.path().join("snapshots"));
        assert_eq!(incoming.take(&part(0, b"")).unwrap(), 0);
        assert_eq!(incoming.take(&part(0, b"abc")).unwrap(), 3);
        assert_eq!(incoming.take(&part(0, b"abc")).unwrap(), 3, "a repeat changes nothing");
        assert_eq!(incoming.take(&part(5, b"f")).unwrap(), 3, "neither does a gap");
        assert!(incoming.take(&Part { crc: 1, ..part(3, b"def") }).is_err());
        assert!(incoming.take(&part(3, b"defg")).is_err());
        assert_eq!(incoming.take(&part(0, b"")).unwrap(), 3);
        assert_eq!(incoming.take(&part(3, b"def")).unwrap(), 6);
        let path = incoming.finish(None, 6, crc32c::crc32c(b"abcdef")).unwrap();
        assert_eq!(fs::read(path).unwrap(), b"abcdef");
        assert!(incoming.finish(None, 6, 0).is_err(), "it is taken once");
    }
}
