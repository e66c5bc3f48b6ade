//! The folder of goldens: its files, errors and comparison report.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use emu_model::parity::diffusion::loaded;
use emu_model::parity::generate::roles;
use emu_model::parity::{ParityError, Row};
use emu_model::{Emu, EmuConfig, reference};
use emu_pack::convert::open_weights;
use emu_pack::{KeyMap, PackError, SafetensorsFile, TensorSource};
use emu_tokenizer::EmuTokenizer;
use serde_json::Value;

/// The reason that a folder of goldens cannot be compared at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// The folder holds no goldens.
    #[error(
        "{} holds no *-emu-config.json, so it is not laid out like the reference. Name a folder that is.",
        .0.display()
    )]
    NoGoldens(PathBuf),
    /// A file cannot be read.
    #[error("{} cannot be read: {reason}. Check that it is complete and readable.", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Weights or goldens do not match.
    #[error(transparent)]
    Parity(#[from] ParityError),
}

impl From<PackError> for FolderError {
    fn from(error: PackError) -> Self {
        Self::Parity(error.into())
    }
}

impl From<emu_model::config::ConfigError> for FolderError {
    fn from(error: emu_model::config::ConfigError) -> Self {
        Self::Parity(error.into())
    }
}

/// The result: what was compared and what was not.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// One row per golden, in order of comparison.
    pub rows: Vec<Row>,
    /// Parts that were skipped, each with the file that the folder lacks.
    pub skipped: Vec<(&'static str, String)>,
    /// Goldens that were not used by any comparison.
    pub uncompared: Vec<String>,
}

impl Report {
    /// Whether there is at least one comparison and all passed.
    pub fn passes(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(Row::passes)
    }

    /// The rows that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| !row.passes())
    }

    /// Adds the rows of a part. A part that cannot be compared at all becomes one failed row.
    pub fn take<E: Display>(&mut self, part: &str, rows: Result<Vec<Row>, E>) {
        match rows {
            Ok(rows) => self.rows.extend(rows),
            Err(error) => self.rows.push(Row::failed(part, error)),
        }
    }
}

/// The files of the language model's goldens, which share a stem: `tiny-emu` in the reference implementation.
pub(crate) struct Files {
    pub folder: PathBuf,
    pub stem: String,
    /// The configuration.
    pub config: Value,
    /// The LLaMA folder that the configuration names.
    pub llama: PathBuf,
    /// Description of the goldens.
    pub json: Value,
}

impl Files {
    pub fn find(folder: &Path) -> Result<Self, FolderError> {
        let lacks = || FolderError::NoGoldens(folder.into());
        let entries = std::fs::read_dir(folder).map_err(|e| unreadable(folder, e))?;
        let mut names: Vec<String> = entries
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .collect();
        names.sort();
        let stem = names
            .iter()
            .find_map(|name| {
                name.strip_suffix("-config.json")
                    .filter(|s| s.ends_with("-emu"))
            })
            .ok_or_else(lacks)?
            .to_owned();
        let config = read_json(&folder.join(format!("{stem}-config.json")))?;
        let llama = config.get("llama_config").and_then(Value::as_str);
        let llama = folder.join(llama.unwrap_or("tiny-llama/config.json"));
        Ok(Self {
            json: read_json(&folder.join(format!("{stem}-golden.json")))?,
            llama: llama.parent().unwrap_or(folder).into(),
            folder: folder.into(),
            config,
            stem,
        })
    }

    pub fn name(&self, ending: &str) -> String {
        format!("{}{ending}", self.stem)
    }

    pub fn path(&self, ending: &str) -> PathBuf {
        self.folder.join(self.name(ending))
    }

    pub fn goldens(&self) -> Result<SafetensorsFile, PackError> {
        SafetensorsFile::open(self.path("-golden.safetensors"))
    }

    /// The pretrained model's configuration, with the special tokens given by the goldens.
    pub fn pretrained(&self) -> Result<EmuConfig, FolderError> {
        let llama = read_json(&self.llama.join("config.json"))?;
        let config = reference::emu_config(&self.config, &llama)?;
        Ok(config)
    }

    /// The instruction-tuned model's configuration, with the adapter sizes from the weights.
    pub fn instructed(&self, weights: &dyn TensorSource) -> Result<EmuConfig, FolderError> {
        let lora = self.json.get("instruct").and_then(|i| i.get("lora"));
        let mut config = self.pretrained()?.instruct();
        config.adapter = reference::adapter(weights, lora)?;
        Ok(config)
    }

    pub fn tokenizer(&self, instruct: bool) -> Result<EmuTokenizer, FolderError> {
        let path = self.llama.join("tokenizer.model");
        let bytes = read(&path)?;
        let tokenizer = EmuTokenizer::from_sentencepiece_bytes(&bytes, roles(instruct));
        Ok(tokenizer.map_err(ParityError::from)?)
    }
}

/// A model loaded strictly from a weight file.
pub(crate) fn open(
    path: &Path,
    config: &EmuConfig,
    map: &KeyMap,
    device: &Device,
) -> Result<Emu, FolderError> {
    let weights = open_weights(path)?;
    Ok(loaded(config.init(device)?, device, &*weights, map)?)
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FolderError> {
    std::fs::read(path).map_err(|e| unreadable(path, e))
}

pub(crate) fn read_json(path: &Path) -> Result<Value, FolderError> {
    serde_json::from_slice(&read(path)?).map_err(|e| unreadable(path, e))
}

fn unreadable(path: &Path, reason: impl Display) -> FolderError {
    FolderError::File {
        path: path.into(),
        reason: reason.to_string(),
    }
}
