//! Hosts that an instance may not be evacuated to whatever the pipeline says: Nova keeps to its cell and its zone,
//! and a host of another kind does not start it.

use crate::alike::Alike;
use crate::domain::Domain;
use crate::ha::host::HostId;
use crate::ha::recovery::Unlike;
use crate::names::Sym;
use crate::provider::Provider;
use crate::state::Tables;

use super::asks::Asks;

/// What an instance is held to.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bounds {
    alike: Alike,
    cell: Option<Sym>,
    forbidden: Vec<Sym>,
    /// It asks for what no host has.
    nowhere: Option<Unlike>,
}

/// Traits by which hosts are set apart: without them an instance does not go there unless it asks.
fn sets_apart(name: &str) -> bool {
    name.contains("EXCLUSIVE")
}

fn cell(tables: &Tables, host: HostId) -> Option<Sym> {
    let cell = tables.failover().hosts.get(host)?.places.cell;
    (!tables.names.text(cell).is_empty()).then_some(cell)
}

impl Bounds {
    /// Those of an instance on `source`.
    pub fn of(tables: &Tables, source: HostId, asks: &Asks) -> Self {
        let host = tables.failover().hosts.get(source);
        let row = host.and_then(|host| tables.row_of_node(Domain::Nova, tables.names.text(host.nova_host), None));
        let alike = row.and_then(|row| tables.provider(row)).map(Alike::of).unwrap_or_default();
        let mut bounds = Self { alike, cell: cell(tables, source), ..Self::default() };
        match &asks.zone {
            Some(Some(zone)) => {
                bounds.alike.zone = tables.names.get(zone);
                bounds.nowhere = bounds.alike.zone.is_none().then_some(Unlike::Zone);
            }
            Some(None) => bounds.alike.zone = None,
            None => {}
        }
        if let Some((required, forbidden)) = asks.traits() {
            let sym = |name: &&str| tables.names.get(name);
            bounds.alike.traits = required.iter().filter_map(sym).collect();
            bounds.alike.traits.sort_unstable();
            if bounds.alike.traits.len() < required.len() {
                bounds.nowhere = Some(Unlike::Traits);
            }
            bounds.forbidden = forbidden.iter().filter_map(sym).collect();
        }
        bounds
    }

    /// What keeps it off a host.
    pub fn against(&self, tables: &Tables, host: HostId, provider: &Provider) -> Option<Unlike> {
        let has = |name: &Sym| provider.traits.binary_search(name).is_ok();
        let other = |asked: Option<Sym>, there: Option<Sym>| asked.is_some() && asked != there;
        let apart = || {
            let strange = provider.traits.iter().filter(|name| sets_apart(tables.names.text(**name)));
            strange.into_iter().any(|name| !self.alike.traits.contains(name))
        };
        // Of cells only names that are told can differ.
        if self.cell.is_some() && cell(tables, host).is_some_and(|there| Some(there) != self.cell) {
            Some(Unlike::Cell)
        } else if other(self.alike.zone, provider.zone) {
            Some(Unlike::Zone)
        } else if other(self.alike.hypervisor_type, provider.hypervisor_type)
            || other(self.alike.cpu_arch, provider.cpu_arch)
        {
            Some(Unlike::Hypervisor)
        } else if !self.alike.traits.iter().all(has) || self.forbidden.iter().any(has) || apart() {
            Some(Unlike::Traits)
        } else {
            self.nowhere
        }
    }
}
