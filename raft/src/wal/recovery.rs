//! Reading the log back when it is opened, and telling a torn end from damage.
//!
//! Segments are read in order. In the last one the first bytes that are no record end the log, if
//! no later write is seen behind them: that write was never acknowledged. Anything else that cannot
//! be read was durable once, and opening is refused. Never drops a durable entry, unless told to by
//! `accept_loss_from`; even then it keeps the highest vote it can find and leaves the files that
//! hold what was dropped under another name.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::OpenError;
use super::files::{Files, read_full, write_all};
use super::index::Index;
use super::record::{Found, HEADER, Kind, Record, TERMINATOR, Vote, decode, find};
use super::segment::{self, Header, HeaderError, Segment, epoch_of};

/// The end of the log was not written completely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The segment.
    pub path: PathBuf,
    /// Where the incomplete write starts.
    pub offset: u64,
    /// The first index that may have been in it.
    pub index: u64,
}

/// What was read back.
pub struct Recovered {
    /// The content.
    pub index: Index,
    /// All segments, oldest first.
    pub segments: Vec<Arc<Segment>>,
    /// Where to write next in the last one.
    pub end: u64,
    /// An incomplete write at the end.
    pub torn: Option<Torn>,
    /// A vote found behind damage that was accepted; it must be written again.
    pub salvaged: Option<Vote>,
}

/// Where and how reading stopped.
struct Damage {
    offset: usize,
    what: &'static str,
}

/// Reads all segments in `names`.
pub fn recover(
    files: &dyn Files,
    mut names: Vec<String>,
    tail_bytes: usize,
    accept_loss_from: Option<u64>,
) -> Result<Recovered, OpenError> {
    names.sort_by_key(|name| epoch_of(name));
    let mut found = Recovered { index: Index::default(), segments: Vec::new(), end: 0, torn: None, salvaged: None };
    let mut damage = None;
    let mut names = names.into_iter().peekable();
    while let Some(name) = names.next() {
        let segment = open(files, &name)?;
        check_chain(files, &found, &segment)?;
        let mut bytes = vec![0; segment.length as usize];
        let read = read_full(&*segment.file, &mut bytes, 0).map_err(file_error(files, &name, "reading"))?;
        bytes.truncate(read);
        let last = names.peek().is_none();
        let expected_end = match names.peek() {
            Some(next) => Some(open(files, next)?.header),
            None => None,
        };
        let expected_end =
            expected_end.filter(|next| next.previous == segment.header.epoch).map(|next| next.previous_end);
        let stopped = replay(&mut found, &segment, &bytes, tail_bytes);
        let end = found.end as usize;
        found.segments.push(Arc::clone(&segment));
        if let Err(what) = stopped {
            damage = Some(Damage { offset: end, what });
        } else if let Some(expected) = expected_end
            && expected != found.end
        {
            damage = Some(Damage { offset: end, what: "no readable record" });
        } else if last && later_write(&bytes, end, segment.header.epoch) {
            damage = Some(Damage { offset: end, what: "a damaged record" });
        } else if last && !is_clean(&bytes, end, segment.header.epoch) {
            clear(files, &segment, &bytes, end..bytes.len().min(end + MAX_WRITE))?;
            let path = files.directory().join(&name);
            found.torn = Some(Torn { path, offset: found.end, index: found.index.next });
        }
        if let Some(damage) = damage.take() {
            let index = found.index.next;
            match accept_loss_from {
                None => {
                    let path = files.directory().join(&name);
                    return Err(OpenError::Corrupt { path, offset: damage.offset as u64, index, what: damage.what });
                }
                Some(accepted) if accepted != index => return Err(OpenError::OtherLoss { lost: index, accepted }),
                Some(_) => {
                    give_up(files, &mut found, &segment, &bytes, names.by_ref().collect())?;
                    break;
                }
            }
        }
    }
    check_front(files, &found)?;
    Ok(found)
}

/// More than one write of the writer thread can have put behind its start.
const MAX_WRITE: usize = 16 << 20;

fn open(files: &dyn Files, name: &str) -> Result<Arc<Segment>, OpenError> {
    let path = files.directory().join(name);
    let file = files.open(name).map_err(file_error(files, name, "opening"))?;
    let length = file.length().map_err(file_error(files, name, "reading the length"))?;
    let header = match Header::read(&*file) {
        Ok(header) => header,
        Err(HeaderError::Read(source)) => return Err(OpenError::File { path, doing: "reading the header", source }),
        Err(HeaderError::Damaged) => return Err(OpenError::Header(path)),
        Err(HeaderError::Version(found)) => {
            return Err(OpenError::Version { path, found, expected: segment::VERSION });
        }
    };
    if epoch_of(name) != Some(header.epoch) {
        return Err(OpenError::Header(path));
    }
    Ok(Arc::new(Segment { name: name.to_owned(), file, header, length }))
}

fn check_chain(files: &dyn Files, found: &Recovered, segment: &Segment) -> Result<(), OpenError> {
    match found.segments.last() {
        Some(previous) if previous.header.epoch != segment.header.previous => Err(OpenError::Missing {
            directory: files.directory().to_owned(),
            found: segment.header.first,
            expected: found.index.next,
        }),
        _ => Ok(()),
    }
}

fn check_front(files: &dyn Files, found: &Recovered) -> Result<(), OpenError> {
    let index = &found.index;
    let expected = index.purged.map_or(0, |purged| purged.index + 1);
    if index.is_empty() || index.first == expected {
        return Ok(());
    }
    Err(OpenError::Missing { directory: files.directory().to_owned(), found: index.first, expected })
}

