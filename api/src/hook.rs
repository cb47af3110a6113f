//! The external scheduler hook of Nova: `POST /scheduler/nova/external`.
//!
//! 200 with exactly `{"hosts": [...]}`: a subset of the hosts sent, best first, each once. An empty
//! list is a decision ("no host fits"), never a failure: Nova trusts it.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use scheduler::Decision;
use scheduler::decision::Claim;
use serde::Serialize;

use crate::error::ApiError;
use crate::limits;
use crate::nova;
use crate::service::{Call, Service};

/// Path of the hook.
pub(crate) const NOVA: &str = "/scheduler/nova/external";

pub(crate) static REQUEST_ID: header::HeaderName = header::HeaderName::from_static("x-request-id");
static DECISION: header::HeaderName = header::HeaderName::from_static("x-pallium-decision");
static CLAIM: header::HeaderName = header::HeaderName::from_static("x-pallium-claim");

#[derive(Serialize)]
struct Answer<'a> {
    hosts: Vec<&'a str>,
}

pub(crate) async fn nova(
    State(service): State<Arc<Service>>,
    Extension(mut call): Extension<Call>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let mut response = match decide(&service, &mut call, &headers, body).await {
        Ok(decision) => answer(&decision),
        Err(error) => error.respond(&call.id),
    };
    if let Ok(id) = HeaderValue::from_str(&call.id) {
        response.headers_mut().insert(&REQUEST_ID, id);
    }
    response
}

async fn decide(
    service: &Service,
    call: &mut Call,
    headers: &HeaderMap,
    body: Body,
) -> Result<Arc<Decision>, ApiError> {
    let body = limits::read(headers, body, service.config.body, &service.bodies, call.deadline).await?;
    let mut request = nova::translate(&body.bytes)?;
    drop(body);
    // A caller that sends no X-Request-ID has named its request in the context.
    if call.given || request.trace_id.is_empty() {
        request.trace_id.clone_from(&call.id);
    } else {
        call.id.clone_from(&request.trace_id);
    }
    service.decide(request, call).await
}

fn answer(decision: &Decision) -> Response {
    let hosts = decision.hosts.iter().map(|ranked| ranked.host.as_str()).collect();
    let mut response = axum::Json(Answer { hosts }).into_response();
    let headers = response.headers_mut();
    if decision.id > 0 {
        headers.insert(&DECISION, HeaderValue::from(decision.id));
    }
    if decision.claim == Claim::None && !decision.hosts.is_empty() {
        headers.insert(&CLAIM, HeaderValue::from_static("none"));
    }
    response
}
