//! Evaluation of a trained model on held-out data: captions and questions, few-shot completion, drawing.
//!
//! Answers are decoded greedily and compared as text. Drawings are scored by [`crate::judge`], a classifier that shares
//! nothing with the model.

pub mod agree;
pub mod draw;
pub mod text;

use std::collections::BTreeMap;

/// An answer that was compared with the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Index of the sample in its data set.
    pub sample: usize,
    /// Index of the picture that was asked about, among those of the sample; of a drawing, among the drawings.
    pub picture: Option<usize>,
    /// What was asked; empty for captions.
    pub question: String,
    /// The right answer.
    pub wanted: String,
    /// The model's answer.
    pub given: String,
    /// What it counts for, by kind.
    pub scores: Vec<(String, Score)>,
}

/// Answers, and their scores by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scores {
    kinds: BTreeMap<String, Score>,
    items: Vec<Item>,
}

/// Number of correct answers among all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

    /// Counts an answer.
    pub fn count(&mut self, right: bool) {
        self.right += usize::from(right);
        self.total += 1;
    }
}

impl From<bool> for Score {
    /// The score of one answer.
    fn from(right: bool) -> Self {
        Self {
            right: usize::from(right),
            total: 1,
        }
    }
}

impl Scores {
    /// Adds an answer.
    pub fn add(&mut self, item: Item) {
        for (kind, score) in &item.scores {
            let sum = self.kinds.entry(kind.clone()).or_default();
            sum.right += score.right;
            sum.total += score.total;
        }
        self.items.push(item);
    }

    /// All answers, in order.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Shares by kind.
    pub fn shares(&self) -> impl Iterator<Item = (&str, f32)> {
        self.kinds
            .iter()
            .map(|(kind, score)| (kind.as_str(), score.share()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_kept_and_counted_for_each_of_their_kinds() {
        let item = |sample, scores: &[(&str, Score)]| Item {
            sample,
            picture: Some(0),
            question: String::new(),
            wanted: "a kite".into(),
            given: "a kite".into(),
            scores: { scores.iter() }
                .map(|(kind, score)| ((*kind).to_owned(), *score))
                .collect(),
        };
        let mut part = Score::from(true);
        part.count(false);
        part.count(false);
        let mut scores = Scores::default();
        scores.add(item(0, &[("caption", true.into()), ("each", part)]));
        scores.add(item(1, &[("caption", false.into())]));
        let shares: Vec<_> = scores.shares().collect();
        assert_eq!(shares, [("caption", 0.5), ("each", 1.0 / 3.0)]);
        assert_eq!(scores.items().len(), 2);
        assert_eq!(scores.items()[1].sample, 1);
    }
}
