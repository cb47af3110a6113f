//! Replication: the log, the snapshots, and the thread that owns the state.

pub mod wal;
