//! Permits follow what Nova moves by itself. A live migration is let in by the target's check, for its source runs: its
//! permit follows once it runs there and not where it came from. What was stopped to be moved (a cold migration, a
//! resize and its way back, an unshelve) waits at the target's check: it may start once Nova says that it belongs there,
//! and a list of the former host, made after the question, says that no process has it.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::{Coordinator, Domains, Due, Lead, pace, source_of};
use crate::ha::case::Case;
use crate::ha::host::HostId;
use crate::ha::order::{Change, PermitCause};
use crate::ha::recovery::{Life, Recovery, Status, Stays, VmState};

/// Guests without a permit that are looked at.
const STRANGERS: usize = 65_536;
/// Instances that Nova is asked about for it in one step.
const READS: usize = 8;

impl Coordinator {
    /// All guests that begin, or run, where they have no permit, as agents say now.
    pub(super) fn strange(&mut self, told: Vec<(HostId, Uuid)>) {
        let told: BTreeSet<_> = told.into_iter().take(STRANGERS).map(|(host, instance)| (instance, host)).collect();
        self.strangers.retain(|known, _| told.contains(known));
        for stranger in told {
            self.strangers.entry(stranger).or_default();
        }
    }

    /// Permits that are to follow.
    pub(super) fn permits_follow(&mut self, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let mut reads = READS;
        let strangers: Vec<_> = self.strangers.iter().map(|(stranger, since)| (*stranger, *since)).collect();
        for ((instance, host), since) in strangers {
            let since = since.unwrap_or(lead.clock);
            self.strangers.insert((instance, host), Some(since));
            let Some((to, takes)) = Self::place_at(instance, host, lead) else { continue };
            let from = lead.ha().permits.get(instance).map(|permit| permit.life);
            let alive = match from {
                // What its host had before it booted is started there, or left.
                Some(from) if from.host == host => continue,
                Some(from) => lead.ha().lives(from),
                None => true,
            };
            let proven = from.and_then(|from| lead.ha().proven(from, lead.tables.counters().epoch));
            let after = if alive { since } else { proven.unwrap_or(since) };
            let Some((runs, at)) = self.runs_at(host, instance, after, lead, due) else { continue };
            let cause = match from {
                // Whatever its host is about to do: it is there, and nowhere else.
                Some(_) if !alive => {
                    let Some(_) = proven.filter(|_| runs) else { continue };
                    PermitCause::Adopted { at }
                }
                _ if !takes => continue,
                Some(from) if self.without(from.host, instance, since, lead, due).is_none() => continue,
                // Where it runs it has its place, whoever brought it there.
                Some(_) if runs => PermitCause::Migrated(Uuid::nil()),
                // The first sight of it: a report may come much later, and its host die before.
                None if runs => PermitCause::Placed,
                from => {
                    let facts = self.instances.entry(instance).or_default();
                    let read = facts.read.as_ref().filter(|(at, ..)| lead.now <= at + pace::READ);
                    let Some((_, read, _)) = read else {
                        if reads > 0 {
                            reads -= 1;
                            super::evacuation::read_server(facts, instance, pace::NOVA, lead, due);
                        }
                        continue;
                    };
                    if read.host != host {
                        continue;
                    }
                    let last = read.migrations.last().copied().unwrap_or_default();
                    if from.is_some() { PermitCause::Migrated(last) } else { PermitCause::Placed }
                }
            };
            due.push(Due::Propose(Change::PermitMove { instance, from, to, cause }));
        }
    }

