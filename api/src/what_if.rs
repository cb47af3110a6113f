//! "What if", on a copy of the state that a thread of its own works on. The one that decides only takes the copy.

use std::collections::BTreeMap;

use scheduler::rebalance::Objective;
use scheduler::state::Tables;
use scheduler::what_if::{Loss, MOST, PlannedStep, Scope, Scopes, WhatIf};
use scheduler::{Core, Domain, Row};

use crate::body::BadRequest;
use crate::convert;
use crate::error::ApiError;
use crate::proto::v1;
use crate::service::{Call, Service};

/// Losses that are tried, where no number is given and at most.
const LOSSES: (usize, usize) = (20, 200);
/// Instances of a loss that are named.
const NAMED: usize = 20;
/// Moves of a plan, where no number is given and at most.
const MOVES: (usize, usize) = (20, 1_000);
/// Hosts that are lost at once.
const HOSTS: usize = 1_000;

fn bad(path: &str, message: String) -> ApiError {
    BadRequest { path: path.to_owned(), message }.into()
}

impl Service {
    /// Works on a copy of this node's state; `None`: others are at it.
    async fn what_if<T: Send + 'static>(
        &self,
        call: &Call,
        work: impl FnOnce(WhatIf) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let Some(held) = self.searches.take(1) else {
            return Err(ApiError::unavailable(
                "overloaded",
                "the node works on such a question for another caller: ask again",
                1,
            ));
        };
        self.node.read_barrier(call.fresh).await?;
        let (frozen, engine) = self.node.engine(|core: &Core, engine| (core.freeze(), engine.copy())).await?;
        let worked = tokio::task::spawn_blocking(move || {
            let _held = held;
            work(WhatIf::of(frozen, engine))
        });
        worked.await.map_err(|_| ApiError::internal("the answer broke off"))?
    }

    pub(crate) async fn what_if_fit(
        &self,
        asked: v1::WhatIfFitRequest,
        call: &Call,
    ) -> Result<v1::WhatIfFitResponse, ApiError> {
        let v1::WhatIfFitRequest { request, count, ratios } = asked;
        let Some(request) = request else { return Err(bad("request", "absent, a request expected".to_owned())) };
        let count = count.max(1);
        if count > MOST {
            return Err(bad("count", format!("{count} given, at most {MOST} expected")));
        }
        let request = v1::PlaceRequest {
            consumers: Vec::new(),
            count: 1,
            request_id: None,
            options: None,
            dry_run: false,
            ..request
        };
        let request = convert::request(request, &call.id)?;
        self.what_if(call, move |mut world| {
            let changed = change(&mut world, request.domain, &ratios)?;
            let filled = world.fill(&request, count).map_err(raft::Refused::from)?;
            Ok(v1::WhatIfFitResponse {
                placed: filled.placed,
                asked: count,
                hosts: filled.hosts,
                stopped: filled.stopped.map(|decision| convert::decision(&decision, true)),
                changed,
            })
        })
        .await
    }

    pub(crate) async fn what_if_lose(
        &self,
        asked: v1::WhatIfLoseRequest,
        call: &Call,
    ) -> Result<v1::WhatIfLoseResponse, ApiError> {
        let v1::WhatIfLoseRequest { domain, hosts, each, limit, pipeline, ratios } = asked;
        let domain = convert::domain("domain", domain.as_deref())?;
        let scopes = match (each.as_str(), hosts.is_empty()) {
            ("", false) if hosts.len() > HOSTS => {
                return Err(bad("hosts", format!("{} given, at most {HOSTS} expected", hosts.len())));
            }
            ("", false) => None,
            ("host", true) => Some(Scopes::Host),
            ("zone", true) => Some(Scopes::Zone),
            ("aggregate", true) => Some(Scopes::Aggregate),
            (other, true) => {
                let Some(key) = other.strip_prefix("label:").filter(|key| !key.is_empty()) else {
                    let given = other.escape_debug();
                    return Err(bad(
                        "each",
                        format!("'{given}' given, host, zone, aggregate or label:KEY expected, or hosts by name"),
                    ));
                };
                Some(Scopes::Label(key.to_owned()))
            }
            (_, false) => return Err(bad("each", "given beside hosts, one of the two expected".to_owned())),
        };
        let limit = if limit == 0 { LOSSES.0 } else { (limit as usize).min(LOSSES.1) };
        self.what_if(call, move |mut world| {
            change(&mut world, domain, &ratios)?;
            let mut found = match &scopes {
                Some(scopes) => world.scopes(domain, scopes),
                None => vec![together(world.tables(), domain, &hosts)?],
            };
            let mut not_tried = found.len().saturating_sub(limit) as u64;
            found.truncate(limit);
            let mut losses = Vec::new();
            for scope in &found {
                match world.lose(domain, scope, pipeline.as_deref()).map_err(raft::Refused::from)? {
                    Some(loss) => losses.push(told(loss)),
                    None => not_tried += 1,
                }
            }
            Ok(v1::WhatIfLoseResponse { losses, not_tried })
        })
        .await
    }

    pub(crate) async fn what_if_moves(
        &self,
        asked: v1::WhatIfMovesRequest,
        call: &Call,
    ) -> Result<v1::WhatIfMovesResponse, ApiError> {
        let v1::WhatIfMovesRequest { objective, moves, pipeline } = asked;
        let Some(objective) = Objective::from_name(&objective) else {
            let given = objective.escape_debug();
            return Err(bad("objective", format!("'{given}' given, consolidate or balance expected")));
        };
        let most = if moves == 0 { MOVES.0 } else { moves as usize };
        if most > MOVES.1 {
            return Err(bad("moves", format!("{most} given, at most {} expected", MOVES.1)));
        }
        self.what_if(call, move |mut world| {
            let plan = world.moves(objective, most, pipeline.as_deref()).map_err(raft::Refused::from)?;
            let steps: Vec<v1::WhatIfStep> = plan.steps.into_iter().map(step).collect();
            Ok(v1::WhatIfMovesResponse {
                moves: steps.iter().map(|step| step.moves.len() as u64).sum(),
                memory_mib: steps.iter().map(|step| step.memory_mib).sum(),
                steps,
                hosts: plan.hosts,
                in_use: plan.in_use[0],
                in_use_after: plan.in_use[1],
                imbalance: plan.imbalance[0],
                imbalance_after: plan.imbalance[1],
                refused: plan.refused,
                bounded: plan.bounded,
            })
        })
        .await
    }
}

