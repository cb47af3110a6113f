//! Parquet, by the crate's own column writers, without Arrow. All columns are optional; units and meanings are in the file's
//! key-value metadata, as `unit.NAME` and `means.NAME`.

use std::fmt::Write;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;

use super::{Cell, Kind, Sheet};

/// Rows of a row group.
const GROUP: usize = 1 << 20;

impl Sheet {
    /// As a Parquet file.
    pub fn parquet(&self) -> Result<Vec<u8>, String> {
        self.write().map_err(|error| format!("a table could not be written as Parquet: {error}"))
    }

    fn write(&self) -> Result<Vec<u8>, ParquetError> {
        let mut schema = "message sheet {".to_owned();
        let mut facts = Vec::new();
        for column in self.columns {
            let (name, kind) = match column.kind {
                Kind::Number => (column.name, "DOUBLE"),
                Kind::Whole => (column.name, "INT64"),
                Kind::Text => (column.name, "BYTE_ARRAY"),
            };
            let text = if column.kind == Kind::Text { " (UTF8)" } else { "" };
            let _ = write!(schema, " OPTIONAL {kind} {name}{text};");
            for (key, value) in [("unit", column.unit), ("means", column.means)] {
                facts.push(KeyValue::new(format!("{key}.{name}"), value.to_owned()));
            }
        }
        schema.push_str(" }");
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by(format!("pallium {}", env!("CARGO_PKG_VERSION")))
            .set_key_value_metadata(Some(facts));
        let schema = Arc::new(parse_message_type(&schema)?);
        let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties.build()))?;
        for rows in self.rows.chunks(GROUP) {
            let mut group = writer.next_row_group()?;
            for (at, column) in self.columns.iter().enumerate() {
                let Some(mut out) = group.next_column()? else { break };
                let cells = rows.iter().map(|row| &row[at]);
                match column.kind {
                    Kind::Number => put::<DoubleType>(&mut out, cells, |cell| match cell {
                        Cell::Number(number) => *number,
                        _ => None,
                    })?,
                    Kind::Whole => put::<Int64Type>(&mut out, cells, |cell| match cell {
                        Cell::Whole(number) => i64::try_from(*number).ok(),
                        _ => None,
                    })?,
                    Kind::Text => put::<ByteArrayType>(&mut out, cells, |cell| match cell {
                        Cell::Text(text) => Some(ByteArray::from(text.as_str())),
                        _ => None,
                    })?,
                }
                out.close()?;
            }
            group.close()?;
        }
        writer.into_inner()
    }
}

/// Writes the cells of one column; `None` is an empty one.
fn put<'a, T: DataType>(
    out: &mut SerializedColumnWriter<'_>,
    cells: impl Iterator<Item = &'a Cell>,
    value: impl Fn(&Cell) -> Option<T::T>,
) -> Result<(), ParquetError> {
    let cells: Vec<Option<T::T>> = cells.map(value).collect();
    let levels: Vec<i16> = cells.iter().map(|cell| i16::from(cell.is_some())).collect();
    let values: Vec<T::T> = cells.into_iter().flatten().collect();
    out.typed::<T>().write_batch(&values, Some(&levels[..]), None)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;

    use super::super::{Cell, SERIES, Sheet};

    /// What is read back is what CSV says, empty cells included, and equal tables give equal bytes.
    #[test]
    fn read_back() {
        let row = |time: f64, policy: &str, gpu: Option<f64>, slots: u64| {
            let share = |value: f64| Cell::Number(Some(value));
            vec![
                share(time),
                Cell::Text(policy.to_owned()),
                Cell::Whole(7),
                share(0.625),
                share(1.0 / 3.0),
                Cell::Number(gpu),
                share(0.0),
                share(slots as f64),
                Cell::Whole(u64::from(u32::MAX) + 1),
                Cell::Whole(0),
            ]
        };
        let rows = vec![row(0.0, "best-fit", None, 3), row(300.5, "a, \"b\"", Some(0.1), 4), row(1e9, "ü", None, 0)];
        let sheet = Sheet { columns: SERIES, rows };
        let bytes = sheet.parquet().expect("written");
        assert_eq!(bytes, sheet.parquet().expect("written again"));
        let reader = SerializedFileReader::new(Bytes::from(bytes)).expect("a Parquet file");
        let facts = reader.metadata().file_metadata().key_value_metadata().expect("facts");
        assert!(facts.iter().any(|fact| fact.key == "unit.u_cpu" && fact.value.as_deref() == Some("share")));
        let text = sheet.csv();
        let mut csv = csv::Reader::from_reader(text.as_bytes());
        let lines: Vec<csv::StringRecord> = csv.records().map(|line| line.expect("a line")).collect();
        let rows: Vec<_> = reader.get_row_iter(None).expect("rows").map(|row| row.expect("a row")).collect();
        assert_eq!(rows.len(), lines.len());
        for (row, line) in rows.iter().zip(&lines) {
            for ((name, field), text) in row.get_column_iter().zip(line) {
                let read = match field {
                    Field::Null => String::new(),
                    Field::Double(number) => number.to_string(),
                    Field::Long(number) => number.to_string(),
                    Field::Str(text) => text.clone(),
                    other => format!("{other:?}"),
                };
                assert_eq!(read, text, "{name}");
            }
        }
    }
}
