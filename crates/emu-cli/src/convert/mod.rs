//! `emu convert`

pub mod against;
mod ahead;
mod files;
mod key;
pub mod null_prompt;
mod options;
pub mod presets;
mod repack;
mod report;
mod result;
mod run;
mod source;

use anyhow::{Context, Result, bail};
use emu_kernels::burn::module::Module;
use emu_kernels::burn::tensor::Device;
use emu_model::diffusion::{self, DecoderConfig};
use emu_model::pack::{self, ModelConfig, component};
use emu_model::safety::SafetyConfig;
use emu_model::{EmuConfig, weights};
use emu_pack::convert::{GgufFile, ModelFolder, PackMeta, PackWriter, Policy};
use emu_pack::{KeyMap, Plan, TensorData, TensorInfo, TensorSource, check};
use indicatif::ProgressBar;

use crate::args::ConvertArgs;
use crate::hub;
use crate::output::bar;
pub use files::{Files, Place, read_json};
use null_prompt::NULL_PROMPT;
use options::options;
pub use repack::{is_pack, meta_of, tensors_of};
use result::Converted;
pub use run::is_run;
use source::DecoderFolders;
pub use source::Source;

/// Converts a checkpoint to a pack, tensor by tensor. Addresses of the hub are fetched first.
pub fn run(mut args: ConvertArgs) -> Result<()> {
    args.source = hub::local(&args.source)?;
    for other in [&mut args.decoder, &mut args.llama].into_iter().flatten() {
        *other = hub::local(other)?;
    }
    let args = &args;
    let policy = presets::policy(&args.quantize)?;
    if GgufFile::is_one(&args.source) {
        bail!(
            "{} is a language model alone, and a pack holds one that sees. Run it as it is: emu chat --model {0}.",
            args.source.display()
        );
    }
    let pack = is_pack(&args.source);
    // Where there is nothing, the search for a checkpoint says so.
    let other = !pack && args.source.exists();
    if let Some(adapter) = args.adapter.as_ref().filter(|_| other) {
        bail!(
            "--adapter {} needs a pack to go on, and {} is none. Name the pack that the adapter was trained on.",
            adapter.display(),
            args.source.display()
        );
    }
    if args.merge && other && !is_run(&args.source) {
        bail!("--merge works on packs and training runs. Convert the checkpoint to a pack first.");
    }
    let converted = if is_run(&args.source) {
        run::export(args, policy)?
    } else if pack {
        repack::run(args, policy)?
    } else {
        checkpoint(args, policy)?
    };
    report::report(args, &converted)
}

/// Converts a published checkpoint.
fn checkpoint(args: &ConvertArgs, policy: Policy) -> Result<Converted> {
    let checkpoint = Checkpoint::open(Source::find(args)?)?;
    let tokenizer = checkpoint.tokenizer()?;
    let meta = checkpoint.meta(
        args.name.clone(),
        args.license.clone(),
        args.attribution.clone(),
    )?;
    let paths = checkpoint.source.paths();
    let key = key::key(&meta, &policy, args.max_shard, paths);
    let mut writer = PackWriter::create(&args.out, meta, options(args, policy, Some(key)))?;
    let bar = bar(0, "tensors");
    checkpoint.emu.write(&mut writer, &bar)?;
    if let Some(drawing) = &checkpoint.drawing {
        drawing.write(&mut writer, &checkpoint.emu, &bar)?;
    }
    writer.add_file(pack::TOKENIZER, tokenizer.as_bytes())?;
    let converted = Converted::finish(writer)?;
    bar.finish_and_clear();
    Ok(converted)
}

/// A published checkpoint whose weights fit its configuration. Nothing of the weights but their headers has been read.
pub struct Checkpoint {
    /// Configuration of the pack.
    pub config: ModelConfig,
    source: Source,
    emu: Emu,
    drawing: Option<Drawing>,
}

impl Checkpoint {
    /// Opens the weights and checks them strictly against the configuration.
    ///
    /// # Errors
    /// Where a file is missing or invalid, a key is missing or unknown, or a shape is wrong.
    pub fn open(source: Source) -> Result<Self> {
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
        Ok(Self {
            config,
            source,
            emu,
            drawing,
        })
    }

    /// The pack's `tokenizer.json`.
    ///
    /// # Errors
    /// As [`Source::tokenizer_json`].
    pub fn tokenizer(&self) -> Result<String> {
        self.source.tokenizer_json(&self.config.emu)
    }

    /// Metadata of the pack; name, licence and attribution have defaults.
    ///
    /// # Errors
    /// Where the configuration cannot be written.
    pub fn meta(
        &self,
        name: Option<String>,
        license: Option<String>,
        attribution: Option<String>,
    ) -> Result<PackMeta> {
        Ok(PackMeta {
            name: name.unwrap_or_else(|| self.source.name.clone()),
            license: license.unwrap_or_else(|| "unknown".into()),
            attribution: attribution.unwrap_or_default(),
            config: serde_json::to_value(&self.config).context(
                "The configuration cannot be written. Report this as a mistake of the program",
            )?,
            features: vec![],
        })
    }

    /// Component, name, type and shape of every tensor of the pack, in the order in which a conversion writes them.
    ///
    /// # Errors
    /// Where weights of the decoder do not fit their configuration.
    pub fn tensors(&self) -> Result<Vec<(&'static str, TensorInfo)>> {
        let mut tensors = vec![];
        let infos = self.emu.plan.infos(&*self.emu.weights);
        for part in EMU {
            let own = infos.iter().filter(|info| component(&info.name) == part);
            tensors.extend(own.map(|info| (part, info.clone())));
        }
        if let Some(drawing) = &self.drawing {
            if let Some((config, folder)) = &drawing.safety {
                let checker = safety(config, folder)?.infos().into_iter();
                tensors.extend(checker.map(|info| (pack::SAFETY, info)));
            }
            tensors.push((pack::DECODER, null_prompt::info(&self.config.emu)));
            for part in drawing.pictures()? {
                let infos = part.infos().into_iter();
                tensors.extend(infos.map(|info| (pack::DECODER, info)));
            }
        }
        Ok(tensors)
    }
}

/// Components of encoder and language model, in the order in which they are written. Each has its own shards.
const EMU: [&str; 2] = [pack::VISION, pack::LM];

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
        for part in EMU {
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
        let files = &folders.files;
        let unet = files.model_folder(&folders.unet)?;
        let unet = unet.unwrapped(&diffusion::keys::unet()?)?;
        let vae = files.model_folder(&folders.vae)?;
        let vae = vae.unwrapped(&diffusion::keys::vae()?)?;
        let scheduler = files.json(&folders.scheduler)?;
        let tokens = emu.queries();
        let config = DecoderConfig::from_diffusers(&unet.config, &vae.config, &scheduler, tokens)?;
        let safety = match &folders.safety {
            None => None,
            Some(folder) => {
                let folder = files.model_folder(folder)?;
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

    /// Types and shapes in the source, under the names in the pack.
    fn infos(&self) -> Vec<TensorInfo> {
        let mut infos = self.plan.infos(self.folder);
        for info in &mut infos {
            info.name = format!("{}.{}", self.prefix, info.name);
        }
        infos
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
