//! Locates the components of a published model.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use emu_model::config::EmuConfig;
use emu_model::reference;
use emu_model::tokenizer::{EmuTokenizer, Roles};
use emu_pack::convert::open_weights;
use emu_pack::{FileKind, TensorSource, Unwrapped, check_weights};
use serde_json::Value;

use crate::args::ConvertArgs;

/// Locations of a model's components.
pub struct Source {
    /// Weights of encoder and language model.
    pub file: PathBuf,
    /// Emu's configuration; `None` for that of the released model.
    config: Option<PathBuf>,
    /// LLaMA's configuration and tokenizer.
    llama: PathBuf,
    /// The diffusion decoder, if there is one.
    pub decoder: Option<DecoderFolders>,
    /// Default name of the pack.
    pub name: String,
}

/// Locations of the diffusion decoder's components.
pub struct DecoderFolders {
    /// UNet, a diffusers folder.
    pub unet: PathBuf,
    /// VAE, a diffusers folder.
    pub vae: PathBuf,
    /// `scheduler_config.json`.
    pub scheduler: PathBuf,
    /// Safety checker, a transformers folder.
    pub safety: Option<PathBuf>,
}

impl Source {
    /// Locates all components from the arguments.
    ///
    /// # Errors
    /// Where a component is missing or ambiguous.
    pub fn find(args: &ConvertArgs) -> Result<Self> {
        let mut source = Self::beside(&args.source, args.config.as_deref(), args.llama.as_deref())?;
        let folder = args.decoder.as_deref().unwrap_or_else(|| source.folder());
        let decoder = match args.no_decoder {
            true => None,
            false => DecoderFolders::find(folder, source.stem())?,
        };
        if args.decoder.is_some() && decoder.is_none() && !args.no_decoder {
            bail!(
                "{} holds no unet folder. Name the folder with unet, vae and scheduler.",
                folder.display()
            );
        }
        source.decoder = decoder;
        Ok(source)
    }

