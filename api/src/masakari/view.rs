//! What is kept, in Masakari's words.

use scheduler::ha::case::{Case, Phase};
use scheduler::ha::masakari::{Member, Notification, Segment, watched};
use scheduler::ha::recovery::{Recovery, Status, Stays};
use scheduler::ha::{Failover, HostId};
use scheduler::state::Tables;
use serde_json::{Value, json};
use uuid::Uuid;

use super::wire::stamp;
use crate::failover::name;

/// A time in wall milliseconds.
fn at(wall: u64) -> String {
    stamp(i64::try_from(wall).unwrap_or(i64::MAX).saturating_mul(1_000))
}

pub(super) fn segment(segment: &Segment) -> Value {
    json!({
        "uuid": segment.uuid,
        "id": segment.id,
        "name": segment.name,
        "description": segment.description,
        "recovery_method": name(segment.method),
        "service_type": segment.service_type,
        "enabled": segment.enabled,
        "created_at": at(segment.created),
        "updated_at": segment.updated.map(at),
        "deleted": false,
        "deleted_at": null,
    })
}

pub(super) fn member(tables: &Tables, of: &Segment, member: &Member) -> Value {
    let host = watched(tables, &member.name).map(|host| host.id);
    json!({
        "uuid": member.uuid,
        "id": member.id,
        "name": member.name,
        "failover_segment_id": of.uuid,
        "failover_segment": segment(of),
        "type": member.kind,
        "control_attributes": member.control,
        "reserved": member.reserved,
        "on_maintenance": tables.failover().under_maintenance(member, host),
        "created_at": at(member.created),
        "updated_at": member.updated.map(at),
        "deleted": false,
        "deleted_at": null,
    })
}

pub(super) fn notification(failover: &Failover, said: &Notification, now: u64) -> Value {
    let changed = failover.case_of(said).and_then(|case| case.steps.last()).map(|step| at(step.wall));
    let payload: serde_json::Map<String, Value> =
        said.payload.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect();
    json!({
        "notification_uuid": said.uuid,
        "id": said.id,
        "type": name(said.kind),
        "source_host_uuid": said.member,
        "generated_time": stamp(said.generated),
        "payload": payload,
        "status": name(failover.status_of(said, now)),
        "created_at": at(said.wall),
        "updated_at": changed,
        "deleted": false,
        "deleted_at": null,
    })
}

/// The steps of the case as tasks of a workflow; the last one runs until the case is over.
pub(super) fn steps(failover: &Failover, said: &Notification) -> Vec<Value> {
    let Some(case) = failover.case_of(said) else { return Vec::new() };
    let over = |nth: usize| nth + 1 < case.steps.len() || settled(case.phase);
    let step = |(nth, step): (usize, &scheduler::ha::case::Step)| {
        let (state, progress) = if over(nth) { ("SUCCESS", 1.0) } else { ("RUNNING", 0.0) };
        let detail = json!({
            "timestamp": at(step.wall).replace('T', " "),
            "progress": format!("{progress:.1}"),
            "message": format!("case {} is in {}", case.id, step.phase),
        });
        json!({"name": step.phase.as_str(), "state": state, "progress": progress, "progress_details": [detail]})
    };
    case.steps.iter().enumerate().map(step).collect()
}

fn settled(phase: Phase) -> bool {
    phase.is_terminal() || matches!(phase, Phase::Recovered | Phase::PartiallyRecovered | Phase::AwaitReturn)
}

/// What becomes of the instances of the case, while it is open.
pub(super) fn moves(tables: &Tables, said: &Notification) -> Vec<Value> {
    let failover = tables.failover();
    let Some(case) = failover.case_of(said) else { return Vec::new() };
    let mut recoveries: Vec<_> = failover.recoveries.iter().filter(|recovery| recovery.case == case.id).collect();
    recoveries.sort_unstable_by_key(|recovery| recovery.instance);
    recoveries.into_iter().enumerate().map(|(nth, recovery)| one(tables, said, case, recovery, nth)).collect()
}

fn one(tables: &Tables, said: &Notification, case: &Case, recovery: &Recovery, nth: usize) -> Value {
    let host = |id: HostId| {
        let host = tables.failover().hosts.get(id);
        host.map_or_else(|| id.to_string(), |host| tables.names.text(host.nova_host).to_owned())
    };
    let (status, message) = standing(recovery.status);
    let attempt = recovery.attempt.as_ref();
    let dest = match recovery.status {
        Status::Succeeded(at) | Status::Stopping(at) => Some(at),
        Status::Waiting(_) | Status::Stays(_) | Status::Vanished => None,
        _ => attempt.map(|attempt| attempt.target.host),
    };
    // Replicated times, told by the clock of the first step.
    let (first, wall) = case.steps.first().map_or((0, 0), |step| (step.at, step.wall));
    let when = |replicated: u64| at(wall.saturating_add(replicated.saturating_sub(first)));
    let begun = attempt.filter(|attempt| attempt.at > 0).map(|attempt| attempt.at);
    let over = attempt.filter(|attempt| attempt.over > 0).map(|attempt| attempt.over);
    json!({
        "uuid": Uuid::new_v5(&said.uuid, recovery.instance.as_bytes()),
        "id": nth + 1,
        "notification_uuid": said.uuid,
        "instance_uuid": recovery.instance,
        "instance_name": null,
        "source_host": host(case.id.host),
        "dest_host": dest.map(host),
        "start_time": begun.map(when),
        "end_time": over.map(when),
        "status": status,
        "type": "evacuation",
        "message": message,
        "created_at": when(begun.unwrap_or(case.since)),
        "updated_at": over.map(when),
        "deleted": false,
        "deleted_at": null,
    })
}

fn standing(status: Status) -> (&'static str, Option<String>) {
    match status {
        Status::Waiting(why) => ("pending", Some(why.to_string())),
        Status::Planned => ("pending", None),
        Status::Evacuating | Status::Stopping(_) => ("ongoing", None),
        Status::Succeeded(_) => ("succeeded", None),
        Status::Stays(Stays::Returns) => ("succeeded", Some("it is started where it was".to_owned())),
        Status::Stays(why @ (Stays::NotProtected | Stays::ErrorState | Stays::NotRunning)) => {
            ("ignored", Some(name(why)))
        }
        Status::Stays(why) => ("failed", Some(name(why))),
        Status::Vanished => ("ignored", Some("vanished".to_owned())),
    }
}
