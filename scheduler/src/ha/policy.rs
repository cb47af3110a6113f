//! What an operator has settled for the whole cluster: how bold failover is.

use bitcode::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// Least time that a host must have been isolated before it is fenced for that, milliseconds.
pub const ISOLATED: u64 = 60_000;

/// The policy. It is replicated, so that apply can hold the coordinator to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Policy {
    /// A host that only others see run is fenced after so long, milliseconds (`fence_after`). 0: its
    /// guests are left running (`hold`).
    pub fence_isolated: u64,
    /// A dead host is powered on again once its instances are settled.
    pub power_on: bool,
    /// What was on a host that comes back while a case of it is open is started there, where its disk is, unless
    /// it crashed before within a day; and so is a guest that crashed by itself. A host that boots before it is
    /// missed starts what it had whatever is said here.
    pub in_place: bool,
    /// Instances that were in error before are evacuated too.
    pub error_instances: bool,
    /// Hosts of a cluster that may be drained at once.
    pub drains: u32,
    /// A drain waits until its cluster could still lose another host (`hosts 1`).
    pub keep_spare: bool,
    /// A live migration that does not get on may be finished by force: the guest stands still for it.
    pub force_complete: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            fence_isolated: 0,
            power_on: false,
            in_place: false,
            error_instances: false,
            drains: 1,
            keep_spare: false,
            force_complete: false,
        }
    }
}
