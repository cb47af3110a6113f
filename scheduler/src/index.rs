//! The column index: what filters and weighers read. One column of capacity and use for each
//! resource class, one posting list for each value of each facet. Derived from the state and the
//! overlay, a row at a time; it always equals one built anew.

mod hosts;
pub mod rooms;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use smol_str::SmolStr;
use uuid::Uuid;

use self::hosts::Hosts;
use self::rooms::{Group, Rooms, Seat};
use crate::consumer::Consumer;
use crate::domain::Domain;
use crate::ha::HostId;
use crate::ha::admission;
use crate::ha::cordon::{self, Cordon};
use crate::ha::policy;
use crate::host_state::kinds::Kinds;
use crate::host_state::{HOST_NUMBERS, HostNumber, HostState, Open};
use crate::names::Sym;
use crate::overlay::Overlay;
use crate::provider::{Provider, Row};
use crate::rows::{NO_ROWS, Rows};
use crate::state::Tables;

/// A property by which providers are listed. Facets without a value use [`Index::flag`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Facet {
    /// Domain name.
    Domain,
    /// Availability zone.
    Zone,
    /// Trait.
    Trait,
    /// Aggregate key: its uuid as text, else its name.
    Aggregate,
    /// CPU architecture.
    CpuArch,
    /// Hypervisor type, as reported.
    HypervisorType,
    /// CPU model.
    CpuModel,
    /// Domain feature.
    CpuFeature,
    /// Domain device.
    CpuDevice,
    /// Condition, as `Type=Value`.
    Condition,
    /// Label, as `key=value`.
    Label,
    /// Key of a label.
    LabelKey,
    /// Taint, as `key=value:Effect`.
    Taint,
    /// Project on the host's list of allowed projects.
    AllowedProject,
    /// Node name.
    Node,
    /// Resource class of an inventory.
    Inventory,
    /// Resource class whose inventory has a min_unit above 1 or a step_size above 1.
    Stepped,
    /// No value: the host restricts its projects.
    RestrictsProjects,
    /// No value: service disabled.
    Disabled,
    /// No value: service forced down.
    ForcedDown,
    /// No value: failover keeps new instances off it, for this reason.
    Cordoned(Cordon),
}

/// Capacity and use of one resource class, by row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// Capacity, 0 without inventory.
    pub capacity: Vec<u64>,
    /// In use, open claims and claims in flight included.
    pub used: Vec<u64>,
    /// Largest amount that one more consumer may take: min(capacity − used, max_unit), at least 0.
    pub fit: Vec<u64>,
    /// Largest capacity of any row.
    pub largest: u64,
}

impl Column {
    fn set_capacity(&mut self, at: usize, capacity: u64) {
        let old = std::mem::replace(&mut self.capacity[at], capacity);
        if capacity >= self.largest {
            self.largest = capacity;
        } else if old == self.largest {
            self.largest = self.capacity.iter().copied().max().unwrap_or(0);
        }
    }
}

/// Changes of use that are remembered.
const JOURNAL: usize = 4096;

const NO_VALUE: Sym = Sym::of(u32::MAX);

/// The index.
#[derive(Clone, Debug, Default)]
pub struct Index {
    rows: usize,
    columns: FxHashMap<Sym, Column>,
    facets: FxHashMap<Facet, FxHashMap<Sym, Rows>>,
    row_facets: Vec<Vec<(Facet, Sym)>>,
    hosts: Hosts,
    /// Node name by row.
    row_node: Vec<Option<SmolStr>>,
    groups: FxHashMap<Uuid, BTreeSet<Uuid>>,
    /// Hosts that failover has doubts about, by Nova's name, whether or not that keeps anything off them.
    doubts: BTreeSet<(Sym, HostId)>,
    /// Hosts that failover watches, by Nova's name.
    watched: BTreeSet<(Sym, HostId)>,
    /// What of each failover domain is free.
    rooms: Rooms,
    /// Metadata key → aggregates that have it.
    metadata: BTreeMap<String, BTreeSet<Sym>>,
    /// Grows with each change of anything but use.
    facts: u64,
    /// A sum over what is in use of each class and the host's numbers, by row: it differs when they do.
    use_sums: Vec<u64>,
    /// Rows whose use changed, the newest last, and how many changes are no longer remembered.
    journal: VecDeque<Row>,
    forgotten: u64,
    /// Read host states by row; empty while no host reports one.
    host_states: Vec<Option<Arc<HostState>>>,
    /// What many of them have in common.
    kinds: Kinds,
    /// Their numbers by row; a host without a host state has zeros.
    host_numbers: [Vec<f64>; HOST_NUMBERS],
}

