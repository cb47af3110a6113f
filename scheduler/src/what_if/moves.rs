//! Which moves would empty hosts, or even them out. The planner counts CPU and memory; where an instance may go the pipelines
//! say: each is asked about as a live migration, and each move of the plan is decided again, one after the other, on a copy that
//! the moves before have changed.
//!
//! What nobody knows of a running instance (which zone and traits it asked for) is taken from its host, as
//! [`remedies`](crate::remedy) do: it goes to hosts of the same zone, hypervisor type and architecture that have every trait of
//! the present one. A member of a server group stays, as its policy is not known.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::WhatIf;
use crate::alike::Alike;
use crate::consumer::{Consumer, Purpose};
use crate::core::Refusal;
use crate::domain::Domain;
use crate::intent::Intent;
use crate::names::Sym;
use crate::provider::{Provider, Row};
use crate::rebalance::{Item, Move, Objective, Site, Sizes, Step, after, imbalance};
use crate::request::{Candidate, Candidates, Options, Request};
use crate::state::Tables;

/// The classes that are counted, as in [`Sizes`].
const CLASSES: [&str; 2] = ["VCPU", "MEMORY_MB"];

/// Moves that would be of use, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moves {
    /// What belongs together.
    pub steps: Vec<PlannedStep>,
    /// Hosts that were looked at: enabled, up, with VCPU and MEMORY_MB.
    pub hosts: u64,
    /// Of them with an instance, before and after.
    pub in_use: [u64; 2],
    /// Standard deviation of their use, CPU's plus memory's, before and after.
    pub imbalance: [f64; 2],
    /// Moves that the pipelines refused when their turn came, so that it was planned again without them.
    pub refused: u64,
    /// More instances were looked at than may be asked about: there may be more.
    pub bounded: bool,
}

/// Moves that are of use together only.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedStep {
    /// The moves, one after the other.
    pub moves: Vec<PlannedMove>,
    /// Hosts emptied, or by how much the imbalance falls.
    pub gain: f64,
    /// Why.
    pub reason: String,
}

/// A move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedMove {
    /// The instance.
    pub instance: Uuid,
    /// Its host.
    pub from: String,
    /// The host that it goes to.
    pub to: String,
    /// Its memory, MiB.
    pub memory_mib: u64,
}

/// Plans that are made before one is cut off at what a pipeline refuses.
const TRIES: usize = 8;

/// What pipelines have said so far.
#[derive(Default)]
struct Asked {
    /// Where an item may go.
    hosts: BTreeMap<u32, BTreeSet<usize>>,
    bounded: bool,
    refusal: Option<Refusal>,
}

/// The hosts that take part, in the planner's order.
struct Fleet {
    rows: Vec<Row>,
    sites: Vec<Site>,
    /// What an item of the planner is.
    instances: Vec<Uuid>,
    /// Places by host name; of nodes that share a name none is meant.
    by_name: BTreeMap<String, Option<usize>>,
}

impl WhatIf {
    /// Moves in domain nova for an objective, at most `most`, as the pipelines (or the one named) allow them.
    pub fn moves(&mut self, objective: Objective, most: usize, pipeline: Option<&str>) -> Result<Moves, Refusal> {
        let fleet = Fleet::of(self.tables());
        let mut out = Moves { hosts: fleet.rows.len() as u64, ..Moves::default() };
        let mut asked = Asked::default();
        let mut plan = self.plan(&fleet, objective, most, pipeline, &mut asked)?;
        for again in (0..TRIES).rev() {
            let Some((held, item, to)) = self.refused(&fleet, &plan, pipeline)? else { break };
            out.refused += 1;
            if again == 0 {
                plan.truncate(held);
                break;
            }
            asked.hosts.entry(item).or_default().remove(&to);
            plan = self.plan(&fleet, objective, most, pipeline, &mut asked)?;
        }
        let moves: Vec<Move> = plan.iter().flat_map(|step| step.moves.clone()).collect();
        let then = after(&fleet.sites, &moves);
        let in_use = |sites: &[Site]| sites.iter().filter(|site| !site.items.is_empty()).count() as u64;
        out.in_use = [in_use(&fleet.sites), in_use(&then)];
        out.imbalance = [imbalance(&fleet.sites), imbalance(&then)];
        out.bounded = asked.bounded;
        out.steps = plan.into_iter().map(|step| self.told(&fleet, step)).collect();
        Ok(out)
    }

    fn plan(
        &mut self,
        fleet: &Fleet,
        objective: Objective,
        most: usize,
        pipeline: Option<&str>,
        asked: &mut Asked,
    ) -> Result<Vec<Step>, Refusal> {
        let asking = RefCell::new((self, asked));
        let plan = objective.plan(&fleet.sites, most, |item, to| {
            let (world, asked) = &mut *asking.borrow_mut();
            if !asked.hosts.contains_key(&item) {
                if world.work == 0 {
                    asked.bounded = true;
                    return false;
                }
                world.work -= 1;
                let found = world.where_to(fleet, fleet.instances[item as usize], pipeline);
                asked.hosts.insert(
                    item,
                    found.unwrap_or_else(|why| {
                        asked.refusal.get_or_insert(why);
                        BTreeSet::new()
                    }),
                );
            }
            asked.hosts[&item].contains(&to)
        });
        match asking.into_inner().1.refusal.take() {
            Some(refusal) => Err(refusal),
            None => Ok(plan),
        }
    }

