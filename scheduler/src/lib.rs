//! The core of pallium: the replicated model, the state machine, the column index, the pipeline
//! engine and the decision.
//!
//! Never here: I/O, async, threads, a clock, unseeded randomness, or an output that depends on the
//! iteration order of a hash map. Time is a field of what is applied.
//!
//! ```text
//!  Request ──▶ Core::decide ──▶ Proposal ──▶ Command ──▶ (log) ──▶ Core::apply ──▶ Outcome
//!                │  Engine (pipelines of plugins)                     │
//!                └─ Index (columns, facets) ◀── refresh ── State ◀────┘
//! ```

pub mod catalogue;
pub mod chunked;
pub mod command;
pub mod consumer;
pub mod core;
pub mod decision;
pub mod domain;
pub mod features;
pub mod ha;
pub mod host_state;
pub mod index;
pub mod intent;
pub mod invariants;
pub mod inventory;
pub mod level;
pub mod mutant;
pub mod names;
pub mod numa;
pub mod pipeline;
pub mod pod;
pub mod provider;
pub mod rebalance;
pub mod recording;
pub mod remedy;
pub mod report;
pub mod request;
pub mod rows;
pub mod settings;
pub mod sharded;
pub mod snapshot;
pub mod state;
pub mod what_if;

mod alike;
mod apply;
mod checksum;
mod overlay;

pub use crate::core::{Core, Proposal, Refusal, Settled};
pub use catalogue::Catalogue;
pub use command::{Batch, Command, DecodeError, Outcome, Proposer};
pub use consumer::{Consumer, Phase, Purpose};
pub use decision::Decision;
pub use domain::Domain;
pub use features::FeatureReport;
pub use host_state::{HostNumber, HostState};
pub use index::{Facet, Index};
pub use intent::Intent;
pub use inventory::Inventory;
pub use level::Levels;
pub use names::{Names, Sym};
pub use pipeline::engine::Engine;
pub use provider::{Aggregate, Amounts, Provider, Row};
pub use remedy::{Aspect, Remedies};
pub use report::{AggregateReport, HostReport, InstanceReport, NumaCell};
pub use request::Request;
pub use rows::{Mask, Rows};
pub use settings::Settings;
/// Host names: short ones lie inline, long ones are shared.
pub use smol_str::SmolStr;
pub use snapshot::{Decoded, Frozen, Piece, Restore, SnapshotError};
pub use state::{State, Tables};
