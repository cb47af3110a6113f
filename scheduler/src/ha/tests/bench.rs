//! A small estate, and the way of a host from its first silence to its recovery, one order at a time.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::ha::case::{CaseId, Cause, FenceOutcome, Phase};
use crate::ha::coordinator::Lead;
use crate::ha::host::{Detection, Fencer, Hello, HostId, HostSpec, Machine, PlaceNames, Watchdog};
use crate::ha::mark::Mark;
use crate::ha::order::{Actor, Assignment, Change, Done, Groups, Leader, NovaRead, Order, PermitCause, Role, To};
use crate::ha::planner::{Asked, Rank, Targets};
use crate::ha::policy::Mode;
use crate::ha::proof::{Evidence, Power, PowerRead};
use crate::ha::recovery::{Life, Recorded, Stays, VmState};
use crate::ha::reentry::{ComputeRead, Seen, Step};
use crate::ha::{Case, Failover, Host, Recovery, Refusal};
use crate::level;
use crate::snapshot::Frozen;
use crate::{Batch, Command, Core, HostReport, InstanceReport, Inventory, Outcome, Proposer};

pub const HOSTS: u128 = 12;
pub const BOTH: Groups = Groups(1 | 4);
pub const RUNS: Recorded = Recorded { vm: VmState::Active, running: true, task: false };

pub fn host(n: u128) -> HostId {
    HostId(Uuid::from_u128(0xA000 + n))
}

pub fn vm(n: u128) -> Uuid {
    Uuid::from_u128(0xB000 + n)
}

pub fn boot(n: u128, nth: u128) -> Uuid {
    Uuid::from_u128(0xC000 + n * 16 + nth)
}

pub fn op(n: u128) -> Uuid {
    Uuid::from_u128(0xD000 + n)
}

pub fn machine(n: u128) -> Machine {
    Machine { uuid: Some(Uuid::from_u128(0xE000 + n)), serial: Some(format!("serial-{n}")) }
}

pub fn life(n: u128) -> Life {
    Life { host: host(n), incarnation: 1 }
}

pub fn spec(n: u128) -> HostSpec {
    HostSpec {
        id: host(n),
        nova_host: format!("node-{n}"),
        nova_service: None,
        machine: machine(n),
        bmc: Some(format!("bmc-{n}")),
        places: PlaceNames {
            az: "a".to_owned(),
            cell: "cell".to_owned(),
            cluster: "block".to_owned(),
            power: "feed".to_owned(),
            // The last two share one.
            chassis: format!("chassis-{}", n.min(HOSTS - 1)),
        },
        fencers: vec![Fencer::Redfish, Fencer::WatchdogLease, Fencer::Manual],
        enabled: true,
        permit_check: true,
        unchecked: false,
        keeps_guests: false,
    }
}

pub fn hello(n: u128, nth: u128) -> Hello {
    Hello {
        boot: boot(n, nth),
        previous: nth.checked_sub(1).map(|before| boot(n, before)),
        machine: machine(n),
        permit_check: true,
        resumes_guests: false,
        watchdog: Watchdog { armed: true, hardware: true, nowayout: true, timeout: 10_000, ..Watchdog::default() },
    }
}

pub fn off(n: u128, at: u64) -> PowerRead {
    PowerRead { power: Power::Off, raw: "Off".to_owned(), machine: machine(n), at }
}

pub fn twice(n: u128) -> Evidence {
    Evidence::PowerOff(Box::new([off(n, 0), off(n, 2_500)]))
}

pub fn nova(n: u128) -> NovaRead {
    let migrations = vec![op(900)];
    NovaRead { host: host(n), now: RUNS, sentinel: true, migrations, moving: false, destination: None, on_crash: None }
}

pub struct Bench {
    pub core: Core,
    pub now: u64,
    pub leader: Leader,
    pub epoch: u64,
    pub role: Role,
    /// Off when a test has tampered with the state.
    pub checked: bool,
}

struct Nowhere;

impl Targets for Nowhere {
    fn ranked(&self, _: &Asked<'_>) -> Vec<Life> {
        Vec::new()
    }
}

