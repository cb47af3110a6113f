//! gRPC: package `pallium.v1` over the shared methods, server reflection and the standard health
//! service.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request as HttpRequest;
use futures::StreamExt;
use raft::Freshness;
use raft::members::Change;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::Service as Tower;

use crate::error::ApiError;
use crate::proto::ha::failover_server::FailoverServer;
use crate::proto::ha::host_agent_server::HostAgentServer;
use crate::proto::v1::cluster_server::{Cluster, ClusterServer};
use crate::proto::v1::inventory_server::{Inventory, InventoryServer};
use crate::proto::v1::pipelines_server::{Pipelines, PipelinesServer};
use crate::proto::v1::scheduler_server::{Scheduler, SchedulerServer};
use crate::proto::v1::what_if_server::{WhatIf, WhatIfServer};
use crate::proto::{DESCRIPTORS, v1};
use crate::service::{Call, Service};
use crate::watch::Events;

/// Bytes of a report of an agent: a list of 4,096 instances and more.
const REPORT: usize = 2 << 20;

/// The methods, as tonic calls them.
#[derive(Clone)]
pub(crate) struct Methods(pub Arc<Service>);

pub(crate) type Answer<T> = Result<Response<T>, Status>;
type Streamed<T> = Events<Result<T, Status>>;

/// Adds the services to a router, and gives what reports their health.
pub(crate) fn add<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    service: &Arc<Service>,
) -> Result<(Router<S>, HealthReporter), tonic_reflection::server::Error> {
    let most = service.config.body;
    let methods = Methods(Arc::clone(service));
    let (health, health_server) = tonic_health::server::health_reporter();
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let router = route(router, SchedulerServer::new(methods.clone()).max_decoding_message_size(most));
    let router = route(router, InventoryServer::new(methods.clone()).max_decoding_message_size(most));
    let router = route(router, ClusterServer::new(methods.clone()).max_decoding_message_size(most));
    let router = route(router, PipelinesServer::new(methods.clone()).max_decoding_message_size(most));
    let router = route(router, WhatIfServer::new(methods.clone()).max_decoding_message_size(most));
    let router = route(router, FailoverServer::new(methods.clone()).max_decoding_message_size(most));
    let router = route(router, HostAgentServer::new(methods).max_decoding_message_size(REPORT));
    let router = route(router, health_server);
    let router = route(router, reflection().build_v1()?);
    let router = route(router, reflection().build_v1alpha()?);
    Ok((router, health))
}

fn route<S, T>(router: Router<S>, service: T) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    T: Tower<HttpRequest, Response = axum::http::Response<Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    T::Future: Send + 'static,
{
    router.route_service(&format!("/{}/{{method}}", T::NAME), service)
}

/// Says whether this node answers, for each service and for the whole.
pub(crate) async fn report(health: &HealthReporter, ready: bool) {
    let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    let names = [
        "",
        <WhatIfServer<Methods> as NamedService>::NAME,
        <SchedulerServer<Methods> as NamedService>::NAME,
        <InventoryServer<Methods> as NamedService>::NAME,
        <PipelinesServer<Methods> as NamedService>::NAME,
        <ClusterServer<Methods> as NamedService>::NAME,
        <FailoverServer<Methods> as NamedService>::NAME,
        <HostAgentServer<Methods> as NamedService>::NAME,
    ];
    for name in names {
        health.set_service_status(name, status).await;
    }
}

/// The call that the server's outermost layer described.
pub(crate) fn call<T>(request: &Request<T>) -> Result<Call, Status> {
    let call = request.extensions().get::<Call>().cloned();
    call.ok_or_else(|| ApiError::internal("a call without its description").into())
}

fn fresh<T>(request: &Request<T>) -> Result<Freshness, Status> {
    Ok(call(request)?.fresh)
}

fn streamed<T: Send + 'static>(events: Events<T>) -> Response<Streamed<T>> {
    Response::new(Box::pin(events.map(Ok)))
}

