//! The [`Link`] over gRPC, and the server on the other side. One HTTP/2 connection for each peer and
//! lane. Looks into no letter.

#[allow(clippy::all, clippy::pedantic, clippy::restriction, unused_qualifications, missing_docs)]
mod proto {
    tonic::include_proto!("pallium.peer.v1");
}

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tonic::transport::{Channel, Endpoint};
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

/// Time for a peer that connects to show its certificate.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Connections from peers at one time: more than the lanes of the largest cluster.
const CONNECTIONS: usize = 256;

/// Carries letters over gRPC.
#[derive(Default)]
pub struct Grpc {
    tls: Option<tls::Client>,
    lines: Mutex<HashMap<(String, Lane), Arc<Line>>>,
}

/// The connection to one peer on one lane.
struct Line {
    tls: Option<tls::Client>,
    dialled: tokio::sync::Mutex<Dialled>,
}

#[derive(Default)]
struct Dialled {
    channel: Option<Channel>,
    /// Which connection it is, to drop only the one that broke.
    number: u64,
    failed: Option<(Instant, String)>,
}

impl Grpc {
    /// With TLS, if there are certificates for it.
    pub fn new(tls: Option<tls::Client>) -> Grpc {
        Grpc { tls, ..Grpc::default() }
    }

    fn line(&self, addr: &str, lane: Lane) -> Arc<Line> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Line { tls: self.tls.clone(), dialled: tokio::sync::Mutex::default() });
        Arc::clone(lines.entry((addr.to_owned(), lane)).or_insert_with(new))
    }
}

impl Line {
    async fn client(&self, addr: String) -> Result<(PeerClient<Channel>, u64), Broken> {
        let mut dialled = self.dialled.lock().await;
        if let Some((when, why)) = &dialled.failed
            && when.elapsed() < PAUSE
        {
            return Err(Broken::NotSent(why.clone()));
        }
        let channel = match &dialled.channel {
            Some(channel) => channel.clone(),
            None => match dial(addr, self.tls.clone()).await {
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
        let mut dialled = self.dialled.lock().await;
        if dialled.number == number {
            dialled.channel = None;
        }
    }
}

async fn dial(addr: String, tls: Option<tls::Client>) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}"))
        .map_err(|error| format!("{addr} is no address: {error}"))?
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(ALIVE)
        .keep_alive_timeout(ALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    let connect = tower::service_fn(move |uri| connect(uri, tls.clone()));
    endpoint.connect_with_connector(connect).await.map_err(|error| {
        let mut cause: &dyn std::error::Error = &error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        format!("{addr} cannot be reached: {cause}")
    })
}

async fn connect(uri: hyper::Uri, tls: Option<tls::Client>) -> std::io::Result<TokioIo<tls::Stream>> {
    let host = uri.host().unwrap_or_default();
    let port = uri.port_u16().unwrap_or_default();
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(match tls {
        Some(tls) => tls.connect(stream, host).await.map_err(std::io::Error::other)?,
        None => tls::Stream::Plain(stream),
    }))
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
        let (wire, addr) = (self.line(&to.addr, lane), to.addr.clone());
        async move {
            let deadline = tokio::time::Instant::now() + within;
            let connected = tokio::time::timeout_at(deadline, wire.client(addr.clone())).await;
            let (mut client, number) =
                connected.unwrap_or_else(|_| Err(Broken::NotSent(format!("{addr} did not answer in time"))))?;
            match tokio::time::timeout_at(deadline, client.call(proto::Letter { body: letter })).await {
                Ok(Ok(answer)) => Ok(answer.into_inner().body),
                Ok(Err(status)) => {
                    wire.drop_if(number).await;
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

/// Serves peers for as long as the runtime lasts. With TLS only those that show a certificate.
pub async fn serve(listener: TcpListener, tls: Option<tls::Server>, door: Arc<Door>) {
    let service = PeerServer::new(Porter(door)).max_decoding_message_size(MOST).max_encoding_message_size(MOST);
    let mut builder = auto::Builder::new(TokioExecutor::new()).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(ALIVE * 5)
        .keep_alive_timeout(ALIVE * 5)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    let (builder, places) = (Arc::new(builder), Arc::new(Semaphore::new(CONNECTIONS)));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: what is open must end first.
                tracing::warn!(%error, "no connection of a peer could be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (service, builder, tls) = (service.clone(), Arc::clone(&builder), tls.clone());
        tokio::spawn(async move {
            let _place = place;
            let _ = stream.set_nodelay(true);
            let stream = match tls {
                None => tls::Stream::Plain(stream),
                Some(tls) => match tls.accept(stream, HANDSHAKE, b"").await {
                    Ok(stream) => stream,
                    Err(refused) => return tracing::warn!(%from, %refused, "a peer was turned away"),
                },
            };
            let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).await;
            if let Err(error) = served {
                tracing::debug!(%from, error, "a connection of a peer broke off");
            }
        });
    }
}
