//! `emu assemble`: builds a model with vision from published components: an unmodified language model, an unmodified encoder,
//! and heads fitted in closed form (`emu train`, stage `heads`) that name what the encoder sees in the language model's
//! tokens. A request reader and a decoder (stages `reader` and `brush`) add drawing. A soft prompt (stage `persona`) adds
//! knowledge of the model's own identity.

mod drawing;
mod files;
mod heads;
mod photos;
mod words;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use emu_data::emoji::ConceptList;
use emu_kernels::burn::tensor::Device;
use emu_model::config::{EmuConfig, GenerationConfig, ScenePrompts};
use emu_model::namer::NamerConfig;
use emu_model::pack::{self, ModelConfig};
use emu_model::photos::PhotosConfig;
use emu_model::spelling::SpellingConfig;
use emu_model::text::Base;
use emu_pack::convert::{
    ELSEWHERE_FILE, Elsewhere, GgufFile, Moved, PackMeta, PackWriter, WriteOptions,
};
use emu_pack::{Manifest, TensorSource};
use emu_tokenizer::EmuTokenizer;
use emu_train::eyes::Eyes;
use serde::Deserialize;
use serde_json::json;

use crate::convert::presets;
use crate::output::{bar, bytes, json_line, print_now};
use files::there;
use heads::Heads;

/// `emu assemble`
#[derive(Debug, Args)]
pub struct AssembleArgs {
    /// The recipe, a TOML file like configs/model/smol.toml.
    pub recipe: PathBuf,
    /// The pack to write.
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    /// Print one JSON object per line.
    #[arg(long)]
    pub json: bool,
}

/// Recipe of an assembled model. Relative paths start at the current directory.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    /// Name of the model.
    name: String,
    /// Licence of the whole pack.
    license: String,
    /// Attribution.
    attribution: String,
    /// The language model, a GGUF file.
    lm: PathBuf,
    /// The encoder as published: the file of an EfficientNet-Lite2, or the folder of a CLIP.
    encoder: PathBuf,
    /// Output folder of the stage `heads`.
    heads: PathBuf,
    /// The list of concepts that the heads were fitted to. Its colours name backgrounds; its concepts marked for drawing can be
    /// drawn.
    concepts: PathBuf,
    /// The soft prompt: a run of the stage `persona`, or a part exported from one by `emu part`.
    #[serde(default)]
    persona: Option<PathBuf>,
    /// The components that draw.
    #[serde(default)]
    drawing: Option<drawing::Drawing>,
    /// Precision of encoder and heads, as for `emu convert --quantize`. The language model keeps its own.
    precision: String,
    /// Settings of the namer.
    namer: Reading,
    /// Prompt templates.
    prompts: Prompts,
    /// Default generation settings.
    #[serde(default)]
    generation: GenerationConfig,
    /// More files for the pack, such as the model card and licences.
    #[serde(default)]
    files: Vec<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reading {
    /// Number of objects that a decoder can draw.
    objects: usize,
    /// Tokens per name.
    tokens: usize,
    /// Softmax temperature over names.
    temperature: f64,
    /// Standard deviation of a border's colour from its named colour, RGB in 0..1.
    colour_spread: f64,
    /// Naming of photographs; without it, photographs are named like drawings.
    #[serde(default)]
    photos: Option<photos::Naming>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Prompts {
    /// Template of a picture, with one `<image>` per embedding.
    picture: String,
    /// Templates for drawings of several things.
    #[serde(default)]
    scenes: Option<ScenePrompts>,
    /// Prompt for a caption.
    caption: String,
    /// Number of conversation turns in the model's context.
    #[serde(default)]
    turns: Option<usize>,
    /// A user message that asks for the picture of `{}`.
    #[serde(default)]
    draw: Option<String>,
    /// System message that replaces the language model's own.
    #[serde(default)]
    system: Option<String>,
}

/// Assembles a pack.
///
/// # Errors
/// Where a component is missing, corrupt or does not fit the others.
pub fn run(args: &AssembleArgs) -> Result<()> {
    let recipe: Recipe = read_toml(&args.recipe)?;
    let manifest = assemble(&recipe, &args.out)?;
    let sizes = manifest.components.iter();
    let sizes = sizes.map(|(name, part)| (name.as_str(), part.bytes));
    let sizes: std::collections::BTreeMap<&str, u64> = sizes.collect();
    if args.json {
        return json_line(&json!({
            "out": args.out, "name": manifest.name, "components": sizes,
            "tensors": manifest.tensors.len(), "quantized": manifest.quantization.len(),
        }));
    }
    let sizes: Vec<String> = { sizes.into_iter() }
        .map(|(name, size)| format!("{name} {}", bytes(size)))
        .collect();
    print_now(&format!(
        "{}: {} in {}\n",
        manifest.name,
        sizes.join(", "),
        args.out.display()
    ))
}

fn read_toml<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{} cannot be read; check the path", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} cannot be used", path.display()))
}

