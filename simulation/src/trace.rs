//! Recorded streams of requests, played in virtual time into the same core that serves live ones: which policy packs better,
//! how many hosts are needed, what breaks when hosts fail.
//!
//! ```text
//! events, hosts ──▶ Inputs ──▶ Estate (core + engine + one pipeline) ──▶ decide, claim, apply ──▶ Meter ──▶ results
//!                                ▲                                                 │
//!                                └──────────── create, delete, report ◀────────────┘
//! ```
//!
//! Nothing here decides: a policy is a pipeline, and a host is chosen by [`scheduler::Core::decide`] and claimed by its
//! command. Equal inputs, seed and version give equal results, whatever the number of threads: runs are side by side, the
//! events of one run never are.

pub mod bounds;
pub mod estate;
pub mod events;
pub mod failures;
pub mod hosts;
pub mod inflate;
pub mod lifetimes;
pub mod meter;
pub mod metrics;
pub mod migrations;
pub mod outages;
pub mod picture;
pub mod policy;
pub mod rebalance;
pub mod record;
pub mod replay;
pub mod report;
pub mod run;
pub mod seeds;
pub mod shape;
pub mod sheet;
pub mod survive;
pub mod table;
pub mod variation;

pub use bounds::{Bounds, Limits};
pub use estate::Estate;
pub use events::Trace;
pub use failures::Failures;
pub use hosts::{Host, HostList, Ratios};
pub use meter::Metrics;
pub use policy::Policy;
pub use replay::{Inputs, Watch};
pub use run::{Mode, Study};
pub use shape::Shape;
pub use table::BadInput;
