//! openraft's log storage on the write-ahead log. Translates types; keeps nothing of its own.

#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use futures::Stream;
use openraft::entry::EntryPayload;
use openraft::impls::leader_id_adv::LeaderId;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use tokio::sync::oneshot;

use crate::tasks;
use crate::types::{Entry, LogId, Payload, TypeConfig, Vote};
use crate::wal::{self, Done, Wal};

/// Bytes of entries sent to a peer at once, and handed to the state machine at once.
const READ_BYTES: usize = 1 << 20;

const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// The log, as openraft sees it. Clones share it.
#[derive(Clone)]
pub struct LogStore {
    wal: Arc<Wal>,
}

impl LogStore {
    /// On this log.
    pub fn new(wal: Arc<Wal>) -> LogStore {
        LogStore { wal }
    }

    /// Entries in memory are read here, older ones on a thread that may wait for the disk.
    async fn read(&self, start: u64, end: u64, bytes: usize) -> io::Result<Vec<Entry>> {
        let entries = if self.wal.in_memory(start) {
            self.wal.read(start, end, bytes)?
        } else {
            let wal = Arc::clone(&self.wal);
            tasks::blocking(move || wal.read(start, end, bytes)).await??
        };
        entries.into_iter().map(from_wal).collect()
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (start, end) = bounds(&range);
        self.read(start, end, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, READ_BYTES).await
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + Send
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (start, end) = bounds(&range);
        let store = self.clone();
        let parts = futures::stream::try_unfold(start, move |next| {
            let store = store.clone();
            async move {
                let entries = store.read(next, end, READ_BYTES).await?;
                let Some(last) = entries.last() else { return Ok(None) };
                let next = last.log_id.index + 1;
                Ok::<_, io::Error>(Some((entries, next)))
            }
        });
        futures::TryStreamExt::try_flatten(futures::TryStreamExt::map_ok(parts, |entries| {
            futures::stream::iter(entries.into_iter().map(Ok))
        }))
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.wal.vote().map(|vote| Vote {
            leader_id: LeaderId { term: vote.term, node_id: vote.node },
            committed: vote.committed,
        }))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let (purged, last) = self.wal.ends();
        Ok(LogState { last_purged_log_id: purged.map(log_id), last_log_id: last.map(log_id) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let vote = wal::Vote { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed };
        durable(|done| self.wal.save_vote(vote, done)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        if let Some(committed) = committed {
            self.wal.save_committed(wal_id(&committed));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.wal.committed().map(log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries = entries.into_iter().map(to_wal).collect::<io::Result<Vec<_>>>()?;
        self.wal.append(entries, Box::new(|result| callback.io_completed(result)))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        durable(|done| self.wal.truncate_after(last.as_ref().map(wal_id), done)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        durable(|done| self.wal.purge(wal_id(&upto), done)).await
    }
}

/// Waits until a request is durable.
async fn durable(request: impl FnOnce(Done)) -> io::Result<()> {
    let (tell, told) = oneshot::channel();
    request(Box::new(move |result| {
        let _ = tell.send(result);
    }));
    told.await.unwrap_or_else(|_| Err(wal::Failure::Closed.to_io()))
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end + 1,
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

/// The log id in openraft's words.
pub fn log_id(id: wal::LogId) -> LogId {
    LogId { leader_id: LeaderId { term: id.term, node_id: id.node }, index: id.index }
}

/// The log id in the log's words.
pub fn wal_id(id: &LogId) -> wal::LogId {
    wal::LogId { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
}

fn to_wal(entry: Entry) -> io::Result<wal::Entry> {
    let id = wal_id(&entry.log_id);
    let (kind, data) = match entry.payload {
        EntryPayload::Blank => (BLANK, bytes::Bytes::new()),
        EntryPayload::Normal(Payload(data)) => (NORMAL, data),
        EntryPayload::Membership(membership) => (MEMBERSHIP, serde_json::to_vec(&membership)?.into()),
    };
    Ok(wal::Entry { id, kind, data })
}

/// The entry in openraft's words.
pub fn from_wal(entry: wal::Entry) -> io::Result<Entry> {
    let payload = match entry.kind {
        BLANK => EntryPayload::Blank,
        NORMAL => EntryPayload::Normal(Payload(entry.data)),
        MEMBERSHIP => EntryPayload::Membership(serde_json::from_slice(&entry.data)?),
        kind => {
            let text = format!("log entry {} is of kind {kind}: a newer version of pallium wrote it", entry.id.index);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
    };
    Ok(Entry { log_id: log_id(entry.id), payload })
}