    /// Locates weights and configuration, without the decoder.
    ///
    /// # Errors
    /// As [`Source::find`].
    pub fn beside(path: &Path, config: Option<&Path>, llama: Option<&Path>) -> Result<Self> {
        if !path.exists() {
            bail!("There is nothing at {}. Check the path.", path.display());
        }
        let file = match path.is_dir() {
            true => weights_in(path)?,
            // For a shard, the index next to it.
            false => match is_shard(path) {
                true => index_in(path.parent().unwrap_or(Path::new(".")))?,
                false => None,
            }
            .unwrap_or_else(|| path.to_owned()),
        };
        check_weights(&file)?;
        let folder = file.parent().unwrap_or(Path::new(".")).to_owned();
        let found = config
            .map(Path::to_owned)
            .or_else(|| config_in(&folder, &file));
        let llama = match llama {
            Some(llama) => llama.to_owned(),
            None => llama_for(&folder, found.as_deref())?,
        };
        // Indices have the same file name everywhere, so the folder gives the name.
        let named = match is_index(&file) {
            true => folder.file_name(),
            false => file.file_stem(),
        };
        let name = named.unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self {
            file,
            config: found,
            llama,
            decoder: None,
            name,
        })
    }

    /// [`Source::beside`], plus the decoder if it is wanted and exists.
    ///
    /// # Errors
    /// As [`Source::find`].
    pub fn with_decoder(path: &Path, wanted: bool) -> Result<Self> {
        let mut source = Self::beside(path, None, None)?;
        if wanted {
            source.decoder = DecoderFolders::find(source.folder(), source.stem())?;
        }
        Ok(source)
    }

    fn folder(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new("."))
    }

    /// `tiny-` for `tiny-emu-config.json`; empty for a configuration of another name.
    fn stem(&self) -> &str {
        let name = self
            .config
            .as_deref()
            .and_then(Path::file_name)
            .and_then(|n| n.to_str());
        name.and_then(|name| name.strip_suffix("emu-config.json"))
            .unwrap_or("")
    }

    /// The files and folders that a conversion reads.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let decoder = self.decoder.iter().flat_map(|decoder| {
            let folders = [&decoder.unet, &decoder.vae, &decoder.scheduler];
            folders.into_iter().chain(&decoder.safety)
        });
        let main = [&self.file, &self.llama];
        let paths = main.into_iter().chain(&self.config).chain(decoder);
        paths.map(PathBuf::as_path)
    }

    /// Opens the weights.
    ///
    /// # Errors
    /// Where the file is no checkpoint, or is corrupt.
    pub fn weights(&self) -> Result<Box<dyn TensorSource + Send + Sync>> {
        let weights = open_weights(&self.file)?;
        Ok(Box::new(Unwrapped::new(weights, &emu_model::keys::emu()?)?))
    }

    /// The model's configuration: sizes from the configuration files, the adapter's from the weights.
    ///
    /// # Errors
    /// Where a file cannot be read or has invalid values.
    pub fn emu_config(&self, weights: &dyn TensorSource) -> Result<EmuConfig> {
        let mut config = match &self.config {
            Some(path) => {
                let llama = read_json(&self.llama.join("config.json"))?;
                reference::emu_config(&read_json(path)?, &llama)
                    .with_context(|| format!("configuration {}", path.display()))?
            }
            None => EmuConfig::emu_14b(),
        };
        if let Some(adapter) = reference::adapter(weights, None)? {
            config = config.instruct();
            config.adapter = Some(adapter);
        }
        Ok(config)
    }

    /// The tokenizer, with Emu's special tokens where the model has them.
    ///
    /// # Errors
    /// Where LLaMA's folder has no tokenizer, or its special tokens get other ids than the model's.
    pub fn tokenizer_json(&self, config: &EmuConfig) -> Result<String> {
        let roles = match config.special.user {
            Some(_) => Roles::Instruct,
            None => Roles::Pretrain,
        };
        let (model, json) = (
            self.llama.join("tokenizer.model"),
            self.llama.join("tokenizer.json"),
        );
        let tokenizer = if model.is_file() {
            EmuTokenizer::from_sentencepiece_bytes(&read(&model)?, roles)
                .with_context(|| format!("tokenizer {}", model.display()))?
        } else if json.is_file() {
            EmuTokenizer::from_base_json_bytes(&read(&json)?, roles)
                .with_context(|| format!("tokenizer {}", json.display()))?
        } else {
            bail!(
                "{} holds neither tokenizer.model nor tokenizer.json. Name the folder of LLaMA's tokenizer with --llama.",
                self.llama.display()
            );
        };
        if tokenizer.specials().image != config.special.image {
            bail!(
                "The tokenizer gives <image> the id {}, the model wants {}. Name the tokenizer that came with the model with --llama.",
                tokenizer.specials().image,
                config.special.image
            );
        }
        Ok(tokenizer.to_json()?)
    }
}

impl DecoderFolders {
    /// Locates the decoder's folders below `folder`. Their names may start with `prefix`. `None` without a UNet.
    fn find(folder: &Path, prefix: &str) -> Result<Option<Self>> {
        let at = |names: &[&str]| -> Option<PathBuf> {
            let names = names
                .iter()
                .flat_map(|name| [format!("{prefix}{name}"), (*name).to_owned()]);
            names
                .map(|name| folder.join(name))
                .find(|path| path.exists())
        };
        let Some(unet) = at(&["unet"]) else {
            return Ok(None);
        };
        let lacks = |what: &str| {
            format!(
                "{} has a unet but no {what}. Complete the folder, or leave the decoder out with --no-decoder.",
                folder.display()
            )
        };
        Ok(Some(Self {
            unet,
            vae: at(&["vae"]).with_context(|| lacks("vae"))?,
            scheduler: at(&[
                "scheduler/scheduler_config.json",
                "schedulers/pndm/scheduler_config.json",
            ])
            .with_context(|| lacks("scheduler"))?,
            safety: at(&["safety_checker", "safety-checker"]),
        }))
    }
}

