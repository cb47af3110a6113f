//! A compute host as failover sees it: who it is, which life it lives, and what is believed of it.

use bitcode::{Decode, Encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::keyed::Entry;
use super::note::Seen;
use super::order::Leader;
use super::proof::Proof;
use crate::names::Sym;

/// A compute host, whatever Placement calls it now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct HostId(pub Uuid);

impl std::fmt::Display for HostId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One life of a host: it grows with each boot that is accepted and with each proof of death. A dead
/// incarnation never lives again.
pub type Incarnation = u64;

/// Who a machine is, by its firmware (DMI) and by its BMC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Machine {
    /// System UUID.
    pub uuid: Option<Uuid>,
    /// Serial number.
    pub serial: Option<String>,
}

impl Machine {
    /// Whether a BMC that says `read` is this machine's: all that both name is equal, and that is
    /// something.
    pub fn is(&self, read: &Self) -> bool {
        let uuid = self.uuid.zip(read.uuid).map(|(ours, theirs)| ours == theirs);
        let serial = self.serial.as_ref().zip(read.serial.as_ref()).map(|(ours, theirs)| ours == theirs);
        matches!((uuid, serial), (Some(true), None | Some(true)) | (None, Some(true)))
    }

    /// Whether `read` names both, and both are this machine's: what a Hello with a new boot needs.
    pub fn is_surely(&self, read: &Self) -> bool {
        self.uuid.is_some() && self.serial.is_some() && self == read
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.uuid {
            Some(uuid) => write!(f, "uuid {uuid}")?,
            None => f.write_str("no uuid")?,
        }
        match &self.serial {
            Some(serial) => write!(f, ", serial '{serial}'"),
            None => f.write_str(", no serial"),
        }
    }
}

/// What fences a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fencer {
    /// Power off by Redfish.
    Redfish,
    /// Power off by IPMI.
    Ipmi,
    /// The host's own hardware watchdog, once its lease has run out.
    WatchdogLease,
    /// An operator.
    Manual,
}

impl Fencer {
    /// Whether it switches the power off; the others wait for their proof beside it.
    pub fn is_bmc(self) -> bool {
        matches!(self, Self::Redfish | Self::Ipmi)
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redfish => "redfish",
            Self::Ipmi => "ipmi",
            Self::WatchdogLease => "watchdog_lease",
            Self::Manual => "manual",
        }
    }
}

/// Why a host is not at work on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Maintenance {
    /// It is at work.
    #[default]
    None,
    /// A person may be inside the machine: never fenced or powered.
    Manual,
    /// An updater empties and reboots it.
    Auto,
    /// It is being given up.
    Termination,
}

/// Where a host stands: what fails together, and what the breaker counts by. The region is the cluster
/// of pallium itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct PlaceNames {
    /// Availability zone.
    pub az: String,
    /// Nova cell.
    pub cell: String,
    /// Building block.
    pub cluster: String,
    /// What shares a feed.
    pub power: String,
    /// What shares an enclosure or a BMC.
    pub chassis: String,
}

/// The same, interned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Places {
    /// Availability zone.
    pub az: Sym,
    /// Nova cell.
    pub cell: Sym,
    /// Building block.
    pub cluster: Sym,
    /// What shares a feed.
    pub power: Sym,
    /// What shares an enclosure or a BMC.
    pub chassis: Sym,
}

/// A host as the inventory has it.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct HostSpec {
    /// Its id.
    pub id: HostId,
    /// Nova's name of it, by which its provider is found.
    pub nova_host: String,
    /// Nova's compute service.
    pub nova_service: Option<Uuid>,
    /// Who the machine is.
    pub machine: Machine,
    /// Address of its BMC.
    pub bmc: Option<String>,
    /// Where it stands.
    pub places: PlaceNames,
    /// What fences it, the first level first.
    pub fencers: Vec<Fencer>,
    /// Whether failover acts on it at all.
    pub enabled: bool,
    /// Whether its libvirt asks the agent before it starts a guest. Without it the host is not protected
    /// against calls that come late: refused, unless `unchecked` says that this is meant.
    pub permit_check: bool,
    /// It is meant that nothing checks permits at the host.
    pub unchecked: bool,
    /// It boots with its guests alive (kexec handover): a new boot proves nothing then.
    pub keeps_guests: bool,
}

/// A watchdog device as the host's agent reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Watchdog {
    /// The agent has armed it, and disarms it only after apply knows that it will.
    pub armed: bool,
    /// It is hardware: a hung kernel does not stop it.
    pub hardware: bool,
    /// It cannot be stopped once it runs.
    pub nowayout: bool,
    /// The host is a virtual machine: its hypervisor may stop the device too.
    pub virtual_host: bool,
    /// The host can suspend: the device sleeps then.
    pub suspends: bool,
    /// It fires after so long, milliseconds.
    pub timeout: u64,
}

impl Watchdog {
    /// Why it proves nothing, if it does not.
    pub fn flaw(&self) -> Option<&'static str> {
        let flaws = [
            (!self.armed, "it is not armed"),
            (!self.hardware, "it is software: a hung kernel does not fire it"),
            (!self.nowayout, "nowayout is off: it can be stopped"),
            (self.virtual_host, "the host is virtual: its device may be paused with it"),
            (self.suspends, "the host can suspend: the device sleeps with it"),
            (self.timeout == 0, "it has no timeout"),
        ];
        flaws.into_iter().find_map(|(flawed, why)| flawed.then_some(why))
    }
}

/// What an agent says of itself when it begins a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// The kernel's boot id.
    pub boot: Uuid,
    /// The boot id that its disk remembers from before this boot.
    pub previous: Option<Uuid>,
    /// Who the machine is, by DMI.
    pub machine: Machine,
    /// The libvirt hook asks this agent.
    pub permit_check: bool,
    /// The host starts guests by itself when it boots: failover is refused then.
    pub resumes_guests: bool,
    /// Its watchdog.
    pub watchdog: Watchdog,
}

