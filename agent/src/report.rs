//! What an agent says ([`Envelope`]) and what it is told ([`Directive`]), as plain types: whoever carries
//! them maps them to their wire. Never here: a wire format, and anything that acts.
//!
//! Times named `boot_ns` are nanoseconds of the host's own `CLOCK_BOOTTIME`; they are never compared with
//! another machine's.

use uuid::Uuid;

/// Boots that a Hello names, the newest first.
pub const BOOTS: usize = 8;
/// Instances of a snapshot or a list of permits; a host with more is refused loudly.
pub const INSTANCES: usize = 4_096;
/// Disks and PCI devices of an instance that are reported.
pub const DEVICES: usize = 64;
/// Bytes of a name, a path or a reason; what is longer is cut.
pub const TEXT: usize = 1_024;

/// One report, with what it takes to put it in order. It is numbered when it is handed out for sending.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// The host.
    pub host: Uuid,
    /// The kernel's boot id.
    pub boot: Uuid,
    /// It grows with each start of the agent, across boots.
    pub agent_epoch: u64,
    /// It grows with each envelope of one agent epoch; gaps are allowed.
    pub seq: u64,
    /// When it was handed out.
    pub boot_ns: u64,
    /// The same by the wall clock, milliseconds since 1970: for people.
    pub wall_ms: u64,
    /// The highest directive that was processed.
    pub ack_directive: u64,
    /// What is said.
    pub body: Body,
}

/// What is said.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// The first of each session.
    Hello(Box<Hello>),
    /// Every two seconds. Never waits behind events; only the newest is kept.
    Heartbeat(Heartbeat),
    /// Every thirty seconds.
    Uptime(Uptime),
    /// What is on the host: whole each minute, what changed as it changes.
    Instances(Instances),
    /// What happened to a guest. A hint: snapshots are the truth.
    DomainEvent(DomainEvent),
    /// So many events were lost because nobody took them; a whole snapshot follows.
    EventsDropped {
        /// How many.
        events: u64,
    },
    /// The agent leaves on purpose.
    Goodbye {
        /// Why.
        reason: Goodbye,
        /// Seconds that the host expects to be away; 0: unknown.
        expected_down_s: u32,
    },
    /// What became of a directive of this session: at once when it is refused, and when its effects are on the
    /// disk otherwise. Leases and wishes for a report are answered only when they are refused.
    DirectiveResult {
        /// Which.
        directive: u64,
        /// None: done. Else why not.
        refused: Option<String>,
    },
}

/// What an agent says of itself and its host when a session begins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hello {
    /// The agent's version.
    pub agent_version: String,
    /// The kernel's release.
    pub kernel: String,
    /// libvirt's version, such as `9.0.0`; none: it has not answered yet.
    pub libvirt_version: Option<String>,
    /// libvirt's name of its hypervisor, such as `QEMU`.
    pub hypervisor: Option<String>,
    /// Nova's name of the host.
    pub nova_host: String,
    /// The last boot before this one whose Hello was answered; none was: the last one that the disk
    /// remembers. None: the disk remembers none.
    pub previous: Option<Uuid>,
    /// All boots before this one that the disk remembers, answered or not, the newest first. A boot in
    /// which nobody was reached stands only here.
    pub boots: Vec<Uuid>,
    /// The cluster that this agent belongs to; none: it has not met one.
    pub cluster: Option<Uuid>,
    /// DMI system UUID.
    pub machine_uuid: Option<Uuid>,
    /// DMI system serial number.
    pub machine_serial: Option<String>,
    /// libvirt's hook was called as libvirt calls it, and it asked this agent.
    pub permit_check: bool,
    /// The host starts guests by itself when it boots.
    pub resumes_guests: bool,
    /// What makes it so, for people: `autostart of instance-00000007`.
    pub resumes_by: Vec<String>,
    /// Its watchdog.
    pub watchdog: Watchdog,
    /// It starts no guest until it is let (directive [`Order::Quarantine`]).
    pub quarantined: bool,
}

/// A watchdog device. A fact that cannot be read is the one that proves less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watchdog {
    /// There is one.
    pub present: bool,
    /// This agent feeds it.
    pub armed: bool,
    /// It is hardware.
    pub hardware: bool,
    /// It cannot be stopped once it runs.
    pub nowayout: bool,
    /// The host is a virtual machine.
    pub virtual_host: bool,
    /// The host can suspend.
    pub suspends: bool,
    /// It fires after so many milliseconds without food.
    pub timeout_ms: u64,
}

