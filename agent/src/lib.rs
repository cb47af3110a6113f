//! The agent of a compute host: it reports what the host and its guests do, and lets only those guests
//! start that are permitted there.
//!
//! It knows no transport: what it says are [`report::Envelope`]s, what it is told are
//! [`report::Directive`]s. It never calls Nova, a BMC or a peer, and never stops or starts a guest.

mod agent;
pub mod core;
mod disk;
pub mod hook;
pub mod host;
pub mod identity;
pub mod lease;
pub mod libvirt;
pub mod permits;
pub mod report;
pub mod simulated;
mod table;
pub mod watchdog;

pub use agent::{Agent, Failure, Session, Settings, Teller};
