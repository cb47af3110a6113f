//! What a request is for. The hook's label (`_nova_check_type`) is one source, the state another:
//! see `nova-pipeline` 0.5, implemented by [`Intent::derive`].

use std::fmt;

use bitcode::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// The purpose of a placement request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// A consumer that does not run anywhere yet.
    #[default]
    Create,
    /// Check of the present host with a new image; claims nothing.
    Rebuild,
    /// Resize or cold migration.
    Resize,
    /// Live migration.
    LiveMigration,
    /// Restart elsewhere of an instance whose host is down.
    Evacuate,
    /// A move without a label.
    Move,
    /// Placement of a new failover reservation.
    ReserveForFailover,
    /// Fit check of an existing failover reservation.
    ReuseFailoverReservation,
    /// Placement of a committed-resource slot.
    ReserveForCommittedResource,
    /// A question, not a placement.
    CapacityProbe,
}

impl Intent {
    /// The name used in answers, metrics and history.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Rebuild => "rebuild",
            Self::Resize => "resize",
            Self::LiveMigration => "live_migration",
            Self::Evacuate => "evacuate",
            Self::Move => "move",
            Self::ReserveForFailover => "reserve_for_failover",
            Self::ReuseFailoverReservation => "reuse_failover_reservation",
            Self::ReserveForCommittedResource => "reserve_for_committed_resource",
            Self::CapacityProbe => "capacity_probe",
        }
    }

    /// Reads a `_nova_check_type` label (exact, case-sensitive; anything unknown is a create).
    pub fn from_label(label: &str) -> Self {
        match label {
            "rebuild" => Self::Rebuild,
            "resize" => Self::Resize,
            "live_migrate" => Self::LiveMigration,
            "evacuate" => Self::Evacuate,
            "reserve_for_failover" => Self::ReserveForFailover,
            "reuse_failover_reservation" => Self::ReuseFailoverReservation,
            "reserve_for_committed_resource" => Self::ReserveForCommittedResource,
            "capacity_probe" => Self::CapacityProbe,
            _ => Self::Create,
        }
    }

    /// True for the intents that put an existing instance on another host: the claim is a second
    /// consumer, and the instance keeps its source until it is observed gone there.
    pub fn is_move(self) -> bool {
        matches!(self, Self::Resize | Self::LiveMigration | Self::Evacuate | Self::Move)
    }

    /// True for the intents of pallium's own controllers, which many filters skip.
    pub fn is_internal(self) -> bool {
        matches!(
            self,
            Self::ReserveForFailover
                | Self::ReuseFailoverReservation
                | Self::ReserveForCommittedResource
                | Self::CapacityProbe
        )
    }
}

impl fmt::Display for Intent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
