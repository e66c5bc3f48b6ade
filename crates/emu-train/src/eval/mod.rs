//! Evaluation of a trained model on held-out data: captions and questions, few-shot completion, drawing.
//!
//! Answers are decoded greedily and compared as text. Drawings are scored by [`crate::judge`], a classifier that shares
//! nothing with the model.

pub mod agree;
pub mod draw;
pub mod text;

use std::collections::BTreeMap;

use serde::Serialize;

/// Scores by kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Scores(pub BTreeMap<String, Score>);

/// Number of correct answers among all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Score {
    /// Correct answers.
    pub right: usize,
    /// All answers.
    pub total: usize,
}

impl Score {
    /// Share of correct answers; 0 if there are none.
    pub fn share(&self) -> f32 {
        self.right as f32 / self.total.max(1) as f32
    }
}

impl Scores {
    /// Counts an answer.
    pub fn add(&mut self, kind: impl Into<String>, right: bool) {
        let score = self.0.entry(kind.into()).or_default();
        score.right += usize::from(right);
        score.total += 1;
    }

    /// The score of a kind.
    pub fn get(&self, kind: &str) -> Score {
        self.0.get(kind).copied().unwrap_or_default()
    }

    /// Shares by kind.
    pub fn shares(&self) -> impl Iterator<Item = (&str, f32)> {
        self.0
            .iter()
            .map(|(kind, score)| (kind.as_str(), score.share()))
    }
}
