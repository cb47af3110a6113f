//! The real binary under faults: killed at any moment, on a full disk, with a damaged log, and when
//! a thousand requests want the last slots. `cargo xtask test` runs these one at a time.

mod crash;
mod last_slot;
mod storage;
#[path = "../support/support.rs"]
mod support;

use support::{server, spec};
