//! Any sequence of orders, by whomever, keeps every invariant of failover: replicas agree, a snapshot
//! restores to the same state, lives only go on, and an instance's place leaves a life only when that life
//! is proven over or both sides were alive.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;
use scheduler::ha::breaker::{Decision, ScopeName, Trips};
use scheduler::ha::case::{Act, CaseId, Cause, FenceOutcome, Phase};
use scheduler::ha::host::{Fencer, Hello, Machine, Maintenance, PlaceNames, Watchdog};
use scheduler::ha::mark::Mark;
use scheduler::ha::masakari::{self, MemberSpec, NotificationSpec, SegmentSpec};
use scheduler::ha::order::{Assignment, Clear, Ended, Groups, NovaRead, PermitCause, To, Verdict, Voter};
use scheduler::ha::planner::Rank;
use scheduler::ha::policy::{FailoverPolicy, Mode, Rules, Selector};
use scheduler::ha::proof::{Lease, LeaseMode, Power, PowerRead, Token};
use scheduler::ha::recovery::{AttemptState, Life, Recorded, Stays, VmState, Waiting};
use scheduler::ha::reentry::{ComputeRead, Seen, Step};
use scheduler::ha::trouble;
use scheduler::ha::{Actor, Change, Detection, Evidence, Failover, HostId, HostSpec, Leader, Order, Role};
use scheduler::{Batch, Command, Core, HostReport, InstanceReport, Inventory, Outcome, Proposer, level};
use uuid::Uuid;

const HOSTS: u128 = 7;
const VMS: u128 = 6;

fn host(n: u128) -> HostId {
    HostId(Uuid::from_u128(0xA000 + n % HOSTS))
}

fn vm(n: u128) -> Uuid {
    Uuid::from_u128(0xB000 + n % VMS)
}

fn id(n: u128) -> Uuid {
    Uuid::from_u128(0xC000 + n)
}

fn machine(n: u128) -> Machine {
    Machine { uuid: Some(Uuid::from_u128(0xE000 + n % HOSTS)), serial: Some(format!("{}", n % HOSTS)) }
}

fn spec(n: u128) -> HostSpec {
    let name = |what: &str, of: u128| format!("{what}-{of}");
    HostSpec {
        id: host(n),
        nova_host: name("node", n % HOSTS),
        nova_service: None,
        machine: machine(n),
        bmc: Some(name("bmc", n % HOSTS)),
        places: PlaceNames {
            az: name("az", 0),
            cell: name("cell", 0),
            cluster: name("cluster", 0),
            power: name("power", 0),
            chassis: name("chassis", n % HOSTS / 2),
        },
        fencers: vec![Fencer::Redfish, Fencer::WatchdogLease],
        enabled: true,
        permit_check: true,
        unchecked: false,
        keeps_guests: n == 3,
    }
}

/// What a step is made of: few values, so that they meet.
#[derive(Clone, Debug)]
struct Dice {
    what: u8,
    a: u128,
    b: u128,
    flag: bool,
    odd: bool,
    pass: u64,
    choice: Index,
}

fn dice() -> impl Strategy<Value = Dice> {
    let pass = prop_oneof![3 => Just(0_u64), 2 => 1_000_u64..20_000, 1 => 20_000_u64..400_000];
    (
        prop_oneof![3 => 0_u8..24, 2 => 24_u8..60],
        0_u128..12,
        0_u128..12,
        any::<bool>(),
        prop::bool::weighted(0.15),
        pass,
        any::<Index>(),
    )
        .prop_map(|(what, a, b, flag, odd, pass, choice)| Dice { what, a, b, flag, odd, pass, choice })
}

