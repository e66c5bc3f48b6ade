//! `emu eval TASK` for the paper's tasks.

use std::path::Path;

use anyhow::{Context, Result};
use emu_eval::tasks::{
    EvaluateOptions, OpenOptions, Preset, Progress, Rounds, RunOptions, Shots, Task, evaluate,
};

use super::asked::Asked;
use super::outcome::{RESAMPLES, print};
use super::{judge, scenes, thumbnails};
use crate::args::EvalArgs;
use crate::output::bar;
use crate::runtime::Runtime;
use crate::signals;

/// Evaluates a pack on a task from its official files.
pub fn run(args: &EvalArgs, task: Task, data: &Path) -> Result<()> {
    let out = args.out.as_ref().context(
        "The answers and the report need a folder. Name one with -o; an interrupted run continues there",
    )?;
    let data = &match task {
        Task::Own => scenes::table(data, out)?,
        _ => data.to_owned(),
    };
    let options = EvaluateOptions {
        open: OpenOptions {
            split: args.split.clone(),
            annotations: args.annotations.clone(),
            media: args.images.clone(),
            rounds: match args.dense {
                true => Rounds::Dense,
                false => Rounds::All,
            },
        },
        preset: Preset::named(&args.preset)?,
        run: RunOptions {
            shots: Shots {
                k: args.shots,
                text_only: args.text_only,
            },
            limit: args.limit,
            seed: args.model.seed,
            features: args.features.clone(),
            index: args.index.clone(),
            ..RunOptions::default()
        },
        resamples: RESAMPLES,
        meteor: judge::meteor(args),
        judge: judge::judge(args)?,
        wordnet: judge::wordnet(args),
    };
    let stop = signals::stop_flag()?;
    let runtime = Runtime::open(&args.model)?;
    let mut model = Asked::new(&runtime, runtime.identity()?);
    let bar = bar(0, task.title());
    let mut progress = |progress: Progress| {
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        !stop.is_set()
    };
    let evaluated = evaluate(
        task,
        data,
        out,
        &options,
        &mut model,
        &mut progress,
        &mut thumbnails::of_file,
    )?;
    bar.finish_and_clear();
    print(args, &evaluated)
}
