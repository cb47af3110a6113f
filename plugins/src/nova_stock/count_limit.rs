//! Filters of one kind: a count of the host must be below a limit, which aggregates may lower or raise.

#[cfg(test)]
use scheduler::pipeline::FilterPlugin;
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

/// The table of cases of both steps of a kind: by the option, and by the aggregates.
#[cfg(test)]
pub fn table<O: FilterPlugin, A: FilterPlugin>(number: &str, limit: &str, why: &str) {
    use serde_json::json;

    use crate::fleet::{Fleet, Host, case, host};

    let with = |name, count: i64| host(name).state(json!({ number: count }));
    let limited = |host: Host, name, most| host.aggregate(name, &[(limit, most)]);
    let mut fleet = Fleet::of([
        host("bare"),
        with("four", 4),
        with("five", 5),
        limited(with("six of nine", 6), "nine", " 9 "),
        limited(limited(with("two of two and nine", 2), "nine", " 9 "), "two", "2"),
        limited(limited(with("four of odd and two", 4), "two", "2"), "odd", "2.0"),
    ]);
    let option = json!({ limit: 5 });
    let full = |count| format!("{why}: {count} there, at most {count} allowed");
    case("option")
        .options(option.clone())
        .kept(&["bare", "four", "two of two and nine", "four of odd and two"])
        .dropped("five", &full(5))
        .check::<O>(&mut fleet);
    case("aggregates")
        .options(option)
        .kept(&["bare", "four", "six of nine", "four of odd and two"])
        .dropped("five", &full(5))
        .dropped("two of two and nine", &full(2))
        .check::<A>(&mut fleet);
}
