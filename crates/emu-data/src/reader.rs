//! Reads WebDataset shards in place: members are indexed by offset and never extracted.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value, json};

use crate::index::{Groups, Limits, Member, Members, split};
use crate::record::{Part, Record};
use crate::{BadSample, DataError, Picture};

/// A sample, read and decoded.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Its key in the shard.
    pub key: String,
    /// The shard.
    pub shard: Arc<Path>,
    /// Its JSON member; for samples with only a text member, `{"kind": "pair", "caption": TEXT}`.
    pub json: Value,
    /// Its pictures: the unnumbered one, or `0.png`, `1.png`, ... by number.
    pub images: Vec<Picture>,
    /// Number of each picture.
    pub numbers: Vec<u32>,
}

impl Sample {
    /// The JSON member as a typed record.
    ///
    /// # Errors
    /// [`DataError::Sample`] if it does not have the form of any [`Record`].
    pub fn record(&self) -> Result<Record, DataError> {
        typed(self.json.clone()).map_err(|reason| self.refuse(reason))
    }

    /// An error that this sample cannot be used, for this reason.
    pub fn refuse(&self, reason: impl ToString) -> DataError {
        DataError::Sample(BadSample::new(&self.shard, &self.key, reason))
    }

    /// The pictures that the record refers to, in the record's order.
    ///
    /// # Errors
    /// [`DataError::Sample`] if the number of pictures differs, so that no picture takes the position of another.
    pub fn pictures(&self, record: &Record) -> Result<Vec<&Picture>, DataError> {
        match (record, self.images.as_slice()) {
            (Record::Document(document), _) => self.pictures_of(document.parts.iter()),
            (Record::Conversation(conversation), _) => self.pictures_of(conversation.parts()),
            (Record::Video(_), []) => Err(self.refuse("it has no frames")),
            (Record::Video(_), frames) => Ok(frames.iter().collect()),
            (_, [picture]) => Ok(vec![picture]),
            (_, []) => Err(self.refuse("it has no picture")),
            (_, many) => Err(self.refuse(format!(
                "it has {} pictures, and its text belongs to one",
                many.len()
            ))),
        }
    }

    fn pictures_of<'p>(
        &self,
        parts: impl Iterator<Item = &'p Part>,
    ) -> Result<Vec<&Picture>, DataError> {
        let names = parts.filter_map(|part| match part {
            Part::Image(name) => Some(name),
            Part::Text(_) => None,
        });
        names
            .map(|name| {
                let number: Option<u32> = name.parse().ok();
                let at = number.and_then(|n| self.numbers.iter().position(|other| *other == n));
                at.and_then(|at| self.images.get(at)).ok_or_else(|| {
                    self.refuse(format!(
                        "its text names the picture {name:?}, which is not among its files"
                    ))
                })
            })
            .collect()
    }
}

/// Parses a record, or returns why the JSON is not one.
fn typed(json: Value) -> Result<Record, String> {
    if json.get("kind").is_none() {
        let what = match json.get("caption") {
            None => "it has no `kind` and no `caption`".to_string(),
            Some(Value::Null) => "its caption is null".to_string(),
            Some(other) => format!("its caption is {other}, which is no text"),
        };
        return Err(what);
    }
    serde_json::from_value(json).map_err(|error| format!("its JSON is no record: {error}"))
}

/// Shards opened for random access.
///
/// Members whose paths agree up to the first dot of the file name form one sample. Pictures are `png`, `jpg`, `jpeg`,
/// `webp`, `gif`, `bmp` or `tif` members; text is `json` or `txt`. Other members are ignored. Samples that are unusable
/// by their names and sizes alone are left out ([`ShardDataset::bad`]).
#[derive(Debug)]
pub struct ShardDataset {
    shards: Vec<Shard>,
    entries: Vec<Entry>,
    bad: Vec<BadSample>,
    limits: Limits,
}

#[derive(Debug)]
struct Shard {
    path: Arc<Path>,
    file: Mutex<File>,
}

#[derive(Debug)]
struct Entry {
    shard: usize,
    key: String,
    members: Members,
}

