//! `emu data pairs|documents|videos|storyboards|instruct`: training data from people's own files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use emu_data::build::{Captions, Choice, Filters, PictureFormat};
use emu_data::{
    DataError, Output, Progress, Report, Resize, documents, instruct, pairs, storyboards, videos,
};
use serde::de::DeserializeOwned;

use crate::output::{json_line, print_now, spinner};

/// What every builder takes.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// A file or a folder; docs/data.md lists the layouts.
    source: PathBuf,
    /// The folder to write.
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Replace what a build has written in that folder.
    #[arg(long)]
    overwrite: bool,
    /// Maximum number of candidates per shard; default: 1000, or fewer for kinds with several pictures.
    #[arg(long, value_name = "N", value_parser = crate::values::positive)]
    shard_samples: Option<usize>,
    /// Share of samples in the split `val`.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    held_out: f64,
    /// Seed of every random choice.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Stop after this many candidates.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// keep, shorter:N (shrink until the shorter side has N pixels) or square:N; default: shorter:512.
    #[arg(long, value_name = "HOW", value_parser = resize)]
    resize: Option<Resize>,
    /// Format of the written pictures: jpeg or png.
    #[arg(long, value_name = "FORMAT", value_parser = named::<PictureFormat>)]
    format: Option<PictureFormat>,
    /// JPEG quality, 1 to 100.
    #[arg(long, value_name = "N")]
    quality: Option<u8>,
    /// Smallest shorter side of a source picture, in pixels.
    #[arg(long, value_name = "N")]
    min_side: Option<u32>,
    /// Largest ratio of the longer to the shorter side of a source picture.
    #[arg(long, value_name = "X")]
    max_aspect: Option<f64>,
    /// Print the report as one JSON object.
    #[arg(long)]
    json: bool,
}

impl OutputArgs {
    /// The builder's defaults, changed by the arguments.
    fn apply(&self, to: &mut Output) {
        to.overwrite = self.overwrite;
        to.shard_samples = self.shard_samples.unwrap_or(to.shard_samples);
        (to.held_out, to.seed, to.limit) = (self.held_out, self.seed, self.limit);
        to.resize = self.resize.unwrap_or(to.resize);
        to.format = self.format.unwrap_or(to.format);
        to.quality = self.quality.unwrap_or(to.quality);
        to.min_side = self.min_side.unwrap_or(to.min_side);
        to.max_aspect = self.max_aspect.or(to.max_aspect);
    }

    /// Runs a builder and prints its report.
    fn run(
        &self,
        build: impl FnOnce(&mut dyn FnMut(Progress)) -> Result<Report, DataError>,
    ) -> Result<()> {
        let waiting = spinner("reading");
        let report = build(&mut |progress: Progress| {
            let Progress {
                shard,
                seen,
                kept,
                skipped,
                ..
            } = progress;
            waiting.set_message(format!(
                "{shard}: {seen} seen, {kept} kept, {skipped} skipped"
            ));
        })?;
        waiting.finish_and_clear();
        match self.json {
            true => json_line(&serde_json::to_value(&report)?),
            false => print_now(&format!("{}\n", report.to_string().trim_end())),
        }
    }
}

/// Which captions and samples are used.
#[derive(Debug, Args)]
pub struct CaptionArgs {
    /// The field or column of the caption; a number for a table without a header line.
    #[arg(long, value_name = "NAME")]
    caption_field: Option<String>,
    /// Of several captions make a sample of each, instead of one chosen by the seed.
    #[arg(long)]
    every_caption: bool,
    /// Fewest words of a caption.
    #[arg(long, value_name = "N", default_value_t = 1)]
    min_words: usize,
    /// Most words of a caption.
    #[arg(long, value_name = "N")]
    max_words: Option<usize>,
    /// Fewest characters of a caption.
    #[arg(long, value_name = "N", default_value_t = 1)]
    min_chars: usize,
    /// Most characters of a caption.
    #[arg(long, value_name = "N")]
    max_chars: Option<usize>,
    /// Smallest value of a field, such as similarity=0.3. Repeatable.
    #[arg(long, value_name = "FIELD=X", value_parser = number)]
    min: Vec<(String, f64)>,
    /// Largest value of a field, such as punsafe=0.1. Repeatable.
    #[arg(long, value_name = "FIELD=X", value_parser = number)]
    max: Vec<(String, f64)>,
    /// Required text of a field, such as LANGUAGE=en. Repeatable.
    #[arg(long = "where", value_name = "FIELD=TEXT", value_parser = assignment)]
    equal: Vec<(String, String)>,
}

