//! The real binary under faults: killed at any moment, on a full disk, with damaged files, restored, and when
//! a thousand requests want the last slots. `cargo xtask test` runs these one at a time.

mod backup;
mod crash;
mod failover;
mod last_slot;
mod storage;
#[path = "../support/support.rs"]
mod support;

use support::{server, spec};
