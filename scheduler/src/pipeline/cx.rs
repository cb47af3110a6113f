//! What a step sees: the request, and a view of the fleet in which earlier claims, committed or in
//! flight, are counted and the request's own open claim is not.

use std::collections::BTreeMap;

use smol_str::SmolStr;
use uuid::Uuid;

use crate::consumer::Purpose;
use crate::host_state::kinds::Kinds;
use crate::host_state::{HostNumber, HostState};
use crate::index::{Column, Facet, Index};
use crate::intent::Intent;
use crate::names::{Names, Sym};
use crate::overlay::Overlay;
use crate::provider::{Aggregate, Amounts, Provider, Row};
use crate::request::{Group, Request};
use crate::rows::{NO_ROWS, Rows};
use crate::state::Tables;

/// The input of a step.
#[derive(Clone, Copy)]
pub struct Cx<'a> {
    /// The request.
    pub request: &'a Request,
    /// What it is for, after derivation.
    pub intent: Intent,
    /// The consumer that a host is sought for, one of the request's.
    pub consumer: Uuid,
    /// The fleet.
    pub view: View<'a>,
}

/// The fleet as this decision sees it.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub(crate) tables: &'a Tables,
    pub(crate) index: &'a Index,
    pub(crate) overlay: &'a Overlay,
    /// Replicated time of this decision, milliseconds.
    pub(crate) clock: u64,
}

impl<'a> View<'a> {
    /// The table of names.
    pub fn names(&self) -> &'a Names {
        &self.tables.names
    }

    /// Wall time of this decision, milliseconds since 1970: that of the last entry of the log and what has passed
    /// since. A step that asks for it reads [`Everything`](super::Reads::Everything).
    pub fn wall(&self) -> u64 {
        let counters = &self.tables.counters;
        counters.wall.saturating_add(self.clock.saturating_sub(counters.now))
    }

    /// The number of a name, if any host, trait, project, … carries it.
    pub fn sym(&self, text: &str) -> Option<Sym> {
        self.tables.names.get(text)
    }

    /// The provider of a row.
    pub fn provider(&self, row: Row) -> Option<&'a Provider> {
        self.tables.provider(row)
    }

    /// Host name of a row.
    pub fn host(&self, row: Row) -> &'a str {
        self.index.host(row).map_or("", SmolStr::as_str)
    }

    /// The same, to be kept.
    pub(crate) fn host_name(&self, row: Row) -> SmolStr {
        self.index.host(row).cloned().unwrap_or_default()
    }

    /// The rows that carry a facet with this value.
    pub fn facet(&self, facet: Facet, value: &str) -> &'a Rows {
        self.sym(value).map_or(&NO_ROWS, |sym| self.index.facet(facet, sym))
    }

    /// The rows that carry a facet that has no value ([`Facet::Disabled`] and the like).
    pub fn flag(&self, facet: Facet) -> &'a Rows {
        self.index.flag(facet)
    }

    /// All values of a facet with their rows, in no particular order: collect into sets only.
    pub fn facet_values(&self, facet: Facet) -> impl Iterator<Item = (&'a str, &'a Rows)> {
        let names = self.names();
        self.index.values(facet).map(|(sym, rows)| (names.text(sym), rows))
    }

    /// The columns of a resource class; `None` when no provider has it.
    pub fn column(&self, class: &str) -> Option<(Sym, &'a Column)> {
        let sym = self.sym(class)?;
        Some((sym, self.index.column(sym)?))
    }

    /// What stock Nova's scheduler keeps of a host; `None`: the host reports nothing of it.
    pub fn host_state(&self, row: Row) -> Option<&'a HostState> {
        self.index.host_state(row)
    }

    /// What many hosts have in common of it, and which of them.
    pub fn host_kinds(&self) -> &'a Kinds {
        self.index.kinds()
    }

    /// A number of every host state, by row; rows beyond its end have 0.
    pub fn host_numbers(&self, number: HostNumber) -> &'a [f64] {
        self.index.host_numbers(number)
    }

    /// Rows of the domain whose host name equals `host`, ASCII case ignored.
    pub fn rows_of_host(&self, host: &str) -> &'a [Row] {
        self.index.rows_of_host(host)
    }

    /// Aggregates with a metadata key that begins with `prefix`, each once, with their hosts.
    pub fn aggregates_with(&self, prefix: &str) -> impl Iterator<Item = (&'a Aggregate, &'a Rows)> + use<'a> {
        let (tables, index) = (self.tables, self.index);
        let keys = index.aggregates_with(prefix).into_iter();
        keys.filter_map(move |key| Some((tables.aggregate(key)?, index.facet(Facet::Aggregate, key))))
    }

    /// Aggregates of a row.
    pub fn aggregates(&self, row: Row) -> impl Iterator<Item = &'a Aggregate> {
        let tables = self.tables;
        self.provider(row)
            .into_iter()
            .flat_map(|provider| &provider.aggregates)
            .filter_map(|key| tables.aggregate(*key))
    }

    /// An aggregate by its key, as [`Facet::Aggregate`] lists it.
    pub fn aggregate(&self, key: &str) -> Option<&'a Aggregate> {
        self.tables.aggregate(self.sym(key)?)
    }
}

