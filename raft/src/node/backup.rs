//! A backup of a running node.

use scheduler::recording::Event;
use tokio::sync::mpsc;

use super::{Freshness, Node};
use crate::backup::Backup;
use crate::refused::Refused;
use crate::types::StoredMembership;

impl Node {
    /// Records up to so many decisions, if this node leads: the state of the moment at which that begins, and from then on
    /// what is decided and applied, in order. The recording ends early when its reader is too slow, or another state comes.
    pub async fn record(&self, decisions: u64) -> Result<(Backup, mpsc::Receiver<Event>), Refused> {
        let (frozen, events) = self.0.local.owner.record(decisions).await?;
        Ok((Backup::new(frozen, None, StoredMembership::default(), Some(self.identity().cluster)), events))
    }

    /// The whole state, consistent, with everything in it that was committed before the call.
    pub async fn backup(&self) -> Result<Backup, Refused> {
        self.read_barrier(Freshness::Linearizable).await?;
        let applied = self.0.local.raft.with_state_machine(|machine| Box::pin(machine.applied()));
        let stopped = |what: String| Refused::Stopped(self.fatal().unwrap_or(what));
        let applied = applied.await.map_err(|fatal| stopped(fatal.to_string()))?;
        let (frozen, last, membership) = applied.map_err(|gone| stopped(gone.to_string()))?;
        Ok(Backup::new(frozen, last, membership, Some(self.identity().cluster)))
    }
}
