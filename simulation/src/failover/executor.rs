//! Calls on their way: the barrier that a sender must pass, and what the other side does.

use scheduler::ha::coordinator::{Answer, Barrier, Call, Migration, Told};
use scheduler::ha::host::{Fencer, HostId};
use scheduler::ha::order::{Leader, NovaRead};
use scheduler::ha::planner::Listed;
use scheduler::ha::proof::{Power, PowerRead};
use scheduler::ha::recovery::{Recorded, VmState};
use scheduler::ha::reentry::ComputeRead;
use uuid::Uuid;

use super::nova::{ByHand, Moving, Server, Trouble};
use super::truth::{Bmc, machine};
use super::world::{Flaw, Letter, TICK, World};

/// A call without a trace for so long counts as lost, milliseconds.
const HORIZON: u64 = 60_000;

impl World {
    /// A call of a leader is sent, if it passes its barrier, and arrives a tick later.
    pub(super) fn send(&mut self, call: Call, from: Leader) {
        let barrier = call.barrier();
        if let Some(barrier) = barrier
            && self.flaw != Some(Flaw::NoBarrier)
            && !self.passes(&barrier, from)
        {
            self.say(&format!("{from} does not send {call:?}: the barrier does not hold"));
            if let Call::Evacuate { instance, barrier, .. } = call {
                let told = Told::Evacuated { instance, op: barrier.intent, answer: Answer::NotSent };
                self.post(TICK, Letter::Told(from, told));
            }
            return;
        }
        if let Some(barrier) = barrier {
            self.check_send(&call, &barrier, from);
            self.check_mark(&call);
            self.say(&format!("{from} sends {call:?}"));
        }
        if call.writes() {
            self.sent.push((self.now, call));
        }
        let late = match (self.nova.trouble, &call) {
            (Trouble::Late(millis), Call::Evacuate { .. }) => millis,
            _ => 0,
        };
        if let Call::Evacuate { instance, .. } = &call
            && late >= HORIZON
        {
            self.overdue.insert(*instance);
        }
        self.post(TICK + late, Letter::Do(call, from));
    }

    /// What an executor makes sure of right before it writes.
    pub(super) fn passes(&self, barrier: &Barrier, from: Leader) -> bool {
        let leads = self.leader.as_ref().is_some_and(|leading| leading.id == from);
        leads && barrier.leader == from && barrier.holds(self.core.state().tables(), self.now)
    }

    fn post(&mut self, after: u64, letter: Letter) {
        self.posted += 1;
        self.mail.insert((self.now + after, self.posted), letter);
    }

    /// What is on its way gets lost.
    pub fn mail_lost(&mut self) {
        self.mail.clear();
    }

    /// Calls a paused process had in its queue are sent when it goes on.
    pub fn go_on(&mut self) {
        self.paused = false;
        for (call, from) in std::mem::take(&mut self.kept) {
            self.send(call, from);
        }
    }

    /// A stopped process has a call in its queue.
    pub fn keep(&mut self, call: Call) {
        if let Some(leading) = &self.leader {
            self.kept.push((call, leading.id));
        }
    }

    pub(super) fn deliver(&mut self) {
        while let Some(entry) = self.mail.first_entry() {
            if entry.key().0 > self.now {
                return;
            }
            match entry.remove() {
                Letter::Told(to, told) => {
                    let now = self.now;
                    // What a former leader had asked for says nothing of this one.
                    let leads = self.leader.as_ref().is_some_and(|leading| leading.id == to);
                    if let Told::Mark(read) = &told
                        && leads
                    {
                        match read {
                            Ok(all) if *all == [self.cluster] => self.marked = Some(to),
                            Ok(_) => self.marked = None,
                            Err(_) => {}
                        }
                    }
                    if let Some(leading) = self.leader.as_mut().filter(|leading| leading.id == to) {
                        leading.coordinator.tell(told, now);
                    }
                }
                Letter::Do(call, from) => {
                    let slow = match self.nova.trouble {
                        Trouble::Slow(millis) => millis,
                        _ => 0,
                    };
                    if call.asks_nova() {
                        let down = self.nova.trouble == Trouble::Down || slow > 10_000;
                        let told = Told::Nova { answered: u32::from(!down), failed: u32::from(down) };
                        self.post(TICK, Letter::Told(from, told));
                    }
                    // A BMC that takes longer is not waited for.
                    let slow = if call.asks_nova() { slow } else { slow.min(5_000) };
                    if let Some(told) = self.act(call) {
                        self.post(TICK + slow, Letter::Told(from, told));
                    }
                }
            }
        }
    }

