//! Drains: whose turn it is, a plan, and migrations few at a time until nothing is left that can move. A drain
//! yields to cases of its cluster: nothing new is moved while instances of a dead host look for room.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{Answer, Call, Coordinator, Due, Lead, pace};
use crate::ha::admission::{self, Rule};
use crate::ha::case::Act;
use crate::ha::drain::{
    BACKOFF, Drain, GROUPS, Left, MOST_CELL, MOST_SOURCE, MOST_TARGET, Move, MoveState, Over, STALLED, STUCK, Stage,
    Step, Way,
};
use crate::ha::host::{Host, HostId, Maintenance};
use crate::ha::order::Change;
use crate::ha::planner::Listed;
use crate::ha::planner::{self, groups::ServerGroups};
use crate::ha::policy::{self, Policy};
use crate::ha::recovery::{Life, VmState};

/// What this leader knows of a migration.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// The least memory that was left, and since when, by its own clock.
    least: Option<(u64, u64)>,
    /// The intent to press on that was proposed, and whether the call was sent.
    pressed: Option<(Uuid, bool)>,
    /// Half minute in which it was pressed.
    turn: u64,
}

impl Coordinator {
    /// How much of a migration is left, in bytes.
    pub(super) fn progress(&mut self, instance: Uuid, remaining: u64, now: u64) {
        let known = self.progress.entry(instance).or_default();
        if known.least.is_none_or(|(least, _)| remaining < least) {
            known.least = Some((remaining, now));
        }
    }

    pub(super) fn drains(&mut self, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let drains: Vec<_> = lead.ha().drains.iter().cloned().collect();
        self.progress.retain(|instance, _| lead.ha().moves.get(*instance).is_some());
        let epoch = lead.tables.counters().epoch;
        for drain in drains.iter().filter(|drain| drain.epoch == epoch) {
            let Some(host) = lead.ha().hosts.get(drain.host) else { continue };
            let here = host.is_open() && host.incarnation == drain.incarnation;
            if !here {
                self.lost(drain, host, lead, due);
                continue;
            }
            let of: Vec<_> = lead.ha().moves.iter().filter(|known| known.from.host == drain.host).cloned().collect();
            for known in of.iter().filter(|known| known.is_live()) {
                self.follow_move(drain, known, lead, due);
            }
            match drain.stage {
                Stage::Waiting => self.wait_for_turn(drain, host, lead, due),
                Stage::Moving => self.empty(drain, host, &of, lead, due),
                Stage::Over(_) => self.give_back(drain, host, lead, due),
            }
        }
    }

    fn step_of_drain(drain: &Drain, step: Step, due: &mut Vec<Due>) {
        due.push(Due::Propose(Change::DrainStep { host: drain.host, step: Box::new(step) }));
    }

    /// Its host died: what was on its way is its case's.
    fn lost(&mut self, drain: &Drain, host: &Host, lead: &Lead<'_>, due: &mut Vec<Due>) {
        if !matches!(drain.stage, Stage::Over(_)) {
            due.push(Due::Propose(Change::DrainEnd { host: drain.host, over: Over::Lost }));
        } else if host.is_open() && lead.ha().cases.get(host.id).is_none() && drain.called {
            self.service(drain, host, false, lead, due);
        } else if host.is_open() && lead.ha().cases.get(host.id).is_none() {
            Self::step_of_drain(drain, Step::Disabled(false), due);
        }
    }

