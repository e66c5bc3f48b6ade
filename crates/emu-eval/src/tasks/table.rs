//! Tables: CSV, TSV and JSONL with named columns.

use std::collections::HashMap;
use std::path::Path;

use super::error::EvalError;
use super::files::read_text;

/// A table whose cells are texts; a null or absent cell is `None`.
pub struct Table {
    columns: HashMap<String, usize>,
    rows: Vec<Vec<Option<String>>>,
}

/// A row of a [`Table`].
pub struct Row<'a> {
    table: &'a Table,
    cells: &'a [Option<String>],
}

impl Row<'_> {
    /// The cell of a column.
    pub fn get(&self, column: &str) -> Option<&str> {
        let at = *self.table.columns.get(column)?;
        self.cells.get(at)?.as_deref()
    }
}

impl Table {
    /// Reads a `.tsv` or `.jsonl` file by its ending, any other as CSV. Quotes, embedded line breaks, CRLF and a byte order
    /// mark are handled.
    ///
    /// # Errors
    /// If the file cannot be read or a row does not have the columns of the header.
    pub fn read(path: &Path, what: &'static str) -> Result<Self, EvalError> {
        let text = read_text(path, what)?;
        let fault = |reason: String| EvalError::Layout {
            path: path.to_owned(),
            what,
            reason,
        };
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("jsonl") => Self::jsonl(&text).map_err(fault),
            Some("tsv") => Self::csv(&text, b'\t').map_err(fault),
            _ => Self::csv(&text, b',').map_err(fault),
        }
    }

    fn csv(text: &str, separator: u8) -> Result<Self, String> {
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(separator)
            .from_reader(text.as_bytes());
        let header = reader.headers().map_err(|error| error.to_string())?;
        let mut columns = HashMap::new();
        for (i, name) in header.iter().enumerate() {
            if columns.insert(name.trim().to_owned(), i).is_some() {
                return Err(format!("the column {name:?} occurs twice"));
            }
        }
        let mut rows = vec![];
        for row in reader.records() {
            let row = row.map_err(|error| error.to_string())?;
            rows.push(row.iter().map(|cell| Some(cell.to_owned())).collect());
        }
        Ok(Self { columns, rows })
    }

    fn jsonl(text: &str) -> Result<Self, String> {
        let mut columns: HashMap<String, usize> = HashMap::new();
        let mut rows = vec![];
        for (i, line) in text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
        {
            let object: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(line).map_err(|error| format!("line {}: {error}", i + 1))?;
            let mut cells = vec![];
            for (name, value) in object {
                let next = columns.len();
                let at = *columns.entry(name).or_insert(next);
                if cells.len() <= at {
                    cells.resize(at + 1, None);
                }
                cells[at] = match value {
                    serde_json::Value::Null => None,
                    serde_json::Value::String(text) => Some(text),
                    other => Some(other.to_string()),
                };
            }
            rows.push(cells);
        }
        Ok(Self { columns, rows })
    }

    /// Whether there is such a column.
    pub fn has(&self, column: &str) -> bool {
        self.columns.contains_key(column)
    }

    /// Checks that there is such a column.
    pub fn require(&self, column: &str, path: &Path, what: &'static str) -> Result<(), EvalError> {
        if self.has(column) {
            return Ok(());
        }
        Err(EvalError::Layout {
            path: path.to_owned(),
            what,
            reason: format!("it has no column {column}"),
        })
    }

    /// All rows in order.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|cells| Row { table: self, cells })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(table: &Table, column: &str) -> Vec<Option<String>> {
        table
            .rows()
            .map(|row| row.get(column).map(str::to_owned))
            .collect()
    }

    #[test]
    fn csv_has_quotes_line_breaks_and_crlf() {
        let table = Table::csv("a,b\r\n1,\"x, \"\"y\"\"\nz\"\r\n2,\r\n", b',').expect("table");
        assert_eq!(cells(&table, "a"), [Some("1".into()), Some("2".into())]);
        assert_eq!(
            cells(&table, "b"),
            [Some("x, \"y\"\nz".into()), Some(String::new())]
        );
        assert!(!table.has("c"));
        assert!(Table::csv("a,b\n1\n", b',').is_err());
        assert!(Table::csv("a,a\n1,2\n", b',').is_err());
    }

    #[test]
    fn jsonl_has_nulls_numbers_and_absent_cells() {
        let table = Table::jsonl("{\"a\": 1, \"b\": null}\n\n{\"b\": \"x\"}\n").expect("table");
        assert_eq!(cells(&table, "a"), [Some("1".into()), None]);
        assert_eq!(cells(&table, "b"), [None, Some("x".into())]);
        let error = Table::jsonl("{\"a\": 1}\n{\"a\"").err().expect("cut off");
        assert!(error.starts_with("line 2"), "{error}");
    }
}
