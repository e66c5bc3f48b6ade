//! `emu data`

pub mod build;
pub mod show;

use anyhow::{Context, Result};
use emu_data::emoji::{BuildOptions, Catalogue, ConceptList, build, fetch_sources};
use serde_json::json;

use crate::args::{Builder, DataArgs, EmojiArgs};
use crate::output::{bar, bytes, json_line, print_now, spinner};

/// Builds a data set.
pub fn run(args: &DataArgs) -> Result<()> {
    match &args.builder {
        Builder::Pairs(args) => build::pairs(args),
        Builder::Documents(args) => build::documents(args),
        Builder::Videos(args) => build::videos(args),
        Builder::Storyboards(args) => build::storyboards(args),
        Builder::Instruct(args) => build::instruct(args),
        Builder::Show(args) => show::run(args),
        Builder::Emoji(args) => emoji(args),
        Builder::Checkpoint(args) => crate::checkpoint::run(args),
    }
}

fn emoji(args: &EmojiArgs) -> Result<()> {
    let mut options = match &args.options {
        None => BuildOptions::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("{} cannot be read; check the path", path.display()))?;
            toml::from_str(&text).with_context(|| {
                format!("{} is no list of build options; correct it", path.display())
            })?
        }
    };
    options.seed = args.seed.unwrap_or(options.seed);
    options.validate()?;
    let list = match &args.concepts {
        None => ConceptList::shipped()?,
        Some(path) => ConceptList::read(path)?,
    };
    let waiting = spinner("installing the drawings' packages");
    fetch_sources(&args.sources)?;
    list.suits(&options)?;
    waiting.set_message("rendering drawings");
    let catalogue = Catalogue::load(&args.sources, list, options.cutout)?;
    waiting.finish_and_clear();

    let bar = bar(0, "samples");
    let index = build(
        &catalogue,
        &options,
        &args.out,
        args.overwrite,
        &mut |progress| {
            bar.set_length(progress.total as u64);
            bar.set_position(progress.done as u64);
            bar.set_message(progress.what.clone());
        },
    )?;
    bar.finish_and_clear();
    let samples: usize = index.counts.values().sum();
    let size: u64 = index.shards.iter().map(|shard| shard.bytes).sum();
    if args.json {
        return json_line(&json!({
            "out": args.out, "samples": samples, "bytes": size, "counts": index.counts, "seed": options.seed,
        }));
    }
    for (part, count) in &index.counts {
        print_now(&format!("{part:24} {count:8}\n"))?;
    }
    print_now(&format!(
        "{samples} samples, {} in {}\n",
        bytes(size),
        args.out.display()
    ))
}
