//! The [`Link`] over gRPC, and the server on the other side. One HTTP/2 connection for each peer and
//! lane. Looks into no letter.

#[allow(clippy::all, clippy::pedantic, clippy::restriction, unused_qualifications, missing_docs)]
mod proto {
    tonic::include_proto!("pallium.peer.v1");
}

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use self::proto::peer_client::PeerClient;
use self::proto::peer_server::{Peer, PeerServer};
use super::door::Door;
use super::link::{Broken, Lane, Link, Target};

/// Bytes of a letter: a mebibyte of entries and then one as large as may be.
const MOST: usize = 64 << 20;
/// Time for a connection to be made.
const CONNECT: Duration = Duration::from_secs(1);
/// Time before a peer is dialled again that could not be reached.
const PAUSE: Duration = Duration::from_millis(20);
/// A connection on which nothing comes back for so long is dropped: after a partition TCP alone
/// would go on with it for minutes.
const ALIVE: Duration = Duration::from_secs(1);
const WINDOW: u32 = 8 << 20;

/// Carries letters over gRPC.
#[derive(Default)]
pub struct Grpc {
    lines: Mutex<HashMap<(String, Lane), Arc<Line>>>,
}

/// The connection to one peer on one lane.
#[derive(Default)]
struct Line(tokio::sync::Mutex<Dialled>);

#[derive(Default)]
struct Dialled {
    channel: Option<Channel>,
    /// Which connection it is, to drop only the one that broke.
    number: u64,
    failed: Option<(Instant, String)>,
}

impl Grpc {
    fn line(&self, addr: &str, lane: Lane) -> Arc<Line> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(lines.entry((addr.to_owned(), lane)).or_default())
    }
}

impl Line {
    async fn client(&self, addr: String) -> Result<(PeerClient<Channel>, u64), Broken> {
        let mut dialled = self.0.lock().await;
        if let Some((when, why)) = &dialled.failed
            && when.elapsed() < PAUSE
        {
            return Err(Broken::NotSent(why.clone()));
        }
        let channel = match &dialled.channel {
            Some(channel) => channel.clone(),
            None => match dial(addr).await {
                Ok(channel) => {
                    dialled.number += 1;
                    dialled.failed = None;
                    dialled.channel.insert(channel).clone()
                }
                Err(why) => {
                    dialled.failed = Some((Instant::now(), why.clone()));
                    return Err(Broken::NotSent(why));
                }
            },
        };
        let client = PeerClient::new(channel).max_decoding_message_size(MOST).max_encoding_message_size(MOST);
        Ok((client, dialled.number))
    }

    async fn drop_if(&self, number: u64) {
        let mut dialled = self.0.lock().await;
        if dialled.number == number {
            dialled.channel = None;
        }
    }
}

async fn dial(addr: String) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}"))
        .map_err(|error| format!("{addr} is no address: {error}"))?
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(ALIVE)
        .keep_alive_timeout(ALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    endpoint.connect().await.map_err(|error| {
        let mut cause: &dyn std::error::Error = &error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        format!("{addr} cannot be reached: {cause}")
    })
}

fn broken(status: &Status) -> Broken {
    Broken::Unknown(format!("the connection broke: {}", status.message()))
}

impl Link for Grpc {
    fn call(
        &self,
        to: &Target,
        lane: Lane,
        letter: Bytes,
        within: Duration,
    ) -> BoxFuture<'static, Result<Bytes, Broken>> {
        let (line, addr) = (self.line(&to.addr, lane), to.addr.clone());
        async move {
            let deadline = tokio::time::Instant::now() + within;
            let connected = tokio::time::timeout_at(deadline, line.client(addr.clone())).await;
            let (mut client, number) =
                connected.unwrap_or_else(|_| Err(Broken::NotSent(format!("{addr} did not answer in time"))))?;
            match tokio::time::timeout_at(deadline, client.call(proto::Letter { body: letter })).await {
                Ok(Ok(answer)) => Ok(answer.into_inner().body),
                Ok(Err(status)) => {
                    line.drop_if(number).await;
                    Err(broken(&status))
                }
                Err(_) => Err(Broken::Unknown(format!("no answer from {addr} within {within:?}"))),
            }
        }
        .boxed()
    }

    fn stream(
        &self,
        to: &Target,
        letters: BoxStream<'static, Bytes>,
    ) -> Option<BoxStream<'static, Result<Bytes, Broken>>> {
        let (line, addr) = (self.line(&to.addr, Lane::Log), to.addr.clone());
        Some(begin(line, addr, letters).boxed().flatten_stream().boxed())
    }
}

