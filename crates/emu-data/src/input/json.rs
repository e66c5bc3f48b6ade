//! JSON: lists that are read element by element, lines, single objects.

use std::io::{BufRead, Read};
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde_json::Value as Json;

use super::{Row, Value, text};
use crate::DataError;
use crate::build::{Halt, Skip};

/// Longest line that is read.
const MAX_LINE: u64 = 256 << 20;

/// Every element of a JSON list, every line of JSON lines, or every object of a file of several. Nothing but one element is
/// in memory at a time.
pub(crate) fn rows(path: &Path, each: &mut dyn FnMut(Row) -> Result<(), Halt>) -> Result<(), Halt> {
    let mut reader = text::open(path)?;
    let first = first_byte(&mut reader, path)?;
    let lines = matches!(
        super::kind_of(&text::without_gz(path)).as_str(),
        "jsonl" | "ndjson"
    );
    match first {
        None => Ok(()),
        Some(b'[') if !lines => list(reader, each),
        Some(_) if lines => self::lines(reader, path, each),
        Some(_) => objects(reader, each),
    }
}

/// The first byte that is no white space, which stays in the reader.
fn first_byte(reader: &mut impl BufRead, path: &Path) -> Result<Option<u8>, DataError> {
    loop {
        let buffer = reader.fill_buf().map_err(DataError::io("read", path))?;
        if buffer.is_empty() {
            return Ok(None);
        }
        let spaces = buffer.iter().take_while(|byte| byte.is_ascii_whitespace());
        let spaces = spaces.count();
        if let Some(byte) = buffer.get(spaces) {
            let byte = *byte;
            reader.consume(spaces);
            return Ok(Some(byte));
        }
        reader.consume(spaces);
    }
}

fn lines(
    mut reader: impl BufRead,
    path: &Path,
    each: &mut dyn FnMut(Row) -> Result<(), Halt>,
) -> Result<(), Halt> {
    let mut number = 0;
    loop {
        let mut line = vec![];
        let read = (&mut reader)
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .map_err(DataError::io("read", path))?;
        if read == 0 {
            return Ok(());
        }
        number += 1;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let value = serde_json::from_slice::<Json>(&line)
            .map(Value::from)
            .map_err(|error| Skip::new("line is no JSON", error));
        each(Row {
            place: format!("line {number}"),
            value,
        })?;
    }
}

fn objects(reader: impl Read, each: &mut dyn FnMut(Row) -> Result<(), Halt>) -> Result<(), Halt> {
    let stream = serde_json::Deserializer::from_reader(reader).into_iter::<Json>();
    for (i, value) in stream.enumerate() {
        let broken = value.is_err();
        let value = value
            .map(Value::from)
            .map_err(|error| Skip::new("JSON is damaged or cut short", error));
        each(Row {
            place: format!("object {i}"),
            value,
        })?;
        if broken {
            break;
        }
    }
    Ok(())
}

fn list(reader: impl Read, each: &mut dyn FnMut(Row) -> Result<(), Halt>) -> Result<(), Halt> {
    struct Elements<'e> {
        each: &'e mut dyn FnMut(Row) -> Result<(), Halt>,
        count: usize,
        halt: Option<Halt>,
    }
    impl<'de> Visitor<'de> for &mut Elements<'_> {
        type Value = ();
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
            while let Some(element) = elements.next_element::<Json>()? {
                let row = Row {
                    place: format!("element {}", self.count),
                    value: Ok(element.into()),
                };
                self.count += 1;
                if let Err(halt) = (self.each)(row) {
                    self.halt = Some(halt);
                    return Err(A::Error::custom("stopped"));
                }
            }
            Ok(())
        }
    }
    impl<'de> DeserializeSeed<'de> for &mut Elements<'_> {
        type Value = ();
        fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
            from.deserialize_seq(self)
        }
    }
    let mut elements = Elements {
        each,
        count: 0,
        halt: None,
    };
    let mut from = serde_json::Deserializer::from_reader(reader);
    let read = (&mut elements).deserialize(&mut from);
    match (elements.halt.take(), read) {
        (Some(halt), _) => Err(halt),
        (None, Ok(())) => Ok(()),
        (None, Err(error)) => (elements.each)(Row {
            place: format!("element {}", elements.count),
            value: Err(Skip::new("JSON is damaged or cut short", error)),
        }),
    }
}

/// The names of the fields of the object that a JSON file begins with; `None` if it begins with something else. For a large
/// object its first names are enough, so a damaged rest is not noticed.
pub(crate) fn first_object(path: &Path) -> Result<Option<Vec<String>>, DataError> {
    use serde::de::{IgnoredAny, MapAccess};
    struct Names<'n>(&'n mut Vec<String>);
    impl<'de> Visitor<'de> for Names<'_> {
        type Value = ();
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
            while let Some(name) = fields.next_key()? {
                self.0.push(name);
                fields.next_value::<IgnoredAny>()?;
            }
            Ok(())
        }
    }
    let mut reader = text::open(path)?;
    if first_byte(&mut reader, path)? != Some(b'{') {
        return Ok(None);
    }
    let mut names = vec![];
    let mut from = serde_json::Deserializer::from_reader(reader);
    let _ = from.deserialize_map(Names(&mut names));
    Ok(Some(names))
}
