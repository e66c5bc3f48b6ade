//! Measuring a trained model on held-out data: captions and questions, few-shot completion, drawing.
//!
//! Answers are taken greedily and compared as text. Drawings are judged by [`crate::judge`], a classifier that shares
//! nothing with the model.

pub mod agree;
pub mod draw;
pub mod text;

use std::collections::BTreeMap;

use serde::Serialize;

/// Right answers of all, by kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Scores(pub BTreeMap<String, Score>);

/// Right answers of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Score {
    /// Right ones.
    pub right: usize,
    /// All.
    pub total: usize,
}

impl Score {
    /// Right over all; 0 of none.
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