async fn begin(
    line: Arc<Line>,
    addr: String,
    letters: BoxStream<'static, Bytes>,
) -> BoxStream<'static, Result<Bytes, Broken>> {
    let connected = tokio::time::timeout(CONNECT * 2, line.client(addr.clone())).await;
    let connected = connected.unwrap_or_else(|_| Err(Broken::NotSent(format!("{addr} did not answer"))));
    let (mut client, number) = match connected {
        Ok(client) => client,
        Err(broken) => return failed(broken),
    };
    let letters: BoxStream<'static, proto::Letter> = letters.map(|body| proto::Letter { body }).boxed();
    match append(&mut client, letters).await {
        Ok(answers) => {
            let answers = answers.into_inner();
            futures::stream::unfold((answers, line), move |(answers, line)| next(answers, line, number)).boxed()
        }
        Err(status) => {
            line.drop_if(number).await;
            failed(broken(&status))
        }
    }
}

/// Boxed, for the compiler cannot prove that the future of the call may go to another thread.
fn append<'a>(
    client: &'a mut PeerClient<Channel>,
    letters: BoxStream<'static, proto::Letter>,
) -> BoxFuture<'a, Result<Response<Streaming<proto::Letter>>, Status>> {
    client.append(letters).boxed()
}

type Next = (Result<Bytes, Broken>, (Streaming<proto::Letter>, Arc<Line>));

async fn next(mut answers: Streaming<proto::Letter>, line: Arc<Line>, number: u64) -> Option<Next> {
    let answer = match answers.message().await {
        Ok(answer) => Ok(answer?.body),
        Err(status) => {
            line.drop_if(number).await;
            Err(broken(&status))
        }
    };
    Some((answer, (answers, line)))
}

fn failed(broken: Broken) -> BoxStream<'static, Result<Bytes, Broken>> {
    futures::stream::once(std::future::ready(Err(broken))).boxed()
}

/// The server: hands every letter to the door.
struct Porter(Arc<Door>);

#[tonic::async_trait]
impl Peer for Porter {
    async fn call(&self, request: Request<proto::Letter>) -> Result<Response<proto::Letter>, Status> {
        let body = Arc::clone(&self.0).answer(&request.into_inner().body).await;
        Ok(Response::new(proto::Letter { body }))
    }

    type AppendStream = BoxStream<'static, Result<proto::Letter, Status>>;

    async fn append(&self, request: Request<Streaming<proto::Letter>>) -> Result<Response<Self::AppendStream>, Status> {
        let letters = futures::stream::unfold(request.into_inner(), |mut letters| async move {
            let letter = letters.message().await.ok().flatten()?;
            Some((letter.body, letters))
        });
        let answers = Arc::clone(&self.0).stream(letters.boxed());
        Ok(Response::new(answers.map(|body| Ok(proto::Letter { body })).boxed()))
    }
}

/// Serves peers until `shutdown` is done.
pub async fn serve(listener: TcpListener, door: Arc<Door>, shutdown: impl Future<Output = ()>) {
    let service = PeerServer::new(Porter(door)).max_decoding_message_size(MOST).max_encoding_message_size(MOST);
    let served = Server::builder()
        .http2_keepalive_interval(Some(ALIVE * 5))
        .http2_keepalive_timeout(Some(ALIVE * 5))
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .add_service(service)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), shutdown)
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the peer port is closed");
    }
}
