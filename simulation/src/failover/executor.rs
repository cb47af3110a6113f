//! Calls on their way: the barrier that a sender must pass, and what the other side does.

use scheduler::ha::coordinator::{Answer, Barrier, Call, Migration, Told};
use scheduler::ha::host::HostId;
use scheduler::ha::order::{Leader, NovaRead};
use scheduler::ha::proof::{Power, PowerRead};
use scheduler::ha::recovery::{Recorded, VmState};
use uuid::Uuid;

use super::nova::Trouble;
use super::truth::{Bmc, machine};
use super::world::{Flaw, Letter, TICK, World};

impl World {
    /// A call of a leader is sent, if it passes its barrier, and arrives a tick later.
    pub(super) fn send(&mut self, call: Call, from: Leader) {
        let barrier = match &call {
            Call::PowerOff { barrier, .. } | Call::Evacuate { barrier, .. } => Some(*barrier),
            _ => None,
        };
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
            self.say(&format!("{from} sends {call:?}"));
        }
        let late = match (self.nova.trouble, &call) {
            (Trouble::Late(millis), Call::Evacuate { .. }) => millis,
            _ => 0,
        };
        self.post(TICK + late, Letter::Do(call, from));
    }

    /// What an executor can know right before it writes: it leads, and its intent is committed.
    pub(super) fn passes(&self, barrier: &Barrier, from: Leader) -> bool {
        let leads = self.leader.as_ref().is_some_and(|leading| leading.id == from);
        leads && barrier.leader == from && self.is_committed(barrier)
    }

    /// The intent is in the state, as that leader's, and still open.
    pub(super) fn is_committed(&self, barrier: &Barrier) -> bool {
        let fence = self.ha().cases.iter().flat_map(|case| &case.ops);
        let fence = fence.filter(|op| op.id == barrier.intent).any(|op| op.by == barrier.leader);
        let attempts = self.ha().recoveries.iter().filter_map(|recovery| recovery.live());
        let attempt =
            attempts.filter(|attempt| attempt.op == barrier.intent).any(|attempt| attempt.by == barrier.leader);
        fence || attempt
    }

    fn post(&mut self, after: u64, letter: Letter) {
        self.posted += 1;
        self.mail.insert((self.now + after, self.posted), letter);
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
                    if let Some(leading) = self.leader.as_mut().filter(|leading| leading.id == to) {
                        leading.coordinator.tell(told, now);
                    }
                }
                Letter::Do(call, from) => {
                    if let Some(told) = self.act(call) {
                        self.post(TICK, Letter::Told(from, told));
                    }
                }
            }
        }
    }

    fn act(&mut self, call: Call) -> Option<Told> {
        let now = self.now;
        match call {
            Call::ReadPower(id) => self.read_power(id),
            Call::PowerOff { host: id, .. } => {
                let host = self.by_id(id);
                host.fences += 1;
                match host.bmc {
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
                _ => None,
            },
            Call::ForceDown(host) => {
                let (forced_down, disabled) = self.nova.services.entry(host).or_default();
                *forced_down = true;
                Some(Told::Service { host, forced_down: true, disabled: *disabled })
            }
            Call::Disable(host) => {
                let (forced_down, disabled) = self.nova.services.entry(host).or_default();
                *disabled = true;
                Some(Told::Service { host, forced_down: *forced_down, disabled: true })
            }
            Call::ListServers(host) => {
                let here = self.nova.servers.iter().filter(|(_, server)| server.host == host);
                Some(Told::Servers(host, here.map(|(id, server)| (*id, recorded(server.vm))).collect()))
            }
            Call::ReadServer(instance) => Some(self.read_server(instance)),
            Call::Evacuate { instance, target, barrier } => {
                let source = self.nova.servers.get(&instance).map(|server| server.host);
                // Nova believes in a service for service_down_time after its last report.
                let up = source.is_some_and(|source| now < self.by_id(source).ran + 60_000);
                let answer = self.nova.evacuate(instance, target, up, now);
                self.say(&format!("Nova: evacuate {instance} to {target}: {answer:?}"));
                if answer == Answer::Taken {
                    self.check_taken(instance);
                }
                let lost = matches!(self.nova.trouble, Trouble::LostAnswers | Trouble::Late(_));
                let answer = if lost { Answer::Unknown } else { answer };
                Some(Told::Evacuated { instance, op: barrier.intent, answer })
            }
            Call::ReadDomain { host, instance } => {
                let at = self.core.state().now().max(now);
                let host = self.by_id(host);
                let answers = host.runs() && host.agent;
                (answers && !host.guests.contains(&instance)).then_some(Told::Absent { host: host.id, instance, at })
            }
        }
    }

    fn read_power(&mut self, id: HostId) -> Option<Told> {
        let believes = self.flaw == Some(Flaw::BelieveCodes);
        let host = self.by_id(id);
        let power = if believes && host.fences > 0 { Power::Off } else { host.power()? };
        host.seen_off |= power == Power::Off;
        let who = if host.bmc == Bmc::Strange { HostId(Uuid::from_u128(0xFFFF)) } else { id };
        Some(Told::Power(id, PowerRead { power, raw: format!("{power:?}"), machine: machine(who), at: 0 }))
    }

    fn read_server(&self, instance: Uuid) -> Told {
        let sentinel = self.nova.trouble != Trouble::Partial;
        let read = self.nova.servers.get(&instance).map(|server| {
            let shown = |migration: &&super::nova::Moving| sentinel || migration.over.is_some();
            let migrations: Vec<Migration> = self
                .nova
                .migrations(instance)
                .filter(shown)
                .map(|moving| Migration { id: moving.id, over: moving.over })
                .collect();
            let read = NovaRead {
                host: server.host,
                now: recorded(server.vm),
                sentinel,
                migrations: migrations.iter().map(|migration| migration.id).collect(),
                moving: migrations.iter().any(|migration| migration.over.is_none()),
                destination: None,
            };
            (read, migrations)
        });
        Told::Server { instance, read, sentinel }
    }
}

fn recorded(vm: VmState) -> Recorded {
    Recorded { vm, running: vm == VmState::Active, task: false }
}
