//! The paper's tasks: from the official files to a report.
//!
//! 1. [`Task::from_name`] and [`open`] read the questions of a split ([`readers`]), and the training split for few-shot
//!    examples.
//! 2. [`Preset`] says how each task is asked.
//! 3. [`run`] asks a [`Model`] and writes answers that resume; [`features`](FeatureIndex) holds what RICES compares.
//! 4. [`score`] scores the answers; [`submission`] writes the file for the official server.
//! 5. [`report`] writes the result as JSON, Markdown and a page.
//!
//! [`evaluate`] does all of it. [`record`] writes the same files for figures that the caller measured on this project's own splits.

mod error;
mod evaluate;
mod examples;
mod features;
mod figure;
mod files;
mod frechet;
mod journal;
mod judge;
mod lines;
mod measured;
mod meteor;
mod model;
mod outputs;
mod preset;
mod problems;
mod program;
mod progress;
mod prompt;
mod published;
mod question;
mod readers;
mod report;
mod result;
mod run;
mod scoring;
mod submission;
mod table;
mod task;
mod template;
mod wordnet;

use std::path::{Path, PathBuf};

pub use error::{EvalError, ModelError};
pub use evaluate::{EvaluateOptions, Evaluated, evaluate};
pub use features::{FeatureIndex, Unscaled};
pub use figure::{Figure, Measured};
pub use frechet::{FeatureSource, frechet};
#[cfg(not(target_arch = "wasm32"))]
pub use judge::{Address, AddressError};
pub use judge::{Case, Graded, Grader, Judge, JudgePrompt, Script, Secret, Who, grades};
pub use lines::JsonLines;
pub use measured::{Item, Measurement, Tally, measured, record};
pub use meteor::{Meteor, MeteorError};
pub use model::{Decoding, Form, Model, Outcome, Part, Request};
pub use preset::{AnswerableStep, Ask, CaptionStep, Choice, Clean, FewShot, Preset, System};
pub use problems::{ProblemKind, Problems, Records};
pub use program::ProgramError;
pub use progress::{Progress, Stage};
pub use published::{Mark, Published, published};
pub use question::{ExampleAnswer, HumanAnswer, Media, MediaKind, Question, Truth};
pub use readers::Rounds;
pub use report::{Report, Thumbnail, report};
pub use result::{Counted, Group, Interval, Metric, TaskResult};
pub use run::{Answer, Given, Run, RunOptions, Shots, run};
pub use scoring::{Helpers, ScoreOptions, Scores, score};
pub use submission::{Submission, submission};
pub use task::Task;
pub use template::{Piece, Slot, Template};

use files::{Folder, sha256};
use readers::Split;

/// Options of [`open`].
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// The split; default: the first of [`Task::splits`].
    pub split: Option<String>,
    /// Folder of the annotation files, if they are not in the data folder.
    pub annotations: Option<PathBuf>,
    /// Folder of the pictures or videos, if they are not in the data folder.
    pub media: Option<PathBuf>,
    /// For VisDial: which rounds are asked.
    pub rounds: Rounds,
}

/// The questions of a split.
#[derive(Clone, Debug)]
pub struct TaskData {
    /// The task.
    pub task: Task,
    /// The split.
    pub split: String,
    /// Usable questions, in the order of the official file.
    pub questions: Vec<Question>,
    /// Ids of all questions of the official file.
    pub ids: Vec<String>,
    /// Records that could not be used.
    pub problems: Problems,
}

impl TaskData {
    /// Whether the answers of this task are rankings of candidates.
    pub fn is_ranked(&self) -> bool {
        self.task == Task::Visdial
            || self
                .questions
                .first()
                .is_some_and(|question| !question.candidates.is_empty())
    }

    /// SHA-256 of the questions: ids, texts and names of media.
    pub fn sha256(&self) -> String {
        let each = |question: &Question| {
            let media = question.media.iter().map(|media| media.name.clone());
            let texts = [question.id.clone(), question.text.clone()];
            let history = question
                .history
                .iter()
                .flat_map(|(q, a)| [q.clone(), a.clone()]);
            let candidates = question.candidates.iter().map(|text| text.to_string());
            texts
                .into_iter()
                .chain(media)
                .chain(history)
                .chain(candidates)
                .collect::<Vec<_>>()
        };
        let texts: Vec<String> = self.questions.iter().flat_map(each).collect();
        sha256(texts.iter().map(String::as_str))
    }
}