/// The weight file in a folder: the one named like the configuration, else an index, else the only weight file.
fn weights_in(folder: &Path) -> Result<PathBuf> {
    let inner = folder.join("multimodal_encoder");
    let folder = if inner.is_dir() {
        inner.as_path()
    } else {
        folder
    };
    let names = names_in(folder)?;
    let stem = names
        .iter()
        .find_map(|name| name.strip_suffix("-emu-config.json"));
    if let Some(stem) = stem {
        for ending in [".safetensors", ".pt"] {
            let file = folder.join(format!("{stem}-emu{ending}"));
            if file.is_file() {
                return Ok(file);
            }
        }
    }
    if let Some(index) = index_in(folder)? {
        return Ok(index);
    }
    let kinds = [".safetensors", ".pt", ".pth", ".bin"];
    let found: Vec<&String> = names
        .iter()
        .filter(|name| kinds.iter().any(|kind| name.ends_with(kind)))
        .collect();
    match found.as_slice() {
        [one] => Ok(folder.join(one)),
        [] => bail!(
            "{} holds no weights. Name the file of Emu's weights.",
            folder.display()
        ),
        many => bail!(
            "{} holds several weight files ({}). Name the one to convert.",
            folder.display(),
            many.iter()
                .map(|name| name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        ),
    }
}

/// Suffixes of index files, which map tensors to shards, in order of preference.
const INDICES: [&str; 2] = [".safetensors.index.json", ".bin.index.json"];

fn is_index(file: &Path) -> bool {
    let name = file.to_string_lossy();
    INDICES.iter().any(|ending| name.ends_with(ending))
}

/// The only shard index in a folder.
fn index_in(folder: &Path) -> Result<Option<PathBuf>> {
    let names = names_in(folder)?;
    for ending in INDICES {
        let found: Vec<_> = names.iter().filter(|name| name.ends_with(ending)).collect();
        match found.as_slice() {
            [] => {}
            [one] => return Ok(Some(folder.join(one))),
            [first, second, ..] => bail!(
                "{} holds several indices of shards ({first}, {second}). Name the one to convert.",
                folder.display()
            ),
        }
    }
    Ok(None)
}

/// Whether a file name is that of a shard, e.g. `model-00001-of-00002.safetensors`.
fn is_shard(file: &Path) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let parts = stem.rsplit_once("-of-").and_then(|(rest, count)| {
        let (_, at) = rest.rsplit_once('-')?;
        Some((at.to_owned(), count.to_owned()))
    });
    parts.is_some_and(|(at, count)| number(&at) && number(&count))
}

/// Emu's configuration next to its weights.
fn config_in(folder: &Path, file: &Path) -> Option<PathBuf> {
    let names = names_in(folder).ok()?;
    let stem = file.file_stem()?.to_string_lossy().into_owned();
    // `tiny-emu-config.json` fits `tiny-emu.pt` and `tiny-emu-instruct.pt`.
    let fits = |name: &&String| {
        name.strip_suffix("-config.json")
            .is_some_and(|own| own.ends_with("emu") && stem.starts_with(own))
    };
    let own = names.iter().find(fits).or_else(|| {
        // An index has a fixed file name, so any single configuration fits it.
        let mut all = names
            .iter()
            .filter(|name| name.ends_with("emu-config.json"));
        let first = all.next().filter(|_| is_index(file))?;
        all.next().is_none().then_some(first)
    });
    let released = names
        .iter()
        .find(|name| name.starts_with("Emu-") && name.ends_with(".json"));
    Some(folder.join(own.or(released)?))
}

/// The LLaMA folder that a configuration names, or one next to the weights.
fn llama_for(folder: &Path, config: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = config
        && let Some(named) = read_json(path)?.get("llama_config").and_then(Value::as_str)
        && let Some(llama) = folder.join(named).parent()
    {
        return Ok(llama.to_owned());
    }
    let has_config = |path: &PathBuf| path.join("config.json").is_file();
    let mut folders: Vec<PathBuf> = names_in(folder)?
        .iter()
        .map(|name| folder.join(name))
        .collect();
    folders.retain(|path| path.to_string_lossy().to_lowercase().contains("llama"));
    folders.into_iter().find(has_config).with_context(|| {
        format!(
            "{} holds no folder of LLaMA's configuration and tokenizer. Name it with --llama.",
            folder.display()
        )
    })
}

fn names_in(folder: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("{} cannot be read; check the path", folder.display()))?;
    let names =
        entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort();
    Ok(names)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path)
        .with_context(|| format!("{} cannot be read; check the path", path.display()))
}

/// Reads a JSON file.
///
/// # Errors
/// Where it cannot be read or is no JSON.
pub fn read_json(path: &Path) -> Result<Value> {
    let bytes = read(path)?;
    if let kind @ (FileKind::LfsPointer | FileKind::WebPage) = FileKind::of(&bytes) {
        bail!("{} {}.", path.display(), kind.refused());
    }
    serde_json::from_slice(&bytes)
        .with_context(|| format!("{} is no JSON; take the published file", path.display()))
}
