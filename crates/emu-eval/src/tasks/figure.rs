//! The figures of this project's own splits, and what a result can be about.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::EvalError;
use super::task::Task;

/// A figure of this project's own splits (`emu data emoji`). The caller measures it, because the splits are shards of training
/// data and the prompts are those of the training; [`measured`](super::measured) makes a result of what it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Figure {
    /// Captions of scenes.
    Caption,
    /// Captions of scenes and answers to questions about them.
    Vqa,
    /// Agreement of the most likely next token with another pack, over captions and questions of scenes.
    Agree,
    /// Few-shot completion, compared with zero-shot on the last picture alone.
    Fewshot,
    /// Whether the model starts a picture on its own after a drawing request.
    Follow,
    /// Drawings for drawing requests, judged by a classifier.
    Draw,
}

impl Figure {
    /// All figures.
    pub const ALL: [Self; 6] = [
        Self::Caption,
        Self::Vqa,
        Self::Agree,
        Self::Fewshot,
        Self::Follow,
        Self::Draw,
    ];

    /// Its name on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Caption => "caption",
            Self::Vqa => "vqa",
            Self::Agree => "agree",
            Self::Fewshot => "fewshot",
            Self::Follow => "follow",
            Self::Draw => "draw",
        }
    }

    /// Its name in prose.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Caption => "Captions of scenes",
            Self::Vqa => "Captions and questions of scenes",
            Self::Agree => "Agreement with another pack",
            Self::Fewshot => "Few-shot completion",
            Self::Follow => "Drawing requests followed",
            Self::Draw => "Drawings, judged by a classifier",
        }
    }

    /// The shards of a split that it is measured on: `KIND-*.tar`.
    pub const fn shards(self) -> &'static str {
        match self {
            Self::Caption | Self::Vqa | Self::Agree => "scenes",
            Self::Fewshot => "fewshot",
            Self::Follow | Self::Draw => "draw",
        }
    }

    /// The kind of answer whose share is the main metric.
    pub const fn main(self) -> &'static str {
        match self {
            Self::Caption => "caption",
            Self::Vqa => "answers",
            Self::Agree => "all",
            Self::Fewshot => "few",
            Self::Follow => "follows",
            Self::Draw => "one",
        }
    }
}

/// What a result is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
pub enum Measured {
    /// A task from its official files.
    Task(Task),
    /// A figure of this project's own splits.
    Figure(Figure),
    /// The Frechet distance of two sets of features.
    Frechet,
}

impl Measured {
    /// Name of the Frechet distance on the command line. It is no FID, and not called so.
    const FRECHET: &'static str = "frechet";

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let figures = Figure::ALL.into_iter().map(Self::Figure);
        figures
            .chain(Task::ALL.into_iter().map(Self::Task))
            .chain(std::iter::once(Self::Frechet))
    }

    /// By the name on the command line and in files.
    ///
    /// # Errors
    /// If there is none of that name; the message has all names.
    pub fn from_name(name: &str) -> Result<Self, EvalError> {
        Self::all()
            .find(|one| one.name() == name)
            .ok_or_else(|| EvalError::UnknownTask {
                name: name.to_owned(),
                known: Self::all().map(Self::name).collect::<Vec<_>>().join(", "),
            })
    }

    /// Its name on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Task(task) => task.name(),
            Self::Figure(figure) => figure.name(),
            Self::Frechet => Self::FRECHET,
        }
    }

    /// Its name in prose.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Task(task) => task.title(),
            Self::Figure(figure) => figure.title(),
            Self::Frechet => "Frechet distance",
        }
    }

    /// What [`Counted`](super::Counted) counts, in the plural.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Task(_) => "questions",
            Self::Figure(_) => "samples",
            Self::Frechet => "pictures",
        }
    }
}

impl From<Task> for Measured {
    fn from(task: Task) -> Self {
        Self::Task(task)
    }
}

impl From<Figure> for Measured {
    fn from(figure: Figure) -> Self {
        Self::Figure(figure)
    }
}

impl From<Measured> for &'static str {
    fn from(measured: Measured) -> Self {
        measured.name()
    }
}

impl TryFrom<String> for Measured {
    type Error = EvalError;

    fn try_from(name: String) -> Result<Self, EvalError> {
        Self::from_name(&name)
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_name_is_unique_and_found_again() {
        let mut names = HashSet::new();
        for one in Measured::all() {
            assert!(names.insert(one.name()), "{one} occurs twice");
            assert_eq!(Measured::from_name(one.name()).expect("known"), one);
            let json = serde_json::to_value(one).expect("name");
            assert_eq!(json, one.name());
            assert_eq!(
                serde_json::from_value::<Measured>(json).expect("known"),
                one
            );
        }
        assert_eq!(names.len(), Figure::ALL.len() + Task::ALL.len() + 1);
    }

    #[test]
    fn an_unknown_name_is_refused_with_all_names() {
        let error = Measured::from_name("fid")
            .expect_err("it is no FID")
            .to_string();
        assert!(
            error.contains("\"fid\"")
                && error.contains("follow, draw, coco")
                && error.ends_with("frechet"),
            "{error}"
        );
        assert!(serde_json::from_value::<Measured>("sing".into()).is_err());
    }
}
