//! Failover as operators see it: what it does, why, and what they may tell it. Only translated here: what may
//! be done is decided by apply, which answers with the refusal that is passed on.

pub(crate) mod agents;
mod drain;
mod grpc;
mod hosts;
mod places;
mod policy;
pub(crate) mod requests;
mod view;

use futures::{StreamExt, stream};
use raft::Freshness;
use scheduler::Domain;
use scheduler::ha::breaker::{Decision, ScopeName};
use scheduler::ha::case::{Act, Cause};
use scheduler::ha::host::Maintenance;
use scheduler::ha::order::{Actor, Change, Done, Role, Verdict};
use scheduler::ha::proof::{Evidence, Token};
use scheduler::ha::{Host, HostId};
use scheduler::state::Tables;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::error::ApiError;
use crate::proto::ha;
use crate::service::{Call, Service};

/// What failover may do, by the server's configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing; what agents say is taken in.
    #[default]
    Off,
    /// It decides, and does nothing.
    DryRun,
    /// It fences and evacuates.
    Enforce,
}

/// Hosts whose loss is looked at: if nothing is said, and at most.
const LOSSES: (usize, usize) = (20, 200);
/// Most items of a page.
const PAGE: usize = 1000;

fn page(size: u32) -> usize {
    match size as usize {
        0 => 100,
        size => size.min(PAGE),
    }
}

/// A name in `snake_case`, as serde writes it.
pub(crate) fn name<T: Serialize>(value: T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        Ok(other) => other.to_string(),
        Err(error) => error.to_string(),
    }
}

/// A value of a `snake_case` name.
fn named<T: DeserializeOwned>(field: &str, given: &str, expected: &str) -> Result<T, ApiError> {
    serde_json::from_value(given.into())
        .map_err(|_| ApiError::bad_request(format!("{field}: '{}' given, {expected} expected", given.escape_debug())))
}

fn operator(actor: &str, reason: &str) -> Actor {
    Actor { role: Role::Operator, name: actor.to_owned(), reason: reason.to_owned() }
}

fn nova_host<'a>(tables: &'a Tables, host: &Host) -> &'a str {
    tables.names.text(host.nova_host)
}

/// A host by Nova's name of it or by its id.
fn find<'a>(tables: &'a Tables, host: &str) -> Option<&'a Host> {
    let hosts = &tables.failover().hosts;
    let by_id = Uuid::parse_str(host).ok().and_then(|id| hosts.get(HostId(id)));
    let by_name = || {
        let sym = tables.names.get(host)?;
        hosts.iter().find(|known| known.nova_host == sym)
    };
    by_id.or_else(by_name).map(|host| &**host)
}

fn scope(given: &str) -> Result<ScopeName, ApiError> {
    given.parse().map_err(|error| ApiError::bad_request(format!("scope: {error}")))
}

/// What an operator was shown of a host's case.
fn token(given: &str, host: HostId) -> Result<Token, ApiError> {
    let token: Token = serde_json::from_str(given).map_err(|_| {
        ApiError::bad_request(
            "token: the text that the case gave is expected; `pallium ctl ha case HOST -o json` shows it",
        )
    })?;
    if token.case.host != host {
        return Err(ApiError::bad_request("token: it is of another host's case"));
    }
    Ok(token)
}

const ACTS: &str = "kill (fencing) or recover (evacuations)";

impl Service {
    /// A consistent view of the state, as new as asked for.
    async fn tables(&self, fresh: Freshness) -> Result<Tables, ApiError> {
        self.node.read_barrier(fresh).await?;
        Ok(self.node.query(|core| core.state().tables().clone()).await?)
    }

    async fn found(&self, host: &str) -> Result<HostId, ApiError> {
        let tables = self.tables(Freshness::Linearizable).await?;
        let found = find(&tables, host).map(|host| host.id);
        found.ok_or_else(|| {
            ApiError::not_found(format!(
                "host: '{}' is none that failover watches; `pallium ctl ha hosts` lists them",
                host.escape_debug()
            ))
        })
    }

