//! The entry of a run.

use std::collections::HashMap;
use std::path::Path;

use super::runner::Runner;
use super::types::{Run, RunOptions};
use crate::tasks::TaskData;
use crate::tasks::error::EvalError;
use crate::tasks::examples::key_of;
use crate::tasks::model::Model;
use crate::tasks::preset::Preset;
use crate::tasks::progress::Progress;

/// Asks a model the questions of a task. `examples` is the training split, for few-shot examples. Files go to `out`:
/// `answers.jsonl`, with two steps `captions.jsonl`, with retrieval `*.features`. The same call continues an interrupted run,
/// and gives the same files as an uninterrupted one. `progress` is called before each batch; if it returns false, the run stops.
///
/// # Errors
/// If the preset does not have the task, examples are missing, the files in `out` have other settings, the model fails, or
/// the caller stops.
pub fn run(
    data: &TaskData,
    examples: Option<&TaskData>,
    preset: &Preset,
    model: &mut dyn Model,
    options: &RunOptions,
    out: &Path,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Run, EvalError> {
    let ask = preset.ask(data.task)?;
    let mut runner = Runner {
        data,
        preset,
        ask,
        options,
        out,
        asked: selected(data, options),
        shots: vec![],
        features: None,
        captions: HashMap::new(),
        model,
        progress,
    };
    runner.choose_examples(examples)?;
    if let Some(step) = &ask.caption {
        runner.caption(step)?;
    }
    let answerable = match &ask.answerable {
        Some(step) => Some(runner.answerable(step)?),
        None => None,
    };
    runner.answer(examples, answerable)
}

/// Indices of the questions that are asked: all, or those with the lowest hashes of seed and id.
fn selected(data: &TaskData, options: &RunOptions) -> Vec<usize> {
    let mut all: Vec<usize> = (0..data.questions.len()).collect();
    if let Some(limit) = options.limit {
        all.sort_by_cached_key(|at| key_of(options.seed, &data.questions[*at].id));
        all.truncate(limit);
        all.sort_unstable();
    }
    all
}
