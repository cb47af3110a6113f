//! The planner: targets for the instances of a dead host. A function of the state: no clock, no budget of
//! time. Apply checks each assignment again, and what does not fit any more waits.
//!
//! Where an instance may go is asked of [`Targets`] (the filters and weighers, with the intent to
//! evacuate); here that becomes a plan as a whole (`pack`): urgent and large first, each on the best host
//! that the others have left room on, few on one host at a time, server groups apart or together ([`groups`]:
//! the filters hold them against what runs elsewhere, `pack` within the plan as well).

pub mod groups;
mod pack;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use self::groups::{ServerGroups, Tie};
use self::pack::{Item, Packer, Place};
use super::case::Case;
use super::host::HostId;
use super::order::{Assignment, To};
use super::policy;
use super::recovery::{Life, Recorded, Recovery, Status, Stays, VmState, Waiting};
use crate::consumer::{Consumer, Purpose};
use crate::domain::Domain;
use crate::intent::Intent;
use crate::provider::{Amounts, Row};
use crate::request::Group;
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

/// Where an instance may go, the best first, and what is known of it outside of the state.
pub trait Targets {
    /// Lives of hosts that every filter lets it go to. The group is told with the members that have a place.
    fn ranked(&self, instance: Uuid, source: Life, group: Option<&Group>) -> Vec<Life>;

    /// Instances with one number ask the same: they are ranked once. None: it is asked for itself.
    fn question(&self, _instance: Uuid) -> Option<u64> {
        None
    }

    /// What goes first.
    fn rank(&self, _instance: Uuid) -> Rank {
        Rank::default()
    }

    /// Why it is left where it is, if it is: its disk is local, or it is not protected.
    fn stays(&self, _instance: Uuid) -> Option<Stays> {
        None
    }
}

/// What Nova says of a host that is planned, and of all server groups.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// The instances that it lists there.
    pub servers: &'a [(Uuid, Recorded)],
    /// Server groups.
    pub groups: &'a ServerGroups,
    /// The host is back: what has no target yet is started there.
    pub returns: bool,
}

/// A plan for all instances that are permitted on the dead life, and for those that Nova lists there.
pub fn plan(tables: &Tables, case: &Case, told: Told<'_>, targets: &dyn Targets) -> Vec<Assignment> {
    let ha = tables.failover();
    let source = Life { host: case.id.host, incarnation: case.id.incarnation };
    let errors = ha.hosts.get(case.id.host).is_some_and(|host| policy::of(tables, host).error_instances);
    let listed: BTreeMap<Uuid, Recorded> = told.servers.iter().copied().collect();
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
            Status::Planned => !stands(tables, known),
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
            VmState::Error if !errors => Some(Stays::ErrorState),
            VmState::Other => Some(Stays::NotRunning),
            _ if told.returns => Some(Stays::Returns),
            VmState::Active | VmState::Stopped | VmState::Error => targets.stays(instance),
        };
        match (stays, tables.consumer(Domain::Nova, instance, Purpose::Instance)) {
            (Some(why), _) => out.push(Assignment { instance, recorded, to: To::Stays(why) }),
            (None, Some(home)) if !home.amounts.is_empty() => match claimed_by_hand(tables, instance) {
                Some(life) => out.push(Assignment { instance, recorded, to: To::Target(life) }),
                None => movable.push((instance, recorded, Arc::clone(&home.amounts))),
            },
            (None, _) => out.push(Assignment { instance, recorded, to: To::Waiting(Waiting::Size) }),
        }
    }
    let items: Vec<_> = movable.iter().map(|(instance, _, amounts)| (*instance, Arc::clone(amounts))).collect();
    let excluded = |instance| ha.recoveries.get(instance).map(|known| known.excluded.clone()).unwrap_or_default();
    let found = pack(tables, source, &items, excluded, (told.groups, targets));
    out.extend(movable.into_iter().zip(found).map(|((instance, recorded, _), found)| {
        let to = found.map_or_else(To::Waiting, To::Target);
        Assignment { instance, recorded, to }
    }));
    out
}

/// Whether what is planned for an instance is so still: its target takes instances, and has the room for it that
/// was claimed.
pub(crate) fn stands(tables: &Tables, known: &Recovery) -> bool {
    let Some(attempt) = &known.attempt else { return false };
    let claim = tables.consumer(Domain::Nova, known.instance, Purpose::Move);
    tables.failover().takes(attempt.target) && claim.is_some_and(|claim| claim.ticket == attempt.ticket)
}

/// Where somebody evacuates an instance to by hand: Nova asked for it, and room was claimed. The plan takes that
/// over, as a plan of its own would only take the room away.
fn claimed_by_hand(tables: &Tables, instance: Uuid) -> Option<Life> {
    let claim = tables.consumer(Domain::Nova, instance, Purpose::Move).filter(|claim| claim.is_open())?;
    let name = tables.provider(claim.row)?.host;
    let by_hand = claim.intent == Intent::Evacuate && claim.decision > 0;
    let mut hosts = tables.failover().hosts.iter().filter(|host| by_hand && host.nova_host == name);
    let life = hosts.next().map(|host| Life { host: host.id, incarnation: host.incarnation })?;
    tables.failover().takes(life).then_some(life)
}

