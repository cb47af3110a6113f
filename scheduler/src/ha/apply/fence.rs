//! Fencing: what must hold when an intent is committed. Each check is made from the state at that entry of
//! the log, whatever the leader saw before.

use uuid::Uuid;

use super::{Cx, Result, invalid, text};
use crate::ha::case::{Act, Case, CaseId, Cause, FenceOp, FenceOutcome, OPS, Phase};
use crate::ha::host::{Detection, Fencer, Host, Machine, Maintenance};
use crate::ha::order::Done;
use crate::ha::refusal::Refusal;
use crate::ha::stop::Stop;
use crate::ha::table::Seat;

impl Cx<'_> {
    pub(super) fn fence_intent(
        &mut self,
        id: CaseId,
        (level, fencer): (u8, Fencer),
        op: Uuid,
        machine: &Machine,
        voters: &[u64],
    ) -> Result {
        let case = self.case(id)?;
        if let Some(known) = case.op(op) {
            let same = (known.level, known.fencer, known.by) == (level, fencer, self.order.leader);
            return if same {
                Ok(Done::Unchanged)
            } else {
                Err(invalid("op", "one of another operation", "a new one"))
            };
        }
        let host = self.alive(id.host, id.incarnation)?;
        if !matches!(case.phase, Phase::FencePending | Phase::Fencing | Phase::FenceFailed) {
            let expected = "FencePending, Fencing or FenceFailed".to_owned();
            return Err(Refusal::Phase { case: id, current: case.phase, what: "fencing".to_owned(), expected });
        }
        if host.fencers.get(usize::from(level)) != Some(&fencer) {
            return Err(invalid("level", &format!("{level} as {fencer:?}"), &format!("one of {:?}", host.fencers)));
        }
        text("machine.serial", machine.serial.as_deref().unwrap_or_default())?;
        self.unhindered(case, Act::Kill)?;
        self.is_safe(case, host, fencer, machine, voters)?;
        if let Some((scope, trips, count)) = self.ha().stops_kill(host, self.now()) {
            return Err(Refusal::Breaker { scope: self.scope_name(scope), trips, count });
        }
        let (by, at) = (self.order.leader, self.now());
        let known = FenceOp { id: op, level, fencer, machine: machine.clone(), by, at, outcome: None };
        let step = self.step(Phase::Fencing);
        if let Some(case) = self.ha_mut().case_mut(id.host) {
            case.fences += 1;
            if case.ops.len() >= OPS {
                case.ops.remove(0);
            }
            case.ops.push(known);
            if case.phase != Phase::Fencing {
                case.enter(step);
            }
        }
        Ok(Done::Changed)
    }

    /// Section C.5 of the specification.
    fn is_safe(&self, case: &Case, host: &Host, fencer: Fencer, machine: &Machine, voters: &[u64]) -> Result<()> {
        let unsafe_ = |why: String| Err(Refusal::Unsafe { host: host.id, why });
        if fencer.is_bmc() && !Stop::FenceIdentity.lets(host.machine.is(machine)) {
            return unsafe_(format!("the BMC is that of {machine}, the inventory says {}: mend it", host.machine));
        }
        if !Stop::NotManual.lets(host.maintenance != Maintenance::Manual) {
            return unsafe_("it is in manual maintenance: a person may be inside it".to_owned());
        }
        if !Stop::NotExempt.lets(host.exempt <= self.now()) {
            return unsafe_(format!(
                "an operator exempts it for {} s more",
                (host.exempt - self.now()).div_ceil(1_000)
            ));
        }
        // From the first intent on a case goes on whoever leads; before it this leader must have watched.
        let isolated = case.cause == Cause::Isolated && host.belief.detection == Detection::Isolated;
        let unreachable = host.belief.detection == Detection::Unreachable;
        let watched = (unreachable || isolated) && host.belief.by == self.order.leader;
        let ordered = case.cause == Cause::Operator;
        if case.fences == 0 && !ordered && !Stop::OwnWatch.lets(watched) {
            return unsafe_("this leader has not seen it unreachable: it is watched anew".to_owned());
        }
        let lost = |seat: &Seat| seat.host == Some(host.id) || seat.chassis == host.places.chassis;
        let seats = &self.ha().small.voters;
        let left = seats.iter().filter(|seat| voters.contains(&seat.node) && !lost(seat)).count();
        let touched = seats.iter().any(lost);
        if touched && !Stop::QuorumStays.lets(left > seats.len() / 2) {
            return unsafe_(format!("{left} of {} voters would be left, no majority", seats.len()));
        }
        let neighbour = self.ha().cases.iter().find(|other| {
            let chassis = self.ha().hosts.get(other.id.host).map(|other| other.places.chassis);
            other.id.host != host.id && other.phase == Phase::Fencing && chassis == Some(host.places.chassis)
        });
        if let Some(neighbour) = neighbour
            && !Stop::ChassisOnce.lets(false)
        {
            return unsafe_(format!("host {} of its chassis is being fenced", neighbour.id.host));
        }
        Ok(())
    }

    pub(super) fn fence_outcome(&mut self, id: CaseId, op: Uuid, outcome: &FenceOutcome) -> Result {
        let case = self.case(id)?;
        text("outcome.raw", &outcome.raw)?;
        text("outcome.machine", outcome.machine.serial.as_deref().unwrap_or_default())?;
        let Some(known) = case.op(op) else {
            return Err(invalid("op", &op.to_string(), "an operation of this case"));
        };
        let outcome = FenceOutcome { at: self.now(), ..outcome.clone() };
        if known.outcome.as_ref().is_some_and(|known| FenceOutcome { at: outcome.at, ..known.clone() } == outcome) {
            return Ok(Done::Unchanged);
        }
        if let Some(case) = self.ha_mut().case_mut(id.host)
            && let Some(known) = case.ops.iter_mut().find(|known| known.id == op)
        {
            known.outcome = Some(outcome);
        }
        Ok(Done::Changed)
    }
}
