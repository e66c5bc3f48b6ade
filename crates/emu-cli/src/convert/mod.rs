//! `emu convert`

pub mod against;
mod ahead;
mod key;
mod null_prompt;
pub mod presets;
mod repack;
mod report;
mod run;
mod source;

use anyhow::{Context, Result, bail};
use emu_kernels::burn::module::Module;
use emu_kernels::burn::tensor::Device;
use emu_model::diffusion::{self, DecoderConfig};
use emu_model::pack::{self, ModelConfig, component};
use emu_model::safety::SafetyConfig;
use emu_model::tokenizer::names;
use emu_model::{EmuConfig, weights};
use emu_pack::convert::{
    GgufFile, ModelFolder, Outcome, PackMeta, PackWriter, Policy, WriteOptions,
};
use emu_pack::{KeyMap, Manifest, Plan, TensorData, TensorSource, check};
use indicatif::ProgressBar;

use crate::args::ConvertArgs;
use crate::output::bar;
use null_prompt::NULL_PROMPT;
pub use source::read_json;
use source::{DecoderFolders, Source};

/// Converts a checkpoint to a pack, tensor by tensor.
pub fn run(args: &ConvertArgs) -> Result<()> {
    let policy = presets::policy(&args.quantize)?;
    if GgufFile::is_one(&args.source) {
        bail!(
            "{} is a language model alone, and a pack holds one that sees. Run it as it is: emu chat --model {0}.",
            args.source.display()
        );
    }
    let converted = if run::is_run(&args.source) {
        run::export(args, policy)?
    } else if repack::is_pack(&args.source) {
        repack::run(args, policy)?
    } else {
        checkpoint(args, policy)?
    };
    report::report(args, &converted)
}

/// Result of a conversion.
struct Converted {
    manifest: Manifest,
    outcomes: Vec<Outcome>,
    /// Number of shards kept from an interrupted run.
    kept_shards: usize,
}

impl Converted {
    fn finish(writer: PackWriter) -> Result<Self> {
        let kept_shards = writer.kept_shards();
        let (manifest, outcomes) = writer.finish_with_outcomes()?;
        Ok(Self {
            manifest,
            outcomes,
            kept_shards,
        })
    }
}

fn options(args: &ConvertArgs, policy: Policy, resume: Option<String>) -> WriteOptions {
    WriteOptions {
        policy,
        max_shard_bytes: args.max_shard,
        resume,
    }
}

/// Converts a published checkpoint.
fn checkpoint(args: &ConvertArgs, policy: Policy) -> Result<Converted> {
    let source = Source::find(args)?;
    let emu = Emu::open(&source)?;
    let drawing = match &source.decoder {
        Some(folders) => Some(Drawing::open(folders, &emu.config)?),
        None => None,
    };
    let config = ModelConfig {
        emu: emu.config.clone(),
        decoder: drawing.as_ref().map(|drawing| drawing.config.clone()),
        safety: drawing
            .as_ref()
            .and_then(|d| d.safety.as_ref())
            .map(|s| s.0.clone()),
    };
    config.validate()?;
    let tokenizer = source.tokenizer_json(&emu.config)?;
    let meta = PackMeta {
        name: args.name.clone().unwrap_or_else(|| source.name.clone()),
        license: args.license.clone().unwrap_or_else(|| "unknown".into()),
        attribution: args.attribution.clone().unwrap_or_default(),
        config: serde_json::to_value(&config).context(
            "The configuration cannot be written. Report this as a mistake of the program",
        )?,
        features: vec![],
    };
    let key = key::key(&meta, &policy, args.max_shard, source.paths());
    let mut writer = PackWriter::create(&args.out, meta, options(args, policy, Some(key)))?;
    let bar = bar(0, "tensors");
    emu.write(&mut writer, &bar)?;
    if let Some(drawing) = &drawing {
        drawing.write(&mut writer, &emu, &bar)?;
    }
    writer.add_file(pack::TOKENIZER, tokenizer.as_bytes())?;
    let converted = Converted::finish(writer)?;
    bar.finish_and_clear();
    Ok(converted)
}

/// Encoder and language model of a checkpoint, with matching configuration.
pub struct Emu {
    /// Sizes from the configuration files, the adapter's from the weights.
    pub config: EmuConfig,
    weights: Box<dyn TensorSource + Send + Sync>,
    plan: Plan,
}

impl Emu {
    /// Opens the weights and checks them strictly against the configuration.
    ///
    /// # Errors
    /// Where a key is missing or unknown, or a shape is wrong.
    pub fn open(source: &Source) -> Result<Self> {
        let weights = source.weights()?;
        let config = source.emu_config(&*weights)?;
        let map = match config.adapter {
            Some(_) => emu_model::keys::emu_instruct()?,
            None => emu_model::keys::emu()?,
        };
        let model = config.init(&Device::flex())?;
        let plan = check(weights.tensors(), &weights::parameters(&model), &map)
            .with_context(|| format!("{} does not fit its configuration", source.file.display()))?;
        Ok(Self {
            config,
            weights,
            plan,
        })
    }

    /// Reads a parameter by its name in the model.
    ///
    /// # Errors
    /// Where the parameter is corrupt in the file.
    pub fn read(&self, name: &str) -> Result<TensorData, emu_pack::PackError> {
        self.plan.read(&*self.weights, name)
    }

