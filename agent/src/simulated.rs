//! Agents without hosts, for tests of what they talk to: each is a [`Core`] with an identity of its own, driven
//! by hand. Time stands still between calls of [`Host::wait`].

use uuid::Uuid;

use crate::core::{Core, Effect, Facts, Vitals};
use crate::host::Now;
use crate::identity::{Identity, Machine, Memory};
use crate::libvirt::Seen;
use crate::report::{Directive, DomainEvent, DomainState, Envelope, Event, Goodbye, Instance, Order};

/// The cluster that simulated hosts hear, unless they are told otherwise.
pub fn cluster() -> Uuid {
    Uuid::from_u128(0xc1a5_7e12)
}

fn uuid(kind: u128, number: u64, more: u64) -> Uuid {
    Uuid::from_u128(kind << 96 | u128::from(number) << 48 | u128::from(more))
}

/// Who host `number` is, in its first boot.
pub fn identity(number: u64) -> Identity {
    let machine = Machine { uuid: Some(uuid(0xd, number, 0)), serial: Some(format!("SN{number:06}")) };
    Identity::simulated(uuid(0xa, number, 0), uuid(0xb, number, 1), machine, Memory::default())
}

/// So many hosts, numbered from 0, none of them connected.
pub fn fleet(hosts: u64) -> impl Iterator<Item = Host> {
    (0..hosts).map(Host::new)
}

/// A host that is only played.
#[derive(Debug)]
pub struct Host {
    number: u64,
    boots: u64,
    now: Now,
    core: Core,
    told: u64,
}

fn start(number: u64, identity: Identity, now: Now) -> Core {
    let facts = Facts { nova_host: format!("compute-{number:03}"), permit_check: true, ..Facts::default() };
    let mut core = Core::new(identity, facts, None, 0, now);
    core.settle();
    core.see(Seen::Reached { version: "9.0.0".to_owned(), hypervisor: "QEMU".to_owned() }, now);
    core.see(Seen::Whole(now.boot_ns, Vec::new()), now);
    core
}

impl Host {
    /// Host `number`, just booted.
    pub fn new(number: u64) -> Self {
        let now = Now { boot_ns: 1_000_000_000, wall_ms: 1_000_000 };
        Self { number, boots: 1, now, core: start(number, identity(number), now), told: 0 }
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        self.core.identity()
    }

    /// The agent itself.
    pub fn core(&mut self) -> &mut Core {
        &mut self.core
    }

    /// Time goes by, and at its end a heartbeat is due. libvirt has answered.
    pub fn wait(&mut self, seconds: u64) {
        self.now.boot_ns += seconds * 1_000_000_000;
        self.now.wall_ms += seconds * 1_000;
        self.core.see(Seen::Answered { rtt_ms: 1, active: 0 }, self.now);
        self.core.beat(Vitals::default());
    }

    /// A guest is there, in this state; it asked before it started.
    pub fn guest(&mut self, instance: Uuid, state: DomainState) {
        let name = format!("instance-{:08x}", instance.as_u128() as u32);
        let guest = Instance { uuid: instance, name, state, ..Instance::default() };
        self.core.see(Seen::One(self.now.boot_ns, instance, Some(Box::new(guest))), self.now);
    }

    /// Something happens to a guest.
    pub fn happens(&mut self, instance: Uuid, event: Event) {
        let boot_ns = self.now.boot_ns;
        self.core.see(Seen::Happened(DomainEvent { instance, name: String::new(), boot_ns, event }), self.now);
    }

    /// A session begins; what is said first.
    pub fn connect(&mut self) -> Vec<Envelope> {
        self.told = 0;
        self.core.connect();
        self.said()
    }

    /// All that is to be said now.
    pub fn said(&mut self) -> Vec<Envelope> {
        std::iter::from_fn(|| self.core.next(self.now)).collect()
    }

    /// Its cluster tells it something; it does so at once, disk and all.
    pub fn tell(&mut self, order: Order) {
        self.told += 1;
        self.hear(Directive { id: self.told, cluster: cluster(), order });
    }

    /// It hears a directive as it came.
    pub fn hear(&mut self, directive: Directive) {
        for effect in self.core.told(directive, self.now) {
            if let Effect::Stop(guests, mark) = effect {
                for guest in guests {
                    self.core.see(Seen::One(self.now.boot_ns, guest, None), self.now);
                }
                self.core.stopped(mark, Ok(()));
            }
        }
        let (_, mark) = self.core.permits();
        self.core.kept(mark);
    }

    /// Whether it would let the instance start.
    pub fn may_start(&self, instance: Uuid) -> bool {
        let mut gate = self.core.gate().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        gate.may_start(instance, std::time::Instant::now()).is_ok()
    }

    /// It leaves on purpose.
    pub fn leave(&mut self, reason: Goodbye) {
        self.core.leave(reason, 0);
    }

    /// It boots anew: no guest runs, no session stands, the disk remembers.
    pub fn reboot(&mut self) {
        let old = self.core.identity();
        let (host, machine, memory) = (old.host, old.machine.clone(), old.memory.clone());
        self.boots += 1;
        self.now.boot_ns = 1_000_000_000;
        let identity = Identity::simulated(host, uuid(0xb, self.number, self.boots), machine, memory);
        self.core = start(self.number, identity, self.now);
    }
}