impl CaptionArgs {
    fn captions(&self) -> Captions {
        Captions {
            field: self.caption_field.clone(),
            choice: match self.every_caption {
                true => Choice::Every,
                false => Choice::One,
            },
            min_words: self.min_words,
            max_words: self.max_words,
            min_chars: self.min_chars,
            max_chars: self.max_chars,
        }
    }

    fn filters(&self) -> Filters {
        Filters {
            at_least: self.min.iter().cloned().collect::<BTreeMap<_, _>>(),
            at_most: self.max.iter().cloned().collect(),
            equal: self.equal.iter().cloned().collect(),
        }
    }
}

/// `emu data pairs`
#[derive(Debug, Args)]
pub struct PairsArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    captions: CaptionArgs,
    /// tars, files, parquet, table, coco, imagefolder or classes; default: found out.
    #[arg(long, value_name = "NAME", value_parser = named::<pairs::Layout>)]
    layout: Option<pairs::Layout>,
    /// Folder of the pictures that a list names.
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// The field or column of the picture.
    #[arg(long, value_name = "NAME")]
    image_field: Option<String>,
    /// Of Karpathy's lists, the split to read.
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// Caption of a class; `{}` stands for its name.
    #[arg(long, value_name = "TEXT", default_value = "{}")]
    class_caption: String,
}

/// `emu data documents`
#[derive(Debug, Args)]
pub struct DocumentsArgs {
    #[command(flatten)]
    output: OutputArgs,
    /// mmc4, mmc4_tars or obelics; default: found out.
    #[arg(long, value_name = "NAME", value_parser = named::<documents::Layout>)]
    layout: Option<documents::Layout>,
    /// Folder of the pictures; for OBELICS the folder that img2dataset has written.
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Smallest CLIP similarity of a picture and its sentence; default: 0.32.
    #[arg(long, value_name = "X")]
    min_similarity: Option<f64>,
    /// Smallest picture file in bytes; default: 10241 for MMC4.
    #[arg(long, value_name = "N")]
    min_bytes: Option<u64>,
    /// Fewest pictures of a document; default: 1.
    #[arg(long, value_name = "N")]
    min_pictures: Option<usize>,
    /// Most pictures of a document; default: 5.
    #[arg(long, value_name = "N")]
    max_pictures: Option<usize>,
    /// first, or sampled: random pictures with their sentences alone.
    #[arg(long, value_name = "WHICH", value_parser = named::<documents::Pick>)]
    pick: Option<documents::Pick>,
    /// Share of the documents with one picture that are kept; default: 1.
    #[arg(long, value_name = "SHARE")]
    single_share: Option<f64>,
    /// Most words; default: 600.
    #[arg(long, value_name = "N")]
    max_words: Option<usize>,
}

/// `emu data videos`
#[derive(Debug, Args)]
pub struct VideosArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    captions: CaptionArgs,
    /// webvid, tars, table or files; default: found out.
    #[arg(long, value_name = "NAME", value_parser = named::<videos::Layout>)]
    layout: Option<videos::Layout>,
    /// Folder of the videos that a list names.
    #[arg(long, value_name = "DIR")]
    videos: Option<PathBuf>,
    /// The field or column of the video.
    #[arg(long, value_name = "NAME")]
    video_field: Option<String>,
    /// Frames of a video that are stored at most; default: 16.
    #[arg(long, value_name = "N")]
    frames: Option<usize>,
    /// Keep what describes resolution or camera in captions.
    #[arg(long)]
    keep_recording_words: bool,
}

