//! Plans of dead hosts: how long they take and how many instances find a place, all cases together as the coordinator
//! plans them. `live` asks the shipped pipelines; else where an instance may go is given (the emptiest hosts first), so
//! that the planner is measured alone.

#[path = "plan/live.rs"]
mod live;
#[path = "plan/small.rs"]
mod small;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use scheduler::ha::case::Cause;
use scheduler::ha::host::{Fencer, Hello, HostId, HostSpec, Machine, PlaceNames};
use scheduler::ha::order::{Actor, Change, Done, Leader, Order, PermitCause, Role, To};
use scheduler::ha::planner::groups::ServerGroups;
use scheduler::ha::planner::{self, Asked, Asks, Targets, Told};
use scheduler::ha::proof::{Evidence, Token};
use scheduler::ha::recovery::{Life, Recorded, VmState};
use scheduler::ha::{Failover, Phase};
use scheduler::{Batch, Command, Core, Domain, HostReport, InstanceReport, Inventory, Outcome, Proposer, level};
use serde_json::json;
use uuid::Uuid;

const LEADER: Leader = Leader { term: 1, node: 1 };
/// Flavors: virtual CPUs and GiB.
const FLAVORS: [(u64, u64); 4] = [(2, 8), (4, 16), (8, 32), (16, 64)];
const RUNS: Recorded = Recorded { vm: VmState::Active, running: true, task: false };
/// A host: virtual CPUs after overcommitment, and GiB.
const ROOM: (u64, u64) = (256, 1_024);

fn host(n: usize) -> HostId {
    HostId(Uuid::from_u128(0xA_0000 + n as u128))
}

fn vm(source: usize, n: usize) -> Uuid {
    Uuid::from_u128((source as u128) << 32 | 0xB000_0000 | n as u128)
}

/// Numbers from a seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

/// Hosts 0 and on are dead, each with so many instances; the others are more or less full.
struct Estate {
    core: Core,
    now: u64,
    dead: usize,
    hosts: usize,
    instances: usize,
}

/// The emptiest hosts of each shape, known before.
struct Known {
    lists: BTreeMap<u64, Vec<Life>>,
    shapes: BTreeMap<Uuid, u64>,
}

impl Targets for Known {
    fn ranked(&self, asked: &Asked<'_>) -> Vec<Life> {
        self.shapes.get(&asked.instance).and_then(|shape| self.lists.get(shape)).cloned().unwrap_or_default()
    }

    fn question(&self, instance: Uuid, _: &Asks) -> Option<u64> {
        self.shapes.get(&instance).copied()
    }
}

impl Estate {
    /// `full` per cent of the hosts that are left are in use, on average.
    fn new(dead: usize, instances: usize, hosts: usize, full: u64) -> Self {
        let mut draw = Draw(7);
        let sizes: Vec<_> = (0..instances).map(|v| FLAVORS[v % FLAVORS.len()]).collect();
        let mut estate = Self::empty(dead, instances, hosts);
        for n in 0..dead + hosts {
            let part = if n < dead { 0 } else { (full / 2 + draw.below(full)).min(100) };
            let of = |total: u64| Inventory { reserved: total * part / 100, ..Inventory::of(total) };
            estate.add(n, (of(ROOM.0 * 4), of(ROOM.1 * 4)), if n < dead { &sizes } else { &[] });
        }
        estate
    }

    /// Host 0 is dead, with instances of these sizes; the others have this room.
    fn small(sizes: &[(u64, u64)], rooms: &[(u64, u64)]) -> Self {
        let mut estate = Self::empty(1, sizes.len(), rooms.len());
        estate.add(0, (Inventory::of(1_000), Inventory::of(1_000)), sizes);
        for (n, (cpus, memory)) in (1..).zip(rooms) {
            estate.add(n, (Inventory::of(*cpus), Inventory::of(*memory)), &[]);
        }
        estate.dies(0);
        estate
    }

    fn empty(dead: usize, instances: usize, hosts: usize) -> Self {
        let mut estate = Self { core: Core::new(), now: 1_000, dead, hosts, instances };
        estate.apply(Command::Raise { level: level::FAILOVER });
        estate
    }

