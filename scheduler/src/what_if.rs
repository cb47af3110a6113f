//! Questions of the kind "what if", answered on a copy of the state by the pipelines that decide: do so many more fit, and what
//! stops them; and if these hosts were lost, which instances would find no place. Nothing here reaches the state that was
//! copied; claims in flight are not in the copy.
//!
//! A lost host reports that all it has is in use, which every pipeline understands, and each of its instances is evacuated with
//! what the state knows of it: amounts, flavor, project and user. Extra specs, image and server group are not known here, so
//! what they forbid is not seen. [`ha::admission`](crate::ha::admission) asks the same by capacity alone.

mod moves;

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::command::{Batch, Change, Command, Outcome, Proposer};
use crate::consumer::Purpose;
use crate::core::{Core, Refusal, Settled};
use crate::decision::Decision;
use crate::domain::Domain;
use crate::intent::Intent;
use crate::names::Sym;
use crate::pipeline::engine::Engine;
use crate::provider::{Provider, Row};
use crate::report::HostReport;
use crate::request::{Options, Request};
use crate::snapshot::Frozen;
use crate::state::Tables;

pub use moves::{Moves, PlannedMove, PlannedStep};

/// Most instances that are placed for one answer.
pub const MOST: u64 = 10_000;
/// Largest allocation ratio.
const LARGEST_RATIO: f64 = 1_000.0;

/// The copy.
pub struct WhatIf {
    core: Core,
    engine: Engine,
    batches: u64,
    /// Decisions that may still be made.
    work: u64,
}

/// What became of asking for many of the same.
#[derive(Debug)]
pub struct Filled {
    /// How many found a place.
    pub placed: u64,
    /// How many of them on which host, by name.
    pub hosts: BTreeMap<String, u64>,
    /// The decision about the first that found none.
    pub stopped: Option<Decision>,
}

/// Hosts that would be lost together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// What it is called: a host, a zone, a rack.
    pub name: String,
    /// Its hosts.
    pub rows: Vec<Row>,
}

/// What takes hosts away together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scopes {
    /// Each host by itself.
    Host,
    /// Each availability zone.
    Zone,
    /// Each aggregate.
    Aggregate,
    /// Each value of a label.
    Label(String),
}

/// What the loss of a scope would come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Name of the scope.
    pub name: String,
    /// Hosts in it.
    pub hosts: u64,
    /// Instances on them.
    pub instances: u64,
    /// Those that would find no place.
    pub left: Vec<Left>,
}

/// An instance that would find no place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// It.
    pub instance: Uuid,
    /// Its host.
    pub host: String,
    /// What keeps it from the others, by filter.
    pub why: String,
}

impl WhatIf {
    /// A copy that goes on from here.
    pub fn of(frozen: Frozen, engine: Engine) -> Self {
        Self::over(Core::of(frozen), engine)
    }

    fn over(core: Core, engine: Engine) -> Self {
        Self { core, engine, batches: 0, work: MOST }
    }

    /// The state of the copy.
    pub fn tables(&self) -> &Tables {
        self.core.state().tables()
    }

    fn apply(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        self.batches += 1;
        let proposer = Proposer { node: 0, run: 0, seq: self.batches };
        let (now, wall) = (self.core.state().now(), self.tables().counters().wall);
        self.core.apply(&Batch { proposer, now, wall, commands })
    }

