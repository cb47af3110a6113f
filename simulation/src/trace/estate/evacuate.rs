//! Hosts that fail: their VMs keep their claims there and run nowhere, until the planner of failover finds a place for them
//! or their host comes back.

use std::collections::BTreeMap;

use scheduler::ha::host::{Fencer, Hello, HostId, HostSpec, Machine, PlaceNames};
use scheduler::ha::order::{Actor, Change, Leader, Order, Role};
use scheduler::ha::planner::groups::ServerGroups;
use scheduler::ha::planner::{Asked, Asks, Placed, Targets, places};
use scheduler::ha::recovery::Life;
use scheduler::request::Options;
use scheduler::{Command, Intent, Outcome, Request, level};
use uuid::Uuid;

use super::{Estate, uuid};
use crate::trace::hosts::Host;

fn id(host: usize) -> HostId {
    HostId(Uuid::from_u128(host as u128 + 1))
}

/// A host's life as failover counts it: the first one, since no death is proven here.
fn life(host: usize) -> Life {
    Life { host: id(host), incarnation: 1 }
}

/// What the pipeline said of each shape.
struct Ranked {
    shapes: BTreeMap<Uuid, u32>,
    lists: BTreeMap<u32, Vec<Life>>,
}

impl Targets for Ranked {
    fn ranked(&self, asked: &Asked<'_>) -> Vec<Life> {
        self.shapes.get(&asked.instance).and_then(|shape| self.lists.get(shape)).cloned().unwrap_or_default()
    }

    fn question(&self, instance: Uuid, _: &Asks) -> Option<u64> {
        self.shapes.get(&instance).map(|&shape| u64::from(shape))
    }
}

impl Estate {
    /// Failover is told of all hosts.
    pub fn expect_failures(&mut self) -> Result<(), String> {
        self.apply(vec![Command::Raise { level: level::FAILOVER }]);
        for host in 0..self.hosts.len() {
            self.enable(host, true)?;
            let hello = Hello { boot: id(host).0, machine: machine(host), permit_check: true, ..Hello::default() };
            self.order(Change::IncarnationOpen { host: id(host), hello: Box::new(hello) })?;
            if !self.core.state().tables().failover().takes(life(host)) {
                return Err(format!("failover does not take {} for a host that lives", self.hosts[host].id));
            }
        }
        Ok(())
    }

    /// Failover may use a host, or not.
    fn enable(&mut self, host: usize, enabled: bool) -> Result<(), String> {
        let named = || "sim".to_owned();
        self.order(Change::HostUpsert(Box::new(HostSpec {
            id: id(host),
            nova_host: Host::name_at(host),
            machine: machine(host),
            places: PlaceNames { az: named(), cell: named(), cluster: named(), power: named(), chassis: named() },
            fencers: vec![Fencer::Manual],
            enabled,
            permit_check: true,
            ..HostSpec::default()
        })))
    }

    fn order(&mut self, change: Change) -> Result<(), String> {
        let actor = Actor { role: Role::Operator, name: "simulate".to_owned(), reason: "simulated".to_owned() };
        let epoch = self.core.state().tables().counters().epoch;
        let order = Order { leader: Leader { term: 1, node: 1 }, epoch, actor, change };
        match self.apply(vec![Command::Failover(Box::new(order))]).pop() {
            Some(Outcome::Failover(Ok(_))) => Ok(()),
            other => Err(format!("an order of failover was refused: {other:?}")),
        }
    }

    /// VMs that run nowhere, and the failed host of each.
    pub fn waiting(&self) -> &BTreeMap<u32, u32> {
        &self.waiting
    }

    /// Whether a host has failed.
    pub fn is_down(&self, host: u32) -> bool {
        self.outside.contains(&(host as usize))
    }

    /// A host has failed: it takes nothing, and Nova has it forced down and disabled.
    pub fn close(&mut self, host: u32) -> Result<(), String> {
        self.outside.push(host as usize);
        self.report_use(host)?;
        self.enable(host as usize, false)
    }