    /// Enables or disables the service, and says so when it is so.
    fn service(&mut self, drain: &Drain, host: &Host, disable: bool, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let own = drain.op.filter(|(_, by)| *by == self.leader).map(|(op, _)| op);
        let facts = self.facts(host);
        match facts.service.take() {
            Some((_, disabled)) if disabled == disable => {
                Self::step_of_drain(drain, Step::Disabled(disable), due);
                return;
            }
            _ => {}
        }
        if facts.asked_nova > 0 && lead.now < facts.asked_nova + pace::NOVA {
            return;
        }
        facts.asked_nova = lead.now.max(1);
        match own {
            _ if disable => {
                due.push(Due::Call(Call::Cordon { host: host.id, barrier: self.barrier(drain.mark()) }));
            }
            Some(op) => due.push(Due::Call(Call::Enable { host: host.id, barrier: self.barrier(op) })),
            None => {
                let crate::ha::Leader { term, node } = self.leader;
                let op = Uuid::new_v5(&host.id.0, format!("drain/{term}/{node}/{}", drain.since).as_bytes());
                Self::step_of_drain(drain, Step::Service(op), due);
            }
        }
    }

    fn wait_for_turn(&mut self, drain: &Drain, host: &Host, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let ha = lead.ha();
        let cluster = host.places.cluster;
        let there = |id: HostId| ha.hosts.get(id).is_some_and(|host| host.places.cluster == cluster);
        let moving = ha.drains.iter().filter(|other| other.stage == Stage::Moving && there(other.host)).count();
        let policy = policy::of(lead.tables, host);
        if moving >= policy.drains as usize || self.yields(host, lead) || !keeps_room(&policy, host, lead) {
            return;
        }
        let Some(groups) = self.apart(host, lead, due) else { return };
        if groups != drain.groups {
            Self::step_of_drain(drain, Step::Groups(groups), due);
        } else if ha.shares(drain).is_none() {
            Self::step_of_drain(drain, Step::Begin, due);
        }
    }

    /// Server groups whose members must be apart, of what Nova lists on a host, and whether one of those there declares
    /// a minimum. None: not told yet.
    fn apart(&mut self, host: &Host, lead: &Lead<'_>, due: &mut Vec<Due>) -> Option<BTreeMap<Uuid, bool>> {
        let groups = self.groups(lead, due);
        let servers = self.listed(host, lead, due)?;
        let groups = groups?;
        let mut apart = BTreeMap::new();
        for server in servers {
            let Some(group) = groups.apart(server.instance) else { continue };
            if apart.len() < GROUPS || apart.contains_key(&group) {
                *apart.entry(group).or_default() |= server.asks.min_available;
            }
        }
        Some(apart)
    }

    /// What Nova lists on a host, once it has said so.
    fn listed(&mut self, host: &Host, lead: &Lead<'_>, due: &mut Vec<Due>) -> Option<&[Listed]> {
        let facts = self.facts(host);
        let fresh = facts.servers.as_ref().is_some_and(|(at, _)| lead.now <= at + pace::REPLAN);
        if !fresh && (facts.asked_nova == 0 || lead.now >= facts.asked_nova + pace::NOVA) {
            facts.asked_nova = lead.now.max(1);
            due.push(Due::Call(Call::ListServers(host.id)));
        }
        facts.servers.as_ref().filter(|_| fresh).map(|(_, servers)| servers.as_slice())
    }

    /// A case of its cluster that is not recovered, a breaker under which nothing moves, an operator's pause, or calls of a former leader.
    pub(super) fn yields(&self, host: &Host, lead: &Lead<'_>) -> bool {
        let ha = lead.ha();
        let cluster = host.places.cluster;
        let busy = ha.cases.iter().any(|case| {
            let there = ha.hosts.get(case.id.host).is_some_and(|host| host.places.cluster == cluster);
            there && case.phase.is_unrecovered()
        });
        let stopped = ha.stops_recover(host).is_some() || ha.paused(Act::Recover) > lead.clock;
        busy || stopped || self.liveness.is_quiet(lead.now)
    }

