//! The replicated state of failover, bounded, cheap to clone.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcode::{Decode, Encode};
use uuid::Uuid;

use super::breaker::{Breaker, Scope};
use super::case::{Act, Case};
use super::drain::{Drain, Move};
use super::host::{Host, HostId};
use super::keyed::Keyed;
use super::mark::Marked;
use super::masakari::{Member, Notification, Segment};
use super::note::Ordered;
use super::order::Leader;
use super::poison::Deaths;
use super::policy::{Kept, Policy};
use super::proof::Lease;
use super::recovery::{Life, Permit, Recovery};
use super::restart::Restart;
use super::trouble::Trouble;
use crate::checksum::{fold, sum_of};
use crate::chunked::Chunked;
use crate::names::Sym;

/// Hosts.
pub const HOSTS: usize = 200_000;
/// Places of instances.
pub const PERMITS: usize = 8_000_000;
/// Open cases.
pub const CASES: usize = 4_096;
/// Instances of open cases.
pub const RECOVERIES: usize = 262_144;
/// Cases that are over and remembered.
pub const CLOSED: usize = 4_096;
/// Open breakers: more scopes than this are one storm, and the region's breaker stands for them.
pub const BREAKERS: usize = 4_096;
/// Drains.
pub const DRAINS: usize = 4_096;
/// Instances on their way from hosts that are drained.
pub const MOVES: usize = 65_536;
/// Restarts that are remembered.
pub const RESTARTS: usize = 65_536;
/// Instances of which it is remembered which hosts died under them.
pub const DEATHS: usize = RECOVERIES;
/// Segments of Masakari's API.
pub const SEGMENTS: usize = 4_096;
/// Hosts in them.
pub const MEMBERS: usize = HOSTS;
/// Notifications that are remembered.
pub const NOTIFIED: usize = 16_384;
/// Receivers of events.
pub const RECEIVERS: usize = 16;
/// Voters.
pub const VOTERS: usize = 16;

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Failover {
    /// Hosts by id.
    pub hosts: Keyed<Arc<Host>>,
    /// Open cases by host: at most one each.
    pub cases: Keyed<Arc<Case>>,
    /// Instances of open cases.
    pub recoveries: Keyed<Arc<Recovery>>,
    /// Where instances may run.
    pub permits: Keyed<Permit>,
    /// Instances that were started again where they were.
    pub restarts: Keyed<Restart>,
    /// Instances that were on hosts that died.
    pub deaths: Keyed<Deaths>,
    /// Hosts that are drained.
    pub drains: Keyed<Arc<Drain>>,
    /// Instances on their way from them.
    pub moves: Keyed<Arc<Move>>,
    /// Segments of Masakari's API.
    pub segments: Keyed<Arc<Segment>>,
    /// Hosts in them.
    pub members: Keyed<Arc<Member>>,
    pub(crate) closed: Chunked<Arc<Case>>,
    pub(crate) notified: Chunked<Arc<Notification>>,
    /// What is small.
    pub small: Arc<Small>,
}

/// A voter, as it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Seat {
    /// Node id.
    pub node: u64,
    /// Its host.
    pub host: Option<HostId>,
    /// Its chassis.
    pub chassis: Sym,
    /// Its power domain.
    pub power: Sym,
}

