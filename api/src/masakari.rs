//! Masakari's API (versions 1.0 to 1.3), so that its monitors and its client need not be changed: at `/v1` of a
//! port of its own, and at `/ha/v1` of the main one; a project in front of the collection is skipped.
//!
//! What a monitor says is heard as what it is, the word of somebody else: it never proves a death, and starts
//! nothing by itself. What became of it is that of the host's case. Translation only; shapes, codes and texts
//! are those of `openstack/masakari` (masakari/api), in whose tests a difference would show.

mod ask;
mod version;
mod view;
mod wire;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router, routing};
use scheduler::ha::masakari::{Change, Notification, Refused as Said, Segment, WAITS, watched};
use scheduler::ha::order::{Actor, Change as Order, Role};
use scheduler::ha::{Refusal, masakari};
use scheduler::state::Tables;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::{ApiError, ErrorCode};
use crate::limits;
use crate::service::{Call, Service};
use ask::Asked;
use version::Root;

/// Its paths on the main port.
pub(crate) const PATHS: [&str; 4] = ["/ha", "/ha/v1", "/ha/v1/{*path}", "/v1/{*path}"];
/// Where it begins on the main port.
const PREFIX: &str = "/ha";

/// Adds it to the main port.
pub(crate) fn add(router: Router<Arc<Service>>) -> Router<Arc<Service>> {
    ["/ha", "/ha/", "/ha/v1", "/ha/v1/", "/ha/v1/{*path}"]
        .into_iter()
        .fold(router, |router, path| router.route(path, routing::any(serve)))
}

/// All that its own port has.
pub(crate) fn alone() -> Router<Arc<Service>> {
    Router::new().route("/v1/{*path}", routing::any(serve)).fallback(serve)
}

/// Whether an error at this path is told as Masakari tells it.
pub(crate) fn is(path: &str) -> bool {
    PATHS.contains(&path)
}

/// An error as Masakari tells it.
pub(crate) fn fault(error: &ApiError) -> Response {
    let name = match error.status {
        StatusCode::BAD_REQUEST => "badRequest",
        StatusCode::UNAUTHORIZED => "unauthorized",
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::NOT_FOUND => "itemNotFound",
        StatusCode::METHOD_NOT_ALLOWED => "badMethod",
        StatusCode::CONFLICT => "conflictingRequest",
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => "overLimit",
        StatusCode::SERVICE_UNAVAILABLE => "serviceUnavailable",
        _ => "masakariFault",
    };
    let body = json!({name: {"code": error.status.as_u16(), "message": error.message}});
    let mut response = (error.status, Json(body)).into_response();
    if let Some(seconds) = error.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response.extensions_mut().insert(ErrorCode(error.code));
    response
}

async fn serve(State(service): State<Arc<Service>>, Extension(call): Extension<Call>, request: Request) -> Response {
    let version = version::asked(request.headers());
    let told = match version {
        Ok(version) => answer(&service, &call, request, version).await,
        Err(ref error) => Err(error.clone()),
    };
    let mut response = told.unwrap_or_else(|error| fault(&error));
    if let Ok(value) = HeaderValue::from_str(&format!("instance-ha 1.{}", version.unwrap_or(0))) {
        response.headers_mut().insert(&version::HEADER, value);
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("OpenStack-API-Version"));
    }
    response
}

/// One request: whose, and at which version.
struct Asking<'a> {
    service: &'a Service,
    call: &'a Call,
    headers: HeaderMap,
    uri: Uri,
    version: u8,
}

