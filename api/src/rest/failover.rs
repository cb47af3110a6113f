//! Failover under `/v1/ha`.

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::{Extension, Json};

use super::{Answer, Asked, Sent, Shared};
use crate::body;
use crate::error::{ApiError, ErrorBody};
use crate::identity::Caller;
use crate::limits;
use crate::proto::ha;
use crate::service::Call;

/// What failover does now, and what stops it.
#[utoipa::path(get, path = "/v1/ha", tag = "failover", responses((status = 200, body = ha::FailoverStatusResponse)))]
pub(crate) async fn status(
    State(service): Shared,
    Extension(call): Extension<Call>,
) -> Answer<ha::FailoverStatusResponse> {
    Ok(Json(service.failover_status(&call).await?))
}

/// The hosts that it watches.
#[utoipa::path(get, path = "/v1/ha/hosts", tag = "failover", params(ha::FailoverHostsRequest), responses(
    (status = 200, body = ha::FailoverHostsResponse), (status = 400, body = ErrorBody),
))]
pub(crate) async fn hosts(
    State(service): Shared,
    Extension(call): Extension<Call>,
    Asked(asked): Asked<ha::FailoverHostsRequest>,
) -> Answer<ha::FailoverHostsResponse> {
    Ok(Json(service.failover_hosts(asked, &call).await?))
}

/// Which of the largest hosts could not be lost now, by capacity.
#[utoipa::path(get, path = "/v1/ha/losses", tag = "failover", params(ha::FailoverLossesRequest), responses(
    (status = 200, body = ha::FailoverLossesResponse),
))]
pub(crate) async fn losses(
    State(service): Shared,
    Extension(call): Extension<Call>,
    Asked(asked): Asked<ha::FailoverLossesRequest>,
) -> Answer<ha::FailoverLossesResponse> {
    Ok(Json(service.failover_losses(asked, &call).await?))
}

/// Tells which hosts it watches and how they are fenced.
#[utoipa::path(post, path = "/v1/ha/hosts", tag = "failover", request_body = ha::ApplyFailoverHostsRequest, responses(
    (status = 200, body = ha::ApplyFailoverHostsResponse), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
))]
pub(crate) async fn apply_hosts(
    State(service): Shared,
    Sent(asked): Sent<ha::ApplyFailoverHostsRequest>,
) -> Answer<ha::ApplyFailoverHostsResponse> {
    Ok(Json(service.apply_failover_hosts(asked).await?))
}

/// Bytes of a request with reports.
const REPORTS: usize = 256 << 10;

/// Reports of a host's agent, 256 KiB at most, for one that cannot hold a session of gRPC. The first ones of a session begin
/// with a Hello, and the others go to the same node.
#[utoipa::path(post, path = "/v1/ha/hosts/{host}/reports", tag = "failover", request_body = Vec<ha::AgentReport>, params(
    ("host" = String, Path, description = "Id of the host"),
), responses(
    (status = 204, description = "They are taken in"),
    (status = 400, body = ErrorBody),
    (status = 403, body = ErrorBody, description = "Of another host than the certificate's, or than the path's"),
    (status = 409, body = ErrorBody, description = "There is no session with this node: begin with a Hello"),
    (status = 413, body = ErrorBody), (status = 503, body = ErrorBody), (status = 504, body = ErrorBody),
))]
pub(crate) async fn reports(
    State(service): Shared,
    Extension(call): Extension<Call>,
    Path(host): Path<String>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let (parts, body) = request.into_parts();
    let most = REPORTS.min(service.config.body);
    let held = limits::read(&parts.headers, body, most, &service.bodies, call.deadline).await?;
    let reports = body::read_owned(&held.bytes)?;
    let caller = parts.extensions.get::<Caller>().cloned();
    service.agent_reports(caller, &host, reports, &call).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What the agent of a host is told, without leases. A directive comes again until a report acknowledges it.
#[utoipa::path(get, path = "/v1/ha/hosts/{host}/directives", tag = "failover", params(
    ("host" = String, Path, description = "Id of the host"), ha::AgentDirectivesRequest,
), responses(
    (status = 200, body = Vec<ha::AgentDirective>, description = "None: there was none within the time"),
    (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
    (status = 409, body = ErrorBody, description = "There is no session with this node: begin with a Hello"),
))]
pub(crate) async fn directives(
    State(service): Shared,
    caller: Option<Extension<Caller>>,
    Path(host): Path<String>,
    Asked(asked): Asked<ha::AgentDirectivesRequest>,
) -> Answer<Vec<ha::AgentDirective>> {
    Ok(Json(service.agent_directives(caller.map(|Extension(caller)| caller), &host, asked).await?))
}

/// Cases, open ones first.
#[utoipa::path(get, path = "/v1/ha/cases", tag = "failover", params(ha::FailoverCasesRequest), responses(
    (status = 200, body = ha::FailoverCasesResponse),
))]
pub(crate) async fn cases(
    State(service): Shared,
    Extension(call): Extension<Call>,
    Asked(asked): Asked<ha::FailoverCasesRequest>,
) -> Answer<ha::FailoverCasesResponse> {
    Ok(Json(service.failover_cases(asked, &call).await?))
}

