//! REST under `/v1`: the messages of gRPC as JSON, and an OpenAPI document that says so; besides,
//! `/healthz`, `/readyz` and `/metrics`.

mod failover;
mod pipelines;

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use futures::{Stream, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::body;
use crate::cluster;
use crate::error::{ApiError, ErrorBody};
use crate::limits;
use crate::proto::v1;
use crate::service::{Call, Service};

pub(crate) type Answer<T> = Result<Json<T>, ApiError>;
pub(crate) type Shared = State<Arc<Service>>;

/// A message in the body of a request: bounded, and read until the deadline of the call.
pub(crate) struct Sent<T>(pub T);

/// A message in the query of a request.
pub(crate) struct Asked<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<Service>> for Sent<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, service: &Arc<Service>) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let call = parts.extensions.get::<Call>().ok_or_else(|| ApiError::internal("a request without its call"))?;
        let held = limits::read(&parts.headers, body, service.config.body, &service.bodies, call.deadline).await?;
        Ok(Self(body::read_owned(&held.bytes)?))
    }
}

impl<T: DeserializeOwned> FromRequestParts<Arc<Service>> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, ApiError> {
        let read = Query::from_request_parts(parts, service).await;
        let Query(asked) = read.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
        Ok(Self(asked))
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "pallium",
        description = "Placement decisions with their claims, inventory, and why. The same methods as the gRPC \
                       services of package pallium.v1. Times are milliseconds since 1970, amounts integers in the \
                       unit of their resource class (MEMORY_MB: MiB, DISK_GB: GiB).",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(ErrorBody))
)]
struct Document;

/// The routes, and the document of the ones under `/v1` (served at `/v1/openapi.json`).
pub(crate) fn routes() -> Router<Arc<Service>> {
    let (router, document) = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(place))
        .routes(routes!(explain))
        .routes(routes!(what_if_fit))
        .routes(routes!(what_if_lose))
        .routes(routes!(what_if_moves))
        .routes(routes!(decisions))
        .routes(routes!(decision))
        .routes(routes!(watch_decisions))
        .routes(routes!(list_hosts, apply_hosts))
        .routes(routes!(watch_hosts))
        .routes(routes!(apply_features))
        .routes(routes!(list_instances))
        .routes(routes!(release))
        .routes(routes!(pipelines::list, pipelines::apply))
        .routes(routes!(pipelines::get, pipelines::delete))
        .routes(routes!(pipelines::activate))
        .routes(routes!(pipelines::rollback))
        .routes(routes!(pipelines::history))
        .routes(routes!(pipelines::diff))
        .routes(routes!(pipelines::lint))
        .routes(routes!(pipelines::shadow_one))
        .routes(routes!(pipelines::shadows))
        .routes(routes!(failover::status))
        .routes(routes!(failover::hosts, failover::apply_hosts))
        .routes(routes!(failover::reports))
        .routes(routes!(failover::directives))
        .routes(routes!(failover::losses))
        .routes(routes!(failover::cases))
        .routes(routes!(failover::case))
        .routes(routes!(failover::remove))
        .routes(routes!(failover::open))
        .routes(routes!(failover::confirm_dead))
        .routes(routes!(failover::abort))
        .routes(routes!(failover::instance))
        .routes(routes!(failover::exempt))
        .routes(routes!(failover::pause))
        .routes(routes!(failover::hold))
        .routes(routes!(failover::answer))
        .routes(routes!(failover::maintain))
        .routes(routes!(failover::drain))
        .routes(routes!(failover::drains))
        .routes(routes!(failover::cancel_drain))
        .routes(routes!(failover::end_drain))
        .routes(routes!(failover::end_quarantine))
        .routes(routes!(failover::release))
        .routes(routes!(failover::policies, failover::apply_policy))
        .routes(routes!(failover::check_policy))
        .routes(routes!(failover::delete_policy))
        .routes(routes!(cluster::status))
        .routes(routes!(cluster::add))
        .routes(routes!(cluster::remove))
        .routes(routes!(cluster::promote))
        .routes(routes!(cluster::lead))
        .split_for_parts();
    // Serialising a document of strings and maps cannot fail.
    let document: Arc<str> = document.to_json().unwrap_or_default().into();
    router
        .route(
            "/v1/openapi.json",
            get(async move || ([(header::CONTENT_TYPE, "application/json")], document.to_string())),
        )
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

/// Decides and claims. Nothing fits: 200 with an answer without placements.
#[utoipa::path(post, path = "/v1/place", tag = "scheduler", request_body = v1::PlaceRequest, responses(
    (status = 200, body = v1::PlaceResponse),
    (status = 400, body = ErrorBody), (status = 409, body = ErrorBody, description = "request_id used before, or too old"),
    (status = 503, body = ErrorBody), (status = 504, body = ErrorBody),
))]
async fn place(
    State(service): Shared,
    Extension(call): Extension<Call>,
    Sent(request): Sent<v1::PlaceRequest>,
) -> Answer<v1::PlaceResponse> {
    Ok(Json(service.place(request, &call).await?))
}

