//! Reading entries that are no longer in memory from their place on disk.
//!
//! A segment may be given back and written anew while it is read. Its epoch has changed then, so
//! what is read fails its checksum; the caller looks again and finds the entries purged. Never
//! changes anything.

use std::io;

use super::files::read_full;
use super::index::{Run, weight};
use super::record::{Entry, Found, Kind, Record, decode, entry_index, find};

const CHUNK: usize = 256 * 1024;

/// Reads the entries `start..=last` of a run, until `bytes` are exceeded; at least one.
pub fn read_run(run: &Run, start: u64, last: u64, bytes: usize, into: &mut Vec<Entry>) -> io::Result<()> {
    let epoch = run.segment.header.epoch;
    let mut offset = run.offset_before(start);
    let mut taken: usize = 0;
    let mut chunk = CHUNK;
    let mut expected = start;
    loop {
        let mut buffer = vec![0; chunk.min((run.end - offset) as usize)];
        let read = read_full(&*run.segment.file, &mut buffer, offset)?;
        buffer.truncate(read);
        let mut at = 0;
        loop {
            let more = offset + (read as u64) < run.end;
            match find(&buffer, at, epoch, more) {
                Found::Valid { kind, body, next } => {
                    at = next;
                    let index = if kind == Kind::Entry { entry_index(&buffer[body.clone()]) } else { None };
                    if index != Some(expected) {
                        continue;
                    }
                    let Some(Record::Entry(entry)) = decode(kind, &buffer[body]) else {
                        return Err(unreadable(expected));
                    };
                    taken += weight(&entry);
                    if taken > bytes && !into.is_empty() {
                        return Ok(());
                    }
                    into.push(entry);
                    if expected == last {
                        return Ok(());
                    }
                    expected += 1;
                }
                Found::More(needed) => {
                    chunk = CHUNK.max(needed);
                    break;
                }
                Found::End | Found::Bad => return Err(unreadable(expected)),
            }
        }
        offset += at as u64;
    }
}

fn unreadable(index: u64) -> io::Error {
    let text = format!("log entry {index} cannot be read back; the disk returned other bytes than were written");
    io::Error::new(io::ErrorKind::InvalidData, text)
}
