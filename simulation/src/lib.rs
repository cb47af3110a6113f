//! What tests, benches and the demo run on: seeded fleets and requests, fleets that match recorded
//! Nova requests, and a driver that runs the core in virtual time without Raft.
//!
//! Never here: a clock, or randomness that does not come from an explicit seed. Equal seeds give
//! equal output on every 64-bit machine (the generator is `rand`'s `SmallRng`; another version of
//! `rand` may give other numbers).

pub mod clusterless;
pub mod failover;
pub mod fixtures;
pub mod fleet;
pub mod requests;
pub mod trace;

pub use clusterless::Driver;
pub use fleet::{FLAVORS, Flavor, FleetSpec};
pub use requests::{Ask, Requests};