    /// Names of all parameters in the model.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.plan.entries().iter().map(|(name, _)| name.as_str())
    }

    fn write(&self, writer: &mut PackWriter, bar: &ProgressBar) -> Result<()> {
        // Component by component, so that each has its own shards.
        for part in [pack::VISION, pack::LM] {
            let names: Vec<&str> = self
                .names()
                .filter(|name| component(name) == part && !writer.has(name))
                .collect();
            bar.inc_length(names.len() as u64);
            let read = |name: &str| self.read(name);
            ahead::each(names, read, |_, tensor| {
                bar.inc(1);
                Ok(writer.add(part, tensor)?)
            })?;
        }
        Ok(())
    }
}

/// The diffusion decoder and safety checker of a checkpoint.
struct Drawing {
    config: DecoderConfig,
    unet: ModelFolder,
    vae: ModelFolder,
    safety: Option<(SafetyConfig, ModelFolder)>,
}

impl Drawing {
    fn open(folders: &DecoderFolders, emu: &EmuConfig) -> Result<Self> {
        let unet = ModelFolder::open(&folders.unet)?.unwrapped(&diffusion::keys::unet()?)?;
        let vae = ModelFolder::open(&folders.vae)?.unwrapped(&diffusion::keys::vae()?)?;
        let scheduler = source::read_json(&folders.scheduler)?;
        let tokens = emu.queries();
        let config = DecoderConfig::from_diffusers(&unet.config, &vae.config, &scheduler, tokens)?;
        let safety = match &folders.safety {
            None => None,
            Some(folder) => {
                let folder = ModelFolder::open(folder)?;
                let folder = folder.unwrapped(&diffusion::keys::safety()?)?;
                Some((SafetyConfig::from_transformers(&folder.config)?, folder))
            }
        };
        Ok(Self {
            config,
            unet,
            vae,
            safety,
        })
    }

    fn write(&self, writer: &mut PackWriter, emu: &Emu, bar: &ProgressBar) -> Result<()> {
        // Component by component, so that each has its own shards.
        if let Some((config, folder)) = &self.safety {
            let kept = safety(config, folder)?.without(|name| writer.has(name));
            kept.each(|tensor| Ok(writer.add(pack::SAFETY, tensor)?), bar)?;
        }
        // The null prompt's embeddings are computed with the language model as stored, quantized.
        if !writer.has(NULL_PROMPT) {
            let prompt = null_prompt::regress(&writer.written()?, &emu.config, bar)?;
            writer.add(pack::DECODER, prompt)?;
        }
        for part in self.pictures()? {
            let kept = part.without(|name| writer.has(name));
            kept.each(|tensor| Ok(writer.add(pack::DECODER, tensor)?), bar)?;
        }
        Ok(())
    }

    /// UNet and VAE.
    fn pictures(&self) -> Result<[Part<'_>; 2]> {
        let device = Device::flex();
        let unet = self.config.unet.init(&device)?;
        let vae = self.config.vae.init(&device)?;
        Ok([
            Part::of(&unet, "unet", &self.unet, &diffusion::keys::unet()?)?,
            Part::of(&vae, "vae", &self.vae, &diffusion::keys::vae()?)?,
        ])
    }

    /// Passes every published tensor to `f`, under its name in the pack.
    fn each(&self, mut f: impl FnMut(TensorData) -> Result<()>) -> Result<()> {
        let safety = match &self.safety {
            Some((config, folder)) => Some(safety(config, folder)?),
            None => None,
        };
        for part in safety.into_iter().chain(self.pictures()?) {
            part.each(&mut f, &ProgressBar::hidden())?;
        }
        Ok(())
    }
}

fn safety<'a>(config: &SafetyConfig, folder: &'a ModelFolder) -> Result<Part<'a>> {
    let checker = config.init(&Device::flex())?;
    Part::of(&checker, "safety", folder, &diffusion::keys::safety()?)
}

/// The parameters of a module, from a folder that contains exactly these.
struct Part<'a> {
    /// Prefix of their names in the pack.
    prefix: &'static str,
    folder: &'a ModelFolder,
    plan: Plan,
    names: Vec<String>,
}

impl<'a> Part<'a> {
    fn of<M: Module>(
        module: &M,
        prefix: &'static str,
        folder: &'a ModelFolder,
        map: &KeyMap,
    ) -> Result<Self> {
        let parameters = weights::parameters(module);
        let plan = check(folder.tensors(), &parameters, map)
            .with_context(|| format!("{} does not fit its configuration", folder.file.display()))?;
        let names = parameters.into_iter().map(|(name, _)| name).collect();
        Ok(Self {
            prefix,
            folder,
            plan,
            names,
        })
    }

    fn without(mut self, done: impl Fn(&str) -> bool) -> Self {
        let prefix = self.prefix;
        self.names.retain(|name| !done(&format!("{prefix}.{name}")));
        self
    }

    fn each(self, mut f: impl FnMut(TensorData) -> Result<()>, bar: &ProgressBar) -> Result<()> {
        let Self {
            prefix,
            folder,
            plan,
            names,
        } = self;
        bar.inc_length(names.len() as u64);
        let read = |name: &str| plan.read(folder, name);
        ahead::each(names, read, |name, tensor| {
            bar.inc(1);
            f(tensor.renamed(format!("{prefix}.{name}")))
        })
    }
}

/// The unconditional prompt of classifier-free guidance: no text, only the start of a picture.
fn empty_prompt(config: &EmuConfig) -> Result<Vec<u32>> {
    let special = &config.special;
    if config.queries() + 2 > config.lm.context {
        bail!(
            "A picture's {} embeddings do not fit the context of {}. Check {} in the configuration.",
            config.queries(),
            config.lm.context,
            names::IMAGE
        );
    }
    Ok(vec![special.bos, special.img])
}
