//! `emu imagine`

use std::fs::OpenOptions;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use emu_kernels::burn::tensor::{Tensor, read_sync};
use emu_media::image::{RgbImage, encode_png};
use emu_model::diffusion::{Denoise, DrawOptions, Preview};
use emu_model::generate::ImageEmbedder;
use emu_model::prompt::Marked;
use emu_model::safety::{black_out, blur};
use serde_json::json;

use crate::args::ImagineArgs;
use crate::media::{self, is_picture_name};
use crate::output::{bar, json_line, print_now, spinner};
use crate::runtime::Runtime;

/// Draws one picture, or several with consecutive seeds.
pub fn run(args: &ImagineArgs) -> Result<()> {
    let seeds = seeds(args.model.seed, args.count)?;
    writable(&path(args, 1))?;
    let pictures = args.image.iter().map(|path| media::picture(path));
    let marked = media::marked(&args.prompt, pictures.collect::<Result<_>>()?, vec![])?;
    let negative = match &args.negative {
        None => None,
        Some(text) => Some(media::marked(text, vec![], vec![])?),
    };
    let mut clock = Instant::now();
    let runtime = Runtime::open(&args.model)?;
    let config = runtime.decoder_config()?;
    let mut options = DrawOptions::new(config, args.model.seed);
    if let Some((width, height)) = args.size {
        (options.width, options.height) = (width, height);
    }
    options.steps = args.steps.unwrap_or(options.steps);
    options.guidance = args.guidance.unwrap_or(options.guidance);
    options.sampler = args.scheduler.map_or(options.sampler, Into::into);
    options.validate(config)?;

    let mut read: Option<(Tensor<3>, Option<Tensor<3>>)> = None;
    for (number, seed) in (1..).zip(seeds) {
        // A request reader chooses by the seed what the prompt leaves open; without one, the prompt is read once.
        let kept = read
            .take()
            .filter(|_| runtime.emu_config().requests.is_none());
        let (condition, negative) = match kept {
            Some(read) => read,
            None => {
                let condition = regress(&runtime, &marked, seed, "reading the prompt")?;
                let negative = match &negative {
                    None => None,
                    Some(marked) => Some(regress(
                        &runtime,
                        marked,
                        seed,
                        "reading the negative prompt",
                    )?),
                };
                (condition, negative)
            }
        };
        read = Some((condition.clone(), negative.clone()));
        options.seed = seed;
        let out = path(args, number);
        let previews = match args.count {
            1 => args.previews.clone(),
            _ => { args.previews.as_ref() }.map(|folder| folder.join(format!("{number:04}"))),
        };
        let drawing = Drawing {
            options: options.clone(),
            negative,
            previews,
        };
        let picture = draw(&runtime, condition, &drawing)?;
        save(&picture.image, &out)?;
        tell(args, &runtime, &drawing.options, &picture, &out, clock)?;
        clock = Instant::now();
    }
    Ok(())
}

/// Prints where a picture is. `clock`: the start of the work on it, with loading for the first picture.
fn tell(
    args: &ImagineArgs,
    runtime: &Runtime,
    options: &DrawOptions,
    picture: &Drawn,
    out: &Path,
    clock: Instant,
) -> Result<()> {
    let (width, height) = picture.image.dimensions();
    if args.model.json {
        return json_line(&json!({
            "image": out, "seed": options.seed, "flagged": picture.flagged, "width": width, "height": height,
            "steps": options.steps, "seconds": clock.elapsed().as_secs_f64(), "device": runtime.opened.name,
        }));
    }
    if picture.flagged == Some(true) {
        eprintln!("The safety checker flagged the picture, so it is black. Try another --seed.");
    }
    print_now(&format!("{}\n", out.display()))
}

/// The seeds of so many pictures.
fn seeds(first: u64, count: usize) -> Result<RangeInclusive<u64>> {
    let last = u64::try_from(count - 1).ok();
    let Some(last) = last.and_then(|more| first.checked_add(more)) else {
        bail!(
            "There are no {count} seeds from {first} on. Give a smaller --seed, or a smaller --count."
        );
    };
    Ok(first..=last)
}

/// The path of a picture.
fn path(args: &ImagineArgs, number: usize) -> PathBuf {
    match args.count {
        1 => args.out.clone(),
        _ => numbered(&args.out, number),
    }
}

/// The path of one of several pictures: `a-0001.png` for `a.png`.
fn numbered(path: &Path, number: usize) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_os_string();
    name.push(format!("-{number:04}"));
    if let Some(ending) = path.extension() {
        name.push(".");
        name.push(ending);
    }
    path.with_file_name(name)
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
    finish(runtime, walk)
}

/// Decodes and checks the picture of a finished denoising.
///
/// # Errors
/// Where the device fails.
pub fn finish(runtime: &Runtime, walk: Denoise<'_>) -> Result<Drawn> {
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
    let png = path
        .extension()
        .is_some_and(|ending| ending.eq_ignore_ascii_case("png"));
    if is_picture_name(path) && !png {
        bail!(
            "Pictures are written as PNG, and {} has the name of another format. Name a PNG file with -o.",
            path.display()
        );
    }
    let there = path.exists();
    let open = OpenOptions::new().append(true).create(true).open(path);
    open.with_context(|| unwritten(path))?;
    if !there {
        std::fs::remove_file(path).with_context(|| unwritten(path))?;
    }
    Ok(())
}

fn unwritten(path: &Path) -> String {
    format!(
        "{} cannot be written; check the folder and the space left",
        path.display()
    )
}

/// Writes a picture as PNG.
///
/// # Errors
/// Where the file cannot be written.
pub fn save(image: &RgbImage, path: &Path) -> Result<()> {
    std::fs::write(path, encode_png(image)?).with_context(|| unwritten(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_written_is_refused_and_no_file_is_touched() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for name in ["new.png", "NEW.PNG", "new"] {
            writable(&at(name)).expect("can be written");
            assert!(!at(name).exists());
        }
        std::fs::write(at("old.png"), "a picture").expect("written");
        writable(&at("old.png")).expect("can be written");
        assert_eq!(std::fs::read(at("old.png")).expect("kept"), b"a picture");
        for (name, words) in [
            ("", "is a folder"),
            ("none/a.png", "no folder"),
            ("a.jpg", "as PNG"),
            ("old.png/a.png", "no folder"),
        ] {
            let error = writable(&at(name)).expect_err("refused");
            assert!(error.to_string().contains(words), "{error}");
        }
        assert!(!at("a.jpg").exists());
    }

    #[test]
    fn pictures_have_consecutive_seeds_and_numbers() {
        assert_eq!(seeds(7, 3).expect("seeds").collect::<Vec<_>>(), [7, 8, 9]);
        assert_eq!(seeds(u64::MAX, 1).expect("one").count(), 1);
        assert!(seeds(u64::MAX, 2).is_err());
        for (path, expected) in [
            ("a.png", "a-0001.png"),
            ("x/b.c.png", "x/b.c-0001.png"),
            ("/d", "/d-0001"),
        ] {
            assert_eq!(numbered(Path::new(path), 1), Path::new(expected));
        }
    }
}
