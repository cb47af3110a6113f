//! The server: one listener for HTTP/1.1, HTTP/2 and gRPC, and around every request its id, its
//! limits, its metrics and its line in the log (method, path, status, duration; never a body).

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use futures::FutureExt;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use raft::{Freshness, Node};
use tls::Stream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_health::server::HealthReporter;
use tower::Layer;
use uuid::Uuid;

use crate::body::is_id;
use crate::error::{ApiError, ErrorCode};
use crate::hook::{self, REQUEST_ID};
use crate::identity::Caller;
use crate::limits::ApiConfig;
use crate::metrics::Answered;
use crate::service::{Call, Service};
use crate::{grpc, masakari, rest};

/// Why a server ended otherwise than by its shutdown.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The descriptors of the services cannot be served.
    #[error("gRPC reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Where clients come in.
#[derive(Debug)]
pub struct Doors {
    /// For every protocol.
    pub main: TcpListener,
    /// For Masakari's API alone, where it begins at the root.
    pub masakari: Option<TcpListener>,
}

impl From<TcpListener> for Doors {
    fn from(main: TcpListener) -> Self {
        Self { main, masakari: None }
    }
}

/// Serves every client protocol behind its door, over TLS when there is `tls`, until `shutdown` is done. Then no connection is
/// accepted any more, watches end, and running requests get `config.drain` to be answered.
pub async fn serve(
    doors: impl Into<Doors>,
    tls: Option<tls::Server>,
    node: Node,
    config: ApiConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let doors = doors.into();
    let mut service = Service::new(node, config);
    service.https = tls.is_some();
    let service = Arc::new(service);
    let (router, health) = router(&service)?;
    let shutdown = shutdown.shared();
    let mut tasks = JoinSet::new();
    tasks.spawn({
        let service = Arc::clone(&service);
        async move { service.watch.run(&service.node).await }
    });
    tasks.spawn({
        let service = Arc::clone(&service);
        async move { service.agents.run(&service).await }
    });
    tasks.spawn(tell_health(Arc::clone(&service), health));
    let main = accept(doors.main, tls.clone(), router, &service, shutdown.clone());
    let masakari = async {
        if let Some(listener) = doors.masakari {
            accept(listener, tls, alone(&service), &service, shutdown).await;
        }
    };
    tokio::join!(main, masakari);
    tasks.shutdown().await;
    Ok(())
}

/// All routes, with what is around every request.
fn router(service: &Arc<Service>) -> Result<(Router, HealthReporter), ServeError> {
    let router =
        masakari::add(hook::add(rest::routes())).fallback(not_found).method_not_allowed_fallback(method_not_allowed);
    let (router, health) = grpc::add(router, service)?;
    let router = router.layer(from_fn_with_state(Arc::clone(service), around));
    Ok((router.with_state(Arc::clone(service)), health))
}

/// Masakari's API, with what is around every request.
fn alone(service: &Arc<Service>) -> Router {
    masakari::alone().layer(from_fn_with_state(Arc::clone(service), around)).with_state(Arc::clone(service))
}

/// Says how new what is read must be.
const READ: &str = "x-pallium-read";

