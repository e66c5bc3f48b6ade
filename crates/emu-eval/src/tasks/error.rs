//! Errors of the tasks.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// The error of a [`Model`](super::Model): whatever its implementation says.
pub type ModelError = Box<dyn std::error::Error + Send + Sync>;

/// What can go wrong in a task. Faults of single records are not here: they are counted in
/// [`Problems`](super::Problems).
#[derive(Debug, Error)]
pub enum EvalError {
    /// No such task.
    #[error("There is no task {name:?}. Name one of: {known}")]
    UnknownTask {
        /// What was asked for.
        name: String,
        /// The known tasks.
        known: String,
    },
    /// The task has no such split.
    #[error("{task} has no split {split:?}. Name one of: {known}")]
    UnknownSplit {
        /// The task.
        task: &'static str,
        /// What was asked for.
        split: String,
        /// The splits that it has.
        known: String,
    },
    /// None of the possible files is there.
    #[error("{what} not found. Put one of these files into {} or a subfolder named in docs/evaluation.md: {names}", .folder.display())]
    NoFile {
        /// What the file would hold.
        what: String,
        /// The data folder.
        folder: PathBuf,
        /// The file names that were tried.
        names: String,
    },
    /// A file or folder cannot be read or written.
    #[error("Cannot {verb} {}: {source}. Check the path and its permissions", .path.display())]
    Io {
        /// read, write, ...
        verb: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file is not in the layout that its name promises.
    #[error("{} does not have the layout of {what}: {reason}. Download it again, or check that it is the right file", .path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// The layout.
        what: &'static str,
        /// Where it differs.
        reason: String,
    },
    /// Nothing is left to ask.
    #[error(
        "{task} has no usable question: {problems}. Check the folder of the pictures and the split"
    )]
    Empty {
        /// The task.
        task: &'static str,
        /// The problems, in words.
        problems: String,
    },
    /// A preset is wrong.
    #[error("Preset {name}: {reason}")]
    Preset {
        /// Its name or file.
        name: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The files of a run were written with other settings.
    #[error(
        "{} was written with {setting} = {before}; now it is {now}. Use the former setting, or another output folder", .path.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// The first setting that differs.
        setting: String,
        /// Its former value.
        before: String,
        /// Its present value.
        now: String,
    },
    /// A file of a run is damaged.
    #[error("{} is damaged in line {line}: {reason}. Delete the file, or cut it before that line, and run again", .path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// Another process writes the same file.
    #[error("{} is in use by another run. Wait for it, or use another output folder", .0.display())]
    Locked(PathBuf),
    /// An index of features cannot be used.
    #[error("{} is not a usable index of features: {reason}. Delete it to have it computed again", .path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The few-shot examples cannot be had.
    #[error("Few-shot examples: {0}")]
    Examples(String),
    /// The model failed.
    #[error("The model failed at {at}: {source}")]
    Model {
        /// The requests.
        at: String,
        /// The cause.
        source: ModelError,
    },
    /// The model's implementation returned something impossible.
    #[error(
        "The model's interface returned {got} for {at}; expected {expected}. This is a fault of the program: report it"
    )]
    Contract {
        /// The requests.
        at: String,
        /// What was returned.
        got: String,
        /// What was expected.
        expected: String,
    },
    /// The caller stopped the run.
    #[error("Stopped. Run the same command again to continue")]
    Stopped,
    /// The settings of the judge cannot be used.
    #[error("The judge cannot be used. {0}")]
    JudgeSettings(ModelError),
    /// The judge cannot be asked.
    #[error("The judge failed at {at}: {source}. The grades so far are kept")]
    Judge {
        /// The question.
        at: String,
        /// The cause.
        source: ModelError,
    },
    /// The task has no judge.
    #[error("{0} is not graded by a judge. Leave out the options of the judge, or evaluate mmvet")]
    NoJudge(&'static str),
    /// A file of WordNet is missing.
    #[error("{} has no {name}. Name the folder of WordNet's database, such as nltk_data/corpora/wordnet or /usr/share/wordnet", .folder.display())]
    NoWordNet {
        /// The folder.
        folder: PathBuf,
        /// The file.
        name: String,
    },
    /// Nothing can be scored.
    #[error("{task} cannot be scored: {reason}")]
    Scores {
        /// The task.
        task: &'static str,
        /// The reason.
        reason: String,
    },
    /// A submission cannot be written.
    #[error("No submission file for {task}: {reason}")]
    Submission {
        /// The task.
        task: &'static str,
        /// The reason.
        reason: String,
    },
}

impl EvalError {
    /// An [`EvalError::Io`], as an argument of `map_err`.
    pub(crate) fn io(verb: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { verb, path, source }
    }
}
