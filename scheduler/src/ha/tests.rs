//! Failover on the replicated state alone: each stop is what refuses, and what the table of cases says.

mod admission;
pub(super) mod bench;
mod cordon;
mod cordon_any;
mod hook;
mod liveness;
mod masakari;
mod note;
mod paths;
mod planner;
mod poison;
mod policy;
mod stops;
mod unhelped;
mod verdict;
