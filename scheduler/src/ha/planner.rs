//! The planner: targets for the instances of a dead host. A function of the state: no clock, no budget of
//! time. Apply checks each assignment again, and what does not fit any more waits.
//!
//! Where an instance may go is asked of [`Targets`] (the filters and weighers, with the intent to
//! evacuate); here that becomes a plan as a whole (`pack`): urgent and large first, each on the best host
//! that the others have left room on, few on one host at a time, groups apart or together.

mod pack;

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use self::pack::{Item, Packer};
use super::case::Case;
use super::host::HostId;
use super::order::{Assignment, To};
use super::recovery::{Life, Recorded, Recovery, Status, Stays, VmState, Waiting};
use crate::consumer::Purpose;
use crate::domain::Domain;
use crate::provider::{Amounts, Provider};
use crate::state::Tables;

/// What goes first: the lower class, then the higher priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// 0 critical, 1 high, 2 normal, 3 low, 4 none.
    pub class: u8,
    /// 1000 less its restart priority: the smaller first.
    pub after: u16,
}

impl Default for Rank {
    fn default() -> Self {
        Self { class: 2, after: 500 }
    }
}

/// A hard rule of a server group, held within one plan: what runs already is the filters' business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bond {
    /// At most so many members on a host.
    Apart {
        /// The group.
        group: Uuid,
        /// Members on a host.
        most: u32,
    },
    /// All on one host.
    Together {
        /// The group.
        group: Uuid,
    },
}

impl Bond {
    fn group(self) -> Uuid {
        match self {
            Self::Apart { group, .. } | Self::Together { group } => group,
        }
    }
}

/// Where an instance may go, the best first, and what is known of it outside of the state.
pub trait Targets {
    /// Lives of hosts that every filter lets it go to.
    fn ranked(&self, instance: Uuid, source: Life) -> Vec<Life>;

    /// Instances with one number ask the same: they are ranked once. None: it is asked for itself.
    fn question(&self, _instance: Uuid) -> Option<u64> {
        None
    }

    /// What goes first.
    fn rank(&self, _instance: Uuid) -> Rank {
        Rank::default()
    }

    /// The hard rule of its group.
    fn bond(&self, _instance: Uuid) -> Option<Bond> {
        None
    }

    /// Why it is left where it is, if it is: its disk is local, or it is not protected.
    fn stays(&self, _instance: Uuid) -> Option<Stays> {
        None
    }
}

/// A plan for all instances that are permitted on the dead life, and for those that Nova lists there.
pub fn plan(tables: &Tables, case: &Case, servers: &[(Uuid, Recorded)], targets: &dyn Targets) -> Vec<Assignment> {
    plan_for(tables, case, servers, targets, false)
}

/// The same; with `returns` the host is back, and what has no target yet is started there.
pub fn plan_for(
    tables: &Tables,
    case: &Case,
    servers: &[(Uuid, Recorded)],
    targets: &dyn Targets,
    returns: bool,
) -> Vec<Assignment> {
    let ha = tables.failover();
    let source = Life { host: case.id.host, incarnation: case.id.incarnation };
    let listed: BTreeMap<Uuid, Recorded> = servers.iter().copied().collect();
    let mut out = Vec::new();
    let mut movable: Vec<(Uuid, Recorded, Arc<Amounts>)> = Vec::new();
    let permitted = ha.permits.iter().filter(|permit| permit.life == source).map(|permit| permit.instance);
    let mut all: Vec<Uuid> = permitted.chain(listed.keys().copied()).collect();
    all.sort_unstable();
    all.dedup();
    for instance in all {
        // What another case has settled is this one's now.
        let known = ha.recoveries.get(instance).filter(|known| known.case == case.id || !known.status.is_settled());
        let open = |known: &Recovery| match known.status {
            // Its target is not what it was.
            Status::Planned => known.attempt.as_ref().is_some_and(|attempt| !ha.takes(attempt.target)),
            status => matches!(status, Status::Waiting(_)),
        };
        if known.is_some_and(|known| known.case != case.id || !open(known)) {
            continue;
        }
        let recorded = known.map(|known| known.recorded).or_else(|| listed.get(&instance).copied());
        let Some(recorded) = recorded else {
            // Permitted here, and Nova does not list it: it may be gone, or the list may be short.
            let recorded = Recorded { vm: VmState::Other, running: false, task: false };
            out.push(Assignment { instance, recorded, to: To::Stays(Stays::Conflict) });
            continue;
        };
        let stays = match recorded.vm {
            _ if ha.permits.get(instance).is_none_or(|permit| permit.life != source) => Some(Stays::PermitConflict),
            _ if recorded.task => Some(Stays::TaskState),
            VmState::Error if !ha.small.policy.error_instances => Some(Stays::ErrorState),
            VmState::Other => Some(Stays::NotRunning),
            _ if returns => Some(Stays::Returns),
            VmState::Active | VmState::Stopped | VmState::Error => targets.stays(instance),
        };
        match (stays, tables.consumer(Domain::Nova, instance, Purpose::Instance)) {
            (Some(why), _) => out.push(Assignment { instance, recorded, to: To::Stays(why) }),
            (None, Some(home)) if !home.amounts.is_empty() => {
                movable.push((instance, recorded, Arc::clone(&home.amounts)));
            }
            (None, _) => out.push(Assignment { instance, recorded, to: To::Waiting(Waiting::Size) }),
        }
    }
    let items: Vec<_> = movable.iter().map(|(instance, _, amounts)| (*instance, Arc::clone(amounts))).collect();
    let excluded = |instance| ha.recoveries.get(instance).map(|known| known.excluded.clone()).unwrap_or_default();
    let found = pack(tables, source, &items, excluded, targets);
    out.extend(movable.into_iter().zip(found).map(|((instance, recorded, _), life)| {
        let to = life.map_or(To::Waiting(Waiting::Capacity), To::Target);
        Assignment { instance, recorded, to }
    }));
    out
}

