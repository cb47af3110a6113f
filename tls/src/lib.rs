//! TLS for every port: certificates out of PEM files, read again when the files change.
//!
//! rustls with the ring provider. A connection that is open goes on with what it began with; a new
//! one takes the newest files that made sense. Nothing here trusts the system's roots, turns a check
//! off, or knows what is spoken over a connection.

mod certificate;
mod client;
mod development;
mod error;
mod files;
mod live;
mod server;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use client::{Client, ConnectError};
pub use development::{Development, development};
pub use error::Error;
pub use files::Files;
pub use server::{ClientAuth, Refused, Server};
pub use stream::Stream;

/// A protocol by its ALPN name.
pub type Protocol = &'static [u8];

/// HTTP/2 alone: between nodes, and gRPC.
pub const H2: &[Protocol] = &[b"h2"];
/// HTTP/2, else HTTP/1.1: the port for clients.
pub const HTTP: &[Protocol] = &[b"h2", b"http/1.1"];

fn alpn(protocols: &[Protocol]) -> Vec<Vec<u8>> {
    protocols.iter().map(|name| name.to_vec()).collect()
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
