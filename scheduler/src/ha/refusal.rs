//! Why apply did not do what was ordered: what was given, what was expected, what to do.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::breaker::{Count, Trips};
use super::case::{Act, CaseId, Phase};
use super::host::{Detection, HostId, Incarnation};
use super::order::Leader;
use super::policy::Mode;
use super::proof::Kind;
use super::recovery::Life;
use super::reentry::Step;

/// A refusal. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The cluster has not reached the level.
    #[error(
        "failover needs feature level {needed}, the cluster is at {level}: upgrade every member, it is raised by itself"
    )]
    Level {
        /// Level of the cluster.
        level: u8,
        /// Level needed.
        needed: u8,
    },
    /// Of another epoch.
    #[error(
        "written for epoch {given}, this is epoch {current}: the cluster was restored since; look again and order anew"
    )]
    Epoch {
        /// Epoch of the order, the case or the proof.
        given: u64,
        /// Epoch of the state.
        current: u64,
    },
    /// Of a leader that is none any more.
    #[error("written by {given}, but {current} has led since: the new leader decides")]
    Leader {
        /// The order's.
        given: Leader,
        /// The last known.
        current: Leader,
    },
    /// Restored, and nobody has looked.
    #[error(
        "failover is paused since the restore of this cluster: look at `pallium ctl ha status`, then release it with `pallium ctl ha release --after-restore`"
    )]
    Restored,
    /// It is not known that this cluster is the one that acts.
    #[error("nothing is done before it is read in Nova that this cluster acts on this cloud: {0}")]
    Unmarked(String),
    /// Paused by an operator.
    #[error("{act} is paused by an operator for {left} s more: wait, or end the pause")]
    Paused {
        /// What.
        act: Act,
        /// Seconds left.
        left: u64,
    },
    /// Only an operator may.
    #[error("{what} needs an operator: the coordinator may not")]
    Role {
        /// What.
        what: String,
    },
    /// Something in it makes no sense.
    #[error("{field}: {given}; expected {expected}")]
    Invalid {
        /// Where.
        field: String,
        /// What was given.
        given: String,
        /// What would do.
        expected: String,
    },
    /// A table is full.
    #[error("the table of {table} is full ({most}): close or remove what is not needed any more")]
    Full {
        /// Which.
        table: String,
        /// Entries that it takes.
        most: u64,
    },
    /// No such host.
    #[error("host {0} is not known to failover: add it to the inventory first")]
    Host(HostId),
    /// No such instance.
    #[error("instance {0} is not part of an open case")]
    Instance(Uuid),
    /// Another life.
    #[error("incarnation {given} of host {host} was named, it is in {current}{}: look again", if *.open { "" } else { ", which has not begun" })]
    Incarnation {
        /// The host.
        host: HostId,
        /// The order's.
        given: Incarnation,
        /// The host's.
        current: Incarnation,
        /// Whether that has begun.
        open: bool,
    },
    /// Believed otherwise.
    #[error("host {host} is believed to be {current:?}, the order says {given:?}: look again")]
    Detection {
        /// The host.
        host: HostId,
        /// The order's.
        given: Detection,
        /// The state's.
        current: Detection,
    },
    /// Not the open case.
    #[error("case {given} is not open{}: look again", .current.map(|case| format!("; the host's open case is {case}")).unwrap_or_default())]
    Case {
        /// The order's.
        given: CaseId,
        /// The open one.
        current: Option<CaseId>,
    },
    /// In another phase.
    #[error("case {case} is in {current}, {what} needs {expected}")]
    Phase {
        /// The case.
        case: CaseId,
        /// Where it stands.
        current: Phase,
        /// What was ordered.
        what: String,
        /// Where it would have to stand.
        expected: String,
    },
    /// Held.
    #[error("{act} of case {case} is held: {reason}; clear the cause, then the hold")]
    Held {
        /// The case.
        case: CaseId,
        /// What.
        act: Act,
        /// By what.
        reason: String,
    },
    /// The breaker stops it.
    #[error("the breaker of {scope} stops it: {} of {} hosts unavailable, reasons {:#b}; an operator may answer with `pallium ctl ha answer`", .count.unavailable, .count.hosts, .trips.0)]
    Breaker {
        /// Of what.
        scope: String,
        /// Why.
        trips: Trips,
        /// The count.
        count: Count,
    },
    /// It would be wrong to fence it.
    #[error("host {host} is not fenced: {why}")]
    Unsafe {
        /// The host.
        host: HostId,
        /// Why.
        why: String,
    },
    /// It proves nothing.
    #[error("that is no proof {kind:?} of host {host}: {why}")]
    Evidence {
        /// The host.
        host: HostId,
        /// The kind.
        kind: Kind,
        /// What is missing.
        why: String,
    },
    /// It may not come back like that.
    #[error("host {host} may not take the step {step:?} of its return: {why}")]
    Reentry {
        /// The host.
        host: HostId,
        /// The step.
        step: Step,
        /// Why.
        why: String,
    },
    /// May not run there.
    #[error("instance {instance} is permitted {}, the order says {}: it is left alone until a person has looked", place(.current.as_ref()), place(.given.as_ref()))]
    Permit {
        /// The instance.
        instance: Uuid,
        /// The order's.
        given: Option<Life>,
        /// The state's.
        current: Option<Life>,
    },
    /// The target will not do.
    #[error("host {host} takes no instance: {why}; plan again")]
    Target {
        /// The target.
        host: HostId,
        /// Why.
        why: String,
    },
    /// A policy makes no sense.
    #[error("{path}: {message}")]
    Policy {
        /// Where in its document.
        path: String,
        /// What was given, what was expected.
        message: String,
    },
    /// Its host is not under a policy that acts.
    #[error("host {host} is in mode {mode} by {policy}: it is decided, and not done")]
    Mode {
        /// The host.
        host: HostId,
        /// What is done about it.
        mode: Mode,
        /// What says so.
        policy: String,
    },
    /// Masakari's API may not.
    #[error(transparent)]
    Masakari(#[from] super::masakari::Refused),
    /// The attempt will not do.
    #[error("attempt {number} of instance {instance}: {why}")]
    Attempt {
        /// The instance.
        instance: Uuid,
        /// Number of the attempt.
        number: u8,
        /// Why.
        why: String,
    },
}

fn place(life: Option<&Life>) -> String {
    life.map_or_else(|| "nowhere".to_owned(), |life| format!("on host {life}"))
}
