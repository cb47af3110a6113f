//! The planner: targets for the instances of all dead hosts that are to be planned. A function of the state and of
//! what Nova says of them: no clock, no budget of time. Apply checks each assignment again, and what does not fit any
//! more waits.
//!
//! Where an instance may go is asked of [`Targets`] (the filters and weighers, with the intent to
//! evacuate), less the hosts that Nova would refuse ([`bounds`]); here that becomes a plan as a whole (`pack`): urgent
//! and large first, each on the best host that the others have left room on, few on one host at a time, server groups
//! apart or together ([`groups`]: the filters hold them against what runs elsewhere, `pack` within the plan as well).

pub mod asks;
mod bounds;
pub mod groups;
mod pack;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use uuid::Uuid;

pub use self::asks::{Asks, Listed, OnCrash, Rank};
use self::bounds::Bounds;
use self::groups::{ServerGroups, Tie};
use self::pack::{Item, Packer, Place};
use super::case::{Case, CaseId};
use super::host::HostId;
use super::order::{Assignment, To};
use super::poison::Deaths;
use super::policy;
use super::recovery::{Life, Recorded, Recovery, Status, Stays, Unlike, VmState, Waiting};
use crate::consumer::{Consumer, Purpose};
use crate::domain::Domain;
use crate::intent::Intent;
use crate::provider::{Amounts, Provider, Row};
use crate::request::Group;
use crate::state::Tables;

/// For which instance targets are asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The instance.
    pub instance: Uuid,
    /// Where it was, or is. Its host takes nothing, so that instances of several may share an answer.
    pub source: Life,
    /// What it asked for.
    pub asks: &'a Asks,
    /// Its group, with the members that have a place.
    pub group: Option<&'a Group>,
}

/// Where an instance may go, the best first, and what is known of it outside of the state.
pub trait Targets {
    /// Lives of all hosts that every filter lets it go to.
    fn ranked(&self, asked: &Asked<'_>) -> Vec<Life>;

    /// Instances with one number ask the same: they are ranked once. None: it is asked for itself.
    fn question(&self, _instance: Uuid, _asks: &Asks) -> Option<u64> {
        None
    }

    /// Why it is left where it is, if it is: its disk is local.
    fn stays(&self, _instance: Uuid) -> Option<Stays> {
        None
    }
}

/// What Nova says of a host that is planned.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// Its case.
    pub case: &'a Case,
    /// The instances that it lists there.
    pub servers: &'a [Listed],
    /// The host is back: what has no target yet is started there.
    pub returns: bool,
}

