//! How far a run is.

use serde::Serialize;

/// A part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Features for retrieval.
    Features,
    /// Captions, as a first step.
    Captions,
    /// Whether questions can be answered.
    Answerable,
    /// Answers.
    Answers,
    /// Grades of a judge.
    Grades,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Items done.
    pub done: usize,
    /// All items of this stage.
    pub total: usize,
}