    fn empty(&mut self, drain: &Drain, host: &Host, of: &[std::sync::Arc<Move>], lead: &Lead<'_>, due: &mut Vec<Due>) {
        if !drain.disabled {
            // What came until then is in the next list only.
            self.facts(host).servers = None;
            self.service(drain, host, true, lead, due);
            return;
        }
        let life = Life { host: host.id, incarnation: host.incarnation };
        let Some(servers) = self.listed(host, lead, due) else { return };
        let servers: BTreeMap<Uuid, Listed> = servers.iter().map(|known| (known.instance, known.clone())).collect();
        let here = lead.ha().permits.iter().filter(|permit| permit.life == life).map(|permit| permit.instance);
        let mut all: Vec<Uuid> = here.chain(servers.keys().copied()).collect();
        all.sort_unstable();
        all.dedup();
        let settled = |instance: Uuid| drain.left.iter().any(|(left, _)| *left == instance);
        let known = |instance: Uuid| of.iter().find(|known| known.instance == instance);
        let waits = |known: &Move| {
            let wait = BACKOFF[usize::from(known.tries.saturating_sub(1)).min(BACKOFF.len() - 1)];
            lead.clock < known.at.saturating_add(wait)
        };
        let open: Vec<_> = all
            .iter()
            .copied()
            .filter(|id| {
                !settled(*id) && known(*id).is_none_or(|known| known.state == MoveState::Failed && !waits(known))
            })
            // What has just moved may be in an older list.
            .filter(|id| lead.ha().permits.get(*id).is_none_or(|permit| permit.life == life))
            .collect();
        if !open.is_empty() && !self.yields(host, lead) {
            let Some(groups) = self.groups(lead, due) else { return };
            let ways = ways(&open, life, (&servers, &*groups), of, lead);
            Self::step_of_drain(drain, Step::Plan(ways), due);
            return;
        }
        if open.is_empty() && of.is_empty() {
            let over = if drain.left.is_empty() { Over::Succeeded } else { Over::Partial };
            due.push(Due::Propose(Change::DrainEnd { host: host.id, over }));
            return;
        }
        self.begin_moves(drain, host, of, lead, due);
    }

    fn begin_moves(
        &mut self,
        drain: &Drain,
        host: &Host,
        of: &[std::sync::Arc<Move>],
        lead: &Lead<'_>,
        due: &mut Vec<Due>,
    ) {
        if self.yields(host, lead) {
            return;
        }
        let ha = lead.ha();
        let in_cell =
            |known: &Move| ha.hosts.get(known.from.host).is_some_and(|from| from.places.cell == host.places.cell);
        let mut source = ha.under_way().filter(|known| known.from.host == host.id).count();
        let mut cell = ha.under_way().filter(|known| in_cell(known)).count();
        let mut targets: BTreeMap<HostId, usize> = BTreeMap::new();
        for known in ha.under_way() {
            *targets.entry(known.to.host).or_default() += 1;
        }
        for known in of.iter().filter(|known| known.state == MoveState::Claimed) {
            let target = targets.entry(known.to.host).or_default();
            if source >= MOST_SOURCE || cell >= MOST_CELL || *target >= MOST_TARGET {
                continue;
            }
            // The target is not what it was: another one is looked for.
            if !ha
                .hosts
                .get(known.to.host)
                .is_some_and(|to| to.takes_instances() && to.incarnation == known.to.incarnation)
            {
                Self::step_of_drain(drain, Step::Failed(known.instance), due);
                continue;
            }
            if self.intend(drain, known, lead, due) {
                (source, cell, *target) = (source + 1, cell + 1, *target + 1);
            }
        }
    }

    /// An intent, once Nova has said how the instance stands.
    fn intend(&mut self, drain: &Drain, known: &Move, lead: &Lead<'_>, due: &mut Vec<Due>) -> bool {
        let crate::ha::Leader { term, node } = self.leader;
        let instance = known.instance;
        let name = format!("{}/move/{term}/{node}/{}/{}", known.from, known.tries, lead.clock / pace::REPLAN);
        let op = Uuid::new_v5(&instance, name.as_bytes());
        let facts = self.instances.entry(instance).or_default();
        let fresh = facts.read.as_ref().filter(|(at, ..)| lead.now <= at + pace::READ);
        let Some((_, nova, _)) = fresh.cloned() else {
            super::evacuation::read_server(facts, instance, pace::NOVA, lead, due);
            return false;
        };
        facts.read = None;
        if nova.host != known.from.host || nova.moving || nova.now.task || !nova.sentinel {
            // What somebody has begun with it and does not end (a resize that nobody confirms) is theirs.
            if nova.sentinel && lead.clock > known.at.saturating_add(STUCK) {
                Self::step_of_drain(drain, Step::Plan(vec![(instance, Way::Left(Left::Busy))]), due);
            }
            return false;
        }
        Self::step_of_drain(drain, Step::Intent(instance, op, Box::new(nova)), due);
        true
    }