    /// A host with instances of these sizes.
    fn add(&mut self, n: usize, (cpus, memory): (Inventory, Inventory), sizes: &[(u64, u64)]) {
        let listed = sizes.iter().enumerate().map(|(v, (cpus, memory))| InstanceReport {
            uuid: vm(n, v),
            resources: Some([("VCPU".to_owned(), *cpus), ("MEMORY_MB".to_owned(), *memory)].into()),
            ..InstanceReport::default()
        });
        self.apply(Command::Report(Box::new(HostReport {
            name: format!("node-{n}"),
            inventories: Some([("VCPU".to_owned(), cpus), ("MEMORY_MB".to_owned(), memory)].into()),
            instances: Some(listed.collect()),
            ..HostReport::default()
        })));
        self.begins_as(n, format!("node-{n}"));
        self.permits(n, sizes.len());
    }

    fn permits(&mut self, n: usize, instances: usize) {
        for v in 0..instances {
            let to = Life { host: host(n), incarnation: 1 };
            self.must(Change::PermitMove { instance: vm(n, v), from: None, to, cause: PermitCause::Placed });
        }
    }

    /// A host is known, and says Hello.
    fn begins_as(&mut self, n: usize, name: String) {
        let machine = Machine { uuid: Some(Uuid::from_u128(n as u128 + 1)), serial: Some(format!("S{n}")) };
        let places = PlaceNames {
            az: "az".to_owned(),
            cell: "cell".to_owned(),
            cluster: "cluster".to_owned(),
            power: format!("feed-{n}"),
            chassis: format!("chassis-{n}"),
        };
        self.must(Change::HostUpsert(Box::new(HostSpec {
            id: host(n),
            nova_host: name,
            machine: machine.clone(),
            bmc: Some(format!("bmc-{n}")),
            places,
            fencers: vec![Fencer::Manual],
            enabled: true,
            permit_check: true,
            ..HostSpec::default()
        })));
        let hello = Hello { boot: Uuid::from_u128(n as u128 + 1), machine, permit_check: true, ..Hello::default() };
        self.must(Change::IncarnationOpen { host: host(n), hello: Box::new(hello) });
    }

    /// A host is proven dead, and its case is to be planned.
    fn dies(&mut self, n: usize) {
        let (host, incarnation) = (host(n), 1);
        let Done::Case(case) = self.must(Change::CaseOpen { host, incarnation, cause: Cause::Operator }) else {
            panic!("no case");
        };
        let token = Token { case, phase: Phase::Unreachable, at: self.now };
        let evidence = Evidence::Operator { token, youngest: Some(60_000) };
        self.must(Change::DeathProof { host, incarnation, evidence });
        self.must(Change::CasePhase { case, from: Phase::Fenced, to: Phase::NovaDown });
        self.must(Change::NovaMark { host, forced_down: true, disabled: false });
        self.must(Change::NovaMark { host, forced_down: true, disabled: true });
        self.must(Change::CasePhase { case, from: Phase::NovaDown, to: Phase::Planning });
    }

    fn ha(&self) -> &Failover {
        self.core.state().tables().failover()
    }

    fn apply(&mut self, command: Command) -> Outcome {
        self.now += 1;
        let batch = Batch { proposer: Proposer::default(), now: self.now, wall: self.now, commands: vec![command] };
        self.core.apply(&batch).pop().expect("one for each")
    }

    fn must(&mut self, change: Change) -> Done {
        let actor = Actor { role: Role::Operator, name: "bench".to_owned(), reason: "bench".to_owned() };
        let epoch = self.core.state().tables().counters().epoch;
        let name = change.name();
        match self.apply(Command::Failover(Box::new(Order { leader: LEADER, epoch, actor, change }))) {
            Outcome::Failover(Ok(done)) => done,
            other => panic!("{name}: {other:?}"),
        }
    }

