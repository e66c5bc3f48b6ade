//! Rows of parquet files.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row as ParquetRow};
use serde_json::Number;

use super::{Row, Value};
use crate::DataError;
use crate::build::{Halt, Skip};

/// Every row, over all row groups. Damage ends the rows; those before it are used.
pub(super) fn rows(path: &Path, each: &mut dyn FnMut(Row) -> Result<(), Halt>) -> Result<(), Halt> {
    let file = File::open(path).map_err(DataError::io("open", path))?;
    let opened = guarded(|| SerializedFileReader::new(file).map_err(|error| error.to_string()));
    let reader = opened.map_err(|error| DataError::malformed(path, error))?;
    let mut first = 0;
    for group in 0..reader.num_row_groups() {
        let count = reader.metadata().row_group(group).num_rows();
        let count = usize::try_from(count).unwrap_or_default();
        let opened = guarded(|| {
            reader
                .get_row_group(group)
                .map_err(|error| error.to_string())
        });
        let read = opened.and_then(|group| {
            // The group is borrowed by its rows, so both live in this closure.
            let rows = guarded(|| group.get_row_iter(None).map_err(|error| error.to_string()));
            let mut rows = match rows {
                Ok(rows) => rows,
                Err(error) => return Err(error),
            };
            for i in 0..count {
                let row = guarded(|| rows.next().transpose().map_err(|error| error.to_string()))?;
                let Some(row) = row else {
                    return Err(format!("{i} of {count} rows are there"));
                };
                let place = format!("row {}", first + i);
                let value = Ok(map(&row));
                if let Err(halt) = each(Row { place, value }) {
                    return Ok(Some(halt));
                }
            }
            Ok(None)
        });
        match read {
            Ok(None) => {}
            Ok(Some(halt)) => return Err(halt),
            Err(error) => each(Row {
                place: format!("row group {group}"),
                value: Err(Skip::new("parquet file is damaged or cut short", error)),
            })?,
        }
        first += count;
    }
    Ok(())
}

/// Runs a call of the parquet library, which panics on some damaged files.
fn guarded<T>(call: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err("its contents contradict themselves".into()))
}

fn map(row: &ParquetRow) -> Value {
    let fields = row.get_column_iter();
    Value::Map(
        fields
            .map(|(name, field)| (name.clone(), value(field)))
            .collect(),
    )
}

fn value(field: &Field) -> Value {
    let float = |number: f64| Number::from_f64(number).map_or(Value::Null, Value::Number);
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => Value::Bool(*value),
        Field::Byte(number) => Value::Number((*number).into()),
        Field::Short(number) => Value::Number((*number).into()),
        Field::Int(number) => Value::Number((*number).into()),
        Field::Long(number) => Value::Number((*number).into()),
        Field::UByte(number) => Value::Number((*number).into()),
        Field::UShort(number) => Value::Number((*number).into()),
        Field::UInt(number) => Value::Number((*number).into()),
        Field::ULong(number) => Value::Number((*number).into()),
        Field::Float16(number) => float(number.to_f64()),
        Field::Float(number) => float((*number).into()),
        Field::Double(number) => float(*number),
        Field::Str(text) => Value::Text(text.clone()),
        Field::Bytes(bytes) => Value::Bytes(Arc::from(bytes.data())),
        Field::Group(row) => map(row),
        Field::ListInternal(list) => Value::List(list.elements().iter().map(value).collect()),
        Field::MapInternal(entries) => Value::Map(
            entries
                .entries()
                .iter()
                .filter_map(|(key, field)| Some((value(key).text()?, value(field))))
                .collect(),
        ),
        // dates, times, decimals
        other => Value::Text(other.to_string()),
    }
}
