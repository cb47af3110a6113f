//! openraft's type parameters, and what an entry carries.
//!
//! The only types of openraft's configuration are here; nothing here decides or stores anything.

use std::fmt;

use bytes::Bytes;
use openraft::OptionalSend;
use openraft::alias::{EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf};
use openraft::impls::leader_id_adv;
use openraft::raft::responder::Responder;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::machine::SnapshotFile;

/// The configuration. A leader is named by term and node.
#[derive(Debug, Clone, Copy, Default, Eq, PartialEq, Ord, PartialOrd)]
pub struct TypeConfig;

pub type LogId = LogIdOf<TypeConfig>;
pub type Vote = VoteOf<TypeConfig>;
pub type Entry = EntryOf<TypeConfig>;
pub type StoredMembership = StoredMembershipOf<TypeConfig>;
pub type SnapshotMeta = SnapshotMetaOf<TypeConfig>;
pub type Snapshot = SnapshotOf<TypeConfig, SnapshotFile>;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Payload;
    type R = ();
    type NodeId = u64;
    type Node = Member;
    type Term = u64;
    type LeaderId = leader_id_adv::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Self::D, Self::NodeId, Self::Node>;
    type Entry = openraft::Entry<Self::LeaderId, Self::Payload>;
    type AsyncRuntime = crate::tasks::Runtime;
    type Responder<T>
        = Callback<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::AnyError;
}

/// An encoded [`scheduler::Batch`]: encoded once by the leader, decoded once on each node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload(pub Bytes);

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Payload, D::Error> {
        serde_bytes::ByteBuf::deserialize(deserializer).map(|bytes| Payload(bytes.into_vec().into()))
    }
}

/// A member of the cluster, as the membership records it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Address of its Raft port, `host:port`; empty for a lone node.
    pub addr: String,
    /// Random id of its data folder: another folder under the same node id is another member.
    pub store: Uuid,
}

/// Called once with the result of a proposal, or with none when openraft dropped it.
pub struct Callback<T>(Option<Box<dyn FnOnce(Option<T>) + Send>>);

impl<T> Callback<T> {
    /// Wraps a function.
    pub fn new(call: impl FnOnce(Option<T>) + Send + 'static) -> Self {
        Callback(Some(Box::new(call)))
    }

    fn call(&mut self, result: Option<T>) {
        if let Some(call) = self.0.take() {
            call(result);
        }
    }
}

impl<T> Drop for Callback<T> {
    fn drop(&mut self) {
        self.call(None);
    }
}

impl<T: OptionalSend + 'static> Responder<TypeConfig, T> for Callback<T> {
    fn on_complete(mut self, result: T) {
        self.call(Some(result));
    }
}
