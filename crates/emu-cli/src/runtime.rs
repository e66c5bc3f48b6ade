//! A pack opened on a device. Its components are loaded on first use.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use emu_kernels::device::{DeviceChoice, Opened, open};
use emu_model::diffusion::{Decoder, DecoderConfig};
use emu_model::pack::{self, ModelConfig};
use emu_model::pictures::PictureCache;
use emu_model::prompt::Prompter;
use emu_model::safety::{SafetyChecker, SafetyConfig};
use emu_model::{Emu, EmuConfig};
use emu_pack::convert::GgufFile;
use emu_pack::{Manifest, PackReader};
use emu_tokenizer::EmuTokenizer;
use sha2::{Digest, Sha256};

use crate::args::ModelArgs;
use crate::models;
use crate::output::spinner;

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// File name of the manifest in a pack.
const MANIFEST: &str = "emu.json";

/// Opens a pack: from a folder, or the one embedded in this program.
///
/// # Errors
/// Where there is no pack, or its manifest is invalid.
pub fn open_pack(model: Option<&Path>) -> Result<PackReader> {
    if let Some(model) = model {
        let folder = &models::resolve(model)?;
        if !folder.exists() || folder.is_dir() && !folder.join(MANIFEST).is_file() {
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
    /// Sizes and prompt templates.
    pub config: ModelConfig,
    /// Encodes text to token ids and decodes ids to text.
    pub tokenizer: EmuTokenizer,
    /// The device.
    pub opened: Opened,
    emu: OnceCell<Emu>,
    decoder: OnceCell<Decoder>,
    safety: OnceCell<SafetyChecker>,
    /// Visual embeddings of the pictures read before.
    pictures: PictureCache,
}

impl Runtime {
    /// Opens the pack that the arguments name. Does not load weights.
    ///
    /// # Errors
    /// Where the pack, the tokenizer or the device cannot be opened.
    pub fn open(args: &ModelArgs) -> Result<Self> {
        Self::from_reader(open_pack(args.model.as_deref())?, args.device.choice())
    }

    /// Opens the model of an opened pack.
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
            pictures: PictureCache::default(),
        })
    }

    /// Configuration of encoder and language model.
    pub fn emu_config(&self) -> &EmuConfig {
        &self.config.emu
    }

    /// The pack's manifest.
    pub fn manifest(&self) -> &Manifest {
        self.reader.manifest()
    }

    /// Name of the model, and the first digits of its manifest's hash: results of different packs are not mixed.
    ///
    /// # Errors
    /// Where the manifest cannot be written as JSON.
    pub fn identity(&self) -> Result<String> {
        let digest = Sha256::digest(serde_json::to_vec(self.manifest())?);
        let hash = emu_pack::hex(&digest[..6]);
        Ok(format!("{} {hash}", self.manifest().name))
    }

    /// Reads a file of the pack.
    ///
    /// # Errors
    /// Where it is missing or corrupt.
    pub fn file(&self, name: &str) -> Result<Vec<u8>> {
        Ok(self.reader.file(name)?.to_vec())
    }

    /// Encoder and language model.
    ///
    /// # Errors
    /// Where a tensor is missing, has the wrong shape or is corrupt.
    pub fn emu(&self) -> Result<&Emu> {
        filled(&self.emu, "loading the language model", || {
            pack::load_emu(&self.reader, &self.config.emu, &self.opened.device)
        })
    }

    /// Builds prompts for encoder and language model.
    ///
    /// # Errors
    /// As [`Runtime::emu`].
    pub fn prompter(&self) -> Result<Prompter<'_>> {
        Ok(Prompter {
            emu: self.emu()?,
            config: self.emu_config(),
            tokenizer: &self.tokenizer,
            device: &self.opened.device,
            pictures: Some(&self.pictures),
        })
    }

    /// Configuration of the diffusion decoder.
    ///
    /// # Errors
    /// Where the pack has no decoder.
    pub fn decoder_config(&self) -> Result<&DecoderConfig> {
        self.config.decoder.as_ref().ok_or_else(|| {
            anyhow!("This pack has no decoder, so it cannot draw. Use a pack with one.")
        })
    }

    /// The diffusion decoder and its configuration.
    ///
    /// # Errors
    /// Where the pack has no decoder, or as [`Runtime::emu`].
    pub fn decoder(&self) -> Result<(&Decoder, &DecoderConfig)> {
        let config = self.decoder_config()?;
        let decoder = filled(&self.decoder, "loading the decoder", || {
            pack::load_decoder(&self.reader, config, &self.opened.device)
        })?;
        Ok((decoder, config))
    }

    /// The safety checker for drawn pictures, if the pack has one.
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
