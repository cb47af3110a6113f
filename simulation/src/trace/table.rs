//! Reading a CSV file, plain, gzip or zstd, so that every error names file, line and column. Nothing is guessed and
//! nothing is repaired.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::rc::Rc;

use csv::ByteRecord;
use sha2::{Digest, Sha256};

/// Most bytes of a file, as it lies on the disk.
const LARGEST_FILE: u64 = 4 << 30;
/// Most bytes that a packed file may unpack to.
const LARGEST_TEXT: u64 = 32 << 30;
/// Most bytes of a cell.
const LONGEST_CELL: usize = 4096;
/// Most bytes of a line: what is kept of a file at one time.
const LONGEST_LINE: u64 = 1 << 20;
/// Bytes that are read ahead.
const AHEAD: usize = 1 << 18;
/// Most lines of a table.
pub const MOST_LINES: u64 = 100_000_000;

/// What is wrong with an input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadInput {
    /// The file as a whole.
    #[error("{file}: {what}")]
    File {
        /// Path.
        file: String,
        /// What was found, what was expected.
        what: String,
    },
    /// A line.
    #[error("{file}: line {line}: {what}")]
    Line {
        /// Path.
        file: String,
        /// From 1, the header.
        line: u64,
        /// What was found, what was expected.
        what: String,
    },
    /// A cell.
    #[error("{file}: line {line}, column {column}: {what}")]
    Cell {
        /// Path.
        file: String,
        /// From 1, the header.
        line: u64,
        /// Name of the column.
        column: String,
        /// What was found, what was expected.
        what: String,
    },
}

/// A table on its way in.
pub struct Table {
    file: String,
    reader: csv::Reader<Bounded<Box<dyn Read>>>,
    since: Rc<Cell<u64>>,
    record: ByteRecord,
    /// Place of each known column in the file; `None`: an optional one that is not there.
    places: Vec<Option<usize>>,
    columns: &'static [&'static str],
    cells: usize,
    line: u64,
    lines: u64,
}

/// A line of it.
#[derive(Clone, Copy)]
pub struct Line<'a> {
    table: &'a Table,
}

/// Reads a file whole; the sum (SHA-256, hex) is over the bytes as they lie on the disk.
pub fn read(path: &Path) -> Result<(Vec<u8>, String), BadInput> {
    let file = path.display().to_string();
    let bad = |what: String| BadInput::File { file: file.clone(), what };
    let opened = File::open(path).map_err(|error| bad(format!("{error}: a readable file expected")))?;
    let size = opened.metadata().map_err(|error| bad(error.to_string()))?;
    if !size.is_file() {
        return Err(bad("a folder or device given, a file expected".to_owned()));
    }
    if size.len() > LARGEST_FILE {
        return Err(bad(format!(
            "{} bytes given, at most {LARGEST_FILE} expected: cut the trace into parts",
            size.len()
        )));
    }
    let mut bytes = Vec::new();
    opened.take(LARGEST_FILE).read_to_end(&mut bytes).map_err(|error| bad(error.to_string()))?;
    let sum = hex(&Sha256::digest(&bytes));
    Ok((bytes, sum))
}

/// Bytes as people compare them.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// A text with bounds: an error, not a silent end, where it is too long, or one line of it is.
struct Bounded<R> {
    text: R,
    /// Bytes in all.
    all: u64,
    /// Bytes since a line was read to its end.
    line: Rc<Cell<u64>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.text.read(out)?;
        self.all += n as u64;
        self.line.set(self.line.get() + n as u64);
        if self.line.get() > LONGEST_LINE + AHEAD as u64 {
            return Err(io::Error::other(format!("a line of more than {LONGEST_LINE} bytes")));
        }
        if self.all > LARGEST_TEXT {
            return Err(io::Error::other(format!("more than {LARGEST_TEXT} bytes")));
        }
        Ok(n)
    }
}

/// Unpacks what begins as gzip or zstd does.
fn unpacked(bytes: Vec<u8>) -> io::Result<Box<dyn Read>> {
    let bytes = io::Cursor::new(bytes);
    Ok(match bytes.get_ref().as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::stream::read::Decoder::new(bytes)?),
        _ => Box::new(bytes),
    })
}

