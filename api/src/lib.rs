//! Every server-side protocol of pallium, on one port: translation only, nothing is decided here.
//!
//! ```text
//!  server ── limits, request id, metrics ─┬─ hook  ── nova, storage ──┐
//!                                         ├─ rest  ──┐                ├─▶ raft::Node
//!                                         ├─ grpc  ──┴─ service ──────┤
//!                                         └─ masakari ────────────────┘
//! ```
//!
//! REST and gRPC are the same messages ([`proto::v1`]) over the same methods (`service`). Secrets
//! that a caller sends along (connection strings of a cell, tokens of a context) are never read into
//! anything; bodies are never logged.

pub mod body;
pub mod error;
pub mod limits;
pub mod nova;
pub mod proto;
pub mod server;
pub mod storage;

mod backup;
mod cluster;
mod convert;
mod failover;
mod grpc;
mod guest;
mod histogram;
mod hook;
mod identity;
mod masakari;
mod metrics;
mod pipelines;
mod pod;
mod record;
mod rest;
mod service;
mod watch;
mod what_if;

pub use error::ApiError;
pub use failover::Mode;
pub use identity::{Identities, Identity};
pub use limits::ApiConfig;
pub use server::{Doors, ServeError, serve};
