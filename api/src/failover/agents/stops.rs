//! Guests that a session's agent is to stop, and what became of it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{Places, Session};
use crate::proto::ha;

/// It is said again after so long, if they run still.
const AGAIN: Duration = Duration::from_secs(10);

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct Stops {
    told: BTreeSet<Uuid>,
    at: Option<Instant>,
}

impl Stops {
    /// Whether the agent was told to stop it: then it is no wonder that it was destroyed.
    pub(super) fn told(&self, instance: Uuid) -> bool {
        self.told.contains(&instance)
    }
}

impl Session {
    /// Tells the agent to stop what has no right to run on its host, as far as this node knows now. False: it takes no
    /// directives.
    pub(super) fn stop_guests(&mut self, places: &Places) -> bool {
        if !self.listed || places.commands < self.since {
            return true;
        }
        let stop = places.to_stop(self.host, self.boot, &(&self.domains - &self.off));
        let now = tokio::time::Instant::now().into_std();
        let young = self.stops.at.is_some_and(|at| now.duration_since(at) < AGAIN);
        if stop.is_empty() || young && stop.is_subset(&self.stops.told) {
            return true;
        }
        let fresh = stop.difference(&self.stops.told).count();
        tracing::error!(host = %self.host, boot = %self.boot, instances = ?stop, "guests run where they may not: they are to be stopped");
        self.service.metrics.guests_stopped.inc_by(fresh as u64);
        let instances = stop.iter().map(Uuid::to_string).collect();
        self.stops = Stops { told: &(&self.stops.told & &self.domains) | &stop, at: Some(now) };
        self.say(ha::AgentDirective {
            stop_guests: Some(ha::AgentStopGuests { instances }),
            ..ha::AgentDirective::default()
        })
    }
}