    fn follow_move(&mut self, drain: &Drain, known: &Move, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let instance = known.instance;
        let own = known.by == self.leader;
        let barrier = self.barrier(known.op);
        let facts = self.instances.entry(instance).or_default();
        if known.state == MoveState::Intent && own && facts.sent.is_none_or(|(op, _)| op != known.op) {
            facts.sent = Some((known.op, lead.now));
            due.push(Due::Call(Call::Migrate { instance, target: known.to.host, live: known.live, barrier }));
            return;
        }
        let refused = matches!(facts.answer, Some((op, Answer::Refused { .. })) if op == known.op && own);
        let Some((read_at, nova, migrations)) = facts.read.take() else {
            super::evacuation::read_server(facts, instance, pace::NOVA, lead, due);
            return;
        };
        if !nova.sentinel {
            return;
        }
        let new: Vec<_> = migrations.iter().filter(|migration| !known.baseline.contains(&migration.id)).collect();
        let done = new.iter().find(|migration| migration.over == Some(true)).filter(|_| nova.host == known.to.host);
        let open = new.iter().find(|migration| migration.over.is_none());
        match (done, open) {
            (Some(migration), _) => {
                // Its target may have booted meanwhile: what arrived before is looked for again.
                self.booted.remove(&known.to.host);
                Self::step_of_drain(drain, Step::Moved(instance, migration.id), due);
            }
            (None, Some(migration)) if known.state == MoveState::Intent => {
                Self::step_of_drain(drain, Step::Running(instance, migration.id), due);
            }
            // It was stopped for it, and is there: Nova keeps both places until somebody says so.
            (None, Some(_)) if !known.live && nova.host == known.to.host && !nova.now.task => {
                self.confirm(drain, known, lead, due);
            }
            (None, Some(migration)) if known.live => {
                due.push(Due::Call(Call::ReadProgress { instance, migration: migration.id }));
                self.press(drain, known, migration.id, lead, due);
            }
            // Every migration of it ended, and it is where it was.
            (None, None) if !new.is_empty() && nova.host == known.from.host && !nova.moving => {
                Self::step_of_drain(drain, Step::Failed(instance), due);
            }
            (None, None) if new.is_empty() => {
                let facts = self.instances.entry(instance).or_default();
                let since = facts.traceless(known.op, read_at);
                // Nova takes no second one while the first is on its way.
                if refused || read_at >= since + pace::HORIZON {
                    facts.traceless = None;
                    Self::step_of_drain(drain, Step::Failed(instance), due);
                }
            }
            _ => {}
        }
    }

