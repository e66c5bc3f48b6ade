//! Retrieval: for each query, how far down its items are in the order of similarity.

use serde::{Deserialize, Serialize};

use crate::score::error::ScoreError;

/// Scores of the ranks of a set of queries.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Retrieval {
    /// Share of queries with rank 1.
    pub recall_1: f64,
    /// Share of queries with rank 5 or better.
    pub recall_5: f64,
    /// Share of queries with rank 10 or better.
    pub recall_10: f64,
    /// Mean rank.
    pub mean_rank: f64,
    /// Mean of 1 / rank.
    pub mean_reciprocal_rank: f64,
}

impl Retrieval {
    /// The scores of ranks that count from 1.
    ///
    /// # Errors
    /// No ranks, or a rank 0.
    pub fn of(ranks: &[usize]) -> Result<Self, ScoreError> {
        if ranks.is_empty() {
            return Err(ScoreError::Empty);
        }
        if ranks.contains(&0) {
            return Err(ScoreError::Parameter {
                name: "A rank",
                value: 0.0,
                range: "1 or more",
            });
        }
        let count = ranks.len() as f64;
        let within = |k: usize| ranks.iter().filter(|rank| **rank <= k).count() as f64 / count;
        Ok(Self {
            recall_1: within(1),
            recall_5: within(5),
            recall_10: within(10),
            mean_rank: ranks.iter().sum::<usize>() as f64 / count,
            mean_reciprocal_rank: ranks.iter().map(|rank| 1.0 / *rank as f64).sum::<f64>() / count,
        })
    }
}

/// The rank of the best of the relevant items, from 1. Of equal similarities the item with the smaller index comes first.
///
/// # Errors
/// No relevant item, an index out of range, or a similarity that is NaN.
pub fn rank(similarities: &[f32], relevant: &[usize]) -> Result<usize, ScoreError> {
    if similarities.iter().any(|value| value.is_nan()) {
        return Err(ScoreError::NotFinite {
            what: "The similarities",
        });
    }
    let mut best = None;
    for &index in relevant {
        let &value = similarities.get(index).ok_or(ScoreError::Index {
            what: "Item",
            index,
            len: similarities.len(),
        })?;
        let ahead = |(other, similarity): (usize, &f32)| {
            *similarity > value || (*similarity == value && other < index)
        };
        let rank = 1 + similarities
            .iter()
            .enumerate()
            .filter(|item| ahead(*item))
            .count();
        best = Some(best.map_or(rank, |best: usize| best.min(rank)));
    }
    best.ok_or(ScoreError::Empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_relevant_item_counts() {
        let similarities = [0.1, 0.9, 0.5, 0.5];
        assert_eq!(rank(&similarities, &[1]), Ok(1));
        assert_eq!(rank(&similarities, &[3]), Ok(3));
        assert_eq!(rank(&similarities, &[3, 2]), Ok(2));
        assert_eq!(rank(&similarities, &[0]), Ok(4));
    }

    #[test]
    fn scores_of_ranks() {
        let found = Retrieval::of(&[1, 2, 10, 20]).expect("ranks");
        assert_eq!(
            (found.recall_1, found.recall_5, found.recall_10),
            (0.25, 0.5, 0.75)
        );
        assert_eq!(found.mean_rank, 8.25);
        assert_eq!(found.mean_reciprocal_rank, (1.0 + 0.5 + 0.1 + 0.05) / 4.0);
    }

    #[test]
    fn bad_input() {
        assert_eq!(Retrieval::of(&[]), Err(ScoreError::Empty));
        assert!(matches!(
            Retrieval::of(&[1, 0]),
            Err(ScoreError::Parameter { .. })
        ));
        assert_eq!(rank(&[0.0], &[]), Err(ScoreError::Empty));
        assert!(matches!(rank(&[0.0], &[1]), Err(ScoreError::Index { .. })));
        assert!(matches!(
            rank(&[0.0, f32::NAN], &[0]),
            Err(ScoreError::NotFinite { .. })
        ));
    }
}