    /// Hosts to which an instance may go now.
    fn where_to(&mut self, fleet: &Fleet, instance: Uuid, pipeline: Option<&str>) -> Result<BTreeSet<usize>, Refusal> {
        let tables = self.core.state().tables();
        let Some(consumer) = tables.consumer(Domain::Nova, instance, Purpose::Instance) else {
            return Ok(BTreeSet::new());
        };
        let Some(source) = tables.provider(consumer.row) else { return Ok(BTreeSet::new()) };
        let request = Request {
            options: Options { max_candidates: u64::from(u32::MAX), ..Options::probe() },
            ..migration(tables, consumer, source, pipeline)
        };
        let like = Alike::of(source);
        let hosts = self.core.probe(&self.engine, &request)?.hosts;
        let tables = self.core.state().tables();
        let places = hosts.iter().filter_map(|ranked| fleet.by_name.get(ranked.host.as_str()).copied().flatten());
        Ok(places.filter(|&at| tables.provider(fleet.rows[at]).is_some_and(|provider| like.holds(provider))).collect())
    }

    /// Decides each move of a plan on a copy, one after the other; the first that is refused: its step, instance and host.
    fn refused(
        &self,
        fleet: &Fleet,
        plan: &[Step],
        pipeline: Option<&str>,
    ) -> Result<Option<(usize, u32, usize)>, Refusal> {
        let mut world = Self { core: self.core.fork(), engine: self.engine.copy(), ..*self };
        for (at, one) in plan.iter().enumerate().flat_map(|(at, step)| step.moves.iter().map(move |one| (at, one))) {
            let tables = world.tables();
            let consumer = tables.consumer(Domain::Nova, fleet.instances[one.item as usize], Purpose::Instance);
            let [source, target] = [one.from, one.to].map(|place| tables.provider(fleet.rows[place]));
            let (Some(consumer), Some(source), Some(target)) = (consumer, source, target) else {
                return Ok(Some((at, one.item, one.to)));
            };
            let text = |sym: Sym| tables.names.text(sym);
            let only = Candidate {
                host: text(target.host).into(),
                node: text(target.node.unwrap_or(target.host)).into(),
                weight: 0.0,
            };
            let request = Request {
                candidates: Candidates::Sent(vec![only]),
                options: Options { max_candidates: 1, skip_history: true, ..Options::default() },
                ..migration(tables, consumer, source, pipeline)
            };
            if world.place(&request)?.placements.is_empty() {
                return Ok(Some((at, one.item, one.to)));
            }
        }
        Ok(None)
    }

    fn told(&self, fleet: &Fleet, step: Step) -> PlannedStep {
        let tables = self.tables();
        let name = |at: usize| {
            tables.provider(fleet.rows[at]).map(|provider| super::label(tables, provider)).unwrap_or_default()
        };
        let memory = |one: &Move| {
            let items = &fleet.sites[one.from].items;
            items.iter().find(|item| item.id == one.item).map_or(0, |item| item.sizes[1])
        };
        let moves = step.moves.iter().map(|one| PlannedMove {
            instance: fleet.instances[one.item as usize],
            from: name(one.from),
            to: name(one.to),
            memory_mib: memory(one),
        });
        PlannedStep { moves: moves.collect(), gain: step.gain, reason: step.reason }
    }
}

impl Fleet {
    fn of(tables: &Tables) -> Self {
        let mut fleet = Self { rows: Vec::new(), sites: Vec::new(), instances: Vec::new(), by_name: BTreeMap::new() };
        let [Some(cpu), Some(memory)] = CLASSES.map(|class| tables.names.get(class)) else { return fleet };
        for (row, provider) in tables.providers() {
            if provider.domain != Domain::Nova || provider.disabled || provider.forced_down {
                continue;
            }
            let (Some(cpus), Some(mib)) = (provider.capacity(cpu), provider.capacity(memory)) else { continue };
            let capacity: Sizes = [cpus, mib];
            let free = [cpus.saturating_sub(provider.used(cpu)), mib.saturating_sub(provider.used(memory))];
            let mut items = Vec::new();
            for consumer in provider.consumers.iter().filter_map(|slot| tables.consumer_at(*slot)) {
                let sizes = [consumer.amounts.get(cpu), consumer.amounts.get(memory)];
                items.push(Item { id: fleet.instances.len() as u32, sizes, movable: movable(tables, consumer) });
                fleet.instances.push(consumer.uuid);
            }
            let at = fleet.rows.len();
            let name = tables.names.text(provider.host).to_owned();
            fleet.by_name.entry(name).and_modify(|place| *place = None).or_insert(Some(at));
            fleet.rows.push(row);
            fleet.sites.push(Site { capacity, free, items });
        }
        fleet
    }
}

/// An instance that runs, is in no group, and is not on its way.
fn movable(tables: &Tables, consumer: &Consumer) -> bool {
    consumer.purpose == Purpose::Instance
        && consumer.is_listed()
        && !consumer.amounts.is_empty()
        && consumer.group.is_none()
        && tables.consumer(consumer.domain, consumer.uuid, Purpose::Move).is_none()
}

/// What a live migration of an instance asks.
fn migration(tables: &Tables, consumer: &Consumer, source: &Provider, pipeline: Option<&str>) -> Request {
    let text = |sym: Sym| tables.names.text(sym).to_owned();
    Request {
        domain: consumer.domain,
        consumers: vec![consumer.uuid],
        pipeline: pipeline.map(str::to_owned),
        label: Some(Intent::LiveMigration),
        source_host: Some(text(source.host)),
        ignore_hosts: vec![text(source.host)],
        resources: consumer.amounts.iter().map(|(sym, amount)| (text(sym), amount)).collect(),
        flavor: consumer.flavor.map(text),
        project: consumer.project.map(text),
        user: consumer.user.map(text),
        num_instances: 1,
        ..Request::default()
    }
}
