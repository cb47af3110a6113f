//! Claims in flight: decided here, not applied yet. Later decisions count them; a node that loses
//! its leadership drops them.

use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use uuid::Uuid;

use crate::consumer::Purpose;
use crate::domain::Domain;
use crate::intent::Intent;
use crate::mutant::{self, Mutant};
use crate::names::Sym;
use crate::provider::{Amounts, Provider, Row};

/// A claim in flight.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub ticket: u64,
    pub row: Row,
    pub amounts: Amounts,
    pub group: Option<Uuid>,
    pub intent: Intent,
    pub request: Option<Uuid>,
    pub since: u64,
}

/// Claims of a row and what they take.
#[derive(Clone, Debug, Default)]
struct Load {
    claims: u64,
    amounts: Amounts,
}

impl Load {
    fn add(&mut self, amounts: &Amounts) {
        self.claims += 1;
        self.amounts.add(amounts);
    }
}

/// All claims in flight, and the open claim that is hidden while its own request is decided.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overlay {
    pending: FxHashMap<(Domain, Uuid, Purpose), SmallVec<[Pending; 1]>>,
    added: FxHashMap<Row, Load>,
    hidden: FxHashMap<Row, Load>,
    groups: FxHashMap<Uuid, Vec<Uuid>>,
    keys: FxHashMap<Uuid, u32>,
}

impl Overlay {
    /// The newest claim in flight of a consumer.
    pub fn pending(&self, domain: Domain, uuid: Uuid, purpose: Purpose) -> Option<&Pending> {
        self.pending.get(&(domain, uuid, purpose))?.last()
    }

    /// Rows and amounts of all claims in flight of a consumer.
    pub fn pendings(&self, domain: Domain, uuid: Uuid, purpose: Purpose) -> Vec<(Row, Amounts)> {
        let list = self.pending.get(&(domain, uuid, purpose)).into_iter().flatten();
        list.map(|pending| (pending.row, pending.amounts.clone())).collect()
    }

    /// True while a request with this idempotency key is in flight.
    pub fn key_in_flight(&self, key: Uuid) -> bool {
        self.keys.contains_key(&key)
    }

    pub fn fly_key(&mut self, key: Uuid) {
        *self.keys.entry(key).or_insert(0) += 1;
    }

    pub fn land_key(&mut self, key: Uuid) {
        if let Some(count) = self.keys.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.keys.remove(&key);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    pub fn group_members(&self, group: Uuid) -> impl Iterator<Item = Uuid> + '_ {
        self.groups.get(&group).into_iter().flatten().copied()
    }

    /// Use of `class` on a provider as decisions count it.
    pub fn used(&self, provider: &Provider, row: Row, class: Sym) -> u64 {
        let mut used = provider.used(class);
        if let Some(hidden) = self.hidden.get(&row) {
            used = used.saturating_sub(hidden.amounts.get(class));
        }
        if let Some(added) = self.added.get(&row).filter(|_| !mutant::on(Mutant::NoOverlay)) {
            used = used.saturating_add(added.amounts.get(class));
        }
        used
    }

    /// Number of open claims on a row as decisions count them, `applied` of which are in the state.
    pub fn claims(&self, row: Row, applied: u64) -> u64 {
        let hidden = self.hidden.get(&row).map_or(0, |load| load.claims);
        let added = self.added.get(&row).filter(|_| !mutant::on(Mutant::NoOverlay)).map_or(0, |load| load.claims);
        applied.saturating_sub(hidden).saturating_add(added)
    }

    pub fn add(&mut self, domain: Domain, uuid: Uuid, purpose: Purpose, pending: Pending) {
        self.added.entry(pending.row).or_default().add(&pending.amounts);
        if let Some(group) = pending.group {
            self.groups.entry(group).or_default().push(uuid);
        }
        self.pending.entry((domain, uuid, purpose)).or_default().push(pending);
    }

    /// Removes the claim of `ticket`; returns its row.
    pub fn remove(&mut self, domain: Domain, uuid: Uuid, purpose: Purpose, ticket: u64) -> Option<Row> {
        let list = self.pending.get_mut(&(domain, uuid, purpose))?;
        let at = list.iter().position(|pending| pending.ticket == ticket)?;
        let gone = list.remove(at);
        if list.is_empty() {
            self.pending.remove(&(domain, uuid, purpose));
        }
        if let Some(group) = gone.group
            && let Some(members) = self.groups.get_mut(&group)
        {
            if let Some(at) = members.iter().position(|member| *member == uuid) {
                members.swap_remove(at);
            }
            if members.is_empty() {
                self.groups.remove(&group);
            }
        }
        take(&mut self.added, gone.row, &gone.amounts);
        Some(gone.row)
    }

    /// Leaves `amounts` on `row` out of what is in use, until [`Overlay::show`].
    pub fn hide(&mut self, row: Row, amounts: &Amounts) {
        self.hidden.entry(row).or_default().add(amounts);
    }

    /// Counts again what was hidden; returns its rows.
    pub fn show(&mut self) -> Vec<Row> {
        self.hidden.drain().map(|(row, _)| row).collect()
    }
}

fn take(map: &mut FxHashMap<Row, Load>, row: Row, amounts: &Amounts) {
    if let Some(load) = map.get_mut(&row) {
        load.claims -= 1;
        load.amounts.take(amounts);
        if load.claims == 0 {
            map.remove(&row);
        }
    }
}
