//! `emu eval`

use anyhow::{Context, Result, bail};
use emu_model::pack::TOKENIZER;
use emu_train::eval::Scores;
use emu_train::eval::draw::Artist;
use emu_train::eval::text::Subject;
use emu_train::judge::Judge;
use emu_train::stages::corpus::{Words, open_set};
use emu_train::stages::sheet::contact_sheet;
use serde_json::json;

use crate::args::{EvalArgs, EvalTask};
use crate::output::{json_line, print_now};
use crate::runtime::{Runtime, open_pack};

/// Questions per scene: one of every kind.
const QUESTIONS: usize = 5;

/// Evaluates a model on a data split.
pub fn run(args: &EvalArgs) -> Result<()> {
    let runtime = Runtime::open(&args.model)?;
    let words = Words::from_bytes(&runtime.file(TOKENIZER)?, TOKENIZER)?;
    let subject = Subject {
        emu: runtime.emu()?,
        config: runtime.emu_config(),
        words: &words,
        device: &runtime.opened.device,
    };
    let kind = match args.task {
        EvalTask::Caption | EvalTask::Vqa | EvalTask::Agree => "scenes",
        EvalTask::Fewshot => "fewshot",
        EvalTask::Follow | EvalTask::Draw => "draw",
    };
    let set = open_set(&args.data, Some(kind))?;
    let scores = match args.task {
        EvalTask::Caption => subject.scenes(&set, args.limit, 0)?,
        EvalTask::Vqa => subject.scenes(&set, args.limit, QUESTIONS)?,
        EvalTask::Agree => {
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
            subject.agrees_with(other.emu()?, &set, args.limit, QUESTIONS)?
        }
        EvalTask::Fewshot => subject.fewshot(&set, args.limit)?,
        EvalTask::Follow => subject.follows(&set, args.limit)?,
        EvalTask::Draw => {
            let judge = args.judge.as_ref().context(
                "Drawings are judged by a classifier. Train one (configs/train/judge.toml) and name its run with --judge",
            )?;
            let judge = Judge::load(judge, &runtime.opened.device)?;
            let (decoder, config) = runtime.decoder()?;
            let artist = Artist {
                subject,
                decoder,
                config,
            };
            let (scores, pictures) =
                artist.judged(&set, args.limit, &judge, &runtime.opened.device)?;
            if let Some(path) = &args.sheet {
                contact_sheet(&pictures, 8, path)?;
            }
            scores
        }
    };
    print(args, &scores)
}

fn print(args: &EvalArgs, scores: &Scores) -> Result<()> {
    for (kind, score) in &scores.0 {
        if args.model.json {
            json_line(&json!({
                "kind": kind, "right": score.right, "total": score.total, "share": score.share(),
            }))?;
        } else {
            print_now(&format!(
                "{kind:<20} {:>6.1}%  {} of {}\n",
                score.share() * 100.0,
                score.right,
                score.total
            ))?;
        }
    }
    Ok(())
}