impl Index {
    /// Builds the index of a whole state.
    pub(crate) fn build(tables: &Tables, overlay: &Overlay) -> Self {
        let mut index = Self::default();
        let ha = tables.failover();
        index.doubts = ha.hosts.iter().filter_map(|host| ha.doubt(host).map(|_| (host.nova_host, host.id))).collect();
        index.watched = ha.hosts.iter().filter(|host| host.enabled).map(|host| (host.nova_host, host.id)).collect();
        for (row, _) in tables.providers() {
            index.refresh(tables, overlay, row);
        }
        index.rows = tables.rows();
        for &key in tables.aggregates.keys() {
            index.refresh_metadata(tables, key);
        }
        for consumer in tables.consumers() {
            if let Some(group) = consumer.group.as_deref().copied() {
                index.join_group(group, consumer.uuid);
            }
        }
        index
    }

    /// Number of rows that were ever given.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Rows that carry `value` in `facet`.
    pub fn facet(&self, facet: Facet, value: Sym) -> &Rows {
        self.facets.get(&facet).and_then(|values| values.get(&value)).unwrap_or(&NO_ROWS)
    }

    /// Rows that carry a facet without a value.
    pub fn flag(&self, facet: Facet) -> &Rows {
        self.facet(facet, NO_VALUE)
    }

    /// What of each failover domain is free.
    pub fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    /// The failover domain of a row, if failover watches its host.
    pub(crate) fn group_of(&self, row: Row) -> Option<Group> {
        self.rooms.seat(row).map(|seat| seat.group)
    }

    /// All values of a facet that some row carries, in no particular order.
    pub(crate) fn values(&self, facet: Facet) -> impl Iterator<Item = (Sym, &Rows)> {
        self.facets.get(&facet).into_iter().flatten().map(|(value, rows)| (*value, rows))
    }

    /// A number that changes with the facts of the fleet: with anything but use.
    pub(crate) fn facts(&self) -> u64 {
        self.facts
    }

    /// How often the use of a row has changed.
    pub(crate) fn changes(&self) -> u64 {
        self.forgotten + self.journal.len() as u64
    }

    /// The rows whose use changed after the first `seen` changes, a row for each change; `None` when
    /// they are no longer remembered.
    pub(crate) fn changed_since(&self, seen: u64) -> Option<impl Iterator<Item = Row>> {
        let skip = seen.checked_sub(self.forgotten)?;
        Some(self.journal.iter().skip(skip as usize).copied())
    }

    /// A number for each row that changes with its use.
    pub(crate) fn use_sums(&self) -> &[u64] {
        &self.use_sums
    }

    /// The facets of a row, in order.
    pub(crate) fn facets_of_row(&self, row: Row) -> &[(Facet, Sym)] {
        self.row_facets.get(row.0 as usize).map_or(&[], Vec::as_slice)
    }

    /// Columns of a resource class.
    pub fn column(&self, class: Sym) -> Option<&Column> {
        self.columns.get(&class)
    }

    /// The host state of a row, if it reports one.
    pub fn host_state(&self, row: Row) -> Option<&HostState> {
        self.host_states.get(row.0 as usize)?.as_deref()
    }

    /// The kinds of hosts.
    pub fn kinds(&self) -> &Kinds {
        &self.kinds
    }

    /// A number of every host state, by row; rows beyond its end have 0.
    pub fn host_numbers(&self, number: HostNumber) -> &[f64] {
        &self.host_numbers[number as usize]
    }

    /// Rows whose host name equals `host`, ASCII case ignored.
    pub fn rows_of_host(&self, host: &str) -> &[Row] {
        self.hosts.rows(host)
    }

    /// The row whose host name equals `host`, ASCII case ignored, if there is exactly one; found at once when it is `guess`.
    pub(crate) fn only_row_of_host(&self, host: &str, guess: Row) -> Option<Row> {
        self.hosts.only_row(host, guess)
    }

