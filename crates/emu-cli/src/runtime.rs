//! A pack, opened on a device; its parts are loaded when they are first needed.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use emu_kernels::device::{DeviceChoice, Opened, open};
use emu_model::diffusion::{Decoder, DecoderConfig};
use emu_model::pack::{self, ModelConfig};
use emu_model::prompt::Prompter;
use emu_model::safety::{SafetyChecker, SafetyConfig};
use emu_model::tokenizer::EmuTokenizer;
use emu_model::{Emu, EmuConfig};
use emu_pack::convert::GgufFile;
use emu_pack::{Manifest, PackReader};

use crate::args::ModelArgs;
use crate::models;
use crate::output::spinner;

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// Name of the manifest among a pack's files.
const MANIFEST: &str = "emu.json";

/// Opens a pack: a folder, or the one inside this program.
///
/// # Errors
/// Where there is none, or its manifest is unusable.
pub fn open_pack(model: Option<&Path>) -> Result<PackReader> {
    if let Some(model) = model {
        let folder = &models::resolve(model)?;
        if !folder.exists() {
            bail!(
                "There is no pack at {}. Give the folder that holds its {MANIFEST}.",
                folder.display()
            );
        }
        if GgufFile::is_one(folder) {
            bail!(
                "{} is a language model alone, which only `emu chat` runs. Give the folder of a pack.",
                folder.display()
            );
        }
        return Ok(PackReader::open(folder)?);
    }
    let file = |name: &str| {
        FILES
            .iter()
            .find(|(file, _)| *file == name)
            .map(|(_, bytes)| *bytes)
    };
    let Some(manifest) = file(MANIFEST) else {
        bail!("This program was built without a model inside. Name a pack with --model.");
    };
    let fetch = move |name: &str| {
        let bytes = file(name).ok_or("it is not inside this program")?;
        Ok(Cow::Borrowed(bytes))
    };
    Ok(PackReader::from_bytes(manifest, fetch)?)
}

/// An opened model.
pub struct Runtime {
    reader: PackReader,
    /// Sizes and templates.
    pub config: ModelConfig,
    /// Texts to ids and back.
    pub tokenizer: EmuTokenizer,
    /// Where it runs.
    pub opened: Opened,
    emu: OnceCell<Emu>,
    decoder: OnceCell<Decoder>,
    safety: OnceCell<SafetyChecker>,
}

impl Runtime {
    /// Opens the pack that the arguments name. No weight is read yet.
    ///
    /// # Errors
    /// Where pack, tokenizer or device cannot be had.
    pub fn open(args: &ModelArgs) -> Result<Self> {
        Self::from_reader(open_pack(args.model.as_deref())?, args.device.choice())
    }

    /// The model of an opened pack.
    ///
    /// # Errors
    /// As [`Runtime::open`].
    pub fn from_reader(reader: PackReader, device: DeviceChoice) -> Result<Self> {
        let config = ModelConfig::from_value(&reader.manifest().config)?;
        let tokenizer = EmuTokenizer::from_json_bytes(&reader.file(pack::TOKENIZER)?)?;
        if tokenizer.vocab_size() > config.emu.lm.vocab {
            bail!(
                "The pack's tokenizer has {} tokens, its language model {}. Convert the model again with its own tokenizer.",
                tokenizer.vocab_size(),
                config.emu.lm.vocab
            );
        }
        Ok(Self {
            opened: open(device)?,
            reader,
            config,
            tokenizer,
            emu: OnceCell::new(),
            decoder: OnceCell::new(),
            safety: OnceCell::new(),
        })
    }

    /// Sizes of encoder and language model.
    pub fn emu_config(&self) -> &EmuConfig {
        &self.config.emu
    }

    /// What the pack says of itself.
    pub fn manifest(&self) -> &Manifest {
        self.reader.manifest()
    }

    /// A file of the pack.
    ///
    /// # Errors
    /// Where it is missing or damaged.
    pub fn file(&self, name: &str) -> Result<Vec<u8>> {
        Ok(self.reader.file(name)?.to_vec())
    }

    /// Encoder and language model.
    ///
    /// # Errors
    /// Where a tensor is missing, misshapen or damaged.
    pub fn emu(&self) -> Result<&Emu> {
        filled(&self.emu, "loading the language model", || {
            pack::load_emu(&self.reader, &self.config.emu, &self.opened.device)
        })
    }

    /// What makes prompts for it.
    ///
    /// # Errors
    /// As [`Runtime::emu`].
    pub fn prompter(&self) -> Result<Prompter<'_>> {
        Ok(Prompter {
            emu: self.emu()?,
            config: self.emu_config(),
            tokenizer: &self.tokenizer,
            device: &self.opened.device,
        })
    }

    /// Sizes of what draws.
    ///
    /// # Errors
    /// Where the pack cannot draw.
    pub fn decoder_config(&self) -> Result<&DecoderConfig> {
        self.config.decoder.as_ref().ok_or_else(|| {
            anyhow!("This pack has no decoder, so it cannot draw. Use a pack with one.")
        })
    }

    /// What draws.
    ///
    /// # Errors
    /// Where the pack cannot draw, or as [`Runtime::emu`].
    pub fn decoder(&self) -> Result<(&Decoder, &DecoderConfig)> {
        let config = self.decoder_config()?;
        let decoder = filled(&self.decoder, "loading the decoder", || {
            pack::load_decoder(&self.reader, config, &self.opened.device)
        })?;
        Ok((decoder, config))
    }

    /// What checks drawn pictures, if the pack has it.
    ///
    /// # Errors
    /// As [`Runtime::emu`].
    pub fn safety(&self) -> Result<Option<(&SafetyChecker, &SafetyConfig)>> {
        let Some(config) = &self.config.safety else {
            return Ok(None);
        };
        let checker = filled(&self.safety, "loading the safety checker", || {
            pack::load_safety(&self.reader, config, &self.opened.device)
        })?;
        Ok(Some((checker, config)))
    }
}

fn filled<'a, T>(
    cell: &'a OnceCell<T>,
    what: &str,
    load: impl FnOnce() -> Result<T, pack::LoadError>,
) -> Result<&'a T> {
    if cell.get().is_none() {
        let spinner = spinner(what);
        let loaded = load()?;
        spinner.finish_and_clear();
        let _ = cell.set(loaded);
    }
    cell.get()
        .context("The model was not kept after loading. Start the program again")
}
