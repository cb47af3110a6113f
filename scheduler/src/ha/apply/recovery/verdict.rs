//! What a person decides of one instance, within what holds for every plan.

use std::sync::Arc;

use uuid::Uuid;

use super::{Cx, Result, invalid};
use crate::consumer::{Consumer, Purpose};
use crate::domain::Domain;
use crate::ha::case::{CaseId, Phase};
use crate::ha::host::HostId;
use crate::ha::order::{Assignment, Done, To, Verdict};
use crate::ha::planner;
use crate::ha::recovery::{ATTEMPTS, Life, Recovery, Status, Stays, Waiting};
use crate::ha::refusal::Refusal;
use crate::provider::Amounts;

impl Cx<'_> {
    pub(in crate::ha::apply) fn verdict(&mut self, id: CaseId, instance: Uuid, verdict: Verdict) -> Result {
        let case = self.case(id)?;
        let back = self.host(id.host)?.is_open();
        let planned = matches!(
            case.phase,
            Phase::NovaDown | Phase::Planning | Phase::Evacuating | Phase::PartiallyRecovered | Phase::AwaitReturn
        );
        if !planned || back && case.phase == Phase::AwaitReturn {
            let what = format!("deciding of instance {instance}");
            let expected = "a plan, and its host not back: what is left there is started with it".to_owned();
            return Err(Refusal::Phase { case: id, current: case.phase, what, expected });
        }
        let known = self.ha().recoveries.get(instance).filter(|known| known.case == id);
        let recovery = known.map(|known| Recovery::clone(known)).ok_or(Refusal::Instance(instance))?;
        let source = recovery.source();
        let current = self.ha().permits.get(instance).map(|permit| permit.life);
        let number = recovery.attempt.as_ref().map_or(0, |attempt| attempt.number);
        let no = |why: &str| Err(Refusal::Attempt { instance, number, why: why.to_owned() });
        match recovery.status {
            Status::Evacuating | Status::Stopping(_) => return no("it is alive: see what becomes of it"),
            Status::Succeeded(_) | Status::Vanished => return no("it is over, and nothing is left to be done"),
            // Its permit is where it may run still: no word of a person makes that place empty.
            _ if current != Some(source) => return Err(Refusal::Permit { instance, given: Some(source), current }),
            Status::Waiting(_) | Status::Planned | Status::Stays(_) => {}
        }
        match verdict {
            Verdict::Retry => self.retry(recovery),
            Verdict::Skip => Ok(self.skip(recovery)),
            Verdict::Retarget(_) if matches!(recovery.status, Status::Stays(_)) => no("it stays: retry it first"),
            Verdict::Retarget(host) => self.retarget(recovery, host),
        }
    }

    /// What no call was made for is recorded anew; what was tried goes on with its numbers, which name its calls.
    fn retry(&mut self, mut recovery: Recovery) -> Result {
        if recovery.status == Status::Planned {
            return Ok(Done::Unchanged);
        }
        let Some(allowed) = recovery.tried.checked_add(ATTEMPTS) else {
            return Err(invalid("instance", "one with as many attempts as are counted", "one that is moved by hand"));
        };
        let case = recovery.case;
        if recovery.tried == 0 {
            self.ha_mut().recoveries.remove(recovery.instance);
        } else {
            recovery.status = Status::Waiting(Waiting::Replan);
            recovery.allowed = allowed;
            recovery.excluded.clear();
            self.ha_mut().recoveries.put(Arc::new(recovery));
        }
        let step = self.step(Phase::NovaDown);
        if let Some(case) = self.ha_mut().case_mut(case.host)
            && matches!(case.phase, Phase::PartiallyRecovered | Phase::AwaitReturn)
        {
            case.enter(step);
            case.needs_operator = None;
        }
        Ok(Done::Changed)
    }

    fn skip(&mut self, mut recovery: Recovery) -> Done {
        if recovery.status == Status::Stays(Stays::Skipped) {
            return Done::Unchanged;
        }
        self.unclaim(&recovery);
        recovery.status = Status::Stays(Stays::Skipped);
        self.ha_mut().recoveries.put(Arc::new(recovery));
        Done::Changed
    }

    /// The filters were not asked: Nova's scheduler still is, and the host must be like the one that died.
    fn retarget(&mut self, mut recovery: Recovery, host: HostId) -> Result {
        let (source, instance) = (recovery.source(), recovery.instance);
        let target = Life { host, incarnation: self.host(host)?.incarnation };
        let planned = recovery.attempt.as_ref().filter(|_| recovery.status == Status::Planned);
        if planned.is_some_and(|attempt| attempt.target == target) {
            return Ok(Done::Unchanged);
        }
        if let Some(why) = self.target_flaw(source, target).or_else(|| self.lacks(instance, source.host, host)) {
            return Err(Refusal::Target { host, why });
        }
        recovery.excluded.retain(|known| *known != host);
        let (case, recorded, rank) = (recovery.case, recovery.recorded, recovery.rank);
        self.ha_mut().recoveries.put(Arc::new(recovery));
        let to = To::Target(target);
        self.assign(case, &Assignment { instance, recorded, rank, to });
        Ok(Done::Changed)
    }

    /// Why an instance has no place on a host.
    fn lacks(&self, instance: Uuid, source: HostId, host: HostId) -> Option<String> {
        let tables = &self.state.tables;
        let provider = self.row(host).and_then(|row| tables.provider(row));
        let Some(provider) = provider else { return Some("no fleet has it".to_owned()) };
        let home = tables.consumer(Domain::Nova, instance, Purpose::Instance).filter(|home| !home.amounts.is_empty());
        let Some(home) = home else { return Some("nobody knows how large the instance is".to_owned()) };
        if tables.consumer(Domain::Nova, instance, Purpose::Move).is_some_and(Consumer::is_listed) {
            return Some("the instance is seen on another host: a migration had brought it there".to_owned());
        }
        if let Some(unlike) = planner::unlike(tables, source, host, provider) {
            return Some(format!("the instance needs one that {}", unlike.wanted()));
        }
        let fits = provider.fits(&home.amounts, &Amounts::default());
        (!fits).then(|| "it has no room for the instance".to_owned())
    }
}