    /// Host name of a row, as reported; empty or `None` for a row without a provider.
    pub(crate) fn host(&self, row: Row) -> Option<&SmolStr> {
        self.hosts.name(row)
    }

    /// Node name of a row.
    pub(crate) fn node(&self, row: Row) -> Option<&str> {
        self.row_node.get(row.0 as usize)?.as_deref()
    }

    /// Aggregates with a metadata key that begins with `prefix`, each once.
    pub(crate) fn aggregates_with(&self, prefix: &str) -> BTreeSet<Sym> {
        let keys = self.metadata.range(prefix.to_owned()..);
        keys.take_while(|(key, _)| key.starts_with(prefix)).flat_map(|(_, aggregates)| aggregates).copied().collect()
    }

    /// Looks again at a host of failover that has, or had, that name.
    pub(crate) fn refresh_doubt(&mut self, tables: &Tables, overlay: &Overlay, id: HostId, name: Sym) {
        let ha = tables.failover();
        let host = ha.hosts.get(id).filter(|host| host.nova_host == name);
        if host.is_some_and(|host| ha.doubt(host).is_some()) {
            self.doubts.insert((name, id));
        } else {
            self.doubts.remove(&(name, id));
        }
        if host.is_some_and(|host| host.enabled) {
            self.watched.insert((name, id));
        } else {
            self.watched.remove(&(name, id));
        }
        self.refresh_cordon(tables, overlay, name);
        self.reseat(tables, name);
    }

    /// Looks again at all hosts that failover has doubts about: what keeps instances off them has changed.
    pub(crate) fn refresh_doubts(&mut self, tables: &Tables, overlay: &Overlay) {
        let names: BTreeSet<Sym> = self.doubts.iter().map(|(name, _)| *name).collect();
        for name in names {
            self.refresh_cordon(tables, overlay, name);
        }
    }

    /// Looks again at all hosts that failover watches: their policies have changed.
    pub(crate) fn refresh_policies(&mut self, tables: &Tables, overlay: &Overlay) {
        self.refresh_doubts(tables, overlay);
        let names: BTreeSet<Sym> = self.watched.iter().map(|(name, _)| *name).collect();
        for name in names {
            self.reseat(tables, name);
        }
    }

    fn reseat(&mut self, tables: &Tables, name: Sym) {
        for row in self.rows_of_host(tables.names.text(name)).to_vec() {
            self.refresh_seat(tables, row);
        }
    }

    /// Looks again at what a row counts as.
    fn refresh_seat(&mut self, tables: &Tables, row: Row) {
        let seat = tables.provider(row).and_then(|provider| self.seat(tables, provider));
        // The rows that may be refused are facts; sums are compared.
        if seat.and_then(|seat| seat.kept) != self.rooms.seat(row).and_then(|seat| seat.kept) {
            self.facts += 1;
        }
        self.refresh_room(tables, row, seat);
    }

    fn refresh_room(&mut self, tables: &Tables, row: Row, seat: Option<Seat>) {
        let at = row.0 as usize;
        let inventories = tables.provider(row).map(|provider| &provider.inventories).into_iter().flatten();
        let columns = &self.columns;
        let of = inventories.filter_map(|(class, _)| {
            let column = columns.get(class)?;
            Some((*class, *column.capacity.get(at)?, *column.used.get(at)?))
        });
        self.rooms.set(row, seat, of);
    }

    fn seat(&self, tables: &Tables, provider: &Provider) -> Option<Seat> {
        let of_name = |id| (provider.host, HostId(id));
        let (_, id) = self.watched.range(of_name(Uuid::nil())..=of_name(Uuid::max())).next()?;
        let host = tables.failover().hosts.get(*id).filter(|_| provider.domain == Domain::Nova)?;
        let free = !(provider.disabled || provider.forced_down);
        Some(Seat {
            group: (host.places.az, host.places.cell),
            takes: free && host.is_open() && self.cordon(tables, provider).is_none(),
            kept: admission::kept(&policy::of(tables, host)),
        })
    }

