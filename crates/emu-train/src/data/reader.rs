//! Reading WebDataset shards in place: members are indexed by offset, never extracted.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::record::Record;
use super::{DataError, Picture};

/// Bounds on what a shard may ask of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest member in bytes.
    pub member_bytes: u64,
    /// Largest side of a picture in pixels.
    pub picture_side: u32,
    /// Most pictures in one sample.
    pub pictures: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            member_bytes: 64 << 20,
            picture_side: 8192,
            pictures: 256,
        }
    }
}

/// One sample, read and decoded.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Its key in the shard.
    pub key: String,
    /// Its JSON member; for samples with only a text member, `{"kind": "pair", "caption": TEXT}`.
    pub json: Value,
    /// Its pictures: the unnumbered one, or `0.png`, `1.png`, ... by number.
    pub images: Vec<Picture>,
}

impl Sample {
    /// The JSON member as a typed record.
    ///
    /// # Errors
    /// If it does not have the form of any [`Record`].
    pub fn record(&self) -> Result<Record, DataError> {
        serde_json::from_value(self.json.clone()).map_err(|error| DataError::Sample {
            path: PathBuf::new(),
            key: self.key.clone(),
            message: error.to_string(),
        })
    }
}

/// Shards opened for random access.
///
/// Members whose paths agree up to the first dot of the file name form one sample. Pictures are `png`, `jpg`, `jpeg`,
/// `webp` or `gif` members, text is `json` or `txt`; other members are ignored.
#[derive(Debug)]
pub struct ShardDataset {
    shards: Vec<Shard>,
    entries: Vec<Entry>,
    limits: Limits,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    file: Mutex<File>,
}

#[derive(Debug)]
struct Entry {
    shard: usize,
    key: String,
    text: Option<Span>,
    is_json: bool,
    images: Vec<(u32, Span)>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    offset: u64,
    bytes: u64,
}