/// Tells why a past decision, or a dry run of a request, comes out as it does.
#[utoipa::path(post, path = "/v1/explain", tag = "scheduler", request_body = v1::ExplainRequest, responses(
    (status = 200, body = v1::ExplainResponse), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
))]
async fn explain(
    State(service): Shared,
    Extension(call): Extension<Call>,
    Sent(request): Sent<v1::ExplainRequest>,
) -> Answer<v1::ExplainResponse> {
    Ok(Json(service.explain(request, &call).await?))
}

/// Whether so many more would fit, where, and what stops them. Changes nothing.
#[utoipa::path(post, path = "/v1/what-if/fit", tag = "what-if", request_body = v1::WhatIfFitRequest, responses(
    (status = 200, body = v1::WhatIfFitResponse), (status = 400, body = ErrorBody), (status = 503, body = ErrorBody),
))]
async fn what_if_fit(
    State(service): Shared,
    Extension(call): Extension<Call>,
    Sent(asked): Sent<v1::WhatIfFitRequest>,
) -> Answer<v1::WhatIfFitResponse> {
    Ok(Json(service.what_if_fit(asked, &call).await?))
}

/// Which instances would find no place if hosts were lost. Changes nothing.
#[utoipa::path(post, path = "/v1/what-if/lose", tag = "what-if", request_body = v1::WhatIfLoseRequest, responses(
    (status = 200, body = v1::WhatIfLoseResponse), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 503, body = ErrorBody),
))]
async fn what_if_lose(
    State(service): Shared,
    Extension(call): Extension<Call>,
    Sent(asked): Sent<v1::WhatIfLoseRequest>,
) -> Answer<v1::WhatIfLoseResponse> {
    Ok(Json(service.what_if_lose(asked, &call).await?))
}

/// Which moves would empty hosts, or even them out. Changes nothing.
#[utoipa::path(post, path = "/v1/what-if/moves", tag = "what-if", request_body = v1::WhatIfMovesRequest, responses(
    (status = 200, body = v1::WhatIfMovesResponse), (status = 400, body = ErrorBody), (status = 503, body = ErrorBody),
))]
async fn what_if_moves(
    State(service): Shared,
    Extension(call): Extension<Call>,
    Sent(asked): Sent<v1::WhatIfMovesRequest>,
) -> Answer<v1::WhatIfMovesResponse> {
    Ok(Json(service.what_if_moves(asked, &call).await?))
}

/// Lists remembered decisions, newest first.
#[utoipa::path(get, path = "/v1/decisions", tag = "scheduler", params(v1::DecisionsRequest), responses(
    (status = 200, body = v1::DecisionsResponse), (status = 400, body = ErrorBody),
))]
async fn decisions(
    State(service): Shared,
    Extension(call): Extension<Call>,
    Asked(request): Asked<v1::DecisionsRequest>,
) -> Answer<v1::DecisionsResponse> {
    Ok(Json(service.decisions(request, call.fresh).await?))
}

/// Tells why a decision came out as it did.
#[utoipa::path(get, path = "/v1/decisions/{id}", tag = "scheduler", params(
    ("id" = u64, Path, description = "Number of the decision"),
    ("host" = Option<Vec<String>>, Query, description = "Hosts whose story is told; none = the first five; * = all"),
), responses((status = 200, body = v1::ExplainResponse), (status = 404, body = ErrorBody)))]
async fn decision(
    State(service): Shared,
    Extension(call): Extension<Call>,
    Path(id): Path<String>,
    Asked(pairs): Asked<Vec<(String, String)>>,
) -> Answer<v1::ExplainResponse> {
    let id = id.parse().map_err(|_| ApiError::not_found("the number of a decision expected after /v1/decisions/"))?;
    let mut hosts = Vec::new();
    for (key, value) in pairs {
        if key != "host" {
            return Err(ApiError::bad_request(format!("'{}' given, host expected", key.escape_debug())));
        }
        hosts.push(value);
    }
    let request = v1::ExplainRequest { decision: Some(id), hosts, ..v1::ExplainRequest::default() };
    Ok(Json(service.explain(request, &call).await?))
}

/// Decisions as they are applied, as server-sent events; each `data` is a DecisionEvent.
#[utoipa::path(get, path = "/v1/decisions/watch", tag = "scheduler", params(v1::WatchDecisionsRequest), responses(
    (status = 200, content_type = "text/event-stream", body = v1::DecisionEvent), (status = 503, body = ErrorBody),
))]
async fn watch_decisions(
    State(service): Shared,
    Asked(request): Asked<v1::WatchDecisionsRequest>,
) -> Result<Response, ApiError> {
    Ok(events(service.watch_decisions(request).await?))
}

