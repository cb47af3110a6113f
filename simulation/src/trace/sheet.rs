//! Results as tables for other programs, as CSV and as Parquet: the same columns in the same order, each with a unit. They hold
//! no time of day, path or date: equal runs give equal bytes.

#[cfg(feature = "parquet")]
mod parquet;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number: in Parquet DOUBLE.
    Number,
    /// A whole number: INT64.
    Whole,
    /// Text: BYTE_ARRAY (UTF8).
    Text,
}

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Unit; `share` is a number from 0 to 1, empty: none.
    pub unit: &'static str,
    /// What it means.
    pub means: &'static str,
}

/// A cell; it must be of the column's kind. Of what does not exist it is empty.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// A number.
    Number(Option<f64>),
    /// A whole number.
    Whole(u64),
    /// Text.
    Text(String),
}

/// A table.
#[derive(Clone, Debug, PartialEq)]
pub struct Sheet {
    /// Columns.
    pub columns: &'static [Column],
    /// Rows: a cell for each column.
    pub rows: Vec<Vec<Cell>>,
}

pub(super) const fn column(name: &'static str, kind: Kind, unit: &'static str, means: &'static str) -> Column {
    Column { name, kind, unit, means }
}

/// Columns of the series: a row for each policy and moment of a replay.
pub const SERIES: &[Column] = &[
    column("time_s", Kind::Number, "s", "time from the start of the trace"),
    column("policy", Kind::Text, "", "name of the policy"),
    column("hosts_used", Kind::Whole, "hosts", "hosts with a VM"),
    column("u_cpu", Kind::Number, "share", "CPU in use over that of the hosts in use"),
    column("u_mem", Kind::Number, "share", "memory in use over that of the hosts in use"),
    column("u_gpu", Kind::Number, "share", "GPUs in use over those of the hosts in use"),
    column("fragmentation", Kind::Number, "share", "free and of no use for the mix over all capacity, once an hour"),
    column("large_slots", Kind::Number, "VMs", "further VMs of 16 vCPU and 64 GiB that would fit, once an hour"),
    column("rejected", Kind::Whole, "VMs", "creates without a host so far"),
    column("migrations", Kind::Whole, "moves", "moves so far"),
];

/// Columns of the summary: a row for each figure of each policy, then the lower bounds.
pub const SUMMARY: &[Column] = &[
    column("policy", Kind::Text, "", "name of the policy; empty: a lower bound, which holds for all"),
    column("metric", Kind::Text, "", "where the figure stands in the results of the policy in result.json"),
    column("unit", Kind::Text, "", "unit of the value"),
    column("value", Kind::Number, "as told", "the figure"),
];

impl Cell {
    fn text(&self) -> String {
        match self {
            Self::Number(number) => number.map(|number| number.to_string()).unwrap_or_default(),
            Self::Whole(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

impl Sheet {
    /// As CSV with a header.
    pub fn csv(&self) -> String {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let names = self.columns.iter().map(|column| column.name.to_owned()).collect();
        let rows = self.rows.iter().map(|row| row.iter().map(Cell::text).collect());
        for row in std::iter::once(names).chain(rows) {
            let row: Vec<String> = row;
            writer.write_record(row).expect("rows of equal length go into memory");
        }
        let bytes = writer.into_inner().expect("memory takes everything");
        String::from_utf8(bytes).expect("text goes in and text comes out")
    }
}

#[cfg(test)]
mod tests {
    use super::{Column, Kind, SERIES, SUMMARY};
    use crate::trace::record::{DECISIONS, MOVES};

    #[test]
    fn every_column_is_documented() {
        let text = include_str!("../../../docs/simulation.md");
        for Column { name, kind, unit, means } in [SERIES, SUMMARY, DECISIONS, MOVES].into_iter().flatten() {
            let kind = match kind {
                Kind::Number => "number",
                Kind::Whole => "whole",
                Kind::Text => "text",
            };
            let row = format!("| {name} | {kind} | {unit} | {means} |");
            assert!(text.contains(&row), "docs/simulation.md: this row expected\n{row}");
        }
    }
}