/// Paths as metrics name them; others are `other`.
const PATHS: [&str; 66] = [
    hook::NOVA,
    hook::CINDER,
    hook::MANILA,
    masakari::PATHS[0],
    masakari::PATHS[1],
    masakari::PATHS[2],
    masakari::PATHS[3],
    "/v1/place",
    "/v1/explain",
    "/v1/what-if/fit",
    "/v1/what-if/lose",
    "/v1/what-if/moves",
    "/v1/decisions",
    "/v1/decisions/{id}",
    "/v1/decisions/watch",
    "/v1/hosts",
    "/v1/hosts/watch",
    "/v1/features",
    "/v1/instances",
    "/v1/instances/{uuid}",
    "/v1/pipelines",
    "/v1/pipelines/{name}",
    "/v1/pipelines/{name}/activate",
    "/v1/pipelines/{name}/rollback",
    "/v1/pipelines/{name}/history",
    "/v1/pipelines/{name}/diff",
    "/v1/pipelines/{name}/shadow",
    "/v1/lint/pipeline",
    "/v1/shadows",
    "/v1/cluster",
    "/v1/cluster/members",
    "/v1/cluster/members/{node}",
    "/v1/cluster/members/{node}/promote",
    "/v1/cluster/members/{node}/lead",
    "/v1/openapi.json",
    "/v1/ha",
    "/v1/ha/hosts",
    "/v1/ha/hosts/{host}/reports",
    "/v1/ha/hosts/{host}/directives",
    "/v1/ha/cases",
    "/v1/ha/losses",
    "/v1/ha/cases/{host}",
    "/v1/ha/drains",
    "/v1/ha/drain",
    "/v1/ha/cancel-drain",
    "/v1/ha/end-drain",
    "/v1/ha/remove",
    "/v1/ha/open",
    "/v1/ha/confirm-dead",
    "/v1/ha/abort",
    "/v1/ha/instance",
    "/v1/ha/exempt",
    "/v1/ha/pause",
    "/v1/ha/hold",
    "/v1/ha/answer",
    "/v1/ha/maintain",
    "/v1/ha/end-quarantine",
    "/v1/ha/release",
    "/v1/ha/policies",
    "/v1/ha/check-policy",
    "/v1/ha/delete-policy",
    "/healthz",
    "/readyz",
    "/metrics",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
];

/// Methods of gRPC as metrics name them.
const METHODS: [&str; 54] = [
    "/pallium.v1.Scheduler/Place",
    "/pallium.v1.Scheduler/Explain",
    "/pallium.v1.Scheduler/Decisions",
    "/pallium.v1.Scheduler/WatchDecisions",
    "/pallium.v1.Scheduler/Record",
    "/pallium.v1.WhatIf/Fit",
    "/pallium.v1.WhatIf/Lose",
    "/pallium.v1.WhatIf/Moves",
    "/pallium.v1.Inventory/Apply",
    "/pallium.v1.Inventory/ApplyFeatures",
    "/pallium.v1.Inventory/List",
    "/pallium.v1.Inventory/Instances",
    "/pallium.v1.Inventory/Watch",
    "/pallium.v1.Inventory/Release",
    "/pallium.v1.Pipelines/List",
    "/pallium.v1.Pipelines/Get",
    "/pallium.v1.Pipelines/Apply",
    "/pallium.v1.Pipelines/Activate",
    "/pallium.v1.Pipelines/Rollback",
    "/pallium.v1.Pipelines/Delete",
    "/pallium.v1.Pipelines/History",
    "/pallium.v1.Pipelines/Diff",
    "/pallium.v1.Pipelines/Lint",
    "/pallium.v1.Pipelines/Shadow",
    "/pallium.v1.Pipelines/Shadows",
    "/pallium.v1.Cluster/Status",
    "/pallium.v1.Cluster/Add",
    "/pallium.v1.Cluster/Promote",
    "/pallium.v1.Cluster/Remove",
    "/pallium.v1.Cluster/Transfer",
    "/pallium.v1.Cluster/Backup",
    "/pallium.ha.v1.Failover/Status",
    "/pallium.ha.v1.Failover/Hosts",
    "/pallium.ha.v1.Failover/Losses",
    "/pallium.ha.v1.Failover/ApplyHosts",
    "/pallium.ha.v1.Failover/RemoveHost",
    "/pallium.ha.v1.Failover/Cases",
    "/pallium.ha.v1.Failover/Case",
    "/pallium.ha.v1.Failover/ConfirmDead",
    "/pallium.ha.v1.Failover/AbortCase",
    "/pallium.ha.v1.Failover/DecideInstance",
    "/pallium.ha.v1.Failover/OpenCase",
    "/pallium.ha.v1.Failover/Exempt",
    "/pallium.ha.v1.Failover/Pause",
    "/pallium.ha.v1.Failover/Hold",
    "/pallium.ha.v1.Failover/Answer",
    "/pallium.ha.v1.Failover/Maintain",
    "/pallium.ha.v1.Failover/EndQuarantine",
    "/pallium.ha.v1.Failover/Release",
    "/pallium.ha.v1.Failover/Policies",
    "/pallium.ha.v1.Failover/CheckPolicy",
    "/pallium.ha.v1.Failover/ApplyPolicy",
    "/pallium.ha.v1.Failover/DeletePolicy",
    "/pallium.ha.v1.HostAgent/Session",
];