/// Lists hosts.
#[utoipa::path(get, path = "/v1/hosts", tag = "inventory", params(v1::ListHostsRequest), responses(
    (status = 200, body = v1::ListHostsResponse), (status = 400, body = ErrorBody),
))]
async fn list_hosts(
    State(service): Shared,
    Extension(call): Extension<Call>,
    Asked(request): Asked<v1::ListHostsRequest>,
) -> Answer<v1::ListHostsResponse> {
    Ok(Json(service.list_hosts(request, call.fresh).await?))
}

/// Tells what hosts are and what runs on them. The whole list is validated before anything changes.
#[utoipa::path(post, path = "/v1/hosts", tag = "inventory", request_body = v1::ApplyHostsRequest, responses(
    (status = 200, body = v1::ApplyHostsResponse), (status = 400, body = ErrorBody), (status = 503, body = ErrorBody),
))]
async fn apply_hosts(
    State(service): Shared,
    Sent(request): Sent<v1::ApplyHostsRequest>,
) -> Answer<v1::ApplyHostsResponse> {
    Ok(Json(service.apply(request).await?))
}

/// Tells numbers about hosts (load, contention), for rules in pipelines.
#[utoipa::path(post, path = "/v1/features", tag = "inventory", request_body = v1::ApplyFeaturesRequest, responses(
    (status = 200, body = v1::ApplyHostsResponse), (status = 400, body = ErrorBody), (status = 503, body = ErrorBody),
))]
async fn apply_features(
    State(service): Shared,
    Sent(request): Sent<v1::ApplyFeaturesRequest>,
) -> Answer<v1::ApplyHostsResponse> {
    Ok(Json(service.apply_features(request).await?))
}

/// Hosts as they change, as server-sent events; each `data` is a HostEvent.
#[utoipa::path(get, path = "/v1/hosts/watch", tag = "inventory", params(v1::WatchHostsRequest), responses(
    (status = 200, content_type = "text/event-stream", body = v1::HostEvent), (status = 503, body = ErrorBody),
))]
async fn watch_hosts(
    State(service): Shared,
    Asked(request): Asked<v1::WatchHostsRequest>,
) -> Result<Response, ApiError> {
    Ok(events(service.watch_hosts(&request).await?))
}

/// Lists consumers: instances, and the claims of ones that are still to come.
#[utoipa::path(get, path = "/v1/instances", tag = "inventory", params(v1::ListInstancesRequest), responses(
    (status = 200, body = v1::ListInstancesResponse), (status = 400, body = ErrorBody),
))]
async fn list_instances(
    State(service): Shared,
    Extension(call): Extension<Call>,
    Asked(request): Asked<v1::ListInstancesRequest>,
) -> Answer<v1::ListInstancesResponse> {
    Ok(Json(service.list_instances(request, call.fresh).await?))
}

/// Gives up the open claims of a consumer, or the consumer itself.
#[utoipa::path(delete, path = "/v1/instances/{uuid}", tag = "inventory", params(
    ("uuid" = String, Path, description = "Consumer uuid"),
    ("domain" = Option<String>, Query, description = "Domain; absent = nova"),
    ("observed_too" = Option<bool>, Query, description = "Also forget it where it was seen"),
), responses((status = 200, body = v1::ReleaseResponse), (status = 400, body = ErrorBody)))]
async fn release(
    State(service): Shared,
    Path(consumer): Path<String>,
    Asked(request): Asked<v1::ReleaseRequest>,
) -> Answer<v1::ReleaseResponse> {
    let request = v1::ReleaseRequest { consumer, ..request };
    Ok(Json(service.release(request).await?))
}

fn events<T: Serialize + Send + 'static>(events: impl Stream<Item = T> + Send + 'static) -> Response {
    let encoded = events.map(|event| {
        // Serialising a message cannot fail; if it does, the reader sees an empty event.
        Ok::<_, Infallible>(Event::default().json_data(event).unwrap_or_default())
    });
    Sse::new(encoded).keep_alive(KeepAlive::default()).into_response()
}

async fn healthz(State(service): Shared) -> Response {
    match service.node.status().fatal {
        None => "ok\n".into_response(),
        Some(fatal) => ApiError::unavailable("stopped", fatal, 10).into_response(),
    }
}

async fn readyz(State(service): Shared) -> Response {
    match service.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(why) => ApiError::unavailable("no_leader", why, 1).into_response(),
    }
}

async fn metrics(State(service): Shared) -> Response {
    let text = service.render_metrics().await;
    (StatusCode::OK, [(header::CONTENT_TYPE, crate::metrics::CONTENT_TYPE)], text).into_response()
}
