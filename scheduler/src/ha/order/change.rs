//! The changes of the failover state, one variant for each command of the specification.

use bitcode::{Decode, Encode};
use uuid::Uuid;

use super::{Assignment, Ended, Groups, NovaRead, PermitCause, Verdict, Voter};
use crate::ha::breaker::{Decision, ScopeName, Trips};
use crate::ha::case::{Act, CaseId, Cause, FenceOutcome, Phase};
use crate::ha::drain;
use crate::ha::host::{
    Degraded, Detection, Fencer, Hello, HostId, HostSpec, Incarnation, Machine, Maintenance, Watchdog,
};
use crate::ha::mark::Mark;
use crate::ha::masakari;
use crate::ha::policy::{FailoverPolicy, Policy};
use crate::ha::proof::{Evidence, Lease, Token};
use crate::ha::recovery::{AttemptState, Life};
use crate::ha::reentry::{Seen, Step};
use crate::ha::trouble;

/// What is changed.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Change {
    /// A host of the inventory.
    HostUpsert(Box<HostSpec>),
    /// Failover forgets a host.
    HostRemove(HostId),
    /// The voters of pallium.
    Voters(Vec<Voter>),
    /// An agent has said Hello.
    IncarnationOpen {
        /// The host of its credential.
        host: HostId,
        /// What it said.
        hello: Box<Hello>,
    },
    /// The agent has armed its watchdog, or asks to disarm it.
    Watchdog {
        /// The host.
        host: HostId,
        /// Its life.
        incarnation: Incarnation,
        /// The device.
        watchdog: Watchdog,
    },
    /// What the leader has come to believe of a host. From and to may be equal: a new leader watches anew.
    DetectionSet {
        /// The host.
        host: HostId,
        /// Its life.
        incarnation: Incarnation,
        /// What was believed.
        from: Detection,
        /// What is believed.
        to: Detection,
        /// Groups of observers that say no; see [`Groups`].
        groups: Groups,
        /// Milliseconds since the last sign of life, by the leader's clock.
        age: u64,
    },
    /// A case begins.
    CaseOpen {
        /// The host.
        host: HostId,
        /// Its life.
        incarnation: Incarnation,
        /// Why.
        cause: Cause,
    },
    /// A case goes on.
    CasePhase {
        /// The case.
        case: CaseId,
        /// Where it stands.
        from: Phase,
        /// Where it goes.
        to: Phase,
    },
    /// Something holds an act of a case, or nothing does any more.
    CaseHold {
        /// The case.
        case: CaseId,
        /// The act.
        act: Act,
        /// What holds it.
        reason: Option<String>,
    },
    /// A person must look at a case, or need not any more.
    NeedsOperator {
        /// The case.
        case: CaseId,
        /// Why.
        reason: Option<String>,
    },
    /// A fence operation may be done.
    FenceIntent {
        /// The case.
        case: CaseId,
        /// Level of the host's fencers, from 0.
        level: u8,
        /// The fencer at that level.
        fencer: Fencer,
        /// Names the operation.
        op: Uuid,
        /// Whom the BMC says it belongs to, read just before.
        machine: Machine,
        /// Voters that the leader hears.
        voters: Vec<u64>,
    },
    /// What a fence operation came to.
    FenceOutcome {
        /// The case.
        case: CaseId,
        /// The operation.
        op: Uuid,
        /// What was read back; its time is set by apply.
        outcome: Box<FenceOutcome>,
    },
    /// A life is over.
    DeathProof {
        /// The host.
        host: HostId,
        /// The life.
        incarnation: Incarnation,
        /// Why that is certain.
        evidence: Evidence,
    },
    /// Nova has these marks of ours on a host.
    NovaMark {
        /// The host.
        host: HostId,
        /// Forced down.
        forced_down: bool,
        /// Disabled by us.
        disabled: bool,
    },
    /// Targets for the instances of a case, and claims on them.
    CommitPlan {
        /// The case.
        case: CaseId,
        /// What is planned.
        assignments: Vec<Assignment>,
    },
    /// An evacuation may be called.
    AttemptIntent {
        /// The case.
        case: CaseId,
        /// The instance.
        instance: Uuid,
        /// Number of the attempt.
        number: u8,
        /// Where to.
        target: Life,
        /// Names the intent.
        op: Uuid,
        /// What Nova said.
        nova: Box<NovaRead>,
    },
    /// An attempt has got somewhere.
    AttemptObserved {
        /// The instance.
        instance: Uuid,
        /// Number of the attempt.
        number: u8,
        /// Where it stands.
        state: AttemptState,
    },
    /// An attempt is over.
    AttemptEnd {
        /// The instance.
        instance: Uuid,
        /// Number of the attempt.
        number: u8,
        /// How.
        ended: Ended,
    },
    /// The place of an instance changes.
    PermitMove {
        /// The instance.
        instance: Uuid,
        /// From where; none: it had no place.
        from: Option<Life>,
        /// To where.
        to: Life,
        /// By what right.
        cause: PermitCause,
    },
    /// Leases.
    LeaseEpoch(Lease),
    /// The leader looks at the breaker of a scope: what can be counted is counted by apply, what cannot is
    /// what it sees.
    BreakerSet {
        /// The scope.
        scope: ScopeName,
        /// What the leader sees: T6 to T9.
        seen: Trips,
    },
    /// An operator answers a breaker.
    BreakerAck {
        /// The scope.
        scope: ScopeName,
        /// The answer.
        decision: Decision,
        /// Until when, replicated milliseconds.
        until: u64,
    },
    /// An operator stops an act everywhere for a while, or lets it go on.
    Pause {
        /// The act.
        act: Act,
        /// Until when, replicated milliseconds; at most a day; 0: not any more.
        until: u64,
    },
    /// An operator keeps a host from being fenced for a while.
    Exempt {
        /// The host.
        host: HostId,
        /// Until when, replicated milliseconds; at most a day; 0: not any more.
        until: u64,
    },
    /// A host is at work or not.
    Maintenance {
        /// The host.
        host: HostId,
        /// Why it is not.
        mode: Maintenance,
    },
    /// Something is wrong with a host that lives, or nothing is any more.
    Degraded {
        /// The host.
        host: HostId,
        /// Its life.
        incarnation: Incarnation,
        /// All that is wrong.
        degraded: Degraded,
    },
    /// A host is to be emptied for planned work.
    DrainOpen {
        /// The host.
        host: HostId,
        /// Its life.
        incarnation: Incarnation,
        /// For what: manual, auto or termination.
        mode: Maintenance,
    },
    /// A drain goes on.
    DrainStep {
        /// The host.
        host: HostId,
        /// How.
        step: Box<drain::Step>,
    },
    /// A drain is over. An operator may take it back at any time.
    DrainEnd {
        /// The host.
        host: HostId,
        /// How it ended.
        over: drain::Over,
    },
    /// How bold failover is where no policy says otherwise.
    Policy(Policy),
    /// A step of the return of a host may be done.
    Reenter {
        /// The case.
        case: CaseId,
        /// The step.
        step: Step,
        /// Names the intent.
        op: Uuid,
        /// What it rests on.
        seen: Box<Seen>,
    },
    /// A guest may be started again where it was.
    RestartIntent {
        /// The instance.
        instance: Uuid,
        /// Where: the present life of its host.
        life: Life,
        /// Names the intent.
        op: Uuid,
        /// Where it may be moved instead, as restarts did not help.
        to: Option<Life>,
        /// What Nova said.
        nova: Box<NovaRead>,
    },
    /// What a restart came to.
    RestartOutcome {
        /// The instance.
        instance: Uuid,
        /// Names the intent.
        op: Uuid,
        /// It runs.
        well: bool,
    },
    /// An instance that came up although it was stopped before may be stopped, or is.
    Stop {
        /// The instance.
        instance: Uuid,
        /// Names the intent.
        op: Uuid,
        /// It is stopped.
        done: bool,
    },
    /// An operator has looked at a host in quarantine.
    QuarantineEnd(HostId),
    /// After a restore, or a recovery from one survivor: an operator lets failover act again.
    Release,
    /// What Masakari's API keeps.
    Masakari(Box<masakari::Change>),
    /// A receiver of events was told all that happened before then.
    EventsTold {
        /// Its name.
        receiver: String,
        /// Replicated milliseconds.
        at: u64,
    },
    /// A policy, or a new revision of it.
    PolicyPut(Box<FailoverPolicy>),
    /// A policy is taken away.
    PolicyRemove(String),
    /// The next act of a case is decided and not done: the mode of its host, or of the leader, is no more than a dry
    /// run. Or nothing is kept from it any more.
    WouldDo {
        /// The case.
        case: CaseId,
        /// The act, in words.
        what: Option<String>,
    },
    /// What this leader has read of the mark of the cluster in Nova.
    Mark(Mark),
    /// An operator ends a case whose fence failed and whose host is heard: it lives, and must be rebooted before
    /// anything new comes to it.
    CaseAbort {
        /// What the operator was shown.
        token: Token,
        /// Age of the last sign of life of its agent, by the leader, milliseconds; none: there is none.
        heard: Option<u64>,
    },
    /// A person decides what becomes of an instance of a case.
    Verdict {
        /// The case.
        case: CaseId,
        /// The instance.
        instance: Uuid,
        /// What.
        verdict: Verdict,
    },
    /// The reads of a host's BMC have failed for long, or do no more.
    FencePath {
        /// The host.
        host: HostId,
        /// Why; none: it can be fenced.
        why: Option<String>,
        /// For so long, milliseconds.
        age: u64,
    },
    /// An operator lets an instance go that was on several hosts that died.
    GuestQuarantineEnd(Uuid),
    /// Something befell a guest of a host that lives.
    GuestTrouble {
        /// The instance.
        instance: Uuid,
        /// Where.
        life: Life,
        /// What.
        kind: trouble::Kind,
    },
    /// An instance was deleted: it is permitted nowhere any more.
    PermitEnd {
        /// The instance.
        instance: Uuid,
        /// Where it was permitted.
        life: Life,
        /// When its host's agent listed its domains without it, after Nova had said that there is none, replicated
        /// milliseconds.
        at: u64,
    },
}

