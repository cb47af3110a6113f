//! Answers the letters of peers. Refuses a letter of another cluster, from another data folder than
//! the membership names, or to another node than this one; everything else is handed on.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::AppendEntriesRequest;
use scheduler::Batch;

use super::acknowledged::Ledger;
use super::incoming::Incoming;
use super::message::{Answer, Ask, Head, Hello, Letter, decode, encode};
use crate::clock;
use crate::identity::Me;
use crate::local::Local;
use crate::machine::SnapshotFile;
use crate::members;
use crate::node::failover as order;
use crate::tasks;
use crate::types::{Snapshot, TypeConfig};

/// Answers peers.
pub struct Door {
    me: Arc<Me>,
    ledger: Arc<Ledger>,
    incoming: Incoming,
    local: OnceLock<Local>,
    has_log: bool,
}

impl Door {
    /// Answers for this node; until [`Door::open`] only who it is.
    pub fn new(me: Arc<Me>, ledger: Arc<Ledger>, incoming: Incoming, has_log: bool) -> Door {
        Door { me, ledger, incoming, local: OnceLock::new(), has_log }
    }

    /// From now on everything is answered.
    pub fn open(&self, local: Local) {
        let _ = self.local.set(local);
    }

    /// Answers one letter.
    pub async fn answer(self: Arc<Self>, letter: &[u8]) -> Bytes {
        let answer = match decode::<Letter>(letter) {
            Ok(Letter { head, ask }) => match self.check(&head, &ask) {
                Ok(()) => self.ask(head, ask).await,
                Err(why) => Answer::Rejected(why),
            },
            Err(error) => Answer::Rejected(format!("the letter could not be read: {error}")),
        };
        bytes(&answer)
    }