fn path(request: &Request) -> &'static str {
    let matched = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let known = PATHS.iter().find(|path| **path == matched);
    let asked = || METHODS.iter().chain(&PATHS).find(|path| **path == request.uri().path());
    known.or_else(asked).copied().unwrap_or("other")
}

fn method(request: &Request) -> &'static str {
    match request.method().as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        "PATCH" => "PATCH",
        _ => "OTHER",
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// What a gRPC client says it waits: digits and a unit.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// How new what is read must be, as the caller says it: header of HTTP, metadata of gRPC.
fn freshness(headers: &HeaderMap) -> Result<Freshness, ApiError> {
    let Some(value) = headers.get(READ) else { return Ok(Freshness::default()) };
    let text = value.to_str().unwrap_or_default();
    match (text, text.strip_prefix("bounded:").map(str::parse)) {
        ("linearizable", _) => Ok(Freshness::Linearizable),
        ("local", _) => Ok(Freshness::Local),
        (_, Some(Ok(millis))) => Ok(Freshness::Bounded(Duration::from_millis(millis))),
        _ => Err(ApiError::bad_request(format!(
            "{READ}: '{}' given, linearizable, bounded:MILLISECONDS or local expected",
            text.escape_debug()
        ))),
    }
}

async fn around(State(service): State<Arc<Service>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let (path, method) = (path(&request), method(&request));
    let grpc = is_grpc(request.headers());
    let given = request.headers().get(&REQUEST_ID).and_then(|id| id.to_str().ok()).filter(|id| is_id(id));
    let id = given.map_or_else(|| format!("req-{}", Uuid::now_v7()), str::to_owned);
    let wait = service.config.deadline;
    let wait = grpc_timeout(request.headers()).map_or(wait, |asked| asked.min(wait));
    let fresh = service.admit(&request).and_then(|()| freshness(request.headers()));
    // Whoever looks after the server must be heard when it is busy; who waits for a directive works on nothing.
    let exempt = matches!(
        path,
        "/healthz" | "/readyz" | "/metrics" | "/grpc.health.v1.Health/Check" | "/v1/ha/hosts/{host}/directives"
    );
    let held = service.requests.take(usize::from(!exempt));
    let mut response = match fresh {
        Ok(fresh) if held.is_some() => {
            let call = Call { id: id.clone(), given: given.is_some(), deadline: started + wait, fresh };
            request.extensions_mut().insert(call);
            next.run(request).await
        }
        Err(error) => error.into_response(),
        Ok(_) => {
            let message = format!("{} requests are being worked on, which is the limit", service.requests.most());
            ApiError::unavailable("overloaded", message, 1).into_response()
        }
    };
    drop(held);
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        response = if grpc {
            let code = ErrorCode(error.code);
            let mut response = Status::from(error).into_http();
            response.extensions_mut().insert(code);
            response
        } else if masakari::is(path) {
            masakari::fault(&error)
        } else {
            error.respond(&id)
        };
    }
    let error =
        response.extensions().get::<ErrorCode>().map(|code| code.0).or_else(|| {
            response.headers().get("pallium-error").and_then(|code| ApiError::known_code(code.to_str().ok()?))
        });
    let status = response.status().as_u16();
    if !response.headers().contains_key(&REQUEST_ID)
        && let Ok(value) = HeaderValue::from_str(&id)
    {
        response.headers_mut().insert(&REQUEST_ID, value);
    }
    let took = started.elapsed();
    service.metrics.answered(&Answered { method, path, status, error, took });
    let micros = took.as_micros() as u64;
    if status >= 500 {
        tracing::warn!(method, path, status, error, micros, id, "failed");
    } else {
        tracing::debug!(method, path, status, error, micros, id, "answered");
    }
    response
}

