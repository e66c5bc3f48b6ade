//! `emu eval`

mod asked;
mod figures;
mod frechet;
mod judge;
mod outcome;
mod scenes;
mod tasks;
mod thumbnails;

use std::path::Path;

use anyhow::{Context, Result, bail};
use emu_eval::goldens;
use emu_eval::tasks::Measured;

use crate::args::{EvalArgs, EvalTask};
use crate::output::{json_line, print_now};

/// Evaluates a model on a data split.
pub fn run(args: &EvalArgs) -> Result<()> {
    let data = args.data.as_ref().or(args.folder.as_ref());
    let data = data.context("The task needs data. Name its folder with --data")?;
    match args.task {
        EvalTask::Score => score(data, args.model.json),
        EvalTask::Measured(Measured::Task(task)) => tasks::run(args, task, data),
        EvalTask::Measured(Measured::Figure(figure)) => figures::run(args, figure, data),
        EvalTask::Measured(Measured::Frechet) => frechet::run(args, data),
    }
}

/// Compares the scorers with recorded results of the original programs.
fn score(folder: &Path, json: bool) -> Result<()> {
    let report = goldens::run(folder)?;
    match json {
        true => json_line(&serde_json::to_value(&report)?)?,
        false => print_now(&format!("{report}\n"))?,
    }
    match report.failed() {
        0 => Ok(()),
        n => bail!("{n} results differ from the recorded ones. They are marked in the list."),
    }
}
