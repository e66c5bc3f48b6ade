//! `emu caption`

mod list;
mod record;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};
use emu_kernels::burn::tensor::read_sync;
use emu_media::image::RgbImage;
use emu_model::generate::{BeamSearch, Prompt, TextEvent, TextMachine};
use emu_model::prompt::PromptError;
use emu_tokenizer::StopStream;
use indicatif::ProgressBar;
use serde_json::json;

use crate::args::CaptionArgs;
use crate::error_line::message;
use crate::media;
use crate::output::{bar, json_line, print_now};
use crate::runtime::Runtime;
use crate::signals;
use crate::text_options::{beam_options, check, text_options};
use record::Captions;

/// Pictures that are in memory, and that the encoder reads, at the same time.
const BATCH: usize = 8;

/// Captions each picture in one line, or, with `--out`, all that the file does not have yet.
pub fn run(args: &CaptionArgs) -> Result<()> {
    check(&args.text)?;
    let pictures = list::pictures(&args.images, args.recursive)?;
    match &args.out {
        None => print(args, &pictures),
        Some(out) => write(args, &pictures, out),
    }
}

/// Prints captions. The first picture that cannot be read ends the command.
fn print(args: &CaptionArgs, paths: &[PathBuf]) -> Result<()> {
    let read = |batch: &[PathBuf]| -> Result<Vec<RgbImage>> {
        batch.iter().map(|path| media::picture(path)).collect()
    };
    // Reads the first pictures before the model, so that a wrong path fails at once.
    let first = paths.get(..BATCH.min(paths.len())).unwrap_or_default();
    let mut first = Some(read(first)?);
    let runtime = Runtime::open(&args.model)?;
    let bar = bar(paths.len() as u64, "pictures");
    for batch in paths.chunks(BATCH) {
        let pictures = match first.take() {
            Some(pictures) => pictures,
            None => read(batch)?,
        };
        let prompts = runtime.prompter()?.captions(&pictures)?;
        for (path, prompt) in batch.iter().zip(&prompts) {
            let (caption, _) = caption(&runtime, args, prompt)?;
            bar.suspend(|| match args.model.json {
                true => json_line(&json!({"image": path, "caption": caption})),
                // One line per picture: line breaks in the caption become spaces.
                false => print_now(&format!("{}\n", caption.replace(['\n', '\r'], " "))),
            })?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// A picture without a caption, and why.
struct Failed {
    path: PathBuf,
    reason: String,
}

/// Appends captions to a file. Pictures that it has are skipped, those that cannot be read are listed.
fn write(args: &CaptionArgs, paths: &[PathBuf], out: &Path) -> Result<()> {
    let stop = signals::stop_flag()?;
    let runtime = Runtime::open(&args.model)?;
    let mut captions = Captions::open(out, &runtime.identity()?)?;
    // A path that is named twice has one line.
    let mut seen = HashSet::new();
    let paths: Vec<&PathBuf> = { paths.iter() }
        .filter(|path| seen.insert(path.as_path()))
        .collect();
    let left: Vec<&PathBuf> = { paths.iter().copied() }
        .filter(|path| !captions.has(path))
        .collect();
    let there = paths.len() - left.len();
    let (mut written, mut failed) = (0usize, vec![]);
    let bar = bar(paths.len() as u64, "pictures");
    bar.inc(there as u64);
    'batches: for batch in left.chunks(BATCH) {
        let begun = Instant::now();
        let (paths, pictures) = readable(batch, &mut failed, &bar);
        let prompts = prompts(&runtime, pictures)?;
        // The encoder's share of each picture.
        let share = begun.elapsed().as_secs_f64() / paths.len().max(1) as f64;
        for (path, prompt) in paths.into_iter().zip(prompts) {
            if stop.is_set() {
                break 'batches;
            }
            let begun = Instant::now();
            match prompt {
                Err(error) => fail(&mut failed, &bar, path, &error.into()),
                Ok(prompt) => {
                    let (text, tokens) = caption(&runtime, args, &prompt)?;
                    let seconds = share + begun.elapsed().as_secs_f64();
                    captions.append(path, text, tokens, seconds)?;
                    written += 1;
                }
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    if stop.is_set() {
        bail!("Stopped. Run the same command again to continue.");
    }
    if args.model.json {
        let failed: Vec<_> = { failed.iter() }
            .map(|failed| json!({"path": failed.path, "reason": failed.reason}))
            .collect();
        json_line(&json!({
            "out": out, "written": written, "skipped": there, "failed": failed, "device": runtime.opened.name,
        }))?;
    } else {
        print_now(&format!(
            "{}: {written} captions written, {there} were there\n",
            out.display()
        ))?;
    }
    match failed.len() {
        0 => Ok(()),
        n => bail!(
            "{n} of {} pictures have no caption, for the reasons above. Mend or remove them, and run the same command again.",
            paths.len()
        ),
    }
}

/// Lists a picture without a caption.
fn fail(failed: &mut Vec<Failed>, bar: &ProgressBar, path: &Path, error: &anyhow::Error) {
    let reason = message(error);
    bar.suspend(|| eprintln!("no caption: {}: {reason}", path.display()));
    failed.push(Failed {
        path: path.to_owned(),
        reason,
    });
}

/// Reads the pictures of a batch; those that cannot be read are listed.
fn readable<'p>(
    batch: &[&'p PathBuf],
    failed: &mut Vec<Failed>,
    bar: &ProgressBar,
) -> (Vec<&'p Path>, Vec<RgbImage>) {
    let (mut paths, mut pictures) = (vec![], vec![]);
    for path in batch {
        // The file of captions is text.
        let read = match path.to_str() {
            Some(_) => media::picture(path),
            None => Err(anyhow::anyhow!(
                "The path is not UTF-8. Rename the file or folder."
            )),
        };
        match read {
            Ok(picture) => {
                paths.push(path.as_path());
                pictures.push(picture);
            }
            Err(error) => {
                fail(failed, bar, path, &error);
                bar.inc(1);
            }
        }
    }
    (paths, pictures)
}

/// The prompts of pictures that the encoder reads together. Where that fails, each is read alone: one may be at fault.
fn prompts(runtime: &Runtime, pictures: Vec<RgbImage>) -> Result<Vec<Result<Prompt, PromptError>>> {
    let prompter = runtime.prompter()?;
    Ok(match prompter.captions(&pictures) {
        Ok(prompts) => prompts.into_iter().map(Ok).collect(),
        Err(_) => { pictures.into_iter() }
            .map(|picture| prompter.caption(picture))
            .collect(),
    })
}

/// The caption that continues a prompt, and its number of tokens.
fn caption(runtime: &Runtime, args: &CaptionArgs, prompt: &Prompt) -> Result<(String, usize)> {
    let (emu, config) = (runtime.emu()?, runtime.emu_config());
    let mut stream = StopStream::<()>::new(&args.text.stop);
    let mut caption = String::new();
    let mut say = |piece: &str| {
        caption.extend(stream.push(piece, None).map(|(text, _)| text));
        !stream.stopped()
    };
    let tokens = match args.text.beams {
        1 => {
            let options = text_options(&args.text, &config.generation, args.model.seed, false);
            let mut machine = TextMachine::new(emu, config, prompt, options)?;
            let mut decoder = runtime.tokenizer.decode_stream();
            loop {
                match read_sync(machine.step())? {
                    // A token that begins a picture ends the caption.
                    TextEvent::Token(id) if id == config.special.img => break,
                    TextEvent::Token(id) => {
                        let piece = decoder.push(id)?;
                        if !say(&piece) {
                            break;
                        }
                    }
                    TextEvent::Done(_) => break,
                    _ => {}
                }
            }
            say(&decoder.finish());
            // The first is `<s>`.
            machine.sequence().len().saturating_sub(1)
        }
        _ => {
            let options = beam_options(&args.text, &config.generation);
            let search = BeamSearch::new(emu, config, prompt, options)?;
            let best = read_sync(search.run())?.into_iter().next();
            let best = best.map_or(vec![], |best| best.tokens);
            say(&runtime.tokenizer.decode(&best, true)?);
            best.len()
        }
    };
    caption.extend(stream.finish().map(|(text, _)| text));
    Ok((caption.trim().to_owned(), tokens))
}
