//! Tables of pictures and captions, parquet with the pictures inside among them.

use std::path::Path;

use super::options::{Item, Pairs};
use crate::DataError;
use crate::build::{Feed, Halt, Skip};
use crate::input::{
    Bases, Blob, CAPTION_FIELDS, Downloads, IMAGE_FIELDS, Value, columns, kind_of, name_in, rows,
    walk,
};

impl Pairs<'_> {
    /// Parquet files with the pictures inside.
    pub(super) fn parquet(&self, feed: &mut Feed<Item>) -> Result<(), Halt> {
        for path in walk(&self.options.source)? {
            if kind_of(&path) == "parquet" {
                self.table(&path, feed)?;
            }
        }
        Ok(())
    }

    /// A list of paths and captions.
    pub(super) fn table(&self, path: &Path, feed: &mut Feed<Item>) -> Result<(), Halt> {
        let options = self.options;
        let name = name_in(&options.source, path);
        let numbered = self.numbered(path)?;
        let bases = Bases::new(options.images.as_deref(), path);
        rows(path, numbered, &mut |row| {
            let source = format!("{name} {}", row.place);
            let fields = match row.value {
                Ok(fields) => fields,
                Err(skip) => return feed.skip(source, skip),
            };
            let picture = self.picture(&fields, &bases);
            let field = options.captions.field.as_deref();
            let captions = match fields.chosen(field, CAPTION_FIELDS) {
                Some(value) => value.texts(),
                None => {
                    let known = field.map_or_else(
                        || CAPTION_FIELDS.iter().any(|name| fields.has(name)),
                        |name| fields.has(name),
                    );
                    if !known {
                        return feed.skip(source, Skip::new("no caption field", fields.names()));
                    }
                    vec![]
                }
            };
            self.yield_pair(feed, &source, Some(&fields), captions, picture)
        })
    }

    /// Whether a CSV or TSV has no header line: the chosen columns are numbers.
    ///
    /// # Errors
    /// If it seems to have none, and columns are not chosen.
    fn numbered(&self, path: &Path) -> Result<bool, DataError> {
        let options = self.options;
        let chosen = [&options.image_field, &options.captions.field];
        if chosen.iter().any(|field| {
            field
                .as_ref()
                .is_some_and(|name| name.parse::<usize>().is_ok())
        }) {
            return Ok(true);
        }
        let Some(names) = columns(path)? else {
            return Ok(false);
        };
        let mut known = IMAGE_FIELDS.iter().chain(CAPTION_FIELDS).copied();
        let mut asked = chosen.iter().filter_map(|field| field.as_deref());
        let is = |name: &str| {
            names
                .iter()
                .any(|other| other.trim().eq_ignore_ascii_case(name))
        };
        if known.any(is) || asked.any(is) || names.is_empty() {
            return Ok(false);
        }
        Err(DataError::Source {
            kind: "pairs",
            path: path.to_path_buf(),
            message: format!(
                "its first line ({}) names no known column. Name the columns with --image-field and --caption-field; where there is no header line, name them by number (--caption-field 1 --image-field 2)",
                names.join(", ")
            ),
        })
    }

    /// The picture of a row.
    fn picture(&self, fields: &Value, bases: &Bases) -> Result<Blob, Skip> {
        // img2dataset lists what it could not download too
        let status = fields.text_of("status").unwrap_or_default();
        if status.starts_with("failed") {
            return Err(Skip::new("no picture", format!("status {status}")));
        }
        let field = self.options.image_field.as_deref();
        let Some(value) = fields.chosen(field, IMAGE_FIELDS) else {
            return Err(match field {
                Some(name) if !fields.has(name) => {
                    Skip::new(format!("no field {name:?}"), fields.names())
                }
                None if !IMAGE_FIELDS.iter().any(|name| fields.has(name)) => {
                    Skip::new("no picture field", fields.names())
                }
                _ => Skip::new("no picture", "its field is null"),
            });
        };
        picture_of(value, bases, &self.downloads)
    }
}

/// The picture that a value is or names: bytes, `bytes` or `path` of an object, a path, a URL.
pub(crate) fn picture_of(
    value: &Value,
    bases: &Bases,
    downloads: &Downloads,
) -> Result<Blob, Skip> {
    match value {
        Value::Bytes(bytes) => Ok(Blob::Bytes(bytes.clone())),
        Value::Map(_) => match (value.field("bytes"), value.text_of("path")) {
            (Some(Value::Bytes(bytes)), _) => Ok(Blob::Bytes(bytes.clone())),
            (_, Some(path)) => bases
                .blob(&path)
                .ok_or_else(|| Skip::new("picture file not found", path)),
            _ => Err(Skip::new("no picture", "its bytes and its path are null")),
        },
        Value::List(_) => Err(Skip::new(
            "several pictures to one caption",
            "build documents or conversations of them",
        )),
        other => {
            let Some(name) = other.text() else {
                return Err(Skip::new("no picture", "its field is no text"));
            };
            let by_url = downloads.get(&name);
            if let Some(blob) = by_url.or_else(|| bases.blob(&name)) {
                return Ok(blob);
            }
            Err(match name.contains("://") {
                true => Skip::new(
                    "picture is a URL that is not downloaded (name img2dataset's folder with --images)",
                    name,
                ),
                false => Skip::new(
                    "picture file not found",
                    format!("{name} in {}", bases.names()),
                ),
            })
        }
    }
}