    fn act(&mut self, call: Call) -> Option<Told> {
        let now = self.now;
        match call {
            Call::ReadPower(id) => self.read_power(id),
            Call::PowerOff { host: id, barrier } => {
                let op = self.ha().cases.get(id).and_then(|case| case.op(barrier.intent));
                let ipmi = op.is_some_and(|op| op.fencer == Fencer::Ipmi);
                let host = self.by_id(id);
                host.fences += 1;
                match if ipmi { host.ipmi } else { host.bmc } {
                    Bmc::Well | Bmc::Strange if host.on => host.off_at = Some(now + 1_500),
                    Bmc::Refuses if host.on => host.off_at = host.off_at.or(Some(now + 6_000)),
                    _ => {}
                }
                None
            }
            _ if self.nova.trouble == Trouble::Down => match call {
                Call::Evacuate { instance, barrier, .. } => {
                    Some(Told::Evacuated { instance, op: barrier.intent, answer: Answer::Unknown })
                }
                Call::ReadMark => Some(Told::Mark(Err("Nova answered 503".to_owned()))),
                _ => None,
            },
            Call::ReadMark => Some(Told::Mark(Ok(self.nova.marks.clone()))),
            Call::SetMark { cluster, over } => {
                let others = self.nova.marks.iter().filter(|known| **known != cluster && Some(**known) != over);
                self.nova.marks = others.copied().chain([cluster]).collect();
                self.say(&format!("Nova: the mark names {:?}", self.nova.marks));
                Some(Told::Mark(Ok(self.nova.marks.clone())))
            }
            Call::ForceDown { host, .. } => {
                let (forced_down, disabled) = self.nova.services.entry(host).or_default();
                *forced_down = true;
                Some(Told::Service { host, forced_down: true, disabled: *disabled })
            }
            Call::Disable { host, .. } | Call::Cordon { host, .. } => {
                let (forced_down, disabled) = self.nova.services.entry(host).or_default();
                *disabled = true;
                Some(Told::Service { host, forced_down: *forced_down, disabled: true })
            }
            // How much is left is told all the time (`listen`), and no move waits for a word.
            Call::ReadProgress { .. } => None,
            Call::Confirm { instance, .. } => {
                let arrived = self.nova.confirm(instance);
                self.say(&format!("Nova: {instance} stays where it was moved: {arrived:?}"));
                if arrived.is_some_and(|at| self.ha().permits.get(instance).is_none_or(|is| is.life.host != at)) {
                    self.broke(format!("the copy of {instance} is given up before its place has followed"));
                }
                None
            }
            Call::ListServers(host) => {
                let here = self.nova.servers.iter().filter(|(_, server)| server.host == host);
                let asks = |id: &Uuid| self.nova.asks.get(id).cloned().unwrap_or_default();
                let listed = |(id, server): (&Uuid, &Server)| Listed {
                    instance: *id,
                    recorded: recorded(server),
                    asks: asks(id),
                };
                Some(Told::Servers(host, here.map(listed).collect()))
            }
            Call::ListGroups => Some(Told::Groups(self.nova.groups.clone())),
            Call::ReadServer(instance) => Some(self.read_server(instance)),
            Call::Evacuate { instance, target, barrier } => {
                let source = self.nova.servers.get(&instance).map(|server| server.host);
                // Nova believes in a service for service_down_time after its last report.
                let up = source.is_some_and(|source| now < self.by_id(source).ran + 60_000);
                let answer = self.nova.evacuate(instance, target, up, now);
                self.say(&format!("Nova: evacuate {instance} to {target}: {answer:?}"));
                if answer == Answer::Taken {
                    self.nova.moving.last_mut().into_iter().for_each(|moving| moving.ours = true);
                    self.check_taken(instance);
                }
                let lost = matches!(self.nova.trouble, Trouble::LostAnswers | Trouble::Late(_));
                let answer = if lost { Answer::Unknown } else { answer };
                Some(Told::Evacuated { instance, op: barrier.intent, answer })
            }
            Call::ReadCompute(id) => Some(Told::Compute(id, self.read_compute(id))),
            Call::Unforce { host, .. } => {
                // Nova answers 400 while an evacuation away from it is not cleaned up.
                let owes =
                    self.nova.moving.iter().any(|m| m.source == host && !m.live && m.over == Some(true) && !m.clean);
                let (forced_down, disabled) = self.nova.services.entry(host).or_default();
                *forced_down &= owes;
                Some(Told::Service { host, forced_down: *forced_down, disabled: *disabled })
            }
            Call::Enable { host, .. } => {
                let (forced_down, disabled) = self.nova.services.entry(host).or_default();
                *disabled = false;
                Some(Told::Service { host, forced_down: *forced_down, disabled: false })
            }
            Call::PowerOn { host, .. } => {
                let host = self.by_id(host);
                if !host.on && host.bmc == Bmc::Well {
                    host.boots_at = host.boots_at.or(Some(now + 30_000));
                }
                None
            }
            Call::StartNova { host, .. } => {
                // Its agent is told, in the session of the boot that is known.
                if self.by_id(host).is_heard() && self.present(host).is_some() {
                    self.start_compute(host);
                }
                None
            }
            Call::ListDomains(id) => {
                let at = self.core.state().now().max(now);
                let host = self.by_id(id);
                let answers = host.is_heard() && host.libvirt;
                let running: Vec<_> = host.guests.iter().copied().collect();
                let listed = host.guests.union(&host.halves).copied().collect();
                answers.then_some(Told::Domains { host: id, listed, running, off: Vec::new(), at })
            }
            Call::Restart { instance, host, barrier } => {
                let denied = self.is_denied(instance, host);
                let there = self.by_id(host);
                let answer = if there.runs() && there.compute {
                    if !denied {
                        there.guests.insert(instance);
                        there.crashed.remove(&instance);
                    }
                    Answer::Taken
                } else {
                    Answer::Unknown
                };
                self.say(&format!("Nova: start {instance} on {host}: {answer:?}"));
                *self.restarted.entry(instance).or_default() += 1;
                Some(Told::Restarted { instance, op: barrier.intent, answer })
            }
            Call::Migrate { instance, target, barrier, .. } => {
                let answer = self.nova.migrate(instance, target, None, now);
                self.say(&format!("Nova: migrate {instance} to {target}: {answer:?}"));
                let lost = matches!(self.nova.trouble, Trouble::LostAnswers | Trouble::Late(_));
                let answer = if lost { Answer::Unknown } else { answer };
                Some(Told::Migrated { instance, op: barrier.intent, answer })
            }
            Call::MoveUnhelped { instance, target, barrier, .. } => {
                let answer = self.nova.migrate(instance, target, Some(ByHand::Cold(None)), now);
                if answer == Answer::Taken {
                    self.nova.unconfirmed.extend(self.nova.moving.last().map(|moving| moving.id));
                }
                self.say(&format!("Nova: stop {instance} and move it to {target}: {answer:?}"));
                let lost = matches!(self.nova.trouble, Trouble::LostAnswers | Trouble::Late(_));
                let answer = if lost { Answer::Unknown } else { answer };
                Some(Told::Migrated { instance, op: barrier.intent, answer })
            }
            Call::ForceComplete { migration, .. } => {
                self.nova.press(migration, true, now);
                None
            }
            Call::AbortMigration { migration, .. } => {
                self.nova.press(migration, false, now);
                None
            }
            Call::Stop { instance, barrier } => {
                if let Some(server) = self.nova.servers.get_mut(&instance) {
                    (server.vm, server.running) = (VmState::Stopped, false);
                }
                Some(Told::Stopped { instance, op: barrier.intent, answer: Answer::Taken })
            }
            Call::ReadDomain { host, instance } => {
                let at = self.core.state().now().max(now);
                let host = self.by_id(host);
                let answers = host.is_heard() && host.libvirt;
                let there = host.guests.contains(&instance) || host.halves.contains(&instance);
                (answers && !there).then_some(Told::Absent { host: host.id, instance, at })
            }
        }
    }