impl Bench {
    /// What a step of a coordinator is made with, at that time of its own clock.
    pub fn lead(&self, ceiling: Mode, now: u64) -> Lead<'_> {
        let (tables, cluster) = (self.core.state().tables(), Uuid::nil());
        Lead { tables, voters: &[], cluster, targets: &Nowhere, ceiling, clock: self.now, now }
    }
}

impl Bench {
    /// Hosts that said Hello; four instances of 2 CPUs on host 1, one on host 2.
    pub fn new() -> Self {
        let leader = Leader { term: 2, node: 2 };
        let core = Core::new();
        let mut bench = Self { core, now: 1_000, leader, epoch: 0, role: Role::Coordinator, checked: true };
        bench.apply(Command::Raise { level: level::FAILOVER });
        bench.must(Change::Mark(Mark::Ours));
        for n in 1..=HOSTS {
            let on: &[u128] = match n {
                1 => &[1, 2, 3, 4],
                2 => &[5],
                _ => &[],
            };
            let instances = on.iter().map(|v| InstanceReport {
                uuid: vm(*v),
                resources: Some(BTreeMap::from([("VCPU".to_owned(), 2)])),
                ..InstanceReport::default()
            });
            bench.apply(Command::Report(Box::new(HostReport {
                name: format!("node-{n}"),
                inventories: Some(BTreeMap::from([("VCPU".to_owned(), Inventory::of(4))])),
                instances: Some(instances.collect()),
                ..HostReport::default()
            })));
            bench.must(Change::HostUpsert(Box::new(spec(n))));
            bench.must(Change::IncarnationOpen { host: host(n), hello: Box::new(hello(n, 0)) });
            for v in on.iter().copied() {
                let cause = PermitCause::Placed;
                bench.must(Change::PermitMove { instance: vm(v), from: None, to: life(n), cause });
            }
        }
        bench
    }

    pub fn apply(&mut self, command: Command) -> Outcome {
        let batch = Batch { proposer: Proposer::default(), now: self.now, wall: self.now, commands: vec![command] };
        let outcome = self.core.apply(&batch).pop().expect("one for each command");
        if self.checked {
            assert_eq!(self.core.check(), Vec::<String>::new());
        }
        outcome
    }

    pub fn order(&mut self, change: Change) -> Result<Done, Refusal> {
        let actor = Actor { role: self.role, name: "test".to_owned(), reason: "because".to_owned() };
        let order = Order { leader: self.leader, epoch: self.epoch, actor, change };
        match self.apply(Command::Failover(Box::new(order))) {
            Outcome::Failover(result) => result,
            other => panic!("{other:?}"),
        }
    }

    pub fn must(&mut self, change: Change) -> Done {
        let name = change.name();
        self.order(change).unwrap_or_else(|why| panic!("{name}: {why}"))
    }

    pub fn as_operator(&mut self, change: Change) -> Done {
        self.role = Role::Operator;
        let done = self.must(change);
        self.role = Role::Coordinator;
        done
    }

    pub fn ha(&self) -> &Failover {
        self.core.state().tables().failover()
    }

    pub fn host(&self, n: u128) -> &Host {
        self.ha().hosts.get(host(n)).expect("known")
    }

    pub fn case(&self, n: u128) -> &Case {
        self.ha().cases.get(host(n)).expect("open")
    }

    pub fn id(&self, n: u128) -> CaseId {
        self.case(n).id
    }

    pub fn recovery(&self, v: u128) -> &Recovery {
        self.ha().recoveries.get(vm(v)).expect("planned")
    }

    /// Changes the state as no order can.
    pub fn tamper(&mut self, change: impl FnOnce(&mut Failover)) {
        let mut frozen: Frozen = self.core.freeze();
        change(&mut frozen.0.failover);
        self.core = Core::of(frozen);
        self.checked = false;
    }

    /// The cluster is made anew from a backup.
    pub fn restore(&mut self) {
        self.core = Core::of(self.core.freeze().in_new_epoch());
        self.epoch += 1;
    }

    pub fn detect(&mut self, n: u128, from: Detection, to: Detection) -> Done {
        let incarnation = self.host(n).incarnation;
        self.must(Change::DetectionSet { host: host(n), incarnation, from, to, groups: BOTH, age: 20_000 })
    }

