//! What nodes of a cluster say to one another.
//!
//! [`message`] is what is said, [`link`] how it gets there (gRPC in [`grpc`], something else in a
//! simulation), [`network`] is openraft's view of it, and [`door`] answers on the other side.
//! Nothing here decides; every letter names cluster, sender and addressee, and is refused when one
//! of them is not who it should be.

pub mod acknowledged;
pub mod door;
pub mod grpc;
pub mod incoming;
pub mod link;
pub mod message;
pub mod network;