    /// The time by the leader's clock, and `for_ms` later; 0 stays 0, which ends what lasts.
    async fn until(&self, for_ms: u64) -> Result<u64, ApiError> {
        if for_ms == 0 {
            return Ok(0);
        }
        // Replicated time stands still while nothing is committed, so it is later than what is applied here
        // by at most as long as nothing was; apply measures again.
        let now = self.tables(Freshness::Linearizable).await?.counters().now;
        Ok(now.saturating_add(for_ms))
    }

    async fn told(&self, actor: Actor, change: Change) -> Result<ha::FailoverDone, ApiError> {
        let what = change.name();
        match self.node.order(actor, change).await? {
            Ok(Done::Unchanged) => Ok(ha::FailoverDone { changed: false, text: "it was so already".to_owned() }),
            Ok(Done::Case(case)) => Ok(ha::FailoverDone { changed: true, text: format!("case {case} is open") }),
            Ok(_) => Ok(ha::FailoverDone { changed: true, text: format!("{what} is committed") }),
            Err(refusal) => Err(ApiError::conflict(refusal.to_string())),
        }
    }

    pub(crate) async fn confirm_dead(&self, asked: ha::ConfirmDeadRequest) -> Result<ha::FailoverDone, ApiError> {
        let host = self.found(&asked.host).await?;
        let token = token(&asked.token, host)?;
        // The youngest sign of life is measured by the leader.
        let evidence = Evidence::Operator { token, youngest: None };
        let change = Change::DeathProof { host, incarnation: token.case.incarnation, evidence };
        self.told(operator(&asked.actor, &asked.reason), change).await
    }

    pub(crate) async fn abort_case(&self, asked: ha::AbortCaseRequest) -> Result<ha::FailoverDone, ApiError> {
        let host = self.found(&asked.host).await?;
        let token = token(&asked.token, host)?;
        self.told(operator(&asked.actor, &asked.reason), Change::CaseAbort { token, heard: None }).await
    }

    pub(crate) async fn decide_instance(&self, asked: ha::DecideInstanceRequest) -> Result<ha::FailoverDone, ApiError> {
        let instance = crate::convert::uuid("instance", &asked.instance)?;
        let verdict = match (asked.verdict.as_str(), &asked.host) {
            ("retry", None) => Verdict::Retry,
            ("skip", None) => Verdict::Skip,
            ("retarget", Some(host)) => Verdict::Retarget(self.found(host).await?),
            ("retarget", None) => {
                return Err(ApiError::bad_request("host: missing, where the instance is to go expected"));
            }
            ("retry" | "skip", Some(_)) => {
                return Err(ApiError::bad_request("host: given, it goes with retarget alone"));
            }
            (given, _) => {
                return Err(ApiError::bad_request(format!(
                    "verdict: '{}' given, retry, skip or retarget expected",
                    given.escape_debug()
                )));
            }
        };
        let tables = self.tables(Freshness::Linearizable).await?;
        let known = tables.failover().recoveries.get(instance).map(|known| known.case);
        let case = known.ok_or_else(|| {
            ApiError::not_found(format!(
                "instance: {instance} is part of no case's plan; `pallium ctl ha case HOST` lists those of a host"
            ))
        })?;
        let done =
            self.told(operator(&asked.actor, &asked.reason), Change::Verdict { case, instance, verdict }).await?;
        let text = match verdict {
            Verdict::Retry => "it is planned anew".to_owned(),
            Verdict::Skip => "it stays where it is: see to it, it is yours now".to_owned(),
            Verdict::Retarget(_) => format!("it goes to {} in its turn", asked.host.unwrap_or_default()),
        };
        Ok(if done.changed { ha::FailoverDone { text, ..done } } else { done })
    }