impl Cx<'_> {
    /// The row on which the consumer was seen; a claim that waits to be seen does not count.
    pub fn seen_on(&self) -> Option<Row> {
        let consumer = self.view.tables.consumer(self.request.domain, self.consumer, Purpose::Instance)?;
        consumer.is_listed().then_some(consumer.row)
    }

    /// How many members of `group` each host has: instances and open claims, in flight ones
    /// included, the consumer's own left out. Members are those that the request names and those
    /// whose claim names the group.
    pub fn members_by_row(&self, group: &Group) -> BTreeMap<Row, u64> {
        let mut out = BTreeMap::new();
        for member in self.members(group) {
            let mut rows = self.rows_of(member);
            rows.sort_unstable();
            rows.dedup();
            for row in rows {
                *out.entry(row).or_insert(0) += 1;
            }
        }
        out
    }

    /// Members of `group` but the consumer: those that the request names and those whose claim names
    /// the group.
    fn members(&self, group: &Group) -> Vec<Uuid> {
        let mut members: Vec<Uuid> = group.members.clone();
        if let Some(uuid) = group.uuid {
            members.extend(self.view.index.group_members(uuid));
            members.extend(self.view.overlay.group_members(uuid));
        }
        members.retain(|member| *member != self.consumer);
        members.sort_unstable();
        members.dedup();
        members
    }

    /// Rows on which members of `group` have a claim that the host does not list yet.
    pub fn claimed_by_members(&self, group: &Group) -> Vec<Row> {
        let domain = self.request.domain;
        let keys = self.members(group).into_iter();
        keys.flat_map(|uuid| [(uuid, Purpose::Instance), (uuid, Purpose::Move)])
            .filter_map(|(uuid, purpose)| {
                let pending = self.view.overlay.pending(domain, uuid, purpose).map(|pending| pending.row);
                let applied = || self.view.tables.consumer(domain, uuid, purpose).filter(|known| known.is_open());
                pending.or_else(|| applied().map(|known| known.row))
            })
            .collect()
    }

    /// For a resize: the row on which the instance is, and what it holds there. A resize to the same
    /// host asks for max(0, new − old) of each class.
    pub fn resize_discount(&self) -> Option<(Row, Amounts)> {
        if self.intent != Intent::Resize {
            return None;
        }
        let known = self.view.tables.consumer(self.request.domain, self.consumer, Purpose::Instance)?;
        Some((known.row, (*known.amounts).clone()))
    }

    /// Rows on which a consumer of the domain is or has a claim.
    pub fn rows_of(&self, uuid: Uuid) -> Vec<Row> {
        let domain = self.request.domain;
        [Purpose::Instance, Purpose::Move]
            .into_iter()
            .filter_map(|purpose| {
                let pending = self.view.overlay.pending(domain, uuid, purpose).map(|pending| pending.row);
                pending.or_else(|| self.view.tables.consumer(domain, uuid, purpose).map(|consumer| consumer.row))
            })
            .collect()
    }
}
