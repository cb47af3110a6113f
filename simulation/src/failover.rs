//! Failover in a deterministic world: the truth about hosts, guests, power and Nova on one side, the
//! replicated state and the coordinator of whoever leads on the other, and the invariants of the fault
//! catalogue checked after every event.
//!
//! The truth never reads the state, and the coordinator never reads the truth but through its ears: digests,
//! observers, BMC reads and Nova's answers.

mod ask;
mod check;
mod executor;
mod nova;
mod play;
pub mod random;
pub mod scenarios;
mod truth;
mod world;

pub use nova::{Nova, Trouble};
pub use truth::{Bmc, TrueHost};
pub use world::{Cut, Flaw, World};
