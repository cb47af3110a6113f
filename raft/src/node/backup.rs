//! A backup of a running node.

use super::{Freshness, Node};
use crate::backup::Backup;
use crate::refused::Refused;

impl Node {
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