    fn refresh_cordon(&mut self, tables: &Tables, overlay: &Overlay, name: Sym) {
        for row in self.rows_of_host(tables.names.text(name)).to_vec() {
            let known = self.facets_of_row(row).iter().find_map(|(facet, _)| match facet {
                Facet::Cordoned(why) => Some(*why),
                _ => None,
            });
            let provider = tables.provider(row).filter(|provider| provider.host == name);
            if provider.is_some_and(|provider| self.cordon(tables, provider) != known) {
                self.refresh_row(tables, overlay, row);
            }
        }
    }

    /// Why nothing new is placed on a provider, if so.
    fn cordon(&self, tables: &Tables, provider: &Provider) -> Option<Cordon> {
        let of_name = |id| (provider.host, HostId(id));
        let doubted = self.doubts.range(of_name(Uuid::nil())..=of_name(Uuid::max()));
        let cordons = doubted.filter_map(|(_, id)| cordon::of(tables, tables.failover().hosts.get(*id)?));
        cordons.min().filter(|_| provider.domain == Domain::Nova)
    }

    pub(crate) fn refresh_aggregate(&mut self, tables: &Tables, overlay: &Overlay, key: Sym) {
        self.refresh_metadata(tables, key);
        // Policies select hosts by aggregate.
        self.refresh_doubts(tables, overlay);
        let rows: Vec<Row> = self.facet(Facet::Aggregate, key).iter().collect();
        for row in rows {
            if let Some(provider) = tables.provider(row) {
                self.reseat(tables, provider.host);
            }
        }
    }

    fn refresh_metadata(&mut self, tables: &Tables, key: Sym) {
        self.facts += 1;
        self.metadata.retain(|_, aggregates| {
            aggregates.remove(&key);
            !aggregates.is_empty()
        });
        for name in tables.aggregate(key).into_iter().flat_map(|aggregate| aggregate.metadata.keys()) {
            self.metadata.entry(name.clone()).or_default().insert(key);
        }
    }