    /// Every host of a domain that has the class gets this allocation ratio; how many hosts differ by that.
    pub fn set_ratio(&mut self, domain: Domain, class: &str, ratio: f64) -> Result<u64, String> {
        if !(ratio.is_finite() && ratio > 0.0 && ratio <= LARGEST_RATIO) {
            return Err(format!(
                "ratio of {class}: {ratio} given, a number above 0 and at most {LARGEST_RATIO} expected"
            ));
        }
        let tables = self.tables();
        let sym = tables.names.get(class);
        let has = |provider: &Provider| sym.is_some_and(|sym| provider.inventory(sym).is_some());
        let hosts = tables.providers().filter(|(_, provider)| provider.domain == domain && has(provider));
        let report = |(_, provider): (Row, &Provider)| {
            let of = |(sym, inventory): &(Sym, crate::Inventory)| {
                let name = tables.names.text(*sym).to_owned();
                let inventory = if name == class { inventory.with_ratio(ratio) } else { *inventory };
                (name, inventory)
            };
            let inventories = provider.inventories.iter().map(of).collect();
            Command::Report(Box::new(HostReport { inventories: Some(inventories), ..named(tables, provider) }))
        };
        let commands: Vec<Command> = hosts.map(report).collect();
        if commands.is_empty() {
            return Err(format!("ratio of {class}: no host of domain {domain} has any, a class that one has expected"));
        }
        let outcomes = self.apply(commands);
        Ok(outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Reported(Change::Changed))).count() as u64)
    }

    /// Asks for one after the other until `most` are placed or nothing fits.
    pub fn fill(&mut self, request: &Request, most: u64) -> Result<Filled, Refusal> {
        let mut request = Request {
            options: Options { max_candidates: 1, skip_history: true, ..request.options.clone() },
            caller: crate::request::Caller::Keyed { key: None },
            ..request.clone()
        };
        request.options.read_only = false;
        request.options.skip_inflight = false;
        let mut filled = Filled { placed: 0, hosts: BTreeMap::new(), stopped: None };
        for number in 0..most.min(MOST) {
            request.consumers = vec![made_up(number)];
            let decision = self.place(&request)?;
            let Some(placement) = decision.placements.first() else {
                filled.stopped = Some(decision);
                break;
            };
            filled.placed += 1;
            *filled.hosts.entry(placement.host.clone()).or_default() += 1;
        }
        Ok(filled)
    }

    /// Decides, and applies what was decided.
    fn place(&mut self, request: &Request) -> Result<Decision, Refusal> {
        let mut proposal = self.core.decide(&self.engine, request)?;
        let command = proposal.take_command();
        let outcome = command.and_then(|command| self.apply(vec![command]).pop());
        match self.core.settle(proposal, outcome) {
            Settled::Done(decision) => Ok((*decision).clone()),
            Settled::Refused(refusal) => Err(refusal),
            Settled::Again => Err(Refusal::Invalid("the copy has moved on by itself: please report this".to_owned())),
        }
    }

    /// The scopes of a domain that hold instances, those with most first.
    pub fn scopes(&self, domain: Domain, scopes: &Scopes) -> Vec<Scope> {
        let tables = self.tables();
        let mut out: BTreeMap<String, (usize, Vec<Row>)> = BTreeMap::new();
        for (row, provider) in tables.providers().filter(|(_, provider)| provider.domain == domain) {
            let text = |sym: Sym| tables.names.text(sym).to_owned();
            let names: Vec<String> = match scopes {
                Scopes::Host => vec![label(tables, provider)],
                Scopes::Zone => provider.zone.map(text).into_iter().collect(),
                Scopes::Aggregate => {
                    let name = |&key: &Sym| tables.aggregate(key).map_or_else(|| text(key), |known| known.name.clone());
                    provider.aggregates.iter().map(name).collect()
                }
                Scopes::Label(key) => {
                    let of = |&sym: &Sym| tables.names.text(sym).strip_prefix(key.as_str())?.strip_prefix('=');
                    provider.labels.iter().filter_map(|sym| of(sym).map(str::to_owned)).collect()
                }
            };
            for name in names {
                let scope = out.entry(name).or_default();
                scope.0 += provider.consumers.len();
                scope.1.push(row);
            }
        }
        let mut out: Vec<(usize, Scope)> = out
            .into_iter()
            .map(|(name, (held, rows))| (held, Scope { name, rows }))
            .filter(|(held, _)| *held > 0)
            .collect();
        out.sort_by_key(|(held, _)| std::cmp::Reverse(*held));
        out.into_iter().map(|(_, scope)| scope).collect()
    }

    /// Loses a scope on a copy of this copy: its instances are evacuated, the largest first, by the pipelines (or the one
    /// named). `None`: the bound of work is reached.
    pub fn lose(&mut self, domain: Domain, scope: &Scope, pipeline: Option<&str>) -> Result<Option<Loss>, Refusal> {
        let mut world = Self { core: self.core.fork(), engine: self.engine.copy(), ..*self };
        let (asked, reports) = world.evacuees(domain, scope, pipeline);
        if asked.len() as u64 > self.work {
            return Ok(None);
        }
        self.work -= asked.len() as u64;
        world.apply(reports);
        let mut loss = Loss {
            name: scope.name.clone(),
            hosts: scope.rows.len() as u64,
            instances: asked.len() as u64,
            left: Vec::new(),
        };
        for request in asked {
            let decision = world.place(&request)?;
            if decision.placements.is_empty() {
                let instance = request.consumers.first().copied().unwrap_or_default();
                let host = request.source_host.clone().unwrap_or_default();
                loss.left.push(Left { instance, host, why: why(&decision) });
            }
        }
        Ok(Some(loss))
    }

    /// What the instances of lost hosts ask, the largest first, and what the hosts report.
    fn evacuees(&self, domain: Domain, scope: &Scope, pipeline: Option<&str>) -> (Vec<Request>, Vec<Command>) {
        let tables = self.tables();
        let mut capacity: BTreeMap<Sym, u64> = BTreeMap::new();
        for (class, inventory) in tables.providers().flat_map(|(_, provider)| &provider.inventories) {
            let most = capacity.entry(*class).or_default();
            *most = (*most).max(inventory.capacity());
        }
        let lost: Vec<&Provider> = scope.rows.iter().filter_map(|row| tables.provider(*row)).collect();
        let names: Vec<String> = lost.iter().map(|provider| tables.names.text(provider.host).to_owned()).collect();
        let mut asked = Vec::new();
        let mut reports = Vec::new();
        for (provider, host) in lost.iter().zip(&names) {
            let full = provider.inventories.iter().map(|(class, inventory)| {
                (tables.names.text(*class).to_owned(), inventory.capacity().max(inventory.total))
            });
            let report = HostReport { allocation: Some(full.collect()), ..named(tables, provider) };
            reports.push(Command::Report(Box::new(report)));
            for consumer in provider.consumers.iter().filter_map(|slot| tables.consumer_at(*slot)) {
                if consumer.purpose != Purpose::Instance || consumer.amounts.is_empty() {
                    continue;
                }
                let text = |sym: Option<Sym>| sym.map(|sym| tables.names.text(sym).to_owned());
                let share = |(class, amount): (Sym, u64)| {
                    amount.saturating_mul(1_000_000) / capacity.get(&class).copied().unwrap_or(0).max(1)
                };
                let request = Request {
                    domain,
                    consumers: vec![consumer.uuid],
                    pipeline: pipeline.map(str::to_owned),
                    label: Some(Intent::Evacuate),
                    source_host: Some(host.clone()),
                    ignore_hosts: names.clone(),
                    resources: consumer.amounts.iter().map(|(sym, n)| (tables.names.text(sym).to_owned(), n)).collect(),
                    flavor: text(consumer.flavor),
                    project: text(consumer.project),
                    user: text(consumer.user),
                    num_instances: 1,
                    options: Options { max_candidates: 1, skip_history: true, ..Options::default() },
                    ..Request::default()
                };
                asked.push((consumer.amounts.iter().map(share).max().unwrap_or(0), request));
            }
        }
        asked.sort_by(|one, other| other.0.cmp(&one.0).then_with(|| one.1.consumers.cmp(&other.1.consumers)));
        (asked.into_iter().map(|(_, request)| request).collect(), reports)
    }
}

