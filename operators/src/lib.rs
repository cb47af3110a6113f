//! What talks to other systems: reads a fleet out of Kubernetes Hypervisor resources or out of pallium's
//! own fleet file, and carries out what failover has decided ([`failover`], by [`hands`]), and tells what happened
//! ([`events`]). Nothing here decides.
//!
//! ```text
//!  text ──▶ document (trees, lines) ──▶ fleet | hypervisor ──▶ import (checks across hosts) ──▶ HostReport
//! ```

pub mod document;
pub mod events;
pub mod failover;
pub mod fleet;
pub mod hands;
pub mod hypervisor;
pub mod import;
pub mod nearest;
pub mod quantity;
pub mod reader;
pub mod schema;

pub use import::{Import, ImportError, Kind, Skipped, read};
