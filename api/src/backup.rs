//! A backup on its way to a caller: written on a thread that may take its time, in pieces that wait for
//! who reads them. A reader that goes away ends the writing.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt;
use raft::Backup;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::error::ApiError;
use crate::limits::Held;
use crate::proto::v1::BackupChunk;
use crate::watch::Events;

/// Bytes of a piece.
const PIECE: usize = 256 << 10;
/// Pieces that wait for the reader.
const WAITING: usize = 4;

type Piece = Result<BackupChunk, ApiError>;

/// The pieces of a backup; its place among the backups is given back with the last one.
pub(crate) fn pieces(backup: Backup, held: Held) -> Events<Piece> {
    let (send, receive) = mpsc::channel(WAITING);
    tokio::task::spawn_blocking(move || {
        let _held = held;
        let done = Arc::new(AtomicU64::new(0));
        let mut out = Pieces { send: send.clone(), full: Vec::new(), done: Arc::clone(&done), total: backup.records() };
        let written = backup.write(&mut out, |records| {
            done.fetch_add(records, Ordering::Relaxed);
        });
        if let Err(error) = written
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            let _ = send.blocking_send(Err(ApiError::internal(format!("the backup broke off: {error}"))));
        }
    });
    ReceiverStream::new(receive).boxed()
}

struct Pieces {
    send: mpsc::Sender<Piece>,
    full: Vec<u8>,
    done: Arc<AtomicU64>,
    total: u64,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.full.extend_from_slice(bytes);
        if self.full.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let data = std::mem::take(&mut self.full);
        let chunk = BackupChunk { data, done: self.done.load(Ordering::Relaxed), total: self.total };
        self.send.blocking_send(Ok(chunk)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
