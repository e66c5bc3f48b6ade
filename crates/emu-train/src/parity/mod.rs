//! Every golden of a folder laid out like the reference: files read here, numbers compared by
//! [`emu_model::parity`] and, where a loss or an optimiser is needed, by this module.

mod decoder;
mod files;
mod losses;
mod pictures;

use std::collections::HashSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use emu_kernels::burn::tensor::{Device, read_sync};
use emu_model::parity::core::{self, Subject};
use emu_model::parity::diffusion::loaded;
use emu_model::parity::generate::{self, Generator, roles};
use emu_model::parity::{Bound, Goldens, ParityError, Row, tokenizer};
use emu_model::tokenizer::EmuTokenizer;
use emu_model::{Emu, EmuConfig, keys, reference};
use emu_pack::convert::open_weights;
use emu_pack::{KeyMap, PackError, SafetensorsFile, TensorSource};
use serde_json::Value;

/// Why a folder of goldens cannot be compared at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// No such goldens.
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
    /// Weights or goldens do not fit.
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

/// What was compared and what was not.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// One for each golden, in the order they were compared.
    pub rows: Vec<Row>,
    /// Parts whose files the folder lacks, with the file.
    pub skipped: Vec<(&'static str, String)>,
    /// Goldens that nothing was compared with.
    pub uncompared: Vec<String>,
}

impl Report {
    /// Whether every comparison passed, and there was one.
    pub fn passes(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(Row::passes)
    }

    /// The rows that did not pass.
    pub fn failures(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| !row.passes())
    }

    /// Takes the rows of a part; a part that cannot be compared at all is one failed row.
    fn take<E: Display>(&mut self, part: &str, rows: Result<Vec<Row>, E>) {
        match rows {
            Ok(rows) => self.rows.extend(rows),
            Err(error) => self.rows.push(Row::failed(part, error)),
        }
    }
}

/// Compares everything in `folder`. `progress` is told the name of each part before it runs.
///
/// # Errors
/// Where the folder is not laid out like the reference. What cannot be compared inside of it is a failed row.
pub fn run(
    folder: &Path,
    device: &Device,
    mut progress: impl FnMut(&str),
) -> Result<Report, FolderError> {
    let mut report = Report::default();
    let files = Files::find(folder)?;

    progress("encoder, causal former, language model");
    report.take("emu", pretrained(&files, device));
    progress("losses, gradients, AdamW");
    report.take("losses", losses::pretrained(&files, device));
    if files.path("-instruct.safetensors").is_file() {
        progress("instruction-tuned variant");
        report.take("instruct", instructed(&files, device));
        report.take("instruct.loss", losses::instructed(&files, device));
    } else {
        report
            .skipped
            .push(("instruct", files.name("-instruct.safetensors")));
    }
    progress("checkpoint files");
    files::compare(&files, &mut report);
    progress("tokenizer and preprocessing");
    llama_tokenizer(folder, &mut report);
    pictures::compare(folder, &mut report);
    progress("picture decoder");
    decoder::compare(&files, device, &mut report);
    let left = uncompared(&files, &report)?;
    report.uncompared.extend(left);
    Ok(report)
}

/// Goldens that are inputs of the comparisons.
const INPUTS: [&str; 5] = [
    "images",
    ".input_ids",
    ".attention_mask",
    ".generate_position_ids",
    ".causal_tokens",
];

fn uncompared(files: &Files, report: &Report) -> Result<Vec<String>, FolderError> {
    let goldens = files.goldens()?;
    let compared: HashSet<&str> = report.rows.iter().map(|row| row.tensor.as_str()).collect();
    let names = goldens.tensors().iter().map(|info| info.name.as_str());
    Ok(names
        .filter(|name| {
            !compared.contains(name) && !INPUTS.iter().any(|input| name.ends_with(input))
        })
        .map(str::to_owned)
        .collect())
}

/// The files of the language model's goldens, which share a stem: `tiny-emu` in the reference.
pub(crate) struct Files {
    folder: PathBuf,
    stem: String,
    /// The configuration.
    pub config: Value,
    /// The LLaMA folder that the configuration names.
    pub llama: PathBuf,
    /// What the goldens are.
    pub json: Value,
}