/// What is small.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Small {
    /// The epoch in which failover acts. Behind the state's own: it was restored, and is paused until an
    /// operator has looked.
    pub epoch: u64,
    /// The last leader that wrote an order.
    pub leader: Leader,
    /// Cases that were ever closed.
    pub closed: u64,
    /// Open breakers.
    pub breakers: BTreeMap<Scope, Breaker>,
    /// Until when nothing is fenced, replicated milliseconds.
    pub paused_kill: u64,
    /// Until when nothing is evacuated.
    pub paused_recover: u64,
    /// Voters.
    pub voters: Vec<Seat>,
    /// Leases.
    pub lease: Lease,
    /// What a host is under of which no policy says otherwise.
    pub policy: Policy,
    /// Policies for the hosts that they select, in the order in which they are laid over one another.
    pub policies: Arc<Vec<Kept>>,
    /// Revisions of policies that ever were.
    pub revisions: u64,
    /// Segments that were ever made.
    pub segment_ids: u64,
    /// Hosts that were ever put into one.
    pub member_ids: u64,
    /// Notifications that were ever taken in.
    pub notified: u64,
    /// Up to when each receiver of events was told, replicated milliseconds.
    pub told: BTreeMap<String, u64>,
    /// The mark of the cluster in Nova, as it was read last.
    pub marked: Option<Marked>,
    /// An operator lets this cluster take the mark over from that one, once.
    pub takes: Option<Uuid>,
    /// What persons ordered last, oldest first.
    pub orders: Arc<Vec<Ordered>>,
    /// Doubts about hosts that were heard again in the same life.
    pub false_suspicions: u64,
    /// What befell single guests last, oldest first.
    pub troubles: Arc<Vec<Trouble>>,
    /// All that ever did, by its kind.
    pub troubled: [u64; 3],
}

impl Failover {
    /// Cases that are over, newest first.
    pub fn closed(&self) -> impl Iterator<Item = &Case> {
        let newest = self.small.closed;
        let kept = self.closed.len() as u64;
        (1..=kept).filter_map(move |back| {
            let at = newest.checked_sub(back)? as usize % CLOSED;
            self.closed.get(at).map(|case| &**case)
        })
    }

    /// Until when an act is paused by an operator, replicated milliseconds.
    pub fn paused(&self, act: Act) -> u64 {
        match act {
            Act::Kill => self.small.paused_kill,
            Act::Recover => self.small.paused_recover,
        }
    }

    /// Whether a life of a host goes on.
    pub fn lives(&self, life: Life) -> bool {
        self.hosts.get(life.host).is_some_and(|host| host.is_open() && host.incarnation == life.incarnation)
    }

    /// Migrations of drains that may be going on. One whose source's life is over copies nothing any more, whatever Nova
    /// says of it; it is kept for what it may have brought over.
    pub fn under_way(&self) -> impl Iterator<Item = &Move> {
        self.moves.iter().map(|known| &**known).filter(|known| known.is_live() && self.lives(known.from))
    }

    /// Whether a restart is still of the place where its instance may run, and of a life that goes on.
    pub fn stands(&self, restart: &Restart) -> bool {
        let Restart { instance, life, to, .. } = *restart;
        let followed = |permit: Life| to.is_some_and(|to| to.host == permit.host);
        let placed = |permit: Life| permit == life || followed(permit);
        self.lives(life) && self.permits.get(instance).is_some_and(|permit| placed(permit.life))
    }

    /// Whether a restart of an instance is on its way, or a move elsewhere than to that host.
    pub fn is_restarting(&self, instance: Uuid, but: HostId) -> bool {
        let known = self.restarts.get(instance).filter(|known| known.well.is_none() && self.stands(known));
        known.is_some_and(|known| known.to.is_none_or(|to| to.host != but))
    }

    /// Whether instances may be sent to a life of a host.
    pub fn takes(&self, life: Life) -> bool {
        let host = self.hosts.get(life.host).filter(|host| host.incarnation == life.incarnation);
        host.is_some_and(|host| host.takes_instances()) && self.cases.get(life.host).is_none()
    }

    /// Whether an instance may begin to run in a life of a host, as the check at the host asks: its place is
    /// there, or a migration of ours is bringing it there.
    pub fn may_begin(&self, instance: Uuid, life: Life) -> bool {
        let placed = self.permits.get(instance).is_some_and(|permit| permit.life == life);
        let placed = placed && !self.is_left_over(instance, life);
        placed || self.moves.get(instance).is_some_and(|known| known.is_live() && known.to == life)
    }

