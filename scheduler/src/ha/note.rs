//! What is kept for people: what was seen of a host, what was done about its case, and what persons ordered. Nothing is
//! decided by it.

use bitcode::{Decode, Encode};
use uuid::Uuid;

use super::case::Act;
use super::host::{Detection, HostId, Incarnation};
use super::order::{Change, Groups, Leader, Verdict};
use super::proof::Kind;
use crate::ha::breaker::Decision;

/// Changes of a belief that are remembered of a host: the last ones.
pub const SEEN: usize = 8;
/// Notes of a case that are remembered: the first [`FIRST`], and the last ones.
pub const NOTES: usize = 48;
/// See [`NOTES`]: what was seen before a case began stands there.
pub const FIRST: usize = 8;
/// Orders of persons that are remembered: the last ones.
pub const ORDERS: usize = 64;

/// What was seen of a host when something else was believed of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Seen {
    /// What is believed from then on.
    pub detection: Detection,
    /// In which of its lives.
    pub life: Incarnation,
    /// Groups of observers that said no.
    pub groups: Groups,
    /// Milliseconds since the last sign of life, by the leader's clock.
    pub age: u64,
    /// When, replicated milliseconds.
    pub at: u64,
    /// The same for people.
    pub wall: u64,
    /// By which leader.
    pub by: Leader,
}

/// A person, and why.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Who {
    /// Who, in the words of the access control.
    pub name: String,
    /// Why.
    pub reason: String,
    /// Until when it holds, replicated milliseconds; 0: it has no end.
    pub until: u64,
}

/// An entry of a case's timeline, beside its phases and its fence operations.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Note {
    /// When, replicated milliseconds.
    pub at: u64,
    /// The same for people.
    pub wall: u64,
    /// By which leader.
    pub by: Leader,
    /// The person that ordered it, if one did.
    pub who: Option<Who>,
    /// What.
    pub what: What,
}

/// What is noted.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum What {
    /// Something else was believed of the host.
    Seen(Seen),
    /// Its life was proven over.
    Proven(Kind),
    /// Pallium's marks in Nova are these.
    Marked {
        /// Forced down.
        forced_down: bool,
        /// Disabled.
        disabled: bool,
    },
    /// A plan was committed.
    Planned {
        /// Instances with a target.
        planned: u32,
        /// Waiting.
        waiting: u32,
        /// Staying.
        stays: u32,
    },
    /// An act is held by something, or is not any more.
    Held(Act, Option<String>),
    /// A person was asked, or need not look any more.
    Asked(Option<String>),
    /// The life that was proven over has said Hello in this boot: the proof was wrong.
    Violated(Uuid),
    /// A person has ordered it, in words.
    Ordered(String),
}

/// What a person ordered, of a host or of all.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ordered {
    /// When, replicated milliseconds.
    pub at: u64,
    /// The same for people.
    pub wall: u64,
    /// By which leader it was written.
    pub by: Leader,
    /// Who, and why.
    pub who: Who,
    /// Of which host; none: of all.
    pub host: Option<HostId>,
    /// What, in words.
    pub what: String,
}

/// Of which host an order of a person is, in words, and until when. None for what is kept elsewhere (the inventory, policies,
/// Masakari's API) and for what no person orders.
pub(crate) fn of(change: &Change) -> Option<(Option<HostId>, String, u64)> {
    let told = |host: Option<HostId>, what: String| Some((host, what, 0));
    let plain = |host: HostId, what: &str| told(Some(host), what.to_owned());
    match change {
        Change::HostRemove(host) => plain(*host, "forgets the host"),
        Change::CaseOpen { host, .. } => plain(*host, "opens a case"),
        Change::CaseAbort { token, .. } => plain(token.case.host, "takes the case back: the host is heard"),
        Change::CaseHold { case, act, reason } => {
            let what = if reason.is_some() { format!("holds {act}") } else { format!("lets {act} go on") };
            told(Some(case.host), what)
        }
        Change::DeathProof { host, .. } => plain(*host, "confirms that the host is dead"),
        Change::Verdict { case, instance, verdict } => {
            let what = match verdict {
                Verdict::Retry => format!("has instance {instance} planned anew"),
                Verdict::Skip => format!("leaves instance {instance} where it is"),
                Verdict::Retarget(host) => format!("sends instance {instance} to host {host}"),
            };
            told(Some(case.host), what)
        }
        Change::Exempt { host, until: 0 } => plain(*host, "lets it be fenced again"),
        Change::Exempt { host, until } => Some((Some(*host), "keeps it from being fenced".to_owned(), *until)),
        Change::Maintenance { host, mode } => told(Some(*host), format!("sets maintenance {mode:?}").to_lowercase()),
        Change::DrainOpen { host, .. } => plain(*host, "drains it"),
        Change::DrainEnd { host, .. } => plain(*host, "ends the drain"),
        Change::QuarantineEnd(host) => plain(*host, "ends the quarantine"),
        Change::GuestQuarantineEnd(instance) => told(None, format!("lets instance {instance} go")),
        Change::Pause { act, until: 0 } => told(None, format!("lets {act} go on")),
        Change::Pause { act, until } => Some((None, pauses(*act), *until)),
        Change::BreakerAck { scope, decision, until } => {
            let answer = match decision {
                Decision::Proceed(hosts) => format!("{} hosts may be fenced", hosts.len()),
                Decision::ProceedAll => "all may be fenced".to_owned(),
                Decision::Abort => "nothing may be fenced".to_owned(),
            };
            Some((None, format!("{ANSWERS}{scope}: {answer}"), *until))
        }
        Change::Release => told(None, "lets failover act again after the restore".to_owned()),
        Change::LeaseEpoch(_) => told(None, "sets the leases".to_owned()),
        Change::Policy(_) => told(None, "sets what holds where no policy says otherwise".to_owned()),
        _ => None,
    }
}

/// Words in front of the scope of a breaker that is answered.
pub const ANSWERS: &str = "answers the breaker of ";

/// Words of a pause.
pub fn pauses(act: Act) -> String {
    format!("pauses {act}")
}