/// A life for each of some instances of a host that lives, but for hosts that each was refused by.
pub fn places(
    tables: &Tables,
    source: Life,
    instances: &[(Uuid, Vec<HostId>)],
    targets: &dyn Targets,
) -> Vec<Option<Life>> {
    let nothing = Arc::new(Amounts::default());
    let amounts = |instance| tables.consumer(Domain::Nova, instance, Purpose::Instance).map(|home| &home.amounts);
    let items: Vec<_> = instances.iter().map(|(id, _)| (*id, Arc::clone(amounts(*id).unwrap_or(&nothing)))).collect();
    let of: BTreeMap<Uuid, &Vec<HostId>> = instances.iter().map(|(id, excluded)| (*id, excluded)).collect();
    let excluded = |instance| of.get(&instance).map(|known| (*known).clone()).unwrap_or_default();
    pack(tables, source, &items, excluded, targets)
}

/// A life for each, as far as there is room.
fn pack(
    tables: &Tables,
    source: Life,
    movable: &[(Uuid, Arc<Amounts>)],
    excluded: impl Fn(Uuid) -> Vec<HostId>,
    targets: &dyn Targets,
) -> Vec<Option<Life>> {
    let ha = tables.failover();
    let mut hosts: Vec<(Life, &Provider)> = Vec::new();
    let mut known: BTreeMap<HostId, Option<usize>> = BTreeMap::new();
    let mut place = |life: Life, hosts: &mut Vec<_>| {
        *known.entry(life.host).or_insert_with(|| {
            let host = ha.hosts.get(life.host)?;
            let same = host.incarnation == life.incarnation && ha.cases.get(life.host).is_none();
            let name = tables.names.text(host.nova_host);
            let row = tables.row_of_node(Domain::Nova, name, None).filter(|_| same && host.takes_instances())?;
            hosts.push((life, tables.provider(row)?));
            Some(hosts.len() - 1)
        })
    };
    let mut lists: Vec<Vec<usize>> = Vec::new();
    let mut asked: BTreeMap<u64, usize> = BTreeMap::new();
    let mut items = Vec::with_capacity(movable.len());
    for (instance, amounts) in movable {
        let question = targets.question(*instance);
        let list = question.and_then(|question| asked.get(&question).copied()).unwrap_or_else(|| {
            let ranked = targets.ranked(*instance, source);
            lists.push(ranked.into_iter().filter_map(|life| place(life, &mut hosts)).collect());
            lists.len() - 1
        });
        if let Some(question) = question {
            asked.insert(question, list);
        }
        let excluded = excluded(*instance);
        items.push(Item {
            instance: *instance,
            amounts: Arc::clone(amounts),
            rank: targets.rank(*instance),
            size: 0,
            list,
            bond: targets.bond(*instance),
            excluded,
        });
    }
    let mut largest: BTreeMap<_, u64> = BTreeMap::new();
    for (_, provider) in &hosts {
        for (class, inventory) in &provider.inventories {
            let most = largest.entry(*class).or_default();
            *most = (*most).max(inventory.capacity());
        }
    }
    for item in &mut items {
        let part = |(class, amount): (_, u64)| {
            let most = largest.get(&class).copied().unwrap_or(0).max(1);
            amount.saturating_mul(1_000_000) / most
        };
        item.size = item.amounts.iter().map(part).max().unwrap_or(0);
    }
    Packer::new(hosts, lists).pack(&items)
}