    /// One that does not get on is finished by force where the policy says so, and given up when it is stuck.
    fn press(&mut self, drain: &Drain, known: &Move, migration: Uuid, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let instance = known.instance;
        let progress = self.progress.entry(instance).or_default();
        let stalled = progress.least.is_some_and(|(_, since)| lead.now >= since + STALLED);
        let stuck = lead.clock >= known.at.saturating_add(STUCK);
        let may = || lead.ha().hosts.get(drain.host).is_some_and(|host| policy::of(lead.tables, host).force_complete);
        let force = stalled && !stuck && may();
        if !stuck && !force {
            return;
        }
        match progress.pressed {
            Some((op, sent)) if op == known.op && known.by == self.leader => {
                if !sent {
                    progress.pressed = Some((op, true));
                    let barrier = self.barrier(op);
                    due.push(Due::Call(if force {
                        Call::ForceComplete { instance, migration, barrier }
                    } else {
                        Call::AbortMigration { instance, migration, barrier }
                    }));
                }
                // Forced in vain: given up when it is stuck.
                if sent && stuck && lead.clock >= known.at.saturating_add(2 * STUCK) {
                    self.progress.remove(&instance);
                }
            }
            _ => {
                let crate::ha::Leader { term, node } = self.leader;
                let what = if force { "force" } else { "abort" };
                let name = format!("{migration}/{what}/{term}/{node}/{}", lead.clock / STUCK);
                let op = Uuid::new_v5(&instance, name.as_bytes());
                progress.pressed = Some((op, false));
                Self::step_of_drain(drain, Step::Press(instance, op), due);
            }
        }
    }

    /// The intent to confirm a move, then the call; both again after a while.
    fn confirm(&mut self, drain: &Drain, known: &Move, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let instance = known.instance;
        let crate::ha::Leader { term, node } = self.leader;
        let name = format!("confirm/{term}/{node}/{}", lead.clock / pace::REPLAN);
        let op = Uuid::new_v5(&instance, name.as_bytes());
        let progress = self.progress.entry(instance).or_default();
        match progress.pressed {
            Some((op, true)) if op == known.op && lead.clock / pace::REPLAN == progress.turn => {}
            Some((op, false)) if op == known.op && known.by == self.leader => {
                progress.pressed = Some((op, true));
                due.push(Due::Call(Call::Confirm { instance, barrier: self.barrier(op) }));
            }
            _ => {
                (progress.pressed, progress.turn) = (Some((op, false)), lead.clock / pace::REPLAN);
                Self::step_of_drain(drain, Step::Press(instance, op), due);
            }
        }
    }

    /// Back at work: its service is enabled, and the drain is forgotten.
    fn give_back(&mut self, drain: &Drain, host: &Host, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let busy = lead.ha().moves.iter().any(|known| known.from.host == host.id && known.is_live());
        if host.maintenance != Maintenance::None || busy || lead.ha().cases.get(host.id).is_some() {
            return;
        }
        if drain.called {
            self.service(drain, host, false, lead, due);
        } else {
            Self::step_of_drain(drain, Step::Disabled(false), due);
        }
    }
}

/// Where each goes, or why it stays.
fn ways(
    open: &[Uuid],
    life: Life,
    (servers, groups): (&BTreeMap<Uuid, Listed>, &ServerGroups),
    of: &[std::sync::Arc<Move>],
    lead: &Lead<'_>,
) -> Vec<(Uuid, Way)> {
    let mut ways = Vec::new();
    let mut movable = Vec::new();
    for instance in open.iter().copied() {
        let permitted = lead.ha().permits.get(instance).is_some_and(|permit| permit.life == life);
        let left = match servers.get(&instance).map(|known| known.recorded) {
            _ if !permitted => Some(Left::Permit),
            None => Some(Left::State),
            Some(recorded) if recorded.task => Some(Left::Busy),
            Some(recorded) if !matches!(recorded.vm, VmState::Active | VmState::Stopped) => Some(Left::State),
            Some(_) if lead.targets.stays(instance).is_some() => Some(Left::Fixed),
            Some(_) => None,
        };
        match (left, servers.get(&instance)) {
            (Some(why), _) => ways.push((instance, Way::Left(why))),
            (None, Some(known)) => {
                let excluded = of.iter().find(|moved| moved.instance == instance);
                let excluded = excluded.map(|known| known.excluded.clone()).unwrap_or_default();
                movable.push((known, excluded));
            }
            (None, None) => {}
        }
    }
    let asked = movable.iter().map(|(known, excluded)| planner::Placed {
        instance: known.instance,
        source: life,
        asks: &known.asks,
        excluded: excluded.clone(),
    });
    let found = planner::places(lead.tables, &asked.collect::<Vec<_>>(), groups, lead.targets);
    ways.extend(movable.into_iter().zip(found).map(|((known, _), to)| {
        let runs = known.recorded.vm == VmState::Active;
        (known.instance, to.map_or(Way::Left(Left::NoTarget), |life| Way::To { life, live: runs }))
    }));
    ways
}