impl Change {
    /// Its name in logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::HostUpsert(_) => "HostUpsert",
            Self::HostRemove(_) => "HostRemove",
            Self::Voters(_) => "Voters",
            Self::IncarnationOpen { .. } => "IncarnationOpen",
            Self::Watchdog { .. } => "Watchdog",
            Self::DetectionSet { .. } => "DetectionSet",
            Self::CaseOpen { .. } => "CaseOpen",
            Self::CasePhase { .. } => "CasePhase",
            Self::CaseHold { .. } => "CaseHold",
            Self::NeedsOperator { .. } => "NeedsOperator",
            Self::FenceIntent { .. } => "FenceIntent",
            Self::FenceOutcome { .. } => "FenceOutcome",
            Self::DeathProof { .. } => "DeathProof",
            Self::NovaMark { .. } => "NovaMark",
            Self::CommitPlan { .. } => "CommitPlan",
            Self::AttemptIntent { .. } => "AttemptIntent",
            Self::AttemptObserved { .. } => "AttemptObserved",
            Self::AttemptEnd { .. } => "AttemptEnd",
            Self::PermitEnd { .. } => "PermitEnd",
            Self::PermitMove { .. } => "PermitMove",
            Self::LeaseEpoch(_) => "LeaseEpoch",
            Self::BreakerSet { .. } => "BreakerSet",
            Self::BreakerAck { .. } => "BreakerAck",
            Self::Pause { .. } => "Pause",
            Self::Exempt { .. } => "Exempt",
            Self::Maintenance { .. } => "Maintenance",
            Self::Degraded { .. } => "Degraded",
            Self::DrainOpen { .. } => "DrainOpen",
            Self::DrainStep { .. } => "DrainStep",
            Self::DrainEnd { .. } => "DrainEnd",
            Self::Policy(_) => "Policy",
            Self::Reenter { .. } => "Reenter",
            Self::RestartIntent { .. } => "RestartIntent",
            Self::RestartOutcome { .. } => "RestartOutcome",
            Self::Stop { .. } => "Stop",
            Self::QuarantineEnd(_) => "QuarantineEnd",
            Self::Release => "Release",
            Self::EventsTold { .. } => "EventsTold",
            Self::PolicyPut(_) => "PolicyPut",
            Self::PolicyRemove(_) => "PolicyRemove",
            Self::WouldDo { .. } => "WouldDo",
            Self::Mark(_) => "Mark",
            Self::FencePath { .. } => "FencePath",
            Self::CaseAbort { .. } => "CaseAbort",
            Self::Verdict { .. } => "Verdict",
            Self::GuestQuarantineEnd(_) => "GuestQuarantineEnd",
            Self::GuestTrouble { .. } => "GuestTrouble",
            Self::Masakari(change) => match **change {
                masakari::Change::Segment(_) => "Segment",
                masakari::Change::SegmentRemove(_) => "SegmentRemove",
                masakari::Change::Member(_) => "SegmentHost",
                masakari::Change::MemberRemove { .. } => "SegmentHostRemove",
                masakari::Change::Notify(_) => "NotificationPut",
            },
        }
    }
}
