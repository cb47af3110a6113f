//! Planned work: a host is emptied, and given back.

use std::collections::BTreeSet;

use scheduler::ha::HostId;
use scheduler::ha::admission::{self, Refuses, Rule};
use scheduler::ha::drain::{Drain, Move, MoveState, Over, Stage};
use scheduler::ha::host::Maintenance;
use scheduler::ha::order::Change;
use scheduler::ha::policy;
use scheduler::ha::recovery::Life;
use scheduler::state::Tables;

use super::{find, name, named, nova_host, operator};
use crate::error::ApiError;
use crate::proto::ha;
use crate::service::{Call, Service};
use raft::Freshness;

/// Instances of one drain that are told.
const INSTANCES: usize = 1000;

impl Service {
    pub(crate) async fn drain(&self, asked: ha::DrainRequest) -> Result<ha::FailoverDone, ApiError> {
        let host = self.found(&asked.host).await?;
        let mode: Maintenance = match asked.mode.as_str() {
            "" => Maintenance::Auto,
            given => named("mode", given, "auto, manual or termination")?,
        };
        let tables = self.tables(Freshness::Linearizable).await?;
        let incarnation = tables.failover().hosts.get(host).map_or(0, |host| host.incarnation);
        let change = Change::DrainOpen { host, incarnation, mode };
        self.told(operator(&asked.actor, &asked.reason), change).await
    }

    pub(crate) async fn cancel_drain(&self, asked: ha::FailoverHostRequest) -> Result<ha::FailoverDone, ApiError> {
        let host = self.found(&asked.host).await?;
        let change = Change::DrainEnd { host, over: Over::Cancelled };
        self.told(operator(&asked.actor, &asked.reason), change).await
    }

    pub(crate) async fn end_drain(&self, asked: ha::FailoverHostRequest) -> Result<ha::FailoverDone, ApiError> {
        let host = self.found(&asked.host).await?;
        let tables = self.tables(Freshness::Linearizable).await?;
        let stage = tables.failover().drains.get(host).map(|drain| drain.stage);
        match stage {
            Some(Stage::Over(_)) => {}
            None => return Err(ApiError::not_found(format!("host: '{}' is not drained", asked.host.escape_debug()))),
            Some(Stage::Waiting | Stage::Moving) => {
                return Err(ApiError::conflict(format!(
                    "the drain of {} is not over: wait for its end, or cancel it",
                    asked.host
                )));
            }
        }
        let change = Change::Maintenance { host, mode: Maintenance::None };
        self.told(operator(&asked.actor, &asked.reason), change).await
    }

    pub(crate) async fn drains(
        &self,
        asked: ha::FailoverDrainsRequest,
        call: &Call,
    ) -> Result<ha::FailoverDrainsResponse, ApiError> {
        let tables = self.tables(call.fresh).await?;
        let only = asked.host.as_deref().map(|host| {
            find(&tables, host).map(|host| host.id).ok_or_else(|| {
                ApiError::not_found(format!("host: '{}' is none that failover watches", host.escape_debug()))
            })
        });
        let only = only.transpose()?;
        let drains = tables.failover().drains.iter().filter(|drain| only.is_none_or(|only| only == drain.host));
        let mut drains: Vec<_> = drains.map(|drain| told(&tables, drain)).collect();
        drains.sort_unstable_by(|one, other| one.host.cmp(&other.host));
        Ok(ha::FailoverDrainsResponse { drains })
    }
}

fn host_name(tables: &Tables, id: HostId) -> String {
    tables.failover().hosts.get(id).map_or_else(|| id.to_string(), |host| nova_host(tables, host).to_owned())
}

fn told(tables: &Tables, drain: &Drain) -> ha::FailoverDrain {
    let failover = tables.failover();
    let now = tables.counters().now;
    let life = Life { host: drain.host, incarnation: drain.incarnation };
    let moves = failover.moves.iter().filter(|known| known.from.host == drain.host).take(INSTANCES);
    let left = drain.left.iter().take(INSTANCES);
    ha::FailoverDrain {
        host: host_name(tables, drain.host),
        stage: match drain.stage {
            Stage::Waiting => "waiting".to_owned(),
            Stage::Moving => "moving".to_owned(),
            Stage::Over(over) => name(over),
        },
        stage_ms: now.saturating_sub(drain.since),
        maintenance: failover.hosts.get(drain.host).map_or_else(String::new, |host| name(host.maintenance)),
        disabled: drain.disabled,
        moved: drain.moved,
        remaining: failover.permits.iter().filter(|permit| permit.life == life).count() as u64,
        waits: waits(tables, drain),
        moves: moves.map(|known| moving(tables, known, now)).collect(),
        left: left.map(|(instance, why)| ha::FailoverLeft { instance: instance.to_string(), why: name(why) }).collect(),
    }
}

fn moving(tables: &Tables, known: &Move, now: u64) -> ha::FailoverMove {
    let state = match known.state {
        MoveState::Claimed => "claimed",
        MoveState::Intent => "intent",
        MoveState::Running(_) => "running",
        MoveState::Failed => "failed",
    };
    ha::FailoverMove {
        instance: known.instance.to_string(),
        target: host_name(tables, known.to.host),
        live: known.live,
        state: state.to_owned(),
        tries: u32::from(known.tries),
        state_ms: now.saturating_sub(known.at),
    }
}

