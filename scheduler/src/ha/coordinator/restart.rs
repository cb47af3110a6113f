//! Guests that are started again where they were, and guests that are found where a migration was bringing
//! them.

use uuid::Uuid;

use super::{Answer, Call, Coordinator, Due, Lead, pace};
use crate::ha::case::Case;
use crate::ha::host::Host;
use crate::ha::order::{Change, Clear, NovaRead, PermitCause};
use crate::ha::planner::OnCrash;
use crate::ha::policy::{self, Mode};
use crate::ha::recovery::{Life, Status, Stays, VmState};

/// Restarts of one host at once.
const MOST_RESTARTS: usize = 8;

/// Whether a guest that ended by itself is started again: as it asks, or else as the policy of its host says.
pub(super) fn is_wanted(nova: &NovaRead, lead: &Lead<'_>) -> bool {
    let policy = || lead.ha().hosts.get(nova.host).is_some_and(|host| policy::of(lead.tables, host).in_place);
    nova.on_crash.map_or_else(policy, |said| said != OnCrash::Stays)
}

impl Coordinator {
    /// Whether something is still permitted in a former life of a host, or on its way up.
    pub(super) fn leaves_something(host: &Host, lead: &Lead<'_>) -> bool {
        let ha = lead.ha();
        let old = |life: Life| life.host == host.id && life.incarnation < host.incarnation;
        let here = Life { host: host.id, incarnation: host.incarnation };
        ha.permits.iter().any(|permit| old(permit.life))
            || ha.restarts.iter().any(|restart| restart.life == here && restart.well.is_none())
    }

    /// What was on the host in its former lives: what ran is started, the rest stays as it is.
    pub(super) fn restart_in_place(&mut self, host: &Host, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let life = Life { host: host.id, incarnation: host.incarnation };
        let ha = lead.ha();
        let mut busy = 0;
        let open: Vec<_> =
            ha.restarts.iter().filter(|known| known.life == life && known.well.is_none()).copied().collect();
        for restart in open {
            busy += 1;
            self.follow_restart(restart.instance, life, lead, due);
        }
        busy += self.retry(Some(host.id), lead, due);
        let old = |life: Life| life.host == host.id && life.incarnation < host.incarnation;
        let left: Vec<_> = ha.permits.iter().filter(|permit| old(permit.life)).copied().collect();
        for permit in left {
            if busy >= MOST_RESTARTS {
                return;
            }
            busy += 1;
            let instance = permit.instance;
            // As it was when this host died: what another host's plan had recorded is over.
            let known = ha.recoveries.get(instance).filter(|recovery| recovery.case.host == host.id);
            let recorded = known.map(|recovery| recovery.recorded);
            let poison = ha.stays_after(instance, permit.life, lead.tables.counters().epoch, lead.clock).is_some();
            let facts = self.instances.entry(instance).or_default();
            let gone = facts.missing.is_some_and(|since| lead.now >= since + pace::VANISHED);
            let mut read =
                facts.read.as_ref().filter(|(at, ..)| lead.now <= at + pace::READ).map(|(_, read, _)| read.clone());
            if let Some(read) = read.as_mut().filter(|read| read.host == host.id && !read.moving && read.sentinel)
                && let Some(case) = ha.cases.get(host.id)
                && !self.arrived_nowhere(case, instance, read, lead, due)
            {
                continue;
            }
            let facts = self.instances.entry(instance).or_default();
            match read {
                // Somebody has moved it: where it is found running it stays, and nothing is started here.
                Some(read) if read.host != host.id => {
                    if let Some(case) = ha.cases.get(host.id)
                        && !read.moving
                    {
                        self.found_there(case, instance, read.host, lead, due);
                    }
                }
                Some(read) if read.moving || !read.sentinel => {}
                Some(read) if recorded.unwrap_or(read.now).vm == VmState::Active && !poison => {
                    self.restart(instance, life, None, read, lead, due);
                }
                None if !gone => super::evacuation::read_server(facts, instance, pace::NOVA, lead, due),
                _ => {
                    let cause = PermitCause::SameHostNewBoot;
                    due.push(Due::Propose(Change::PermitMove { instance, from: Some(permit.life), to: life, cause }));
                }
            }
        }
    }

    /// What did not come up is tried again, a few times: of one host, or of all without a case.
    fn retry(&mut self, of: Option<crate::ha::HostId>, lead: &Lead<'_>, due: &mut Vec<Due>) -> usize {
        let ha = lead.ha();
        let failed = |known: &&crate::ha::restart::Restart| {
            let young = known.is_young(lead.clock);
            let wanted = match of {
                Some(host) => known.life.host == host,
                None => ha.cases.get(known.life.host).is_none(),
            };
            let here = ha.permits.get(known.instance).is_some_and(|permit| permit.life == known.life);
            let open = ha.hosts.get(known.life.host).is_some_and(|host| host.is_open());
            let due = known.well == Some(false) && known.tries < crate::ha::restart::MOST && young;
            due && wanted && here && open && !known.rests(lead.clock) && !ha.is_poison(known.instance)
        };
        let failed: Vec<_> = ha.restarts.iter().filter(failed).copied().collect();
        for restart in &failed {
            self.read_and_restart(restart.instance, restart.life, lead, due);
        }
        failed.len()
    }

