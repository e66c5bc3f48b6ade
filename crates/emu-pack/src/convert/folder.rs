//! Model folders as published by diffusers and transformers, and weight file detection.

use std::{
    fs::File,
    io::{Read, Seek},
    path::{Path, PathBuf},
};

use super::{GgufFile, LegacyPyTorchFile, PyTorchFile};
use crate::{
    FileKind, KeyMap, PackError, SafetensorsFile, SafetensorsFolder, Sharded, TensorData,
    TensorInfo, TensorSource, Unwrapped,
    safetensors::read_small,
    sniff::{refuse_others, sniff},
};

/// A weight source of any file kind.
pub type Weights = Box<dyn TensorSource + Send + Sync>;

/// Maximum size of a `config.json`.
const MAX_CONFIG: u64 = 16 << 20;

/// Weight file names in order of preference: safetensors before pickles.
const CANDIDATES: [&str; 8] = [
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.bin.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// One component of a published model: its weights and its `config.json`.
pub struct ModelFolder {
    /// The parsed `config.json`.
    pub config: serde_json::Value,
    /// The chosen file or shard index; the folder itself if all its `.safetensors` files were taken.
    pub file: PathBuf,
    /// The weights.
    pub weights: Weights,
}

impl ModelFolder {
    /// Opens a folder with a `config.json` and weights under a usual name.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, PackError> {
        let folder = folder.as_ref();
        let path = folder.join("config.json");
        let (name, text) = (path.display().to_string(), read_small(&path, MAX_CONFIG)?);
        refuse_others(
            &name,
            FileKind::of(&text),
            &[FileKind::Json, FileKind::Empty],
        )?;
        let config = serde_json::from_slice(&text).map_err(|e| PackError::NoWeights {
            path: name,
            reason: format!("it is no JSON ({e})"),
        })?;
        let (file, weights) = open_folder(folder)?;
        Ok(Self {
            config,
            file,
            weights,
        })
    }

    /// The file name of the weights of a folder that has files of these names, as [`ModelFolder::open`] chooses it: a weight file or
    /// an index of shards. `None`: all its `.safetensors` files.
    pub fn weight_file(has: impl Fn(&str) -> bool) -> Option<&'static str> {
        CANDIDATES.into_iter().find(|name| has(name))
    }

    /// Removes what wrappers add to tensor names (prefixes and segments), so that `map` knows the names.
    ///
    /// # Errors
    /// As [`Unwrapped::new`].
    pub fn unwrapped(self, map: &KeyMap) -> Result<Self, PackError> {
        let weights = Box::new(Unwrapped::new(self.weights, map)?);
        Ok(Self { weights, ..self })
    }
}

impl TensorSource for ModelFolder {
    fn tensors(&self) -> &[TensorInfo] {
        self.weights.tensors()
    }

    fn read(&self, name: &str) -> Result<TensorData, PackError> {
        self.weights.read(name)
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.weights.info(name)
    }
}

/// Opens a weight file of any kind (detected by content, not by name), a shard index, or a folder of weight files.
pub fn open_weights(path: impl AsRef<Path>) -> Result<Weights, PackError> {
    let path = path.as_ref();
    if path.is_dir() {
        return Ok(open_folder(path)?.1);
    }
    if path.to_string_lossy().ends_with(".index.json") {
        return Ok(Box::new(Sharded::from_index(path, open_file)?));
    }
    open_file(path)
}

fn open_folder(folder: &Path) -> Result<(PathBuf, Weights), PackError> {
    let present = ModelFolder::weight_file(|name| folder.join(name).is_file());
    match present {
        Some(name) => {
            let file = folder.join(name);
            let weights = open_weights(&file)?;
            Ok((file, weights))
        }
        None => Ok((folder.into(), Box::new(SafetensorsFolder::open(folder)?))),
    }
}

fn open_file(path: &Path) -> Result<Weights, PackError> {
    let name = path.display().to_string();
    let mut file = File::open(path).map_err(|e| PackError::io(&name, e))?;
    match sniff(&name, &mut file)? {
        // A model in parts is opened with all of them.
        FileKind::Gguf => Ok(Box::new(GgufFile::open(path)?)),
        _ => from_reader(name, file),
    }
}

pub(super) fn from_reader(
    name: String,
    mut file: impl Read + Seek + Send + 'static,
) -> Result<Weights, PackError> {
    match sniff(&name, &mut file)? {
        FileKind::Gguf => Ok(Box::new(GgufFile::from_reader(name, file)?)),
        FileKind::LegacyPyTorch => Ok(Box::new(LegacyPyTorchFile::from_reader(name, file)?)),
        FileKind::Zip => Ok(Box::new(PyTorchFile::from_reader(name, file)?)),
        FileKind::Empty => Err(PackError::NoWeights {
            path: name,
            reason: "the file is empty".into(),
        }),
        _ => Ok(Box::new(SafetensorsFile::from_reader(name, file)?)),
    }
}

impl std::fmt::Debug for ModelFolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelFolder")
            .field("file", &self.file)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