    /// It is back; VMs that wait for it are not started yet.
    pub fn reopen(&mut self, host: u32) -> Result<(), String> {
        self.outside.retain(|&out| out != host as usize);
        self.report_use(host)?;
        self.enable(host as usize, true)
    }

    /// A VM runs no more, since its host has failed. What it claimed there stays: the planner reads its size there.
    pub fn lose(&mut self, vm: u32, host: u32) -> Result<(), String> {
        self.leave(vm, host)?;
        self.waiting.insert(vm, host);
        Ok(())
    }

    /// A VM that waits is started where it was.
    pub fn restart(&mut self, vm: u32, host: u32) -> Result<(), String> {
        self.waiting.remove(&vm);
        self.arrive(vm, host, None)
    }

    /// A VM that waits is started on another host: the place is claimed as any other.
    pub fn evacuate(&mut self, vm: u32, to: u32) -> Result<(), String> {
        self.forget(vm)?;
        self.put(vm, to, None)
    }

    /// A VM that waits ends.
    pub fn forget(&mut self, vm: u32) -> Result<(), String> {
        self.waiting.remove(&vm);
        self.release(vm)
    }

    /// What the planner says of all VMs that wait: where those go that have a place.
    pub fn plan_evacuation(&mut self) -> Result<Vec<(u32, u32)>, String> {
        let vms: Vec<u32> = self.waiting.keys().copied().collect();
        let mut ranked = Ranked { shapes: BTreeMap::new(), lists: BTreeMap::new() };
        for &vm in &vms {
            let shape = self.trace.vms[vm as usize].shape;
            ranked.shapes.insert(uuid(vm), shape);
            if let std::collections::btree_map::Entry::Vacant(list) = ranked.lists.entry(shape) {
                let source = Host::name_at(self.waiting[&vm] as usize);
                // No hints: failover's leader has none.
                let request = Request {
                    consumers: vec![uuid(vm)],
                    label: Some(Intent::Evacuate),
                    source_host: Some(source.clone()),
                    ignore_hosts: vec![source],
                    hints: BTreeMap::default(),
                    options: Options { max_candidates: u64::from(u32::MAX), ..Options::probe() },
                    ..self.requests[shape as usize].clone()
                };
                let said = self.core.probe(&self.engine, &request);
                let said = said.map_err(|refusal| format!("{}: {refusal}", self.policy.name))?;
                let place = |host: &str| host.rsplit('-').next().and_then(|place| place.parse::<usize>().ok());
                list.insert(said.hosts.iter().filter_map(|one| place(&one.host)).map(life).collect());
            }
        }
        // What Nova would tell: the zone that was asked for, and the flavor.
        let asks = |vm: u32| {
            let request = &self.requests[self.trace.vms[vm as usize].shape as usize];
            let with = |names: &[String], value: &'static str| {
                names.iter().map(move |name| (format!("trait:{name}"), value.to_owned())).collect::<Vec<_>>()
            };
            let mut specs = request.extra_specs.clone();
            specs.extend(with(&request.required_traits, "required"));
            specs.extend(with(&request.forbidden_traits, "forbidden"));
            Asks { zone: Some(request.zone.clone()), extra_specs: Some(specs), ..Asks::default() }
        };
        let asks: Vec<Asks> = vms.iter().map(|&vm| asks(vm)).collect();
        let items = vms.iter().zip(&asks).map(|(&vm, asks)| Placed {
            instance: uuid(vm),
            source: life(self.waiting[&vm] as usize),
            asks,
            excluded: Vec::new(),
        });
        let items: Vec<_> = items.collect();
        let found = places(self.core.state().tables(), &items, &ServerGroups::default(), &ranked);
        let place = |life: Life| life.host.0.as_u128() as u32 - 1;
        Ok(vms.into_iter().zip(found).filter_map(|(vm, found)| Some((vm, place(found.ok()?)))).collect())
    }
}

fn machine(host: usize) -> Machine {
    Machine { uuid: Some(id(host).0), serial: Some(Host::name_at(host)) }
}
