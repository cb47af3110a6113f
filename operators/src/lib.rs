//! What talks to other systems. Today: reading a fleet out of Kubernetes Hypervisor resources or
//! out of pallium's own fleet file. Translation and validation only; nothing here decides.
//!
//! ```text
//!  text ──▶ document (trees, lines) ──▶ fleet | hypervisor ──▶ import (checks across hosts) ──▶ HostReport
//! ```

pub mod document;
pub mod fleet;
pub mod hypervisor;
pub mod import;
pub mod nearest;
pub mod quantity;
pub mod reader;
pub mod schema;

pub use import::{Import, ImportError, Kind, Skipped, read};
