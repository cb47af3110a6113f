//! openraft's network over a [`Link`].
//!
//! Log entries go in a stream of their own, heartbeats and votes one by one on another connection,
//! snapshots in parts on a third. Never decides whether a peer is alive: it only reports that an
//! answer did not come.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, Either, select};
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};

use super::acknowledged::Ledger;
use super::incoming::{PART, read_part, sum_of};
use super::link::{Broken, Lane, Link, Target};
use super::message::{Answer, Ask, Head, Letter, Part, decode, encode};
use crate::identity::Me;
use crate::machine::SnapshotFile;
use crate::tasks;
use crate::types::{Member, Snapshot, TypeConfig, Vote};

type RpcError = RPCError<TypeConfig>;

/// What this node knows and uses when it speaks to peers.
#[derive(Clone)]
pub struct Peers {
    /// Carries the letters.
    pub link: Arc<dyn Link>,
    /// Who speaks.
    pub me: Arc<Me>,
    /// What peers acknowledged.
    pub ledger: Arc<Ledger>,
    /// Snapshots on their way: peer → bytes sent, bytes in all.
    pub sending: Arc<Mutex<BTreeMap<u64, (u64, u64)>>>,
    /// Time without an answer after which a stream counts as broken.
    pub patience: Duration,
    /// Bytes of a snapshot that are sent in a second; 0 = as many as go.
    pub snapshot_rate: u64,
}

impl Peers {
    /// The head of a letter from this node.
    pub fn head(&self, to: &Target) -> Head {
        let (me, level) = (self.me.get(), self.me.level());
        Head { level, cluster: me.cluster, from: me.node, store: me.store, to: to.node, to_store: to.store }
    }

    /// Asks a peer.
    pub async fn ask(&self, to: &Target, lane: Lane, ask: Ask, within: Duration) -> Result<Answer, Broken> {
        let mut head = self.head(to);
        if matches!(ask, Ask::Hello) {
            // Who is no member may run the former version, and shall say so.
            head.level = self.me.levels.oldest;
        }
        let letter = encode(&Letter { head, ask }).map_err(|error| Broken::NotSent(error.to_string()))?;
        let answer = self.link.call(to, lane, letter, within).await?;
        match decode(&answer) {
            Ok(Answer::Rejected(why)) => Err(Broken::NotSent(why)),
            Ok(Answer::NotReady) => Err(Broken::NotSent("the node is starting or stopping".to_owned())),
            Ok(answer) => Ok(answer),
            Err(error) => Err(Broken::Unknown(format!("its answer could not be read: {error}"))),
        }
    }

    /// Snapshots on their way: peer, bytes sent, bytes in all.
    pub fn sending(&self) -> BTreeMap<u64, (u64, u64)> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn progress(&self, peer: u64, progress: Option<(u64, u64)>) {
        let mut sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        match progress {
            Some(progress) => sending.insert(peer, progress),
            None => sending.remove(&peer),
        };
    }
}

/// Makes connections to peers.
pub struct Network(pub Peers);

impl Network {
    fn peer(&self, target: u64, member: &Member, lane: Lane) -> Peer {
        let to = Target { node: target, addr: member.addr.clone(), store: Some(member.store) };
        Peer { peers: self.0.clone(), to, lane, complaint: None }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, member: &Member) -> Peer {
        self.peer(target, member, Lane::Log)
    }

    async fn new_heartbeat_client(&mut self, target: u64, member: &Member) -> Peer {
        self.peer(target, member, Lane::Control)
    }

    async fn new_snapshot_client(&mut self, target: u64, member: &Member) -> Peer {
        self.peer(target, member, Lane::Snapshot)
    }
}

/// One peer, on one lane.
pub struct Peer {
    peers: Peers,
    to: Target,
    lane: Lane,
    /// What was last logged about it.
    complaint: Option<String>,
}

fn unreachable(what: &dyn ToString) -> RpcError {
    Unreachable::from_string(what.to_string()).into()
}

