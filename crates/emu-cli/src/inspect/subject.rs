//! What is inspected: a pack or a checkpoint, on disk or on the hub, and its conversions, planned from headers alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use emu_model::pack::{self, ModelConfig};
use emu_pack::convert::{Forecast, GgufFile, PackMeta, WriteOptions, forecast};
use emu_pack::{MANIFEST_FILE, Manifest, TensorInfo};

use crate::args::InspectArgs;
use crate::convert::{
    Checkpoint, Files, Place, Source, is_pack, is_run, meta_of, null_prompt, presets, tensors_of,
};
use crate::error_line::message;
use crate::models;
use crate::output::spinner;
use crate::runtime::open_pack;

/// A pack or a checkpoint.
pub struct Subject {
    /// Path, address, or what stands for it.
    pub source: String,
    /// Name of the model.
    pub name: String,
    /// Its configuration.
    pub config: ModelConfig,
    /// The manifest, if it is a pack.
    pub pack: Option<Manifest>,
    /// A conversion to each precision of `--quantize`, the most accurate first.
    pub conversions: Vec<Conversion>,
    /// The transfer that precedes everything, if it is on the hub.
    pub download: Option<Download>,
    /// What the figures leave out, in sentences.
    pub notes: Vec<String>,
}

/// A conversion that has not taken place.
pub struct Conversion {
    /// The precision, as `--quantize` takes it.
    pub quantize: &'static str,
    /// What it will write.
    pub forecast: Forecast,
    /// Bytes of memory at most, besides the program.
    pub memory: u64,
    /// Time of encoding and hashing, from samples that were measured now. Reading and writing come on top.
    pub encoding: Duration,
}

/// A transfer from the hub.
pub struct Download {
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes of those that the cache does not have.
    pub missing: u64,
    /// Folder of the cache.
    pub cache: PathBuf,
    /// Free bytes of the cache's disk, if the system reports them.
    pub free: Option<u64>,
}

impl Subject {
    /// Opens what the arguments name. Reads headers and configurations; with `--verify`, every byte of a pack.
    ///
    /// # Errors
    /// Where there is nothing, or a file is missing, invalid or does not fit the others.
    pub fn open(args: &InspectArgs) -> Result<Self> {
        let Some(source) = &args.source else {
            return Self::local_pack(args, None);
        };
        let place = Place::of(source)?;
        let remote = match &place.files {
            Files::Disk => return Self::local(args, &models::resolve(source)?),
            Files::Hub(remote) => remote,
        };
        let mut subject = if place.join(MANIFEST_FILE).is_file() {
            if args.verify {
                bail!(
                    "{} is on the hub, and --verify reads every byte. Fetch it first with `emu fetch`.",
                    source.display()
                );
            }
            let manifest = Manifest::parse(MANIFEST_FILE, &place.join(MANIFEST_FILE).read()?)?;
            Self::of_pack(args, place.show(), manifest)?
        } else {
            if place
                .path
                .extension()
                .is_some_and(|ending| ending == "gguf")
            {
                return Err(alone(source));
            }
            Self::checkpoint(args, &place)?
        };
        subject.download = Some(Download {
            bytes: remote.bytes(),
            missing: remote.missing(),
            cache: remote.cache().to_owned(),
            free: emu_hub::free_space(remote.cache()),
        });
        Ok(subject)
    }

    fn local(args: &InspectArgs, path: &Path) -> Result<Self> {
        let manifest = path.file_name().is_some_and(|name| name == MANIFEST_FILE);
        if is_pack(path) || manifest {
            return Self::local_pack(args, Some(path));
        }
        if is_run(path) {
            bail!(
                "{} is a training run, and what it needs is known of its pack. Convert it first with `emu convert`.",
                path.display()
            );
        }
        if GgufFile::is_one(path) {
            return Err(alone(path));
        }
        Self::checkpoint(args, &Place::disk(path))
    }

    fn local_pack(args: &InspectArgs, path: Option<&Path>) -> Result<Self> {
        let reader = open_pack(path)?;
        if args.verify {
            let waiting = spinner("checking every byte");
            reader.verify()?;
            waiting.finish_and_clear();
        }
        let source = path.map_or_else(
            || "inside this program".to_owned(),
            |path| path.display().to_string(),
        );
        let mut subject = Self::of_pack(args, source, reader.manifest().clone())?;
        let missing = { path.zip(subject.pack.as_ref()) }
            .map(|(path, manifest)| missing(path, manifest))
            .unwrap_or_default();
        if !missing.is_empty() {
            subject.notes.push(format!(
                "The pack lacks {}. Fetch or copy it again; until then, what needs it does not run.",
                missing.join(", ")
            ));
        }
        Ok(subject)
    }