    pub(crate) fn group_members(&self, group: Uuid) -> impl Iterator<Item = Uuid> + '_ {
        self.groups.get(&group).into_iter().flatten().copied()
    }

    pub(crate) fn join_group(&mut self, group: Uuid, consumer: Uuid) {
        self.groups.entry(group).or_default().insert(consumer);
    }

    pub(crate) fn leave_group(&mut self, group: Uuid, consumer: Uuid) {
        if let Some(members) = self.groups.get_mut(&group) {
            members.remove(&consumer);
            if members.is_empty() {
                self.groups.remove(&group);
            }
        }
    }

    /// Brings everything of `row` up to date with the state, and what depends on it of the host's other nodes: policies
    /// select hosts by what one of them has.
    pub(crate) fn refresh(&mut self, tables: &Tables, overlay: &Overlay, row: Row) {
        let old = self.host(row).and_then(|host| tables.names.get(host));
        self.refresh_row(tables, overlay, row);
        if !self.watched.is_empty() || !self.doubts.is_empty() {
            let new = tables.provider(row).map(|provider| provider.host);
            for name in [old, new].into_iter().flatten() {
                self.refresh_cordon(tables, overlay, name);
                self.reseat(tables, name);
            }
        }
    }

    fn refresh_row(&mut self, tables: &Tables, overlay: &Overlay, row: Row) {
        let at = row.0 as usize;
        self.facts += 1;
        self.rows = self.rows.max(at + 1);
        self.row_facets.resize(self.rows.max(self.row_facets.len()), Vec::new());
        self.row_node.resize(self.rows.max(self.row_node.len()), None);
        let provider = tables.provider(row);

        let cordon = provider.and_then(|provider| self.cordon(tables, provider));
        let new = provider.map(|provider| facets_of(tables, provider, cordon)).unwrap_or_default();
        let old = std::mem::take(&mut self.row_facets[at]);
        for gone in old.iter().filter(|facet| new.binary_search(facet).is_err()) {
            let values = self.facets.entry(gone.0).or_default();
            if let Some(rows) = values.get_mut(&gone.1) {
                rows.remove(row);
                if rows.is_empty() {
                    values.remove(&gone.1);
                }
            }
        }
        for added in new.iter().filter(|facet| old.binary_search(facet).is_err()) {
            self.facets.entry(added.0).or_default().entry(added.1).or_default().insert(row);
        }
        self.row_facets[at] = new;

        self.row_node[at] = provider.and_then(|provider| Some(tables.names.text(provider.node?).into()));
        self.hosts.set(row, provider.map_or("", |provider| tables.names.text(provider.host)));
        if let Some(provider) = provider {
            for &(class, _) in &provider.inventories {
                self.columns.entry(class).or_default();
            }
        }
        self.refresh_host_state(row, provider.and_then(|provider| provider.nova_host_state.as_ref()));
        self.refresh_use(tables, overlay, row);
        self.refresh_seat(tables, row);
    }

    /// Reads a host state that has changed.
    fn refresh_host_state(&mut self, row: Row, text: Option<&Arc<str>>) {
        let at = row.0 as usize;
        if self.host_states.len() <= at {
            if text.is_none() {
                return;
            }
            self.host_states.resize(at + 1, None);
        }
        let known = self.host_states[at].as_deref().map(HostState::text);
        if known != text {
            // A report with a bad one was refused: what is in the state can be read.
            let mut state = text.and_then(|text| HostState::read(text).ok());
            self.kinds.set(row, state.as_mut());
            self.host_states[at] = state.map(Arc::new);
        }
    }

    /// Brings the numbers of a host state up to date with the claims on its host.
    fn refresh_host_numbers(&mut self, tables: &Tables, overlay: &Overlay, row: Row) {
        let at = row.0 as usize;
        let Some(known) = self.host_states.get(at) else { return };
        let mut numbers = [0.0; HOST_NUMBERS];
        if let (Some(state), Some(provider)) = (known, tables.provider(row)) {
            let seen = |class| provider.reported.get(class).max(provider.listed.get(class));
            let open = |class: &str| {
                tables
                    .names
                    .get(class)
                    .map_or(0, |class| overlay.used(provider, row, class).saturating_sub(seen(class)))
            };
            let slots = provider.consumers.iter().filter_map(|&slot| tables.consumer_at(slot));
            let applied = slots.filter(|consumer| Consumer::is_open(consumer)).count() as u64;
            let open = Open {
                claims: overlay.claims(row, applied),
                vcpus: open("VCPU").saturating_add(open("PCPU")),
                memory_mb: open("MEMORY_MB"),
                disk_gb: open("DISK_GB"),
            };
            numbers = state.numbers(open, provider.observed_at);
        }
        for (column, number) in self.host_numbers.iter_mut().zip(numbers) {
            if column.len() <= at {
                column.resize(at + 1, 0.0);
            }
            column[at] = number;
        }
    }

    /// Brings the columns of `row` up to date; for changes of use only.
    pub(crate) fn refresh_use(&mut self, tables: &Tables, overlay: &Overlay, row: Row) {
        self.refresh_host_numbers(tables, overlay, row);
        let at = row.0 as usize;
        let provider = tables.provider(row);
        let numbers = self.host_numbers.iter().enumerate();
        let numbers = numbers.filter_map(|(number, column)| Some(mixed(column.get(at)?.to_bits() ^ number as u64)));
        let mut sum = numbers.fold(0, u64::wrapping_add);
        for (&class, column) in &mut self.columns {
            let len = self.rows.max(at + 1);
            if column.capacity.len() < len {
                column.capacity.resize(len, 0);
                column.used.resize(len, 0);
                column.fit.resize(len, 0);
            }
            let inventory = provider.and_then(|provider| provider.inventory(class));
            let capacity = inventory.map_or(0, crate::inventory::Inventory::capacity);
            // Without an inventory there is nothing to compare the use with.
            let used = match (provider, inventory) {
                (Some(provider), Some(_)) => overlay.used(provider, row, class),
                _ => 0,
            };
            column.set_capacity(at, capacity);
            column.used[at] = used;
            column.fit[at] = capacity.saturating_sub(used).min(inventory.map_or(0, |inventory| inventory.max_unit));
            // A sum, since the classes come in no particular order.
            sum = sum.wrapping_add(mixed(u64::from(class.number()) << 48 ^ used));
        }
        self.use_sums.resize(self.use_sums.len().max(self.rows).max(at + 1), 0);
        self.use_sums[at] = sum;
        if let Some(seat) = self.rooms.seat(row) {
            self.refresh_room(tables, row, Some(seat));
        }
        if self.journal.len() == JOURNAL {
            self.journal.pop_front();
            self.forgotten += 1;
        }
        self.journal.push_back(row);
    }
}

