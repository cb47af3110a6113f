//! Replication: the log, the snapshots, the membership, and the thread that owns the state.
//!
//! [`Node`] is all that others need of a running node; [`verify`] and [`restore`] work on the folder of
//! one that is stopped, [`backup`] on the files that both know. Below it: [`owner`] decides, packs and applies; [`store`] and
//! [`machine`] connect openraft to the log ([`wal`]) and to the owner; [`snapshot`] keeps snapshot
//! files. Types of openraft do not leave this crate. Nothing here knows a protocol or a plugin.
//!
//! ```text
//!  Node::decide ──▶ owner thread ──▶ batch ──▶ openraft ──▶ wal (one write, one sync)
//!        ▲               ▲                        │
//!        └── Decision ───┴──── apply ◀── machine ◀┘
//! ```

pub mod backup;
pub mod identity;
pub mod node;
pub mod refused;
pub mod restore;
pub mod verify;
pub mod wal;

#[cfg(test)]
mod fixture;
mod machine;
mod network;
mod owner;
mod snapshot;
mod store;
mod types;

pub use backup::Backup;
pub use identity::{Identity, IdentityError};
pub use node::{Node, OpenError, Options, Status};
pub use owner::Limits;
pub use refused::Refused;
pub use snapshot::SnapshotError;
