//! The agent of a compute host: it reports what the host and its guests do, and lets only those guests
//! start that are permitted there.
//!
//! It knows no transport: what it says are [`report::Envelope`]s, what it is told are
//! [`report::Directive`]s. It never calls Nova, a BMC or a peer, and never stops or starts a guest.

pub mod report;