    pub fn suspect(&mut self, n: u128) {
        self.detect(n, Detection::Alive, Detection::Suspect);
    }

    /// Unreachable, with a case in `FencePending`.
    pub fn pending(&mut self, n: u128) -> CaseId {
        self.suspect(n);
        self.now += 15_000;
        self.detect(n, Detection::Suspect, Detection::Unreachable);
        self.must(Change::CaseOpen { host: host(n), incarnation: 1, cause: Cause::Unreachable });
        let id = self.id(n);
        self.phase(n, Phase::FencePending);
        id
    }

    pub fn phase(&mut self, n: u128, to: Phase) -> Done {
        let case = self.id(n);
        let from = self.case(n).phase;
        self.must(Change::CasePhase { case, from, to })
    }

    pub fn intent(&self, n: u128, at: u128) -> Change {
        Change::FenceIntent {
            case: self.id(n),
            level: 0,
            fencer: Fencer::Redfish,
            op: op(at),
            machine: machine(n),
            voters: vec![1, 2, 3],
        }
    }

    /// Fenced by us, and proven so.
    pub fn fenced(&mut self, n: u128) -> CaseId {
        let case = self.pending(n);
        self.must(self.intent(n, n));
        let outcome = FenceOutcome { power: Power::Off, raw: "Off".to_owned(), machine: machine(n), at: 0 };
        self.must(Change::FenceOutcome { case, op: op(n), outcome: Box::new(outcome) });
        let evidence = Evidence::FencedOff { op: op(n), reads: Box::new([off(n, 0), off(n, 2_000)]) };
        self.must(Change::DeathProof { host: host(n), incarnation: 1, evidence });
        case
    }

    pub fn planning(&mut self, n: u128) -> CaseId {
        let case = self.fenced(n);
        self.phase(n, Phase::NovaDown);
        self.must(Change::NovaMark { host: host(n), forced_down: true, disabled: false });
        self.must(Change::NovaMark { host: host(n), forced_down: true, disabled: true });
        self.phase(n, Phase::Planning);
        case
    }

    pub fn assignment(v: u128, to: To) -> Assignment {
        Assignment { instance: vm(v), recorded: RUNS, rank: Rank::default(), to }
    }

    /// Host 1 is evacuating, with instance 1 planned for host 3 and 2 for host 4.
    pub fn evacuating(&mut self) -> CaseId {
        let case = self.planning(1);
        let assignments = vec![Self::assignment(1, To::Target(life(3))), Self::assignment(2, To::Target(life(4)))];
        let done = self.must(Change::CommitPlan { case, assignments });
        assert_eq!(done, Done::Planned { planned: 2, waiting: 0, stays: 0 });
        self.phase(1, Phase::Evacuating);
        case
    }

    /// Host 1 is dead, nothing of it moves, and it is back in a new boot.
    pub fn returning(&mut self) -> CaseId {
        let case = self.planning(1);
        let stays = (1..=4).map(|v| Self::assignment(v, To::Stays(Stays::LocalDisk))).collect();
        self.must(Change::CommitPlan { case, assignments: stays });
        self.phase(1, Phase::PartiallyRecovered);
        self.phase(1, Phase::AwaitReturn);
        self.must(Change::IncarnationOpen { host: host(1), hello: Box::new(hello(1, 1)) });
        self.phase(1, Phase::Returning);
        self.now += 1_000;
        case
    }

    /// A step of the return of host 1, with all that it needs.
    pub fn reenter(&self, step: Step) -> Change {
        let compute = ComputeRead { fresh: true, sentinel: true, ..ComputeRead::default() };
        let seen = Box::new(Seen { compute: Some(compute), domains: Some((Vec::new(), self.now)) });
        Change::Reenter { case: self.id(1), step, op: op(70 + step as u128), seen }
    }

    pub fn attempt(&self, v: u128, target: u128, at: u128) -> Change {
        let recovery = self.recovery(v);
        Change::AttemptIntent {
            case: recovery.case,
            instance: vm(v),
            number: recovery.tried + 1,
            target: life(target),
            op: op(at),
            nova: Box::new(nova(1)),
        }
    }
}
