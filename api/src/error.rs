//! What a caller is told when there is no answer: one shape for REST and the hooks, one table to
//! gRPC. The OpenStack APIs keep their own shapes.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use raft::Refused;
use scheduler::Refusal;
use serde::Serialize;
use tonic::{Code, Status};
use utoipa::ToSchema;

use crate::body::BadRequest;

/// Every code that [`ApiError`] has.
const CODES: [&str; 21] = [
    "bad_request",
    "permission_denied",
    "unknown_pipeline",
    "no_pipeline",
    "pipeline_unrunnable",
    "not_found",
    "method_not_allowed",
    "payload_too_large",
    "unsupported_encoding",
    "key_conflict",
    "key_expired",
    "overloaded",
    "not_leader",
    "no_leader",
    "conflict",
    "contended",
    "stopped",
    "fleet_unknown",
    "deadline",
    "outcome_unknown",
    "internal",
];

/// A refusal or a failure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// Stable name of what went wrong; also a metric label, so one of a fixed set.
    pub code: &'static str,
    /// What was given, what was expected, what to do.
    pub message: String,
    /// Seconds after which asking again makes sense.
    pub retry_after: Option<u32>,
}

/// The longest that somebody is told to wait, seconds.
const LATEST: u64 = 10;

/// Body of every error answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// One error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorDetail {
    /// Stable name of what went wrong.
    pub code: String,
    /// What was given, what was expected, what to do.
    pub message: String,
    /// Id of the call, as in `X-Request-ID`.
    pub request_id: String,
}

/// The error code of an answer, for metrics and logs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ErrorCode(pub &'static str);

impl ApiError {
    /// An error that asking again does not mend.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after: None }
    }

    /// 400 `bad_request`.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// 403 `permission_denied`: the client's certificate is not one for this.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission_denied", message)
    }

    /// 409 `conflict`: it cannot be done now; the message says what to do first.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    /// 404 `not_found`.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// 503 with `Retry-After`, seconds.
    pub fn unavailable(code: &'static str, message: impl Into<String>, retry_after: u32) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message) }
    }

    /// 504 `deadline`.
    pub fn deadline(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "deadline", message)
    }

    /// 500 `internal`.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    /// The answer, with the id of the call.
    pub fn respond(&self, request_id: &str) -> Response {
        let body = ErrorBody {
            error: ErrorDetail {
                code: self.code.to_owned(),
                message: self.message.clone(),
                request_id: request_id.to_owned(),
            },
        };
        let mut response = (self.status, axum::Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(ErrorCode(self.code));
        response
    }

    /// The code of an answered gRPC error, as its metadata names it.
    pub(crate) fn known_code(code: &str) -> Option<&'static str> {
        CODES.iter().find(|known| **known == code).copied()
    }

    fn grpc(&self) -> Code {
        match self.code {
            "overloaded" => Code::ResourceExhausted,
            "contended" => Code::Aborted,
            "key_conflict" => Code::AlreadyExists,
            "key_expired" | "conflict" => Code::FailedPrecondition,
            _ => match self.status {
                StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED => Code::InvalidArgument,
                StatusCode::FORBIDDEN => Code::PermissionDenied,
                StatusCode::NOT_FOUND => Code::NotFound,
                StatusCode::PAYLOAD_TOO_LARGE => Code::ResourceExhausted,
                StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
                StatusCode::GATEWAY_TIMEOUT => Code::DeadlineExceeded,
                _ => Code::Internal,
            },
        }
    }
}

impl IntoResponse for ApiError {
    /// The answer without the id of the call, which the server's outermost layer adds.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let mut status = Self::new(error.grpc(), error.message.clone());
        let metadata = status.metadata_mut();
        metadata.insert("pallium-error", tonic::metadata::MetadataValue::from_static(error.code));
        if let Some(seconds) = error.retry_after {
            metadata.insert("retry-after", seconds.into());
        }
        status
    }
}

impl From<BadRequest> for ApiError {
    fn from(error: BadRequest) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::Invalid(_) => Self::bad_request(message),
            Refusal::Pipeline(scheduler::pipeline::engine::ChoiceError::Unknown { .. }) => {
                Self::new(StatusCode::BAD_REQUEST, "unknown_pipeline", message)
            }
            Refusal::Pipeline(scheduler::pipeline::engine::ChoiceError::Unrunnable(_)) => {
                Self::unavailable("pipeline_unrunnable", message, 10)
            }
            Refusal::Pipeline(_) => Self::new(StatusCode::BAD_REQUEST, "no_pipeline", message),
            Refusal::FleetUnknown { .. } => Self::unavailable("fleet_unknown", message, 5),
            Refusal::KeyConflict(_) => Self::new(StatusCode::CONFLICT, "key_conflict", message),
            Refusal::KeyExpired(_) => Self::new(StatusCode::CONFLICT, "key_expired", message),
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        match refused {
            Refused::Overloaded { wait, .. } => {
                Self::unavailable("overloaded", message, wait.div_ceil(1000).clamp(1, LATEST) as u32)
            }
            Refused::Deadline => Self::deadline(message),
            Refused::NotLeader => Self::unavailable("not_leader", message, 1),
            Refused::NoLeader(_) => Self::unavailable("no_leader", message, 1),
            Refused::Conflict(_) => Self::new(StatusCode::CONFLICT, "conflict", message),
            Refused::Unknown => Self::new(StatusCode::GATEWAY_TIMEOUT, "outcome_unknown", message),
            Refused::Contended { .. } => Self::unavailable("contended", message, 1),
            Refused::Refusal(refusal) => refusal.into(),
            Refused::Stopped(_) => Self::unavailable("stopped", message, 10),
        }
    }
}
