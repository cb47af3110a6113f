//! The external scheduler hooks: `POST /scheduler/<service>/external` of Nova, Cinder and Manila.
//!
//! 200 with exactly `{"hosts": [...]}`: a subset of the hosts sent, best first, each once. An empty
//! list is a decision ("no host fits"), never a failure: the services trust it.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};
use scheduler::decision::Claim;
use scheduler::{Decision, Request};
use serde::Serialize;

use crate::body::BadRequest;
use crate::error::ApiError;
use crate::service::{Call, Service};
use crate::{limits, nova, storage};

/// Paths of the hooks.
pub(crate) const NOVA: &str = "/scheduler/nova/external";
pub(crate) const CINDER: &str = "/scheduler/cinder/external";
pub(crate) const MANILA: &str = "/scheduler/manila/external";

/// Makes a request of a body.
type Translate = fn(&[u8]) -> Result<Request, BadRequest>;

const HOOKS: [(&str, Translate); 3] = [(NOVA, nova::translate), (CINDER, storage::cinder), (MANILA, storage::manila)];

pub(crate) static REQUEST_ID: header::HeaderName = header::HeaderName::from_static("x-request-id");
static DECISION: header::HeaderName = header::HeaderName::from_static("x-pallium-decision");
static CLAIM: header::HeaderName = header::HeaderName::from_static("x-pallium-claim");

#[derive(Serialize)]
struct Answer<'a> {
    hosts: Vec<&'a str>,
}

/// Adds the hooks to the routes.
pub(crate) fn add(router: Router<Arc<Service>>) -> Router<Arc<Service>> {
    HOOKS.into_iter().fold(router, |router, (path, translate)| {
        let hook = async move |State(service): State<Arc<Service>>,
                               Extension(mut call): Extension<Call>,
                               headers: HeaderMap,
                               body: Body| {
            let mut response = match decide(&service, &mut call, &headers, body, translate).await {
                Ok(decision) => answer(&decision),
                Err(error) => error.respond(&call.id),
            };
            if let Ok(id) = HeaderValue::from_str(&call.id) {
                response.headers_mut().insert(&REQUEST_ID, id);
            }
            response
        };
        router.route(path, routing::post(hook))
    })
}

async fn decide(
    service: &Service,
    call: &mut Call,
    headers: &HeaderMap,
    body: Body,
    translate: Translate,
) -> Result<Arc<Decision>, ApiError> {
    let body = limits::read(headers, body, service.config.body, &service.bodies, call.deadline).await?;
    let mut request = translate(&body.bytes)?;
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
    let hosts: Vec<&str> = decision.hosts.iter().map(|ranked| ranked.host.as_str()).collect();
    // Thousands of names: the room for them is made once.
    let mut text = Vec::with_capacity(16 + hosts.iter().map(|host| host.len() + 3).sum::<usize>());
    if let Err(error) = serde_json::to_writer(&mut text, &Answer { hosts }) {
        return ApiError::internal(error.to_string()).into_response();
    }
    let mut response = ([(header::CONTENT_TYPE, "application/json")], text).into_response();
    let headers = response.headers_mut();
    if decision.id > 0 {
        headers.insert(&DECISION, HeaderValue::from(decision.id));
    }
    if decision.claim == Claim::None && !decision.hosts.is_empty() {
        headers.insert(&CLAIM, HeaderValue::from_static("none"));
    }
    response
}