/// Takes in the records of a segment; leaves where they end in `found.end`.
fn replay(found: &mut Recovered, segment: &Arc<Segment>, bytes: &[u8], tail_bytes: usize) -> Result<(), &'static str> {
    let epoch = segment.header.epoch;
    let mut at = segment::HEADER as usize;
    found.end = at as u64;
    while let Found::Valid { kind, body, next } = find(bytes, at, epoch, false) {
        let index = &mut found.index;
        match decode(kind, &bytes[body]).ok_or("a record of unknown shape")? {
            Record::Mark(offset) if offset == at as u64 => {}
            Record::Mark(_) => return Err("a record of another place"),
            Record::Entry(entry) => {
                let number = entry.id.index;
                index.append(entry).map_err(|_| "an entry that does not follow the one before")?;
                index.place(segment, number, at as u64, next as u64);
                index.shrink(tail_bytes);
            }
            Record::Vote(vote) => index.vote = Some(vote),
            Record::Truncate { from, last } => {
                index.unplace(from);
                index.truncate(from, last);
            }
            Record::Purged(upto) => {
                index.purge(upto);
                index.unplace_purged(upto.index);
            }
            Record::Committed(upto) => index.committed = index.committed.max(Some(upto)),
        }
        at = next;
        found.end = at as u64;
    }
    Ok(())
}

/// Whether a write that began later than the bytes at `end` is seen: then those were synced.
fn later_write(bytes: &[u8], end: usize, epoch: u64) -> bool {
    aligned(bytes, end).skip(1).any(|at| is_mark(bytes, at, epoch))
}

fn is_mark(bytes: &[u8], at: usize, epoch: u64) -> bool {
    bytes[at..at + 4] == 8_u32.to_le_bytes()
        && matches!(find(bytes, at, epoch, false), Found::Valid { kind: Kind::Mark, ref body, .. }
            if decode(Kind::Mark, &bytes[body.clone()]) == Some(Record::Mark(at as u64)))
}

/// Whether the log ends with the zeros behind the last write, and nothing of this epoch follows.
fn is_clean(bytes: &[u8], end: usize, epoch: u64) -> bool {
    let terminator = &bytes[end..bytes.len().min(end + TERMINATOR)];
    terminator.iter().all(|byte| *byte == 0)
        && !aligned(bytes, end)
            .take(MAX_WRITE / 8)
            .any(|at| matches!(find(bytes, at, epoch, false), Found::Valid { .. }))
}

fn aligned(bytes: &[u8], from: usize) -> impl Iterator<Item = usize> {
    (from..bytes.len().saturating_sub(HEADER + 7)).step_by(8)
}

fn clear(files: &dyn Files, segment: &Segment, bytes: &[u8], range: Range<usize>) -> Result<(), OpenError> {
    let zeros = vec![0; range.len()];
    if bytes[range.clone()] == zeros[..] {
        return Ok(());
    }
    write_all(&*segment.file, &zeros, range.start as u64).map_err(file_error(files, &segment.name, "clearing"))?;
    segment.file.sync_data().map_err(file_error(files, &segment.name, "syncing"))
}

/// Drops what is behind the damage, keeping the highest vote.
fn give_up(
    files: &dyn Files,
    found: &mut Recovered,
    segment: &Segment,
    bytes: &[u8],
    later: Vec<String>,
) -> Result<(), OpenError> {
    let end = found.end as usize;
    let mut vote = highest_vote(bytes, end, segment.header.epoch);
    for name in &later {
        let segment = open(files, name)?;
        let mut bytes = vec![0; segment.length as usize];
        read_full(&*segment.file, &mut bytes, 0).map_err(file_error(files, name, "reading"))?;
        vote = vote.max(highest_vote(&bytes, segment::HEADER as usize, segment.header.epoch));
    }
    found.salvaged = vote.filter(|_| vote > found.index.vote);
    found.index.vote = found.index.vote.max(vote);
    found.index.committed = found.index.committed.min(found.index.last);
    let kept = format!("{}.damaged", segment.name);
    let copy = files.create(&kept).map_err(file_error(files, &kept, "creating"))?;
    write_all(&*copy, bytes, 0).map_err(file_error(files, &kept, "writing"))?;
    copy.sync_all().map_err(file_error(files, &kept, "syncing"))?;
    for name in later {
        files.rename(&name, &format!("{name}.lost")).map_err(file_error(files, &name, "renaming"))?;
    }
    files.sync_directory().map_err(file_error(files, "", "syncing the folder"))?;
    clear(files, segment, bytes, end..bytes.len())?;
    tracing::error!(
        directory = %files.directory().display(), index = found.index.next,
        "a loss was accepted: log entries from this index on are forgotten"
    );
    Ok(())
}

fn highest_vote(bytes: &[u8], from: usize, epoch: u64) -> Option<Vote> {
    let votes = aligned(bytes, from).filter_map(|at| match find(bytes, at, epoch, false) {
        Found::Valid { kind: Kind::Vote, body, .. } => match decode(Kind::Vote, &bytes[body]) {
            Some(Record::Vote(vote)) => Some(vote),
            _ => None,
        },
        _ => None,
    });
    votes.max()
}

fn file_error(files: &dyn Files, name: &str, doing: &'static str) -> impl FnOnce(io::Error) -> OpenError {
    let path = files.directory().join(name);
    move |source| OpenError::File { path, doing, source }
}