    /// Answers a stream of entries, in order. It ends with the first letter that is not one.
    pub fn stream(self: Arc<Self>, letters: BoxStream<'static, Bytes>) -> BoxStream<'static, Bytes> {
        futures::stream::once(self.begin(letters)).flatten().boxed()
    }

    async fn begin(self: Arc<Self>, mut letters: BoxStream<'static, Bytes>) -> BoxStream<'static, Bytes> {
        let refuse = |answer: &Answer| {
            let bytes = bytes(answer);
            futures::stream::once(async { bytes }).boxed()
        };
        let Some(first) = letters.next().await else { return futures::stream::empty().boxed() };
        let first = match decode::<Letter>(&first) {
            Ok(Letter { head, ask: Ask::Append(first) }) => match self.check_member(&head) {
                Ok(()) => first,
                Err(why) => return refuse(&Answer::Rejected(why)),
            },
            Ok(_) => return refuse(&Answer::Rejected("only entries are taken in a stream".to_owned())),
            Err(error) => return refuse(&Answer::Rejected(format!("the letter could not be read: {error}"))),
        };
        let Some(local) = self.local.get() else { return refuse(&Answer::NotReady) };
        let requests = futures::stream::once(async { first }).chain(entries(letters));
        let answers = local.raft.stream_append(requests.boxed());
        answers.map(|result| bytes(&result.map_or(Answer::NotReady, Answer::Streamed))).boxed()
    }

    fn check(&self, head: &Head, ask: &Ask) -> Result<(), String> {
        match ask {
            Ask::Hello => self.check_address(head),
            Ask::Adopt => {
                self.check_address(head)?;
                let mine = self.me.get().cluster;
                if !mine.is_nil() && mine != head.cluster {
                    return Err(format!("node {} is a member of cluster {mine} already", head.to));
                }
                Ok(())
            }
            _ => self.check_member(head),
        }
    }

    fn check_address(&self, head: &Head) -> Result<(), String> {
        let me = self.me.get();
        self.me.levels.check(head.level).map_err(|error| format!("letters of {error} on node {}", me.node))?;
        if head.to != me.node {
            return Err(format!("this is node {}, not node {}: an address in the cluster is wrong", me.node, head.to));
        }
        Ok(())
    }

    fn check_member(&self, head: &Head) -> Result<(), String> {
        self.check_address(head)?;
        let me = self.me.get();
        if head.cluster != me.cluster {
            return Err(format!("node {} is not of cluster {}", me.node, head.cluster));
        }
        if let Some(expected) = head.to_store
            && expected != me.store
        {
            return Err(format!(
                "node {} has another data folder ({}) than the cluster knows ({expected}): remove it and add it with a \
                 new node id",
                me.node, me.store
            ));
        }
        let known = self.local.get().and_then(|local| {
            let metrics = local.raft.metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.membership().get_node(&head.from).map(|member| member.store)
        });
        match known {
            Some(store) if store != head.store => Err(format!(
                "node {} speaks from another data folder ({}) than the cluster knows ({store})",
                head.from, head.store
            )),
            _ => Ok(()),
        }
    }

    async fn ask(self: Arc<Self>, head: Head, ask: Ask) -> Answer {
        match ask {
            Ask::Hello => Answer::Hello(self.hello(head.from)),
            Ask::Adopt => match self.me.adopt(head.cluster) {
                Ok(()) => Answer::Hello(self.hello(head.from)),
                Err(error) => Answer::Rejected(error.to_string()),
            },
            Ask::Part(part) => {
                let taken = blocking(move || self.incoming.take(&part)).await;
                taken.map_or_else(|error| Answer::Rejected(error.to_string()), Answer::Here)
            }
            ask => match self.local.get() {
                Some(local) => self.hand_on(local, head.from, ask).await,
                None => Answer::NotReady,
            },
        }
    }

    fn hello(&self, to: u64) -> Hello {
        let me = self.me.get();
        let has_log = self.has_log || self.local.get().is_some_and(|local| local.status().last.is_some());
        Hello {
            cluster: me.cluster,
            node: me.node,
            store: me.store,
            has_log,
            acknowledged: self.ledger.of(to),
            levels: self.me.levels,
        }
    }

    async fn hand_on(self: &Arc<Self>, local: &Local, from: u64, ask: Ask) -> Answer {
        let raft = &local.raft;
        match ask {
            Ask::Vote(rpc) => raft.vote(rpc).await.map_or(Answer::NotReady, Answer::Voted),
            Ask::PreVote(rpc) => raft.pre_vote(rpc).await.map_or(Answer::NotReady, Answer::Voted),
            Ask::Append(rpc) => raft.append_entries(rpc).await.map_or(Answer::NotReady, Answer::Appended),
            Ask::Transfer(rpc) => match raft.handle_transfer_leader(rpc).await {
                Ok(taken) => Answer::Transferred(taken.err().map(|error| error.to_string())),
                Err(_) => Answer::NotReady,
            },
            Ask::Install { vote, meta, bytes, crc } => {
                let (door, last) = (Arc::clone(self), meta.last_log_id);
                match blocking(move || door.incoming.finish(last, bytes, crc)).await {
                    Ok(path) => {
                        let snapshot = Snapshot { meta, snapshot: SnapshotFile { path } };
                        let installed = raft.install_full_snapshot(vote, snapshot).await;
                        installed.map_or(Answer::NotReady, Answer::Installed)
                    }
                    Err(error) => Answer::Rejected(error.to_string()),
                }
            }
            Ask::ReadIndex => Answer::Index(local.read_index().await),
            Ask::Decide { request, wait } => {
                let deadline = clock::now() + Duration::from_millis(wait);
                let decided = local.decide(Arc::new(*request), deadline).await;
                Answer::Decided(Box::new(decided.map(Arc::unwrap_or_clone)))
            }
            Ask::Propose(batch) => {
                match Batch::decode(&batch, self.me.levels).map(|batch| batch.commands.into_iter().next()) {
                    Ok(Some(command)) => Answer::Done(local.propose(command).await),
                    Ok(None) => Answer::Rejected("no command".to_owned()),
                    Err(error) => Answer::Rejected(error.to_string()),
                }
            }
            Ask::Change(change) => Answer::Changed(members::change(local, change).await),
            Ask::Shadows => Answer::Shadows(local.shadows().await),
            Ask::Explain { id, hosts } => Answer::Explained(local.explain(id, hosts).await),
            Ask::Report => Answer::Report(Box::new(local.report().await)),
            Ask::Overheard(told) => {
                let leads = local.owner.leads();
                if leads {
                    local.ears.take(from, *told);
                }
                Answer::Heard(leads.then(|| local.ears.relay(from)))
            }
            Ask::Order(bytes) => match order::decode(&bytes) {
                Ok((actor, change)) => Answer::Done(local.order(actor, change).await),
                Err(why) => Answer::Rejected(why),
            },
            Ask::Hello | Ask::Adopt | Ask::Part(_) => Answer::NotReady,
        }
    }
}

fn entries(letters: BoxStream<'static, Bytes>) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send {
    letters
        .map(|letter| match decode::<Letter>(&letter) {
            Ok(Letter { ask: Ask::Append(request), .. }) => Some(request),
            _ => None,
        })
        .take_while(|request| std::future::ready(request.is_some()))
        .filter_map(std::future::ready)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tasks::blocking(work).await?
}

/// An answer that cannot be written is one that cannot be read.
fn bytes(answer: &Answer) -> Bytes {
    let fallback = |error: io::Error| encode(&Answer::Rejected(error.to_string())).unwrap_or_default();
    encode(answer).unwrap_or_else(fallback)
}