impl ShardDataset {
    /// Opens a shard, or all `.tar` files of a folder in order of their names, with default [`Limits`]. The path may be
    /// a pattern: `*`, `?`, `[..]`, `{a,b}` and `{000..099}` select several shards or folders.
    ///
    /// # Errors
    /// If there is no shard, one cannot be read to its end, or no sample is usable.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DataError> {
        Self::open_list(&shards_at(path.as_ref(), "")?, Limits::default())
    }

    /// Opens only those shards of a folder whose names match `KIND-*.tar`: `"draw"` opens `draw-00000.tar`,
    /// `draw-00001.tar` and so on, but not `drawings-00000.tar`.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_kind(folder: impl AsRef<Path>, kind: &str) -> Result<Self, DataError> {
        let shards = shards_at(folder.as_ref(), &format!("{kind}-"))?;
        Self::open_list(&shards, Limits::default())
    }

    /// Opens these shards in this order.
    ///
    /// # Errors
    /// If the list is empty, a shard cannot be read to its end, or no sample is usable.
    pub fn open_list(paths: &[impl AsRef<Path>], limits: Limits) -> Result<Self, DataError> {
        let mut dataset = Self {
            shards: Vec::new(),
            entries: Vec::new(),
            bad: Vec::new(),
            limits,
        };
        let mut ignored: Option<(String, usize)> = None;
        for path in paths {
            if let Some((file, count)) = dataset.add_shard(path.as_ref())? {
                ignored.get_or_insert((file, 0)).1 += count;
            }
        }
        if let Some((file, count)) = ignored {
            tracing::info!(
                "{count} files such as {file} are ignored: the key of a sample ends at the first dot of the name"
            );
        }
        match (paths.first(), dataset.bad.first()) {
            (None, _) => Err(DataError::NoShards(PathBuf::new())),
            (Some(_), Some(bad)) if dataset.entries.is_empty() => {
                Err(DataError::Sample(bad.clone()))
            }
            (Some(path), None) if dataset.entries.is_empty() => {
                Err(DataError::NoShards(path.as_ref().to_path_buf()))
            }
            _ => Ok(dataset),
        }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no samples; always false for an opened data set.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Samples left out when the shards were opened, in order. Others may turn out to be unusable when they are read.
    pub fn bad(&self) -> &[BadSample] {
        &self.bad
    }

    /// Reads a sample and decodes its pictures.
    ///
    /// # Errors
    /// [`DataError::Sample`] if the JSON or a picture is malformed; others if the index is out of range or the shard
    /// has changed since it was opened.
    pub fn get(&self, index: usize) -> Result<Sample, DataError> {
        let entry = self.entry(index)?;
        let json = self.json_of(entry)?;
        let mut images = Vec::with_capacity(entry.members.images.len());
        for (_, member) in &entry.members.images {
            let bytes = self.read(entry, member)?;
            if bytes.is_empty() {
                return Err(self.refuse_file(entry, member, "the file is empty"));
            }
            let picture = Picture::decode(&bytes, &self.limits.picture);
            images.push(picture.map_err(|error| self.refuse_file(entry, member, error))?);
        }
        Ok(Sample {
            key: entry.key.clone(),
            shard: self.shards[entry.shard].path.clone(),
            json,
            images,
            numbers: entry.members.images.iter().map(|image| image.0).collect(),
        })
    }

    /// The first `limit` samples with their indices, for evaluation. Unusable ones are left out with a warning.
    pub fn samples(
        &self,
        limit: usize,
    ) -> impl Iterator<Item = Result<(usize, Sample), DataError>> + '_ {
        (0..self.len().min(limit)).filter_map(|index| match self.get(index) {
            Err(DataError::Sample(bad)) => {
                tracing::warn!("{bad}; it is left out");
                None
            }
            other => Some(other.map(|sample| (index, sample))),
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
    /// As for [`get`](Self::get), and if the JSON is not a [`Record`].
    pub fn record(&self, index: usize) -> Result<Record, DataError> {
        let entry = self.entry(index)?;
        typed(self.json_of(entry)?).map_err(|reason| self.refuse(entry, reason))
    }

    fn entry(&self, index: usize) -> Result<&Entry, DataError> {
        self.entries.get(index).ok_or(DataError::OutOfRange {
            index,
            len: self.entries.len(),
        })
    }

    fn refuse(&self, entry: &Entry, reason: impl ToString) -> DataError {
        let shard = &self.shards[entry.shard].path;
        DataError::Sample(BadSample::new(shard, &entry.key, reason))
    }

    fn refuse_file(&self, entry: &Entry, member: &Member, reason: impl ToString) -> DataError {
        let (key, extension) = (&entry.key, &member.extension);
        self.refuse(entry, format!("{key}.{extension}: {}", reason.to_string()))
    }

    fn read(&self, entry: &Entry, member: &Member) -> Result<Vec<u8>, DataError> {
        let shard = &self.shards[entry.shard];
        // A panic elsewhere cannot corrupt the file handle, since every read seeks first.
        let mut file = shard.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = vec![0; member.bytes as usize];
        file.seek(SeekFrom::Start(member.offset))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(DataError::io("read", &shard.path))?;
        Ok(bytes)
    }

    /// The text of a sample: its JSON if that is a record or has a caption, otherwise its text member as a pair.
    fn json_of(&self, entry: &Entry) -> Result<Value, DataError> {
        let Members { json, txt, .. } = &entry.members;
        let object = match json {
            Some(member) => self.object(entry, member)?,
            None => Map::new(),
        };
        if object.contains_key("kind") {
            return Ok(Value::Object(object));
        }
        if object.get("caption").is_some_and(Value::is_string) {
            let mut pair = object;
            pair.insert("kind".into(), "pair".into());
            return Ok(Value::Object(pair));
        }
        let Some(member) = txt else {
            return Ok(Value::Object(object));
        };
        let caption = String::from_utf8(self.read(entry, member)?)
            .map_err(|_| self.refuse_file(entry, member, "the text is not UTF-8"))?;
        let caption = caption.trim_start_matches(BYTE_ORDER_MARK).trim();
        Ok(json!({"kind": "pair", "caption": caption}))
    }

    fn object(&self, entry: &Entry, member: &Member) -> Result<Map<String, Value>, DataError> {
        let bytes = self.read(entry, member)?;
        let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
        match serde_json::from_slice(text) {
            Ok(Value::Object(object)) => Ok(object),
            Ok(_) => Err(self.refuse_file(entry, member, "its JSON is not an object")),
            Err(error) => Err(self.refuse_file(entry, member, error)),
        }
    }

    /// Adds the samples of a shard. Returns the first file ignored because of the dots in its name, and the number of
    /// such files.
    fn add_shard(&mut self, path: &Path) -> Result<Option<(String, usize)>, DataError> {
        let file = File::open(path).map_err(DataError::io("open", path))?;
        let length = file.metadata().map_err(DataError::io("read", path))?.len();
        let damaged = |offset: u64, message: String| DataError::Shard {
            path: path.to_path_buf(),
            offset,
            message,
        };
        let mut archive = tar::Archive::new(&file);
        let mut groups = Groups::default();
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
            let (offset, bytes) = (member.raw_file_position(), member.size());
            end = offset.saturating_add(bytes);
            if end > length {
                return Err(damaged(
                    length,
                    format!("{name} should go on to byte {end}, but the file ends there"),
                ));
            }
            if let Some((key, extension)) = split(&name) {
                let extension = extension.to_string();
                groups.push(
                    key,
                    Member {
                        extension,
                        offset,
                        bytes,
                    },
                );
            }
        }
        // A file cut within the padding of a member would look complete.
        if end.next_multiple_of(BLOCK) > length {
            return Err(damaged(length, "the file ends within a block".into()));
        }
        let (samples, ignored) = groups.finish(&self.limits);
        let shard = self.shards.len();
        for (key, outcome) in samples {
            match outcome {
                Ok(members) => self.entries.push(Entry {
                    shard,
                    key,
                    members,
                }),
                Err(reason) => self.bad.push(BadSample::new(path, key, reason)),
            }
        }
        self.shards.push(Shard {
            path: path.into(),
            file: Mutex::new(file),
        });
        Ok(ignored)
    }
}

/// The shards at a path, or at the paths that match its pattern: a shard itself, or those of a folder whose names start
/// with `prefix`.
fn shards_at(path: &Path, prefix: &str) -> Result<Vec<PathBuf>, DataError> {
    match crate::patterns::expand(path)? {
        None => shards_of(path, prefix),
        Some(paths) => {
            let found: Vec<Vec<PathBuf>> = (paths.iter())
                .map(|path| shards_of(path, prefix))
                .collect::<Result<_, _>>()?;
            Ok(found.concat())
        }
    }
}

fn shards_of(path: &Path, prefix: &str) -> Result<Vec<PathBuf>, DataError> {
    if path.is_file() {
        return Ok(vec![path.into()]);
    }
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
    match shards.is_empty() {
        true => Err(DataError::NoShards(path.join(format!("{prefix}*.tar")))),
        false => Ok(shards),
    }
}

/// Block size of the tar format in bytes.
const BLOCK: u64 = 512;

/// Some editors write it before a text.
const BYTE_ORDER_MARK: char = '\u{feff}';

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