    /// Whether the permit of an instance that was deleted may end: its host lives and has no case, and nothing is done with
    /// it.
    pub fn may_end(&self, instance: Uuid, life: Life) -> bool {
        let recovered = self.recoveries.get(instance).is_some_and(|known| !known.status.is_settled());
        let restarted = self.restarts.get(instance).is_some_and(|known| known.well.is_none() && self.stands(known));
        let moved = self.moves.get(instance).is_some();
        self.lives(life) && self.cases.get(life.host).is_none() && !recovered && !restarted && !moved
    }

    /// Whether that life of that host is over and proven so in `epoch`; when.
    pub fn proven(&self, life: Life, epoch: u64) -> Option<u64> {
        let proofs = self.hosts.get(life.host)?.proofs.iter().rev();
        let mut of_life = proofs.filter(|proof| proof.incarnation >= life.incarnation && proof.epoch == epoch);
        of_life.next().map(|proof| proof.at)
    }

    /// Whether an intent stands in the log as exactly that leader's, and is not over: what a barrier asks.
    pub fn is_committed(&self, intent: Uuid, leader: Leader) -> bool {
        let ops = self.cases.iter().flat_map(|case| &case.ops).map(|op| (op.id, op.by));
        let begun = self.cases.iter().flat_map(|case| &case.reentry.begun).map(|begun| (begun.op, begun.by));
        let calls = self.recoveries.iter().filter_map(|recovery| {
            let attempt = recovery.attempt.as_ref()?;
            let stopping = matches!(recovery.status, super::recovery::Status::Stopping(_));
            (attempt.state.is_live() || stopping).then_some((attempt.op, attempt.by))
        });
        let restarts = self.restarts.iter().filter(|restart| restart.well.is_none() && self.stands(restart));
        let restarts = restarts.map(|restart| (restart.op, restart.by));
        let drains = self.drains.iter().filter_map(|drain| drain.op);
        let moves = self.moves.iter().filter(|known| known.is_live()).map(|known| (known.op, known.by));
        ops.chain(drains).chain(moves).chain(begun).chain(calls).chain(restarts).any(|known| known == (intent, leader))
    }

    pub(crate) fn host_mut(&mut self, id: HostId) -> Option<&mut Host> {
        self.hosts.get_mut(id).map(Arc::make_mut)
    }

    pub(crate) fn case_mut(&mut self, host: HostId) -> Option<&mut Case> {
        self.cases.get_mut(host).map(Arc::make_mut)
    }

    pub(crate) fn small_mut(&mut self) -> &mut Small {
        Arc::make_mut(&mut self.small)
    }

    /// Takes a case out of the open ones; its instances go with it.
    pub(crate) fn close(&mut self, host: HostId) {
        let Some(case) = self.cases.remove(host) else { return };
        let gone: Vec<_> = self.recoveries.iter().filter(|r| r.case == case.id).map(|r| r.instance).collect();
        for instance in gone {
            self.recoveries.remove(instance);
        }
        let at = self.small.closed as usize % CLOSED;
        match self.closed.get_mut(at) {
            Some(place) => *place = case,
            None => {
                self.closed.push(case);
            }
        }
        self.small_mut().closed += 1;
    }

    pub(crate) fn sum(&self) -> u64 {
        let tables = [
            self.hosts.sum(),
            self.cases.sum(),
            self.recoveries.sum(),
            self.permits.sum(),
            self.restarts.sum(),
            self.deaths.sum(),
            self.drains.sum(),
            self.moves.sum(),
            self.segments.sum(),
            self.members.sum(),
            self.notified.sum(),
        ];
        fold(tables.into_iter().chain([self.closed.sum(), sum_of(&*self.small)]))
    }

    pub(crate) fn sum_anew(&self) -> u64 {
        let tables = [
            self.hosts.sum_anew(),
            self.cases.sum_anew(),
            self.recoveries.sum_anew(),
            self.permits.sum_anew(),
            self.restarts.sum_anew(),
            self.deaths.sum_anew(),
            self.drains.sum_anew(),
            self.moves.sum_anew(),
            self.segments.sum_anew(),
            self.members.sum_anew(),
            self.notified.sum_anew(),
        ];
        fold(tables.into_iter().chain([self.closed.sum_anew(), sum_of(&*self.small)]))
    }
}
