//! Options and results of a run.

use std::path::PathBuf;

use serde_json::Value;

/// Few-shot examples in front of every question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shots {
    /// How many.
    pub k: usize,
    /// Without their pictures, as in the starred rows of the paper.
    pub text_only: bool,
}

/// Options of [`run`].
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Few-shot examples.
    pub shots: Shots,
    /// Ask only so many questions, drawn by the seed.
    pub limit: Option<usize>,
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// Requests in a batch.
    pub batch: usize,
    /// Index of given features of the pictures of questions and examples; default: the model computes them.
    pub features: Option<PathBuf>,
    /// Folder of the index of the examples' features, to share it between runs; default: the folder of the run.
    pub index: Option<PathBuf>,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            shots: Shots::default(),
            limit: None,
            seed: 0,
            batch: 8,
            features: None,
            index: None,
        }
    }
}

/// What a model gave.
#[derive(Clone, Debug, PartialEq)]
pub enum Given {
    /// A text.
    Text {
        /// As the model wrote it.
        raw: String,
        /// After clean-up, or the text for a question that it declared unanswerable.
        answer: String,
    },
    /// A score for each candidate.
    Scores(Vec<f64>),
    /// Nothing: the picture cannot be read.
    Nothing(String),
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Index in [`TaskData::questions`].
    pub question: usize,
    /// What the model gave.
    pub given: Given,
    /// The caption of the first step.
    pub caption: Option<String>,
    /// Ids of the few-shot examples.
    pub examples: Vec<String>,
}

/// All answers, in the order of the questions, and the settings that led to them.
#[derive(Clone, Debug)]
pub struct Run {
    /// Answers.
    pub answers: Vec<Answer>,
    /// Settings, as in the first line of the file of answers.
    pub settings: Value,
}