/// What is believed of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Detection {
    /// Nothing speaks against it, or nothing is known yet.
    #[default]
    Alive,
    /// It is silent.
    Suspect,
    /// Silent to us, and others see it run.
    Isolated,
    /// Silent to all that could see it, for long.
    Unreachable,
    /// Proven.
    Dead,
}

/// What is wrong with a host that lives: nothing is placed on it, and it is never fenced for that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Degraded(pub u8);

impl Degraded {
    /// It was suspected again and again.
    pub const FLAPS: Self = Self(1);
    /// Its libvirt does not answer.
    pub const LIBVIRT: Self = Self(2);
    /// Its nova-compute does not run.
    pub const COMPUTE: Self = Self(4);
    /// It does not reach its storage.
    pub const STORAGE: Self = Self(8);
    /// It goes down on purpose, and is not missed yet.
    pub const AWAY: Self = Self(16);

    /// Those of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are not among the other's.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of these are among them.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A belief, and whose it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Belief {
    /// What.
    pub detection: Detection,
    /// Since when, replicated milliseconds.
    pub since: u64,
    /// The leader that watched it. What another watched authorises nothing.
    pub by: Leader,
}

/// Boots of a host that are remembered.
pub const BOOTS: usize = 8;
/// Proofs of a host that are remembered.
pub const PROOFS: usize = 4;
/// Levels of fencing.
pub const FENCERS: usize = 8;

/// A host.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Host {
    /// Its id.
    pub id: HostId,
    /// Nova's name.
    pub nova_host: Sym,
    /// Nova's compute service.
    pub nova_service: Option<Uuid>,
    /// Who the machine is, by the inventory.
    pub machine: Machine,
    /// Address of its BMC.
    pub bmc: Option<String>,
    /// Where it stands.
    pub places: Places,
    /// What fences it.
    pub fencers: Vec<Fencer>,
    /// Failover acts on it.
    pub enabled: bool,
    /// It boots with its guests alive.
    pub keeps_guests: bool,
    /// It lives without a check of permits, on purpose.
    pub unchecked: bool,
    /// Its present life; 0: it never said Hello.
    pub incarnation: Incarnation,
    /// The boot of its present life; none: that life has not begun.
    pub boot: Option<Uuid>,
    /// Boots that are over, newest first.
    pub boots: Vec<Uuid>,
    /// The epoch in which it said Hello last.
    pub greeted: Option<u64>,
    /// Its watchdog, as it was armed.
    pub watchdog: Watchdog,
    /// What is believed of it.
    pub belief: Belief,
    /// The last case's number.
    pub case_seq: u64,
    /// Proofs of its former lives, newest first.
    pub proofs: Vec<Proof>,
    /// Pallium's own marks in Nova.
    pub forced_down: bool,
    /// The same for `disabled`.
    pub disabled: bool,
    /// Nothing is placed on it until an operator or its return says so.
    pub quarantined: bool,
    /// It must be rebooted before it comes back.
    pub must_reboot: bool,
    /// Why it is not at work.
    pub maintenance: Maintenance,
    /// Nobody fences it until then, replicated milliseconds.
    pub exempt: u64,
    /// What is wrong with it although it lives.
    pub degraded: Degraded,
    /// What was seen of it when another thing was believed, oldest first.
    pub seen: Vec<Seen>,
    /// Why it could not be fenced now.
    pub unfenced: Option<Unfenced>,
}

/// What the reads of a BMC have come to for long: no power state, or that of another machine.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Unfenced {
    /// Why, in words.
    pub why: String,
    /// Since when, replicated milliseconds.
    pub since: u64,
}

impl Unfenced {
    /// Milliseconds after which the host counts as not protected.
    pub const UNPROTECTED: u64 = 3_600_000;

    /// Whether nobody should count on its host being fenced.
    pub fn is_unprotected(&self, now: u64) -> bool {
        now.saturating_sub(self.since) >= Self::UNPROTECTED
    }
}

impl Entry for Host {
    type Key = HostId;
    fn key(&self) -> HostId {
        self.id
    }
}

impl Host {
    /// Why it could not be fenced now, while there is a BMC that should.
    pub fn unfenced(&self) -> Option<&Unfenced> {
        self.unfenced.as_ref().filter(|_| self.enabled && self.bmc.is_some())
    }

    /// Whether its present life has begun and was not proven over.
    pub fn is_open(&self) -> bool {
        self.boot.is_some()
    }

    /// The first level from one on that switches its power off.
    pub fn level(&self, from: usize) -> Option<(usize, Fencer)> {
        self.fencers.iter().copied().enumerate().skip(from).find(|(_, fencer)| fencer.is_bmc())
    }

    /// The proof that a life is over, if there is one. A machine lives one life at a time: what proves one
    /// over proves those before it too, so the oldest such proof that is kept is given.
    pub fn proof(&self, incarnation: Incarnation) -> Option<&Proof> {
        self.proofs.iter().rev().find(|proof| proof.incarnation >= incarnation)
    }

    /// Whether evacuations and drains may send instances to it: more is asked of it than of a host for new ones, off
    /// which only a [`cordon`](super::cordon) keeps them.
    pub fn takes_instances(&self) -> bool {
        let Self { enabled, quarantined, forced_down, disabled, must_reboot, .. } = *self;
        let free = !(quarantined || forced_down || disabled || must_reboot);
        let believed = self.belief.detection == Detection::Alive && self.maintenance == Maintenance::None;
        enabled && free && believed && self.is_open() && self.degraded.is_empty()
    }
}