    /// The intent to start one again, once Nova has said that it is there.
    fn read_and_restart(&mut self, instance: Uuid, life: Life, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let facts = self.instances.entry(instance).or_default();
        let read = facts.read.as_ref().filter(|(at, ..)| lead.now <= at + pace::READ);
        match read.map(|(at, read, _)| (*at, read.clone())) {
            Some((at, mut read)) if read.host == life.host => {
                if self.left_for_nowhere(instance, at, &mut read, lead, due) {
                    self.restart(instance, life, None, read, lead, due);
                }
            }
            Some(_) => {}
            None => super::evacuation::read_server(facts, instance, pace::NOVA, lead, due),
        }
    }

    /// Whether a guest of a host that lives is known not to be where its last live migration was bringing it, by a list
    /// that is newer than what Nova said at `read_at`. One that runs there has its place follow it.
    fn left_for_nowhere(
        &mut self,
        instance: Uuid,
        read_at: u64,
        nova: &mut NovaRead,
        lead: &Lead<'_>,
        due: &mut Vec<Due>,
    ) -> bool {
        let Some((host, known)) = nova.destination else { return true };
        let read = lead.clock.saturating_sub(lead.now.saturating_sub(read_at));
        if matches!(known, Some(Clear::Absent { at }) if at > read) {
            return true;
        }
        let clear = match super::evacuation::last_life(host, lead) {
            Some(life) => Some(Clear::Dead(life)),
            None => self.without(host, instance, read, lead, due).map(|at| Clear::Absent { at }),
        };
        nova.destination = Some((host, clear));
        clear.is_some()
    }

    /// The intent to start one again, or to move it instead.
    pub(super) fn restart(
        &mut self,
        instance: Uuid,
        life: Life,
        to: Option<Life>,
        nova: NovaRead,
        lead: &Lead<'_>,
        due: &mut Vec<Due>,
    ) {
        let tries = lead.ha().restarts.get(instance).map_or(0, |known| u64::from(known.tries));
        let crate::ha::Leader { term, node } = self.leader;
        let what = if to.is_some() { "move" } else { "restart" };
        let name = format!("{life}/{what}/{term}/{node}/{tries}/{}", lead.clock / pace::REPLAN);
        let op = Uuid::new_v5(&instance, name.as_bytes());
        due.push(Due::Propose(Change::RestartIntent { instance, life, op, to, nova: Box::new(nova) }));
    }

    /// Called once, and then its host's list says whether it runs.
    pub(super) fn follow_restart(&mut self, instance: Uuid, life: Life, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let Some(known) = lead.ha().restarts.get(instance).copied() else { return };
        if !lead.ha().stands(&known) {
            // Its host has died, or it has moved: what was meant then is void.
            due.push(Due::Propose(Change::RestartOutcome { instance, op: known.op, well: false }));
            return;
        }
        if let Some(to) = known.to {
            self.follow_unhelped(known, to, lead, due);
            return;
        }
        if known.by != self.leader {
            // Whether its leader called is not known: on one host a second start is harmless.
            self.read_and_restart(instance, life, lead, due);
            return;
        }
        let barrier = self.barrier(known.op);
        let listed = self.hosts.get(&life.host).and_then(|facts| facts.domains.as_ref());
        let runs = listed.is_some_and(|domains| domains.at > known.at && domains.running.contains(&instance));
        let facts = self.instances.entry(instance).or_default();
        let refused = matches!(facts.answer, Some((op, Answer::Refused { .. })) if op == known.op);
        let outcome = |well| Due::Propose(Change::RestartOutcome { instance, op: known.op, well });
        if facts.sent.is_none_or(|(op, _)| op != known.op) {
            facts.sent = Some((known.op, lead.now));
            due.push(Due::Call(Call::Restart { instance, host: life.host, barrier }));
        } else if runs {
            due.push(outcome(true));
        } else if refused || lead.clock > known.at.saturating_add(pace::RESTART) {
            due.push(outcome(false));
        } else {
            self.list(life.host, lead, due);
        }
    }

