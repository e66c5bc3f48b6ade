//! `emu imagine`

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use emu_kernels::burn::tensor::{Tensor, read_sync};
use emu_model::diffusion::{Denoise, DrawOptions, Preview};
use emu_model::generate::ImageEmbedder;
use emu_model::image::{RgbImage, encode_png};
use emu_model::prompt::Marked;
use emu_model::safety::{black_out, blur};
use serde_json::json;

use crate::args::ImagineArgs;
use crate::media;
use crate::output::{bar, json_line, print_now, spinner};
use crate::runtime::Runtime;

/// Draws one picture.
pub fn run(args: &ImagineArgs) -> Result<()> {
    let clock = Instant::now();
    writable(&args.out)?;
    let pictures = args.image.iter().map(|path| media::picture(path));
    let marked = media::marked(&args.prompt, pictures.collect::<Result<_>>()?, vec![])?;
    let runtime = Runtime::open(&args.model)?;
    let seed = args.model.seed;
    let config = runtime.decoder_config()?;
    let mut options = DrawOptions::new(config, seed);
    if let Some((width, height)) = args.size {
        (options.width, options.height) = (width, height);
    }
    options.steps = args.steps.unwrap_or(options.steps);
    options.guidance = args.guidance.unwrap_or(options.guidance);
    options.sampler = args.scheduler.map_or(options.sampler, Into::into);
    options.validate(config)?;

    let condition = regress(&runtime, &marked, seed, "reading the prompt")?;
    let negative = match &args.negative {
        None => None,
        Some(text) => {
            let marked = media::marked(text, vec![], vec![])?;
            Some(regress(
                &runtime,
                &marked,
                seed,
                "reading the negative prompt",
            )?)
        }
    };
    let drawing = Drawing {
        options,
        negative,
        previews: args.previews.clone(),
    };
    let picture = draw(&runtime, condition, &drawing)?;
    save(&picture.image, &args.out)?;
    let (width, height) = picture.image.dimensions();
    if args.model.json {
        return json_line(&json!({
            "image": args.out, "seed": seed, "flagged": picture.flagged, "width": width, "height": height,
            "steps": drawing.options.steps, "seconds": clock.elapsed().as_secs_f64(), "device": runtime.opened.name,
        }));
    }
    if picture.flagged == Some(true) {
        eprintln!("The safety checker flagged the picture, so it is black. Try another --seed.");
    }
    print_now(&format!("{}\n", args.out.display()))
}

/// Regresses the visual embeddings of the requested picture, `[1, Q, D]`.
fn regress(runtime: &Runtime, marked: &Marked, seed: u64, what: &str) -> Result<Tensor<3>> {
    let prompt = runtime.prompter()?.picture(marked)?;
    let waiting = spinner(what);
    let (emu, config) = (runtime.emu()?, runtime.emu_config());
    let embedder = ImageEmbedder::new(emu, config, &prompt, seed)?;
    let (embeddings, _) = read_sync(embedder.run())?;
    waiting.finish_and_clear();
    Ok(embeddings)
}

/// Parameters of a drawing, apart from the condition.
pub struct Drawing {
    /// Size, steps, seed.
    pub options: DrawOptions,
    /// Embeddings of the negative prompt; `None` for the pack's empty prompt.
    pub negative: Option<Tensor<3>>,
    /// Folder for a preview after each step.
    pub previews: Option<PathBuf>,
}

/// A finished picture.
pub struct Drawn {
    /// The picture; black if it was flagged.
    pub image: RgbImage,
    /// Result of the safety checker, if the pack has one.
    pub flagged: Option<bool>,
}

/// Draws a picture from these embeddings.
///
/// # Errors
/// Where the pack has no decoder, an option is invalid, or the device fails.
pub fn draw(runtime: &Runtime, condition: Tensor<3>, drawing: &Drawing) -> Result<Drawn> {
    let (decoder, config) = runtime.decoder()?;
    let mut walk = Denoise::new(
        decoder,
        config,
        condition,
        drawing.negative.clone(),
        &drawing.options,
    )?;
    let (_, total) = walk.progress();
    let bar = bar(total as u64, "drawing");
    let preview = match &drawing.previews {
        None => Preview::None,
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| {
                format!(
                    "{} cannot be created; choose another folder",
                    folder.display()
                )
            })?;
            Preview::Decoded
        }
    };
    while !walk.is_done() {
        let progress = read_sync(walk.step(preview))?;
        if let (Some(folder), Some(image)) = (&drawing.previews, progress.previews.first()) {
            let path = folder.join(format!("step-{:03}.png", progress.step));
            // Previews have not been checked, so they are blurred.
            match runtime.config.safety {
                Some(_) => save(&blur(image), &path)?,
                None => save(image, &path)?,
            }
        }
        bar.set_position(progress.step as u64);
    }
    bar.finish_and_clear();
    let Some(mut image) = read_sync(walk.pictures())?.into_iter().next() else {
        bail!("No picture came out. Try again, or use --device cpu.");
    };
    let flagged = checked(runtime, &image)?;
    black_out([image.as_mut()], &[flagged == Some(true)]);
    Ok(Drawn { image, flagged })
}

/// Runs the pack's safety checker on a picture.
fn checked(runtime: &Runtime, image: &RgbImage) -> Result<Option<bool>> {
    let Some((checker, config)) = runtime.safety()? else {
        return Ok(None);
    };
    let picture = checker.check(image, config, &runtime.opened.device);
    Ok(Some(read_sync(picture)?))
}

/// Fails before any work is done if the output file cannot be written.
fn writable(path: &Path) -> Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        bail!(
            "There is no folder {}. Create it, or choose another -o.",
            folder.display()
        );
    }
    if path.is_dir() {
        bail!("{} is a folder. Name a PNG file with -o.", path.display());
    }
    Ok(())
}

/// Writes a picture as PNG.
///
/// # Errors
/// Where the file cannot be written.
pub fn save(image: &RgbImage, path: &Path) -> Result<()> {
    std::fs::write(path, encode_png(image)?).with_context(|| {
        format!(
            "{} cannot be written; check the folder and the space left",
            path.display()
        )
    })
}
