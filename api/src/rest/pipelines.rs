//! The pipelines under `/v1`.

use axum::extract::{Path, State};
use axum::{Extension, Json};

use super::{Answer, Asked, Sent, Shared};
use crate::error::ErrorBody;
use crate::proto::v1;
use crate::service::Call;

/// Lists the pipelines.
#[utoipa::path(get, path = "/v1/pipelines", tag = "pipelines", params(v1::ListPipelinesRequest), responses(
    (status = 200, body = v1::ListPipelinesResponse), (status = 400, body = ErrorBody),
))]
pub(crate) async fn list(
    State(service): Shared,
    Extension(call): Extension<Call>,
    Asked(request): Asked<v1::ListPipelinesRequest>,
) -> Answer<v1::ListPipelinesResponse> {
    Ok(Json(service.pipelines(request, call.fresh).await?))
}

/// Gives one pipeline with its resource.
#[utoipa::path(get, path = "/v1/pipelines/{name}", tag = "pipelines", params(
    ("name" = String, Path, description = "Pipeline name"),
), responses((status = 200, body = v1::GetPipelineResponse), (status = 404, body = ErrorBody)))]
pub(crate) async fn get(
    State(service): Shared,
    Extension(call): Extension<Call>,
    Path(name): Path<String>,
) -> Answer<v1::GetPipelineResponse> {
    Ok(Json(service.pipeline(v1::GetPipelineRequest { name }, call.fresh).await?))
}

/// Adds a version of a pipeline, and makes it active unless told otherwise.
#[utoipa::path(post, path = "/v1/pipelines", tag = "pipelines", request_body = v1::ApplyPipelineRequest, responses(
    (status = 200, body = v1::ChangePipelineResponse),
    (status = 400, body = ErrorBody, description = "The resource cannot run: every error with its place"),
    (status = 409, body = ErrorBody, description = "There is a newer version, or a limit is reached"),
))]
pub(crate) async fn apply(
    State(service): Shared,
    Sent(request): Sent<v1::ApplyPipelineRequest>,
) -> Answer<v1::ChangePipelineResponse> {
    Ok(Json(service.apply_pipeline(request).await?))
}

/// Checks a resource and changes nothing.
#[utoipa::path(post, path = "/v1/lint/pipeline", tag = "pipelines", request_body = v1::LintPipelineRequest, responses(
    (status = 200, body = v1::LintPipelineResponse), (status = 400, body = ErrorBody),
))]
pub(crate) async fn lint(
    State(service): Shared,
    Sent(request): Sent<v1::LintPipelineRequest>,
) -> Answer<v1::LintPipelineResponse> {
    Ok(Json(service.lint(request).await?))
}

/// Makes a version active; the name in the body may be left out.
#[utoipa::path(post, path = "/v1/pipelines/{name}/activate", tag = "pipelines", params(
    ("name" = String, Path, description = "Pipeline name"),
), request_body = v1::ActivatePipelineRequest, responses(
    (status = 200, body = v1::ChangePipelineResponse), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
))]
pub(crate) async fn activate(
    State(service): Shared,
    Path(name): Path<String>,
    Sent(request): Sent<v1::ActivatePipelineRequest>,
) -> Answer<v1::ChangePipelineResponse> {
    Ok(Json(service.activate(v1::ActivatePipelineRequest { name, ..request }).await?))
}

/// Makes active what was active before; the name in the body may be left out.
#[utoipa::path(post, path = "/v1/pipelines/{name}/rollback", tag = "pipelines", params(
    ("name" = String, Path, description = "Pipeline name"),
), request_body = v1::RollbackPipelineRequest, responses(
    (status = 200, body = v1::ChangePipelineResponse), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
))]
pub(crate) async fn rollback(
    State(service): Shared,
    Path(name): Path<String>,
    Sent(request): Sent<v1::RollbackPipelineRequest>,
) -> Answer<v1::ChangePipelineResponse> {
    Ok(Json(service.rollback(v1::RollbackPipelineRequest { name, ..request }).await?))
}

/// Forgets a pipeline with all its versions; one that ships with the program is active again then.
#[utoipa::path(delete, path = "/v1/pipelines/{name}", tag = "pipelines", params(
    ("name" = String, Path, description = "Pipeline name"),
), responses(
    (status = 200, body = v1::ChangePipelineResponse), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
))]
pub(crate) async fn delete(State(service): Shared, Path(name): Path<String>) -> Answer<v1::ChangePipelineResponse> {
    Ok(Json(service.delete_pipeline(v1::DeletePipelineRequest { name }).await?))
}

/// Tells which versions there are, and which was active since when.
#[utoipa::path(get, path = "/v1/pipelines/{name}/history", tag = "pipelines", params(
    ("name" = String, Path, description = "Pipeline name"),
), responses((status = 200, body = v1::PipelineHistoryResponse), (status = 404, body = ErrorBody)))]
pub(crate) async fn history(
    State(service): Shared,
    Extension(call): Extension<Call>,
    Path(name): Path<String>,
) -> Answer<v1::PipelineHistoryResponse> {
    Ok(Json(service.history(v1::PipelineHistoryRequest { name }, call.fresh).await?))
}

/// Compares two versions, or a version with a resource; the name in the body may be left out.
#[utoipa::path(post, path = "/v1/pipelines/{name}/diff", tag = "pipelines", params(
    ("name" = String, Path, description = "Pipeline name"),
), request_body = v1::DiffPipelineRequest, responses(
    (status = 200, body = v1::DiffPipelineResponse), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
))]
pub(crate) async fn diff(
    State(service): Shared,
    Extension(call): Extension<Call>,
    Path(name): Path<String>,
    Sent(request): Sent<v1::DiffPipelineRequest>,
) -> Answer<v1::DiffPipelineResponse> {
    Ok(Json(service.diff(v1::DiffPipelineRequest { name, ..request }, call.fresh).await?))
}

/// Lets a version run beside the active one without effect, or ends that; the name in the body may be
/// left out.
#[utoipa::path(post, path = "/v1/pipelines/{name}/shadow", tag = "pipelines", params(
    ("name" = String, Path, description = "Pipeline name"),
), request_body = v1::ShadowPipelineRequest, responses(
    (status = 200, body = v1::ChangePipelineResponse), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
))]
pub(crate) async fn shadow_one(
    State(service): Shared,
    Path(name): Path<String>,
    Sent(request): Sent<v1::ShadowPipelineRequest>,
) -> Answer<v1::ChangePipelineResponse> {
    Ok(Json(service.shadow(v1::ShadowPipelineRequest { name, ..request }).await?))
}

/// Tells how the versions that run beside active ones differ from them.
#[utoipa::path(get, path = "/v1/shadows", tag = "pipelines", params(v1::ListShadowsRequest), responses(
    (status = 200, body = v1::ListShadowsResponse), (status = 503, body = ErrorBody),
))]
pub(crate) async fn shadows(
    State(service): Shared,
    Asked(request): Asked<v1::ListShadowsRequest>,
) -> Answer<v1::ListShadowsResponse> {
    Ok(Json(service.shadows(request).await?))
}