    /// Guests that crashed by themselves on hosts that live: restarted three times, then a person must look.
    pub(super) fn crashed(&mut self, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let ha = lead.ha();
        let open: Vec<_> = ha.restarts.iter().filter(|known| known.well.is_none()).copied().collect();
        for restart in open {
            if ha.cases.get(restart.life.host).is_none() {
                self.hosts.entry(restart.life.host).or_default();
                self.follow_restart(restart.instance, restart.life, lead, due);
            }
        }
        self.retry(None, lead, due);
        self.move_unhelped(lead, due);
        // Nothing is done about the others, whatever they ask for.
        self.guests.retain(|_, host| ha.hosts.get(*host).is_some() && lead.mode(Some(*host)) == Mode::Enforce);
        let crashed: Vec<_> = self.guests.iter().map(|(instance, host)| (*instance, *host)).collect();
        for (instance, id) in crashed {
            let life = ha
                .hosts
                .get(id)
                .filter(|host| host.is_open())
                .map(|host| Life { host: id, incarnation: host.incarnation });
            let here =
                ha.permits.get(instance).is_some_and(|permit| Some(permit.life) == life) && !ha.is_poison(instance);
            let known = ha.restarts.get(instance).filter(|known| Some(known.life) == life);
            if known.is_some_and(|known| known.well == Some(true) && known.rests(lead.clock)) {
                continue;
            }
            let last = known.filter(|known| known.is_young(lead.clock) && known.tries >= crate::ha::restart::MOST);
            let tried = last.is_some() || known.is_some_and(|known| known.well.is_none());
            // Up, and down again: what was tried was in vain.
            if let Some(last) = last.filter(|known| known.well == Some(true)) {
                due.push(Due::Propose(Change::RestartOutcome { instance, op: last.op, well: false }));
            }
            let (Some(life), false) = (life.filter(|_| here && ha.cases.get(id).is_none()), tried) else {
                self.guests.remove(&instance);
                continue;
            };
            let facts = self.instances.entry(instance).or_default();
            match facts.read.as_ref().filter(|(at, ..)| lead.now <= at + pace::READ) {
                // A user has stopped it meanwhile, or something is being done with it, or nobody has asked for it.
                Some((_, read, _))
                    if read.now.vm != VmState::Active || read.now.task || read.host != id || !is_wanted(read, lead) =>
                {
                    self.guests.remove(&instance);
                }
                Some((at, read, _)) => {
                    let (at, mut read) = (*at, read.clone());
                    if self.left_for_nowhere(instance, at, &mut read, lead, due) {
                        self.guests.remove(&instance);
                        self.restart(instance, life, None, read, lead, due);
                    }
                }
                None => super::evacuation::read_server(facts, instance, pace::NOVA, lead, due),
            }
        }
    }

    /// Instances that a live migration was bringing elsewhere when their host died: found there, they are
    /// left there.
    pub(super) fn adopt(&mut self, case: &Case, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let moving: Vec<_> = lead
            .ha()
            .recoveries
            .iter()
            .filter(|known| known.case == case.id)
            .filter(|known| known.status == Status::Stays(Stays::TaskState))
            .map(|known| known.instance)
            .collect();
        for instance in moving {
            let facts = self.instances.entry(instance).or_default();
            let read = facts.read.as_ref().filter(|(at, ..)| lead.now <= at + pace::REPLAN);
            let Some(destination) = read.map(|(_, read, _)| read.destination) else {
                super::evacuation::read_server(facts, instance, pace::NOVA, lead, due);
                continue;
            };
            if let Some((host, _)) = destination {
                self.found_there(case, instance, host, lead, due);
            }
        }
    }

    /// Looks for an instance on a host that it was being brought to, and adopts it when it is there. What a
    /// list that is newer than the proof says of it; none: there is no such list yet.
    pub(super) fn found_there(
        &mut self,
        case: &Case,
        instance: Uuid,
        host: crate::ha::HostId,
        lead: &Lead<'_>,
        due: &mut Vec<Due>,
    ) -> Option<(bool, u64)> {
        let ha = lead.ha();
        let source = super::source_of(case);
        let proven = ha.proven(source, lead.tables.counters().epoch)?;
        let facts = self.hosts.entry(host).or_default();
        let list = facts.domains.as_ref().filter(|domains| domains.at > proven);
        let found = list.map(|domains| (domains.listed.contains(&instance), domains.at));
        // Half of a migration is there and does not execute, or may not go on: neither a place nor none.
        let runs = list.is_some_and(|domains| domains.running.contains(&instance));
        if found.is_none() {
            self.list(host, lead, due);
        }
        if let Some((true, at)) = found
            && runs
            && let Some(there) = ha.hosts.get(host).filter(|there| there.is_open())
        {
            let to = Life { host, incarnation: there.incarnation };
            let adopted = PermitCause::Adopted { at };
            due.push(Due::Propose(Change::PermitMove { instance, from: Some(source), to, cause: adopted }));
        }
        found
    }
}