/// The open case of a host, else its last one, with its timeline and its instances.
#[utoipa::path(get, path = "/v1/ha/cases/{host}", tag = "failover", params(
    ("host" = String, Path, description = "Nova's name of the host, or its id"),
), responses((status = 200, body = ha::FailoverCase), (status = 404, body = ErrorBody)))]
pub(crate) async fn case(
    State(service): Shared,
    Extension(call): Extension<Call>,
    Path(host): Path<String>,
) -> Answer<ha::FailoverCase> {
    let asked = ha::FailoverHostRequest { host, ..ha::FailoverHostRequest::default() };
    Ok(Json(service.failover_case(asked, &call).await?))
}

/// Drains that are under way, or that are over while their host is still away.
#[utoipa::path(get, path = "/v1/ha/drains", tag = "failover", params(ha::FailoverDrainsRequest), responses(
    (status = 200, body = ha::FailoverDrainsResponse), (status = 404, body = ErrorBody),
))]
pub(crate) async fn drains(
    State(service): Shared,
    Extension(call): Extension<Call>,
    Asked(asked): Asked<ha::FailoverDrainsRequest>,
) -> Answer<ha::FailoverDrainsResponse> {
    Ok(Json(service.drains(asked, &call).await?))
}

/// Policies that are in force, and what a host is under.
#[utoipa::path(get, path = "/v1/ha/policies", tag = "failover", params(ha::FailoverPoliciesRequest), responses(
    (status = 200, body = ha::FailoverPoliciesResponse), (status = 404, body = ErrorBody),
))]
pub(crate) async fn policies(
    State(service): Shared,
    Extension(call): Extension<Call>,
    Asked(asked): Asked<ha::FailoverPoliciesRequest>,
) -> Answer<ha::FailoverPoliciesResponse> {
    Ok(Json(service.failover_policies(asked, &call).await?))
}

/// An order of an operator: a POST whose body is the message of gRPC.
macro_rules! told {
    ($answer:ident: $($(#[$doc:meta])* $path:literal $name:ident($request:ident) $method:ident;)*) => {$(
        $(#[$doc])*
        #[utoipa::path(post, path = $path, tag = "failover", request_body = ha::$request, responses(
            (status = 200, body = ha::$answer), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
            (status = 403, body = ErrorBody, description = "The certificate is no operator's"),
            (status = 409, body = ErrorBody, description = "It cannot be done now: the message says why"),
        ))]
        pub(crate) async fn $name(
            State(service): Shared,
            Sent(asked): Sent<ha::$request>,
        ) -> Answer<ha::$answer> {
            Ok(Json(service.$method(asked).await?))
        }
    )*};
}

told! {
    FailoverPolicyChange:
    /// Checks a policy and tells what it would change. Changes nothing.
    "/v1/ha/check-policy" check_policy(FailoverPolicyRequest) check_policy;
    /// Takes a policy in, or a new revision of it.
    "/v1/ha/policies" apply_policy(FailoverPolicyRequest) apply_policy;
    /// Takes a policy away.
    "/v1/ha/delete-policy" delete_policy(DeleteFailoverPolicyRequest) delete_policy;
}

told! {
    FailoverDone:
    /// Forgets a host that has no open case and on which nothing may run.
    "/v1/ha/remove" remove(FailoverHostRequest) remove_failover_host;
    /// Opens a case of a host by hand.
    "/v1/ha/open" open(FailoverHostRequest) open_case;
    /// Says that a host is dead, with the token of its case.
    "/v1/ha/confirm-dead" confirm_dead(ConfirmDeadRequest) confirm_dead;
    /// Takes a case back whose fence failed and whose host is heard, with the token of the case.
    "/v1/ha/abort" abort(AbortCaseRequest) abort_case;
    /// Decides what becomes of an instance of a case that is not on its way.
    "/v1/ha/instance" instance(DecideInstanceRequest) decide_instance;
    /// Keeps a host from being fenced for a while.
    "/v1/ha/exempt" exempt(ForAWhileRequest) exempt;
    /// Stops fencing or evacuations everywhere for a while.
    "/v1/ha/pause" pause(PauseRequest) pause;
    /// Holds an act of one case, or lets it go on.
    "/v1/ha/hold" hold(HoldRequest) hold;
    /// Answers an open breaker.
    "/v1/ha/answer" answer(AnswerBreakerRequest) answer_breaker;
    /// Says why a host is not at work, or that it is.
    "/v1/ha/maintain" maintain(MaintainRequest) maintain;
    /// Empties a living host by migrations, for planned work.
    "/v1/ha/drain" drain(DrainRequest) drain;
    /// Ends a drain before its time; the host is at work again.
    "/v1/ha/cancel-drain" cancel_drain(FailoverHostRequest) cancel_drain;
    /// After planned work: a drained host is at work again.
    "/v1/ha/end-drain" end_drain(FailoverHostRequest) end_drain;
    /// Says that a host in quarantine is what it says it is, or lets an instance go that was on hosts that died.
    "/v1/ha/end-quarantine" end_quarantine(EndQuarantineRequest) end_quarantine;
    /// After a restore: failover acts again.
    "/v1/ha/release" release(FailoverReasonRequest) release_failover;
}