/// What a drain that waits waits for, as far as the state says.
fn waits(tables: &Tables, drain: &Drain) -> Option<String> {
    let failover = tables.failover();
    let host = failover.hosts.get(drain.host)?;
    let cluster = host.places.cluster;
    let policy = policy::of(tables, host);
    let there = |id: HostId| failover.hosts.get(id).is_some_and(|host| host.places.cluster == cluster);
    if matches!(drain.stage, Stage::Over(_)) {
        return None;
    }
    if drain.epoch != tables.counters().epoch {
        return Some("it is of before a restore: cancel it, and drain anew".to_owned());
    }
    if policy.mode != policy::Mode::Enforce {
        return Some("for a policy that lets it be done (mode: enforce)".to_owned());
    }
    let cases: BTreeSet<_> = failover
        .cases
        .iter()
        .filter(|case| there(case.id.host) && case.phase.is_unrecovered())
        .map(|case| host_name(tables, case.id.host))
        .collect();
    if let Some(host) = cases.first() {
        return Some(format!("for the case of {host}, whose instances come first"));
    }
    if drain.stage == Stage::Moving {
        return None;
    }
    let moving = failover.drains.iter().filter(|other| other.stage == Stage::Moving && there(other.host));
    let moving: BTreeSet<_> = moving.map(|other| host_name(tables, other.host)).collect();
    match moving.first() {
        Some(host) if moving.len() >= policy.drains as usize => {
            Some(format!("for the drain of {host}: {} at a time in a cluster", policy.drains))
        }
        _ if let Some((host, group)) = failover.shares(drain) => Some(format!(
            "for the drain of {}: either host has members of server group {group}, which declares min_available, and one \
             host of it is drained at a time",
            host_name(tables, host)
        )),
        _ if admission::kept(&policy).is_some_and(|(rule, refuses)| refuses && rule != Rule::Host) => {
            Some(format!("for room: '{}' would not stay free then", policy.admission))
        }
        _ if policy.keep_spare || policy.refuses == Refuses::Enforce => {
            Some("for room: its cluster could not lose a host then".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use scheduler::ha::drain::Step;
    use scheduler::ha::host::{Hello, HostSpec, Machine, PlaceNames};
    use scheduler::ha::mark::Mark;
    use scheduler::ha::order::{Actor, Done, Leader, Order, Role};
    use scheduler::{Batch, Command, Core, Outcome, Proposer, level};
    use uuid::Uuid;

    use super::*;

    /// Opens drains of two hosts of two clusters that have members of a server group.
    fn drained(declares: bool) -> Core {
        let mut core = Core::new();
        let mut apply = |command| {
            let batch = Batch { proposer: Proposer::default(), now: 1_000, wall: 1_000, commands: vec![command] };
            core.apply(&batch).pop().expect("one for each command")
        };
        apply(Command::Raise { level: level::FAILOVER });
        let mut order = |role, change| {
            let actor = Actor { role, name: "test".to_owned(), reason: "because".to_owned() };
            let order = Order { leader: Leader { term: 1, node: 1 }, epoch: 0, actor, change };
            match apply(Command::Failover(Box::new(order))) {
                Outcome::Failover(Ok(Done::Changed)) => {}
                other => panic!("{other:?}"),
            }
        };
        order(Role::Coordinator, Change::Mark(Mark::Ours));
        for n in [1, 2] {
            let id = HostId(Uuid::from_u128(n));
            let machine = Machine { uuid: Some(Uuid::from_u128(10 + n)), serial: Some(format!("serial-{n}")) };
            let rack = format!("rack-{n}");
            let places = PlaceNames {
                az: rack.clone(),
                cell: rack.clone(),
                cluster: rack.clone(),
                power: rack.clone(),
                chassis: rack,
            };
            let (nova_host, enabled, permit_check) = (format!("node-{n}"), true, true);
            let host = HostSpec {
                id,
                nova_host,
                machine: machine.clone(),
                places,
                enabled,
                permit_check,
                ..HostSpec::default()
            };
            order(Role::Coordinator, Change::HostUpsert(Box::new(host)));
            let hello = Hello { boot: Uuid::from_u128(20 + n), machine, permit_check, ..Hello::default() };
            order(Role::Coordinator, Change::IncarnationOpen { host: id, hello: Box::new(hello) });
            order(Role::Operator, Change::DrainOpen { host: id, incarnation: 1, mode: Maintenance::Auto });
            let step = |step| Change::DrainStep { host: id, step: Box::new(step) };
            order(Role::Coordinator, step(Step::Groups([(Uuid::from_u128(30), declares)].into())));
            if n == 1 {
                order(Role::Coordinator, step(Step::Begin));
            }
        }
        core
    }

    #[test]
    fn a_drain_says_for_which_server_group_it_waits() {
        for (declares, expected) in [
            (false, None),
            (
                true,
                Some(
                    "for the drain of node-1: either host has members of server group \
                     00000000-0000-0000-0000-00000000001e, which declares min_available, and one host of it is drained at \
                     a time",
                ),
            ),
        ] {
            let core = drained(declares);
            let tables = core.state().tables();
            let drain = tables.failover().drains.get(HostId(Uuid::from_u128(2))).expect("open");
            assert_eq!(waits(tables, drain).as_deref(), expected);
        }
    }
}
