//! Policies: how bold failover is with which host.
//!
//! An operator writes [documents](document), each for the hosts that its [`Selector`] names. What a host is under is
//! a function of the state ([`of`]): the defaults, and over them each policy that selects it, the less specific
//! first, key by key. So the most specific policy that says something of a key wins, and what none says is the
//! default.
//!
//! Never here: what a node's own configuration says. It can only make failover shyer: see
//! [`Lead`](super::coordinator::Lead).

pub mod document;
pub mod selector;

use std::cell::LazyCell;

use bitcode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::admission::{Refuses, Rule};
use super::coordinator::Call;
use super::drain::Step;
use super::host::{Host, HostId};
use super::order::Change;
use super::proof::{Lease, LeaseMode};
use super::table::Failover;
use crate::domain::Domain;
use crate::state::Tables;

pub use selector::{Operator, Selector, Term};

/// Least time that a host must have been isolated before it is fenced for that, milliseconds.
pub const ISOLATED: u64 = 60_000;
/// Policies.
pub const POLICIES: usize = 64;
/// Names in one part of a selector.
pub const NAMED: usize = 1_024;
/// Bytes of a name in a selector.
pub const NAME: usize = 255;
/// Bytes of the name of a policy.
pub const POLICY_NAME: usize = 63;
/// Evacuations at once from one host, at most and if nothing is said.
pub const FROM_SOURCE: u32 = 32;
/// Evacuations at once to one host, if nothing is said, and at most.
pub const TO_TARGET: (u32, u32) = (4, 16);
/// Hosts of a cluster that may be drained at once, at most.
pub const DRAINS: u32 = 1_000;

/// What is done of what is decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The host is watched, and no case of it begins by itself.
    Off,
    /// A case goes on to its first act, which is told in the case and not done.
    DryRun,
    /// It is done.
    #[default]
    Enforce,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Enforce, Self::DryRun, Self::Off];

    /// Its name, as documents have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::DryRun => "dry-run",
            Self::Enforce => "enforce",
        }
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a host is under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Policy {
    /// What is done of what is decided about it.
    pub mode: Mode,
    /// Whether it is given leases; none: as [`Lease`] says for all.
    pub lease: Option<LeaseMode>,
    /// A host that only others see run is fenced after so long, milliseconds (`fence_after`). 0: its
    /// guests are left running (`hold`).
    pub fence_isolated: u64,
    /// A dead host is powered on again once its instances are settled.
    pub power_on: bool,
    /// What was on a host that comes back while a case of it is open is started there, where its disk is, unless
    /// it crashed before within a day; and so is a guest that crashed by itself. A host that boots before it is
    /// missed starts what it had whatever is said here.
    pub in_place: bool,
    /// Instances that were in error before are evacuated too.
    pub error_instances: bool,
    /// Evacuations from it at once.
    pub from_source: u32,
    /// Evacuations to it at once.
    pub to_target: u32,
    /// Hosts of a cluster that may be drained at once.
    pub drains: u32,
    /// What stays free for a failover.
    pub admission: Rule,
    /// What is done about placements that would take it.
    pub refuses: Refuses,
    /// A drain waits until its cluster could still lose another host (`hosts 1`).
    pub keep_spare: bool,
    /// A live migration that does not get on may be finished by force: the guest stands still for it.
    pub force_complete: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            lease: None,
            fence_isolated: 0,
            power_on: false,
            in_place: false,
            error_instances: false,
            from_source: FROM_SOURCE,
            to_target: TO_TARGET.0,
            drains: 1,
            admission: Rule::Host,
            refuses: Refuses::Warn,
            keep_spare: false,
            force_complete: false,
        }
    }
}