/// That it lives, and how well.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heartbeat {
    /// libvirt answered within its deadline (5 s).
    pub libvirt_ok: bool,
    /// Its last round trip, milliseconds.
    pub libvirt_rtt_ms: u32,
    /// nova-compute runs; none: the agent was not told how to see that.
    pub nova_compute_ok: Option<bool>,
    /// Guests that run or are paused.
    pub domains_active: u32,
    /// Guests that libvirt started in this epoch of the agent without asking it. Anything but 0: the
    /// permit check is not in force.
    pub unasked_starts: u32,
    /// Instances whose start waits for a permit.
    pub waiting: Vec<Uuid>,
    /// Guests that libvirt has lost its hold of, the first of them.
    pub unmanaged: Vec<Uuid>,
    /// Load of one minute.
    pub load1: f32,
    /// Pressure (PSI, some, 10 s), per cent.
    pub pressure: Pressure,
    /// The last lease that was taken in.
    pub lease: Option<LeaseEcho>,
    /// The watchdog is fed.
    pub fed: bool,
    /// It starts no guest until it is let.
    pub quarantined: bool,
}

/// Pressure stall information.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// Of the processors.
    pub cpu: f32,
    /// Of the memory.
    pub memory: f32,
    /// Of input and output.
    pub io: f32,
}

/// A lease that has arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseEcho {
    /// Which.
    pub lease: u64,
    /// When it came.
    pub received_boot_ns: u64,
}

/// How long the host runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uptime {
    /// Now.
    pub boot_ns: u64,
    /// When it booted by the wall clock, milliseconds since 1970.
    pub boot_wall_ms: u64,
    /// So long of this boot it was suspended.
    pub suspended_ns: u64,
}

/// What is on the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Instances {
    /// All there is: what is not listed is not there. Else only what changed.
    pub whole: bool,
    /// When libvirt was asked. A list is of this moment or later.
    pub asked_boot_ns: u64,
    /// Those that changed, or all.
    pub present: Vec<Instance>,
    /// Those that are gone (never in a whole list).
    pub gone: Vec<Uuid>,
    /// xxh3 (64 bits) over all that are there after this, in the order of their uuids: of each the 16 bytes of
    /// its uuid and the number of its state.
    pub snapshot_hash: u64,
}

/// A libvirt domain. Nova's instances have their own uuid as the domain's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Instance {
    /// Its uuid.
    pub uuid: Uuid,
    /// libvirt's name of it.
    pub name: String,
    /// Its state.
    pub state: DomainState,
    /// Why, by libvirt's codes for that state.
    pub state_reason: i32,
    /// libvirt's number of it; none: it does not run.
    pub domain_id: Option<u32>,
    /// Its process; none: it does not run, or it cannot be read.
    pub pid: Option<u32>,
    /// libvirt starts it when it boots.
    pub autostart: bool,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// PCI devices that are handed through, `0000:3b:00.0`.
    pub pci: Vec<String>,
    /// It has a virtual TPM.
    pub has_vtpm: bool,
    /// Its state says that it is being moved: paused for it, or in post-copy. Where to, and that a source
    /// still copies, libvirt does not say here.
    pub migrating: bool,
}

/// A disk of a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Disk {
    /// Where it lies: `rbd:POOL`, `nfs:SERVER`, `iscsi:TARGET`, `file`, `block`, …
    pub backend: String,
    /// Other hosts reach it too.
    pub shared: bool,
    /// Nothing is written to it.
    pub readonly: bool,
    /// A hash of its whole source: equal sources have equal hashes on every host.
    pub path_hash: u64,
    /// libvirt's name of the device, as events give it: `virtio-disk0`.
    pub alias: String,
}

/// libvirt's `virDomainState`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DomainState {
    /// None, or one that is not known here.
    #[default]
    Unknown,
    /// It runs.
    Running,
    /// It waits for a resource.
    Blocked,
    /// It is paused.
    Paused,
    /// It is shutting down.
    ShuttingDown,
    /// It is off.
    ShutOff,
    /// It has crashed.
    Crashed,
    /// Its guest has suspended it.
    PmSuspended,
}

/// What happened to a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainEvent {
    /// Its uuid.
    pub instance: Uuid,
    /// libvirt's name of it.
    pub name: String,
    /// When the agent heard of it.
    pub boot_ns: u64,
    /// What.
    pub event: Event,
}

