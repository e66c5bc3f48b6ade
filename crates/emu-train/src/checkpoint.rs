//! Atomic checkpoints: either complete or absent.
//!
//! A checkpoint `<out>/step-00001234/` holds `model.safetensors`, `optimiser.safetensors`, `average.safetensors` (if
//! the run keeps an EMA) and `state.json` with the size and SHA-256 of each file. It is written under a temporary name,
//! flushed to disk and then renamed. If the process is killed or the disk fills up, at most a folder with a leading dot
//! remains, which the next run removes. Every file is checked against `state.json` when it is read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use emu_pack::{PackError, SafetensorsFile, TensorData, TensorSource, hex, write_safetensors};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::TrainError;

/// Version of the checkpoint format.
const FORMAT: u32 = 1;
const MODEL: &str = "model.safetensors";
const OPTIMISER: &str = "optimiser.safetensors";
const AVERAGE: &str = "average.safetensors";
const STATE: &str = "state.json";
const PENDING: &str = ".pending-";
const DISCARDED: &str = ".discarded-";
const LATEST: &str = "latest";
const BEST: &str = "best";

/// State of a run besides its tensors. `(seed, step)` determines all randomness.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// Version of the checkpoint format.
    pub format: u32,
    /// Version of the program that wrote the checkpoint.
    pub version: String,
    /// Steps made.
    pub step: u64,
    /// Seed of the run.
    pub seed: u64,
    /// Name of the stage.
    pub stage: String,
    /// Samples trained on so far.
    pub samples: u64,
    /// Seconds of training so far, over all processes of the run.
    pub seconds: f64,
    /// Length of `metrics.jsonl` in bytes at the time of writing.
    pub metrics_bytes: u64,
    /// The settings that must be equal in a resumed run.
    pub config: BTreeMap<String, String>,
    /// SHA-256 of those settings.
    pub config_sha256: String,
    /// The other files of the checkpoint.
    #[serde(default)]
    pub files: BTreeMap<String, FileState>,
}

/// Size and hash of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileState {
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

impl RunState {
    pub(crate) fn new(step: u64, seed: u64, stage: &str, config: BTreeMap<String, String>) -> Self {
        let mut hash = Sha256::new();
        config
            .iter()
            .for_each(|(key, value)| hash.update(format!("{key}={value}\n")));
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").into(),
            step,
            seed,
            stage: stage.into(),
            samples: 0,
            seconds: 0.0,
            metrics_bytes: 0,
            config,
            config_sha256: hex(&hash.finalize()),
            files: BTreeMap::new(),
        }
    }
}

/// The tensors of a checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Tensors {
    pub model: Vec<TensorData>,
    pub optimiser: Vec<TensorData>,
    pub average: Option<Vec<TensorData>>,
}

/// A verified checkpoint on disk.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// Its run state.
    pub state: RunState,
}