fn unexpected(answer: &Answer) -> RpcError {
    NetworkError::from_string(format!("an answer to another question: {answer:?}")).into()
}

impl Peer {
    async fn ask(&mut self, ask: Ask, within: Duration) -> Result<Answer, RpcError> {
        // Votes and heartbeats must not wait behind entries.
        let lane = if self.lane == Lane::Log { Lane::Control } else { self.lane };
        match self.peers.ask(&self.to, lane, ask, within).await {
            Ok(answer) => {
                self.complaint = None;
                Ok(answer)
            }
            Err(broken) => {
                let what = broken.to_string();
                if self.complaint.as_ref() != Some(&what) {
                    tracing::warn!(peer = self.to.node, addr = self.to.addr, what, "a peer does not answer");
                    self.complaint = Some(what);
                }
                Err(unreachable(&broken))
            }
        }
    }

    /// Sends the whole file in parts, beginning where the peer has it already.
    async fn send(
        &mut self,
        vote: Vote,
        snapshot: &Snapshot,
        within: Duration,
    ) -> Result<SnapshotResponse<TypeConfig>, RpcError> {
        let path = snapshot.snapshot.path.clone();
        let (total, crc) = off(move || sum_of(&path)).await?;
        let part = |offset, bytes: Vec<u8>| {
            let crc = crc32c::crc32c(&bytes);
            Ask::Part(Part { last: snapshot.meta.last_log_id, total, offset, crc, bytes })
        };
        let mut offset = self.here(part(0, Vec::new()), within).await?;
        while offset < total {
            self.peers.progress(self.to.node, Some((offset, total)));
            let path = snapshot.snapshot.path.clone();
            let bytes = off(move || read_part(&path, offset)).await?;
            if self.peers.snapshot_rate > 0 {
                tokio::time::sleep(Duration::from_secs_f64(PART as f64 / self.peers.snapshot_rate as f64)).await;
            }
            let next = self.here(part(offset, bytes), within).await?;
            if next <= offset {
                return Err(unreachable(&format!("it has {next} bytes of a snapshot after {offset} were sent")));
            }
            offset = next;
        }
        self.peers.progress(self.to.node, Some((total, total)));
        let install = Ask::Install { vote, meta: snapshot.meta.clone(), bytes: total, crc };
        match self.ask(install, Duration::from_mins(10)).await? {
            Answer::Installed(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    async fn here(&mut self, part: Ask, within: Duration) -> Result<u64, RpcError> {
        match self.ask(part, within).await? {
            Answer::Here(bytes) => Ok(bytes),
            other => Err(unexpected(&other)),
        }
    }
}

/// Reads a file on a thread that may wait for the disk.
async fn off<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<T, RpcError> {
    let done = tasks::blocking(work).await.map_err(|error| unreachable(&error))?;
    done.map_err(|error| unreachable(&error))
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let (vote, last) = (rpc.vote, rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id));
        match self.ask(Ask::Append(rpc), option.soft_ttl().max(self.peers.patience)).await? {
            Answer::Appended(response) => {
                if matches!(response, AppendEntriesResponse::Success) {
                    self.peers.ledger.note(self.to.node, Some(vote), last);
                }
                Ok(response)
            }
            other => Err(unexpected(&other)),
        }
    }

    fn stream_append<S>(
        &mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<'_, Result<BoxStream<'_, Result<StreamAppendResult<TypeConfig>, RpcError>>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        if self.lane != Lane::Log {
            return stream_append_sequential(self, input, option);
        }
        async move {
            // Pulled before anything is connected: openraft's pause after a failure is in the stream.
            let Some(first) = input.next().await else { return Ok(futures::stream::empty().boxed()) };
            let vote = first.vote;
            let head = self.peers.head(&self.to);
            let sent = Arc::new(AtomicU64::new(0));
            let letters = {
                let sent = Arc::clone(&sent);
                futures::stream::once(async { first })
                    .chain(input)
                    .filter_map(move |request| {
                        let letter = encode(&Letter { head, ask: Ask::Append(request) }).ok();
                        sent.fetch_add(1, Ordering::Release);
                        async { letter }
                    })
                    .boxed()
            };
            let Some(incoming) = self.peers.link.stream(&self.to, letters) else {
                return Err(unreachable(&"this link carries no streams"));
            };
            let answers = Answers {
                incoming,
                sent,
                received: 0,
                patience: self.peers.patience,
                ledger: Arc::clone(&self.peers.ledger),
                peer: self.to.node,
                vote: Some(vote),
            };
            Ok(futures::stream::unfold(Some(answers), |answers| async {
                let mut answers = answers?;
                let next = answers.next().await?;
                let goes_on = matches!(next, Ok(Ok(_)));
                Some((next, goes_on.then_some(answers)))
            })
            .boxed())
        }
        .boxed()
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let vote = rpc.vote;
        match self.ask(Ask::Vote(rpc), option.soft_ttl()).await? {
            Answer::Voted(response) => {
                if response.vote_granted {
                    self.peers.ledger.note(self.to.node, Some(vote), None);
                }
                Ok(response)
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        match self.ask(Ask::PreVote(rpc), option.soft_ttl()).await? {
            Answer::Voted(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let (peers, node) = (self.peers.clone(), self.to.node);
        let sent = {
            // A part is a mebibyte: even a slow line takes it in this time.
            let sending = pin!(self.send(vote, &snapshot, Duration::from_secs(30)));
            match select(sending, pin!(cancel)).await {
                Either::Left((sent, _)) => sent.map_err(StreamingError::from),
                Either::Right((closed, _)) => Err(closed.into()),
            }
        };
        peers.progress(node, None);
        if let Err(error) = &sent {
            tracing::warn!(peer = node, %error, "a snapshot was not sent; it goes on from there");
        }
        sent
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        match self.ask(Ask::Transfer(req), option.soft_ttl()).await? {
            Answer::Transferred(None) => Ok(Ok(())),
            Answer::Transferred(Some(why)) => Err(unreachable(&why)),
            other => Err(unexpected(&other)),
        }
    }
}

/// The answers to a stream of entries, with the patience for the next one.
struct Answers {
    incoming: BoxStream<'static, Result<Bytes, Broken>>,
    sent: Arc<AtomicU64>,
    received: u64,
    patience: Duration,
    ledger: Arc<Ledger>,
    peer: u64,
    vote: Option<Vote>,
}

impl Answers {
    async fn next(&mut self) -> Option<Result<StreamAppendResult<TypeConfig>, RpcError>> {
        let mut waited = false;
        let answer = loop {
            match tokio::time::timeout(self.patience / 2, self.incoming.next()).await {
                Ok(answer) => break answer,
                // Nothing is due, or what is due was not due for a whole while.
                Err(_) if !self.is_due() => waited = false,
                Err(_) if !waited => waited = true,
                Err(_) => {
                    return Some(Err(unreachable(&format!("no answer within {:?}", self.patience))));
                }
            }
        };
        match answer {
            // A peer that ends when all was answered is done.
            None if !self.is_due() => None,
            None => Some(Err(unreachable(&"the stream broke off"))),
            Some(Err(broken)) => Some(Err(unreachable(&broken))),
            Some(Ok(bytes)) => {
                self.received += 1;
                Some(match decode(&bytes) {
                    Ok(Answer::Streamed(result)) => {
                        if let Ok(last) = result {
                            self.ledger.note(self.peer, self.vote.take(), last);
                        }
                        Ok(result)
                    }
                    Ok(Answer::Rejected(why)) => Err(unreachable(&why)),
                    Ok(Answer::NotReady) => Err(unreachable(&"the node is starting or stopping")),
                    Ok(other) => Err(unexpected(&other)),
                    Err(error) => Err(unreachable(&error)),
                })
            }
        }
    }

    fn is_due(&self) -> bool {
        self.sent.load(Ordering::Acquire) > self.received
    }
}