async fn answer(service: &Service, call: &Call, request: Request, version: u8) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let (base, rest) = match path.strip_prefix(PREFIX).filter(|rest| rest.is_empty() || rest.starts_with('/')) {
        Some(rest) => (PREFIX, rest),
        None => ("", path.as_str()),
    };
    let mut names: Vec<&str> = rest.split('/').filter(|name| !name.is_empty()).collect();
    let root = Root { service, base, headers: &parts.headers };
    if names.is_empty() {
        return Ok(Json(json!({"versions": [root.version("v1.0")]})).into_response());
    }
    if names.remove(0) != "v1" {
        return Ok((StatusCode::MULTIPLE_CHOICES, Json(json!({"choices": [root.version("v1.0")]}))).into_response());
    }
    let collections = ["segments", "notifications"];
    if names.first().is_some_and(|name| !collections.contains(name)) {
        names.remove(0);
    }
    if names.is_empty() {
        return Ok(Json(json!({"version": root.version("v1")})).into_response());
    }
    let asking = Asking { service, call, headers: parts.headers.clone(), uri: parts.uri, version };
    match (&parts.method, names.as_slice()) {
        (&Method::GET, ["segments"]) => asking.segments().await,
        (&Method::POST, ["segments"]) => asking.put_segment(None, body).await,
        (&Method::GET, ["segments", id]) => asking.segment(id).await,
        (&Method::PUT, ["segments", id]) => asking.put_segment(Some(id), body).await,
        (&Method::DELETE, ["segments", id]) => asking.remove_segment(id).await,
        (&Method::GET, ["segments", id, "hosts"]) => asking.members(id).await,
        (&Method::POST, ["segments", id, "hosts"]) => asking.put_member(id, None, body).await,
        (&Method::GET, ["segments", id, "hosts", host]) => asking.member(id, host).await,
        (&Method::PUT, ["segments", id, "hosts", host]) => asking.put_member(id, Some(host), body).await,
        (&Method::DELETE, ["segments", id, "hosts", host]) => asking.remove_member(id, host).await,
        (&Method::GET, ["notifications"]) => asking.notifications().await,
        (&Method::POST, ["notifications"]) => asking.notify(body).await,
        (&Method::GET, ["notifications", id]) => asking.notification(id).await,
        (&Method::GET, ["notifications", id, "vmoves"]) if version >= 3 => asking.moves(id).await,
        (&Method::GET, ["notifications", id, "vmoves", one]) if version >= 3 => asking.one_move(id, one).await,
        (
            _,
            ["segments" | "notifications"]
            | ["segments" | "notifications", _]
            | ["segments", _, "hosts"]
            | ["segments", _, "hosts", _],
        ) => Err(ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            format!("The method {} is not allowed for this resource.", parts.method),
        )),
        _ => Err(ApiError::not_found("The resource could not be found.")),
    }
}

fn uuid(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok()
}

fn no_segment(id: &str) -> ApiError {
    ApiError::not_found(format!("No failover segment with id {}.", id.escape_debug()))
}

fn no_member(id: &str) -> ApiError {
    ApiError::not_found(format!("No host with id {}.", id.escape_debug()))
}

fn no_notification(id: &str) -> ApiError {
    ApiError::not_found(format!("No notification with id {}.", id.escape_debug()))
}

/// Monitors take 400 and 409 as the last word, and ask again after anything else.
fn refused(refusal: &Refusal) -> ApiError {
    let message = refusal.to_string();
    match refusal {
        Refusal::Masakari(said) => match said {
            Said::Segment(_) | Said::Member(_) => ApiError::not_found(message),
            Said::NoCompute(_) | Said::NoHost(_) => ApiError::bad_request(message),
            Said::SegmentExists(_)
            | Said::MemberExists(_)
            | Said::InUse(_)
            | Said::Maintenance(_)
            | Said::Duplicate(_) => ApiError::conflict(message),
        },
        Refusal::Invalid { .. } => ApiError::bad_request(message),
        Refusal::Full { .. } => ApiError::new(StatusCode::FORBIDDEN, "conflict", message),
        _ => ApiError::unavailable("contended", message, 5),
    }
}

fn listed(name: &str, views: &[Value]) -> Response {
    Json(json!({name: views})).into_response()
}

fn one(status: StatusCode, name: &str, view: &Value) -> Response {
    (status, Json(json!({name: view}))).into_response()
}

/// A consistent view, and the replicated time.
struct Look {
    tables: Tables,
    now: u64,
}

impl Look {
    fn segment(&self, id: &str) -> Result<&Segment, ApiError> {
        let segments = &self.tables.failover().segments;
        uuid(id).and_then(|id| segments.get(id)).map(|segment| &**segment).ok_or_else(|| no_segment(id))
    }

    fn member(&self, segment: &str, id: &str) -> Result<(&Segment, &masakari::Member), ApiError> {
        let segment = self.segment(segment)?;
        let member = uuid(id).and_then(|id| self.tables.failover().members.get(id));
        let member = member.filter(|member| member.segment == segment.uuid).ok_or_else(|| no_member(id))?;
        Ok((segment, member))
    }