/// What one policy says: an absent key is left to less specific ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Rules {
    /// See [`Policy::mode`].
    pub mode: Option<Mode>,
    /// See [`Policy::lease`].
    pub lease: Option<LeaseMode>,
    /// See [`Policy::fence_isolated`].
    pub fence_isolated: Option<u64>,
    /// See [`Policy::power_on`].
    pub power_on: Option<bool>,
    /// See [`Policy::in_place`].
    pub in_place: Option<bool>,
    /// See [`Policy::error_instances`].
    pub error_instances: Option<bool>,
    /// See [`Policy::from_source`].
    pub from_source: Option<u32>,
    /// See [`Policy::to_target`].
    pub to_target: Option<u32>,
    /// See [`Policy::drains`].
    pub drains: Option<u32>,
    /// See [`Policy::admission`].
    pub admission: Option<Rule>,
    /// See [`Policy::refuses`].
    pub refuses: Option<Refuses>,
    /// See [`Policy::keep_spare`].
    pub keep_spare: Option<bool>,
    /// See [`Policy::force_complete`].
    pub force_complete: Option<bool>,
}

impl Rules {
    /// Lays them over a policy.
    pub fn over(&self, policy: &mut Policy) {
        fn set<T: Copy>(to: &mut T, said: Option<T>) {
            *to = said.unwrap_or(*to);
        }
        set(&mut policy.mode, self.mode);
        policy.lease = self.lease.or(policy.lease);
        set(&mut policy.fence_isolated, self.fence_isolated);
        set(&mut policy.power_on, self.power_on);
        set(&mut policy.in_place, self.in_place);
        set(&mut policy.error_instances, self.error_instances);
        set(&mut policy.from_source, self.from_source);
        set(&mut policy.to_target, self.to_target);
        set(&mut policy.drains, self.drains);
        set(&mut policy.admission, self.admission);
        set(&mut policy.refuses, self.refuses);
        set(&mut policy.keep_spare, self.keep_spare);
        set(&mut policy.force_complete, self.force_complete);
    }
}

impl From<Policy> for Rules {
    fn from(policy: Policy) -> Self {
        Self {
            mode: Some(policy.mode),
            lease: policy.lease,
            fence_isolated: Some(policy.fence_isolated),
            power_on: Some(policy.power_on),
            in_place: Some(policy.in_place),
            error_instances: Some(policy.error_instances),
            from_source: Some(policy.from_source),
            to_target: Some(policy.to_target),
            drains: Some(policy.drains),
            admission: Some(policy.admission),
            refuses: Some(policy.refuses),
            keep_spare: Some(policy.keep_spare),
            force_complete: Some(policy.force_complete),
        }
    }
}

/// A policy as an operator writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct FailoverPolicy {
    /// Its name.
    pub name: String,
    /// The hosts that it is for.
    pub selector: Selector,
    /// What it says.
    pub rules: Rules,
}

/// A policy that is in force.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Kept {
    /// The policy.
    pub policy: FailoverPolicy,
    /// Its number among all revisions of all policies, from 1.
    pub revision: u64,
    /// Who applied it.
    pub by: String,
    /// Why.
    pub why: String,
    /// When, milliseconds since 1970.
    pub wall: u64,
}

impl Kept {
    /// The order in which policies are laid over one another. Of two that are as specific the one whose name
    /// comes first wins, so it is laid last.
    fn rank(&self) -> ((u8, usize), std::cmp::Reverse<&str>) {
        (self.policy.selector.specificity(), std::cmp::Reverse(self.policy.name.as_str()))
    }
}

/// Puts a policy, or a new revision of it, among others, in the order in which they are laid over one another.
pub fn put(policies: &mut Vec<Kept>, kept: Kept) {
    remove(policies, &kept.policy.name);
    let at = policies.partition_point(|other| other.rank() < kept.rank());
    policies.insert(at, kept);
}

/// Takes a policy out; whether it was there.
pub fn remove(policies: &mut Vec<Kept>, name: &str) -> bool {
    let before = policies.len();
    policies.retain(|kept| kept.policy.name != name);
    policies.len() < before
}