#[tonic::async_trait]
impl Scheduler for Methods {
    type WatchDecisionsStream = Streamed<v1::DecisionEvent>;
    type RecordStream = Streamed<v1::RecordChunk>;

    async fn record(&self, request: Request<v1::RecordRequest>) -> Answer<Self::RecordStream> {
        let chunks = self.0.record(request.into_inner()).await?;
        Ok(Response::new(Box::pin(chunks.map(|chunk| chunk.map_err(Status::from)))))
    }

    async fn place(&self, request: Request<v1::PlaceRequest>) -> Answer<v1::PlaceResponse> {
        let call = call(&request)?;
        Ok(Response::new(self.0.place(request.into_inner(), &call).await?))
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Answer<v1::ExplainResponse> {
        let call = call(&request)?;
        Ok(Response::new(self.0.explain(request.into_inner(), &call).await?))
    }

    async fn decisions(&self, request: Request<v1::DecisionsRequest>) -> Answer<v1::DecisionsResponse> {
        Ok(Response::new(self.0.decisions(request.get_ref().clone(), fresh(&request)?).await?))
    }

    async fn watch_decisions(&self, request: Request<v1::WatchDecisionsRequest>) -> Answer<Self::WatchDecisionsStream> {
        Ok(streamed(self.0.watch_decisions(request.into_inner()).await?))
    }
}

#[tonic::async_trait]
impl WhatIf for Methods {
    async fn fit(&self, request: Request<v1::WhatIfFitRequest>) -> Answer<v1::WhatIfFitResponse> {
        let call = call(&request)?;
        Ok(Response::new(self.0.what_if_fit(request.into_inner(), &call).await?))
    }

    async fn moves(&self, request: Request<v1::WhatIfMovesRequest>) -> Answer<v1::WhatIfMovesResponse> {
        let call = call(&request)?;
        Ok(Response::new(self.0.what_if_moves(request.into_inner(), &call).await?))
    }

    async fn lose(&self, request: Request<v1::WhatIfLoseRequest>) -> Answer<v1::WhatIfLoseResponse> {
        let call = call(&request)?;
        Ok(Response::new(self.0.what_if_lose(request.into_inner(), &call).await?))
    }
}

#[tonic::async_trait]
impl Inventory for Methods {
    type WatchStream = Streamed<v1::HostEvent>;

    async fn apply(&self, request: Request<v1::ApplyHostsRequest>) -> Answer<v1::ApplyHostsResponse> {
        Ok(Response::new(self.0.apply(request.into_inner()).await?))
    }

    async fn apply_features(&self, request: Request<v1::ApplyFeaturesRequest>) -> Answer<v1::ApplyHostsResponse> {
        Ok(Response::new(self.0.apply_features(request.into_inner()).await?))
    }

    async fn list(&self, request: Request<v1::ListHostsRequest>) -> Answer<v1::ListHostsResponse> {
        Ok(Response::new(self.0.list_hosts(request.get_ref().clone(), fresh(&request)?).await?))
    }

    async fn instances(&self, request: Request<v1::ListInstancesRequest>) -> Answer<v1::ListInstancesResponse> {
        Ok(Response::new(self.0.list_instances(request.get_ref().clone(), fresh(&request)?).await?))
    }

    async fn watch(&self, request: Request<v1::WatchHostsRequest>) -> Answer<Self::WatchStream> {
        Ok(streamed(self.0.watch_hosts(request.get_ref()).await?))
    }

    async fn release(&self, request: Request<v1::ReleaseRequest>) -> Answer<v1::ReleaseResponse> {
        Ok(Response::new(self.0.release(request.into_inner()).await?))
    }
}

#[tonic::async_trait]
impl Pipelines for Methods {
    async fn list(&self, request: Request<v1::ListPipelinesRequest>) -> Answer<v1::ListPipelinesResponse> {
        let fresh = fresh(&request)?;
        Ok(Response::new(self.0.pipelines(request.into_inner(), fresh).await?))
    }