impl Table {
    /// Begins to read; `columns` must all be there, but for the last `optional` ones. Others are ignored.
    pub fn new(
        file: &str,
        bytes: Vec<u8>,
        columns: &'static [&'static str],
        optional: usize,
    ) -> Result<Self, BadInput> {
        let bad = |what: String| BadInput::File { file: file.to_owned(), what };
        let text = unpacked(bytes).map_err(|error| bad(format!("not a zstd file: {error}")))?;
        let since = Rc::new(Cell::new(0));
        let text = Bounded { text, all: 0, line: Rc::clone(&since) };
        let reader =
            csv::ReaderBuilder::new().has_headers(false).flexible(true).buffer_capacity(AHEAD).from_reader(text);
        let mut table = Self {
            file: file.to_owned(),
            reader,
            since,
            record: ByteRecord::new(),
            places: Vec::new(),
            columns,
            cells: 0,
            line: 0,
            lines: 0,
        };
        if !table.advance()? {
            return Err(bad(format!("empty, a header expected: {}", columns.join(","))));
        }
        table.cells = table.record.len();
        let names: Vec<String> = table
            .record
            .iter()
            .map(|cell| String::from_utf8_lossy(cell).trim_start_matches('\u{feff}').to_owned())
            .collect();
        for (at, name) in names.iter().enumerate() {
            if columns.contains(&name.as_str()) && names[..at].contains(name) {
                return Err(table.at_line(format!("column {name} is there twice, once expected")));
            }
        }
        table.places = columns.iter().map(|column| names.iter().position(|name| name == column)).collect();
        let demanded = &columns[..columns.len() - optional];
        let missing = demanded.iter().zip(&table.places).find(|(_, place)| place.is_none());
        if let Some((missing, _)) = missing {
            return Err(table.at_line(format!("column {missing} is missing: {} expected", columns.join(","))));
        }
        Ok(table)
    }

    fn at_line(&self, what: String) -> BadInput {
        BadInput::Line { file: self.file.clone(), line: self.line, what }
    }

    fn advance(&mut self) -> Result<bool, BadInput> {
        self.line = self.reader.position().line();
        match self.reader.read_byte_record(&mut self.record) {
            Ok(more) => {
                self.since.set(0);
                if more {
                    self.line = self.record.position().map_or(self.line, csv::Position::line);
                    self.lines += 1;
                }
                if self.lines > MOST_LINES {
                    return Err(
                        self.at_line(format!("more than {MOST_LINES} lines, fewer expected: cut the trace into parts"))
                    );
                }
                Ok(more)
            }
            Err(error) => {
                Err(self.at_line(format!("cannot be read: {error}; a whole file expected, this one may be cut off")))
            }
        }
    }

    /// The next line; `None` at the end.
    pub fn next_line(&mut self) -> Result<Option<Line<'_>>, BadInput> {
        if !self.advance()? {
            return Ok(None);
        }
        if self.record.len() != self.cells {
            let given = self.record.len();
            let what =
                format!("{given} cells given, {} expected as in the header; the file may be cut off", self.cells);
            return Err(self.at_line(what));
        }
        Ok(Some(Line { table: self }))
    }
}

impl<'a> Line<'a> {
    /// An error of this line.
    pub fn wrong(self, what: String) -> BadInput {
        self.table.at_line(what)
    }

    /// An error of a cell.
    pub fn wrong_cell(self, column: usize, what: String) -> BadInput {
        let column = self.table.columns[column].to_owned();
        BadInput::Cell { file: self.table.file.clone(), line: self.table.line, column, what }
    }

    /// Text of a cell, by the column's place in the list of known ones; empty when the column is not there.
    pub fn text(self, column: usize) -> Result<&'a str, BadInput> {
        let Some(place) = self.table.places[column] else { return Ok("") };
        let bytes = self.table.record.get(place).unwrap_or_default();
        if bytes.len() > LONGEST_CELL {
            return Err(
                self.wrong_cell(column, format!("{} bytes given, at most {LONGEST_CELL} expected", bytes.len()))
            );
        }
        std::str::from_utf8(bytes)
            .map_err(|_| self.wrong_cell(column, format!("'{}' given, UTF-8 expected", bytes.escape_ascii())))
    }

    /// A name: not empty, no control characters, at most 200 bytes.
    pub fn name(self, column: usize) -> Result<&'a str, BadInput> {
        let text = self.text(column)?;
        if text.is_empty() || text.len() > 200 || text.chars().any(char::is_control) {
            let shown: String = text.chars().take(40).collect();
            return Err(
                self.wrong_cell(column, format!("'{}' given, a name of 1 to 200 bytes expected", shown.escape_debug()))
            );
        }
        Ok(text)
    }

    /// A whole number up to `most`; `None` for an empty cell.
    pub fn whole(self, column: usize, most: u64) -> Result<Option<u64>, BadInput> {
        let text = self.text(column)?;
        if text.is_empty() {
            return Ok(None);
        }
        match text.parse::<u64>() {
            Ok(number) if number <= most => Ok(Some(number)),
            _ => {
                Err(self
                    .wrong_cell(column, format!("'{}' given, a whole number from 0 to {most} expected", shown(text))))
            }
        }
    }

    /// A decimal number with up to three places, in thousandths, of at most `most` whole ones; `None` for an empty cell.
    pub fn thousandths(self, column: usize, most: u64) -> Result<Option<u64>, BadInput> {
        let text = self.text(column)?;
        if text.is_empty() {
            return Ok(None);
        }
        let read = || {
            let (whole, places) = text.split_once('.').unwrap_or((text, ""));
            let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            let good = !whole.is_empty()
                && digits(whole)
                && digits(places)
                && (places.len() <= 3 || places[3..].bytes().all(|b| b == b'0'));
            let places = format!("{places:0<3}");
            let number = whole.parse::<u64>().ok().filter(|whole| good && *whole <= most)?;
            Some(number * 1000 + places[..3].parse::<u64>().ok()?)
        };
        let expected = format!("a number from 0 to {most} with at most three decimals expected");
        read().map(Some).ok_or_else(|| self.wrong_cell(column, format!("'{}' given, {expected}", shown(text))))
    }

    /// What a demanded cell holds.
    pub fn given<T>(self, column: usize, value: Option<T>) -> Result<T, BadInput> {
        value.ok_or_else(|| self.wrong_cell(column, "empty, a value expected".to_owned()))
    }
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect::<String>().escape_debug().to_string()
}
