//! The server as the hands see it, for tests.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use operators::failover::Gate;
use operators::hands::{Known, Ledger, View};
use scheduler::ha::coordinator::Barrier;
use scheduler::ha::host::{Fencer, HostId};
use scheduler::ha::order::Leader;
use uuid::Uuid;

/// A ledger that a test fills in.
#[derive(Default)]
pub struct Book {
    pub hosts: BTreeMap<HostId, Known>,
    /// The dead host of all instances.
    pub source: Option<HostId>,
    /// The fencer of all intents.
    pub fencer: Option<Fencer>,
    pub absent: Option<u64>,
    /// The intent whose barrier holds; none: all do.
    pub only: Mutex<Option<Uuid>>,
    /// How often a barrier was asked for.
    pub checks: AtomicUsize,
}

/// A ledger that the hands and the test share.
#[derive(Clone, Default)]
pub struct Shared(pub Arc<Book>);

impl Ledger for Shared {
    type View = Self;

    async fn view(&self) -> Option<Self> {
        Some(self.clone())
    }
}

impl View for Shared {
    fn host(&self, id: HostId) -> Option<Known> {
        self.0.hosts.get(&id).cloned()
    }

    fn named(&self, nova_host: &str) -> Option<HostId> {
        self.0.hosts.iter().find(|(_, known)| known.nova_host == nova_host).map(|(id, _)| *id)
    }

    fn fencer(&self, _: Uuid) -> Option<Fencer> {
        self.0.fencer
    }

    fn source(&self, _: Uuid) -> Option<HostId> {
        self.0.source
    }

    fn absent(&self, _: HostId, _: Uuid) -> Option<u64> {
        self.0.absent
    }
}

impl Gate for Shared {
    fn passes(&self, barrier: Barrier) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        self.0.checks.fetch_add(1, Ordering::SeqCst);
        let only = *self.0.only.lock().expect("no test panics with it");
        Box::pin(std::future::ready(only.is_none_or(|only| only == barrier.intent)))
    }
}

/// A barrier of an intent, with its deadline in milliseconds.
pub fn barrier(intent: u128, deadline: u64) -> Barrier {
    Barrier { leader: Leader { term: 1, node: 1 }, intent: Uuid::from_u128(intent), confirmed: 1_000, deadline }
}