/// The finalizer of splitmix64.
fn mixed(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

impl PartialEq for Index {
    /// Equal content: columns are compared up to rows that never had a value.
    fn eq(&self, other: &Self) -> bool {
        let trimmed = |column: &Column| {
            let trim = |values: &[u64]| {
                let end = values.iter().rposition(|&value| value != 0).map_or(0, |at| at + 1);
                values[..end].to_vec()
            };
            (trim(&column.capacity), trim(&column.used), trim(&column.fit), column.largest)
        };
        let columns = |index: &Self| {
            index
                .columns
                .iter()
                .map(|(class, column)| (*class, trimmed(column)))
                .filter(|(_, column)| !column.0.is_empty() || !column.1.is_empty())
                .collect::<BTreeMap<_, _>>()
        };
        let facets = |index: &Self| {
            let kinds = index.facets.iter().filter(|(_, values)| !values.is_empty());
            kinds.map(|(facet, values)| (*facet, values.clone())).collect::<FxHashMap<_, _>>()
        };
        let host_states = |index: &Self| {
            let states = index.host_states.iter().enumerate();
            let numbers = |at: usize| index.host_numbers.each_ref().map(|column| column[at]);
            states.filter_map(|(at, state)| Some((at, Arc::clone(state.as_ref()?), numbers(at)))).collect::<Vec<_>>()
        };
        let nodes = |index: &Self| {
            let nodes = index.row_node.iter().enumerate().filter(|(_, node)| node.is_some());
            nodes.map(|(at, node)| (at, node.clone())).collect::<Vec<_>>()
        };
        columns(self) == columns(other)
            && host_states(self) == host_states(other)
            && self.kinds == other.kinds
            && facets(self) == facets(other)
            && self.hosts == other.hosts
            && nodes(self) == nodes(other)
            && self.groups == other.groups
            && self.doubts == other.doubts
            && self.watched == other.watched
            && self.rooms == other.rooms
            && self.metadata == other.metadata
    }
}

fn facets_of(tables: &Tables, provider: &Provider, cordon: Option<Cordon>) -> Vec<(Facet, Sym)> {
    let mut out = Vec::with_capacity(provider.traits.len() + 16);
    if let Some(domain) = tables.names.get(provider.domain.as_str()) {
        out.push((Facet::Domain, domain));
    }
    let singles = [
        (Facet::Zone, provider.zone),
        (Facet::CpuArch, provider.cpu_arch),
        (Facet::HypervisorType, provider.hypervisor_type),
        (Facet::Node, provider.node),
    ];
    out.extend(singles.into_iter().filter_map(|(facet, value)| Some((facet, value?))));
    let lists = [
        (Facet::Trait, &provider.traits),
        (Facet::Aggregate, &provider.aggregates),
        (Facet::CpuModel, &provider.cpu_models),
        (Facet::CpuFeature, &provider.cpu_features),
        (Facet::CpuDevice, &provider.cpu_devices),
        (Facet::Condition, &provider.conditions),
        (Facet::AllowedProject, &provider.allowed_projects),
        (Facet::Label, &provider.labels),
        (Facet::Taint, &provider.taints),
    ];
    for (facet, values) in lists {
        out.extend(values.iter().map(|&value| (facet, value)));
    }
    let keys = provider.labels.iter().filter_map(|label| tables.names.text(*label).split_once('='));
    out.extend(keys.filter_map(|(key, _)| Some((Facet::LabelKey, tables.names.get(key)?))));
    for (class, inventory) in &provider.inventories {
        out.push((Facet::Inventory, *class));
        if inventory.min_unit > 1 || inventory.step_size > 1 {
            out.push((Facet::Stepped, *class));
        }
    }
    let flags = [
        (Facet::RestrictsProjects, !provider.allowed_projects.is_empty()),
        (Facet::Disabled, provider.disabled),
        (Facet::ForcedDown, provider.forced_down),
    ];
    out.extend(flags.into_iter().filter(|&(_, set)| set).map(|(facet, _)| (facet, NO_VALUE)));
    out.extend(cordon.map(|why| (Facet::Cordoned(why), NO_VALUE)));
    out.sort_unstable();
    out.dedup();
    out.shrink_to_fit();
    out
}
