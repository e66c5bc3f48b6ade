//! Locates the components of a published model.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use emu_model::config::EmuConfig;
use emu_model::reference;
use emu_pack::{TensorSource, Unwrapped};
use emu_tokenizer::{EmuTokenizer, Roles};
use serde_json::Value;

use super::files::{Files, Place};
use crate::args::ConvertArgs;

/// Locations of a model's components.
pub struct Source {
    /// Where weights and decoder are.
    pub files: Files,
    /// Weights of encoder and language model.
    pub file: PathBuf,
    /// Emu's configuration; `None` for that of the released model.
    config: Option<Place>,
    /// The folder of LLaMA's configuration and tokenizer, if one was found.
    llama: Option<Place>,
    /// The diffusion decoder, if there is one.
    pub decoder: Option<DecoderFolders>,
    /// Default name of the pack.
    pub name: String,
}

/// Locations of the diffusion decoder's components.
pub struct DecoderFolders {
    /// Where they are.
    pub files: Files,
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
        let disk = |path: &Option<PathBuf>| path.as_deref().map(Place::disk);
        let place = Place::disk(&args.source);
        let mut source = Self::beside(&place, disk(&args.config), disk(&args.llama))?;
        source.llama()?;
        source.decoder = match &args.decoder {
            _ if args.no_decoder => None,
            None => source.decoder_near(&args.source)?,
            Some(folder) => {
                let found = DecoderFolders::find(&Files::Disk, folder, source.stem())?;
                if found.is_none() {
                    bail!(
                        "{} holds no unet folder. Name the folder with unet, vae and scheduler.",
                        folder.display()
                    );
                }
                found
            }
        };
        Ok(source)
    }

    /// Locates weights and configuration, without the decoder.
    ///
    /// # Errors
    /// As [`Source::find`]; the LLaMA folder may be missing.
    pub fn beside(place: &Place, config: Option<Place>, llama: Option<Place>) -> Result<Self> {
        let (files, path) = (&place.files, place.path.as_path());
        if !files.exists(path) {
            bail!("There is nothing at {}. Check the path.", place.show());
        }
        let file = match files.is_dir(path) {
            true => weights_in(files, path)?,
            // For a shard, the index next to it.
            false => match is_shard(path) {
                true => index_in(files, path.parent().unwrap_or(Path::new(".")))?,
                false => None,
            }
            .unwrap_or_else(|| path.to_owned()),
        };
        files.check_weights(&file)?;
        let folder = file.parent().unwrap_or(Path::new(".")).to_owned();
        let at = |path: PathBuf| Place {
            files: files.clone(),
            path,
        };
        let config = config.or_else(|| config_in(files, &folder, &file).map(at));
        let llama = match llama {
            Some(llama) => Some(llama),
            None => llama_for(files, &folder, config.as_ref())?,
        };
        // Indices have the same file name everywhere, so the folder gives the name.
        let named = match is_index(&file) {
            true => folder.file_name(),
            false => file.file_stem(),
        };
        let name = named.unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self {
            files: files.clone(),
            file,
            config,
            llama,
            decoder: None,
            name,
        })
    }

    /// [`Source::beside`] on disk, plus the decoder if it is wanted and exists.
    ///
    /// # Errors
    /// As [`Source::find`].
    pub fn with_decoder(path: &Path, wanted: bool) -> Result<Self> {
        let mut source = Self::beside(&Place::disk(path), None, None)?;
        source.llama()?;
        if wanted {
            source.find_decoder(path)?;
        }
        Ok(source)
    }

    /// Locates the decoder, if there is one in the folder `path` or beside the weights.
    ///
    /// # Errors
    /// Where it is incomplete.
    pub fn find_decoder(&mut self, path: &Path) -> Result<()> {
        self.decoder = self.decoder_near(path)?;
        Ok(())
    }

    /// The folder of LLaMA's configuration and tokenizer.
    ///
    /// # Errors
    /// Where none was found.
    pub fn llama(&self) -> Result<&Place> {
        self.llama.as_ref().with_context(|| {
            format!(
                "{} holds no folder of LLaMA's configuration and tokenizer. Name it with --llama.",
                self.files.show(self.folder())
            )
        })
    }

    /// The decoder in the source's folder, or else beside the weights: the released model has its weights in a folder
    /// beside those of the decoder.
    fn decoder_near(&self, path: &Path) -> Result<Option<DecoderFolders>> {
        if self.files.is_dir(path)
            && let Some(found) = DecoderFolders::find(&self.files, path, self.stem())?
        {
            return Ok(Some(found));
        }
        DecoderFolders::find(&self.files, self.folder(), self.stem())
    }

    fn folder(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new("."))
    }

    /// `tiny-` for `tiny-emu-config.json`; empty for a configuration of another name.
    fn stem(&self) -> &str {
        let name = { self.config.as_ref() }
            .and_then(|config| config.path.file_name())
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
        let others = self.llama.iter().chain(&self.config);
        let others = others.map(|place| &place.path);
        let paths = std::iter::once(&self.file).chain(others).chain(decoder);
        paths.map(PathBuf::as_path)
    }

    /// Opens the weights.
    ///
    /// # Errors
    /// Where the file is no checkpoint, or is corrupt.
    pub fn weights(&self) -> Result<Box<dyn TensorSource + Send + Sync>> {
        let weights = self.files.weights(&self.file)?;
        Ok(Box::new(Unwrapped::new(weights, &emu_model::keys::emu()?)?))
    }

    /// The model's configuration: sizes from the configuration files, the adapter's from the weights.
    ///
    /// # Errors
    /// Where a file cannot be read or has invalid values.
    pub fn emu_config(&self, weights: &dyn TensorSource) -> Result<EmuConfig> {
        let mut config = match &self.config {
            Some(place) => {
                let llama = self.llama()?.join("config.json").json()?;
                reference::emu_config(&place.json()?, &llama)
                    .with_context(|| format!("configuration {}", place.show()))?
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
        let llama = self.llama()?;
        let (model, json) = (llama.join("tokenizer.model"), llama.join("tokenizer.json"));
        let tokenizer = if model.is_file() {
            EmuTokenizer::from_sentencepiece_bytes(&model.read()?, roles)
                .with_context(|| format!("tokenizer {}", model.show()))?
        } else if json.is_file() {
            EmuTokenizer::from_base_json_bytes(&json.read()?, roles)
                .with_context(|| format!("tokenizer {}", json.show()))?
        } else {
            bail!(
                "{} holds neither tokenizer.model nor tokenizer.json. Name the folder of LLaMA's tokenizer with --llama.",
                llama.show()
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
    fn find(files: &Files, folder: &Path, prefix: &str) -> Result<Option<Self>> {
        let at = |names: &[&str]| -> Option<PathBuf> {
            let names = names
                .iter()
                .flat_map(|name| [format!("{prefix}{name}"), (*name).to_owned()]);
            names
                .map(|name| folder.join(name))
                .find(|path| files.exists(path))
        };
        let Some(unet) = at(&["unet"]) else {
            return Ok(None);
        };
        let lacks = |what: &str| {
            format!(
                "{} has a unet but no {what}. Complete the folder, or leave the decoder out with --no-decoder.",
                files.show(folder)
            )
        };
        Ok(Some(Self {
            files: files.clone(),
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
fn weights_in(files: &Files, folder: &Path) -> Result<PathBuf> {
    let inner = folder.join("multimodal_encoder");
    let folder = if files.is_dir(&inner) {
        inner.as_path()
    } else {
        folder
    };
    let names = files.names(folder)?;
    let stem = names
        .iter()
        .find_map(|name| name.strip_suffix("-emu-config.json"));
    if let Some(stem) = stem {
        for ending in [".safetensors", ".pt"] {
            let file = folder.join(format!("{stem}-emu{ending}"));
            if files.is_file(&file) {
                return Ok(file);
            }
        }
    }
    if let Some(index) = index_in(files, folder)? {
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
            files.show(folder)
        ),
        many => bail!(
            "{} holds several weight files ({}). Name the one to convert.",
            files.show(folder),
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
fn index_in(files: &Files, folder: &Path) -> Result<Option<PathBuf>> {
    let names = files.names(folder)?;
    for ending in INDICES {
        let found: Vec<_> = names.iter().filter(|name| name.ends_with(ending)).collect();
        match found.as_slice() {
            [] => {}
            [one] => return Ok(Some(folder.join(one))),
            [first, second, ..] => bail!(
                "{} holds several indices of shards ({first}, {second}). Name the one to convert.",
                files.show(folder)
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
fn config_in(files: &Files, folder: &Path, file: &Path) -> Option<PathBuf> {
    let names = files.names(folder).ok()?;
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
fn llama_for(files: &Files, folder: &Path, config: Option<&Place>) -> Result<Option<Place>> {
    let at = |path: &Path| Place {
        files: files.clone(),
        path: path.to_owned(),
    };
    if let Some(place) = config
        && let Some(named) = place.json()?.get("llama_config").and_then(Value::as_str)
        && let Some(llama) = folder.join(named).parent()
    {
        return Ok(Some(at(llama)));
    }
    let names = files.names(folder)?;
    let folders = names
        .iter()
        .map(|name| folder.join(name))
        .filter(|path| path.to_string_lossy().to_lowercase().contains("llama"));
    let mut folders = folders.map(|path| at(&path));
    Ok(folders.find(|llama| llama.join("config.json").is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source whose weights are in `file`, with nothing else known.
    fn source(file: &Path) -> Source {
        Source {
            files: Files::Disk,
            file: file.to_owned(),
            config: None,
            llama: None,
            decoder: None,
            name: "emu".into(),
        }
    }

    #[test]
    fn the_decoder_of_the_released_layout_is_found() {
        let root = tempfile::tempdir().expect("a folder");
        let weights = root.path().join("multimodal_encoder/pytorch_model.bin");
        std::fs::create_dir(root.path().join("multimodal_encoder")).expect("a folder");
        let source = source(&weights);
        let found = || source.decoder_near(root.path()).expect("complete folders");
        assert!(found().is_none());
        for folder in ["unet", "vae", "scheduler"] {
            std::fs::create_dir(root.path().join(folder)).expect("a folder");
        }
        let scheduler = root.path().join("scheduler/scheduler_config.json");
        std::fs::write(&scheduler, "{}").expect("a file");
        let decoder = found().expect("a decoder");
        assert_eq!(decoder.unet, root.path().join("unet"));
        assert_eq!(decoder.scheduler, scheduler);
        // Named by its file, the weights have the decoder beside them or none.
        assert!(source.decoder_near(&weights).expect("no folder").is_none());
    }
}
