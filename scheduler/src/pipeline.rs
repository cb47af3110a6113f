//! Pipelines: steps that drop hosts (filters) and score them (weighers), described by data,
//! compiled once, run for each request over masks and columns.

pub mod admission;
pub mod cordon;
pub mod cx;
pub mod engine;
pub mod lint;
pub mod run;
pub mod scoring;
pub mod spec;
mod standing;
pub mod step;
pub mod survivors;

pub use cx::{Cx, View};
pub use engine::Engine;
pub use scoring::{Bounds, Factors, Scoring};
pub use spec::{Param, PipelineSpec, SpecError, StepSpec};
pub use standing::Standings;
pub use step::{Filter, FilterPlugin, Reads, Registry, Verdict, Weigher, WeigherPlugin};
pub use survivors::{Detail, Event, Survivors};