/// A report of a host that says nothing yet, of the moment of its last one.
fn named(tables: &Tables, provider: &Provider) -> HostReport {
    HostReport {
        domain: provider.domain,
        name: tables.names.text(provider.host).to_owned(),
        hypervisor_hostname: provider.node.map(|node| tables.names.text(node).to_owned()),
        uuid: Some(provider.uuid),
        observed_at: Some(provider.observed_at),
        ..HostReport::default()
    }
}

/// A host's name; with its node where that is another.
fn label(tables: &Tables, provider: &Provider) -> String {
    let host = tables.names.text(provider.host);
    match provider.node.map(|node| tables.names.text(node)) {
        Some(node) if node != host => format!("{host} ({node})"),
        _ => host.to_owned(),
    }
}

/// What dropped hosts, by filter: `filter: reason (hosts)`.
fn why(decision: &Decision) -> String {
    let dropped = decision.steps.iter().filter(|step| !step.reasons.is_empty());
    let told = dropped.map(|step| {
        let reasons: Vec<String> = step.reasons.iter().take(3).map(|(why, hosts)| format!("{why} ({hosts})")).collect();
        format!("{}: {}", step.name, reasons.join(", "))
    });
    told.collect::<Vec<_>>().join("; ")
}

/// Uuid of an instance that does not exist.
fn made_up(number: u64) -> Uuid {
    Uuid::from_u128((0x0a5c_ed00_0000_4000_8000_0000_0000_0000 << 64) | (u128::from(number) + 1))
}
