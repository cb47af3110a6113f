//! The real binary through its front door: HTTP requests as Nova sends them, answers as Nova reads
//! them, claims as the inventory shows them.

mod admission;
mod bad_input;
mod cluster;
mod command_line;
mod cordon;
mod drains;
mod failover;
mod features;
mod fixtures;
mod guests;
mod identities;
mod pipelines;
mod pods;
mod policies;
mod recording;
mod repeats;
mod simulate;
mod storage;
#[path = "../support/support.rs"]
mod support;
mod tls;
mod what_if;

use support::{server, spec};