/// A checkpoint that was skipped, and why.
#[derive(Clone, Debug)]
pub struct Skipped {
    /// Its folder.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

fn folder_name(step: u64) -> String {
    format!("step-{step:08}")
}

/// A writer that hashes and counts the bytes written.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(buffer)?;
        self.hash.update(&buffer[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// Creates a file. Tests replace it to simulate a full disk.
pub(crate) type Create<'a> = &'a dyn Fn(&Path) -> std::io::Result<Box<dyn Sink>>;

/// A file being written.
pub(crate) trait Sink: Write {
    /// Blocks until all data is on disk.
    fn sync(&mut self) -> std::io::Result<()>;
}

impl Sink for File {
    fn sync(&mut self) -> std::io::Result<()> {
        self.sync_all()
    }
}

pub(crate) fn create_file(path: &Path) -> std::io::Result<Box<dyn Sink>> {
    File::create(path).map(|file| Box::new(file) as Box<dyn Sink>)
}

/// Flushes the directory entries of a folder to disk, if the system supports it.
fn sync_folder(path: &Path) {
    if let Ok(folder) = File::open(path) {
        let _ = folder.sync_all();
    }
}

fn write_tensors(
    path: &Path,
    tensors: &[TensorData],
    create: Create,
) -> Result<FileState, TrainError> {
    let io = |e| TrainError::io("write", path)(e);
    let file = create(path).map_err(io)?;
    let mut out = BufWriter::with_capacity(
        1 << 20,
        Hashing {
            inner: file,
            hash: Sha256::new(),
            bytes: 0,
        },
    );
    write_safetensors(&mut out, tensors).map_err(|e| match e {
        PackError::Io { source, .. } => io(source),
        PackError::DiskFull { .. } => TrainError::DiskFull { path: path.into() },
        other => other.into(),
    })?;
    let mut out = out.into_inner().map_err(|e| io(e.into_error()))?;
    out.inner.sync().map_err(io)?;
    Ok(FileState {
        bytes: out.bytes,
        sha256: hex(&out.hash.finalize()),
    })
}

/// Replaces a small file atomically.
pub(crate) fn replace_file(path: &Path, bytes: &[u8], create: Create) -> Result<(), TrainError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let pending = path.with_file_name(format!("{PENDING}{name}"));
    let io = |e| TrainError::io("write", path)(e);
    let mut file = create(&pending).map_err(io)?;
    file.write_all(bytes).map_err(io)?;
    file.sync().map_err(io)?;
    drop(file);
    fs::rename(&pending, path).map_err(io)?;
    sync_folder(path.parent().unwrap_or(Path::new(".")));
    Ok(())
}

/// Replaces a small safetensors file atomically.
pub(crate) fn replace_tensors(path: &Path, tensors: &[TensorData]) -> Result<(), TrainError> {
    let mut bytes = vec![];
    write_safetensors(&mut bytes, tensors)?;
    replace_file(path, &bytes, &create_file)
}

/// Writes a checkpoint into `out`.
pub(crate) fn write(
    out: &Path,
    mut state: RunState,
    tensors: &Tensors,
    create: Create,
) -> Result<PathBuf, TrainError> {
    let target = out.join(folder_name(state.step));
    let pending = out.join(format!("{PENDING}{}", folder_name(state.step)));
    let written = (|| {
        if pending.exists() {
            fs::remove_dir_all(&pending).map_err(TrainError::io("remove", &pending))?;
        }
        fs::create_dir_all(&pending).map_err(TrainError::io("create", &pending))?;
        let mut files = vec![(MODEL, &tensors.model), (OPTIMISER, &tensors.optimiser)];
        files.extend(tensors.average.as_ref().map(|average| (AVERAGE, average)));
        for (name, tensors) in files {
            state.files.insert(
                name.into(),
                write_tensors(&pending.join(name), tensors, create)?,
            );
        }
        let json = serde_json::to_vec_pretty(&state).map_err(|e| TrainError::other("json", e))?;
        replace_file(&pending.join(STATE), &json, create)
    })();
    if let Err(error) = written {
        // Frees the space: half a checkpoint must not keep the disk full.
        let _ = fs::remove_dir_all(&pending);
        return Err(error);
    }
    // An existing checkpoint of this step was found damaged. The new one replaces it.
    if target.exists() {
        discard(&target)?;
    }
    fs::rename(&pending, &target).map_err(TrainError::io("rename", &pending))?;
    sync_folder(out);
    replace_file(
        &out.join(LATEST),
        folder_name(state.step).as_bytes(),
        create,
    )?;
    Ok(target)
}

/// Removes a checkpoint. It is renamed first, so that a half-removed folder is not taken for a checkpoint.
fn discard(path: &Path) -> Result<(), TrainError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!("{DISCARDED}{name}"));
    if aside.exists() {
        fs::remove_dir_all(&aside).map_err(TrainError::io("remove", &aside))?;
    }
    fs::rename(path, &aside).map_err(TrainError::io("rename", path))?;
    fs::remove_dir_all(&aside).map_err(TrainError::io("remove", &aside))
}

