//! What is printed: tables, JSON, YAML. A reader that goes away (`| head`) is no error.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use super::Failure;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Writes text and a line end to stdout.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        // Nobody reads any more.
        std::process::exit(0);
    }
}

/// Writes text and a line end to stderr.
pub fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Prints a value as it was asked for.
pub fn emit<T: Serialize>(format: Format, value: &T, table: impl FnOnce() -> String) -> Result<(), Failure> {
    let bad = |error: String| Failure::new(format!("the answer cannot be printed: {error}"));
    match format {
        Format::Table => print(&table()),
        Format::Json => print(&serde_json::to_string_pretty(value).map_err(|error| bad(error.to_string()))?),
        Format::Yaml => print(serde_norway::to_string(value).map_err(|error| bad(error.to_string()))?.trim_end()),
    }
    Ok(())
}

/// A column of a listing.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// Numbers stand to the right.
    pub right: bool,
    /// The columns of the highest rank go first when the terminal is too narrow; 0 never goes.
    pub rank: u8,
}

/// A column of text.
pub const fn text(name: &'static str, rank: u8) -> Column {
    Column { name, right: false, rank }
}

/// A column of numbers.
pub const fn number(name: &'static str, rank: u8) -> Column {
    Column { name, right: true, rank }
}

/// A listing without lines; cells are never cut or wrapped. On a terminal that is too narrow,
/// columns are left out instead.
pub fn listing(columns: &[Column], rows: &[Vec<String>]) -> String {
    let width = std::io::stdout().is_terminal().then(|| Table::new().width().map_or(80, usize::from));
    listing_within(columns, rows, width)
}

fn listing_within(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> String {
    let chars = |text: &str| text.chars().count();
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| rows.iter().map(|row| chars(&row[at])).chain([chars(column.name)]).max().unwrap_or(0) + 2)
        .collect();
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    while let Some(width) = width
        && shown.iter().map(|&at| widths[at]).sum::<usize>() > width + 2
        && let Some(&worst) = shown.iter().filter(|&&at| columns[at].rank > 0).max_by_key(|&&at| columns[at].rank)
    {
        shown.retain(|&at| at != worst);
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(shown.iter().map(|&at| columns[at].name));
    for row in rows {
        table.add_row(shown.iter().map(|&at| row[at].as_str()));
    }
    for (place, &at) in shown.iter().enumerate() {
        if let Some(column) = table.column_mut(place) {
            column.set_padding((0, 2));
            if columns[at].right {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::{listing_within, number, text};

    #[test]
    fn narrow_terminals_lose_columns_not_cells() {
        let columns = [text("HOST", 0), text("ZONE", 2), number("FREE", 1)];
        let rows = [vec!["node-1".to_owned(), "az-a".to_owned(), "7".to_owned()]];
        assert_eq!(listing_within(&columns, &rows, None), "HOST    ZONE  FREE\nnode-1  az-a     7");
        assert_eq!(listing_within(&columns, &rows, Some(18)), "HOST    ZONE  FREE\nnode-1  az-a     7");
        assert_eq!(listing_within(&columns, &rows, Some(16)), "HOST    FREE\nnode-1     7");
        assert_eq!(listing_within(&columns, &rows, Some(3)), "HOST\nnode-1");
    }
}
