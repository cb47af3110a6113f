//! Scenarios of the fault catalogue, by their ids. Each begins with an estate whose rhythm is known, does its
//! harm, and says what came of it; an invariant that breaks on the way fails it whatever it says.

use scheduler::ha::Phase;
use scheduler::ha::breaker::{Decision, ScopeName};
use scheduler::ha::coordinator::{Barrier, Call};
use scheduler::ha::host::{Detection, Maintenance};
use scheduler::ha::order::{Change, Leader, Role, Voter};
use scheduler::ha::proof::{Evidence, Kind, Token};
use scheduler::ha::recovery::VmState;
use uuid::Uuid;

use super::nova::Trouble;
use super::truth::{Bmc, host, vm};
use super::world::{Flaw, World};

/// One of them.
pub struct Scenario {
    /// Its id in the catalogue.
    pub id: &'static str,
    /// What happens.
    pub what: &'static str,
    /// Does it: what came of it, or what should have.
    pub run: fn(&mut World) -> Result<String, String>,
}

const VMS: u128 = 4;

impl Scenario {
    /// Runs it.
    pub fn play(&self) -> (World, Result<String, String>) {
        self.play_with(None)
    }

    /// Runs it with a fault built in on purpose.
    pub fn play_with(&self, flaw: Option<Flaw>) -> (World, Result<String, String>) {
        let mut world = World::new(12, VMS, 8);
        world.flaw = flaw;
        let said = (self.run)(&mut world);
        let result = match world.broken.first() {
            Some(broken) => Err(broken.clone()),
            None => said,
        };
        (world, result)
    }
}

fn want(holds: bool, said: &str, expected: &str) -> Result<String, String> {
    if holds { Ok(said.to_owned()) } else { Err(format!("expected: {expected}")) }
}

/// Everything of host 1 runs elsewhere, once, and Nova was called once for each.
fn recovered(world: &mut World, within: u64) -> Result<String, String> {
    let began = world.now;
    let moved = world.until(within, |world| world.all_moved(VMS) && world.phase(1) == Some(Phase::AwaitReturn));
    if !moved {
        return Err(format!("expected: all instances elsewhere; the case is in {:?}", world.phase(1)));
    }
    let once = world.taken.values().all(|count| *count == 1);
    let kind = world.ha().hosts.get(host(1)).and_then(|host| host.proofs.first()).map(|proof| proof.evidence.kind());
    let seconds = (world.now - began) / 1_000;
    want(once, &format!("recovered in {seconds} s by {}", kind.map_or("nothing", name)), "one evacuation for each")
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::P1 => "P1",
        Kind::P2 => "P2",
        Kind::P3 => "P3",
        Kind::P4 => "P4",
        Kind::P7 => "P7",
    }
}

/// Nobody is fenced, nothing moves.
fn untouched(world: &mut World, within: u64) -> Result<String, String> {
    world.run(within);
    want(world.fences() == 0 && world.taken.is_empty(), "nothing fenced, nothing moved", "no fence, no evacuation")
}

fn detection(world: &World, n: u128) -> Option<Detection> {
    world.ha().hosts.get(host(n)).map(|host| host.belief.detection)
}

fn hang(world: &mut World, n: u128) {
    world.host_mut(n).hung = true;
}

/// The first attempts are called for, or none is.
fn called(world: &World) -> bool {
    world.taken.len() == VMS as usize
}

/// The cluster is made anew from `backup`.
fn restore(world: &mut World, backup: scheduler::Frozen) {
    world.core = scheduler::Core::of(backup.in_new_epoch());
    world.kill_leader();
}