/// Removes leftovers of a killed process. This process must hold the lock of the folder.
pub(crate) fn sweep(out: &Path) -> Result<(), TrainError> {
    for entry in fs::read_dir(out).map_err(TrainError::io("read", out))? {
        let path = entry.map_err(TrainError::io("read", out))?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with(PENDING) || name.starts_with(DISCARDED) {
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.map_err(TrainError::io("remove", &path))?;
        }
    }
    Ok(())
}

/// The checkpoint folders in `out`, oldest first, complete or not.
fn folders(out: &Path) -> Result<Vec<(u64, PathBuf)>, TrainError> {
    if !out.exists() {
        return Ok(vec![]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(out).map_err(TrainError::io("read", out))? {
        let path = entry.map_err(TrainError::io("read", out))?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if let Some(step) = name
            .strip_prefix("step-")
            .and_then(|n| n.parse().ok())
            .filter(|_| path.is_dir())
        {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Removes all but the newest `keep` checkpoints and the one after `best` steps.
pub(crate) fn prune(out: &Path, keep: usize, best: Option<u64>) -> Result<(), TrainError> {
    let found = folders(out)?;
    let old = found.len().saturating_sub(keep.max(1));
    (found.iter().take(old))
        .filter(|(step, _)| Some(*step) != best)
        .try_for_each(|(_, path)| discard(path))
}

/// Writes the name of the checkpoint after `step` steps to the file `best`.
pub(crate) fn mark_best(out: &Path, step: u64) -> Result<(), TrainError> {
    replace_file(&out.join(BEST), folder_name(step).as_bytes(), &create_file)
}

impl Checkpoint {
    /// The newest valid checkpoint of a run, and the newer ones that were skipped.
    ///
    /// # Errors
    /// [`TrainError::Io`] if the folder cannot be read.
    pub fn newest(out: &Path) -> Result<(Option<Self>, Vec<Skipped>), TrainError> {
        let mut skipped = Vec::new();
        for (_, path) in folders(out)?.into_iter().rev() {
            match Self::open(&path) {
                Ok(checkpoint) => return Ok((Some(checkpoint), skipped)),
                Err(TrainError::Checkpoint { path, reason }) => {
                    skipped.push(Skipped { path, reason })
                }
                Err(error) => skipped.push(Skipped {
                    path,
                    reason: error.to_string(),
                }),
            }
        }
        Ok((None, skipped))
    }

    /// Opens a checkpoint and verifies size and hash of each file.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] with what is missing or damaged.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        let broken = |reason: String| TrainError::Checkpoint {
            path: path.into(),
            reason,
        };
        let text = fs::read(path.join(STATE))
            .map_err(|e| broken(format!("{STATE} cannot be read ({e})")))?;
        let state: RunState = serde_json::from_slice(&text)
            .map_err(|e| broken(format!("{STATE} is damaged ({e})")))?;
        if state.format != FORMAT {
            return Err(broken(format!(
                "it has the format {}, and only {FORMAT} is read here",
                state.format
            )));
        }
        for name in [MODEL, OPTIMISER] {
            if !state.files.contains_key(name) {
                return Err(broken(format!("{STATE} does not list {name}")));
            }
        }
        for (name, expected) in &state.files {
            let file = path.join(name);
            let bytes = fs::metadata(&file)
                .map_err(|e| broken(format!("{name} cannot be read ({e})")))?
                .len();
            if bytes != expected.bytes {
                return Err(broken(format!(
                    "{name} is {bytes} bytes long instead of {}",
                    expected.bytes
                )));
            }
            let mut hash = Sha256::new();
            let mut reader =
                File::open(&file).map_err(|e| broken(format!("{name} cannot be read ({e})")))?;
            let mut block = vec![0; 1 << 20];
            loop {
                let n = reader
                    .read(&mut block)
                    .map_err(|e| broken(format!("{name} cannot be read ({e})")))?;
                if n == 0 {
                    break;
                }
                hash.update(&block[..n]);
            }
            if hex(&hash.finalize()) != expected.sha256 {
                return Err(broken(format!("{name} is damaged: its SHA-256 is another")));
            }
        }
        Ok(Self {
            path: path.into(),
            state,
        })
    }

    /// The checkpoint at a path: the path itself, or the newest one of the run at that path.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] if there is none.
    pub fn find(path: &Path) -> Result<Self, TrainError> {
        if path.join(STATE).is_file() {
            return Self::open(path);
        }
        let (found, skipped) = Self::newest(path)?;
        let reason = match skipped.first() {
            Some(skipped) => format!(
                "{} is not whole: {}",
                skipped.path.display(),
                skipped.reason
            ),
            None => "it holds no checkpoint".into(),
        };
        found.ok_or(TrainError::Checkpoint {
            path: path.into(),
            reason,
        })
    }

    /// The checkpoint that a run keeps as its best (`checkpoint.best` of its configuration).
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] if the run has named none, or it is damaged.
    pub fn best(out: &Path) -> Result<Self, TrainError> {
        let name = fs::read_to_string(out.join(BEST)).map_err(|_| TrainError::Checkpoint {
            path: out.into(),
            reason: "the run has kept no best checkpoint".into(),
        })?;
        Self::open(&out.join(name.trim()))
    }

    /// The trained weights: the EMA if the run keeps one; the plain weights for parameters without an EMA.
    ///
    /// # Errors
    /// [`TrainError::Pack`] if a file cannot be read.
    pub fn weights(&self) -> Result<Weights, TrainError> {
        let open = |name: &str| SafetensorsFile::open(self.path.join(name));
        let average = self
            .state
            .files
            .contains_key(AVERAGE)
            .then(|| open(AVERAGE))
            .transpose()?;
        Ok(Weights {
            model: open(MODEL)?,
            average,
        })
    }

    /// Names of the parameters that learn: those with moments of the optimiser.
    ///
    /// # Errors
    /// [`TrainError::Pack`] if the file cannot be read.
    pub fn learning(&self) -> Result<Vec<String>, TrainError> {
        let file = SafetensorsFile::open(self.path.join(OPTIMISER))?;
        let names = file.tensors().iter().map(|info| info.name.as_str());
        Ok(names
            .filter_map(|name| name.strip_suffix(".m"))
            .map(str::to_owned)
            .collect())
    }

    /// Reads all tensors.
    pub(crate) fn tensors(&self) -> Result<Tensors, TrainError> {
        let read = |name: &str| -> Result<Vec<TensorData>, TrainError> {
            let file = SafetensorsFile::open(self.path.join(name))?;
            Ok(file
                .tensors()
                .iter()
                .map(|info| file.read(&info.name))
                .collect::<Result<_, _>>()?)
        };
        let average = self
            .state
            .files
            .contains_key(AVERAGE)
            .then(|| read(AVERAGE))
            .transpose()?;
        Ok(Tensors {
            model: read(MODEL)?,
            optimiser: read(OPTIMISER)?,
            average,
        })
    }
}

/// The trained weights of a checkpoint.
#[derive(Debug)]
pub struct Weights {
    model: SafetensorsFile,
    average: Option<SafetensorsFile>,
}

impl TensorSource for Weights {
    fn tensors(&self) -> &[emu_pack::TensorInfo] {
        self.model.tensors()
    }

    fn read(&self, name: &str) -> Result<TensorData, PackError> {
        let Some(average) = self
            .average
            .as_ref()
            .filter(|average| average.info(name).is_some())
        else {
            return self.model.read(name);
        };
        // The EMA is stored flat. The shape is that of the weight.
        let mut tensor = average.read(name)?;
        if let Some(info) = self.model.info(name) {
            tensor.info.shape.clone_from(&info.shape);
        }
        Ok(tensor)
    }
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