    async fn get(&self, request: Request<v1::GetPipelineRequest>) -> Answer<v1::GetPipelineResponse> {
        let fresh = fresh(&request)?;
        Ok(Response::new(self.0.pipeline(request.into_inner(), fresh).await?))
    }

    async fn apply(&self, request: Request<v1::ApplyPipelineRequest>) -> Answer<v1::ChangePipelineResponse> {
        Ok(Response::new(self.0.apply_pipeline(request.into_inner()).await?))
    }

    async fn activate(&self, request: Request<v1::ActivatePipelineRequest>) -> Answer<v1::ChangePipelineResponse> {
        Ok(Response::new(self.0.activate(request.into_inner()).await?))
    }

    async fn rollback(&self, request: Request<v1::RollbackPipelineRequest>) -> Answer<v1::ChangePipelineResponse> {
        Ok(Response::new(self.0.rollback(request.into_inner()).await?))
    }

    async fn delete(&self, request: Request<v1::DeletePipelineRequest>) -> Answer<v1::ChangePipelineResponse> {
        Ok(Response::new(self.0.delete_pipeline(request.into_inner()).await?))
    }

    async fn history(&self, request: Request<v1::PipelineHistoryRequest>) -> Answer<v1::PipelineHistoryResponse> {
        let fresh = fresh(&request)?;
        Ok(Response::new(self.0.history(request.into_inner(), fresh).await?))
    }

    async fn diff(&self, request: Request<v1::DiffPipelineRequest>) -> Answer<v1::DiffPipelineResponse> {
        let fresh = fresh(&request)?;
        Ok(Response::new(self.0.diff(request.into_inner(), fresh).await?))
    }

    async fn lint(&self, request: Request<v1::LintPipelineRequest>) -> Answer<v1::LintPipelineResponse> {
        Ok(Response::new(self.0.lint(request.into_inner()).await?))
    }

    async fn shadow(&self, request: Request<v1::ShadowPipelineRequest>) -> Answer<v1::ChangePipelineResponse> {
        Ok(Response::new(self.0.shadow(request.into_inner()).await?))
    }

    async fn shadows(&self, request: Request<v1::ListShadowsRequest>) -> Answer<v1::ListShadowsResponse> {
        Ok(Response::new(self.0.shadows(request.into_inner()).await?))
    }
}

#[tonic::async_trait]
impl Cluster for Methods {
    type BackupStream = Streamed<v1::BackupChunk>;

    async fn backup(&self, _: Request<v1::BackupRequest>) -> Answer<Self::BackupStream> {
        let pieces = self.0.backup().await?;
        Ok(Response::new(Box::pin(pieces.map(|piece| piece.map_err(Status::from)))))
    }

    async fn status(&self, _: Request<v1::ClusterStatusRequest>) -> Answer<v1::ClusterStatusResponse> {
        Ok(Response::new(self.0.cluster().await))
    }

    async fn add(&self, request: Request<v1::AddMemberRequest>) -> Answer<v1::ChangeMemberResponse> {
        let v1::AddMemberRequest { node, addr } = request.into_inner();
        Ok(Response::new(self.0.change(Change::Add { node, addr }).await?))
    }

    async fn promote(&self, request: Request<v1::PromoteMemberRequest>) -> Answer<v1::ChangeMemberResponse> {
        Ok(Response::new(self.0.change(Change::Promote { node: request.get_ref().node }).await?))
    }

    async fn remove(&self, request: Request<v1::RemoveMemberRequest>) -> Answer<v1::ChangeMemberResponse> {
        Ok(Response::new(self.0.change(Change::Remove { node: request.get_ref().node }).await?))
    }

    async fn transfer(&self, request: Request<v1::TransferLeaderRequest>) -> Answer<v1::ChangeMemberResponse> {
        Ok(Response::new(self.0.change(Change::Transfer { to: request.get_ref().node }).await?))
    }
}
