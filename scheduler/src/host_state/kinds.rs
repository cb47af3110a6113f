//! Kinds of hosts. Most of what a host state says is the same on every host of a model, and a fleet has few
//! models: it is kept once for all hosts that share it, and a step that looks at it judges a kind, not
//! each host.

use std::cell::RefCell;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::node::Node;
use super::{Attributes, HostState, Supported, find};
use crate::provider::Row;

/// What hosts of one kind have in common.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kind {
    pub(super) attributes: Attributes,
    /// Kinds of guests; `None`: not said.
    pub supported: Option<Vec<Supported>>,
}

/// Attributes that hosts of a kind share, when they have them.
const SHARED: [&str; 7] = [
    "cell_uuid",
    "cpu_allocation_ratio",
    "cpu_info",
    "disk_allocation_ratio",
    "hypervisor_type",
    "ram_allocation_ratio",
    "supported_instances",
];

impl Kind {
    /// Whether an attribute of this name belongs to the kind of a host and not to the host.
    pub(super) fn has(name: &str) -> bool {
        SHARED.contains(&name)
    }

    /// An attribute as it was reported.
    pub fn attribute(&self, name: &str) -> Option<&Node> {
        find(&self.attributes, name)
    }
}

/// A number of JSON is never NaN.
impl Eq for Kind {}

impl Hash for Kind {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.supported.hash(state);
        for (name, node) in &self.attributes {
            name.hash(state);
            node.text.hash(state);
        }
    }
}

/// The kinds of a fleet, and which host is of which.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    place_of: FxHashMap<Arc<Kind>, u32>,
    /// Kinds, and how many hosts are of each; a place without hosts is free.
    places: Vec<(Arc<Kind>, u32)>,
    free: Vec<u32>,
    /// Place of the kind + 1 by row; 0 = none.
    of: Vec<u32>,
}

impl PartialEq for Kinds {
    /// Equal when every host is of an equal kind, whatever its place; rows that never had one do not count.
    fn eq(&self, other: &Self) -> bool {
        let rows = self.of.len().max(other.of.len());
        (0..rows).all(|row| self.kind(Row(row as u32)) == other.kind(Row(row as u32)))
    }
}

impl Kinds {
    fn place_at(&self, row: Row) -> Option<usize> {
        Some(self.of.get(row.0 as usize)?.checked_sub(1)? as usize)
    }

    fn kind(&self, row: Row) -> Option<&Kind> {
        self.place_at(row).map(|place| &*self.places[place].0)
    }

    /// Takes the kind of a host, and lets its state share it with the others.
    pub(crate) fn set(&mut self, row: Row, state: Option<&mut HostState>) {
        let at = row.0 as usize;
        if self.of.len() <= at {
            self.of.resize(at + 1, 0);
        }
        let new = state.map_or(0, |state| {
            let place = self.place(&state.kind);
            state.kind = Arc::clone(&self.places[place as usize].0);
            self.places[place as usize].1 += 1;
            place + 1
        });
        let Some(old) = std::mem::replace(&mut self.of[at], new).checked_sub(1) else { return };
        let (kind, hosts) = &mut self.places[old as usize];
        *hosts -= 1;
        if *hosts == 0 {
            self.place_of.remove(kind);
            *kind = Arc::default();
            self.free.push(old);
        }
    }

    fn place(&mut self, kind: &Arc<Kind>) -> u32 {
        if let Some(&place) = self.place_of.get(kind) {
            return place;
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push((Arc::default(), 0));
            (self.places.len() - 1) as u32
        });
        self.places[place as usize].0 = Arc::clone(kind);
        self.place_of.insert(Arc::clone(kind), place);
        place
    }

    /// Asks `judge` about each kind at most once. What comes out tells it of a row; `None` for a host
    /// that says nothing.
    pub fn judged<'a, T: Copy + 'a>(&'a self, judge: impl Fn(&Kind) -> T + 'a) -> impl Fn(Row) -> Option<T> + 'a {
        let known = RefCell::new(vec![None; self.places.len()]);
        move |row| {
            let place = self.place_at(row)?;
            Some(*known.borrow_mut()[place].get_or_insert_with(|| judge(&self.places[place].0)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Kinds;
    use crate::host_state::HostState;
    use crate::provider::Row;
    use std::cell::Cell;
    use std::sync::Arc;

    #[test]
    fn hosts_share_their_kind() {
        let state = |text: &str| HostState::read(&Arc::from(text)).expect("a host state");
        let mut kinds = Kinds::default();
        let mut states: Vec<HostState> = [(0, "QEMU"), (1, "CH"), (2, "QEMU"), (3, "QEMU")]
            .map(|(at, kind)| {
                format!(r#"{{"hypervisor_type": "{kind}", "num_instances": {at}, "stats": {{"n": {at}}}}}"#)
            })
            .map(|text| state(&text))
            .into();
        for (at, state) in states.iter_mut().enumerate() {
            kinds.set(Row(at as u32), Some(state));
        }
        assert!(Arc::ptr_eq(&states[0].kind, &states[3].kind), "kept once");
        assert_eq!(states[3].attribute("num_instances").map(|node| &*node.text), Some("3"), "its own");
        let asked = Cell::new(0);
        {
            let qemu = kinds.judged(|kind| {
                asked.set(asked.get() + 1);
                kind.attribute("hypervisor_type").is_some_and(|node| &*node.text == "QEMU")
            });
            let judged: Vec<_> = (0..5).map(|row| qemu(Row(row))).collect();
            assert_eq!(judged, [Some(true), Some(false), Some(true), Some(true), None]);
            assert_eq!(asked.get(), 2, "each kind once");
        }
        // The last host of a kind leaves its place to the next kind.
        kinds.set(Row(1), None);
        kinds.set(Row(0), Some(&mut state("{}")));
        assert_eq!(kinds.places.len(), 2);
        assert_eq!(kinds.judged(|_| ())(Row(1)), None);
    }
}