/// Reads a split of a task from the folder of its downloaded files (docs/evaluation.md has their layouts).
///
/// # Errors
/// If the split or a file does not exist, a file is not in its layout, or no question is usable. Faulty records are no
/// errors: they are in [`TaskData::problems`].
pub fn open(task: Task, folder: &Path, options: &OpenOptions) -> Result<TaskData, EvalError> {
    let first = task.splits().first().copied().unwrap_or_default();
    let split = options.split.as_deref().unwrap_or(first);
    if !task.splits().contains(&split) {
        return Err(EvalError::UnknownSplit {
            task: task.name(),
            split: split.to_owned(),
            known: task.splits().join(", "),
        });
    }
    let folder = Folder::new(
        folder,
        task.homes(),
        options.annotations.as_deref(),
        options.media.as_deref(),
    );
    let Split {
        questions,
        ids,
        problems,
    } = match task {
        Task::Coco => readers::coco(&folder, split)?,
        Task::Nocaps => readers::nocaps(&folder, split)?,
        Task::Flickr30k => readers::flickr30k(&folder, split)?,
        Task::Vqav2 => readers::vqav2(&folder, split)?,
        Task::Okvqa => readers::okvqa(&folder, split)?,
        Task::Vizwiz => readers::vizwiz(&folder, split)?,
        Task::Visdial => readers::visdial(&folder, split, options.rounds)?,
        Task::Mmvet => readers::mmvet(&folder)?,
        Task::Msvdqa => readers::msvdqa(&folder, split)?,
        Task::Msrvttqa => readers::msrvttqa(&folder, split)?,
        Task::Nextqa => readers::nextqa(&folder, split)?,
        Task::Easyvqa => readers::easy_vqa(&folder, split)?,
        Task::Own => readers::own(&folder, split)?,
    };
    if questions.is_empty() {
        return Err(EvalError::Empty {
            task: task.name(),
            problems: problems.to_string(),
        });
    }
    Ok(TaskData {
        task,
        split: split.to_owned(),
        questions,
        ids,
        problems,
    })
}

/// Reads the split that a task's few-shot examples come from.
///
/// # Errors
/// As [`open`], or if the task has no such split.
pub fn open_examples(
    task: Task,
    folder: &Path,
    options: &OpenOptions,
) -> Result<TaskData, EvalError> {
    let split = task.example_split().ok_or_else(|| {
        EvalError::Examples(format!(
            "{} has no training split. Evaluate it with --shots 0",
            task.title()
        ))
    })?;
    let options = OpenOptions {
        split: Some(split.to_owned()),
        rounds: Rounds::All,
        ..options.clone()
    };
    open(task, folder, &options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tasks_and_splits() {
        for task in Task::ALL {
            assert_eq!(Task::from_name(task.name()).expect("task"), task);
            assert_eq!(serde_json::to_value(task).expect("name"), task.name());
            if let Some(split) = task.example_split() {
                assert!(task.splits().contains(&split), "{}", task.name());
            }
        }
        let error = Task::from_name("cocoa").expect_err("unknown").to_string();
        assert!(
            error.contains("cocoa") && error.contains("coco, nocaps"),
            "{error}"
        );
        let options = OpenOptions {
            split: Some("dev".into()),
            ..OpenOptions::default()
        };
        let error = open(Task::Okvqa, Path::new("nowhere"), &options)
            .expect_err("split")
            .to_string();
        assert!(
            error.contains("\"dev\"") && error.contains("val, train"),
            "{error}"
        );
        let error = open(Task::Okvqa, Path::new("nowhere"), &OpenOptions::default())
            .expect_err("file")
            .to_string();
        assert!(
            error.contains("nowhere") && error.contains("OpenEnded_mscoco_val2014_questions.json"),
            "{error}"
        );
        let error = open_examples(Task::Mmvet, Path::new("."), &OpenOptions::default())
            .expect_err("none")
            .to_string();
        assert!(error.contains("--shots 0"), "{error}");
    }
}
