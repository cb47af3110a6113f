//! The cluster: who its members are and how they do, and changes of that.

use axum::Json;
use axum::extract::{Path, State};
use raft::members::{Change, Changed, MemberView, Role};

use crate::error::{ApiError, ErrorBody};
use crate::proto::v1;
use crate::rest::{Answer, Sent, Shared};
use crate::service::Service;

impl Service {
    pub(crate) async fn cluster(&self) -> v1::ClusterStatusResponse {
        let cluster = self.node.cluster().await;
        v1::ClusterStatusResponse {
            cluster: cluster.id.to_string(),
            node: cluster.node,
            leader: cluster.leader,
            term: cluster.term,
            members: cluster.members.into_iter().map(member).collect(),
            checksums_equal: cluster.equal,
            feature_level: cluster.level.into(),
        }
    }

    pub(crate) async fn change(&self, change: Change) -> Result<v1::ChangeMemberResponse, ApiError> {
        if let Change::Add { addr, .. } = &change
            && !addr.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        {
            let addr = addr.escape_debug();
            return Err(ApiError::bad_request(format!("addr: '{addr}' given, a host and a port expected")));
        }
        let (Change::Add { node, .. }
        | Change::Promote { node }
        | Change::Remove { node }
        | Change::Transfer { to: node }) = &change;
        if *node == 0 {
            return Err(ApiError::bad_request("node: 0 given, the number of a node expected, at least 1"));
        }
        let changed = self.node.change(change).await? == Changed::Done;
        Ok(v1::ChangeMemberResponse { changed })
    }
}

fn member(view: MemberView) -> v1::Member {
    let role = match view.role {
        Role::Leader => "leader",
        Role::Voter => "voter",
        Role::Learner => "learner",
    };
    let known = v1::Member {
        node: view.node,
        addr: view.addr,
        store: view.store.to_string(),
        role: role.to_owned(),
        lag: view.lag,
        snapshot_sent_bytes: view.sending.map(|(sent, _)| sent),
        snapshot_bytes: view.sending.map(|(_, all)| all),
        ..v1::Member::default()
    };
    match view.report {
        Err(why) => v1::Member { unreachable: Some(why), ..known },
        Ok(report) => v1::Member {
            build: Some(report.build),
            oldest_feature_level: Some(report.levels.oldest.into()),
            newest_feature_level: Some(report.levels.newest.into()),
            term: Some(report.term),
            last_index: report.last,
            committed_index: report.committed,
            applied_index: report.applied,
            snapshot_index: report.snapshot,
            commands: report.checksum.map(|(commands, _)| commands),
            checksum: report.checksum.map(|(_, sum)| format!("{sum:016x}")),
            disk_used_bytes: Some(report.disk.used),
            disk_free_bytes: Some(report.disk.free),
            disk_size_bytes: Some(report.disk.size),
            stopped: report.fatal,
            ..known
        },
    }
}

fn number(text: &str) -> Result<u64, ApiError> {
    text.parse()
        .map_err(|_| ApiError::not_found(format!("'{}' given, the number of a node expected", text.escape_debug())))
}

/// The members of the cluster, each asked how it is.
#[utoipa::path(get, path = "/v1/cluster", tag = "cluster", responses((status = 200, body = v1::ClusterStatusResponse)))]
pub(crate) async fn status(State(service): Shared) -> Json<v1::ClusterStatusResponse> {
    Json(service.cluster().await)
}

/// Adds a node as a learner; of a member: gives it a new address.
#[utoipa::path(post, path = "/v1/cluster/members", tag = "cluster", request_body = v1::AddMemberRequest, responses(
    (status = 200, body = v1::ChangeMemberResponse), (status = 400, body = ErrorBody),
    (status = 409, body = ErrorBody, description = "It cannot be made now: the message says what to do first"),
))]
pub(crate) async fn add(
    State(service): Shared,
    Sent(v1::AddMemberRequest { node, addr }): Sent<v1::AddMemberRequest>,
) -> Answer<v1::ChangeMemberResponse> {
    Ok(Json(service.change(Change::Add { node, addr }).await?))
}

/// Gives a learner a vote.
#[utoipa::path(post, path = "/v1/cluster/members/{node}/promote", tag = "cluster", params(
    ("node" = u64, Path, description = "Node id"),
), responses((status = 200, body = v1::ChangeMemberResponse), (status = 409, body = ErrorBody)))]
pub(crate) async fn promote(State(service): Shared, Path(node): Path<String>) -> Answer<v1::ChangeMemberResponse> {
    Ok(Json(service.change(Change::Promote { node: number(&node)? }).await?))
}

/// Lets a voter lead.
#[utoipa::path(post, path = "/v1/cluster/members/{node}/lead", tag = "cluster", params(
    ("node" = u64, Path, description = "Node id"),
), responses((status = 200, body = v1::ChangeMemberResponse), (status = 409, body = ErrorBody)))]
pub(crate) async fn lead(State(service): Shared, Path(node): Path<String>) -> Answer<v1::ChangeMemberResponse> {
    Ok(Json(service.change(Change::Transfer { to: number(&node)? }).await?))
}

/// Removes a member.
#[utoipa::path(delete, path = "/v1/cluster/members/{node}", tag = "cluster", params(
    ("node" = u64, Path, description = "Node id"),
), responses((status = 200, body = v1::ChangeMemberResponse), (status = 409, body = ErrorBody)))]
pub(crate) async fn remove(State(service): Shared, Path(node): Path<String>) -> Answer<v1::ChangeMemberResponse> {
    Ok(Json(service.change(Change::Remove { node: number(&node)? }).await?))
}
