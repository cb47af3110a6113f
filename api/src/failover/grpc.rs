//! gRPC: package `pallium.ha.v1` over the shared methods.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::agents::{self, Way};
use crate::grpc::{Answer, Methods, call};
use crate::identity::Caller;
use crate::proto::ha;
use crate::proto::ha::failover_server::Failover;
use crate::proto::ha::host_agent_server::HostAgent;

#[tonic::async_trait]
impl HostAgent for Methods {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<ha::AgentDirective, Status>> + Send>>;

    async fn session(&self, request: Request<Streaming<ha::AgentReport>>) -> Answer<Self::SessionStream> {
        let caller = request.extensions().get::<Caller>().cloned();
        let directives = agents::session(Arc::clone(&self.0), caller, Way::Stream, request.into_inner()).await?;
        Ok(Response::new(Box::pin(ReceiverStream::new(directives))))
    }
}

#[tonic::async_trait]
impl Failover for Methods {
    async fn status(&self, request: Request<ha::FailoverStatusRequest>) -> Answer<ha::FailoverStatusResponse> {
        Ok(Response::new(self.0.failover_status(&call(&request)?).await?))
    }

    async fn hosts(&self, request: Request<ha::FailoverHostsRequest>) -> Answer<ha::FailoverHostsResponse> {
        let call = call(&request)?;
        Ok(Response::new(self.0.failover_hosts(request.into_inner(), &call).await?))
    }

    async fn losses(&self, request: Request<ha::FailoverLossesRequest>) -> Answer<ha::FailoverLossesResponse> {
        let call = call(&request)?;
        Ok(Response::new(self.0.failover_losses(request.into_inner(), &call).await?))
    }

    async fn apply_hosts(
        &self,
        request: Request<ha::ApplyFailoverHostsRequest>,
    ) -> Answer<ha::ApplyFailoverHostsResponse> {
        Ok(Response::new(self.0.apply_failover_hosts(request.into_inner()).await?))
    }

    async fn remove_host(&self, request: Request<ha::FailoverHostRequest>) -> Answer<ha::FailoverDone> {
        Ok(Response::new(self.0.remove_failover_host(request.into_inner()).await?))
    }

    async fn cases(&self, request: Request<ha::FailoverCasesRequest>) -> Answer<ha::FailoverCasesResponse> {
        let call = call(&request)?;
        Ok(Response::new(self.0.failover_cases(request.into_inner(), &call).await?))
    }

    async fn case(&self, request: Request<ha::FailoverHostRequest>) -> Answer<ha::FailoverCase> {
        let call = call(&request)?;
        Ok(Response::new(self.0.failover_case(request.into_inner(), &call).await?))
    }

    async fn confirm_dead(&self, request: Request<ha::ConfirmDeadRequest>) -> Answer<ha::FailoverDone> {
        Ok(Response::new(self.0.confirm_dead(request.into_inner()).await?))
    }

    async fn decide_instance(&self, request: Request<ha::DecideInstanceRequest>) -> Answer<ha::FailoverDone> {
        Ok(Response::new(self.0.decide_instance(request.into_inner()).await?))
    }

    async fn abort_case(&self, request: Request<ha::AbortCaseRequest>) -> Answer<ha::FailoverDone> {
        Ok(Response::new(self.0.abort_case(request.into_inner()).await?))
    }

    async fn open_case(&self, request: Request<ha::FailoverHostRequest>) -> Answer<ha::FailoverDone> {
        Ok(Response::new(self.0.open_case(request.into_inner()).await?))
    }

    async fn exempt(&self, request: Request<ha::ForAWhileRequest>) -> Answer<ha::FailoverDone> {
        Ok(Response::new(self.0.exempt(request.into_inner()).await?))
    }

    async fn pause(&self, request: Request<ha::PauseRequest>) -> Answer<ha::FailoverDone> {
        Ok(Response::new(self.0.pause(request.into_inner()).await?))
    }

    async fn hold(&self, request: Request<ha::HoldRequest>) -> Answer<ha::FailoverDone> {
        Ok(Response::new(self.0.hold(request.into_inner()).await?))
    }

    async fn answer(&self, request: Request<ha::AnswerBreakerRequest>) -> Answer<ha::FailoverDone> {
        Ok(Response::new(self.0.answer_breaker(request.into_inner()).await?))
    }

    async fn maintain(&self, request: Request<ha::MaintainRequest>) -> Answer<ha::FailoverDone> {
        Ok(Response::new(self.0.maintain(request.into_inner()).await?))
    }

    async fn drain(&self, request: Request<ha::DrainRequest>) -> Answer<ha::FailoverDone> {
        Ok(Response::new(self.0.drain(request.into_inner()).await?))
    }

    async fn cancel_drain(&self, request: Request<ha::FailoverHostRequest>) -> Answer<ha::FailoverDone> {
        Ok(Response::new(self.0.cancel_drain(request.into_inner()).await?))
    }

    async fn end_drain(&self, request: Request<ha::FailoverHostRequest>) -> Answer<ha::FailoverDone> {
        Ok(Response::new(self.0.end_drain(request.into_inner()).await?))
    }

    async fn drains(&self, request: Request<ha::FailoverDrainsRequest>) -> Answer<ha::FailoverDrainsResponse> {
        let call = call(&request)?;
        Ok(Response::new(self.0.drains(request.into_inner(), &call).await?))
    }

    async fn end_quarantine(&self, request: Request<ha::EndQuarantineRequest>) -> Answer<ha::FailoverDone> {
        Ok(Response::new(self.0.end_quarantine(request.into_inner()).await?))
    }

    async fn release(&self, request: Request<ha::FailoverReasonRequest>) -> Answer<ha::FailoverDone> {
        Ok(Response::new(self.0.release_failover(request.into_inner()).await?))
    }

    async fn policies(&self, request: Request<ha::FailoverPoliciesRequest>) -> Answer<ha::FailoverPoliciesResponse> {
        let call = call(&request)?;
        Ok(Response::new(self.0.failover_policies(request.into_inner(), &call).await?))
    }

    async fn check_policy(&self, request: Request<ha::FailoverPolicyRequest>) -> Answer<ha::FailoverPolicyChange> {
        Ok(Response::new(self.0.check_policy(request.into_inner()).await?))
    }

    async fn apply_policy(&self, request: Request<ha::FailoverPolicyRequest>) -> Answer<ha::FailoverPolicyChange> {
        Ok(Response::new(self.0.apply_policy(request.into_inner()).await?))
    }

    async fn delete_policy(
        &self,
        request: Request<ha::DeleteFailoverPolicyRequest>,
    ) -> Answer<ha::FailoverPolicyChange> {
        Ok(Response::new(self.0.delete_policy(request.into_inner()).await?))
    }
}