/// Whether what the policy keeps free is so without the host, where drains wait for that.
fn keeps_room(policy: &Policy, host: &Host, lead: &Lead<'_>) -> bool {
    let refused = admission::kept(policy).filter(|(_, refuses)| *refuses).map(|(rule, _)| rule);
    let percent = match refused {
        Some(Rule::Percent(percent)) => leaves(host, percent, lead),
        _ => true,
    };
    percent && (!policy.keep_spare && refused != Some(Rule::Host) || spares(host, lead))
}

/// Whether so much of each class that the host has is free in its zone and cell without it.
fn leaves(host: &Host, percent: u8, lead: &Lead<'_>) -> bool {
    let group = |host: &Host| (host.places.az, host.places.cell);
    let mut sums: BTreeMap<crate::names::Sym, (u128, u128)> = BTreeMap::new();
    let mut own: Vec<crate::names::Sym> = Vec::new();
    for other in lead.ha().hosts.iter().filter(|other| other.enabled && group(other) == group(host)) {
        let name = lead.tables.names.text(other.nova_host);
        let row = lead.tables.row_of_node(crate::domain::Domain::Nova, name, None);
        let Some(provider) = row.and_then(|row| lead.tables.provider(row)) else { continue };
        for (class, inventory) in &provider.inventories {
            let (capacity, used) = sums.entry(*class).or_default();
            *used += u128::from(provider.used(*class));
            if other.id == host.id {
                own.push(*class);
            } else if other.takes_instances() {
                *capacity += u128::from(inventory.capacity());
            }
        }
    }
    own.iter().all(|class| {
        let (capacity, used) = sums.get(class).copied().unwrap_or_default();
        capacity.saturating_sub(used) * 100 >= capacity * u128::from(percent) && used <= capacity
    })
}

/// Whether the cluster can do without a host: what is on its fullest other one still fits into the rest (a
/// necessary condition of `hosts 1`, class by class).
fn spares(host: &Host, lead: &Lead<'_>) -> bool {
    let ha = lead.ha();
    let mut free: BTreeMap<_, u64> = BTreeMap::new();
    let mut used: Vec<Vec<(crate::names::Sym, u64, u64)>> = Vec::new();
    let mut own: Vec<(crate::names::Sym, u64)> = Vec::new();
    for other in ha.hosts.iter().filter(|other| other.places.cluster == host.places.cluster) {
        let name = lead.tables.names.text(other.nova_host);
        let row = lead.tables.row_of_node(crate::domain::Domain::Nova, name, None);
        let Some(provider) = row.and_then(|row| lead.tables.provider(row)) else { continue };
        if other.id == host.id {
            own = provider.inventories.iter().map(|(class, _)| (*class, provider.used(*class))).collect();
        } else if other.takes_instances() {
            let of = provider.inventories.iter().map(|(class, inventory)| {
                let used = provider.used(*class);
                (*class, used, inventory.capacity().saturating_sub(used))
            });
            let of: Vec<_> = of.collect();
            for (class, _, room) in &of {
                *free.entry(*class).or_default() += room;
            }
            used.push(of);
        }
    }
    let fits = |class, needed: u64, without: u64| free.get(&class).is_none_or(|free| free - without >= needed);
    let itself = own.iter().all(|(class, used)| fits(*class, *used, 0));
    let drained = |class| own.iter().find(|(known, _)| *known == class).map_or(0, |(_, used)| *used);
    itself && used.iter().all(|of| of.iter().all(|(class, used, room)| fits(*class, used + drained(*class), *room)))
}
