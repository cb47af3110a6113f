//! Server groups of all projects: which instances must be together or apart.

use hyper::StatusCode;
use scheduler::request::{Group, GroupPolicy};
use serde_json::Value;
use uuid::Uuid;

use super::client::Client;
use crate::hands::http::{Ask, Failed};

/// Groups in one request; Nova gives at most `[api] max_limit`.
const PAGE: usize = 1_000;
/// Requests of one list.
const PAGES: usize = 64;

impl Client {
    /// Groups with a policy and a member. A user who may not see them is told of none: the log says so, and Nova
    /// holds its own rule against each evacuation.
    pub(super) async fn groups(&self) -> Result<Vec<Group>, Failed> {
        let mut groups = Vec::new();
        let mut offset = 0;
        // Pages have no links, and no row says which is the last one (`nova/api/openstack/compute/server_groups.py`).
        for _ in 0..PAGES {
            let path = format!("/os-server-groups?all_projects=True&limit={PAGE}&offset={offset}");
            let (said, place) = self.call(Ask::get(path)).await?;
            match said.status {
                StatusCode::OK => {}
                status @ (StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) => {
                    tracing::warn!(
                        %status,
                        answer = said.text(),
                        "Nova does not list server groups: plans are made without them, and an evacuation that breaks \
                         a rule fails in Nova; give pallium's user the rights that docs/failover.md lists"
                    );
                    return Ok(Vec::new());
                }
                status => {
                    return Err(Failed::Answer(format!(
                        "{place} answered {status} to a list of server groups: {}",
                        said.text()
                    )));
                }
            }
            let body = said.json(&place)?;
            let Some(page) = body.get("server_groups").and_then(Value::as_array) else {
                return Err(Failed::Answer("a list of server groups without 'server_groups'".to_owned()));
            };
            if page.is_empty() {
                return Ok(groups);
            }
            offset += page.len();
            groups.extend(page.iter().filter_map(group));
        }
        Err(Failed::Answer(format!("more than {PAGES} pages of server groups")))
    }
}

/// A group: `policy` and `rules` since 2.64, a list of one policy before.
fn group(row: &Value) -> Option<Group> {
    let uuid = |value: &Value| Uuid::parse_str(value.as_str()?).ok();
    let policy = row["policy"].as_str().or_else(|| row["policies"].get(0)?.as_str())?;
    let members: Vec<Uuid> = row["members"].as_array()?.iter().filter_map(uuid).collect();
    let most = row["rules"].get("max_server_per_host").and_then(Value::as_u64);
    let group = Group {
        uuid: Some(uuid(&row["id"])?),
        policy: Some(GroupPolicy::from_name(policy)?),
        members,
        hosts: Vec::new(),
        max_per_host: most.unwrap_or(1).max(1),
    };
    (!group.members.is_empty()).then_some(group)
}
