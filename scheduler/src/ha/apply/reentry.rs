//! The return of a host: what each step needs. The only copy of an instance is never let be deleted, and
//! nothing is placed on the host before the last step.

use uuid::Uuid;

use super::{Cx, Result, invalid};
use crate::ha::case::{Case, CaseId, Phase};
use crate::ha::host::{Host, HostId, Maintenance};
use crate::ha::order::Done;
use crate::ha::policy;
use crate::ha::recovery::{BASELINE, Status};
use crate::ha::reentry::{Begun, CRASHES, ComputeRead, DAY, DOMAINS, HOLD_OFF, STABLE, Seen, Step};
use crate::ha::refusal::Refusal;
use crate::ha::stop::Stop;

impl Cx<'_> {
    pub(super) fn reenter(&mut self, id: CaseId, step: Step, op: Uuid, seen: &Seen) -> Result {
        let case = self.case(id)?;
        let host = self.host(id.host)?;
        if case.reentry.begun(step).is_some_and(|begun| (begun.op, begun.by) == (op, self.order.leader)) {
            return Ok(Done::Unchanged);
        }
        let phase = if step == Step::PowerOn { Phase::AwaitReturn } else { Phase::Returning };
        if case.phase != phase {
            let expected = phase.to_string();
            return Err(Refusal::Phase { case: id, current: case.phase, what: format!("{step:?}"), expected });
        }
        let listed = seen.domains.as_ref().map_or(0, |(domains, _)| domains.len());
        let moved = seen.compute.as_ref().map_or(0, |read| read.open.len().max(read.done.len()));
        if listed > DOMAINS || moved > DOMAINS.max(BASELINE) {
            return Err(invalid("seen", &format!("{listed} domains, {moved} migrations"), "4096 of each at most"));
        }
        if let Some(why) = self.reentry_flaw(case, host, step, seen) {
            return Err(Refusal::Reentry { host: id.host, step, why });
        }
        let begun = Begun { step, op, by: self.order.leader, at: self.now() };
        if let Some(case) = self.ha_mut().case_mut(id.host) {
            case.reentry.begin(begun);
        }
        if step == Step::Admit {
            self.with_host(id.host, |host| host.quarantined = false);
        }
        Ok(Done::Changed)
    }

    fn reentry_flaw(&self, case: &Case, host: &Host, step: Step, seen: &Seen) -> Option<String> {
        let now = self.now();
        if step == Step::PowerOn {
            let power_on = policy::of(&self.state.tables, host).power_on;
            let flaws = [
                (host.is_open(), "it is on"),
                (host.maintenance == Maintenance::Manual, "it is in manual maintenance: a person may be inside it"),
                (!power_on && !self.is_operator(), "its policy leaves that to an operator"),
                (now < case.since.saturating_add(HOLD_OFF), "its dump may still be written: a minute is waited"),
            ];
            return flaws.into_iter().find_map(|(flawed, why)| flawed.then(|| why.to_owned()));
        }
        if !host.is_open() || host.incarnation != case.reentry.life {
            return Some("the life that was coming back is over".to_owned());
        }
        // What would be deleted when its nova-compute starts must be elsewhere, for sure.
        let live = self.ha().recoveries.iter().any(|recovery| recovery.case == case.id && recovery.live().is_some());
        if live && !Stop::OnlyCopy.lets(false) {
            return Some("an evacuation away from it is not over".to_owned());
        }
        match step {
            Step::StartNova => self.deletes_only_copy(host.id, seen.compute.as_ref()),
            Step::Unforce => self.unforce_flaw(case, host, seen),
            Step::Enable | Step::Admit => self.admit_flaw(case, host, step, seen),
            Step::PowerOn => None,
        }
    }

    fn deletes_only_copy(&self, host: HostId, read: Option<&ComputeRead>) -> Option<String> {
        let Some(read) = read.filter(|read| Stop::Sentinel.lets(read.sentinel)) else {
            return Some("Nova's answer is not whole".to_owned());
        };
        // What it began for a target that died is never over. Once the place of the instance is elsewhere, and nothing is on
        // its way, there is a better copy than the one that would be deleted.
        let moved = |instance: &&Uuid| {
            let known = self.ha().recoveries.get(**instance).map(|known| known.status);
            matches!(known, None | Some(Status::Succeeded(_)))
                && self.ha().permits.get(**instance).is_some_and(|permit| permit.life.host != host)
        };
        if let Some(instance) = read.open.iter().find(|instance| !moved(instance))
            && !Stop::OnlyCopy.lets(false)
        {
            return Some(format!("Nova has an evacuation of instance {instance} away from it that is not over"));
        }
        let here = |instance: &&Uuid| self.ha().permits.get(**instance).is_some_and(|permit| permit.life.host == host);
        if let Some(instance) = read.done.iter().find(here)
            && !Stop::OnlyCopy.lets(false)
        {
            return Some(format!(
                "Nova would delete instance {instance} there, which may run nowhere else: a person must look"
            ));
        }
        None
    }

    /// Nova answers 400 to `forced_down=false` while an evacuation away from the host is `done` and its
    /// nova-compute has not cleaned up after it.
    fn unforce_flaw(&self, case: &Case, host: &Host, seen: &Seen) -> Option<String> {
        let Some(started) = case.reentry.begun(Step::StartNova) else {
            return Some("its nova-compute was not let start".to_owned());
        };
        if let Some(why) = self.deletes_only_copy(host.id, seen.compute.as_ref()) {
            return Some(why);
        }
        let read = seen.compute.as_ref()?;
        if !read.fresh || !read.done.is_empty() {
            return Some("its nova-compute does not report, or has not cleaned up".to_owned());
        }
        self.stale(host, seen, started.at)
    }

    /// A domain whose permit is elsewhere, or no list that is newer than `since`.
    fn stale(&self, host: &Host, seen: &Seen, since: u64) -> Option<String> {
        let Some((domains, _)) = seen.domains.as_ref().filter(|(_, at)| *at > since && *at <= self.now()) else {
            return Some("its agent has not listed its domains since".to_owned());
        };
        let elsewhere = |id: &&Uuid| self.ha().permits.get(**id).is_some_and(|permit| permit.life.host != host.id);
        let stale = domains.iter().find(elsewhere)?;
        (!Stop::StaleGuests.lets(false)).then(|| format!("instance {stale} is there and may run elsewhere only"))
    }

    fn admit_flaw(&self, case: &Case, host: &Host, step: Step, seen: &Seen) -> Option<String> {
        let now = self.now();
        if host.forced_down {
            return Some("it is forced down in Nova".to_owned());
        }
        if step == Step::Admit && host.disabled {
            return Some("it is disabled in Nova".to_owned());
        }
        if now < case.reentry.unforced.saturating_add(STABLE) && !Stop::ReturnOrder.lets(false) {
            return Some("it is watched for a minute first".to_owned());
        }
        if host.must_reboot {
            return Some("it must be rebooted first".to_owned());
        }
        let crashes = host.proofs.iter().filter(|proof| now.saturating_sub(proof.at) < DAY).count();
        if crashes >= CRASHES && !self.is_operator() {
            return Some(format!("it died {crashes} times within a day: an operator must let it back in"));
        }
        let old = |life: crate::ha::recovery::Life| life.host == host.id && life.incarnation < host.incarnation;
        if let Some(permit) = self.ha().permits.iter().find(|permit| old(permit.life)) {
            return Some(format!("instance {} of its former life is not settled", permit.instance));
        }
        if step == Step::Admit { self.stale(host, seen, case.since) } else { None }
    }
}
