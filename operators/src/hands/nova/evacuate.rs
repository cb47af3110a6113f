//! Evacuation: one POST, and what its answer means. Nova takes a second one for the same instance too, and
//! makes a second migration of it, so nothing here is ever sent again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::header::HeaderName;
use hyper::{Method, StatusCode};
use scheduler::ha::coordinator::{Answer, Barrier};
use scheduler::ha::recovery::VmState;
use serde_json::json;
use uuid::Uuid;

use super::Nova;
use super::read::{Server, recorded};
use crate::failover::Gate;
use crate::hands::http::{Ask, Failed, Said};

/// Nova writes it into its log, and does nothing else with it.
const REQUEST: HeaderName = HeaderName::from_static("x-openstack-request-id");

impl Nova {
    pub(in crate::hands) async fn evacuate(
        &self,
        instance: Uuid,
        target: &str,
        barrier: &Barrier,
        gate: &dyn Gate,
    ) -> Answer {
        // From here on it may have arrived.
        let sent = AtomicBool::new(false);
        let most = Duration::from_millis(barrier.deadline);
        let answer = match tokio::time::timeout(most, self.send(instance, target, barrier, gate, &sent)).await {
            Ok(Ok(Some(said))) => self.meaning(&said, instance, target).await,
            Ok(Ok(None)) => Answer::NotSent,
            Ok(Err(error)) => {
                tracing::warn!(%instance, target, %error, "evacuation: no answer");
                unanswered(&sent)
            }
            Err(_) => {
                tracing::warn!(%instance, target, "evacuation: no answer within {most:?}");
                unanswered(&sent)
            }
        };
        tracing::info!(%instance, target, intent = %barrier.intent, ?answer, "evacuation");
        answer
    }

    async fn send(
        &self,
        instance: Uuid,
        target: &str,
        barrier: &Barrier,
        gate: &dyn Gate,
        sent: &AtomicBool,
    ) -> Result<Option<Said>, Failed> {
        let Some(_flight) = self.evacuations.enter(instance).await else { return Ok(None) };
        let body = json!({"evacuate": {"host": target}});
        let ask = Ask::with(Method::POST, format!("/servers/{instance}/action"), body)
            .secret(REQUEST, &format!("req-{}", barrier.intent));
        self.client.once(ask, barrier, gate, sent).await
    }

    /// What an answer means. Anything that does not surely say that nothing was taken is unknown.
    async fn meaning(&self, said: &Said, instance: Uuid, target: &str) -> Answer {
        let text = said.text();
        if !said.status.is_success() {
            tracing::warn!(%instance, target, status = %said.status, text, "Nova refuses an evacuation");
        }
        match said.status {
            StatusCode::OK | StatusCode::ACCEPTED => Answer::Taken,
            // ComputeServiceInUse, in nova/exception.py.
            StatusCode::BAD_REQUEST if text.contains("is still in use") => Answer::SourceUp,
            StatusCode::BAD_REQUEST if text.contains("target host can't be the same") => {
                Answer::Refused { forever: false }
            }
            StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN => Answer::Refused { forever: true },
            // The target; of the instance itself it says nothing by itself (see `Told::Server`).
            StatusCode::NOT_FOUND if text.contains(&format!("Compute host {target} not found")) => {
                Answer::Refused { forever: false }
            }
            StatusCode::CONFLICT => self.conflict(instance).await,
            _ => Answer::Unknown,
        }
    }

    /// A conflict with the instance's state: read once. In a state that Nova evacuates it is another reason,
    /// which stays; in any other the state passes, or what brought it about is a call of ours.
    async fn conflict(&self, instance: Uuid) -> Answer {
        match self.client.server(instance).await {
            Ok(Server::Whole(server)) => {
                let now = recorded(&server);
                let legal = now.vm != VmState::Other && !now.task;
                if legal { Answer::Refused { forever: true } } else { Answer::Unknown }
            }
            Ok(Server::Missing | Server::Partial) | Err(_) => Answer::Unknown,
        }
    }
}

fn unanswered(sent: &AtomicBool) -> Answer {
    if sent.load(Ordering::Relaxed) { Answer::Unknown } else { Answer::NotSent }
}
