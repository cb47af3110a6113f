//! A provider: what offers capacity. Every root provider has a row, the number by which columns,
//! masks and commands name it. Rows are given in log order and never given again.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcode::{Decode, Encode};
use uuid::Uuid;

use crate::consumer::Slot;
use crate::domain::Domain;
use crate::features::Features;
use crate::inventory::Inventory;
use crate::names::Sym;
use crate::report::NumaCell;

/// Row of a root provider.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, serde::Serialize, serde::Deserialize,
)]
pub struct Row(pub u32);

/// Amounts by class, sorted by class, without zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Amounts(Vec<(Sym, u64)>);

impl Amounts {
    /// Amount of `class`, 0 when absent.
    pub fn get(&self, class: Sym) -> u64 {
        self.0.binary_search_by_key(&class, |&(sym, _)| sym).map_or(0, |at| self.0[at].1)
    }

    /// All amounts above 0, by class.
    pub fn iter(&self) -> impl Iterator<Item = (Sym, u64)> + '_ {
        self.0.iter().copied()
    }

    /// True when every amount is 0.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn add(&mut self, more: &Self) {
        for (class, amount) in more.iter() {
            match self.0.binary_search_by_key(&class, |&(sym, _)| sym) {
                Ok(at) => self.0[at].1 = self.0[at].1.saturating_add(amount),
                Err(at) => self.0.insert(at, (class, amount)),
            }
        }
    }

    pub(crate) fn take(&mut self, less: &Self) {
        for (class, amount) in less.iter() {
            if let Ok(at) = self.0.binary_search_by_key(&class, |&(sym, _)| sym) {
                self.0[at].1 = self.0[at].1.saturating_sub(amount);
                if self.0[at].1 == 0 {
                    self.0.remove(at);
                }
            }
        }
    }

    /// max(0, self − other) of each class.
    pub fn minus(&self, other: &Self) -> Self {
        self.iter().map(|(class, amount)| (class, amount.saturating_sub(other.get(class)))).collect()
    }
}

impl FromIterator<(Sym, u64)> for Amounts {
    fn from_iter<I: IntoIterator<Item = (Sym, u64)>>(items: I) -> Self {
        let mut out: Vec<(Sym, u64)> = items.into_iter().filter(|&(_, amount)| amount > 0).collect();
        out.sort_unstable();
        out.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 = kept.1.saturating_add(next.1);
            }
            same
        });
        Self(out)
    }
}

/// A root provider and the host behind it.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Provider {
    /// Placement's uuid of it.
    pub uuid: Uuid,
    /// Its domain.
    pub domain: Domain,
    /// Compute host name.
    pub host: Sym,
    /// Node name, once known.
    pub node: Option<Sym>,
    /// Grows with each change of inventory, traits, aggregates or consumers.
    pub generation: u64,
    /// Grows each time the host comes back after a failure.
    pub incarnation: u64,
    /// Availability zone.
    pub zone: Option<Sym>,
    /// Hypervisor type as reported.
    pub hypervisor_type: Option<Sym>,
    /// CPU architecture.
    pub cpu_arch: Option<Sym>,
    /// Inventories by class, sorted.
    pub inventories: Vec<(Sym, Inventory)>,
    /// In use as the host itself counts it.
    pub reported: Amounts,
    /// Σ sizes of the consumers that the host lists.
    pub listed: Amounts,
    /// Σ sizes of the open claims that the host does not list yet.
    pub open: Amounts,
    /// Classes whose use is above capacity by a report, not by a claim; sorted.
    pub excess: Vec<Sym>,
    /// Traits, sorted.
    pub traits: Vec<Sym>,
    /// Aggregates by key (uuid, else name), sorted; see [`Aggregate`].
    pub aggregates: Vec<Sym>,
    /// Conditions as `Type=Value`, sorted.
    pub conditions: Vec<Sym>,
    /// Service disabled.
    pub disabled: bool,
    /// Service forced down.
    pub forced_down: bool,
    /// Projects allowed; empty = all; sorted.
    pub allowed_projects: Vec<Sym>,
    /// CPU models, sorted.
    pub cpu_models: Vec<Sym>,
    /// Domain features, sorted.
    pub cpu_features: Vec<Sym>,
    /// Domain devices, sorted.
    pub cpu_devices: Vec<Sym>,
    /// NUMA cells.
    pub numa: Vec<NumaCell>,
    /// Fields of stock Nova's HostState, JSON; the index holds what was read of it.
    pub nova_host_state: Option<Arc<str>>,
    /// Labels as `key=value`, sorted.
    pub labels: Vec<Sym>,
    /// Taints as `key=value:Effect`, sorted.
    pub taints: Vec<Sym>,
    /// When the last applied report was observed, wall milliseconds.
    pub observed_at: u64,
    /// What sources of metrics say of it.
    pub features: Features,
    /// Consumers on it, ascending.
    pub consumers: Vec<Slot>,
}

impl Provider {
    /// Capacity of a class, `None` when it has no such inventory.
    pub fn capacity(&self, class: Sym) -> Option<u64> {
        self.inventory(class).map(Inventory::capacity)
    }

    /// Inventory of a class.
    pub fn inventory(&self, class: Sym) -> Option<&Inventory> {
        self.inventories.binary_search_by_key(&class, |&(sym, _)| sym).ok().map(|at| &self.inventories[at].1)
    }

    /// In use: max(reported, Σ listed) + Σ open claims of unlisted consumers.
    pub fn used(&self, class: Sym) -> u64 {
        self.used_with(&self.open, class)
    }

    fn used_with(&self, open: &Amounts, class: Sym) -> u64 {
        self.reported.get(class).max(self.listed.get(class)).saturating_add(open.get(class))
    }

    /// Whether `amounts` more fit: inventory there, used + amount ≤ capacity, unit rules kept. A
    /// consumer that grows in place is measured by them as a whole: `held` is what it has already.
    pub fn fits(&self, amounts: &Amounts, held: &Amounts) -> bool {
        self.fits_with(&self.open, amounts, held)
    }

    /// The same with other open claims than it has.
    pub(crate) fn fits_with(&self, open: &Amounts, amounts: &Amounts, held: &Amounts) -> bool {
        amounts.iter().all(|(class, amount)| {
            self.inventory(class).is_some_and(|inventory| {
                inventory.allows(amount.saturating_add(held.get(class)))
                    && self.used_with(open, class).saturating_add(amount) <= inventory.capacity()
            })
        })
    }
}

/// A host aggregate. Its key is the text of its uuid, or its name when no source gave a uuid.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Aggregate {
    /// Name.
    pub name: String,
    /// Uuid, when known.
    pub uuid: Option<Uuid>,
    /// Metadata; the last report wins.
    pub metadata: BTreeMap<String, String>,
}
