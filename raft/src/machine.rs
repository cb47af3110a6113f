//! openraft's state machine: hands committed batches to the thread that owns the state, and takes
//! and installs snapshots. Keeps no state but what was applied last; never decides.

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{Stream, StreamExt};
use openraft::EntryPayload;
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use scheduler::mutant::{self, Mutant};
use scheduler::{Batch, Frozen};

use crate::identity::Me;
use crate::owner::{Gone, Owner};
use crate::snapshot::{Folder, Header, SnapshotError};
use crate::tasks;
use crate::types::{LogId, Payload, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};

/// Entries handed to the owner at once.
const APPLIED_AT_ONCE: usize = 64;

/// A snapshot, as openraft passes it around: a whole, durable file.
#[derive(Clone, Debug)]
pub struct SnapshotFile {
    /// The file.
    pub path: PathBuf,
}

/// The newest snapshot.
#[derive(Clone)]
struct Newest(Arc<Mutex<Option<(SnapshotMeta, PathBuf)>>>);

impl Newest {
    fn get(&self) -> MutexGuard<'_, Option<(SnapshotMeta, PathBuf)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, meta: &SnapshotMeta, path: PathBuf) {
        let mut newest = self.get();
        if newest.as_ref().is_none_or(|(newest, _)| newest.last_log_id <= meta.last_log_id) {
            *newest = Some((meta.clone(), path));
        }
    }
}

/// The state machine.
pub struct Machine {
    owner: Owner,
    me: Arc<Me>,
    folder: Folder,
    applied: Option<LogId>,
    membership: StoredMembership,
    newest: Newest,
}

impl Machine {
    /// On this owner, whose core was restored from `snapshot` if there is one.
    pub fn new(owner: Owner, me: Arc<Me>, folder: Folder, snapshot: Option<(PathBuf, Header)>) -> Machine {
        let (mut applied, mut membership, mut newest) = (None, StoredMembership::default(), None);
        if let Some((path, header)) = snapshot {
            applied = header.last;
            membership = header.membership.clone();
            newest = Some((header.meta(), path));
        }
        Machine { owner, me, folder, applied, membership, newest: Newest(Arc::new(Mutex::new(newest))) }
    }

    async fn hand_over(
        &self,
        batches: &mut Vec<Batch>,
        responders: &mut Vec<ApplyResponder<TypeConfig>>,
    ) -> io::Result<()> {
        if !batches.is_empty() {
            self.owner.apply(std::mem::take(batches)).await.map_err(io::Error::other)?;
        }
        for responder in responders.drain(..) {
            responder.send(());
        }
        Ok(())
    }

    /// The applied state, with the last log id and the membership that are in it. Nothing is applied
    /// until the future is done.
    pub fn applied(&self) -> impl Future<Output = Result<(Frozen, Option<LogId>, StoredMembership), Gone>> + use<> {
        let (owner, applied, membership) = (self.owner.clone(), self.applied, self.membership.clone());
        async move { Ok((owner.freeze().await?, applied, membership)) }
    }

    /// A feature level that this node does not support stops it before anything of the batch is
    /// applied. One that the cluster reaches is noted before it is.
    fn decode(&self, index: u64, bytes: &[u8]) -> io::Result<Batch> {
        let batch = Batch::decode(bytes, self.me.levels)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("log entry {index}: {error}")))?;
        if let Some(level) = batch.raises() {
            self.me.reached(level).map_err(io::Error::other)?;
        }
        Ok(batch)
    }

    async fn builder(&self) -> Builder {
        Builder {
            frozen: self.owner.freeze().await.map_err(|error| error.to_string()),
            folder: self.folder.clone(),
            applied: self.applied,
            membership: self.membership.clone(),
            newest: self.newest.clone(),
        }
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        let mut entries = pin!(entries.ready_chunks(APPLIED_AT_ONCE));
        let (mut batches, mut responders) = (Vec::new(), Vec::new());
        while let Some(chunk) = entries.next().await {
            let mut applied = self.applied;
            let mut membership = None;
            for item in chunk {
                let (entry, responder) = item?;
                applied = Some(entry.log_id);
                match entry.payload {
                    EntryPayload::Blank => {}
                    EntryPayload::Normal(Payload(bytes)) => batches.push(self.decode(entry.log_id.index, &bytes)?),
                    EntryPayload::Membership(new) => {
                        membership = Some(StoredMembership::new(Some(entry.log_id), new));
                    }
                }
                responders.extend(responder);
            }
            self.hand_over(&mut batches, &mut responders).await?;
            self.applied = applied;
            if let Some(membership) = membership {
                self.membership = membership;
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Builder> {
        Some(self.builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.builder().await
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotFile) -> io::Result<()> {
        let folder = self.folder.clone();
        let (path, header, core) = blocking(move || folder.take(&snapshot.path)).await?;
        if header.last != meta.last_log_id {
            let text = format!("{}: the snapshot is of another log id than was announced", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        self.me.reached(core.state().tables().counters().level).map_err(io::Error::other)?;
        if !mutant::on(Mutant::SkipRestore) {
            self.owner.restore(core).await.map_err(io::Error::other)?;
        }
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.newest.put(meta, path);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let newest = self.newest.get().clone();
        Ok(newest.map(|(meta, path)| Snapshot { meta, snapshot: SnapshotFile { path } }))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
) -> io::Result<T> {
    tasks::blocking(work).await?.map_err(io::Error::other)
}

/// A snapshot to be written: the frozen state and where it stands.
pub struct Builder {
    frozen: Result<Frozen, String>,
    folder: Folder,
    applied: Option<LogId>,
    membership: StoredMembership,
    newest: Newest,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let frozen = self.frozen.clone().map_err(io::Error::other)?;
        let (folder, applied, membership) = (self.folder.clone(), self.applied, self.membership.clone());
        let (path, header) = blocking(move || folder.save(applied, membership, &frozen)).await?;
        let meta = header.meta();
        self.newest.put(&meta, path.clone());
        Ok(Snapshot { meta, snapshot: SnapshotFile { path } })
    }
}