impl Files {
    fn find(folder: &Path) -> Result<Self, FolderError> {
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

    fn name(&self, ending: &str) -> String {
        format!("{}{ending}", self.stem)
    }

    fn path(&self, ending: &str) -> PathBuf {
        self.folder.join(self.name(ending))
    }

    fn goldens(&self) -> Result<SafetensorsFile, PackError> {
        SafetensorsFile::open(self.path("-golden.safetensors"))
    }

    /// The pretrained model's configuration, with the special tokens that the goldens state.
    fn pretrained(&self) -> Result<EmuConfig, FolderError> {
        let llama = read_json(&self.llama.join("config.json"))?;
        let config = reference::emu_config(&self.config, &llama)?;
        Ok(config)
    }

    /// The instruction-tuned model's, its adapter from the weights.
    fn instructed(&self, weights: &dyn TensorSource) -> Result<EmuConfig, FolderError> {
        let lora = self.json.get("instruct").and_then(|i| i.get("lora"));
        let mut config = self.pretrained()?.instruct();
        config.adapter = reference::adapter(weights, lora)?;
        Ok(config)
    }

    fn tokenizer(&self, instruct: bool) -> Result<EmuTokenizer, FolderError> {
        let path = self.llama.join("tokenizer.model");
        let bytes = read(&path)?;
        let tokenizer = EmuTokenizer::from_sentencepiece_bytes(&bytes, roles(instruct));
        Ok(tokenizer.map_err(ParityError::from)?)
    }
}

/// A model filled from a weight file, strictly.
pub(crate) fn open(
    path: &Path,
    config: &EmuConfig,
    map: &KeyMap,
    device: &Device,
) -> Result<Emu, FolderError> {
    let weights = open_weights(path)?;
    Ok(loaded(config.init(device)?, device, &*weights, map)?)
}

fn pretrained(files: &Files, device: &Device) -> Result<Vec<Row>, FolderError> {
    let source = files.goldens()?;
    let goldens = Goldens {
        tensors: &source,
        json: &files.json,
    };
    let config = files.pretrained()?;
    let emu = open(&files.path(".safetensors"), &config, &keys::emu()?, device)?;
    let subject = Subject {
        emu: &emu,
        config: &config,
        device,
    };
    let mut rows = core::forward(subject, &goldens)?;

    let text = files.tokenizer(false)?;
    let visual = core::embeddings(subject, &goldens)?;
    let generator = Generator {
        subject,
        tokenizer: &text,
        visual: &visual,
    };
    rows.extend(read_sync(generate::all(generator, &goldens))?);
    if let Some(cases) = files.json.get("tokenizer").and_then(Value::as_array) {
        rows.extend(tokenizer::cases("tokenizer", &text, cases)?);
    }
    let special = files.json.get("special_ids");
    rows.extend(tokenizer::specials_and_padding(
        "tokenizer",
        &text,
        special,
        None,
    )?);
    Ok(rows)
}

fn instructed(files: &Files, device: &Device) -> Result<Vec<Row>, FolderError> {
    let source = files.goldens()?;
    let goldens = Goldens {
        tensors: &source,
        json: &files.json,
    };
    let path = files.path("-instruct.safetensors");
    let config = files.instructed(&*open_weights(&path)?)?;
    let emu = open(&path, &config, &keys::emu_instruct()?, device)?;
    let subject = Subject {
        emu: &emu,
        config: &config,
        device,
    };

    let mut rows = vec![];
    let visual = core::embeddings(subject, &goldens)?;
    if goldens.has("instruct.image_embeds") {
        rows.push(goldens.compare("instruct.image_embeds", &visual, Bound::Forward));
    }
    core::batch(subject, &goldens, "instruct", &visual, &mut rows)?;
    rows.extend(core::merged(subject, &goldens));
    let text = files.tokenizer(true)?;
    let generator = Generator {
        subject,
        tokenizer: &text,
        visual: &visual,
    };
    rows.extend(read_sync(generate::instruct(generator, &goldens))?);
    Ok(rows)
}

/// The real LLaMA tokenizer, from both of its files, where the folder holds it.
fn llama_tokenizer(folder: &Path, report: &mut Report) {
    let (golden, tokenizer) = (
        folder.join("tokenizer-golden.json"),
        folder.join("llama-tokenizer"),
    );
    if !golden.is_file() || !tokenizer.is_dir() {
        let absent = if golden.is_file() {
            "llama-tokenizer"
        } else {
            "tokenizer-golden.json"
        };
        report.skipped.push(("LLaMA tokenizer", absent.into()));
        return;
    }
    for file in ["tokenizer.model", "tokenizer.json"] {
        let path = tokenizer.join(file);
        if !path.is_file() {
            report
                .skipped
                .push(("LLaMA tokenizer", format!("llama-tokenizer/{file}")));
            continue;
        }
        report.take(file, llama_cases(file, &path, &golden));
    }
}

fn llama_cases(file: &str, path: &Path, golden: &Path) -> Result<Vec<Row>, FolderError> {
    let (bytes, json) = (read(path)?, read_json(golden)?);
    let mut rows = vec![];
    for (variant, instruct) in [("pretrain", false), ("instruct", true)] {
        let Some(part) = json.get(variant) else {
            continue;
        };
        let text = match file.ends_with(".model") {
            true => EmuTokenizer::from_sentencepiece_bytes(&bytes, roles(instruct)),
            false => EmuTokenizer::from_base_json_bytes(&bytes, roles(instruct)),
        };
        let text = text.map_err(ParityError::from)?;
        let name = format!("{file} {variant}");
        let cases = part.get("cases").and_then(Value::as_array);
        rows.extend(tokenizer::cases(
            &name,
            &text,
            cases.map_or(&[][..], |c| c),
        )?);
        let padding = json.get("padding").filter(|_| !instruct);
        let special = part.get("special_ids");
        rows.extend(tokenizer::specials_and_padding(
            &name, &text, special, padding,
        )?);
    }
    Ok(rows)
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
