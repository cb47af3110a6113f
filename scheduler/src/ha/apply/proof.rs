//! Proofs: what each kind needs.

use super::{Cx, Result, text};
use crate::ha::case::{Case, Phase};
use crate::ha::host::{Host, HostId, Incarnation};
use crate::ha::order::Done;
use crate::ha::policy;
use crate::ha::proof::{Evidence, LeaseMode, Power, PowerRead, Token};
use crate::ha::refusal::Refusal;
use crate::ha::stop::Stop;
use crate::ha::{APART, SUSPECT, TOKEN};

impl Cx<'_> {
    pub(super) fn death_proof(&mut self, id: HostId, incarnation: Incarnation, evidence: &Evidence) -> Result {
        let host = self.alive(id, incarnation)?;
        let Some(case) = self.ha().cases.get(id) else {
            return Err(Refusal::Evidence { host: id, kind: evidence.kind(), why: "no case is open".to_owned() });
        };
        let case = self.case(case.id)?;
        let flaw = match evidence {
            Evidence::PowerOff(reads) => reads_flaw(host, reads),
            Evidence::FencedOff { op, reads } => {
                if Stop::KnownOp.lets(case.op(*op).is_some()) {
                    reads_flaw(host, reads)
                } else {
                    Some(format!("{op} is no fence operation of case {}", case.id))
                }
            }
            Evidence::NewBoot(_) => Some("it comes with the Hello itself".to_owned()),
            Evidence::Lease { granted, leader } => self.lease_flaw(host, *granted, *leader),
            Evidence::Operator { token, youngest } => self.operator_flaw(case, token, *youngest),
        };
        if let Evidence::PowerOff(reads) | Evidence::FencedOff { reads, .. } = evidence {
            for read in &**reads {
                text("evidence.raw", &read.raw)?;
                text("evidence.machine", read.machine.serial.as_deref().unwrap_or_default())?;
            }
        }
        if let Some(why) = flaw {
            return Err(Refusal::Evidence { host: id, kind: evidence.kind(), why });
        }
        self.end_life(id, evidence.clone());
        Ok(Done::Changed)
    }

    /// 36 s after the last grant with the defaults; 45 s after a change of leader, for the new one does
    /// not know what the old one gave.
    fn lease_flaw(&self, host: &Host, granted: Option<u64>, leader: u64) -> Option<String> {
        let lease = policy::lease(&self.state.tables, host);
        if lease.mode == LeaseMode::Off {
            return Some("it is given no leases: fencing.leaseMode of its policy is off".to_owned());
        }
        if let Some(flaw) = host.watchdog.flaw()
            && !Stop::WatchdogSound.lets(false)
        {
            return Some(format!("its watchdog: {flaw}"));
        }
        let fired = lease.fired(host.watchdog.timeout);
        let (waited, needed) = match granted {
            Some(granted) => (granted.min(leader), fired),
            None => (leader, fired.saturating_add(lease.overlap)),
        };
        (!Stop::LeaseOver.lets(waited >= needed))
            .then(|| format!("{waited} ms are over, its watchdog must have fired after {needed} ms"))
    }

    fn operator_flaw(&self, case: &Case, token: &Token, youngest: Option<u64>) -> Option<String> {
        if !self.is_operator() {
            return Some("only an operator may confirm it".to_owned());
        }
        let open = matches!(case.phase, Phase::Unreachable | Phase::FencePending | Phase::FenceFailed);
        if !open {
            return Some(format!(
                "its case is in {}, a person may confirm in Unreachable, FencePending, FenceFailed",
                case.phase
            ));
        }
        if let Some(flaw) = self.token_flaw(case, token) {
            return Some(flaw);
        }
        let silent = youngest.is_none_or(|age| age >= SUSPECT);
        (!Stop::NoSignOfLife.lets(silent)).then(|| format!("a sign of life was seen {} ms ago", youngest.unwrap_or(0)))
    }
}

impl Cx<'_> {
    /// Why what a person was shown is not what there is now.
    pub(super) fn token_flaw(&self, case: &Case, token: &Token) -> Option<String> {
        if !Stop::TokenMatches.lets(token.case == case.id && token.phase == case.phase) {
            let (shown, phase) = (token.case, token.phase);
            return Some(format!(
                "what was confirmed was case {shown} in {phase}, it is case {} in {} now",
                case.id, case.phase
            ));
        }
        let age = self.now().saturating_sub(token.at);
        (!Stop::TokenYoung.lets(token.at <= self.now() && age <= TOKEN))
            .then(|| format!("the confirmation is {} s old, it holds for 300 s: ask for a new one", age / 1_000))
    }
}

/// Why two reads of a BMC do not say that the host is off.
fn reads_flaw(host: &Host, reads: &[PowerRead; 2]) -> Option<String> {
    for read in reads {
        if !Stop::BmcIdentity.lets(host.machine.is(&read.machine)) {
            return Some(format!("it was read from {}, the inventory says {}", read.machine, host.machine));
        }
        if !Stop::OffExactly.lets(read.power == Power::Off) {
            return Some(format!("the state is '{}', not Off", read.raw));
        }
    }
    let apart = reads[1].at.saturating_sub(reads[0].at);
    (!Stop::OffTwice.lets(apart >= APART)).then(|| format!("the reads are {apart} ms apart, 2000 are needed"))
}