    /// The emptiest hosts now, for each flavor those that have room.
    fn known(&self, source: usize) -> Known {
        let tables = self.core.state().tables();
        let class = |name| tables.names.get(name).expect("reported");
        let (cpus, memory) = (class("VCPU"), class("MEMORY_MB"));
        let mut free: Vec<(u64, u64, Life)> = (self.dead..self.dead + self.hosts)
            .filter_map(|n| {
                let row = tables.row_of_node(Domain::Nova, &format!("node-{n}"), None)?;
                let provider = tables.provider(row)?;
                let left = |wanted| {
                    let of = provider.inventories.iter().find(|(class, _)| *class == wanted);
                    of.map_or(0, |(_, inventory)| inventory.capacity().saturating_sub(provider.used(wanted)))
                };
                Some((left(cpus), left(memory), Life { host: host(n), incarnation: 1 }))
            })
            .collect();
        free.sort_unstable_by_key(|(cpus, memory, life)| (std::cmp::Reverse((*cpus).min(*memory / 4)), *life));
        let list = |(cpus, memory): (u64, u64)| {
            let fits = free.iter().filter(|free| free.0 >= cpus && free.1 >= memory);
            fits.map(|(_, _, life)| *life).collect()
        };
        Known {
            lists: (0..).zip(FLAVORS).map(|(shape, flavor)| (shape, list(flavor))).collect(),
            shapes: self.shapes(source).collect(),
        }
    }

    /// Plans all cases together: time in the planner, and instances that have a place.
    fn plan(&self) -> (Duration, usize) {
        let mut targets = self.known(0);
        targets.shapes = (0..self.dead).flat_map(|n| self.shapes(n)).collect();
        let servers: Vec<Vec<_>> =
            (0..self.dead).map(|n| (0..self.instances).map(|v| (vm(n, v), RUNS).into()).collect()).collect();
        let cases: Vec<_> = (0..self.dead).map(|n| self.ha().cases.get(host(n)).expect("open").clone()).collect();
        let told = cases.iter().zip(&servers).map(|(case, servers)| Told { case, servers, returns: false });
        let told: Vec<_> = told.collect();
        let began = Instant::now();
        let plans = planner::plan(self.core.state().tables(), &told, &ServerGroups::default(), &targets);
        let took = began.elapsed();
        let all = plans.iter().flat_map(|(_, plan)| plan);
        (took, all.filter(|one| matches!(one.to, To::Target(_))).count())
    }

    fn shapes(&self, source: usize) -> impl Iterator<Item = (Uuid, u64)> + use<> {
        (0..self.instances).map(move |v| (vm(source, v), (v % FLAVORS.len()) as u64))
    }
}

fn measure(dead: usize, instances: usize, hosts: usize, full: u64) {
    let mut estate = Estate::new(dead, instances, hosts, full);
    for n in 0..dead {
        estate.dies(n);
    }
    let (whole, placed) = estate.plan();
    let ms = |time: Duration| (time.as_secs_f64() * 100_000.0).round() / 100.0;
    let case = format!("{dead} × {instances}, {full} % full");
    println!(
        "BENCH {}",
        json!({
            "bench": "plan", "case": case, "hosts": hosts, "unit": "ms", "count": dead * instances, "whole": ms(whole),
            "restored": placed as f64 / (dead * instances) as f64,
        })
    );
}

fn main() {
    small::gap("equal rank", 500, 1);
    small::gap("three ranks", 500, 3);
    for pipeline in ["kvm-general-purpose-load-balancing", "nova-general", "nova-default"] {
        live::measure(pipeline, (1, 200), 10_000, 1);
        live::measure(pipeline, (1, 200), 10_000, 40);
        live::measure(pipeline, (1, 100), 1_000, 10);
        live::measure(pipeline, (20, 50), 1_000, 10);
        live::measure(pipeline, (20, 50), 1_000, 40);
    }
    live::measure("kvm-general-purpose-load-balancing", (500, 50), 5_000, 40);
    measure(1, 100, 1_000, 60);
    measure(20, 50, 1_000, 60);
    measure(20, 50, 1_000, 97);
    measure(500, 50, 5_000, 60);
}
