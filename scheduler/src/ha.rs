//! The failover coordinator: from a silent host to running instances, exactly once.
//!
//! One invariant: **no instance is started on a host while another may still be executing it or writing
//! its disks.** Availability is given up for it. It rests on three separations: to suspect is not to know
//! (only a [proof](proof) makes a host dead), to kill is not to recover (the [breaker](breaker) stops
//! fencing, not the recovery of what is proven dead), and to decide is not to do (each effect on the
//! world is an intent in the log first, and an outcome in the log after).
//!
//! ```text
//!  ears ─▶ liveness ─▶ coordinator ─▶ Order ─▶ (log) ─▶ apply ─▶ Failover (replicated)
//!          (leader's memory)   │                                    │
//!                              └─▶ Call, with its Barrier ◀─────────┘   done by the executor, told as Order
//! ```
//!
//! Never here: I/O, a clock, async, randomness. Replicated time is the batch's; the leader's own
//! monotonic time comes in as an argument. What only the leader knows may delay an act or begin a
//! suspicion; an act needs a replicated fact.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`order`] | what goes through the log: [`Order`] and its [`Change`]s |
//! | [`refusal`] | why apply did not do it, for people |
//! | [`host`], [`case`], [`proof`], [`recovery`], [`breaker`] | the replicated state, by noun |
//! | [`cordon`] | hosts on which nothing new is placed |
//! | [`drain`] | planned work: emptying a host that lives |
//! | [`mark`] | which cluster acts on this cloud |
//! | [`masakari`] | what Masakari's API keeps |
//! | [`note`] | what is kept for people: sightings, timelines, orders |
//! | [`poison`] | guests in quarantine |
//! | [`policy`] | how bold failover is |
//! | [`reentry`], [`restart`] | the return of a host, and guests that are started where they were |
//! | [`trouble`] | what befell single guests of hosts that live |
//! | [`table`] | [`Failover`]: all of it, bounded |
//! | `apply` | the guards, and the only place where it changes |
//! | [`liveness`] | what the leader sees of hosts, in its own memory |
//! | [`admission`] | which hosts could not be lost now |
//! | [`planner`] | targets for the instances of a dead host |
//! | [`coordinator`] | what to propose and which calls are due |
//! | [`stop`] | the guards that keep an instance from running twice, by name |

pub mod admission;
pub mod breaker;
pub mod case;
pub mod coordinator;
pub mod cordon;
pub mod drain;
pub mod host;
pub mod keyed;
pub mod liveness;
pub mod mark;
pub mod masakari;
pub mod note;
pub mod order;
pub mod planner;
pub mod poison;
pub mod policy;
pub mod proof;
pub mod recovery;
pub mod reentry;
pub mod refusal;
pub mod restart;
pub mod stale;
pub mod stop;
pub mod table;
pub mod trouble;

pub(crate) mod apply;
pub(crate) mod invariants;
#[cfg(test)]
mod tests;

pub use case::{Case, CaseId, Phase};
pub use coordinator::Coordinator;
pub use host::{Detection, Host, HostId, HostSpec};
pub use liveness::Liveness;
pub use order::{Actor, Change, Leader, Order, Role};
pub use policy::Policy;
pub use proof::{Evidence, Kind, Proof};
pub use recovery::{Attempt, Permit, Recovery};
pub use refusal::Refusal;
pub use stop::Stop;
pub use table::Failover;

/// The feature level from which on there is failover.
pub const LEVEL: u8 = crate::level::FAILOVER;

/// Shortest time of silence in front of a suspicion, milliseconds (`T_suspect` is 6 to 10 s).
pub const SUSPECT: u64 = 6_000;
/// Continuous negative evidence in front of `Unreachable`, milliseconds.
pub const CONFIRM: u64 = 15_000;
/// A host that goes down on purpose is missed after so long at the latest, milliseconds.
pub const AWAY: u64 = 900_000;
/// Groups of observers that must be negative, the management group among them.
pub const GROUPS: usize = 2;
/// Between two reads of a power state that count as two, milliseconds.
pub const APART: u64 = 2_000;
/// Life of what an operator was asked to confirm, milliseconds.
pub const TOKEN: u64 = 300_000;
/// Longest life of an override, milliseconds.
pub const OVERRIDE: u64 = 24 * 3_600_000;
/// Bytes of a text in an order: a name, a reason, a raw state.
pub const TEXT: usize = 512;