struct World {
    core: Core,
    twin: Core,
    now: u64,
    leader: Leader,
    epoch: u64,
    boots: BTreeMap<u128, u128>,
    done: BTreeMap<&'static str, u32>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            core: Core::new(),
            twin: Core::new(),
            now: 1,
            leader: Leader { term: 1, node: 1 },
            epoch: 0,
            boots: BTreeMap::new(),
            done: BTreeMap::new(),
        };
        world.apply(Command::Raise { level: level::FAILOVER });
        world.order(Role::Coordinator, Change::Mark(Mark::Ours));
        for n in 0..HOSTS {
            let instances = (0..VMS).filter(|v| v % 2 == n).map(|v| InstanceReport {
                uuid: vm(v),
                resources: Some(BTreeMap::from([("VCPU".to_owned(), 1)])),
                ..InstanceReport::default()
            });
            world.apply(Command::Report(Box::new(HostReport {
                name: format!("node-{n}"),
                inventories: Some(BTreeMap::from([("VCPU".to_owned(), Inventory::of(4))])),
                instances: Some(instances.collect()),
                ..HostReport::default()
            })));
            world.order(Role::Coordinator, Change::HostUpsert(Box::new(spec(n))));
            let change = world.hello(n, false);
            world.order(Role::Coordinator, change);
        }
        for v in 0..VMS {
            let to = Life { host: host(v % 2), incarnation: 1 };
            let cause = PermitCause::Placed;
            world.order(Role::Coordinator, Change::PermitMove { instance: vm(v), from: None, to, cause });
        }
        world
    }

    fn apply(&mut self, command: Command) -> Outcome {
        let batch = Batch { proposer: Proposer::default(), now: self.now, wall: self.now, commands: vec![command] };
        let decoded = Batch::decode(&batch.encode(level::NEWEST), scheduler::Levels::PROGRAM).expect("it decodes");
        assert_eq!(batch, decoded);
        let outcome = self.core.apply(&batch);
        assert_eq!(outcome, self.twin.apply(&decoded), "one log, one result");
        assert_eq!(self.core.check(), Vec::<String>::new(), "after {batch:?}: {outcome:?}");
        outcome.into_iter().next().expect("one for each command")
    }

    fn order(&mut self, role: Role, change: Change) {
        let before = self.ha().clone();
        let name = change.name();
        let migrated = matches!(change, Change::PermitMove { cause: PermitCause::Migrated(_), .. });
        let vanished = matches!(change, Change::AttemptEnd { ended: Ended::Vanished { .. }, .. });
        let back = matches!(
            change,
            Change::PermitMove { cause: PermitCause::AttemptFailed(_), .. } | Change::AttemptEnd { .. }
        );
        let actor = Actor { role, name: "someone".to_owned(), reason: "a reason".to_owned() };
        let order = Order { leader: self.leader, epoch: self.epoch, actor, change };
        let outcome = self.apply(Command::Failover(Box::new(order.clone())));
        let Outcome::Failover(result) = outcome else { panic!("{outcome:?}") };
        if result.is_ok() {
            *self.done.entry(name).or_default() += 1;
        }
        let after = self.ha();
        for old in before.hosts.iter() {
            let Some(new) = after.hosts.get(old.id) else { continue };
            assert!(new.incarnation >= old.incarnation && new.case_seq >= old.case_seq, "INV-13 {order:?}");
            let reborn = new.boot.filter(|boot| old.boots.contains(boot));
            assert_eq!(reborn, None, "INV-13 a life that is over begins anew: {order:?}");
        }
        for old in before.permits.iter() {
            let new = after.permits.get(old.instance).map(|permit| permit.life);
            if new == Some(old.life) || (new.is_none() && vanished) {
                continue;
            }
            let proven = after.proven(old.life, self.epoch).is_some();
            // From a target back to the source, or on to where Nova says it came up: no one ran it.
            let moved = migrated || back && before.recoveries.get(old.instance).is_some();
            assert!(proven || moved, "a permit left a life that is not proven over: {order:?}");
            if !back && !migrated {
                let open = new.is_some_and(|life| after.hosts.get(life.host).is_some_and(|h| h.is_open()));
                // What older lives of a host left is gathered in the life that is proven over now.
                let gathered = new.is_some_and(|life| {
                    life.host == old.life.host && proven && after.proven(life, self.epoch).is_some()
                });
                assert!(open || gathered, "a permit went to a dead host: {order:?}");
            }
        }
    }

    fn ha(&self) -> &Failover {
        self.core.state().tables().failover()
    }

    fn hello(&mut self, n: u128, odd: bool) -> Change {
        let nth = *self.boots.entry(n % HOSTS).and_modify(|nth| *nth += 1).or_insert(0);
        let boot = |nth: u128| Uuid::from_u128(0xF000 + (n % HOSTS) * 1_000 + nth);
        Change::IncarnationOpen {
            host: host(n),
            hello: Box::new(Hello {
                boot: if odd { boot(nth / 2) } else { boot(nth) },
                previous: self.ha().hosts.get(host(n)).and_then(|host| host.boot.or(host.boots.first().copied())),
                machine: machine(n),
                permit_check: true,
                resumes_guests: false,
                watchdog: Watchdog {
                    armed: true,
                    hardware: true,
                    nowayout: true,
                    timeout: 5_000,
                    ..Watchdog::default()
                },
            }),
        }
    }

    /// What a case most likely needs next.
    fn next(&self, case: CaseId, phase: Phase, dice: &Dice) -> Change {
        let go = |to| Change::CasePhase { case, from: phase, to };
        let Some(known) = self.ha().cases.get(case.host) else { return go(Phase::Closed) };
        let n = case.host.0.as_u128() - 0xA000;
        let source = Life { host: case.host, incarnation: case.incarnation };
        let of_case: Vec<_> = self.ha().recoveries.iter().filter(|recovery| recovery.case == case).collect();
        match phase {
            Phase::Unreachable => go(if dice.odd { Phase::Cleared } else { Phase::FencePending }),
            Phase::FencePending | Phase::FenceFailed => Change::FenceIntent {
                case,
                level: u8::from(dice.odd),
                fencer: if dice.odd { Fencer::WatchdogLease } else { Fencer::Redfish },
                op: id(dice.b),
                machine: machine(n),
                voters: vec![1, 2, 3],
            },
            Phase::Fencing => match known.ops.last() {
                Some(op) if op.outcome.is_none() && dice.flag => Change::FenceOutcome {
                    case,
                    op: op.id,
                    outcome: Box::new(FenceOutcome {
                        power: Power::Off,
                        raw: "Off".to_owned(),
                        machine: machine(n),
                        at: 0,
                    }),
                },
                Some(op) if !dice.odd => self.proof(n, Some(op.id), dice),
                _ => go(Phase::FenceFailed),
            },
            Phase::Fenced => go(Phase::NovaDown),
            Phase::NovaDown => {
                let down = self.ha().hosts.get(case.host).is_some_and(|host| host.forced_down);
                let disabled = self.ha().hosts.get(case.host).is_some_and(|host| host.disabled);
                if disabled {
                    go(Phase::Planning)
                } else {
                    Change::NovaMark { host: case.host, forced_down: true, disabled: down }
                }
            }
            Phase::Planning if dice.flag && !of_case.is_empty() => go(Phase::Evacuating),
            Phase::Planning => {
                let assign = |v: u128| {
                    let target = host(dice.b + v);
                    let incarnation = self.ha().hosts.get(target).map_or(0, |host| host.incarnation);
                    Assignment {
                        instance: vm(v),
                        recorded: Recorded { vm: VmState::Active, running: true, task: false },
                        rank: Rank::default(),
                        to: match dice.choice.index(8) {
                            0 => To::Stays(Stays::LocalDisk),
                            1 => To::Waiting(Waiting::Capacity),
                            _ => To::Target(Life { host: target, incarnation }),
                        },
                    }
                };
                let wanted = self.ha().permits.iter().filter(|permit| permit.life == source || dice.odd);
                let wanted = wanted.map(|permit| assign(permit.instance.as_u128() - 0xB000));
                Change::CommitPlan { case, assignments: wanted.collect() }
            }
            Phase::Evacuating => {
                let Some(recovery) = of_case.get(dice.a as usize % of_case.len().max(1)) else {
                    return go(Phase::Planning);
                };
                let Some(attempt) = &recovery.attempt else {
                    return go(if dice.flag { Phase::Planning } else { Phase::Recovered });
                };
                let key = (recovery.instance, attempt.number);
                let migration = id(1_000 + dice.b);
                match attempt.state {
                    AttemptState::Claimed | AttemptState::Ambiguous if !dice.odd => Change::AttemptIntent {
                        case,
                        instance: recovery.instance,
                        number: attempt.number,
                        target: attempt.target,
                        op: id(2_000 + dice.b),
                        nova: Box::new(NovaRead {
                            host: case.host,
                            now: recovery.recorded,
                            sentinel: true,
                            migrations: vec![id(1_000 + dice.a)],
                            moving: false,
                            destination: None,
                            on_crash: None,
                        }),
                    },
                    AttemptState::Ended => match attempt.failed {
                        Some(_) if dice.flag => Change::PermitMove {
                            instance: recovery.instance,
                            from: Some(attempt.target),
                            to: source,
                            cause: PermitCause::AttemptFailed(Clear::Absent { at: self.now }),
                        },
                        _ => go([Phase::Planning, Phase::Recovered, Phase::PartiallyRecovered][dice.choice.index(3)]),
                    },
                    _ if dice.flag => Change::AttemptObserved {
                        instance: key.0,
                        number: key.1,
                        state: [AttemptState::Called, AttemptState::Ambiguous, AttemptState::Accepted(migration)]
                            [dice.choice.index(3)],
                    },
                    _ => Change::AttemptEnd {
                        instance: key.0,
                        number: key.1,
                        ended: Self::ended(attempt.target, migration, dice),
                    },
                }
            }
            Phase::Recovered | Phase::PartiallyRecovered => go(Phase::AwaitReturn),
            Phase::AwaitReturn => go(Phase::Returning),
            Phase::Returning if dice.choice.index(3) > 0 => {
                let step = [Step::StartNova, Step::Unforce, Step::Enable, Step::Admit][dice.b as usize % 4];
                let stray = if dice.odd { vec![vm(dice.a)] } else { Vec::new() };
                let open = stray.clone();
                let compute = ComputeRead { fresh: true, open, done: Vec::new(), sentinel: true };
                let seen = Seen { compute: Some(compute), domains: Some((stray, self.now)) };
                Change::Reenter { case, step, op: id(3_000 + dice.b), seen: Box::new(seen) }
            }
            Phase::Returning if dice.flag => Change::NovaMark { host: case.host, forced_down: false, disabled: false },
            Phase::Returning | Phase::Closed | Phase::Cleared => go(Phase::Closed),
        }
    }

    fn ended(target: Life, migration: Uuid, dice: &Dice) -> Ended {
        match dice.choice.index(6) {
            0 => Ended::Failed { migration },
            1 => Ended::Refused { forever: dice.odd },
            2 => Ended::Vanished { sentinel: !dice.odd },
            3 => Ended::Succeeded { at: host(dice.a), migration },
            _ => Ended::Succeeded { at: target.host, migration },
        }
    }

    fn proof(&self, n: u128, op: Option<Uuid>, dice: &Dice) -> Change {
        let incarnation = self.ha().hosts.get(host(n)).map_or(0, |host| host.incarnation);
        let read = |at| PowerRead {
            power: if dice.odd { Power::PoweringOff } else { Power::Off },
            raw: String::new(),
            machine: machine(n),
            at,
        };
        let reads = Box::new([read(0), read(2_000)]);
        let case = self.ha().cases.get(host(n));
        let token = Token {
            case: case.map(|case| case.id).unwrap_or_default(),
            phase: case.map_or(Phase::Unreachable, |case| case.phase),
            at: self.now,
        };
        let evidence = match (op, dice.choice.index(6)) {
            (Some(op), 0..3) => Evidence::FencedOff { op, reads },
            (_, 3) => Evidence::Lease { granted: Some(dice.pass), leader: 60_000 },
            (_, 4) => Evidence::Operator { token, youngest: None },
            _ => Evidence::PowerOff(reads),
        };
        Change::DeathProof { host: host(n), incarnation: incarnation + u64::from(dice.odd), evidence }
    }

    /// Policies come and go.
    fn policy(&self, n: u128, dice: &Dice) -> Change {
        let name = format!("policy-{}", dice.b % 3);
        let one = Selector { hosts: vec![format!("node-{}", n % HOSTS)], ..Selector::default() };
        let all = Selector { domain: Some(ScopeName::Region), ..Selector::default() };
        let modes = [Mode::Enforce, Mode::DryRun, Mode::Off];
        match dice.choice.index(4) {
            0 if dice.odd => Change::PolicyRemove(name),
            1 => match self.ha().cases.iter().next() {
                Some(case) => Change::WouldDo { case: case.id, what: dice.flag.then(|| "be fenced".to_owned()) },
                None => Change::PolicyRemove(name),
            },
            at => {
                let mode = modes[if dice.odd { at % 3 } else { 0 }];
                let rules = Rules { mode: Some(mode), power_on: Some(dice.flag), ..Rules::default() };
                let selector = if dice.flag { one } else { all };
                Change::PolicyPut(Box::new(FailoverPolicy { name, selector, rules }))
            }
        }
    }

    /// Segments come and go, and monitors say things.
    fn masakari(&self, n: u128, dice: &Dice) -> masakari::Change {
        let name = Some(format!("node-{}", n % HOSTS));
        let (segment, uuid) = (id(u128::from(dice.odd)), id(10 + n));
        match dice.choice.index(5) {
            0 => masakari::Change::Segment(Box::new(SegmentSpec {
                uuid: segment,
                create: dice.flag,
                name: Some(format!("segment-{}", dice.odd)),
                ..SegmentSpec::default()
            })),
            1 if dice.flag => masakari::Change::SegmentRemove(segment),
            1 => masakari::Change::MemberRemove { segment, uuid },
            2 => {
                let maintenance = dice.flag.then_some(dice.odd);
                let spec = MemberSpec { uuid, create: !dice.flag, segment, name, maintenance, ..MemberSpec::default() };
                masakari::Change::Member(Box::new(spec))
            }
            _ => masakari::Change::Notify(Box::new(NotificationSpec {
                uuid: id(self.now.into()),
                kind: masakari::Kind::ComputeHost,
                host: format!("node-{}", n % HOSTS),
                generated: self.now as i64 * 1_000,
                payload: Vec::new(),
                report: if dice.flag { masakari::Report::Silent } else { masakari::Report::Runs },
            })),
        }
    }

    fn step(&mut self, dice: &Dice) {
        self.now += dice.pass;
        // The hosts with instances are the interesting ones.
        let n = if dice.odd { dice.a } else { dice.a % 2 };
        let known = self.ha().hosts.get(host(n)).map(|host| (host.incarnation, host.belief.detection));
        let (incarnation, from) = known.unwrap_or_default();
        let until = self.now + 60_000;
        let scope = [ScopeName::Region, ScopeName::Cluster("cluster-0".to_owned()), ScopeName::Az("az-0".to_owned())]
            [dice.choice.index(3)]
        .clone();
        let mut role = if dice.flag { Role::Operator } else { Role::Coordinator };
        let change = match dice.what {
            0..24 => {
                let cases: Vec<_> = self.ha().cases.iter().map(|case| (case.id, case.phase)).collect();
                let Some((case, phase)) = cases.get(dice.a as usize % cases.len().max(1)).copied() else { return };
                if dice.odd && dice.flag {
                    role = Role::Operator;
                    Change::CaseAbort { token: Token { case, phase, at: self.now }, heard: Some(1_000) }
                } else if dice.odd
                    && dice.choice.index(2) == 0
                    && let Some(recovery) = self.ha().recoveries.iter().find(|known| known.case == case)
                {
                    role = Role::Operator;
                    let verdict =
                        [Verdict::Retry, Verdict::Skip, Verdict::Retarget(host(dice.b))][dice.b as usize / 2 % 3];
                    Change::Verdict { case, instance: recovery.instance, verdict }
                } else {
                    self.next(case, phase, dice)
                }
            }
            24..36 => {
                use Detection::{Alive, Isolated, Suspect, Unreachable};
                let to = match from {
                    Alive => Suspect,
                    Suspect if !dice.odd => Unreachable,
                    _ => [Alive, Alive, Isolated, Unreachable][dice.choice.index(4)],
                };
                self.now += 15_000;
                let groups = if dice.odd { Groups::MANAGEMENT } else { Groups::MANAGEMENT.and(Groups::DATA) };
                Change::DetectionSet { host: host(n), incarnation, from, to, groups, age: 20_000 }
            }
            36..42 => {
                let cause = [Cause::Unreachable, Cause::PowerOff, Cause::Operator][dice.choice.index(3)];
                Change::CaseOpen { host: host(n), incarnation, cause }
            }
            42 => self.hello(n, dice.odd),
            43 | 44 if dice.odd => self.hello(n, false),
            45 if dice.odd => self.proof(n, None, dice),
            43..46 => Change::BreakerSet { scope, seen: if dice.odd { Trips::CONTROL } else { Trips::default() } },
            47 => Change::BreakerAck { scope, decision: Decision::Proceed(vec![host(n)]), until },
            48 if dice.choice.index(3) == 0 => Change::Pause {
                act: if dice.flag { Act::Kill } else { Act::Recover },
                until: u64::from(dice.odd) * until,
            },
            48 => Change::Masakari(Box::new(self.masakari(n, dice))),
            49 if dice.choice.index(3) == 0 => self.policy(n, dice),
            49 => Change::Exempt { host: host(n), until: u64::from(dice.odd) * until },
            50 => {
                let mode = if dice.odd { Maintenance::Manual } else { Maintenance::None };
                Change::Maintenance { host: host(n), mode }
            }
            51 => {
                let voter = |node| Voter {
                    node,
                    host: dice.odd.then(|| host(n)),
                    chassis: "control".to_owned(),
                    power: "control".to_owned(),
                };
                Change::Voters((1..=3).map(voter).collect())
            }
            52 => Change::LeaseEpoch(Lease { mode: LeaseMode::Strict, ..Lease::default() }),
            53 if dice.odd => {
                let life = Life { host: host(n), incarnation };
                Change::GuestTrouble { instance: vm(dice.b), life, kind: trouble::Kind::ALL[dice.choice.index(3)] }
            }
            53 => Change::HostUpsert(Box::new(spec(n))),
            54 if dice.odd => Change::HostRemove(host(n)),
            54 if dice.choice.index(2) == 0 => Change::GuestQuarantineEnd(vm(dice.b)),
            54 => Change::QuarantineEnd(host(n)),
            55 => {
                self.leader = Leader { term: self.leader.term + u64::from(dice.flag), node: 1 + dice.b as u64 % 3 };
                if dice.a > 1 {
                    self.order(Role::Coordinator, Change::Mark(Mark::Ours));
                }
                return;
            }
            56 if dice.odd && dice.flag => {
                let frozen = self.core.freeze().in_new_epoch();
                self.core = Core::of(frozen.clone());
                self.twin = Core::of(frozen);
                self.epoch += 1;
                return;
            }
            56 if self.ha().small.epoch == self.epoch => return,
            56 => {
                self.order(Role::Coordinator, Change::Mark(Mark::Ours));
                Change::Release
            }
            57 => {
                let bytes = self.core.freeze().encode();
                let restored = Core::restore(&bytes).expect("a snapshot restores");
                assert_eq!(restored.freeze().encode(), bytes, "a restored state gives the same bytes");
                self.core = restored;
                return;
            }
            46 => self.proof(n, None, dice),
            58 if dice.flag => {
                let life = Life { host: host(n), incarnation };
                let now = Recorded { vm: VmState::Active, running: true, task: false };
                let (host, sentinel) = (life.host, !dice.odd);
                let (migrations, destination, on_crash) = (vec![], None, None);
                let nova = NovaRead { host, now, sentinel, migrations, moving: false, destination, on_crash };
                Change::RestartIntent {
                    instance: vm(dice.b),
                    life,
                    op: id(4_000 + dice.a),
                    to: None,
                    nova: Box::new(nova),
                }
            }
            59 if dice.odd => {
                Change::CaseOpen { host: host(n), incarnation: incarnation.saturating_sub(2), cause: Cause::Rebooted }
            }
            _ => {
                let from = self.ha().permits.get(vm(dice.b)).map(|permit| permit.life);
                let to = Life { host: host(n), incarnation };
                let clear = Clear::Absent { at: self.now };
                let cause = [
                    PermitCause::Migrated(id(3)),
                    PermitCause::SameHostNewBoot,
                    PermitCause::Adopted { at: self.now },
                    PermitCause::AttemptFailed(clear),
                ][dice.choice.index(4)];
                Change::PermitMove { instance: vm(dice.b), from, to, cause }
            }
        };
        if matches!(change, Change::BreakerAck { .. } | Change::Release | Change::LeaseEpoch(_) | Change::PolicyPut(_))
        {
            role = Role::Operator;
        }
        self.order(role, change);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_orders_keeps_every_invariant(steps in prop::collection::vec(dice(), 1..150)) {
        let mut world = World::new();
        for dice in &steps {
            world.step(dice);
        }
        prop_assert_eq!(world.core.state().checksum(), world.twin.state().checksum());
    }
}

/// The property is worth something only when it gets far.
#[test]
fn the_sequences_get_as_far_as_evacuations() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut done: BTreeMap<&'static str, u32> = BTreeMap::new();
    for _ in 0..30 {
        let mut world = World::new();
        for _ in 0..120 {
            let dice = dice().new_tree(&mut runner).expect("values").current();
            world.step(&dice);
        }
        for (name, count) in world.done {
            *done.entry(name).or_default() += count;
        }
    }
    for name in ["FenceIntent", "DeathProof", "CommitPlan", "AttemptIntent", "AttemptEnd", "PermitMove", "Release"] {
        assert!(done.get(name).is_some_and(|count| *count > 0), "{name} is never done: {done:?}");
    }
}