    fn read_compute(&mut self, id: HostId) -> ComputeRead {
        let host = self.by_id(id);
        let fresh = host.runs() && host.compute;
        let from = || self.nova.moving.iter().filter(|moving| moving.source == id && !moving.live);
        ComputeRead {
            fresh,
            open: from().filter(|moving| moving.over.is_none()).map(|moving| moving.instance).collect(),
            done: from().filter(|m| m.over == Some(true) && !m.clean).map(|moving| moving.instance).collect(),
            sentinel: self.nova.trouble != Trouble::Partial,
        }
    }

    /// A nova-compute starts, by us or by its boot: INV-15, what it deletes must not be the only copy.
    pub(super) fn start_compute(&mut self, id: HostId) {
        let host = self.by_id(id);
        if !host.runs() || host.compute {
            return;
        }
        host.compute = true;
        self.nova.break_off(id);
        for instance in self.nova.clean_up(id) {
            self.by_id(id).guests.remove(&instance);
            let elsewhere = self.hosts.iter().any(|host| host.id != id && host.guests.contains(&instance));
            let moved = self.nova.servers.get(&instance).is_none_or(|server| server.host != id);
            if !(elsewhere || moved) {
                self.broke(format!("INV-15 the only copy of {instance} is deleted on {id}"));
            }
        }
    }

