//! The barrier in front of every act.

use uuid::Uuid;

use crate::ha::case::{Act, Case, Phase};
use crate::ha::drain::{MoveState, Stage};
use crate::ha::host::{Host, Maintenance};
use crate::ha::order::Leader;
use crate::ha::policy::{self, Mode};
use crate::ha::recovery::AttemptState;
use crate::state::Tables;

/// What an executor must make sure of right before it writes to the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// It still leads, as exactly this leader.
    pub leader: Leader,
    /// The intent that is committed, under that leader.
    pub intent: Uuid,
    /// A majority has confirmed the leadership by a read index no longer ago, milliseconds; pauses and
    /// breakers are read again there.
    pub confirmed: u64,
    /// The connection is new, is tried once, and is closed after so long, milliseconds.
    pub deadline: u64,
}

impl Barrier {
    /// Whether its intent is committed by its leader and still open, in this epoch, its cluster the one that acts on this
    /// cloud, and neither paused, held, stopped
    /// by a breaker nor only a dry run. Pauses, breakers and policies were read when the intent was applied, and may
    /// have come since. `now`: the clock of the state.
    pub fn holds(&self, tables: &Tables, now: u64) -> bool {
        let (failover, epoch) = (tables.failover(), tables.counters().epoch);
        let Self { intent, leader, .. } = *self;
        let acts = |host| policy::mode(tables, host) == Mode::Enforce;
        if failover.small.epoch != epoch || !failover.is_marked(leader, epoch) {
            return false;
        }
        // A service is marked without an intent, by whoever leads: as long as its case, or its drain, is where that is done.
        if let Some(case) = failover.cases.iter().find(|case| case.mark() == intent) {
            return case.epoch == epoch && case.phase == Phase::NovaDown && acts(case.id.host);
        }
        if let Some(drain) = failover.drains.iter().find(|drain| drain.mark() == intent) {
            return drain.stage == Stage::Moving && acts(drain.host);
        }
        if !failover.is_committed(intent, leader) {
            return false;
        }
        let free = |act, case: &Case| case.epoch == epoch && failover.paused(act) <= now && case.held(act).is_none();
        if let Some((case, op)) = failover.cases.iter().find_map(|case| Some((case, case.op(intent)?))) {
            let host = failover.hosts.get(case.id.host).filter(|host| host.incarnation == case.id.incarnation);
            let free_host = |host: &Host| {
                let manual = host.maintenance == Maintenance::Manual;
                !manual && host.exempt <= now && failover.stops_kill(host, now).is_none()
            };
            let may = host.is_some_and(|host| free_host(host) && acts(host.id));
            return may && op.outcome.is_none() && free(Act::Kill, case);
        }
        let tried = failover.recoveries.iter().find(|known| known.attempt.as_ref().is_some_and(|a| a.op == intent));
        if let Some(recovery) = tried {
            let source = recovery.case.host;
            let Some(attempt) = recovery.live() else { return acts(source) };
            let may = failover.hosts.get(source).is_some_and(|host| failover.stops_recover(host).is_none());
            let free = failover.cases.get(source).is_some_and(|case| free(Act::Recover, case));
            return attempt.state == AttemptState::Intent && may && free && acts(source);
        }
        let free = failover.paused(Act::Recover) <= now;
        if let Some(known) = failover.moves.iter().find(|known| known.op == intent) {
            // What is on its way is finished or given up even when no more may begin.
            let drained = failover.drains.get(known.from.host).is_some_and(|drain| drain.stage == Stage::Moving);
            return known.state != MoveState::Intent || free && drained && acts(known.from.host);
        }
        if let Some(known) = failover.restarts.iter().find(|known| known.op == intent) {
            // What has arrived where it was moved may stay there.
            let permit = failover.permits.get(known.instance).map(|permit| permit.life.host);
            let arrived = known.to.is_some_and(|to| permit == Some(to.host));
            return (free || arrived) && acts(known.life.host);
        }
        // A step of a return, or the mark of a drain: nothing pauses it.
        let returns = failover.cases.iter().find(|case| case.reentry.begun.iter().any(|begun| begun.op == intent));
        let drains = || failover.drains.iter().find(|drain| drain.op.is_some_and(|(op, _)| op == intent));
        let host = returns.map(|case| case.id.host).or_else(|| drains().map(|drain| drain.host));
        host.is_none_or(acts)
    }
}
