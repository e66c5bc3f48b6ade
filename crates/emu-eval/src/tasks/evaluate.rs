//! A whole evaluation in one call.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::error::EvalError;
use super::judge::{Case, Judge, grades};
use super::meteor::Meteor;
use super::model::{Media, Model};
use super::outputs;
use super::preset::Preset;
use super::problems::ProblemKind;
use super::progress::Progress;
use super::published::published;
use super::question::Truth;
use super::report::Thumbnail;
use super::result::{Counted, FORMAT, Metric, TaskResult};
use super::run::{Answer, Given, Run, RunOptions, run};
use super::scoring::{Helpers, ScoreOptions, Scores, score};
use super::submission::{Submission, submission};
use super::wordnet;
use super::{OpenOptions, Task, TaskData, open, open_examples};
use crate::score::{Caption, captions};

/// Options of [`evaluate`].
#[derive(Clone, Debug)]
pub struct EvaluateOptions {
    /// Where the files are, and which split.
    pub open: OpenOptions,
    /// Prompts and decoding.
    pub preset: Preset,
    /// Examples, limit, seed, batches.
    pub run: RunOptions,
    /// Resamples of the confidence intervals; 0 for none.
    pub resamples: usize,
    /// METEOR, for captions; without it the result says so.
    pub meteor: Option<Meteor>,
    /// Who grades the answers to MM-Vet.
    pub judge: Option<Judge>,
    /// Folder of WordNet's database, for the WUPS of NExT-QA; without it the result says so.
    pub wordnet: Option<PathBuf>,
}

/// What an evaluation leaves.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// The result, as in `result.json`.
    pub result: TaskResult,
    /// The official submission file, where the task has one.
    pub submission: Option<Submission>,
    /// `result.json`, `scores.jsonl`, `report.md`, `report.html`.
    pub files: Vec<PathBuf>,
}

/// Evaluates a model on a task: reads the official files in `folder`, asks, scores, and writes into `out` the answers, the
/// submission file, `result.json`, `scores.jsonl`, `report.md` and `report.html`. Continues an interrupted run.
///
/// # Errors
/// As [`open`], [`run`] and [`submission`].
pub fn evaluate(
    task: Task,
    folder: &Path,
    out: &Path,
    options: &EvaluateOptions,
    model: &mut dyn Model,
    progress: &mut dyn FnMut(Progress) -> bool,
    thumbnail: &mut dyn FnMut(&Media) -> Option<Thumbnail>,
) -> Result<Evaluated, EvalError> {
    // What can be found out without the model comes first.
    options.preset.ask(task)?;
    if let Some(judge) = &options.judge {
        if task != Task::Mmvet {
            return Err(EvalError::NoJudge(task.name()));
        }
        judge.check()?;
    }
    let data = open(task, folder, &options.open)?;
    let wups = match &options.wordnet {
        Some(wordnet) if task == Task::Nextqa && !data.is_ranked() => {
            Some(wordnet::wups(wordnet, folder)?)
        }
        _ => None,
    };
    let examples = match options.run.shots.k {
        0 => None,
        _ => Some(open_examples(task, folder, &options.open)?),
    };
    let run = run(
        &data,
        examples.as_ref(),
        &options.preset,
        model,
        &options.run,
        out,
        progress,
    )?;
    let graded = match &options.judge {
        None => None,
        // The predictions come first: they are kept if the judge fails.
        Some(judge) => {
            submission(&data, &run.answers, out)?;
            Some(grades(judge, &cases(&data, &run), out, progress)?)
        }
    };
    let score_options = ScoreOptions {
        resamples: options.resamples,
        seed: options.run.seed,
    };
    let helpers = Helpers {
        graded: graded.as_ref(),
        wups: wups.as_ref().map(|(wups, original)| (wups, *original)),
    };
    let mut scores = score(&data, &run.answers, &score_options, &helpers)?;
    if task == Task::Nextqa && !data.is_ranked() && wups.is_none() {
        let note = "WUPS was not computed: WordNet was not named (--wordnet or EMU_WORDNET).";
        scores.notes.push(note.to_owned());
    }
    if task.is_caption() && !scores.metrics.is_empty() {
        add_meteor(&mut scores, &data, &run, options.meteor.as_ref());
    }
    let submission = submission(&data, &run.answers, out)?;
    let mut result = assemble(&data, &options.preset, &model.name(), &run, &scores);
    if let Some(judge) = &options.judge {
        result.settings["judge"] = json!({"name": judge.name(), "runs": judge.runs});
    }
    let files = outputs::write(
        &result,
        &data.questions,
        &run.answers,
        &scores.per_answer,
        out,
        thumbnail,
    )?;
    Ok(Evaluated {
        result,
        submission,
        files,
    })
}

