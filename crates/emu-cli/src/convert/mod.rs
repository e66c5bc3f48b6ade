//! `emu convert`

pub mod against;
mod null_prompt;
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
use emu_pack::convert::{ModelFolder, PackMeta, PackWriter, Policy, WriteOptions};
use emu_pack::{KeyMap, Plan, TensorData, TensorSource, check};
use indicatif::ProgressBar;
use serde_json::json;

use crate::args::ConvertArgs;
use crate::output::{bar, bytes, json_line, print_now};
use source::{DecoderFolders, Source};

/// Turns a checkpoint into a pack, one tensor at a time.
pub fn run(args: &ConvertArgs) -> Result<()> {
    let policy = Policy::from_argument(&args.quantize)?;
    if run::is_run(&args.source) {
        run::export(args, policy)?;
        return report(args);
    }
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
    let meta = PackMeta {
        name: args.name.clone().unwrap_or_else(|| source.name.clone()),
        license: args.license.clone(),
        attribution: args.attribution.clone(),
        config: serde_json::to_value(&config).context(
            "The configuration cannot be written. Report this as a mistake of the program",
        )?,
        features: vec![],
    };
    let options = WriteOptions {
        policy,
        max_shard_bytes: args.max_shard,
        resume: None,
    };
    let mut writer = PackWriter::create(&args.out, meta, options)?;
    let bar = bar(0, "tensors");
    emu.write(&mut writer, &bar)?;
    if let Some(drawing) = &drawing {
        drawing.write(&mut writer, &emu, &bar)?;
    }
    writer.add_file(
        pack::TOKENIZER,
        source.tokenizer_json(&emu.config)?.as_bytes(),
    )?;
    writer.finish()?;
    bar.finish_and_clear();
    report(args)
}

fn report(args: &ConvertArgs) -> Result<()> {
    let reader = emu_pack::PackReader::open(&args.out)?;
    let manifest = reader.manifest();
    let total: u64 = manifest.shards.iter().map(|shard| shard.bytes).sum();
    if args.json {
        return json_line(&json!({
            "out": args.out, "bytes": total, "tensors": manifest.tensors.len(), "shards": manifest.shards.len(),
            "components": manifest.components.iter().map(|(n, c)| (n.clone(), c.bytes)).collect::<std::collections::BTreeMap<_, _>>(),
        }));
    }
    print_now(&format!(
        "{}: {} tensors in {} shards, {}\n",
        args.out.display(),
        manifest.tensors.len(),
        manifest.shards.len(),
        bytes(total)
    ))
}

/// The encoder and language model of a checkpoint, checked against each other.
pub struct Emu {
    /// Sizes, from the configuration files; the adapter's from the weights.
    pub config: EmuConfig,
    weights: Box<dyn TensorSource + Send + Sync>,
    plan: Plan,
}

impl Emu {
    /// Opens the weights and holds them against the configuration, strictly.
    ///
    /// # Errors
    /// Where a key is missing, unknown or misshapen.
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

    /// Reads a parameter by the model's name.
    ///
    /// # Errors
    /// Where the file is damaged there.
    pub fn read(&self, name: &str) -> Result<TensorData, emu_pack::PackError> {
        self.plan.read(&*self.weights, name)
    }

    /// The model's names of all parameters.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.plan.entries().iter().map(|(name, _)| name.as_str())
    }

    fn write(&self, writer: &mut PackWriter, bar: &ProgressBar) -> Result<()> {
        // A component after the other, so that each has shards of its own.
        for part in [pack::VISION, pack::LM] {
            let names: Vec<&str> = self
                .names()
                .filter(|name| component(name) == part)
                .collect();
            bar.inc_length(names.len() as u64);
            for name in names {
                writer.add(part, self.read(name)?)?;
                bar.inc(1);
            }
        }
        Ok(())
    }
}

/// What draws, of a checkpoint.
struct Drawing {
    config: DecoderConfig,
    unet: ModelFolder,
    vae: ModelFolder,
    safety: Option<(SafetyConfig, ModelFolder)>,
}

impl Drawing {
    fn open(folders: &DecoderFolders, emu: &EmuConfig) -> Result<Self> {
        let unet = ModelFolder::open(&folders.unet)?;
        let vae = ModelFolder::open(&folders.vae)?;
        let scheduler = source::read_json(&folders.scheduler)?;
        let tokens = emu.causal.queries;
        let config = DecoderConfig::from_diffusers(&unet.config, &vae.config, &scheduler, tokens)?;
        let safety = match &folders.safety {
            None => None,
            Some(folder) => {
                let folder = ModelFolder::open(folder)?;
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
        self.each(|part, tensor| {
            bar.inc_length(1);
            bar.inc(1);
            Ok(writer.add(part, tensor)?)
        })?;
        writer.add(pack::DECODER, null_prompt::regress(emu, bar)?)?;
        Ok(())
    }

    /// Reads every published tensor, one at a time, under the pack's name.
    fn each(&self, mut f: impl FnMut(&'static str, TensorData) -> Result<()>) -> Result<()> {
        let device = Device::flex();
        // The null prompt is written behind these, so the checker comes first.
        if let Some((config, folder)) = &self.safety {
            let checker = config.init(&device)?;
            let map = diffusion::keys::safety()?;
            each(&checker, "safety", folder, &map, |t| f(pack::SAFETY, t))?;
        }
        let unet = self.config.unet.init(&device)?;
        let map = diffusion::keys::unet()?;
        each(&unet, "unet", &self.unet, &map, |t| f(pack::DECODER, t))?;
        let vae = self.config.vae.init(&device)?;
        let map = diffusion::keys::vae()?;
        each(&vae, "vae", &self.vae, &map, |t| f(pack::DECODER, t))
    }
}

/// Reads the parameters of a module, named under `prefix`, from a folder that must hold exactly these.
fn each<M: Module>(
    module: &M,
    prefix: &str,
    folder: &ModelFolder,
    map: &KeyMap,
    mut f: impl FnMut(TensorData) -> Result<()>,
) -> Result<()> {
    let parameters = weights::parameters(module);
    let plan = check(folder.tensors(), &parameters, map)
        .with_context(|| format!("{} does not fit its configuration", folder.file.display()))?;
    for (name, _) in &parameters {
        f(plan.read(folder, name)?.renamed(format!("{prefix}.{name}")))?;
    }
    Ok(())
}

/// The prompt that guidance leads away from: nothing said, a picture asked for.
fn empty_prompt(config: &EmuConfig) -> Result<Vec<u32>> {
    let special = &config.special;
    if config.causal.queries + 2 > config.lm.context {
        bail!(
            "A picture's {} embeddings do not fit the context of {}. Check {} in the configuration.",
            config.causal.queries,
            config.lm.context,
            names::IMAGE
        );
    }
    Ok(vec![special.bos, special.img])
}
