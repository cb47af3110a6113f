//! What hosts lack that nothing but capacity keeps out.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::names::Sym;
use crate::pipeline::survivors::{Detail, Survivors};
use crate::provider::{Amounts, Provider, Row};
use crate::remedy::{Change, Remedy};

use super::trial::{Asked, Trial};

/// Remedies of more capacity.
const MOST: usize = 8;

/// A host that lacks capacity and nothing else.
pub(super) struct Short {
    pub row: Row,
    /// What it lacks: with so much more of each class it fits, with less of any it does not.
    pub lacks: Amounts,
    /// The largest share of a wanted amount that it lacks, in millionths.
    pub share: u64,
}

impl Trial {
    /// The hosts that only lack capacity, the nearest first. Each lack is found by giving the host what it
    /// is said to be short of, until it is kept.
    pub fn short(&mut self, asked: &Asked) -> Vec<Short> {
        let capacity = self.capacity(asked);
        if capacity.is_empty() {
            return Vec::new();
        }
        let mut otherwise = asked.clone();
        otherwise.without.extend(&capacity);
        let Some(kept) = self.kept(&otherwise) else { return Vec::new() };
        let wanted = self.core.wanted(&asked.request);
        let mut out = Vec::new();
        for row in kept.hosts.iter() {
            if !self.spend(1) {
                break;
            }
            let Some(lacks) = self.lacks(asked, &capacity, row).filter(|lacks| !lacks.is_empty()) else { continue };
            let share = lacks.iter().map(|(class, amount)| {
                let share = u128::from(amount) * 1_000_000 / u128::from(wanted.get(class).max(1));
                u64::try_from(share).unwrap_or(u64::MAX)
            });
            let share = share.max().unwrap_or(0);
            out.push(Short { row, lacks, share });
        }
        out.sort_by(|one, other| {
            let host = |row| self.core.view().host(row);
            one.share.cmp(&other.share).then_with(|| host(one.row).cmp(host(other.row)))
        });
        out
    }

    /// None: no amount helps (the host has no such inventory, or a rule on units is broken).
    fn lacks(&mut self, asked: &Asked, capacity: &[usize], row: Row) -> Option<Amounts> {
        let before = self.core.state.tables.providers.get(row.0 as usize)?.clone()?;
        let mut lacks: BTreeMap<Sym, u64> = BTreeMap::new();
        let mut found = None;
        for _ in 0..=2 * asked.request.resources.len() {
            let (class, wanted, free) = match self.refusal(asked, capacity, row) {
                None => {
                    found = Some(lacks.into_iter().collect());
                    break;
                }
                Some(Detail::Amounts { class, asked, free }) => (class, asked, free),
                Some(_) => break,
            };
            let Some(held) = before.capacity(class) else { break };
            // When more is in use than there is capacity, "free" does not say by how much.
            let more = if lacks.contains_key(&class) {
                let used = self.core.index.column(class).and_then(|column| column.used.get(row.0 as usize));
                used.copied().unwrap_or(0).saturating_add(wanted).saturating_sub(held)
            } else {
                wanted.saturating_sub(free)
            };
            if more <= lacks.insert(class, more).unwrap_or(0) {
                break;
            }
            self.set(row, enlarged(&before, &lacks.iter().map(|(class, more)| (*class, *more)).collect()));
        }
        self.set(row, before);
        found
    }

    fn set(&mut self, row: Row, provider: Arc<Provider>) {
        if let Some(place) = self.core.state.tables.providers.get_mut(row.0 as usize) {
            *place = Some(provider);
        }
        self.core.index.refresh_use(self.core.state.tables(), &self.core.overlay, row);
    }

    /// What a filter that looks at amounts says of a host; none: it keeps it.
    fn refusal(&self, asked: &Asked, capacity: &[usize], row: Row) -> Option<Detail> {
        let cx = self.cx(&asked.request);
        let mut host = Survivors::only(row);
        for &at in capacity {
            self.pipeline.filter(at, &cx, &mut host);
            if host.is_empty() {
                return host.into_dropped().and_then(|dropped| dropped.first().map(|dropped| dropped.detail));
            }
        }
        None
    }

    /// More capacity as remedies: in each zone, for each set of classes that hosts lack, the least that one
    /// of them lacks, with the hosts for which it is enough.
    pub fn enough(&mut self, asked: &Asked, short: &[Short]) -> Vec<Remedy> {
        let mut least: BTreeMap<(Option<Sym>, Vec<Sym>), &Short> = BTreeMap::new();
        for host in short {
            let classes = host.lacks.iter().map(|(class, _)| class).collect();
            least.entry((self.zone(host.row), classes)).or_insert(host);
        }
        let mut best: Vec<(Option<Sym>, &Short)> = least.into_iter().map(|((zone, _), host)| (zone, host)).collect();
        best.sort_by_key(|(_, host)| host.share);
        let mut out = Vec::new();
        let mut shown: Vec<(Option<Sym>, &Amounts)> = Vec::new();
        for (zone, host) in best {
            if out.len() >= MOST {
                self.cut_short();
                break;
            }
            if shown.iter().any(|(known, lacks)| *known == zone && covers(&host.lacks, lacks)) {
                continue;
            }
            shown.push((zone, &host.lacks));
            let served = short.iter().filter(|other| self.zone(other.row) == zone && covers(&host.lacks, &other.lacks));
            let rows: Vec<Row> = served.map(|other| other.row).collect();
            let zone = zone.map(|zone| self.core.view().names().text(zone).to_owned());
            let more = Change::More { amounts: self.named(&host.lacks), zone };
            let remedy = self.remedy(vec![more], rows.into_iter());
            if self.holds(asked, host) {
                out.push(remedy);
            }
        }
        out
    }

    fn zone(&self, row: Row) -> Option<Sym> {
        self.core.view().provider(row)?.zone
    }

    /// Gives a host what it lacks and decides again, among all candidates.
    fn holds(&mut self, asked: &Asked, host: &Short) -> bool {
        let before = self.core.state.tables.providers.get(host.row.0 as usize).cloned().flatten();
        let Some(before) = before else { return false };
        self.set(host.row, enlarged(&before, &host.lacks));
        let kept = self.kept(asked);
        self.set(host.row, before);
        kept.is_some_and(|kept| kept.hosts.has(host.row))
    }
}

/// A provider with so much more capacity. Its ratio is 1: with another, capacity only grows in steps.
fn enlarged(provider: &Provider, more: &Amounts) -> Arc<Provider> {
    let mut out = provider.clone();
    for (class, inventory) in &mut out.inventories {
        let more = more.get(*class);
        if more > 0 {
            inventory.total = inventory.capacity().saturating_add(more);
            inventory.reserved = 0;
            inventory.allocation_ratio = 1.0;
        }
    }
    Arc::new(out)
}

/// True when `amounts` are at least `lacks`, class by class.
pub(super) fn covers(amounts: &Amounts, lacks: &Amounts) -> bool {
    lacks.iter().all(|(class, amount)| amounts.get(class) >= amount)
}
