//! The result of a task: one JSON schema for all.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::figure::Measured;
use super::problems::Problems;
use super::published::Published;

/// Version of the schema.
pub const FORMAT: u32 = 1;

/// A confidence interval by bootstrap over questions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Its level, such as 0.95.
    pub level: f64,
}

/// A number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// Its value, in the unit in which it is published (most are percentages).
    pub value: f64,
    /// Confidence interval, where the metric is a mean over questions.
    pub interval: Option<Interval>,
    /// Questions that it is a mean of.
    pub questions: usize,
    /// What to know about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The main metric over the questions of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// What the grouping is by, such as "answer type".
    pub by: String,
    /// The group.
    pub name: String,
    /// Its number.
    pub value: f64,
    /// Its questions.
    pub questions: usize,
}

/// How many questions there are, and how many of them were scored. Of a figure of this project's splits samples are counted, of
/// which each can have several answers; of a Frechet distance pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// In the official file.
    pub official: usize,
    /// Without faulty ones.
    pub usable: usize,
    /// Asked: all, or as many as the limit allows.
    pub asked: usize,
    /// Answered: the model could read the picture.
    pub answered: usize,
    /// Scored.
    pub scored: usize,
}

/// The result of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// Version of this schema: 1.
    pub format: u32,
    /// What it is about: a task, a figure of this project's splits, or a Frechet distance.
    pub task: Measured,
    /// Its split.
    pub split: String,
    /// The model.
    pub model: String,
    /// The preset.
    pub preset: String,
    /// The settings that led to the answers.
    pub settings: Value,
    /// Questions.
    pub questions: Counted,
    /// Whether every question of the official file was scored (of a split that a server scores: answered). Only then is the
    /// number comparable with published ones.
    pub complete: bool,
    /// Metrics; the first is the main one. Empty if the references of the split are not public.
    pub metrics: Vec<Metric>,
    /// The main metric by groups.
    pub groups: Vec<Group>,
    /// Faulty records, by kind.
    pub problems: Problems,
    /// Numbers of the paper for this task.
    pub published: Vec<Published>,
    /// The metric of the paper's numbers, if it is not the first of `metrics`.
    pub paper_metric: Option<String>,
    /// What to know about these numbers.
    pub notes: Vec<String>,
}
