//! Dry runs: an act on a host that is not under `enforce` is told in its case instead of done. One place for all
//! acts, behind all that decides.

use std::collections::BTreeMap;

use super::{Call, Coordinator, Due, Lead};
use crate::ha::host::HostId;
use crate::ha::order::Change;
use crate::ha::policy::{self, Mode};
use crate::ha::reentry::Step;

impl Coordinator {
    /// What is left to do of what is due.
    pub(super) fn restrain(&self, lead: &Lead<'_>, due: Vec<Due>) -> Vec<Due> {
        let ha = lead.ha();
        let mut would: BTreeMap<HostId, String> = BTreeMap::new();
        let mut done = Vec::with_capacity(due.len());
        // What has just been read may say otherwise, and is not in the state yet.
        let anew = due.iter().any(|due| matches!(due, Due::Propose(Change::Mark(_))));
        let marked = !anew && ha.is_marked(self.leader, lead.tables.counters().epoch);
        for due in due {
            let (acts, host) = match &due {
                Due::Propose(change) => {
                    let host = policy::changed(change, ha);
                    (host.is_some(), host)
                }
                // It stands in front of all acts, and is set for those that do act only.
                Due::Call(Call::SetMark { .. }) => (false, None),
                Due::Call(call) => (call.writes(), policy::called(call, ha)),
            };
            let enforced = lead.mode(host) == Mode::Enforce;
            if !acts || enforced && marked {
                done.push(due);
            } else if enforced {
                // `ctl ha status` says why, and it comes up again.
            } else if let (Some(host), Some(what)) = (host, words(&due)) {
                would.entry(host).or_insert(what);
            }
        }
        for case in ha.cases.iter() {
            let what = would.remove(&case.id.host);
            let tells = what.is_some() && what != case.would;
            let over = case.would.is_some() && what.is_none() && lead.mode(Some(case.id.host)) == Mode::Enforce;
            if tells || over {
                done.push(Due::Propose(Change::WouldDo { case: case.id, what }));
            }
        }
        done
    }
}

/// An act of a case, as "it would …" goes on. None: it is a drain's.
fn words(due: &Due) -> Option<String> {
    let text = match due {
        Due::Propose(Change::FenceIntent { fencer, .. }) => {
            return Some(format!("be fenced by {}", fencer.as_str()));
        }
        Due::Call(Call::PowerOff { .. }) => "be switched off",
        Due::Call(Call::ForceDown { .. } | Call::Disable { .. }) => {
            "be marked as down in Nova, and what ran on it be evacuated"
        }
        Due::Propose(Change::AttemptIntent { .. }) | Due::Call(Call::Evacuate { .. }) => "have its instances evacuated",
        Due::Propose(Change::Reenter { step: Step::PowerOn, .. }) | Due::Call(Call::PowerOn { .. }) => "be powered on",
        Due::Propose(Change::Reenter { .. }) | Due::Call(Call::StartNova { .. } | Call::Unforce { .. }) => {
            "be let in again"
        }
        Due::Propose(Change::RestartIntent { to: Some(_), .. }) | Due::Call(Call::MoveUnhelped { .. }) => {
            "have an instance moved that restarts do not help"
        }
        Due::Propose(Change::RestartIntent { .. }) | Due::Call(Call::Restart { .. }) => {
            "have its instances started where they were"
        }
        Due::Propose(Change::Stop { .. }) | Due::Call(Call::Stop { .. }) => {
            "have an instance stopped that was stopped before"
        }
        _ => return None,
    };
    Some(text.to_owned())
}