    pub(crate) async fn open_case(&self, asked: ha::FailoverHostRequest) -> Result<ha::FailoverDone, ApiError> {
        let host = self.found(&asked.host).await?;
        let tables = self.tables(Freshness::Linearizable).await?;
        let incarnation = tables.failover().hosts.get(host).map_or(0, |host| host.incarnation);
        let change = Change::CaseOpen { host, incarnation, cause: Cause::Operator };
        self.told(operator(&asked.actor, &asked.reason), change).await
    }

    pub(crate) async fn exempt(&self, asked: ha::ForAWhileRequest) -> Result<ha::FailoverDone, ApiError> {
        let host = self.found(&asked.host).await?;
        let until = self.until(asked.for_ms).await?;
        self.told(operator(&asked.actor, &asked.reason), Change::Exempt { host, until }).await
    }

    pub(crate) async fn pause(&self, asked: ha::PauseRequest) -> Result<ha::FailoverDone, ApiError> {
        let act: Act = named("act", &asked.act, ACTS)?;
        let until = self.until(asked.for_ms).await?;
        self.told(operator(&asked.actor, &asked.reason), Change::Pause { act, until }).await
    }

    pub(crate) async fn hold(&self, asked: ha::HoldRequest) -> Result<ha::FailoverDone, ApiError> {
        let host = self.found(&asked.host).await?;
        let act: Act = named("act", &asked.act, ACTS)?;
        let tables = self.tables(Freshness::Linearizable).await?;
        let case = tables.failover().cases.get(host).map(|case| case.id);
        let case = case.ok_or_else(|| ApiError::not_found(format!("host: {} has no open case", asked.host)))?;
        let reason = asked.hold.then(|| asked.reason.clone());
        self.told(operator(&asked.actor, &asked.reason), Change::CaseHold { case, act, reason }).await
    }

    pub(crate) async fn answer_breaker(&self, asked: ha::AnswerBreakerRequest) -> Result<ha::FailoverDone, ApiError> {
        let scope = scope(&asked.scope)?;
        let decision = match asked.decision.as_str() {
            "proceed" => {
                let mut hosts = Vec::new();
                for host in &asked.hosts {
                    hosts.push(self.found(host).await?);
                }
                Decision::Proceed(hosts)
            }
            "proceed_all" => Decision::ProceedAll,
            "abort" => Decision::Abort,
            given => {
                return Err(ApiError::bad_request(format!(
                    "decision: '{}' given, proceed, proceed_all or abort expected",
                    given.escape_debug()
                )));
            }
        };
        let until = self.until(asked.for_ms).await?;
        self.told(operator(&asked.actor, &asked.reason), Change::BreakerAck { scope, decision, until }).await
    }

    pub(crate) async fn maintain(&self, asked: ha::MaintainRequest) -> Result<ha::FailoverDone, ApiError> {
        let host = self.found(&asked.host).await?;
        let mode: Maintenance = named("mode", &asked.mode, "none, manual, auto or termination")?;
        self.told(operator(&asked.actor, &asked.reason), Change::Maintenance { host, mode }).await
    }

    pub(crate) async fn end_quarantine(&self, asked: ha::EndQuarantineRequest) -> Result<ha::FailoverDone, ApiError> {
        let change = match &asked.instance {
            Some(_) if !asked.host.is_empty() => {
                return Err(ApiError::bad_request("host and instance given: one of them expected"));
            }
            Some(instance) => Change::GuestQuarantineEnd(agents::uuid("instance", instance)?),
            None => Change::QuarantineEnd(self.found(&asked.host).await?),
        };
        self.told(operator(&asked.actor, &asked.reason), change).await
    }

    pub(crate) async fn release_failover(
        &self,
        asked: ha::FailoverReasonRequest,
    ) -> Result<ha::FailoverDone, ApiError> {
        self.told(operator(&asked.actor, &asked.reason), Change::Release).await
    }

    pub(crate) async fn remove_failover_host(
        &self,
        asked: ha::FailoverHostRequest,
    ) -> Result<ha::FailoverDone, ApiError> {
        let host = self.found(&asked.host).await?;
        self.told(operator(&asked.actor, &asked.reason), Change::HostRemove(host)).await
    }

