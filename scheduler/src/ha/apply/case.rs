//! Cases: opening them, and taking them from phase to phase.

use std::sync::Arc;

use super::{Cx, Result, invalid, text};
use crate::ha::SUSPECT;
use crate::ha::case::{Act, Case, CaseId, Cause, Phase, Step};
use crate::ha::host::{Belief, Detection, HostId, Incarnation};
use crate::ha::note::What;
use crate::ha::order::Done;
use crate::ha::policy::{self, Mode};
use crate::ha::proof::Token;
use crate::ha::recovery::{Life, Permit, Status};
use crate::ha::reentry::{Reentry, Step as ReentryStep};
use crate::ha::refusal::Refusal;
use crate::ha::stop::Stop;
use crate::ha::table::CASES;

impl Cx<'_> {
    pub(super) fn case_open(&mut self, id: HostId, incarnation: Incarnation, cause: Cause) -> Result {
        let rebooted = cause == Cause::Rebooted;
        let host = if rebooted { self.host(id)? } else { self.alive(id, incarnation)? };
        // What is left of a host that came back and is lost again is the new case's.
        let over = |case: &Case| {
            matches!(case.phase, Phase::AwaitReturn | Phase::Returning)
                && case.id.incarnation < incarnation
                && case.epoch == self.epoch()
        };
        let former = self.ha().cases.get(id);
        if let Some(case) = former.filter(|case| !over(case)) {
            return Err(Refusal::Case { given: CaseId { host: id, incarnation, seq: 0 }, current: Some(case.id) });
        }
        if !host.enabled {
            return Err(invalid("host", "one that failover is not enabled for", "an enabled one"));
        }
        if !self.is_operator() && policy::of(&self.state.tables, host).mode == Mode::Off {
            return Err(self.not_enforced(id));
        }
        let detection = host.belief.detection;
        let own = host.belief.by == self.order.leader;
        let due = match cause {
            Cause::Unreachable => detection == Detection::Unreachable && Stop::OwnWatch.lets(own),
            Cause::PowerOff => matches!(detection, Detection::Suspect | Detection::Unreachable),
            Cause::Operator => self.is_operator(),
            Cause::Isolated => {
                let after = policy::of(&self.state.tables, host).fence_isolated;
                let long = after > 0 && self.now().saturating_sub(host.belief.since) >= after;
                detection == Detection::Isolated && Stop::OwnWatch.lets(own) && long
            }
            Cause::Rebooted => host.is_open() && host.incarnation > incarnation && host.proof(incarnation).is_some(),
        };
        if !due {
            let given = format!("{cause:?} of a host that is believed to be {detection:?}");
            let expected = "Unreachable as this leader has watched it, its power off while it is suspected, a boot that ended \
                 a life, a policy, or an operator";
            return Err(invalid("cause", &given, expected));
        }
        // What is done goes by the name and the BMC: two hosts of one name would be taken for one another.
        let (name, bmc) = (host.nova_host, host.bmc.clone());
        let twin = self
            .ha()
            .hosts
            .iter()
            .find(|other| other.id != id && (other.nova_host == name || bmc.is_some() && other.bmc == bmc));
        if let Some(twin) = twin {
            let given = format!("one whose name or BMC host {} has too", twin.id);
            return Err(invalid("host", &given, "its own: mend the inventory"));
        }
        if self.ha().cases.len() >= CASES {
            return Err(Refusal::Full { table: "open cases".to_owned(), most: CASES as u64 });
        }
        let seq = host.case_seq + 1;
        let step = self.step(if rebooted { Phase::Fenced } else { Phase::Unreachable });
        let reentry = former.map_or_else(Reentry::default, |case| case.reentry.of(incarnation));
        let opened = Case { reentry, ..new_case(CaseId { host: id, incarnation, seq }, self.epoch(), cause, step) };
        let id = opened.id;
        if former.is_some() {
            let step = self.step(Phase::Closed);
            if let Some(case) = self.ha_mut().case_mut(id.host) {
                case.enter(step);
            }
            self.close(id.host);
        }
        self.ha_mut().cases.put(Arc::new(opened));
        self.with_host(id.host, |host| host.case_seq = seq);
        self.note_seen(id);
        if rebooted {
            self.gather(id);
        }
        Ok(Done::Case(id))
    }

    pub(super) fn case_phase(&mut self, id: CaseId, from: Phase, to: Phase) -> Result {
        let case = self.case(id)?;
        if case.phase == to {
            return Ok(Done::Unchanged);
        }
        if case.phase != from || !from.leads_to(to) {
            let expected = if case.phase == from { "another way".to_owned() } else { from.to_string() };
            return Err(Refusal::Phase { case: id, current: case.phase, what: format!("going to {to}"), expected });
        }
        match to {
            Phase::FencePending => self.unhindered(case, Act::Kill)?,
            Phase::Returning => self.may_return(case)?,
            Phase::AwaitReturn if from == Phase::Fenced => self.may_return(case)?,
            Phase::Cleared => Self::may_clear(case, from)?,
            Phase::NovaDown | Phase::Planning | Phase::Evacuating => self.may_recover(case, to)?,
            Phase::Recovered | Phase::PartiallyRecovered => self.is_recovered(case, to)?,
            Phase::Closed => self.may_close(case)?,
            _ => {}
        }
        let step = self.step(to);
        let life = self.host(id.host)?.incarnation;
        if let Some(case) = self.ha_mut().case_mut(id.host) {
            if to == Phase::Returning {
                case.reentry = Reentry { life, ..Reentry::default() };
            }
            case.enter(step);
        }
        if to.is_terminal() {
            self.close(id.host);
            self.goes_on_returning(id.host);
        }
        Ok(Done::Changed)
    }

    /// Its BMC took power-offs and did nothing with them, and it is heard: it lives. What such a BMC still holds nobody
    /// knows, so the host is watched anew, and must boot before instances are sent to it.
    pub(super) fn case_abort(&mut self, token: &Token, heard: Option<u64>) -> Result {
        let case = self.case(token.case)?;
        let id = case.id;
        if case.phase != Phase::FenceFailed {
            let (what, expected) = ("taking it back".to_owned(), Phase::FenceFailed.to_string());
            return Err(Refusal::Phase { case: id, current: case.phase, what, expected });
        }
        if let Some(flaw) = self.token_flaw(case, token) {
            return Err(invalid("token", &flaw, "the one that the case shows now"));
        }
        self.alive(id.host, id.incarnation)?;
        if !Stop::HeardAgain.lets(heard.is_some_and(|age| age < SUSPECT)) {
            let last = heard.map_or_else(|| "never".to_owned(), |age| format!("{} s ago", age / 1_000));
            let given = format!("one whose agent this leader has heard {last}");
            return Err(invalid("host", &given, "one that is heard now; if it is off, confirm its death"));
        }
        let (since, by, step) = (self.now(), self.order.leader, self.step(Phase::Cleared));
        if let Some(case) = self.ha_mut().case_mut(id.host) {
            case.enter(step);
        }
        self.with_host(id.host, |host| {
            host.must_reboot = true;
            host.belief = Belief { detection: Detection::Suspect, since, by };
        });
        // Before it is closed: a closed case is written no more.
        self.note_order();
        self.close(id.host);
        self.goes_on_returning(id.host);
        Ok(Done::Changed)
    }

    /// A host that was coming back when it was lost, and was not: its marks and what waits for it are no
    /// case's any more. A new one about the life before goes on with its return where that stood.
    fn goes_on_returning(&mut self, id: HostId) {
        let Some(closed) = self.ha().closed().next().filter(|case| case.id.host == id) else { return };
        let (phase, mut reentry, epoch) = (closed.phase, closed.reentry.clone(), self.epoch());
        // Its minute without a flaw begins anew.
        reentry.unforced = if reentry.unforced > 0 { self.now() } else { 0 };
        let Some(host) = self.ha().hosts.get(id) else { return };
        let proof = host.proofs.first().filter(|proof| proof.epoch == epoch);
        let here = host.is_open() && reentry.life == host.incarnation;
        let Some(proof) = proof.filter(|_| phase == Phase::Cleared && here) else { return };
        let (incarnation, seq) = (proof.incarnation, host.case_seq + 1);
        let id = CaseId { host: id, incarnation, seq };
        let step = self.step(Phase::Returning);
        self.ha_mut().cases.put(Arc::new(Case { reentry, ..new_case(id, epoch, Cause::Rebooted, step) }));
        self.with_host(id.host, |host| host.case_seq = seq);
    }

    /// Once something was sent to the BMC only a person takes it back.
    fn may_clear(case: &Case, from: Phase) -> Result<()> {
        if case.fences > 0 {
            let expected = "a proof".to_owned();
            return Err(Refusal::Phase { case: case.id, current: from, what: "clearing".to_owned(), expected });
        }
        Ok(())
    }

    fn may_recover(&self, case: &Case, to: Phase) -> Result<()> {
        let host = self.host(case.id.host)?;
        let marked = host.forced_down && host.disabled;
        if to != Phase::NovaDown && !Stop::NovaOrder.lets(marked) {
            let expected = "the marks in Nova: forced down, then disabled".to_owned();
            return Err(Refusal::Phase {
                case: case.id,
                current: case.phase,
                what: format!("going to {to}"),
                expected,
            });
        }
        if to == Phase::Evacuating { self.unhindered(case, Act::Recover) } else { Ok(()) }
    }

    /// Every instance that is permitted on the dead life is accounted for, and none is on its way.
    fn is_recovered(&self, case: &Case, to: Phase) -> Result<()> {
        let source = Life { host: case.id.host, incarnation: case.id.incarnation };
        let phase = |expected: String| Refusal::Phase {
            case: case.id,
            current: case.phase,
            what: format!("going to {to}"),
            expected,
        };
        let mut all = true;
        for recovery in self.ha().recoveries.iter().filter(|recovery| recovery.case == case.id) {
            if !recovery.status.is_settled() {
                return Err(phase(format!("instance {} to be settled", recovery.instance)));
            }
            all &= !matches!(recovery.status, Status::Stays(_));
        }
        let of_case = |instance| self.ha().recoveries.get(instance).is_some_and(|recovery| recovery.case == case.id);
        let forgotten = self.ha().permits.iter().find(|permit| permit.life == source && !of_case(permit.instance));
        if let Some(permit) = forgotten {
            return Err(phase(format!("a plan for instance {}", permit.instance)));
        }
        if all != (to == Phase::Recovered) {
            let expected = if all { Phase::Recovered } else { Phase::PartiallyRecovered };
            return Err(phase(format!("{expected} to be what it is")));
        }
        Ok(())
    }

    /// What was permitted in still older lives of a host is of the life that the case is about: a machine
    /// lives one life at a time, and the proof of the later one is a proof of them all.
    pub(super) fn gather(&mut self, id: CaseId) {
        let life = Life { host: id.host, incarnation: id.incarnation };
        let older = |permit: &&Permit| permit.life.host == id.host && permit.life.incarnation < id.incarnation;
        let proven = |permit: &&Permit| self.ha().proven(permit.life, self.epoch()).is_some();
        // What is being brought there is its own case's, until that knows what became of it.
        let free = |permit: &&Permit| {
            let known = self.ha().recoveries.get(permit.instance).filter(|known| !known.status.is_settled());
            known.and_then(|known| known.attempt.as_ref()).is_none_or(|attempt| attempt.target != permit.life)
        };
        let older = self.ha().permits.iter().filter(older).filter(proven).filter(free);
        let older: Vec<_> = older.map(|permit| permit.instance).collect();
        for instance in older {
            self.ha_mut().permits.put(Permit { instance, life });
        }
    }

    /// It said Hello in a new life.
    fn may_return(&self, case: &Case) -> Result<()> {
        let host = self.host(case.id.host)?;
        if !host.is_open() || host.incarnation <= case.id.incarnation {
            let expected = "the host's Hello in a new boot".to_owned();
            return Err(Refusal::Phase { case: case.id, current: case.phase, what: "its return".to_owned(), expected });
        }
        Ok(())
    }

    fn may_close(&self, case: &Case) -> Result<()> {
        let host = self.host(case.id.host)?;
        if host.forced_down || host.disabled || host.quarantined || !host.is_open() {
            let what = "closing".to_owned();
            let expected = "the host to be back, without marks in Nova, and out of quarantine".to_owned();
            return Err(Refusal::Phase { case: case.id, current: case.phase, what, expected });
        }
        Ok(())
    }

    pub(super) fn case_hold(&mut self, id: CaseId, act: Act, reason: Option<&str>) -> Result {
        let case = self.case(id)?;
        text("reason", reason.unwrap_or_default())?;
        if case.held(act) == reason {
            return Ok(Done::Unchanged);
        }
        let reason = reason.map(str::to_owned);
        let held = reason.clone();
        if let Some(case) = self.ha_mut().case_mut(id.host) {
            match act {
                Act::Kill => case.held_kill = reason,
                Act::Recover => case.held_recover = reason,
            }
        }
        if !self.is_operator() {
            self.note(id.host, What::Held(act, held));
        }
        Ok(Done::Changed)
    }

    pub(super) fn needs_operator(&mut self, id: CaseId, reason: Option<&str>) -> Result {
        let case = self.case(id)?;
        text("reason", reason.unwrap_or_default())?;
        if case.needs_operator.as_deref() == reason {
            return Ok(Done::Unchanged);
        }
        let reason = reason.map(str::to_owned);
        if let Some(case) = self.ha_mut().case_mut(id.host) {
            case.needs_operator.clone_from(&reason);
        }
        self.note(id.host, What::Asked(reason));
        Ok(Done::Changed)
    }

    pub(super) fn would_do(&mut self, id: CaseId, what: Option<&str>) -> Result {
        let case = self.case(id)?;
        text("what", what.unwrap_or_default())?;
        if case.would.as_deref() == what {
            return Ok(Done::Unchanged);
        }
        let what = what.map(str::to_owned);
        if let Some(case) = self.ha_mut().case_mut(id.host) {
            case.would = what;
        }
        Ok(Done::Changed)
    }

    /// Forced down comes first: with the service considered up, disabling makes Nova call the dead host.
    /// When it is lost on the way the case goes back to where it is set.
    pub(super) fn nova_mark(&mut self, id: HostId, forced_down: bool, disabled: bool) -> Result {
        let host = self.host(id)?;
        let Some(case) = self.ha().cases.get(id) else {
            return Err(invalid("host", "one without an open case", "one that is proven dead, in a case"));
        };
        let case_id = case.id;
        let case = self.case(case_id)?;
        let proven = self.ha().proven(Life { host: id, incarnation: case.id.incarnation }, self.epoch()).is_some();
        if !Stop::NovaOrder.lets(proven && case.phase != Phase::Fenced) {
            let what = "marks in Nova".to_owned();
            let expected = "a proof, and NovaDown".to_owned();
            return Err(Refusal::Phase { case: case.id, current: case.phase, what, expected });
        }
        if !Stop::NovaOrder.lets(forced_down || !disabled || case.phase == Phase::Returning) {
            return Err(invalid("disabled", "true before forced_down", "forced_down first, then disabled"));
        }
        if host.forced_down == forced_down && host.disabled == disabled {
            return Ok(Done::Unchanged);
        }
        // Back to nothing goes step by step, each with its intent.
        let takes_back = (host.forced_down && !forced_down, host.disabled && !disabled);
        let begun = |step| case.reentry.life == host.incarnation && case.reentry.begun(step).is_some();
        let ordered = (!takes_back.0 || begun(ReentryStep::Unforce)) && (!takes_back.1 || begun(ReentryStep::Enable));
        let returning = case.phase == Phase::Returning;
        if returning && !self.is_operator() && !Stop::ReturnOrder.lets(ordered) {
            let (what, expected) = ("taking back marks in Nova".to_owned(), "its step of the return first".to_owned());
            return Err(Refusal::Phase { case: case.id, current: case.phase, what, expected });
        }
        let now = self.now();
        if returning
            && takes_back.0
            && let Some(case) = self.ha_mut().case_mut(id)
        {
            case.reentry.unforced = now;
        }
        let case = self.case(case_id)?;
        // Either is missed, and set again before anything more is moved.
        let lost = !(forced_down && disabled) && matches!(case.phase, Phase::Planning | Phase::Evacuating);
        self.with_host(id, |host| (host.forced_down, host.disabled) = (forced_down, disabled));
        self.note(id, What::Marked { forced_down, disabled });
        let step = self.step(Phase::NovaDown);
        if lost && let Some(case) = self.ha_mut().case_mut(id) {
            case.enter(step);
        }
        Ok(Done::Changed)
    }
}

fn new_case(id: CaseId, epoch: u64, cause: Cause, step: Step) -> Case {
    Case {
        id,
        epoch,
        cause,
        phase: step.phase,
        since: step.at,
        held_kill: None,
        held_recover: None,
        needs_operator: None,
        would: None,
        fences: 0,
        ops: Vec::new(),
        plans: 0,
        reentry: Reentry::default(),
        steps: vec![step],
        notes: Vec::new(),
    }
}
