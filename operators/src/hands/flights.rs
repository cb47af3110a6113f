//! Calls in flight: of one kind to one thing at most one, and of all a bounded number.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

type Lanes<K> = Arc<Mutex<BTreeMap<K, Arc<tokio::sync::Mutex<()>>>>>;

/// Calls in flight to one kind of system.
pub(super) struct Flights<K: Ord> {
    room: Arc<Semaphore>,
    lanes: Lanes<K>,
}

/// A call in flight, until dropped.
pub(super) struct Flight<K: Ord> {
    key: Option<K>,
    lanes: Lanes<K>,
    lane: Option<OwnedMutexGuard<()>>,
    room: Option<OwnedSemaphorePermit>,
}

impl<K: Ord + Clone> Flights<K> {
    /// With room for so many.
    pub(super) fn new(most: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(most)), lanes: Arc::default() }
    }

    /// For what is asked again anyway: none while the same is in flight.
    pub(super) async fn enter(&self, key: K) -> Option<Flight<K>> {
        let lane = self.lane(&key).try_lock_owned().ok()?;
        self.board(key, lane).await
    }

    /// For what must happen: waits for the same that is in flight. Its caller gives it a time limit.
    pub(super) async fn wait(&self, key: K) -> Option<Flight<K>> {
        let lane = self.lane(&key).lock_owned().await;
        self.board(key, lane).await
    }

    async fn board(&self, key: K, lane: OwnedMutexGuard<()>) -> Option<Flight<K>> {
        // In this order: whoever waits for room is counted by its lane already.
        let mut flight = Flight { key: Some(key), lanes: Arc::clone(&self.lanes), lane: Some(lane), room: None };
        flight.room = Some(Arc::clone(&self.room).acquire_owned().await.ok()?);
        Some(flight)
    }

    fn lane(&self, key: &K) -> Arc<tokio::sync::Mutex<()>> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(lanes.entry(key.clone()).or_default())
    }
}

impl<K: Ord> Drop for Flight<K> {
    fn drop(&mut self) {
        (self.lane, self.room) = (None, None);
        let Some(key) = self.key.take() else { return };
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody waits for it: only the map holds it.
        if lanes.get(&key).is_some_and(|lane| Arc::strong_count(lane) == 1) {
            lanes.remove(&key);
        }
    }
}
