//! Filters of one kind: a count of the host must be below a limit, which aggregates may lower or raise.

use scheduler::pipeline::{Cx, Detail, Survivors, Verdict};
use scheduler::{HostNumber, Row};

use super::aggregates::Numbers;
use super::python;

/// Who sets the limit.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// The option.
    Option(i64),
    /// Metadata of the host's aggregates under this key, the smallest; else the option.
    Aggregates(&'static str, i64),
}

/// Drops hosts whose `number` is not below the limit.
pub fn below(limit: Limit, number: HostNumber, why: &'static str, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
    let column = cx.view.host_numbers(number);
    let count = |row: Row| column.get(row.0 as usize).copied().unwrap_or(0.0);
    let detail = |row: Row, limit: i64| Detail::Count { found: count(row).max(0.0) as u64, limit: limit.max(0) as u64 };
    match limit {
        Limit::Option(limit) => {
            hosts.keep_where(why, |row| count(row) < limit as f64, |row| detail(row, limit));
        }
        Limit::Aggregates(key, option) => {
            let limits = Numbers::of(cx.view, key, option, python::int);
            hosts.keep_where(why, |row| count(row) < limits.get(row) as f64, |row| detail(row, limits.get(row)));
        }
    }
    Verdict::Ran
}