    /// Permits of what Nova has on a host that is dead: it was moved there, and its place had not followed. It does once
    /// Nova says that it belongs there, and a list of the former host, newer than that and than the proof, is without
    /// it. Whether one may still do so: a case that is about to be over waits for it a moment.
    pub(super) fn permits_follow_the_dead(&mut self, case: &Case, lead: &Lead<'_>, due: &mut Vec<Due>) -> bool {
        let (to, mut reads, mut waits) = (source_of(case), READS, false);
        let Some(proven) = lead.ha().proven(to, lead.tables.counters().epoch) else { return false };
        let split =
            |known: &&Arc<Recovery>| known.case == case.id && known.status == Status::Stays(Stays::PermitConflict);
        for instance in lead.ha().recoveries.iter().filter(split).map(|known| known.instance) {
            let from = lead.ha().permits.get(instance).map(|permit| permit.life);
            let from = from.filter(|from| from.host != to.host && lead.ha().lives(*from));
            let Some(from) = from.filter(|from| !self.strangers.contains_key(&(instance, from.host))) else { continue };
            waits = true;
            let facts = self.instances.entry(instance).or_default();
            let Some((read_at, read, _)) = facts.read.as_ref().filter(|(at, ..)| lead.now <= at + pace::REPLAN) else {
                if reads > 0 {
                    reads -= 1;
                    super::evacuation::read_server(facts, instance, pace::NOVA, lead, due);
                }
                continue;
            };
            // What was resized or failed on its way is a person's: its copy at the former host may be the one that counts.
            let whole = matches!(read.now.vm, VmState::Active | VmState::Stopped);
            let rests = read.sentinel && !read.moving && !read.now.task && whole;
            if read.host != to.host || !rests {
                facts.read = facts.read.take().filter(|(at, ..)| lead.now < at + pace::NOVA);
                continue;
            }
            let read = lead.clock.saturating_sub(lead.now - read_at);
            let Some(at) = self.without(from.host, instance, proven.max(read), lead, due) else { continue };
            let followed = PermitCause::Followed { read, at };
            due.push(Due::Propose(Change::PermitMove { instance, from: Some(from), to, cause: followed }));
        }
        waits && lead.clock < case.since.saturating_add(pace::REPLAN)
    }

    /// The life of a host to which a permit may follow, if nothing of failover's own is about to move it, and whether
    /// that host takes what is to begin.
    fn place_at(instance: Uuid, host: HostId, lead: &Lead<'_>) -> Option<(Life, bool)> {
        let ha = lead.ha();
        let there = ha.hosts.get(host).filter(|host| host.enabled && host.is_open())?;
        let moved = ha.moves.get(instance).is_some_and(|known| known.is_live());
        let recovered = ha.recoveries.get(instance).is_some_and(|known| !known.status.is_settled());
        let restarted = ha.is_restarting(instance, host);
        let takes = !there.quarantined && ha.cases.get(host).is_none();
        let free = !moved && !recovered && !restarted;
        free.then_some((Life { host, incarnation: there.incarnation }, takes))
    }

    /// Whether a list of a host that is newer than that says that the instance executes there, and of when it is.
    fn runs_at(
        &mut self,
        host: HostId,
        instance: Uuid,
        after: u64,
        lead: &Lead<'_>,
        due: &mut Vec<Due>,
    ) -> Option<(bool, u64)> {
        let runs = self.list_after(host, after).map(|list| (list.running.contains(&instance), list.at));
        if runs.is_none() {
            self.list(host, lead, due);
        }
        runs
    }

    /// A list of a host that is newer than that.
    fn list_after(&self, host: HostId, after: u64) -> Option<&Domains> {
        self.hosts.get(&host)?.domains.as_ref().filter(|list| list.at > after)
    }

    /// Of when a list of a host is that says that no process there has the instance, if one that is newer than that does.
    pub(super) fn without(
        &mut self,
        host: HostId,
        instance: Uuid,
        after: u64,
        lead: &Lead<'_>,
        due: &mut Vec<Due>,
    ) -> Option<u64> {
        let without = self.list_after(host, after).filter(|list| list.is_without(instance)).map(|list| list.at);
        if without.is_none() {
            self.list(host, lead, due);
        }
        without
    }

    /// Asks for the domains of a host, now and then.
    pub(super) fn list(&mut self, host: HostId, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let facts = self.hosts.entry(host).or_default();
        if facts.asked_domains == 0 || lead.now >= facts.asked_domains + pace::NOVA {
            facts.asked_domains = lead.now.max(1);
            due.push(Due::Call(super::Call::ListDomains(host)));
        }
    }
}