/// What a judge is asked about: the answers that are texts.
fn cases<'a>(data: &'a TaskData, run: &'a Run) -> Vec<Case<'a>> {
    let case = |answer: &'a Answer| {
        let question = data.questions.get(answer.question)?;
        match (&answer.given, &question.truth) {
            (Given::Text { answer, .. }, Truth::Elements(truth)) => Some(Case {
                id: &question.id,
                question: &question.text,
                answer: truth,
                prediction: answer,
                attempt: 0,
            }),
            _ => None,
        }
    };
    run.answers.iter().filter_map(case).collect()
}

/// Adds METEOR to the scores of captions, or why there is none.
fn add_meteor(scores: &mut Scores, data: &TaskData, run: &Run, meteor: Option<&Meteor>) {
    let Some(meteor) = meteor else {
        let note =
            "METEOR was not computed: its jar was not named (--meteor-jar or EMU_METEOR_JAR).";
        scores.notes.push(note.to_owned());
        return;
    };
    let caption = |answer: &Answer| {
        let question = data.questions.get(answer.question)?;
        match (&answer.given, &question.truth) {
            (Given::Text { answer, .. }, Truth::Captions(references)) => Some(Caption {
                hypothesis: answer.clone(),
                references: references.clone(),
            }),
            _ => None,
        }
    };
    let captions: Vec<Caption> = run.answers.iter().filter_map(caption).collect();
    match meteor.score(&captions::tokenize(&captions)) {
        Ok(scored) => scores.metrics.push(Metric {
            name: "METEOR".to_owned(),
            value: scored.corpus * 100.0,
            interval: None,
            questions: captions.len(),
            note: None,
        }),
        Err(error) => scores
            .notes
            .push(format!("METEOR was not computed: {error}.")),
    }
}

/// The result of a run.
pub(super) fn assemble(
    data: &TaskData,
    preset: &Preset,
    model: &str,
    run: &Run,
    scores: &Scores,
) -> TaskResult {
    let mut problems = data.problems.clone();
    let mut answered = 0;
    for answer in &run.answers {
        match (&answer.given, data.questions.get(answer.question)) {
            (Given::Nothing(reason), Some(question)) => {
                problems.note(
                    ProblemKind::UnreadableMedia,
                    format!("question {}: {reason}", question.id),
                );
            }
            _ => answered += 1,
        }
    }
    let questions = Counted {
        official: data.ids.len(),
        usable: data.questions.len(),
        asked: run.answers.len(),
        answered,
        scored: scores.scored,
    };
    let done = if scores.metrics.is_empty() {
        questions.answered
    } else {
        questions.scored
    };
    let paper = !(data.task == Task::Nextqa && data.is_ranked());
    TaskResult {
        format: FORMAT,
        task: data.task.into(),
        split: data.split.clone(),
        model: model.to_owned(),
        preset: preset.name.clone(),
        settings: run.settings.clone(),
        questions,
        complete: done == questions.official,
        metrics: scores.metrics.clone(),
        groups: scores.groups.clone(),
        problems,
        published: if paper { published(data.task) } else { vec![] },
        paper_metric: scores.paper_metric.map(str::to_owned),
        notes: scores.notes.clone(),
    }
}
