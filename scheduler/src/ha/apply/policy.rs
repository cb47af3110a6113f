//! Policies: taking them in, and holding acts to them.

use std::sync::Arc;

use super::{Cx, Result, invalid};
use crate::apply::Touched;
use crate::ha::host::HostId;
use crate::ha::order::{Change, Done};
use crate::ha::policy::{self, FailoverPolicy, ISOLATED, Kept, Mode, POLICIES, Policy};
use crate::ha::proof::LeaseMode;
use crate::ha::refusal::Refusal;
use crate::ha::stop::Stop;

impl Cx<'_> {
    pub(super) fn policy(&mut self, policy: Policy) -> Result {
        if policy.fence_isolated > 0 && policy.fence_isolated < ISOLATED {
            let given = format!("{} ms", policy.fence_isolated);
            return Err(invalid("policy.fence_isolated", &given, "60000 ms at least, or 0 to leave it alone"));
        }
        if !policy.admission.is_valid() {
            return Err(invalid("policy.admission", &policy.admission.to_string(), "percent 1 to 90"));
        }
        self.ha_mut().small_mut().policy = policy;
        self.touched.push(Touched::Policies);
        Ok(Done::Changed)
    }

    pub(super) fn policy_put(&mut self, given: &FailoverPolicy) -> Result {
        let policy = given.clone().normal();
        if let Some(fault) = policy.faults().into_iter().next() {
            return Err(Refusal::Policy { path: fault.path, message: fault.message });
        }
        self.may_lease(policy.rules.lease, "spec.fencing.leaseMode")?;
        let small = &self.ha().small;
        let known = small.policies.iter().find(|kept| kept.policy.name == policy.name);
        if known.is_some_and(|kept| kept.policy == policy) {
            return Ok(Done::Unchanged);
        }
        if known.is_none() && small.policies.len() >= POLICIES {
            return Err(Refusal::Full { table: "policies".to_owned(), most: POLICIES as u64 });
        }
        let (by, why) = (self.order.actor.name.clone(), self.order.actor.reason.clone());
        let (revision, wall) = (small.revisions + 1, self.state.tables.counters.wall);
        let small = self.ha_mut().small_mut();
        small.revisions = revision;
        policy::put(Arc::make_mut(&mut small.policies), Kept { policy, revision, by, why, wall });
        self.touched.push(Touched::Policies);
        Ok(Done::Changed)
    }

    pub(super) fn policy_remove(&mut self, name: &str) -> Result {
        if !self.ha().small.policies.iter().any(|kept| kept.policy.name == name) {
            return Err(invalid("name", "one of no policy", "one that `pallium ctl ha policy show` lists"));
        }
        policy::remove(Arc::make_mut(&mut self.ha_mut().small_mut().policies), name);
        self.touched.push(Touched::Policies);
        Ok(Done::Changed)
    }

    /// A majority that comes and goes resets every leased host.
    pub(super) fn may_lease(&self, mode: Option<LeaseMode>, field: &str) -> Result<()> {
        let voters = self.ha().small.voters.len();
        if mode == Some(LeaseMode::Strict) && voters < 3 {
            return Err(invalid(field, &format!("strict with {voters} voters"), "3 voters at least (`ha.voters`)"));
        }
        Ok(())
    }

    /// What the coordinator does is done only where the policy of its host says so. A person's order stands.
    pub(super) fn is_enforced(&self, change: &Change) -> Result<()> {
        match policy::changed(change, self.ha()) {
            Some(host) if !self.is_operator() => {
                let enforced = policy::mode(&self.state.tables, host) == Mode::Enforce;
                if Stop::Enforced.lets(enforced) { Ok(()) } else { Err(self.not_enforced(host)) }
            }
            _ => Ok(()),
        }
    }

    /// Nothing is begun by a leader that has not read that its cluster is the one that acts.
    pub(super) fn acts_alone(&self, change: &Change) -> Result<()> {
        let ha = self.ha();
        if policy::changed(change, ha).is_none() || ha.is_marked(self.order.leader, self.epoch()) {
            return Ok(());
        }
        let read = ha.small.marked.as_ref().filter(|marked| marked.by == self.order.leader);
        let why = read.map_or_else(|| "this leader has not read it yet".to_owned(), |marked| marked.mark.to_string());
        Err(Refusal::Unmarked(why))
    }

    /// What a policy keeps from being done.
    pub(super) fn not_enforced(&self, id: HostId) -> Refusal {
        let tables = &self.state.tables;
        let host = self.ha().hosts.get(id);
        let last = host.and_then(|host| {
            let said = policy::selecting(&self.ha().small.policies, tables, host);
            said.filter(|kept| kept.policy.rules.mode.is_some()).last()
        });
        let policy = last.map_or_else(|| "the default".to_owned(), |kept| format!("policy '{}'", kept.policy.name));
        Refusal::Mode { host: id, mode: policy::mode(tables, id), policy }
    }
}
