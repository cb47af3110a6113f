//! What is so: power, kernels, cables, BMCs, and where guests execute.

use std::collections::BTreeSet;

use scheduler::ha::host::{HostId, Machine};
use scheduler::ha::proof::Power;
use uuid::Uuid;

/// How a BMC behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bmc {
    /// It does what it is asked.
    #[default]
    Well,
    /// It cannot be reached.
    Silent,
    /// It says that it did, and did nothing.
    Lies,
    /// It refuses with 400 and does it six seconds later.
    Refuses,
    /// It stays on its way off.
    Stuck,
    /// It is the BMC of another machine.
    Strange,
    /// It switches another machine, and says that it is this one's: what it proves is wrong.
    Swapped,
}

/// A host as it is.
#[derive(Clone, Debug)]
pub struct TrueHost {
    /// Its id.
    pub id: HostId,
    /// Power.
    pub on: bool,
    /// Its kernel stands still. Guests may go on: nobody can tell.
    pub hung: bool,
    /// Its agent runs.
    pub agent: bool,
    /// Members of pallium that its management network reaches.
    pub reaches: [bool; 3],
    /// Its storage and data networks work.
    pub storage: bool,
    /// See `storage`.
    pub data: bool,
    /// Boots so far.
    pub boots: u128,
    /// Its BMC, by Redfish.
    pub bmc: Bmc,
    /// The same by IPMI, where that switches.
    pub ipmi: Bmc,
    /// When a power-off takes effect.
    pub off_at: Option<u64>,
    /// Guests that execute on it.
    pub guests: BTreeSet<Uuid>,
    /// Guests that crashed by themselves and were not started since.
    pub crashed: BTreeSet<Uuid>,
    /// When its agent told of them last.
    pub told: u64,
    /// When its nova-compute last reported.
    pub ran: u64,
    /// When each member heard it last.
    pub last_beat: [u64; 3],
    /// Heartbeats are lost or late, for so long each, milliseconds.
    pub jitter: u64,
    /// So many of a hundred heartbeats are lost.
    pub loses: u64,
    /// Since when its storage heartbeat stands still.
    pub still: Option<u64>,
    /// Power-offs that reached its BMC.
    pub fences: u32,
    /// Its last heartbeat that was received by anybody.
    pub heard: u64,
    /// Since when its BMC is that of another machine.
    pub strange: Option<u64>,
    /// A BMC read of its present boot that said off.
    pub seen_off: bool,
    /// When it comes up again, in a new boot.
    pub boots_at: Option<u64>,
    /// It has not said Hello in its present boot.
    pub greets: bool,
    /// The last boot whose Hello was answered: what its disk remembers.
    pub answered: Option<u128>,
    /// Its nova-compute runs. After a boot it is held back until it is let start.
    pub compute: bool,
    /// Its libvirt answers.
    pub libvirt: bool,
    /// Halves of live migrations: known to its libvirt, and not executing.
    pub halves: BTreeSet<Uuid>,
    /// Guests that were destroyed there, and those whose memory a migration left in two halves.
    pub destroyed: BTreeSet<Uuid>,
    /// See `destroyed`.
    pub split: BTreeSet<Uuid>,
    /// Guests of others that it has, on one storage backend, and those of them that stand still.
    pub stalled: u32,
    /// Its lease ends then, by its own clock in the world's time; 0: it has none.
    pub lease: u64,
    /// Its watchdog was fed last then; none: it has no watchdog that is armed.
    pub fed: Option<u64>,
    /// Its clock is slow by so many thousandths.
    pub slow: u64,
    /// Requests for a lease so far.
    pub asks: u64,
    /// It went down on purpose, and is expected back until then; 0: it did not.
    pub away: u64,
    /// It comes up by itself when its power is gone (PowerRestorePolicy).
    pub restores: bool,
}

impl TrueHost {
    /// One that is well.
    pub fn new(n: u128) -> Self {
        Self {
            id: host(n),
            on: true,
            hung: false,
            agent: true,
            reaches: [true; 3],
            storage: true,
            data: true,
            boots: 0,
            bmc: Bmc::Well,
            ipmi: Bmc::Well,
            off_at: None,
            guests: BTreeSet::new(),
            crashed: BTreeSet::new(),
            told: 0,
            ran: 0,
            last_beat: [0; 3],
            jitter: 0,
            loses: 0,
            still: None,
            fences: 0,
            heard: 0,
            strange: None,
            seen_off: false,
            boots_at: None,
            greets: false,
            answered: None,
            compute: true,
            libvirt: true,
            halves: BTreeSet::new(),
            destroyed: BTreeSet::new(),
            split: BTreeSet::new(),
            stalled: 0,
            lease: 0,
            fed: None,
            slow: 0,
            asks: 0,
            away: 0,
            restores: false,
        }
    }

    /// It can do something.
    pub fn runs(&self) -> bool {
        self.on && !self.hung
    }

    /// Nothing is wrong with it.
    pub fn is_well(&self) -> bool {
        let reached = self.agent && self.reaches == [true; 3] && self.jitter == 0 && self.loses == 0 && !self.greets;
        self.runs()
            && reached
            && self.storage
            && self.data
            && self.libvirt
            && self.stalled == 0
            && self.bmc == Bmc::Well
    }

    /// The boot it is in.
    pub fn boot(&self) -> Uuid {
        boot(self.id, self.boots)
    }

    /// Power is gone: so are its guests.
    pub fn cut(&mut self) {
        (self.on, self.hung, self.off_at) = (false, false, None);
        (self.compute, self.lease) = (false, 0);
        self.fed = self.fed.map(|_| 0);
        self.guests.clear();
        self.crashed.clear();
        self.destroyed.clear();
        self.split.clear();
    }

    /// It shuts down after a Goodbye, which every member that it reaches hears.
    pub fn shut_down(&mut self, now: u64, back_in: u64) {
        if self.runs() && self.agent {
            for member in (0..3).filter(|member| self.reaches[*member]) {
                self.last_beat[member] = now;
            }
            if self.is_heard() {
                (self.heard, self.away) = (now, now + back_in);
            }
        }
        self.cut();
    }

    /// It comes up, in a new boot, with nothing running on it.
    pub fn boot_up(&mut self) {
        self.cut();
        (self.on, self.greets, self.boots_at, self.away, self.seen_off) = (true, true, None, 0, false);
        self.boots += 1;
    }

    /// Some member of pallium hears its agent.
    pub fn is_heard(&self) -> bool {
        self.runs() && self.agent && self.reaches.contains(&true)
    }

    /// What its BMC says, if it answers.
    pub fn power(&self) -> Option<Power> {
        match self.bmc {
            Bmc::Silent => None,
            Bmc::Swapped if self.fences > 0 => Some(Power::Off),
            Bmc::Stuck if self.fences > 0 && self.on => Some(Power::PoweringOff),
            _ if self.on => Some(Power::On),
            _ => Some(Power::Off),
        }
    }
}

/// The id of a host.
pub fn host(n: u128) -> HostId {
    HostId(Uuid::from_u128(0xA000 + n))
}

/// An instance.
pub fn vm(n: u128) -> Uuid {
    Uuid::from_u128(0xB000 + n)
}

/// A boot of a host.
pub fn boot(host: HostId, nth: u128) -> Uuid {
    Uuid::from_u128(host.0.as_u128() << 16 | nth)
}

/// Who a host is.
pub fn machine(host: HostId) -> Machine {
    Machine { uuid: Some(Uuid::from_u128(host.0.as_u128() << 32)), serial: Some(format!("serial-{host}")) }
}