/// The row of a host that takes instances, in that life.
fn row(tables: &Tables, life: Life) -> Option<Row> {
    let ha = tables.failover();
    let host = ha.hosts.get(life.host).filter(|_| ha.takes(life))?;
    tables.row_of_node(Domain::Nova, tables.names.text(host.nova_host), None)
}

/// A life for each of some instances of a host that lives, but for hosts that each was refused by; or why none.
pub fn places(
    tables: &Tables,
    source: Life,
    instances: &[(Uuid, Vec<HostId>)],
    groups: &ServerGroups,
    targets: &dyn Targets,
) -> Vec<Result<Life, Waiting>> {
    let nothing = Arc::new(Amounts::default());
    let amounts = |instance| {
        let home = tables.consumer(Domain::Nova, instance, Purpose::Instance);
        Arc::clone(home.map_or(&nothing, |home: &Consumer| &home.amounts))
    };
    let items: Vec<_> = instances.iter().map(|(id, _)| (*id, amounts(*id))).collect();
    let of: BTreeMap<Uuid, &Vec<HostId>> = instances.iter().map(|(id, excluded)| (*id, excluded)).collect();
    let excluded = |instance| of.get(&instance).map(|known| (*known).clone()).unwrap_or_default();
    pack(tables, source, &items, excluded, (groups, targets))
}

/// What instances ask, with the group that it is asked for: equal questions have one list.
type Question = (u64, Option<usize>);

/// A life for each, as far as there is room; else why not.
fn pack(
    tables: &Tables,
    source: Life,
    movable: &[(Uuid, Arc<Amounts>)],
    excluded: impl Fn(Uuid) -> Vec<HostId>,
    (groups, targets): (&ServerGroups, &dyn Targets),
) -> Vec<Result<Life, Waiting>> {
    let mut hosts: Vec<Place<'_>> = Vec::new();
    let mut known: BTreeMap<HostId, Option<usize>> = BTreeMap::new();
    let mut place = |life: Life, hosts: &mut Vec<_>| {
        *known.entry(life.host).or_insert_with(|| {
            let row = row(tables, life)?;
            hosts.push(Place { life, row, provider: tables.provider(row)? });
            Some(hosts.len() - 1)
        })
    };
    let leaving: BTreeSet<Uuid> = movable.iter().map(|(instance, _)| *instance).collect();
    let moving = |member: Uuid| leaving.contains(&member);
    let mut members = BTreeMap::new();
    let mut lists: Vec<Vec<usize>> = Vec::new();
    let mut asked: BTreeMap<Question, usize> = BTreeMap::new();
    let mut list = |instance: Uuid, tie: Option<Tie>, lists: &mut Vec<Vec<usize>>, hosts: &mut Vec<_>| {
        let question = targets.question(instance).map(|question| (question, tie.map(|tie| tie.at)));
        if let Some(list) = question.and_then(|question| asked.get(&question)) {
            return *list;
        }
        let group = tie.map(|tie| groups.placed(tables, tie, &moving));
        let ranked = targets.ranked(instance, source, group.as_ref());
        lists.push(ranked.into_iter().filter_map(|life| place(life, hosts)).collect());
        if let Some(question) = question {
            asked.insert(question, lists.len() - 1);
        }
        lists.len() - 1
    };
    let mut items = Vec::with_capacity(movable.len());
    for (instance, amounts) in movable {
        let tie = groups.of(*instance);
        if let Some(tie) = tie {
            members.entry(tie.at).or_insert_with(|| groups.count(tables, tie, &moving));
        }
        items.push(Item {
            instance: *instance,
            amounts: Arc::clone(amounts),
            rank: targets.rank(*instance),
            size: 0,
            list: list(*instance, tie, &mut lists, &mut hosts),
            tie,
            excluded: excluded(*instance),
        });
    }
    let mut largest: BTreeMap<_, u64> = BTreeMap::new();
    for (class, inventory) in hosts.iter().flat_map(|place| &place.provider.inventories) {
        let most = largest.entry(*class).or_default();
        *most = (*most).max(inventory.capacity());
    }
    for item in &mut items {
        let part = |(class, amount): (_, u64)| {
            let most = largest.get(&class).copied().unwrap_or(0).max(1);
            amount.saturating_mul(1_000_000) / most
        };
        item.size = item.amounts.iter().map(part).max().unwrap_or(0);
    }
    let mut packer = Packer::new(hosts, lists, members);
    let found = packer.pack(&items);
    let why = |(item, found): (&Item, Option<Life>)| {
        found.ok_or_else(|| {
            // With room where its group does not let it go, it is the group that keeps it.
            let Some(bond) = item.tie.and_then(Tie::bond) else { return Waiting::Capacity };
            let without = list(item.instance, None, &mut packer.lists, &mut packer.hosts);
            if packer.has_room(item, without) { Waiting::Group(bond) } else { Waiting::Capacity }
        })
    };
    items.iter().zip(found).map(why).collect()
}