fn assemble(recipe: &Recipe, out: &Path) -> Result<Manifest> {
    // 1. Open the components.
    let fetch = "Fetch it with `cargo xtask parts`, or correct its path in the recipe.";
    let file = GgufFile::open(there(&recipe.lm, fetch)?)?;
    let base = Base::new(file.metadata(), &file, &Device::flex())
        .with_context(|| format!("{} cannot become a model that sees", recipe.lm.display()))?;
    let eyes = Eyes::open(there(&recipe.encoder, fetch)?)
        .with_context(|| format!("{} is no encoder", recipe.encoder.display()))?;
    let photos = { recipe.namer.photos.as_ref() }
        .map(photos::Naming::open)
        .transpose()?;
    let heads = Heads::open(there(
        &recipe.heads,
        "Fit it with `emu train configs/train/smol/heads.toml`, or correct its path in the recipe.",
    )?)?;
    let concepts = ConceptList::read(&recipe.concepts)?;
    let tokenizer = EmuTokenizer::from_json_bytes(base.tokenizer.as_bytes())?;
    let persona = { recipe.persona.as_deref() }
        .map(|folder| drawing::Persona::open(folder, base.config.lm.width))
        .transpose()?;
    let drawing = { recipe.drawing.as_ref() }
        .map(|parts| parts.open(&concepts, &tokenizer))
        .transpose()?;

    // 2. Combine their configurations.
    heads.check(eyes.vision.width)?;
    let mut config = ModelConfig {
        emu: configured(
            recipe,
            &base,
            &eyes,
            (heads.names.len(), concepts.colours.len()),
            photos.as_ref().map(photos::Photographs::config),
        ),
        decoder: drawing.as_ref().map(|drawing| drawing.decoder.clone()),
        safety: None,
    };
    config.emu.persona = persona.as_ref().map(|persona| persona.length);
    config.emu.requests = drawing.as_ref().map(|drawing| drawing.requests.clone());
    config.validate()?;

    // 3. Write the pack.
    let meta = PackMeta {
        name: recipe.name.clone(),
        license: recipe.license.clone(),
        attribution: recipe.attribution.clone(),
        config: serde_json::to_value(&config).context(
            "The configuration cannot be written. Report this as a mistake of the program",
        )?,
        features: vec![],
    };
    let options = WriteOptions {
        policy: presets::policy(&recipe.precision)?,
        ..WriteOptions::default()
    };
    let mut writer = PackWriter::create(out, meta, options)?;
    let bar = bar(0, "tensors");
    for name in eyes.names() {
        let tensor = eyes.read(name)?.renamed(format!("visual.{name}"));
        writer.add(pack::VISION, tensor)?;
        bar.inc(1);
    }
    let table = words::Table::of(&base)?;
    if let Some(photos) = &photos {
        let classifier = eyes.classifier()?.with_context(|| {
            format!(
                "{} has no classifier that could name photographs. Leave `namer.photos` out of the recipe",
                recipe.encoder.display()
            )
        })?;
        for tensor in photos.tensors(&heads, classifier, &config.emu, &tokenizer)? {
            writer.add(pack::VISION, tensor)?;
        }
    }
    for tensor in heads.tensors(&config.emu, &tokenizer, &table, &concepts.colours)? {
        writer.add(pack::VISION, tensor)?;
    }
    drop(table);
    base.each(|tensor| {
        bar.inc(1);
        writer.add_stored(pack::LM, tensor)
    })?;
    let places = base
        .places()
        .map(|(name, from, halves)| Moved { name, from, halves });
    let elsewhere = Elsewhere {
        file: recipe
            .lm
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into(),
        tensors: places.collect(),
    };
    let listed = serde_json::to_vec(&elsewhere).context(
        "The list of tensors cannot be written. Report this as a mistake of the program",
    )?;
    writer.add_file(ELSEWHERE_FILE, &listed)?;
    // The following tensors get their own shards, so that a pack stored without the language model keeps all of them.
    writer.end_shard()?;
    let persona = persona.into_iter().map(|persona| persona.tensor);
    let drawing = drawing.into_iter().flat_map(|drawing| drawing.tensors);
    for tensor in persona.chain(drawing) {
        bar.inc(1);
        writer.add(pack::component(&tensor.info.name), tensor)?;
    }
    writer.add_file(pack::TOKENIZER, base.tokenizer.as_bytes())?;
    for file in &recipe.files {
        writer.copy_file(there(file, "Correct the list of files in the recipe.")?)?;
    }
    let manifest = writer.finish()?;
    bar.finish_and_clear();
    Ok(manifest)
}

