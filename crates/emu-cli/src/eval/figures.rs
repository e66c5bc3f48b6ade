//! `emu eval` for the figures of this project's own splits. emu-train measures them, with the prompts of the training; the
//! result and the report are those of the other tasks.

use std::path::Path;

use anyhow::{Context, Result, bail};
use emu_eval::tasks::{
    Evaluated, Figure, Item, Measurement, Media, MediaKind, ScoreOptions, Tally, Thumbnail,
    measured, record,
};
use emu_media::image::RgbImage;
use emu_model::pack::TOKENIZER;
use emu_train::data::ShardDataset;
use emu_train::eval::draw::Artist;
use emu_train::eval::text::Subject;
use emu_train::eval::{self, Scores};
use emu_train::judge::Judge;
use emu_train::stages::corpus::{Words, open_set};
use emu_train::stages::sheet::contact_sheet;
use serde_json::{Value, json};

use super::outcome::{RESAMPLES, print};
use super::thumbnails;
use crate::args::EvalArgs;
use crate::runtime::{Runtime, open_pack};

/// Questions per scene: one of every kind.
const QUESTIONS: usize = 5;
/// Samples that a figure is measured on, unless `--limit` says otherwise.
const LIMIT: usize = 500;

/// Measures a figure, prints it, and with `--out` writes the result and the report.
pub fn run(args: &EvalArgs, figure: Figure, data: &Path) -> Result<()> {
    let limit = args.limit.unwrap_or(LIMIT);
    let runtime = Runtime::open(&args.model)?;
    let set = open_set(data, Some(figure.shards()))?;
    let mut settings = json!({"limit": limit});
    let (scores, drawings) = measure(args, figure, &runtime, &set, limit, &mut settings)?;
    let split = data
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let bad = set.bad().iter().map(ToString::to_string).collect();
    let measurement = Measurement {
        figure,
        split,
        model: runtime.identity()?,
        settings,
        samples: set.len() + set.bad().len(),
        bad,
        asked: set.len().min(limit),
        items: scores.items().iter().enumerate().map(item).collect(),
        notes: notes(figure),
    };
    let options = ScoreOptions {
        resamples: RESAMPLES,
        seed: args.model.seed,
    };
    let evaluated = match &args.out {
        None => Evaluated {
            result: measured(&measurement, &options)?,
            submission: None,
            files: vec![],
        },
        Some(out) => record(&measurement, &options, out, &mut |medium: &Media| {
            thumbnail(medium, figure, &set, &drawings)
        })?,
    };
    print(args, &evaluated)
}

/// Scores, and for drawings the pictures. Adds what they depend on to the settings.
fn measure(
    args: &EvalArgs,
    figure: Figure,
    runtime: &Runtime,
    set: &ShardDataset,
    limit: usize,
    settings: &mut Value,
) -> Result<(Scores, Vec<RgbImage>)> {
    let words = Words::from_bytes(&runtime.file(TOKENIZER)?, TOKENIZER)?;
    let device = &runtime.opened.device;
    let subject = Subject {
        emu: runtime.emu()?,
        config: runtime.emu_config(),
        words: &words,
        device,
    };
    let scores = match figure {
        Figure::Caption => subject.scenes(set, limit, 0)?,
        Figure::Vqa => {
            settings["questions"] = json!(QUESTIONS);
            subject.scenes(set, limit, QUESTIONS)?
        }
        Figure::Agree => {
            let path = args.against.as_ref().context(
                "Agreement is with another pack of the same model. Name it with --against",
            )?;
            let other = Runtime::from_reader(open_pack(Some(path))?, args.model.device.choice())?;
            if other.emu_config() != runtime.emu_config() {
                bail!(
                    "{} has another configuration. Compare packs of the same model.",
                    path.display()
                );
            }
            settings["questions"] = json!(QUESTIONS);
            settings["against"] = json!(other.identity()?);
            subject.agrees_with(other.emu()?, set, limit, QUESTIONS)?
        }
        Figure::Fewshot => subject.fewshot(set, limit)?,
        Figure::Follow => subject.follows(set, limit)?,
        Figure::Draw => {
            let path = args.judge.as_ref().context(
                "Drawings are judged by a classifier. Train one (configs/train/judge.toml) and name its run with --judge",
            )?;
            let judge = Judge::load(path, device)?;
            settings["judge"] = json!(path.file_name().map(|name| name.to_string_lossy()));
            let (decoder, config) = runtime.decoder()?;
            let artist = Artist {
                subject,
                decoder,
                config,
            };
            let (scores, drawings) = artist.judged(set, limit, &judge, device)?;
            if let Some(path) = &args.sheet {
                contact_sheet(&drawings, 8, path)?;
            }
            return Ok((scores, drawings));
        }
    };
    Ok((scores, vec![]))
}

/// An answer as the report takes it. Its medium is named by the sample and the picture.
fn item((n, item): (usize, &eval::Item)) -> Item {
    let media = item.picture.map(|picture| Media {
        kind: MediaKind::Picture,
        name: format!("{}.{picture}", item.sample),
        path: format!("{}.{picture}.png", item.sample).into(),
    });
    let tallies = item.scores.iter().map(|(kind, score)| Tally {
        kind: kind.clone(),
        right: score.right,
        total: score.total,
    });
    Item {
        id: format!("{}:{n}", item.sample),
        sample: item.sample,
        media,
        question: item.question.clone(),
        wanted: item.wanted.clone(),
        given: item.given.clone(),
        tallies: tallies.collect(),
    }
}

fn notes(figure: Figure) -> Vec<String> {
    let notes: &[&str] = match figure {
        Figure::Agree => &[
            "Next tokens are compared under teacher forcing. The interval resamples scenes, and keeps their positions together.",
        ],
        Figure::Draw => &[
            "The judge is a classifier of this project's own drawings: its numbers are no FID and not comparable with other judges.",
        ],
        Figure::Caption | Figure::Vqa | Figure::Fewshot | Figure::Follow => {
            &["Answers are decoded greedily and compared as whole texts."]
        }
    };
    notes.iter().map(|note| (*note).to_owned()).collect()
}

/// The picture of an item: a drawing of the model, or a picture of the split.
fn thumbnail(
    medium: &Media,
    figure: Figure,
    set: &ShardDataset,
    drawings: &[RgbImage],
) -> Option<Thumbnail> {
    let (sample, picture) = medium.name.split_once('.')?;
    let (sample, picture): (usize, usize) = (sample.parse().ok()?, picture.parse().ok()?);
    if figure == Figure::Draw {
        return thumbnails::of_picture(drawings.get(picture)?);
    }
    let picture = set.get(sample).ok()?.images.into_iter().nth(picture)?;
    let picture = RgbImage::from_raw(picture.width, picture.height, picture.rgb)?;
    thumbnails::of_picture(&picture)
}
