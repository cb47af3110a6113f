//! What can go wrong with the log, each variant one thing an operator can act on.

use std::io;
use std::path::PathBuf;

/// Why the log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{directory}: another process holds this log; stop it, or give this one another data folder", directory = .0.display())]
    Locked(PathBuf),
    /// A file operation failed.
    #[error("{path}: {doing} failed: {source}; check the disk and the owner of the folder", path = .path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Written by another version of the format.
    #[error("{path}: log format version {found}, this program reads version {expected}; start the version of pallium that wrote it", path = .path.display())]
    Version {
        /// The segment.
        path: PathBuf,
        /// Version in its header.
        found: u32,
        /// Version this program reads.
        expected: u32,
    },
    /// Records that were durable once cannot be read.
    #[error(
        "{path}: {what} at offset {offset}: log entries from index {index} on were durable and cannot be read; \
         in a cluster: empty the data folder and let the node join again as a learner with a new node id; \
         for a lone voter: restore the disk, or start once with --accept-loss-from {index}, which forgets entry {index} and all after it",
        path = .path.display()
    )]
    Corrupt {
        /// The segment.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// The first log index that is lost.
        index: u64,
        /// What was found there.
        what: &'static str,
    },
    /// The start of a segment cannot be read.
    #[error(
        "{path}: the header of this log segment is damaged, so nothing in it can be trusted; restore the file, \
         or empty the data folder and let the node join again as a learner with a new node id",
        path = .0.display()
    )]
    Header(PathBuf),
    /// Entries or segments at the front are missing.
    #[error(
        "{directory}: the log starts at index {found}, expected {expected}: segment files are missing; \
         restore them, or empty the data folder and let the node join again as a learner with a new node id",
        directory = .directory.display()
    )]
    Missing {
        /// The log's folder.
        directory: PathBuf,
        /// The first index that is there.
        found: u64,
        /// The first index that should be.
        expected: u64,
    },
    /// A loss was accepted that is not the one found.
    #[error(
        "the first lost index is {lost}, but the loss was accepted from {accepted}; nothing was changed; start without --accept-loss-from and read the message"
    )]
    OtherLoss {
        /// The first lost index.
        lost: u64,
        /// The index in the option.
        accepted: u64,
    },
}

/// Why the log stopped. Once it has, every further request gets the same error.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No room for a new segment.
    #[error("{directory}: no space left for a log segment of {bytes} bytes; nothing acknowledged is lost; free at least {bytes} bytes there and start again", directory = .directory.display())]
    NoSpace {
        /// The log's folder.
        directory: PathBuf,
        /// Size of a segment.
        bytes: u64,
    },
    /// An operation on a file failed.
    #[error("{path}: {doing} failed: {source}; nothing acknowledged is lost; check the disk, then start again", path = .path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

impl Failure {
    /// The same failure as an I/O error, whose text is this one's.
    pub fn to_io(&self) -> io::Error {
        let kind = match self {
            Failure::NoSpace { .. } => io::ErrorKind::StorageFull,
            Failure::File { source, .. } => source.kind(),
            Failure::Closed => io::ErrorKind::BrokenPipe,
        };
        io::Error::new(kind, self.to_string())
    }
}