/// Configuration of the assembled model.
fn configured<S: TensorSource>(
    recipe: &Recipe,
    base: &Base<'_, S>,
    eyes: &Eyes,
    (names, colours): (usize, usize),
    photos: Option<PhotosConfig>,
) -> EmuConfig {
    let reading = &recipe.namer;
    let namer = NamerConfig {
        names,
        spelling: SpellingConfig {
            objects: reading.objects,
            tokens: reading.tokens,
        },
        temperature: reading.temperature,
        colours,
        colour_spread: reading.colour_spread,
        roots: eyes.roots,
        photos,
    };
    let mut emu = base.with_namer(eyes.vision.clone(), eyes.image.clone(), namer);
    emu.prompts.picture = Some(recipe.prompts.picture.clone());
    emu.prompts.turns = recipe.prompts.turns;
    emu.prompts.scenes.clone_from(&recipe.prompts.scenes);
    emu.prompts.caption.clone_from(&recipe.prompts.caption);
    if let Some(asked) = &recipe.prompts.draw {
        emu.prompts.imagine = emu.prompts.imagine.replacen("{}", asked, 1);
    }
    if let Some(said) = &recipe.prompts.system {
        let template = emu.prompts.system_turn.as_deref().unwrap_or("{}");
        emu.prompts.system = template.replacen("{}", said, 1);
    }
    emu.generation = recipe.generation;
    emu
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipes_of_the_project_are_understood() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let recipe: Recipe = read_toml(&root.join("configs/model/smol.toml")).expect("a recipe");
        assert_eq!(recipe.name, "emu-smol");
        let marks = recipe.prompts.picture.matches("<image>").count();
        assert_eq!(marks, recipe.namer.tokens + 1);
        presets::policy(root.join(&recipe.precision).to_str().expect("a path")).expect("a policy");
        let concepts = ConceptList::read(root.join(&recipe.concepts)).expect("concepts");
        assert!(concepts.colours.len() > 4);
        for file in &recipe.files {
            assert!(root.join(file).is_file(), "{}", file.display());
        }
    }

    #[test]
    fn a_part_that_is_missing_is_told_with_what_to_do() {
        let error = there(Path::new("gone.gguf"), "Fetch it.").expect_err("gone");
        assert_eq!(error.to_string(), "gone.gguf is not there. Fetch it.");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("recipe.toml");
        std::fs::write(&path, "name = 'x'\nlmm = 3\n").expect("written");
        let error = read_toml::<Recipe>(&path).expect_err("no recipe");
        assert!(format!("{error:#}").contains("lmm"), "{error:#}");
    }
}