    pub(crate) async fn apply_failover_hosts(
        &self,
        asked: ha::ApplyFailoverHostsRequest,
    ) -> Result<ha::ApplyFailoverHostsResponse, ApiError> {
        let tables = self.tables(Freshness::Linearizable).await?;
        let mut answer = ha::ApplyFailoverHostsResponse::default();
        let mut specs = Vec::new();
        for given in asked.hosts {
            match hosts::spec(&tables, &given) {
                Ok(spec) => specs.push((given.host, spec)),
                Err(why) => answer.refused.push(format!("{}: {why}", given.host)),
            }
        }
        let orders = specs.into_iter().map(|(host, spec)| async move {
            let actor = Actor { role: Role::Operator, name: "inventory".into(), reason: "inventory".into() };
            (host, self.node.order(actor, Change::HostUpsert(Box::new(spec))).await)
        });
        // Together: the log is synced as often for many as for one.
        let mut orders = stream::iter(orders).buffered(self.together());
        while let Some((host, done)) = orders.next().await {
            match done? {
                Ok(Done::Unchanged) => answer.unchanged += 1,
                Ok(_) => answer.changed += 1,
                Err(why) => answer.refused.push(format!("{host}: {why}")),
            }
        }
        Ok(answer)
    }

    pub(crate) async fn failover_status(&self, call: &Call) -> Result<ha::FailoverStatusResponse, ApiError> {
        let tables = self.tables(call.fresh).await?;
        let mode = match self.config.failover {
            _ if !self.node.has_failover() => "level",
            Mode::Off => "off",
            Mode::DryRun => "dry_run",
            Mode::Enforce => "enforce",
        };
        Ok(view::status(&tables, mode))
    }

    pub(crate) async fn failover_hosts(
        &self,
        asked: ha::FailoverHostsRequest,
        call: &Call,
    ) -> Result<ha::FailoverHostsResponse, ApiError> {
        let detection = asked.detection.as_deref();
        let detection = detection
            .map(|given| named("detection", given, "alive, suspect, isolated, unreachable or dead"))
            .transpose()?;
        let tables = self.tables(call.fresh).await?;
        Ok(view::hosts(&tables, self.node.ears(), detection, asked.after.as_deref(), page(asked.limit)))
    }

    pub(crate) async fn failover_losses(
        &self,
        asked: ha::FailoverLossesRequest,
        call: &Call,
    ) -> Result<ha::FailoverLossesResponse, ApiError> {
        let tables = self.tables(call.fresh).await?;
        let most = match asked.limit as usize {
            0 => LOSSES.0,
            most => most.min(LOSSES.1),
        };
        let looked = tokio::task::spawn_blocking(move || view::losses(&tables, most)).await;
        looked.map_err(|error| ApiError::internal(error.to_string()))
    }

    pub(crate) async fn failover_cases(
        &self,
        asked: ha::FailoverCasesRequest,
        call: &Call,
    ) -> Result<ha::FailoverCasesResponse, ApiError> {
        let tables = self.tables(call.fresh).await?;
        Ok(view::cases(&tables, asked.closed, page(asked.limit)))
    }

    pub(crate) async fn failover_case(
        &self,
        asked: ha::FailoverHostRequest,
        call: &Call,
    ) -> Result<ha::FailoverCase, ApiError> {
        let tables = self.tables(call.fresh).await?;
        let host = find(&tables, &asked.host).ok_or_else(|| {
            ApiError::not_found(format!("host: '{}' is none that failover watches", asked.host.escape_debug()))
        })?;
        let case = view::case(&tables, host);
        case.ok_or_else(|| ApiError::not_found(format!("{} never had a case", nova_host(&tables, host))))
    }
}

/// Provider of a host, by which its zone and its uuid are known.
fn provider<'a>(tables: &'a Tables, host: &str) -> Option<&'a scheduler::Provider> {
    tables.provider(tables.row_of_node(Domain::Nova, host, None)?)
}