/// All that there is so far.
pub const ALL: &[Scenario] = &[
    Scenario {
        id: "DET-01",
        what: "power loss, BMC alive",
        run: |world| {
            world.host_mut(1).cut();
            let proven = world.until(16_000, |world| world.phase(1).is_some_and(Phase::is_proven));
            want(proven, "", "proven within 16 s")?;
            recovered(world, 120_000)
        },
    },
    Scenario {
        id: "DET-02",
        what: "kernel hang, BMC on",
        run: |world| {
            hang(world, 1);
            let seen = world.until(27_000, |world| detection(world, 1) == Some(Detection::Unreachable));
            want(seen, "", "Unreachable within 25 s and two ticks")?;
            recovered(world, 120_000)
        },
    },
    Scenario {
        id: "DET-03",
        what: "the agent crashes, the host runs",
        run: |world| {
            world.host_mut(1).agent = false;
            untouched(world, 600_000)
        },
    },
    Scenario {
        id: "DET-04",
        what: "the management network of a host is cut",
        run: |world| {
            world.host_mut(1).reaches = [false; 3];
            world.run(60_000);
            want(detection(world, 1) == Some(Detection::Isolated), "", "Isolated")?;
            world.host_mut(1).reaches = [true; 3];
            let back = world.until(60_000, |world| detection(world, 1) == Some(Detection::Alive));
            want(back, "", "Alive again by itself")?;
            untouched(world, 60_000)
        },
    },
    Scenario {
        id: "DET-06",
        what: "a host reaches one member of three",
        run: |world| {
            world.host_mut(1).reaches = [false, false, true];
            untouched(world, 300_000)
        },
    },
    Scenario {
        id: "DET-07",
        what: "heartbeats of all come up to 3 s late",
        run: |world| {
            world.hosts.iter_mut().for_each(|host| host.jitter = 3_000);
            untouched(world, 600_000)
        },
    },
    Scenario {
        id: "DET-10",
        what: "the leader dies 14 s into a suspicion",
        run: |world| {
            hang(world, 1);
            world.bmc(1, Bmc::Well);
            world.until(30_000, |world| detection(world, 1) == Some(Detection::Suspect));
            world.run(14_000);
            world.kill_leader();
            let led = world.now + 3_000;
            world.until(120_000, |world| world.fences() > 0);
            want(world.now >= led + 20_000 + 15_000, "", "warm-up and confirmation anew")?;
            recovered(world, 120_000)
        },
    },
    Scenario {
        id: "DET-11",
        what: "the leader dies every 20 s while a host is off",
        run: |world| {
            world.host_mut(1).cut();
            for _ in 0..15 {
                world.run(20_000);
                world.kill_leader();
            }
            want(world.phase(1).is_some_and(Phase::is_proven), "", "proven by its BMC meanwhile")?;
            recovered(world, 180_000)
        },
    },
    Scenario {
        id: "DET-13",
        what: "the leader is stopped with a power-off in its queue",
        run: |world| {
            let barrier = Barrier {
                leader: Leader { term: 1, node: 2 },
                intent: Uuid::nil(),
                confirmed: 1_000,
                deadline: 10_000,
            };
            world.keep(Call::PowerOff { host: host(3), barrier });
            world.keep(Call::Evacuate { instance: vm(1), target: host(4), barrier });
            world.paused = true;
            world.run(5_000);
            world.kill_leader();
            world.run(40_000);
            world.go_on();
            untouched(world, 60_000)
        },
    },
    Scenario {
        id: "FEN-01",
        what: "the host is off already",
        run: |world| {
            world.host_mut(1).cut();
            recovered(world, 120_000)?;
            want(world.fences() == 0, "state read, nothing sent", "no power-off sent")
        },
    },
    Scenario {
        id: "FEN-02",
        what: "the reset answers 400, the power goes 6 s later",
        run: |world| {
            hang(world, 1);
            world.bmc(1, Bmc::Refuses);
            recovered(world, 180_000)
        },
    },
    Scenario {
        id: "FEN-03",
        what: "the BMC says 204 and does nothing",
        run: |world| {
            hang(world, 1);
            world.bmc(1, Bmc::Lies);
            world.run(300_000);
            let asks = world.ha().cases.get(host(1)).is_some_and(|case| case.needs_operator.is_some());
            want(asks && world.taken.is_empty(), "not believed, an operator is asked", "no proof, NeedsOperator")
        },
    },
    Scenario {
        id: "FEN-04",
        what: "PoweringOff for ever",
        run: |world| {
            hang(world, 1);
            world.bmc(1, Bmc::Stuck);
            world.run(600_000);
            let asks = world.ha().cases.get(host(1)).is_some_and(|case| case.needs_operator.is_some());
            want(asks && world.taken.is_empty(), "no proof, an operator is asked", "no proof, NeedsOperator")
        },
    },
    Scenario {
        id: "FEN-06",
        what: "the BMC cannot be reached",
        run: |world| {
            world.host_mut(1).cut();
            world.bmc(1, Bmc::Silent);
            world.run(300_000);
            want(world.taken.is_empty() && world.fences() == 0, "nothing started without a proof", "nothing")?;
            world.bmc(1, Bmc::Well);
            recovered(world, 180_000)
        },
    },
    Scenario {
        id: "FEN-07",
        what: "the host is back before anything is sent",
        run: |world| {
            hang(world, 1);
            world.until(60_000, |world| world.phase(1) == Some(Phase::Unreachable));
            world.host_mut(1).hung = false;
            world.run(30_000);
            want(world.fences() == 0 && world.ha().cases.is_empty(), "cleared", "cleared, no power-off")
        },
    },
    Scenario {
        id: "FEN-08",
        what: "the host is back 1 s after the power-off was sent",
        run: |world| {
            hang(world, 1);
            world.until(60_000, |world| world.fences() > 0);
            world.host_mut(1).hung = false;
            recovered(world, 180_000)
        },
    },
    Scenario {
        id: "FEN-09",
        what: "the leader dies after the power-off was sent",
        run: |world| {
            hang(world, 1);
            world.until(60_000, |world| world.fences() > 0);
            world.kill_leader();
            recovered(world, 180_000)?;
            let cases = world.ha().hosts.get(host(1)).map(|host| host.case_seq);
            want(cases == Some(1), "one case, proven by the next leader", "one case")
        },
    },
    Scenario {
        id: "FEN-10",
        what: "the host powers itself on during the evacuation",
        run: |world| {
            world.host_mut(1).cut();
            world.until(120_000, called);
            let back = world.host_mut(1);
            (back.on, back.boots) = (true, 1);
            world.hello(1);
            recovered(world, 180_000)?;
            let quarantined = world.ha().hosts.get(host(1)).is_some_and(|host| host.quarantined);
            want(quarantined, "quarantined, the attempts finish", "quarantine")
        },
    },
    Scenario {
        id: "FEN-15",
        what: "a voter runs on the host, another one is down",
        run: |world| {
            let on = |node, n: u128| Voter {
                node,
                host: Some(host(n)),
                chassis: format!("chassis-{n}"),
                power: "feed-0".to_owned(),
            };
            let voters = Change::Voters(vec![on(1, 1), on(2, 2), on(3, 3)]);
            want(world.order(Role::Coordinator, voters).is_ok(), "", "voters")?;
            world.voters = vec![1, 2];
            hang(world, 1);
            untouched(world, 120_000)?;
            world.voters = vec![1, 2, 3];
            recovered(world, 120_000)
        },
    },
    Scenario {
        id: "FEN-16",
        what: "the BMC is that of another machine",
        run: |world| {
            hang(world, 1);
            world.bmc(1, Bmc::Strange);
            untouched(world, 300_000)
        },
    },
    Scenario {
        id: "FEN-18",
        what: "a host in manual maintenance hangs, then loses power",
        run: |world| {
            let manual = Change::Maintenance { host: host(1), mode: Maintenance::Manual };
            want(world.order(Role::Operator, manual).is_ok(), "", "maintenance")?;
            hang(world, 1);
            untouched(world, 120_000)?;
            world.host_mut(1).cut();
            recovered(world, 120_000)?;
            want(world.fences() == 0, "no power action, P1 is enough", "no power action")
        },
    },
    Scenario {
        id: "STO-01",
        what: "a rack loses its management network",
        run: |world| {
            for n in 1..=10 {
                world.host_mut(n).reaches = [false; 3];
            }
            untouched(world, 300_000)?;
            for n in 1..=10 {
                world.host_mut(n).reaches = [true; 3];
            }
            let closed = world.until(400_000, |world| world.ha().small.breakers.is_empty());
            want(closed, "breaker opens and closes, nothing fenced", "the breaker closed again")
        },
    },
    Scenario {
        id: "STO-03",
        what: "pallium hears nobody",
        run: |world| {
            let all = |world: &mut World, up| world.hosts.iter_mut().for_each(|host| host.reaches = [up; 3]);
            all(world, false);
            world.hosts.iter_mut().for_each(|host| (host.storage, host.data) = (false, false));
            untouched(world, 300_000)?;
            world.hosts.iter_mut().for_each(|host| (host.storage, host.data) = (true, true));
            all(world, true);
            untouched(world, 120_000)
        },
    },
    Scenario {
        id: "STO-07",
        what: "three of ten hang one after another",
        run: |world| {
            for n in [2, 3] {
                hang(world, n);
                world.bmc(n, Bmc::Lies);
            }
            world.run(100_000);
            let before = world.fences();
            hang(world, 1);
            world.run(200_000);
            want(world.host(1).fences == 0 && before > 0, "the third opens the breaker", "no fence of the third")
        },
    },
    Scenario {
        id: "STO-08",
        what: "the breaker is open, an operator lets one host go on",
        run: |world| {
            for n in [1, 2, 3] {
                hang(world, n);
            }
            untouched(world, 120_000)?;
            let scope = ScopeName::Cluster("rack-0".to_owned());
            let until = world.now + 600_000;
            let ack = Change::BreakerAck { scope, decision: Decision::Proceed(vec![host(1)]), until };
            want(world.order(Role::Operator, ack).is_ok(), "", "an answer")?;
            recovered(world, 120_000)?;
            let one = world.host(1).fences > 0 && world.host(2).fences + world.host(3).fences == 0;
            want(one, "that one only", "no other one")
        },
    },
    Scenario {
        id: "STO-10",
        what: "Nova answers 503 for 10 min after the fence",
        run: |world| {
            hang(world, 1);
            world.until(60_000, |world| world.fences() > 0);
            world.trouble(Trouble::Down);
            world.run(600_000);
            want(world.taken.is_empty(), "", "nothing while Nova is down")?;
            world.trouble(Trouble::None);
            recovered(world, 300_000)
        },
    },
    Scenario {
        id: "EVA-02",
        what: "the leader dies after Nova took the calls",
        run: |world| {
            world.host_mut(1).cut();
            world.until(120_000, called);
            world.kill_leader();
            recovered(world, 180_000)
        },
    },
    Scenario {
        id: "EVA-03",
        what: "Nova takes the calls and the answers are lost",
        run: |world| {
            world.trouble(Trouble::LostAnswers);
            world.host_mut(1).cut();
            recovered(world, 180_000)
        },
    },
    Scenario {
        id: "EVA-04",
        what: "calls of a dead leader arrive 9 s later",
        run: |world| {
            world.trouble(Trouble::Late(9_000));
            world.host_mut(1).cut();
            world.until(120_000, |world| world.ha().recoveries.iter().any(|recovery| recovery.live().is_some()));
            world.run(1_000);
            world.kill_leader();
            recovered(world, 240_000)
        },
    },
    Scenario {
        id: "EVA-05",
        what: "two targets fail what comes",
        run: |world| {
            world.nova.refusing = vec![host(2), host(3)];
            world.host_mut(1).cut();
            let moved = world.until(300_000, |world| world.all_moved(VMS));
            want(moved, "second attempts on other targets", "all elsewhere by a second attempt")
        },
    },
    Scenario {
        id: "EVA-06",
        what: "a target dies while it rebuilds",
        run: |world| {
            world.host_mut(1).cut();
            world.until(120_000, called);
            let target = world.nova.moving[0].target;
            let dying = world.hosts.iter().position(|host| host.id == target).unwrap_or(0) as u128 + 1;
            world.host_mut(dying).cut();
            let moved = world.until(400_000, |world| world.all_moved(VMS));
            want(moved, "its instances go on once it is proven dead", "all elsewhere, once each")
        },
    },
    Scenario {
        id: "EVA-07",
        what: "a target dies after it was reached",
        run: |world| {
            world.host_mut(1).cut();
            recovered(world, 120_000)?;
            let dying = (2..=12).find(|n| !world.host(*n).guests.is_empty()).unwrap_or(2);
            world.host_mut(dying).cut();
            let moved = world.until(400_000, |world| world.all_moved(VMS));
            want(moved, "handed over to the case of the target", "all elsewhere, once each")
        },
    },
    Scenario {
        id: "EVA-08",
        what: "room for two of four, and later for all",
        run: |world| {
            *world = World::new(3, VMS, 1);
            world.host_mut(1).cut();
            world.run(120_000);
            let two = world.taken.len() == 2;
            want(two, "", "two of four moved")?;
            world.grow(2, 4);
            recovered(world, 120_000)
        },
    },
    Scenario {
        id: "EVA-13",
        what: "a user deletes an instance on its way",
        run: |world| {
            world.host_mut(1).cut();
            world.until(120_000, called);
            world.nova.servers.remove(&vm(1));
            world.nova.moving.retain(|moving| moving.instance != vm(1));
            let over = world.until(180_000, |world| world.phase(1) == Some(Phase::AwaitReturn));
            let free = world.ha().permits.get(vm(1)).is_none();
            want(over && free, "vanished, the claim is free", "Vanished")
        },
    },
    Scenario {
        id: "EVA-16",
        what: "Nova lists one instance of four",
        run: |world| {
            let kept: Vec<_> = (2..=VMS).filter_map(|n| Some((vm(n), world.nova.servers.remove(&vm(n))?))).collect();
            world.host_mut(1).cut();
            world.run(180_000);
            let one = world.taken.len() == 1;
            let held = kept
                .iter()
                .all(|(id, _)| world.ha().permits.get(*id).is_some_and(|permit| permit.life.host == host(1)));
            want(one && held, "one moved, three held for a person", "no instance lost")
        },
    },
    Scenario {
        id: "EVA-20",
        what: "all members restart in the middle of a case",
        run: |world| {
            world.host_mut(1).cut();
            world.until(120_000, called);
            world.restart_all();
            recovered(world, 180_000)
        },
    },
    Scenario {
        id: "EVA-22",
        what: "one is stopped, one in error",
        run: |world| {
            let state = |world: &mut World, n, vm_state| {
                if let Some(server) = world.nova.servers.get_mut(&vm(n)) {
                    server.vm = vm_state;
                }
            };
            state(world, 1, VmState::Stopped);
            state(world, 2, VmState::Error);
            world.host_mut(1).cut();
            let over = world.until(180_000, |world| world.phase(1) == Some(Phase::AwaitReturn));
            let left = !world.taken.contains_key(&vm(2)) && world.taken.len() == 3;
            want(over && left, "the stopped one moves, the one in error stays", "three moved, one left")
        },
    },
    Scenario {
        id: "EVA-23",
        what: "forced_down is taken back before the calls",
        run: |world| {
            hang(world, 1);
            world.until(120_000, |world| world.phase(1) == Some(Phase::Evacuating));
            world.nova.services.insert(host(1), (false, true));
            let again = world.until(60_000, |world| world.phase(1) == Some(Phase::NovaDown));
            want(again, "", "back to NovaDown")?;
            recovered(world, 240_000)
        },
    },
    Scenario {
        id: "EVA-24",
        what: "Nova takes the calls 120 s after our timeout",
        run: |world| {
            world.trouble(Trouble::Late(120_000));
            world.host_mut(1).cut();
            world.until(120_000, |world| world.phase(1) == Some(Phase::Evacuating));
            world.run(140_000);
            world.trouble(Trouble::None);
            let over = |world: &World| world.all_moved(VMS) && world.phase(1) == Some(Phase::AwaitReturn);
            let moved = world.until(400_000, over);
            let targets = (1..=VMS).all(|n| {
                let mut targets: Vec<_> = world.nova.migrations(vm(n)).map(|moving| moving.target).collect();
                targets.dedup();
                targets.len() == 1
            });
            want(moved && targets, "the same target, one domain each", "never another target")
        },
    },
    Scenario {
        id: "EVA-26",
        what: "os-migrations lacks a cell",
        run: |world| {
            world.trouble(Trouble::Partial);
            world.host_mut(1).cut();
            world.run(120_000);
            want(world.taken.is_empty(), "", "no conclusion from a partial answer")?;
            world.trouble(Trouble::None);
            recovered(world, 180_000)
        },
    },
    Scenario {
        id: "RST-01",
        what: "a backup with an open case is restored, the host is back",
        run: |world| {
            hang(world, 1);
            world.until(120_000, |world| world.phase(1) == Some(Phase::NovaDown));
            let backup = world.core.freeze();
            recovered(world, 120_000)?;
            let back = world.host_mut(1);
            (back.on, back.boots) = (true, 1);
            let (fences, taken) = (world.fences(), world.taken.clone());
            restore(world, backup);
            hang(world, 5);
            world.run(600_000);
            let still = world.fences() == fences && world.taken == taken;
            want(still, "paused: nothing on old authority", "no fence and no evacuation after the restore")
        },
    },
    Scenario {
        id: "OPS-11",
        what: "confirm-dead is sent again after the host came back",
        run: |world| {
            hang(world, 1);
            world.bmc(1, Bmc::Silent);
            world.until(60_000, |world| world.phase(1) == Some(Phase::FencePending));
            let Some(case) = world.ha().cases.get(host(1)).map(|case| case.id) else {
                return Err("expected: a case".to_owned());
            };
            let token = Token { case, phase: Phase::FencePending, at: world.now };
            world.host_mut(1).hung = false;
            world.run(60_000);
            let evidence = Evidence::Operator { token, youngest: Some(500) };
            let confirm = Change::DeathProof { host: host(1), incarnation: 1, evidence };
            let refused = world.order(Role::Operator, confirm).is_err();
            want(refused && world.all_home(VMS), "refused", "a refusal")
        },
    },
];