async fn not_found(request: Request) -> Response {
    if is_grpc(request.headers()) {
        return Status::new(Code::Unimplemented, "no such service").into_http();
    }
    ApiError::not_found("no such path; /v1/openapi.json lists those of the REST API").into_response()
}

async fn method_not_allowed() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path does not take this method")
}

async fn tell_health(service: Arc<Service>, health: HealthReporter) {
    let mut told = None;
    loop {
        let ready = service.ready().is_ok();
        if told != Some(ready) {
            grpc::report(&health, ready).await;
            told = Some(ready);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<tls::Server>,
    router: Router,
    service: &Arc<Service>,
    shutdown: impl Future<Output = ()>,
) {
    let config = &service.config;
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.head_timeout)
        .max_buf_size(config.head.max(8192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(config.head).unwrap_or(u32::MAX))
        .max_concurrent_streams(256)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    let builder = Arc::new(builder);
    let places = Arc::new(Semaphore::new(config.connections));
    let (close, closing) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept_one(&listener, &places) => accepted,
        };
        let Some((stream, place)) = accepted else { continue };
        let held = service.connections.take(1);
        let (tls, within) = (tls.clone(), config.handshake);
        let (router, builder, mut closing) = (router.clone(), Arc::clone(&builder), closing.clone());
        connections.spawn(async move {
            // Here, not in the loop: a client that dawdles keeps nobody waiting.
            let stream = tokio::select! {
                stream = secured(stream, tls, within) => stream,
                () = closed(&mut closing) => None,
            };
            if let Some(stream) = stream {
                connection(stream, router, builder, closing).await;
            }
            drop((place, held));
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    close.send_replace(true);
    service.watch.close();
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(config.drain, drained).await.is_err() {
        tracing::warn!(connections = connections.len(), "connections were cut, their requests took too long");
        connections.shutdown().await;
    }
}

async fn accept_one(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(error) => {
            // Out of file descriptors, mostly: what is open must end first.
            tracing::warn!(%error, "no connection could be accepted");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

/// The connection after its TLS handshake, if there is one to be made.
async fn secured(stream: TcpStream, tls: Option<tls::Server>, within: Duration) -> Option<Stream> {
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return Some(Stream::Plain(stream)) };
    let from = stream.peer_addr().ok();
    match tls.accept(stream, within, plaintext().as_bytes()).await {
        Ok(stream) => Some(stream),
        Err(error) => {
            tracing::debug!(?from, %error, "a connection was refused");
            None
        }
    }
}

/// What a client hears that speaks plain HTTP to a port with TLS.
fn plaintext() -> String {
    let id = format!("req-{}", Uuid::now_v7());
    let body = format!(
        r#"{{"error":{{"code":"bad_request","message":"this port speaks TLS: use https://","request_id":"{id}"}}}}"#
    );
    let length = body.len();
    format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nx-request-id: {id}\r\nconnection: close\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

async fn connection(
    stream: Stream,
    router: Router,
    builder: Arc<Builder<TokioExecutor>>,
    mut closing: watch::Receiver<bool>,
) {
    let caller = Caller::of(&stream.uris());
    let service = TowerToHyperService::new(Extension(caller).layer(router));
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closed(&mut closing) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}
