//! Rows by host name, ASCII case ignored. A request of a hook names each host of a fleet, so a look-up is to touch
//! little memory: a slot of the table is one row, and the names stand by row.

use std::hash::BuildHasher;

// Names that callers send must not be made to collide: its hasher has a random seed.
use hashbrown::{DefaultHashBuilder, HashTable};
use rustc_hash::FxHashMap;
use smol_str::SmolStr;

use crate::provider::Row;
use crate::rows::Mask;

/// The names of hosts, and their rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts {
    /// As reported, by row; empty for a row without a provider.
    names: Vec<SmolStr>,
    /// The lowest row of each name.
    lowest: HashTable<Row>,
    /// All rows of a name that several have, ascending, by the lowest of them.
    several: FxHashMap<Row, Vec<Row>>,
    /// The rows in `several`.
    shared: Mask,
    hashes: DefaultHashBuilder,
}

impl Hosts {
    /// The name of a row, as reported.
    pub fn name(&self, row: Row) -> Option<&SmolStr> {
        self.names.get(row.0 as usize)
    }

    /// All rows with this name, ascending.
    pub fn rows(&self, name: &str) -> &[Row] {
        match self.find(name) {
            None => &[],
            Some(row) if self.shared.has(*row) => self.several.get(row).map_or(&[], Vec::as_slice),
            Some(row) => std::slice::from_ref(row),
        }
    }

    /// The row with this name, if it is the only one. `guess` is looked at first: callers often name hosts in the order in
    /// which they were reported.
    pub fn only_row(&self, name: &str, guess: Row) -> Option<Row> {
        let guessed = self.name(guess).is_some_and(|known| known == name && !name.is_empty());
        let row = if guessed { guess } else { *self.find(name)? };
        (!self.shared.has(row)).then_some(row)
    }

    /// Gives a row its name, empty for none.
    pub fn set(&mut self, row: Row, name: &str) {
        let at = row.0 as usize;
        self.names.resize(self.names.len().max(at + 1), SmolStr::default());
        if !self.names[at].eq_ignore_ascii_case(name) {
            self.leave(row);
            self.names[at] = name.into();
            self.join(row);
        } else if self.names[at] != name {
            self.names[at] = name.into();
        }
    }

    fn find(&self, name: &str) -> Option<&Row> {
        let named = |hash| {
            let equal = |row: &Row| self.names[row.0 as usize].eq_ignore_ascii_case(name);
            self.lowest.find(hash, equal)
        };
        // Nearly every name is sent in lower case: it is folded only when it was not found as it is.
        named(self.hashes.hash_one(name)).or_else(|| named(folded(&self.hashes, name)?))
    }

    fn leave(&mut self, row: Row) {
        let name = self.names[row.0 as usize].clone();
        let hash = hash(&self.hashes, &name);
        let found = self.lowest.find_entry(hash, |known| self.names[known.0 as usize].eq_ignore_ascii_case(&name));
        let Ok(mut found) = found else { return };
        let Some(mut rows) = self.several.remove(found.get()) else {
            found.remove();
            return;
        };
        rows.retain(|known| *known != row);
        self.shared.remove(row);
        *found.get_mut() = rows[0];
        if rows.len() == 1 {
            self.shared.remove(rows[0]);
        } else {
            self.several.insert(rows[0], rows);
        }
    }

    fn join(&mut self, row: Row) {
        let (names, hashes) = (&self.names, &self.hashes);
        let name = &names[row.0 as usize];
        if name.is_empty() {
            return;
        }
        let equal = |known: &Row| names[known.0 as usize].eq_ignore_ascii_case(name);
        let Some(lowest) = self.lowest.find_mut(hash(hashes, name), equal) else {
            self.lowest.insert_unique(hash(hashes, name), row, |known| hash(hashes, &names[known.0 as usize]));
            return;
        };
        let mut rows = self.several.remove(lowest).unwrap_or_else(|| vec![*lowest]);
        rows.push(row);
        rows.sort_unstable();
        *lowest = rows[0];
        for row in &rows {
            self.shared.insert(*row);
        }
        self.several.insert(rows[0], rows);
    }
}

/// The hash of a name in lower case.
fn hash(hashes: &DefaultHashBuilder, name: &str) -> u64 {
    folded(hashes, name).unwrap_or_else(|| hashes.hash_one(name))
}

/// The same; none when the name is in lower case.
fn folded(hashes: &DefaultHashBuilder, name: &str) -> Option<u64> {
    let upper = name.bytes().any(|byte| byte.is_ascii_uppercase());
    upper.then(|| hashes.hash_one(name.to_ascii_lowercase().as_str()))
}

impl PartialEq for Hosts {
    /// Equal names of equal rows, and equal rows of each name.
    fn eq(&self, other: &Self) -> bool {
        let names = |hosts: &Self| {
            let names = hosts.names.iter().cloned().enumerate();
            names.filter(|(_, name)| !name.is_empty()).collect::<Vec<_>>()
        };
        let known = names(self);
        let found = |(_, name): &(usize, SmolStr)| self.rows(name) == other.rows(name);
        self.lowest.len() == other.lowest.len()
            && (&self.several, known.iter().all(found)) == (&other.several, true)
            && known == names(other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whatever was set before, rows are found as a search through all names finds them.
    fn check(hosts: &Hosts, names: &[String], asked: &str) {
        let wanted: Vec<Row> = (0..)
            .map(Row)
            .zip(names)
            .filter(|(_, name)| !asked.is_empty() && name.eq_ignore_ascii_case(asked))
            .map(|(row, _)| row)
            .collect();
        assert_eq!(hosts.rows(asked), wanted, "{asked}");
        for guess in (0..=names.len() as u32).map(Row) {
            let only = (wanted.len() == 1).then(|| wanted[0]);
            assert_eq!(hosts.only_row(asked, guess), only, "{asked}, guessed {guess:?}");
        }
    }

    proptest! {
        #[test]
        fn rows_are_those_that_a_search_finds(sets in prop::collection::vec((0_u32..6, "[aAbB]{0,2}"), 1..40)) {
            let (mut hosts, mut names) = (Hosts::default(), vec![String::new(); 6]);
            for (row, name) in sets {
                hosts.set(Row(row), &name);
                names[row as usize] = name;
                for asked in ["", "a", "A", "b", "B", "aa", "aA", "Ab", "ba", "BB", "c"] {
                    check(&hosts, &names, asked);
                }
                for (at, name) in names.iter().enumerate() {
                    prop_assert_eq!(hosts.name(Row(at as u32)).map_or("", |name| name.as_str()), name);
                }
                let mut anew = Hosts::default();
                (0..).map(Row).zip(&names).for_each(|(row, name)| anew.set(row, name));
                prop_assert!(hosts == anew);
            }
        }
    }
}
