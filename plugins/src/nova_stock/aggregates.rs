//! What steps read in the metadata of aggregates: whom they are set apart for, and numbers. Of the numbers of a
//! host's aggregates the smallest counts, and one that is no number makes Nova fall back to the option for
//! that host.
//!
//! Source: openstack/nova, `nova/scheduler/filters/utils.py`.

use scheduler::pipeline::View;
use scheduler::{Mask, Row, Rows};

/// Aggregates that have exactly this metadata key, with its value and their hosts.
pub fn with_key<'a>(view: View<'a>, key: &str) -> impl Iterator<Item = (&'a str, &'a Rows)> {
    view.aggregates_with(key).filter_map(move |(aggregate, rows)| Some((aggregate.metadata.get(key)?.as_str(), rows)))
}

/// The words of a comma-separated value.
pub fn words(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim)
}

/// Hosts that are set apart for others, from the aggregates that are set apart for somebody, each with whether
/// that is who asks: one such aggregate is enough, whatever the host's others say.
pub fn set_apart<'a>(aggregates: impl IntoIterator<Item = (bool, &'a Rows)>) -> Mask {
    let (mut closed, mut open) = (Mask::default(), Vec::new());
    for (takes, rows) in aggregates {
        if takes {
            open.push(rows);
        } else {
            closed.union(rows);
        }
    }
    open.into_iter().flat_map(|rows| rows.iter()).for_each(|row| closed.remove(row));
    closed
}

/// A number that aggregates may set, prepared for a request.
#[derive(Debug)]
pub struct Numbers<'a, T> {
    /// What the option says.
    option: T,
    /// Hosts with a value that is no number.
    bad: Mask,
    /// The smallest first.
    groups: Vec<(T, &'a Rows)>,
}

impl<'a, T: Copy + PartialOrd> Numbers<'a, T> {
    /// Reads the values of `key`.
    pub fn of(view: View<'a>, key: &str, option: T, read: impl Fn(&str) -> Option<T>) -> Self {
        let (mut bad, mut groups) = (Mask::default(), Vec::new());
        for (value, rows) in with_key(view, key) {
            match read(value) {
                Some(number) => groups.push((number, rows)),
                None => bad.union(rows),
            }
        }
        groups.sort_by(|a, b| a.0.partial_cmp(&b.0).unwrap_or(std::cmp::Ordering::Equal));
        Self { option, bad, groups }
    }

    /// True when no aggregate sets it.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The number of one host.
    pub fn get(&self, row: Row) -> T {
        if self.bad.has(row) {
            return self.option;
        }
        self.groups.iter().find(|(_, rows)| rows.has(row)).map_or(self.option, |&(number, _)| number)
    }
}
