//! What libvirt says of the host's guests: a client of its RPC, and what keeps watching through it.
//!
//! The client is written here because the only crate that speaks the protocol without libvirt's C library
//! was given up in 2018. Nothing here changes a guest but [`stop`]: all else uses the read-only socket.

mod client;
mod control;
mod description;
mod watch;
mod wire;
mod xdr;

pub use client::Failure;
pub use control::stop;
pub use description::uuid as uuid_of;
pub use watch::{Libvirt, Seen, watch};