fn change(world: &mut WhatIf, domain: Domain, ratios: &BTreeMap<String, f64>) -> Result<u64, ApiError> {
    let mut changed = 0;
    for (class, ratio) in ratios {
        changed = world.set_ratio(domain, class, *ratio).map_err(|why| bad("ratios", why))?.max(changed);
    }
    Ok(changed)
}

/// Hosts by name, as one loss.
fn together(tables: &Tables, domain: Domain, hosts: &[String]) -> Result<Scope, ApiError> {
    let mut rows: Vec<Row> = Vec::new();
    for host in hosts {
        let of = tables.providers().filter(|(_, provider)| {
            provider.domain == domain && tables.names.text(provider.host).eq_ignore_ascii_case(host)
        });
        let before = rows.len();
        rows.extend(of.map(|(row, _)| row));
        if rows.len() == before {
            return Err(ApiError::not_found(format!(
                "host: '{}' is not known in domain {domain}",
                host.escape_debug()
            )));
        }
    }
    rows.sort_unstable();
    rows.dedup();
    Ok(Scope { name: hosts.join(", "), rows })
}

fn step(step: PlannedStep) -> v1::WhatIfStep {
    let moves: Vec<v1::WhatIfMove> = step
        .moves
        .into_iter()
        .map(|one| v1::WhatIfMove {
            instance: one.instance.to_string(),
            from: one.from,
            to: one.to,
            memory_mib: one.memory_mib,
        })
        .collect();
    let memory_mib = moves.iter().map(|one| one.memory_mib).sum();
    v1::WhatIfStep { moves, memory_mib, gain: step.gain, reason: step.reason }
}

fn told(loss: Loss) -> v1::WhatIfLoss {
    let named = loss.left.iter().take(NAMED).map(|left| v1::WhatIfLeft {
        instance: left.instance.to_string(),
        host: left.host.clone(),
        why: left.why.clone(),
    });
    v1::WhatIfLoss {
        named: named.collect(),
        left: loss.left.len() as u64,
        name: loss.name,
        hosts: loss.hosts,
        instances: loss.instances,
    }
}
