//! The state of an unfinished build, and the index of a finished one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Output, Tally};
use crate::writer::write_atomically;
use crate::{DataError, ShardInfo};

/// Name of the index.
pub(super) const INDEX: &str = "index.json";
/// Folder of the state.
const STATE: &str = ".build";

/// The contents of `index.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// Version of the format: 1.
    pub format: u32,
    /// Kind of the samples ("pairs").
    pub kind: String,
    /// Number of samples.
    pub samples: usize,
    /// The options of the build.
    pub options: Value,
    /// Every shard.
    pub shards: Vec<ShardInfo>,
}

/// A finished shard of an unfinished build.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Done {
    /// SHA-256 of the candidates.
    pub digest: String,
    /// The shard; `None` if no candidate was usable.
    pub shard: Option<ShardInfo>,
    /// Its counts.
    pub tally: Tally,
}

/// The open state of a build. Holds a lock on the folder.
pub(super) struct State {
    folder: PathBuf,
    _lock: File,
}

impl State {
    /// Begins a build, or continues one with the same options.
    ///
    /// # Errors
    /// If the folder holds a finished data set, an unfinished one of other options, or another process builds there.
    pub fn open(out: &Output, kind: &str, options: &Value) -> Result<Self, DataError> {
        let folder = out.folder.clone();
        let state = folder.join(STATE);
        fs::create_dir_all(&state).map_err(DataError::io("create", &state))?;
        let path = state.join("lock");
        let lock = File::create(&path).map_err(DataError::io("create", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(DataError::Busy(folder)),
            Err(fs::TryLockError::Error(error)) => {
                return Err(DataError::io("lock", &path)(error));
            }
        }
        let this = Self {
            folder,
            _lock: lock,
        };
        if out.overwrite {
            this.clear()?;
        } else if this.folder.join(INDEX).exists() {
            // Left by a build that was killed after its end, or created just now.
            this.remove_state();
            return Err(DataError::Exists(this.folder));
        }
        this.begin(kind, options)?;
        Ok(this)
    }

    fn begin(&self, kind: &str, options: &Value) -> Result<(), DataError> {
        let path = self.folder.join(STATE).join("options.json");
        let wanted = serde_json::json!({ "kind": kind, "options": options });
        let Ok(text) = fs::read(&path) else {
            return write_json(&path, &wanted);
        };
        let found: Value =
            serde_json::from_slice(&text).map_err(|error| DataError::malformed(&path, error))?;
        if found == wanted {
            return Ok(());
        }
        let mut names = vec![];
        differences("", &found, &wanted, &mut names);
        Err(DataError::Changed {
            folder: self.folder.clone(),
            what: format!("its options changed ({})", names.join(", ")),
        })
    }

    /// Removes the shards of an earlier build, finished or not.
    fn clear(&self) -> Result<(), DataError> {
        let path = self.folder.join(INDEX);
        let mut files: Vec<String> = vec![];
        if let Ok(text) = fs::read(&path) {
            // The index of anything else names no shards of ours, and is replaced at the end.
            if let Ok(index) = serde_json::from_slice::<Index>(&text) {
                files.extend(index.shards.into_iter().map(|shard| shard.file));
            }
            fs::remove_file(&path).map_err(DataError::io("remove", &path))?;
        }
        let state = self.folder.join(STATE);
        let entries = fs::read_dir(&state).map_err(DataError::io("list", &state))?;
        for entry in entries.flatten() {
            let path = entry.path();
            let done = fs::read(&path)
                .ok()
                .and_then(|text| serde_json::from_slice::<Done>(&text).ok());
            files.extend(done.and_then(|done| done.shard).map(|shard| shard.file));
            if !path.ends_with("lock") {
                fs::remove_file(&path).map_err(DataError::io("remove", &path))?;
            }
        }
        for file in files {
            let path = self.folder.join(file);
            if path.is_file() {
                fs::remove_file(&path).map_err(DataError::io("remove", &path))?;
            }
        }
        Ok(())
    }

    fn path_of(&self, shard: &str) -> PathBuf {
        let name = shard.replace('/', "-");
        self.folder.join(STATE).join(format!("{name}.json"))
    }

    /// A shard finished before, if its file is still complete.
    pub fn done(&self, shard: &str) -> Option<Done> {
        let text = fs::read(self.path_of(shard)).ok()?;
        let done: Done = serde_json::from_slice(&text).ok()?;
        let complete = done.shard.as_ref().is_none_or(|info| {
            fs::metadata(self.folder.join(&info.file)).is_ok_and(|file| file.len() == info.bytes)
        });
        complete.then_some(done)
    }

    /// Records a finished shard.
    pub fn finish_shard(&self, shard: &str, done: &Done) -> Result<(), DataError> {
        write_json(&self.path_of(shard), done)
    }

    /// Writes the index and removes the state.
    pub fn finish(self, index: &Index) -> Result<(), DataError> {
        write_json(&self.folder.join(INDEX), index)?;
        self.remove_state();
        Ok(())
    }

    /// Removes the state. It is of no use beside an index, so a failure is not an error.
    fn remove_state(&self) {
        let _ = fs::remove_dir_all(self.folder.join(STATE));
    }
}

/// Writes JSON, whole or not at all.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), DataError> {
    let mut text =
        serde_json::to_vec_pretty(value).map_err(|error| DataError::malformed(path, error))?;
    text.push(b'\n');
    write_atomically(path, &text)
}

/// Names of the fields that differ.
fn differences(prefix: &str, a: &Value, b: &Value, names: &mut Vec<String>) {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let more = b.keys().filter(|key| !a.contains_key(*key));
            for key in a.keys().chain(more) {
                let (a, b) = (a.get(key), b.get(key));
                let name = match prefix {
                    "" | "options" => key.clone(),
                    prefix => format!("{prefix}.{key}"),
                };
                differences(
                    &name,
                    a.unwrap_or(&Value::Null),
                    b.unwrap_or(&Value::Null),
                    names,
                );
            }
        }
        (a, b) if a != b => names.push(format!("{prefix}: {a} then, {b} now")),
        _ => {}
    }
}
