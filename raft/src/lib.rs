//! Replication: the log, the snapshots, the membership, and the thread that owns the state.
//!
//! [`Node`] is all that others need of a running node, on whichever node they are: one that does not
//! lead asks the one that does. [`verify`] and [`restore`] work on the folder of one that is stopped,
//! [`backup`] on the files that both know. Below: [`local`] is what a node does for itself; [`owner`]
//! decides, packs and applies; [`store`] and
//! [`machine`] connect openraft to the log ([`wal`]) and to the owner; [`snapshot`] keeps snapshot
//! files; [`peer`] is what nodes say to one another; [`members`] changes who
//! they are. Types of openraft do not leave this crate. Nothing here knows a protocol or a plugin.
//!
//! ```text
//!  Node::decide ──▶ owner thread ──▶ batch ──▶ openraft ──▶ wal (one write, one sync)
//!        ▲               ▲                        │
//!        └── Decision ───┴──── apply ◀── machine ◀┘
//! ```

pub mod backup;
pub mod ears;
pub mod identity;
pub mod members;
pub mod node;
pub mod peer;
pub mod refused;
pub mod restore;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod verify;
pub mod wal;

mod clock;
#[cfg(any(test, feature = "simulation"))]
mod fixture;
mod local;
mod machine;
mod mailbox;
mod owner;
mod snapshot;
mod store;
mod tasks;
mod types;

pub use backup::Backup;
pub use identity::{Identity, IdentityError};
pub use node::{Begin, Cluster, Freshness, Node, OpenError, Options, Status};
pub use owner::Limits;
pub use refused::Refused;
pub use snapshot::SnapshotError;