/// `emu data storyboards`
#[derive(Debug, Args)]
pub struct StoryboardsArgs {
    #[command(flatten)]
    output: OutputArgs,
    /// sheets, tars or videos; default: found out.
    #[arg(long, value_name = "NAME", value_parser = named::<storyboards::Layout>)]
    layout: Option<storyboards::Layout>,
    /// Folder of the subtitles.
    #[arg(long, value_name = "DIR")]
    subtitles: Option<PathBuf>,
    /// Folder of the metadata of thumbnail sheets.
    #[arg(long, value_name = "DIR")]
    labels: Option<PathBuf>,
    /// Language of subtitles to prefer where a video has several files.
    #[arg(long, value_name = "CODE")]
    language: Option<String>,
    /// Frames of a document at most; default: 8.
    #[arg(long, value_name = "N")]
    frames: Option<usize>,
    /// Use every n-th frame of sheets and folders; default: 1.
    #[arg(long, value_name = "N")]
    every: Option<usize>,
    /// Seconds between the frames of a video; default: 10.
    #[arg(long, value_name = "SECONDS")]
    interval: Option<f64>,
    /// Fewest words of a document; default: 1.
    #[arg(long, value_name = "N")]
    min_words: Option<usize>,
}

/// `emu data instruct`
#[derive(Debug, Args)]
pub struct InstructArgs {
    #[command(flatten)]
    output: OutputArgs,
    /// Folder of the pictures that the records name.
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Folder of the videos that the records name.
    #[arg(long, value_name = "DIR")]
    videos: Option<PathBuf>,
    /// aswritten, or first: pictures before the text of their turn.
    #[arg(long, value_name = "WHERE", value_parser = named::<instruct::Place>)]
    place: Option<instruct::Place>,
    /// Frames of a video; default: 8.
    #[arg(long, value_name = "N")]
    frames: Option<usize>,
    /// Most pictures of a conversation; default: 16.
    #[arg(long, value_name = "N")]
    max_pictures: Option<usize>,
    /// Most words; default: 600.
    #[arg(long, value_name = "N")]
    max_words: Option<usize>,
    /// Fewest words of all answers together; default: 1.
    #[arg(long, value_name = "N")]
    min_answer_words: Option<usize>,
}

/// Builds pairs.
pub fn pairs(args: &PairsArgs) -> Result<()> {
    let mut options = pairs::Options::new(&args.output.source, &args.output.out);
    args.output.apply(&mut options.out);
    options.layout = args.layout;
    options.images.clone_from(&args.images);
    options.image_field.clone_from(&args.image_field);
    options.captions = args.captions.captions();
    options.filters = args.captions.filters();
    options.split.clone_from(&args.split);
    options.class_caption.clone_from(&args.class_caption);
    args.output.run(|progress| pairs::build(&options, progress))
}

/// Builds documents.
pub fn documents(args: &DocumentsArgs) -> Result<()> {
    let mut options = documents::Options::new(&args.output.source, &args.output.out);
    args.output.apply(&mut options.out);
    options.layout = args.layout;
    options.images.clone_from(&args.images);
    options.min_similarity = args.min_similarity.unwrap_or(options.min_similarity);
    options.min_bytes = args.min_bytes.or(options.min_bytes);
    options.min_pictures = args.min_pictures.unwrap_or(options.min_pictures);
    options.max_pictures = args.max_pictures.unwrap_or(options.max_pictures);
    options.pick = args.pick.unwrap_or(options.pick);
    options.single_share = args.single_share.unwrap_or(options.single_share);
    options.max_words = args.max_words.unwrap_or(options.max_words);
    args.output
        .run(|progress| documents::build(&options, progress))
}

