//! Tables: CSV, TSV, JSON lines, JSON lists, parquet, also packed as `.gz`.

use std::io::{BufRead, Read};
use std::path::Path;

use super::{Row, Value, json, kind_of, parquet, text};
use crate::DataError;
use crate::build::{Halt, Skip};

/// Longest line of a TSV.
const MAX_LINE: u64 = 64 << 20;

/// Whether a file is a table, by its extension.
pub(crate) fn is_table(path: &Path) -> bool {
    matches!(
        kind_of(&text::without_gz(path)).as_str(),
        "csv" | "tsv" | "jsonl" | "ndjson" | "json" | "parquet"
    )
}

/// Every row of a table. With `numbered`, the first line of a CSV or TSV is a row like the others, and the columns are
/// called `1`, `2`, ...
pub(crate) fn rows(
    path: &Path,
    numbered: bool,
    each: &mut dyn FnMut(Row) -> Result<(), Halt>,
) -> Result<(), Halt> {
    match kind_of(&text::without_gz(path)).as_str() {
        "csv" => csv(path, numbered, each),
        "tsv" | "txt" => tsv(path, numbered, each),
        "parquet" => parquet::rows(path, each),
        _ => json::rows(path, each),
    }
}

/// The names of the columns of a CSV or TSV; `None` for other tables.
pub(crate) fn columns(path: &Path) -> Result<Option<Vec<String>>, DataError> {
    let kind = kind_of(&text::without_gz(path));
    if !matches!(kind.as_str(), "csv" | "tsv" | "txt") {
        return Ok(None);
    }
    let mut names = None;
    let read = rows(path, true, &mut |row| {
        if let Ok(Value::Map(fields)) = row.value {
            let texts = fields.iter().filter_map(|(_, value)| value.text());
            names = Some(texts.collect());
        }
        Err(Halt::Enough)
    });
    match read {
        Ok(()) | Err(Halt::Enough) => Ok(Some(names.unwrap_or_default())),
        Err(Halt::Error(error)) => Err(error),
    }
}

/// Gives the cells of a line their names.
struct Header {
    numbered: bool,
    names: Option<Vec<String>>,
}

impl Header {
    /// The row of a line; `None` for the header itself.
    fn row(&mut self, cells: Vec<String>) -> Option<Result<Value, Skip>> {
        if self.numbered {
            let cells = cells.into_iter().enumerate();
            let fields = cells.map(|(i, cell)| ((i + 1).to_string(), Value::Text(cell)));
            return Some(Ok(Value::Map(fields.collect())));
        }
        let Some(names) = &self.names else {
            let names = cells.iter().map(|name| name.trim().to_string());
            self.names = Some(names.collect());
            return None;
        };
        if cells.len() > names.len() {
            let detail = format!("{} instead of {}", cells.len(), names.len());
            return Some(Err(Skip::new(
                "line has more columns than the header",
                detail,
            )));
        }
        let cells = cells.into_iter().map(Value::Text);
        let fields = names.iter().cloned().zip(cells);
        Some(Ok(Value::Map(fields.collect())))
    }
}

fn csv(
    path: &Path,
    numbered: bool,
    each: &mut dyn FnMut(Row) -> Result<(), Halt>,
) -> Result<(), Halt> {
    let mut reader = text::open(path)?;
    let mut line = vec![];
    let read = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line);
    if let Err(error) = read {
        return Err(cut(path, error, each));
    }
    let has = |delimiter: u8| line.contains(&delimiter);
    let delimiter = match (has(b','), has(b';'), has(b'\t')) {
        (false, true, _) => b';',
        (false, false, true) => b'\t',
        _ => b',',
    };
    // Between records, the line break of `\r\n` is not counted yet.
    let uncounted = u64::from(line.ends_with(b"\r\n"));
    let mut reader = ::csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .from_reader(std::io::Cursor::new(line).chain(reader));
    let mut header = Header {
        numbered,
        names: None,
    };
    for record in reader.byte_records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => match error.into_kind() {
                ::csv::ErrorKind::Io(error) => return Err(cut(path, error, each)),
                kind => {
                    let error = DataError::malformed(path, format!("{kind:?}"));
                    return Err(error.into());
                }
            },
        };
        let place = record
            .position()
            .map_or(0, |position| match position.byte() {
                0 => position.line(),
                _ => position.line() + uncounted,
            });
        let cells: Result<Vec<String>, _> = record
            .iter()
            .map(|cell| String::from_utf8(cell.to_vec()))
            .collect();
        let value = match cells {
            Ok(cells) => header.row(cells),
            Err(error) => Some(Err(Skip::new("line is not UTF-8", error))),
        };
        if let Some(value) = value {
            let place = format!("line {place}");
            each(Row { place, value })?;
        }
    }
    Ok(())
}

/// Lines of cells between tabs. A cell in quotes is unquoted; quotes within a cell are text, as in CC3M's lists.
fn tsv(
    path: &Path,
    numbered: bool,
    each: &mut dyn FnMut(Row) -> Result<(), Halt>,
) -> Result<(), Halt> {
    let mut reader = text::open(path)?;
    let mut header = Header {
        numbered,
        names: None,
    };
    let mut number = 0;
    loop {
        let mut line = vec![];
        let read = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line);
        match read {
            Ok(0) => return Ok(()),
            Ok(_) => number += 1,
            Err(error) => return Err(cut(path, error, each)),
        }
        let value = match String::from_utf8(line) {
            Ok(line) => match line.trim_end_matches(['\n', '\r']) {
                "" => continue,
                line => header.row(line.split('\t').map(unquoted).collect()),
            },
            Err(error) => Some(Err(Skip::new("line is not UTF-8", error))),
        };
        if let Some(value) = value {
            let place = format!("line {number}");
            each(Row { place, value })?;
        }
    }
}

fn unquoted(cell: &str) -> String {
    match cell
        .strip_prefix('"')
        .and_then(|cell| cell.strip_suffix('"'))
    {
        Some(inner) => inner.replace("\"\"", "\""),
        None => cell.to_string(),
    }
}

/// What to do about a file that cannot be read further. A packed file that is cut short keeps the rows before.
fn cut(path: &Path, error: std::io::Error, each: &mut dyn FnMut(Row) -> Result<(), Halt>) -> Halt {
    if kind_of(path) != "gz" {
        return DataError::io("read", path)(error).into();
    }
    let row = Row {
        place: "end".into(),
        value: Err(Skip::new("file is damaged or cut short", error)),
    };
    each(row).err().unwrap_or(Halt::Enough)
}