/// Those of some policies that select a host, the less specific first.
pub fn selecting<'a>(policies: &'a [Kept], tables: &'a Tables, host: &'a Host) -> impl Iterator<Item = &'a Kept> {
    let provider = LazyCell::new(move || {
        let row = tables.row_of_node(Domain::Nova, tables.names.text(host.nova_host), None)?;
        tables.provider(row)
    });
    policies.iter().filter(move |kept| kept.policy.selector.selects(tables, host, || *provider))
}

/// What a host would be under with these policies.
pub fn with(policies: &[Kept], tables: &Tables, host: &Host) -> Policy {
    let mut policy = tables.failover.small.policy;
    for kept in selecting(policies, tables, host) {
        kept.policy.rules.over(&mut policy);
    }
    policy
}

/// What a host is under.
pub fn of(tables: &Tables, host: &Host) -> Policy {
    with(&tables.failover.small.policies, tables, host)
}

/// What is done of what is decided about a host; of a host that is not known all is.
pub fn mode(tables: &Tables, host: HostId) -> Mode {
    tables.failover.hosts.get(host).map_or(Mode::Enforce, |host| of(tables, host).mode)
}

/// Leases as they are given to a host. A host about which nothing is done gets none: a lease that runs out resets it.
pub fn lease(tables: &Tables, host: &Host) -> Lease {
    let lease = tables.failover.small.lease;
    let policy = of(tables, host);
    let mode = policy.lease.unwrap_or(lease.mode);
    Lease { mode: if policy.mode == Mode::Enforce { mode } else { LeaseMode::Off }, ..lease }
}

impl Failover {
    /// Whether any host may be given leases.
    pub fn gives_leases(&self) -> bool {
        let strict = |lease: Option<LeaseMode>| lease == Some(LeaseMode::Strict);
        strict(Some(self.small.lease.mode))
            || strict(self.small.policy.lease)
            || self.small.policies.iter().any(|kept| strict(kept.policy.rules.lease))
    }
}

/// The host on which a change is a step towards an act, if it is one. What was seen of acts that were begun is none.
pub fn changed(change: &Change, ha: &Failover) -> Option<HostId> {
    match change {
        Change::FenceIntent { case, .. } | Change::AttemptIntent { case, .. } | Change::Reenter { case, .. } => {
            Some(case.host)
        }
        Change::RestartIntent { life, .. } => Some(life.host),
        Change::Stop { instance, done: false, .. } => ha.recoveries.get(*instance).map(|known| known.case.host),
        Change::DrainStep { host, step } => {
            let begins = matches!(**step, Step::Begin | Step::Service(_) | Step::Intent(..) | Step::Press(..));
            begins.then_some(*host)
        }
        _ => None,
    }
}

/// The host about which a call is that changes something.
pub fn called(call: &Call, ha: &Failover) -> Option<HostId> {
    match call {
        Call::ForceDown { host, .. }
        | Call::Disable { host, .. }
        | Call::Cordon { host, .. }
        | Call::PowerOff { host, .. }
        | Call::PowerOn { host, .. }
        | Call::StartNova { host, .. }
        | Call::Unforce { host, .. }
        | Call::Enable { host, .. }
        | Call::Restart { host, .. }
        | Call::MoveUnhelped { host, .. } => Some(*host),
        Call::Evacuate { instance, .. } | Call::Stop { instance, .. } => {
            ha.recoveries.get(*instance).map(|known| known.case.host)
        }
        Call::Migrate { instance, .. }
        | Call::Confirm { instance, .. }
        | Call::ForceComplete { instance, .. }
        | Call::AbortMigration { instance, .. } => {
            let unhelped = || ha.restarts.get(*instance).filter(|known| known.to.is_some()).map(|known| known.life);
            ha.moves.get(*instance).map(|known| known.from).or_else(unhelped).map(|life| life.host)
        }
        Call::ReadPower(_)
        | Call::ReadMark
        | Call::SetMark { .. }
        | Call::ListServers(_)
        | Call::ListGroups
        | Call::ReadServer(_)
        | Call::ListDomains(_)
        | Call::ReadCompute(_)
        | Call::ReadProgress { .. }
        | Call::ReadDomain { .. } => None,
    }
}