/// Builds videos.
pub fn videos(args: &VideosArgs) -> Result<()> {
    let mut options = videos::Options::new(&args.output.source, &args.output.out);
    args.output.apply(&mut options.out);
    options.layout = args.layout;
    options.videos.clone_from(&args.videos);
    options.video_field.clone_from(&args.video_field);
    options.captions = args.captions.captions();
    options.filters = args.captions.filters();
    options.frames = args.frames.unwrap_or(options.frames);
    options.clean = !args.keep_recording_words;
    args.output
        .run(|progress| videos::build(&options, progress))
}

/// Builds storyboards.
pub fn storyboards(args: &StoryboardsArgs) -> Result<()> {
    let mut options = storyboards::Options::new(&args.output.source, &args.output.out);
    args.output.apply(&mut options.out);
    options.layout = args.layout;
    options.subtitles.clone_from(&args.subtitles);
    options.labels.clone_from(&args.labels);
    options.language.clone_from(&args.language);
    options.frames = args.frames.unwrap_or(options.frames);
    options.every = args.every.unwrap_or(options.every);
    options.interval = args.interval.or(options.interval);
    options.min_words = args.min_words.unwrap_or(options.min_words);
    args.output
        .run(|progress| storyboards::build(&options, progress))
}

/// Builds conversations.
pub fn instruct(args: &InstructArgs) -> Result<()> {
    let mut options = instruct::Options::new(&args.output.source, &args.output.out);
    args.output.apply(&mut options.out);
    options.images.clone_from(&args.images);
    options.videos.clone_from(&args.videos);
    options.place = args.place.unwrap_or(options.place);
    options.frames = args.frames.unwrap_or(options.frames);
    options.max_pictures = args.max_pictures.unwrap_or(options.max_pictures);
    options.max_words = args.max_words.unwrap_or(options.max_words);
    options.min_answer_words = args.min_answer_words.unwrap_or(options.min_answer_words);
    args.output
        .run(|progress| instruct::build(&options, progress))
}

/// The variant of this name.
fn named<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(text.into()).map_err(|error| error.to_string())
}

fn resize(text: &str) -> Result<Resize, String> {
    let side = |n: &str| match n.parse() {
        Ok(0) | Err(_) => Err(format!("`{n}` is no number of pixels")),
        Ok(n) => Ok(n),
    };
    match text.split_once(':') {
        None if text == "keep" => Ok(Resize::Keep),
        Some(("shorter", n)) => side(n).map(Resize::Shorter),
        Some(("square", n)) => side(n).map(Resize::Square),
        _ => Err("give keep, shorter:N or square:N".into()),
    }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((field, value)) if !field.is_empty() => Ok((field.into(), value.into())),
        _ => Err("give FIELD=VALUE".into()),
    }
}

fn number(text: &str) -> Result<(String, f64), String> {
    let (field, value) = assignment(text)?;
    let value = value
        .parse()
        .map_err(|_| format!("`{value}` is no number"))?;
    Ok((field, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_parsed_or_told() {
        assert_eq!(resize("keep"), Ok(Resize::Keep));
        assert_eq!(resize("square:224"), Ok(Resize::Square(224)));
        for wrong in ["", "shorter", "square:0", "square:x", "wider:3"] {
            assert!(resize(wrong).is_err(), "{wrong}");
        }
        assert_eq!(number("similarity=0.3"), Ok(("similarity".into(), 0.3)));
        assert!(number("similarity").is_err() && number("=1").is_err());
        assert!(number("similarity=high").is_err());
        assert_eq!(named("coco"), Ok(pairs::Layout::Coco));
        let error = named::<pairs::Layout>("cocoa").expect_err("no such layout");
        assert!(error.contains("imagefolder"), "{error}");
    }
}
