//! Server groups as Nova has them, which a plan holds together or apart: members that run elsewhere, and those
//! of the plan itself.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::consumer::{Consumer, Purpose};
use crate::domain::Domain;
use crate::ha::recovery::Bond;
use crate::provider::Row;
use crate::request::{Group, GroupPolicy};
use crate::state::Tables;

/// Groups with a policy that is known, by member.
#[derive(Clone, Debug, Default)]
pub struct ServerGroups {
    groups: Vec<Group>,
    of: BTreeMap<Uuid, usize>,
}

impl ServerGroups {
    /// Those of which a policy and a uuid are known. An instance is in one of them at most; of several the first
    /// counts.
    pub fn new(groups: Vec<Group>) -> Self {
        let known = |group: &Group| group.uuid.is_some() && group.policy.is_some();
        let groups: Vec<Group> = groups.into_iter().filter(known).collect();
        let mut of = BTreeMap::new();
        for (at, group) in groups.iter().enumerate() {
            for member in &group.members {
                of.entry(*member).or_insert(at);
            }
        }
        Self { groups, of }
    }

    /// The group of an instance.
    pub(super) fn of(&self, instance: Uuid) -> Option<Tie> {
        let at = *self.of.get(&instance)?;
        let group = &self.groups[at];
        Some(Tie { at, group: group.uuid?, policy: group.policy?, most: group.max_per_host.max(1) })
    }

    /// The group of an instance, if its members must be apart.
    pub fn apart(&self, instance: Uuid) -> Option<Uuid> {
        match self.of(instance)?.bond()? {
            Bond::Apart { group, .. } => Some(group),
            Bond::Together { .. } => None,
        }
    }

    /// A group as the filters and weighers may judge it before a plan: with the members that have a place. Those
    /// that the plan is about have none, and neither have those that wait on other dead hosts.
    pub(super) fn placed(&self, tables: &Tables, tie: Tie, moving: &dyn Fn(Uuid) -> bool) -> Group {
        let members = &self.groups[tie.at].members;
        let placed = members.iter().copied().filter(|member| !rows(tables, *member, moving).is_empty());
        // Without its uuid: by that the filters would find the members that leave as well.
        Group {
            uuid: None,
            policy: Some(tie.policy),
            members: placed.collect(),
            hosts: Vec::new(),
            max_per_host: tie.most,
        }
    }

    /// How many members have a place on each host.
    pub(super) fn count(&self, tables: &Tables, tie: Tie, moving: &dyn Fn(Uuid) -> bool) -> BTreeMap<Row, u64> {
        let mut out = BTreeMap::new();
        for member in &self.groups[tie.at].members {
            for row in rows(tables, *member, moving) {
                *out.entry(row).or_default() += 1;
            }
        }
        out
    }
}

/// The group of an instance, and its rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tie {
    /// Its number among the groups.
    pub at: usize,
    pub group: Uuid,
    pub policy: GroupPolicy,
    /// Members on a host, where they must be apart.
    pub most: u64,
}

impl Tie {
    /// Its rule, when that is a hard one.
    pub fn bond(self) -> Option<Bond> {
        let group = self.group;
        match self.policy {
            GroupPolicy::Affinity => Some(Bond::Together { group }),
            GroupPolicy::AntiAffinity => Some(Bond::Apart { group, most: self.most }),
            GroupPolicy::SoftAffinity | GroupPolicy::SoftAntiAffinity => None,
        }
    }
}

/// Where a member has its place: where it runs unless it leaves, and where it is brought to.
fn rows(tables: &Tables, member: Uuid, moving: &dyn Fn(Uuid) -> bool) -> Vec<Row> {
    let row = |purpose| tables.consumer(Domain::Nova, member, purpose).map(|consumer: &Consumer| consumer.row);
    let leaves = moving(member) || leaves(tables, member);
    let here = row(Purpose::Instance).filter(|_| !leaves);
    let there = row(Purpose::Move).filter(|there| !moving(member) && Some(*there) != here);
    here.into_iter().chain(there).collect()
}

/// Its host is dead: it is brought elsewhere, or will be.
fn leaves(tables: &Tables, member: Uuid) -> bool {
    let ha = tables.failover();
    let recovering = ha.recoveries.get(member).is_some_and(|known| !known.status.is_settled());
    recovering || ha.permits.get(member).is_some_and(|permit| ha.cases.get(permit.life.host).is_some())
}