    fn notification(&self, id: &str) -> Result<&Notification, ApiError> {
        let found = uuid(id).and_then(|id| self.tables.failover().notified().find(|said| said.uuid == id));
        found.ok_or_else(|| no_notification(id))
    }
}

impl Asking<'_> {
    async fn look(&self) -> Result<Look, ApiError> {
        self.service.node.read_barrier(self.call.fresh).await?;
        let look = |core: &scheduler::Core| Look { tables: core.state().tables().clone(), now: core.clock() };
        Ok(self.service.node.query(look).await?)
    }

    /// Looks, and makes an answer of it away from the threads that serve.
    async fn read<T: Send + 'static>(
        &self,
        make: impl FnOnce(&Look, Asked, u8) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (look, asked, version) = (self.look().await?, Asked::of(&self.uri)?, self.version);
        let answer = tokio::task::spawn_blocking(move || make(&look, asked, version)).await;
        answer.map_err(|error| ApiError::internal(error.to_string()))?
    }

    /// The body is no field: it cannot be shared between threads, and the rest is.
    async fn sent(&self, body: Body, name: &'static str) -> Result<Value, ApiError> {
        let Self { service, call, headers, .. } = self;
        let held = limits::read(headers, body, service.config.body, &service.bodies, call.deadline).await?;
        wire::read(&held.bytes, name)
    }

    async fn change(&self, change: Change) -> Result<(), ApiError> {
        let actor = Actor { role: Role::Coordinator, name: "masakari".to_owned(), reason: String::new() };
        match self.service.node.order(actor, Order::Masakari(Box::new(change))).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(refusal)) => Err(refused(&refusal)),
            Err(raft::Refused::Conflict(why)) => Err(ApiError::unavailable("conflict", why, 5)),
            Err(error) => Err(error.into()),
        }
    }

    async fn segments(&self) -> Result<Response, ApiError> {
        let views = self.read(|look, asked, _| {
            let mut views = Vec::new();
            for segment in look.tables.failover().segments.iter() {
                let view = view::segment(segment);
                if asked.fits(&view, &["recovery_method", "service_type", "enabled"])? {
                    views.push(view);
                }
            }
            asked.page(views, "uuid")
        });
        Ok(listed("segments", &views.await?))
    }

    async fn segment(&self, id: &str) -> Result<Response, ApiError> {
        Ok(one(StatusCode::OK, "segment", &view::segment(self.look().await?.segment(id)?)))
    }

    async fn put_segment(&self, id: Option<&str>, body: Body) -> Result<Response, ApiError> {
        let sent = self.sent(body, "segment").await?;
        let known = id.map(|id| uuid(id).ok_or_else(|| no_segment(id))).transpose()?;
        let spec = wire::segment(&sent, known, self.version)?;
        let made = spec.uuid;
        self.change(Change::Segment(Box::new(spec))).await?;
        let view = view::segment(self.look().await?.segment(&made.to_string())?);
        Ok(one(if known.is_none() { StatusCode::CREATED } else { StatusCode::OK }, "segment", &view))
    }

    async fn remove_segment(&self, id: &str) -> Result<Response, ApiError> {
        self.change(Change::SegmentRemove(uuid(id).ok_or_else(|| no_segment(id))?)).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    }

    async fn members(&self, segment: &str) -> Result<Response, ApiError> {
        let segment = segment.to_owned();
        let views = self.read(move |look, asked, _| {
            let segment = look.segment(&segment)?;
            let mut views = Vec::new();
            for member in look.tables.failover().members.iter().filter(|member| member.segment == segment.uuid) {
                let view = view::member(&look.tables, segment, member);
                if asked.fits(&view, &["name", "type", "control_attributes", "on_maintenance", "reserved"])? {
                    views.push(view);
                }
            }
            asked.page(views, "uuid")
        });
        Ok(listed("hosts", &views.await?))
    }

    async fn member(&self, segment: &str, id: &str) -> Result<Response, ApiError> {
        let look = self.look().await?;
        let (segment, member) = look.member(segment, id)?;
        Ok(one(StatusCode::OK, "host", &view::member(&look.tables, segment, member)))
    }

    async fn put_member(&self, segment: &str, id: Option<&str>, body: Body) -> Result<Response, ApiError> {
        let sent = self.sent(body, "host").await?;
        let of = uuid(segment).ok_or_else(|| no_segment(segment))?;
        let known = id.map(|id| uuid(id).ok_or_else(|| no_member(id))).transpose()?;
        let spec = wire::member(&sent, of, known)?;
        let made = spec.uuid.to_string();
        self.change(Change::Member(Box::new(spec))).await?;
        let look = self.look().await?;
        let (segment, member) = look.member(segment, &made)?;
        let view = view::member(&look.tables, segment, member);
        Ok(one(if known.is_none() { StatusCode::CREATED } else { StatusCode::OK }, "host", &view))
    }

    async fn remove_member(&self, segment: &str, id: &str) -> Result<Response, ApiError> {
        let change = Change::MemberRemove {
            segment: uuid(segment).ok_or_else(|| no_segment(segment))?,
            uuid: uuid(id).ok_or_else(|| no_member(id))?,
        };
        self.change(change).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    }

    async fn notifications(&self) -> Result<Response, ApiError> {
        let views = self.read(|look, asked, _| {
            let since = asked.since()?;
            let mut views = Vec::new();
            let said = look.tables.failover().notified();
            for said in said.filter(|said| since.is_none_or(|since| said.generated >= since)) {
                let view = view::notification(look.tables.failover(), said, look.now);
                if asked.fits(&view, &["status", "source_host_uuid", "type"])? {
                    views.push(view);
                }
            }
            asked.page(views, "notification_uuid")
        });
        Ok(listed("notifications", &views.await?))
    }

    async fn notification(&self, id: &str) -> Result<Response, ApiError> {
        let look = self.look().await?;
        let said = look.notification(id)?;
        let mut view = view::notification(look.tables.failover(), said, look.now);
        if self.version >= 1 {
            view["recovery_workflow_details"] = view::steps(look.tables.failover(), said).into();
        }
        Ok(one(StatusCode::OK, "notification", &view))
    }

    async fn notify(&self, body: Body) -> Result<Response, ApiError> {
        let sent = self.sent(body, "notification").await?;
        let spec = wire::notification(&sent)?;
        let (made, kind, host) = (spec.uuid.to_string(), spec.kind, spec.host.clone());
        let told = self.change(Change::Notify(Box::new(spec))).await;
        self.service.metrics.notified(kind, told.as_ref().err().map(|error| error.status));
        told?;
        let look = self.look().await?;
        let said = look.notification(&made)?;
        let status = look.tables.failover().status_of(said, look.now);
        if watched(&look.tables, &host).is_none() {
            tracing::warn!(host, "a monitor notifies of a host that failover does not watch: it is ignored");
        }
        tracing::info!(host, kind = ?kind, payload = ?said.payload, ?status, within_ms = WAITS, "a monitor has notified");
        Ok(one(StatusCode::ACCEPTED, "notification", &view::notification(look.tables.failover(), said, look.now)))
    }

    async fn moves(&self, id: &str) -> Result<Response, ApiError> {
        let id = id.to_owned();
        let views = self.read(move |look, asked, _| {
            let mut views = Vec::new();
            for view in view::moves(&look.tables, of_host(look.notification(&id)?)?) {
                if asked.fits(&view, &["status", "type"])? {
                    views.push(view);
                }
            }
            asked.page(views, "uuid")
        });
        Ok(listed("vmoves", &views.await?))
    }

    async fn one_move(&self, id: &str, wanted: &str) -> Result<Response, ApiError> {
        let look = self.look().await?;
        let moves = view::moves(&look.tables, of_host(look.notification(id)?)?);
        let found = moves.into_iter().find(|view| view["uuid"] == wanted);
        let view =
            found.ok_or_else(|| ApiError::not_found(format!("No vm move with id {}.", wanted.escape_debug())))?;
        Ok(one(StatusCode::OK, "vmove", &view))
    }
}

fn of_host(said: &Notification) -> Result<&Notification, ApiError> {
    if said.kind == masakari::Kind::ComputeHost {
        return Ok(said);
    }
    Err(ApiError::bad_request(format!("This notification {} without vm moves.", said.uuid)))
}