/// A plan for all instances that are permitted in the dead lives, and for those that Nova lists there; by case.
pub fn plan(
    tables: &Tables,
    told: &[Told<'_>],
    groups: &ServerGroups,
    targets: &dyn Targets,
) -> Vec<(CaseId, Vec<Assignment>)> {
    let mut movable: Vec<(usize, Recorded)> = Vec::new();
    let mut placed: Vec<Placed<'_>> = Vec::new();
    let mut out: Vec<_> = told.iter().map(|told| (told.case.id, Vec::new())).collect();
    let permitted = permitted(tables, told);
    for (at, told) in told.iter().enumerate() {
        for open in open(tables, told, permitted.get(&told.case.id.host).map_or(&[], Vec::as_slice), targets) {
            match open {
                Open::Decided(assignment) => out[at].1.push(assignment),
                Open::Movable(recorded, asked) => {
                    movable.push((at, recorded));
                    placed.push(asked);
                }
            }
        }
    }
    let found = places(tables, &placed, groups, targets);
    for (((at, recorded), placed), found) in movable.into_iter().zip(placed).zip(found) {
        let to = found.map_or_else(To::Waiting, To::Target);
        out[at].1.push(Assignment { instance: placed.instance, recorded, rank: placed.asks.rank, to });
    }
    out
}

/// Instances by the dead life in which they are permitted.
fn permitted(tables: &Tables, told: &[Told<'_>]) -> BTreeMap<HostId, Vec<Uuid>> {
    let mut out: BTreeMap<HostId, Vec<Uuid>> = BTreeMap::new();
    let lives: BTreeMap<HostId, u64> = told.iter().map(|told| (told.case.id.host, told.case.id.incarnation)).collect();
    for permit in tables.failover().permits.iter() {
        if lives.get(&permit.life.host) == Some(&permit.life.incarnation) {
            out.entry(permit.life.host).or_default().push(permit.instance);
        }
    }
    out
}

/// An instance of a case.
enum Open<'a> {
    /// What becomes of it is known.
    Decided(Assignment),
    /// A host is looked for.
    Movable(Recorded, Placed<'a>),
}

/// What of Nova's list says nothing else.
static PLAIN: Asks = Asks {
    rank: Rank { class: 2, after: 500 },
    unprotected: false,
    min_available: false,
    on_crash: None,
    zone: None,
    extra_specs: None,
    image: None,
};

/// The instances of a case that are neither settled nor on their way.
fn open<'a>(tables: &Tables, told: &Told<'a>, permitted: &[Uuid], targets: &dyn Targets) -> Vec<Open<'a>> {
    let (ha, case) = (tables.failover(), told.case);
    let source = Life { host: case.id.host, incarnation: case.id.incarnation };
    let errors = ha.hosts.get(case.id.host).is_some_and(|host| policy::of(tables, host).error_instances);
    let counters = tables.counters();
    let kept = |instance, ran: bool| {
        let counted = ran.then(|| ha.stays_after(instance, source, counters.epoch, counters.now));
        counted.unwrap_or_else(|| ha.deaths.get(instance).and_then(Deaths::stays))
    };
    let listed: BTreeMap<Uuid, &Listed> = told.servers.iter().map(|known| (known.instance, known)).collect();
    let mut out = Vec::new();
    let mut all: Vec<Uuid> = permitted.iter().copied().chain(listed.keys().copied()).collect();
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
        let asks = listed.get(&instance).map_or(&PLAIN, |listed| &listed.asks);
        let decided = |recorded, to| Open::Decided(Assignment { instance, recorded, rank: asks.rank, to });
        let recorded = known.map(|known| known.recorded).or_else(|| listed.get(&instance).map(|known| known.recorded));
        let Some(recorded) = recorded else {
            // Permitted here, and Nova does not list it: it may be gone, or the list may be short.
            let recorded = Recorded { vm: VmState::Other, running: false, task: false };
            out.push(decided(recorded, To::Stays(Stays::Conflict)));
            continue;
        };
        let stays = match recorded.vm {
            _ if ha.permits.get(instance).is_none_or(|permit| permit.life != source) => Some(Stays::PermitConflict),
            _ if kept(instance, recorded.ran()).is_some() => kept(instance, recorded.ran()),
            _ if recorded.task => Some(Stays::TaskState),
            VmState::Error if !errors => Some(Stays::ErrorState),
            VmState::Other => Some(Stays::NotRunning),
            _ if told.returns => Some(Stays::Returns),
            _ if asks.unprotected => Some(Stays::NotProtected),
            VmState::Active | VmState::Stopped | VmState::Error => targets.stays(instance),
        };
        let sized = tables.consumer(Domain::Nova, instance, Purpose::Instance);
        let sized = sized.is_some_and(|home| !home.amounts.is_empty());
        out.push(match (stays, sized, claimed_by_hand(tables, instance)) {
            (Some(why), ..) => decided(recorded, To::Stays(why)),
            (None, false, _) => decided(recorded, To::Waiting(Waiting::Size)),
            (None, true, Some(life)) => decided(recorded, To::Target(life)),
            (None, true, None) => {
                let excluded = known.map(|known| known.excluded.clone()).unwrap_or_default();
                Open::Movable(recorded, Placed { instance, source, asks, excluded })
            }
        });
    }
    out
}

/// Whether what is planned for an instance is so still: its target takes instances, and has the room for it that
/// was claimed.
pub(crate) fn stands(tables: &Tables, known: &Recovery) -> bool {
    let Some(attempt) = &known.attempt else { return false };
    let claim = tables.consumer(Domain::Nova, known.instance, Purpose::Move);
    tables.failover().takes(attempt.target) && claim.is_some_and(|claim| claim.ticket == attempt.ticket)
}

/// What keeps an instance of `source` off a host, as far as the hosts themselves tell.
pub(crate) fn unlike(tables: &Tables, source: HostId, host: HostId, provider: &Provider) -> Option<Unlike> {
    Bounds::of(tables, source, &PLAIN).against(tables, host, provider)
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

/// An instance that a place is looked for.
#[derive(Clone, Debug)]
pub struct Placed<'a> {
    /// The instance.
    pub instance: Uuid,
    /// Where it was, or is.
    pub source: Life,
    /// What it asked for.
    pub asks: &'a Asks,
    /// Hosts that it was refused by.
    pub excluded: Vec<HostId>,
}

/// What instances ask, with the group that it is asked for: equal questions have one answer.
type Question = (u64, Option<usize>);

/// Hosts that may be used, and what was asked about them.
struct Lists<'a> {
    tables: &'a Tables,
    targets: &'a dyn Targets,
    groups: &'a ServerGroups,
    known: HashMap<HostId, Option<usize>>,
    answers: Vec<Vec<usize>>,
    asked: BTreeMap<Question, usize>,
    bounds: Vec<Bounds>,
    /// What keeps instances with the bounds of that number off a host.
    against: Vec<Vec<Option<Unlike>>>,
    /// The list of each answer within each bounds.
    made: BTreeMap<(usize, usize), usize>,
}

impl<'a> Lists<'a> {
    /// The answer to a question, and what is asked in it.
    fn answer(
        &mut self,
        placed: &Placed<'_>,
        tie: Option<Tie>,
        moving: &dyn Fn(Uuid) -> bool,
        hosts: &mut Vec<Place<'a>>,
    ) -> usize {
        let Placed { instance, source, asks, .. } = *placed;
        let question = self.targets.question(instance, asks).map(|question| (question, tie.map(|tie| tie.at)));
        if let Some(answer) = question.and_then(|question| self.asked.get(&question)) {
            return *answer;
        }
        let group = tie.map(|tie| self.groups.placed(self.tables, tie, moving));
        let ranked = self.targets.ranked(&Asked { instance, source, asks, group: group.as_ref() });
        let tables = self.tables;
        let place = |life: Life| {
            *self.known.entry(life.host).or_insert_with(|| {
                let row = row(tables, life)?;
                hosts.push(Place { life, row, provider: tables.provider(row)? });
                Some(hosts.len() - 1)
            })
        };
        self.answers.push(ranked.into_iter().filter_map(place).collect());
        if let Some(question) = question {
            self.asked.insert(question, self.answers.len() - 1);
        }
        self.answers.len() - 1
    }