impl ShardDataset {
    /// Opens a shard, or every `.tar` of a folder in order of name, with default [`Limits`].
    ///
    /// # Errors
    /// If there is no shard, or one cannot be read to its end.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DataError> {
        let path = path.as_ref();
        if path.is_file() {
            return Self::open_list(&[path], Limits::default());
        }
        Self::open_folder(path, "")
    }

    /// Opens only the shards of a folder that are named `KIND-*.tar`: `"draw"` opens `draw-00000.tar`,
    /// `draw-00001.tar` and so on, but not `drawings-00000.tar`.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_kind(folder: impl AsRef<Path>, kind: &str) -> Result<Self, DataError> {
        Self::open_folder(folder.as_ref(), &format!("{kind}-"))
    }

    fn open_folder(path: &Path, prefix: &str) -> Result<Self, DataError> {
        let mut shards = Vec::new();
        for entry in fs::read_dir(path).map_err(DataError::io("list", path))? {
            let file = entry.map_err(DataError::io("list", path))?.path();
            let matches = file
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with(prefix) && name.ends_with(".tar"));
            if matches {
                shards.push(file);
            }
        }
        shards.sort();
        if shards.is_empty() {
            return Err(DataError::NoShards(path.join(format!("{prefix}*.tar"))));
        }
        Self::open_list(&shards, Limits::default())
    }

    /// Opens these shards in this order.
    ///
    /// # Errors
    /// If the list is empty, a shard cannot be read to its end, a member is over the limit, or a sample has no text.
    pub fn open_list(paths: &[impl AsRef<Path>], limits: Limits) -> Result<Self, DataError> {
        let mut dataset = Self {
            shards: Vec::new(),
            entries: Vec::new(),
            limits,
        };
        for path in paths {
            dataset.add_shard(path.as_ref())?;
        }
        match paths.first() {
            None => Err(DataError::NoShards(PathBuf::new())),
            Some(path) if dataset.entries.is_empty() => {
                Err(DataError::NoShards(path.as_ref().to_path_buf()))
            }
            Some(_) => Ok(dataset),
        }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no samples; never true of an opened data set.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Reads a sample and decodes its pictures.
    ///
    /// # Errors
    /// If the index is out of range, the JSON or a picture is malformed, or the shard changed since it was opened.
    pub fn get(&self, index: usize) -> Result<Sample, DataError> {
        let entry = self.entry(index)?;
        let json = self.json_of(entry)?;
        let images = entry
            .images
            .iter()
            .map(|(_, span)| {
                Picture::decode(&self.read(entry, *span)?, self.limits.picture_side)
                    .map_err(|error| self.refuse(entry, error))
            })
            .collect::<Result<_, _>>()?;
        Ok(Sample {
            key: entry.key.clone(),
            json,
            images,
        })
    }

    /// Reads only the JSON of a sample.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn json(&self, index: usize) -> Result<Value, DataError> {
        self.json_of(self.entry(index)?)
    }

    /// Reads only the JSON of a sample, as a typed record.
    ///
    /// # Errors
    /// As for [`get`](Self::get), and if the JSON is no [`Record`].
    pub fn record(&self, index: usize) -> Result<Record, DataError> {
        let entry = self.entry(index)?;
        serde_json::from_value(self.json_of(entry)?).map_err(|error| self.refuse(entry, error))
    }

    fn entry(&self, index: usize) -> Result<&Entry, DataError> {
        self.entries.get(index).ok_or(DataError::OutOfRange {
            index,
            len: self.entries.len(),
        })
    }

    fn refuse(&self, entry: &Entry, error: impl ToString) -> DataError {
        DataError::Sample {
            path: self.shards[entry.shard].path.clone(),
            key: entry.key.clone(),
            message: error.to_string(),
        }
    }

    fn read(&self, entry: &Entry, span: Span) -> Result<Vec<u8>, DataError> {
        let shard = &self.shards[entry.shard];
        // A panic elsewhere cannot leave a file handle in a wrong state: every read seeks first.
        let mut file = shard.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = vec![0; span.bytes as usize];
        file.seek(SeekFrom::Start(span.offset))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(DataError::io("read", &shard.path))?;
        Ok(bytes)
    }

    fn json_of(&self, entry: &Entry) -> Result<Value, DataError> {
        let span = entry
            .text
            .ok_or_else(|| self.refuse(entry, "it has neither a json nor a txt member"))?;
        let bytes = self.read(entry, span)?;
        if !entry.is_json {
            let caption = String::from_utf8(bytes).map_err(|error| self.refuse(entry, error))?;
            return Ok(json!({"kind": "pair", "caption": caption.trim()}));
        }
        let mut value: Value =
            serde_json::from_slice(&bytes).map_err(|error| self.refuse(entry, error))?;
        let Some(object) = value.as_object_mut() else {
            return Err(self.refuse(entry, "its JSON is not an object"));
        };
        if !object.contains_key("kind") && object.get("caption").is_some_and(Value::is_string) {
            object.insert("kind".into(), "pair".into());
        }
        Ok(value)
    }

    fn add_shard(&mut self, path: &Path) -> Result<(), DataError> {
        let file = File::open(path).map_err(DataError::io("open", path))?;
        let length = file.metadata().map_err(DataError::io("read", path))?.len();
        let damaged = |offset: u64, message: String| DataError::Shard {
            path: path.to_path_buf(),
            offset,
            message,
        };
        let (shard, first) = (self.shards.len(), self.entries.len());
        let mut archive = tar::Archive::new(&file);
        let mut end = 0;
        for member in archive
            .entries_with_seek()
            .map_err(|error| damaged(0, error.to_string()))?
        {
            let member = member.map_err(|error| damaged(end, error.to_string()))?;
            if !member.header().entry_type().is_file() {
                continue;
            }
            let name = member
                .path()
                .map_err(|error| damaged(end, error.to_string()))?
                .to_string_lossy()
                .replace('\\', "/");
            let span = Span {
                offset: member.raw_file_position(),
                bytes: member.size(),
            };
            end = span.offset.saturating_add(span.bytes);
            if end > length {
                return Err(damaged(
                    length,
                    format!("{name} should go on to byte {end}, but the file ends there"),
                ));
            }
            if span.bytes > self.limits.member_bytes {
                let (bytes, limit) = (span.bytes, self.limits.member_bytes);
                return Err(damaged(
                    span.offset,
                    format!("{name} has {bytes} bytes, more than the limit of {limit}"),
                ));
            }
            self.add_member(shard, first, &name, span);
        }
        for entry in &mut self.entries[first..] {
            entry.images.sort_by_key(|image| image.0);
            let message = if entry.text.is_none() {
                "it has neither a json nor a txt member".to_string()
            } else if entry.images.len() > self.limits.pictures {
                format!("it has {} pictures", entry.images.len())
            } else {
                continue;
            };
            return Err(DataError::Sample {
                path: path.to_path_buf(),
                key: entry.key.clone(),
                message,
            });
        }
        self.shards.push(Shard {
            path: path.to_path_buf(),
            file: Mutex::new(file),
        });
        Ok(())
    }

    /// Adds a member to the sample being collected, or starts the next one.
    fn add_member(&mut self, shard: usize, first: usize, name: &str, span: Span) {
        let start = name.rfind('/').map_or(0, |slash| slash + 1);
        let Some(dot) = name[start..].find('.').filter(|&dot| dot > 0) else {
            return; // hidden files and files without an extension belong to no sample
        };
        let (key, extension) = (&name[..start + dot], &name[start + dot + 1..]);
        if self.entries.len() == first || self.entries.last().is_none_or(|last| last.key != key) {
            self.entries.push(Entry {
                shard,
                key: key.to_string(),
                text: None,
                is_json: false,
                images: Vec::new(),
            });
        }
        let Some(entry) = self.entries.last_mut() else {
            return;
        };
        let (number, format) = match extension.rsplit_once('.') {
            Some((number, format)) => (number.parse().ok(), format),
            None => (Some(0), extension),
        };
        match (format.to_ascii_lowercase().as_str(), number) {
            ("json", _) => (entry.text, entry.is_json) = (Some(span), true),
            ("txt", _) if !entry.is_json => entry.text = Some(span),
            ("png" | "jpg" | "jpeg" | "webp" | "gif", Some(number)) => {
                entry.images.push((number, span));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