    fn of_pack(args: &InspectArgs, source: String, manifest: Manifest) -> Result<Self> {
        if args.no_decoder || args.config.is_some() || args.llama.is_some() {
            bail!(
                "{source} is a pack, and --config, --llama and --no-decoder are for checkpoints. Leave them out."
            );
        }
        let config = ModelConfig::from_value(&manifest.config)?;
        let files = manifest.files.iter();
        let files: Vec<(&str, u64)> = files.map(|file| (file.file.as_str(), file.bytes)).collect();
        let tensors = tensors_of(&manifest, false);
        let conversions = conversions(&tensors, &meta_of(&manifest), &files, false)?;
        Ok(Self {
            source,
            name: manifest.name.clone(),
            config,
            conversions,
            download: None,
            notes: vec![],
            pack: Some(manifest),
        })
    }

    fn checkpoint(args: &InspectArgs, place: &Place) -> Result<Self> {
        if args.verify {
            bail!(
                "{} is no pack, and only packs have checksums. Leave out --verify.",
                place.show()
            );
        }
        let other = |path: &Option<PathBuf>| path.as_deref().map(Place::of).transpose();
        let mut source = Source::beside(place, other(&args.config)?, other(&args.llama)?)?;
        if !args.no_decoder {
            source.find_decoder(&place.path)?;
        }
        let checkpoint = Checkpoint::open(source)?;
        let mut notes = vec![];
        let mut files = vec![];
        match checkpoint.tokenizer() {
            Ok(json) => files.push((pack::TOKENIZER, json.len() as u64)),
            // The sizes of the weights are known all the same.
            Err(error) => notes.push(format!(
                "A conversion also needs the tokenizer, which is not counted: {}",
                message(&error)
            )),
        }
        let meta = checkpoint.meta(None, None, None)?;
        let draws = checkpoint.config.decoder.is_some();
        Ok(Self {
            source: place.show(),
            name: meta.name.clone(),
            conversions: conversions(&checkpoint.tensors()?, &meta, &files, draws)?,
            config: checkpoint.config,
            pack: None,
            download: None,
            notes,
        })
    }
}

/// Files that a pack's manifest names, and that are not there.
fn missing(pack: &Path, manifest: &Manifest) -> Vec<String> {
    // A pack may be named by its manifest.
    let folder = match pack.is_file() {
        true => pack.parent().unwrap_or(Path::new("")),
        false => pack,
    };
    { manifest.shards.iter().chain(&manifest.files) }
        .map(|entry| entry.file.clone())
        .filter(|file| !folder.join(file).is_file())
        .collect()
}

fn alone(path: &Path) -> anyhow::Error {
    anyhow::anyhow!(
        "{} is a language model alone, which only `emu chat` runs. Give a pack or a checkpoint.",
        path.display()
    )
}

/// Plans a conversion to each precision. `regresses`: whether it computes the embeddings of the empty prompt at its end.
fn conversions(
    tensors: &[(&str, TensorInfo)],
    meta: &PackMeta,
    files: &[(&str, u64)],
    regresses: bool,
) -> Result<Vec<Conversion>> {
    let waiting = spinner("measuring samples of a conversion");
    let conversion = |quantize: &'static str| -> Result<Conversion> {
        let options = WriteOptions {
            policy: presets::policy(quantize)?,
            ..WriteOptions::default()
        };
        let each = tensors.iter().map(|(component, info)| (*component, info));
        let mut forecast = forecast(each, meta.clone(), &options)?;
        for (name, bytes) in files {
            forecast.add_file(name, *bytes)?;
        }
        let prompt = match regresses {
            true => null_prompt::memory(&forecast.manifest),
            false => 0,
        };
        Ok(Conversion {
            quantize,
            memory: forecast.memory.max(prompt),
            encoding: forecast.time()?,
            forecast,
        })
    };
    let planned: Result<Vec<Conversion>> =
        presets::PRECISIONS.into_iter().map(conversion).collect();
    waiting.finish_and_clear();
    planned
}