    /// The number of some bounds.
    fn bounds(&mut self, bounds: Bounds) -> usize {
        self.bounds.iter().position(|known| *known == bounds).unwrap_or_else(|| {
            self.bounds.push(bounds);
            self.against.push(Vec::new());
            self.bounds.len() - 1
        })
    }

    fn unlike(&mut self, bounds: usize, host: usize, hosts: &[Place<'_>]) -> Option<Unlike> {
        let against = &mut self.against[bounds];
        for place in &hosts[against.len()..] {
            against.push(self.bounds[bounds].against(self.tables, place.life.host, place.provider));
        }
        against[host]
    }

    /// The list of an answer within some bounds.
    fn list(&mut self, answer: usize, bounds: usize, hosts: &[Place<'_>], lists: &mut Vec<Vec<usize>>) -> usize {
        if let Some(list) = self.made.get(&(answer, bounds)) {
            return *list;
        }
        let all = std::mem::take(&mut self.answers[answer]);
        lists.push(all.iter().copied().filter(|host| self.unlike(bounds, *host, hosts).is_none()).collect());
        self.answers[answer] = all;
        self.made.insert((answer, bounds), lists.len() - 1);
        lists.len() - 1
    }
}

/// A life for each, as far as there is room; else why not.
pub fn places(
    tables: &Tables,
    placed: &[Placed<'_>],
    groups: &ServerGroups,
    targets: &dyn Targets,
) -> Vec<Result<Life, Waiting>> {
    let leaving: BTreeSet<Uuid> = placed.iter().map(|placed| placed.instance).collect();
    let moving = |member: Uuid| leaving.contains(&member);
    let mut asking = Lists {
        tables,
        targets,
        groups,
        known: HashMap::new(),
        answers: Vec::new(),
        asked: BTreeMap::new(),
        bounds: Vec::new(),
        against: Vec::new(),
        made: BTreeMap::new(),
    };
    let (mut hosts, mut lists, mut members) = (Vec::new(), Vec::new(), BTreeMap::new());
    let mut bounds_of: BTreeMap<_, usize> = BTreeMap::new();
    let mut items = Vec::with_capacity(placed.len());
    let mut from = Vec::with_capacity(placed.len());
    let nothing = Arc::new(Amounts::default());
    for placed in placed {
        let home = tables.consumer(Domain::Nova, placed.instance, Purpose::Instance);
        let tie = groups.of(placed.instance);
        if let Some(tie) = tie {
            members.entry(tie.at).or_insert_with(|| groups.count(tables, tie, &moving));
        }
        let answer = asking.answer(placed, tie, &moving, &mut hosts);
        let asks = placed.asks;
        let bounds = *bounds_of
            .entry((placed.source.host, &asks.zone, &asks.extra_specs))
            .or_insert_with(|| asking.bounds(Bounds::of(tables, placed.source.host, asks)));
        from.push((answer, bounds));
        items.push(Item {
            instance: placed.instance,
            amounts: Arc::clone(home.map_or(&nothing, |home: &Consumer| &home.amounts)),
            rank: asks.rank,
            size: 0,
            list: asking.list(answer, bounds, &hosts, &mut lists),
            tie,
            excluded: placed.excluded.clone(),
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
    let mut told: BTreeMap<(usize, usize, &Amounts), Waiting> = BTreeMap::new();
    let mut out = Vec::with_capacity(items.len());
    for ((item, placed), (found, (answer, bounds))) in items.iter().zip(placed).zip(found.into_iter().zip(from)) {
        if let Some(life) = found {
            out.push(Ok(life));
            continue;
        }
        // With room where its group does not let it go, it is the group that keeps it.
        if let Some(bond) = item.tie.and_then(Tie::bond) {
            let answer = asking.answer(placed, None, &moving, &mut packer.hosts);
            let without = asking.list(answer, bounds, &packer.hosts, &mut packer.lists);
            if packer.has_room(item, &packer.lists[without]) {
                out.push(Err(Waiting::Group(bond)));
                continue;
            }
        }
        // And with room where its bounds do not, it is these: the nearest host says which.
        out.push(Err(*told.entry((answer, bounds, &item.amounts)).or_insert_with(|| {
            let all = asking.answers[answer].clone();
            let with_room = all.into_iter().filter(|host| packer.has_room(item, &[*host]));
            let unlike = with_room.filter_map(|host| asking.unlike(bounds, host, &packer.hosts)).max();
            unlike.map_or(Waiting::Capacity, Waiting::Unlike)
        })));
    }
    out
}
