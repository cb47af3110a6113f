//! What the front-door tests and the fault tests share: a server process and recorded requests.
//! Each of them uses a part of it.
#![allow(dead_code)]

pub mod agents;
pub mod network;
pub mod nodes;
pub mod server;
pub mod spec;