/// Kinds of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A change of its life.
    Lifecycle {
        /// Which.
        event: Lifecycle,
        /// How, by libvirt's codes for that event (`virDomainEventStoppedDetailType`, …).
        detail: i32,
    },
    /// The guest rebooted.
    Reboot,
    /// Its own watchdog fired.
    Watchdog {
        /// What was done: 0 none, 1 pause, 2 reset, 3 power off, 4 shutdown, 5 debug, 6 inject an NMI.
        action: i32,
    },
    /// One of its disks failed.
    IoError {
        /// Source of the disk.
        path: String,
        /// The device, as in [`Disk::alias`].
        device: String,
        /// What was done: 0 none, 1 pause, 2 report to the guest.
        action: i32,
        /// Why, if QEMU says so: `enospc`.
        reason: String,
    },
    /// libvirt has lost its hold of the guest.
    ControlError,
    /// Broken memory.
    MemoryFailure {
        /// 0: the hypervisor's, 1: the guest's.
        recipient: i32,
        /// 0 ignored, 1 injected, 2 fatal, 3 reset.
        action: i32,
        /// 1: action required, 2: recursive.
        flags: u32,
    },
    /// The guest's own agent came or went.
    GuestAgent {
        /// It came.
        connected: bool,
        /// 0 unknown, 1 the domain started, 2 its channel.
        reason: i32,
    },
}

/// libvirt's `virDomainEventType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// Defined: 0 added, 1 updated, 2 renamed, 3 from a snapshot.
    Defined,
    /// Undefined.
    Undefined,
    /// Started: 0 booted, 1 migrated, 2 restored, 3 from a snapshot, 4 woken up, 5 recovered.
    Started,
    /// Suspended: 0 paused, 1 migrated, 2 I/O error, 3 watchdog, 4 restored, 5 from a snapshot, 6 API error,
    /// 7 post-copy, 8 post-copy failed.
    Suspended,
    /// Resumed.
    Resumed,
    /// Stopped: 0 shut down, 1 destroyed, 2 crashed, 3 migrated, 4 saved, 5 failed, 6 from a snapshot,
    /// 7 recreated.
    Stopped,
    /// Its guest has shut it down: 0 finished, 1 by the guest, 2 by the host.
    Shutdown,
    /// Suspended by its guest.
    PmSuspended,
    /// Crashed: 0 panicked, 1 crash loaded.
    Crashed,
    /// One that is not known here.
    Other(i32),
}

/// Why an agent leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goodbye {
    /// The host shuts down.
    Shutdown,
    /// The host reboots.
    Reboot,
    /// Only the agent ends; the host and its guests go on.
    AgentRestart,
    /// An operator works on it.
    Maintenance,
}

/// What a server tells an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// Its number, growing; envelopes acknowledge it.
    pub id: u64,
    /// The cluster that speaks. One that is not this agent's is refused, whatever it says.
    pub cluster: Uuid,
    /// What.
    pub order: Order,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// The Hello was taken in, and is committed: the answer that opens the permit check. All that was known
    /// of another incarnation is forgotten.
    Welcome {
        /// The host's present life.
        incarnation: u64,
        /// Nothing may start on it yet.
        quarantined: bool,
        /// nova-compute is held back.
        holds_compute: bool,
        /// All instances that may run here, in that life.
        permits: Vec<Uuid>,
    },
    /// Permits have changed. One for another incarnation is refused.
    Permits {
        /// The life.
        incarnation: u64,
        /// Forget all others first.
        whole: bool,
        /// These may run here.
        granted: Vec<Uuid>,
        /// These may no longer.
        withdrawn: Vec<Uuid>,
    },
    /// The answer to a heartbeat: the watchdog may be fed until `ttl_ms` after that heartbeat was sent.
    LeaseGrant {
        /// Which.
        lease: u64,
        /// The heartbeat's number.
        for_seq: u64,
        /// How long, milliseconds.
        ttl_ms: u64,
    },
    /// Quarantine begins or ends.
    Quarantine {
        /// It begins.
        on: bool,
    },
    /// nova-compute is held back, or may start.
    Compute {
        /// It may start.
        on: bool,
    },
    /// Arm the watchdog, or disarm it (only after `armed: false` is committed).
    Watchdog {
        /// Arm it.
        on: bool,
    },
    /// End the processes of these guests, as by pulling their plugs: they may not run here. One that may, by what this
    /// agent was told last, makes the whole refused.
    StopGuests {
        /// Which.
        instances: Vec<Uuid>,
    },
    /// Send a whole snapshot and a heartbeat now.
    ReportNow,
}