    fn read_power(&mut self, id: HostId) -> Option<Told> {
        let believes = self.flaw == Some(Flaw::BelieveCodes);
        let (nothing, ping) = (self.flaw == Some(Flaw::NoProof), self.flaw == Some(Flaw::TrustPing));
        let host = self.by_id(id);
        let silent = host.power().is_none();
        let told = believes && host.fences > 0 || nothing && silent || ping && !host.is_heard();
        let power = if told { Power::Off } else { host.power()? };
        host.seen_off |= power == Power::Off;
        let who = if host.bmc == Bmc::Strange { HostId(Uuid::from_u128(0xFFFF)) } else { id };
        Some(Told::Power(id, PowerRead { power, raw: format!("{power:?}"), machine: machine(who), at: 0 }))
    }

    fn read_server(&self, instance: Uuid) -> Told {
        let sentinel = self.nova.trouble != Trouble::Partial;
        let read = self.nova.servers.get(&instance).map(|server| {
            // An evacuation from where it was before does nothing with it, and moves nothing.
            let works = |moving: &Moving| moving.over.is_none() && (moving.live || moving.source == server.host);
            let rebuilt = self.nova.migrations(instance).any(|moving| !moving.live && works(moving));
            let shown = |migration: &&Moving| sentinel || migration.over.is_some();
            let migrations: Vec<Migration> = self
                .nova
                .migrations(instance)
                .filter(shown)
                .map(|moving| Migration {
                    id: moving.id,
                    over: moving.over,
                    evacuates: (!moving.live).then_some(Some(moving.target)),
                })
                .collect();
            let read = NovaRead {
                host: server.host,
                now: Recorded { task: server.destination.is_some() || rebuilt, ..recorded(server) },
                sentinel,
                migrations: migrations.iter().map(|migration| migration.id).collect(),
                moving: self.nova.migrations(instance).filter(shown).any(works),
                destination: server.destination.or(server.broken_off).map(|host| (host, None)),
                on_crash: self.nova.asks.get(&instance).and_then(|asks| asks.on_crash),
            };
            (read, migrations)
        });
        Told::Server { instance, read, sentinel }
    }
}

fn recorded(server: &Server) -> Recorded {
    Recorded { vm: server.vm, running: server.running, task: server.destination.is_some() }
}
