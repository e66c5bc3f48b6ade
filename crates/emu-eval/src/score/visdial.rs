//! Visual Dialog: rankings of a round's candidate answers.
//!
//! MRR, R@k and the mean rank come from the rank of the one true answer ([`Retrieval`]), NDCG from people's judgements of
//! all candidates.

use std::cmp::Ordering;

use crate::score::error::ScoreError;
use crate::score::retrieval::Retrieval;

/// The rank of each candidate, from 1, by descending score. Of equal scores the candidate with the smaller index comes
/// first; the original leaves their order open.
///
/// # Errors
/// A score that is NaN.
pub fn ranks(scores: &[f64]) -> Result<Vec<usize>, ScoreError> {
    if scores.iter().any(|score| score.is_nan()) {
        return Err(ScoreError::NotFinite { what: "The scores" });
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let order_of = |a: &usize, b: &usize| {
        scores[*b]
            .partial_cmp(&scores[*a])
            .unwrap_or(Ordering::Equal)
    };
    order.sort_by(order_of);
    let mut ranks = vec![0; scores.len()];
    for (position, candidate) in order.into_iter().enumerate() {
        ranks[candidate] = position + 1;
    }
    Ok(ranks)
}

/// MRR, R@k and mean rank of the true answers of a set of rounds.
///
/// # Errors
/// No rounds, or a rank 0.
pub fn sparse(ranks_of_truth: &[usize]) -> Result<Retrieval, ScoreError> {
    Retrieval::of(ranks_of_truth)
}

/// Normalized discounted cumulative gain of one round, between 0 and 1; `None` if no candidate is relevant.
///
/// With k candidates of a relevance other than 0, only the first k places count.
///
/// # Errors
/// Ranks and relevances of different length, ranks that are not 1 to n, a relevance that is not finite.
pub fn ndcg(ranks: &[usize], relevance: &[f64]) -> Result<Option<f64>, ScoreError> {
    check(ranks.len(), relevance)?;
    let mut ordered = vec![None; ranks.len()];
    for (rank, relevance) in ranks.iter().zip(relevance) {
        let place = rank.checked_sub(1).and_then(|at| ordered.get_mut(at));
        match place {
            Some(place @ None) => *place = Some(*relevance),
            _ => {
                return Err(ScoreError::Index {
                    what: "A repeated rank or rank",
                    index: *rank,
                    len: ranks.len(),
                });
            }
        }
    }
    let ordered: Vec<f64> = ordered.into_iter().flatten().collect();
    Ok(gain(&ordered, relevance))
}

/// The least and the greatest NDCG over the orders of candidates with equal scores.
///
/// # Errors
/// As [`ranks`] and [`ndcg`].
pub fn ndcg_bounds(scores: &[f64], relevance: &[f64]) -> Result<Option<(f64, f64)>, ScoreError> {
    check(scores.len(), relevance)?;
    if scores.iter().any(|score| score.is_nan()) {
        return Err(ScoreError::NotFinite { what: "The scores" });
    }
    let with_ties = |best_first: bool| {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| {
            let tie = relevance[*b].total_cmp(&relevance[*a]);
            let by_score = scores[*b]
                .partial_cmp(&scores[*a])
                .unwrap_or(Ordering::Equal);
            by_score.then(if best_first { tie } else { tie.reverse() })
        });
        let ordered: Vec<f64> = order
            .into_iter()
            .map(|candidate| relevance[candidate])
            .collect();
        gain(&ordered, relevance)
    };
    Ok(with_ties(false).zip(with_ties(true)))
}

fn check(candidates: usize, relevance: &[f64]) -> Result<(), ScoreError> {
    if relevance.len() != candidates {
        return Err(ScoreError::Length {
            what: "The list of relevances",
            found: relevance.len(),
            expected: candidates,
        });
    }
    if relevance.iter().any(|value| !value.is_finite()) {
        return Err(ScoreError::NotFinite {
            what: "The list of relevances",
        });
    }
    Ok(())
}

/// The gain of relevances in the order of the ranks, divided by that of the best order.
fn gain(ordered: &[f64], relevance: &[f64]) -> Option<f64> {
    let relevant = relevance.iter().filter(|value| **value != 0.0).count();
    let mut best = relevance.to_vec();
    best.sort_by(|a, b| b.total_cmp(a));
    let sum = |values: &[f64]| -> f64 {
        let first = values.iter().take(relevant).enumerate();
        first
            .map(|(place, value)| value / (place as f64 + 2.0).log2())
            .sum()
    };
    (relevant > 0).then(|| sum(ordered) / sum(&best))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_scores_keep_their_order() {
        assert_eq!(ranks(&[0.5, 0.9, 0.5, -1.0]), Ok(vec![2, 1, 3, 4]));
        assert_eq!(ranks(&[]), Ok(vec![]));
        assert!(ranks(&[0.0, f64::NAN]).is_err());
        assert_eq!(ranks(&[f64::NEG_INFINITY, 0.0]), Ok(vec![2, 1]));
        // Minus zero equals zero.
        assert_eq!(ranks(&[-0.0, 0.0]), Ok(vec![1, 2]));
    }

    #[test]
    fn only_as_many_places_count_as_are_relevant() {
        let relevance = [1.0, 0.0, 0.5, 0.0];
        assert_eq!(ndcg(&[1, 3, 2, 4], &relevance), Ok(Some(1.0)));
        // The better candidate comes third, beyond the two places.
        let best = 1.0 + 0.5 / 3f64.log2();
        let found = ndcg(&[3, 1, 2, 4], &relevance)
            .expect("ranks")
            .expect("relevant");
        assert!((found - 0.5 / 3f64.log2() / best).abs() < 1e-12);
        assert_eq!(ndcg(&[1, 2], &[0.0, 0.0]), Ok(None));
    }

    #[test]
    fn bad_input() {
        assert!(matches!(
            ndcg(&[1, 2], &[1.0]),
            Err(ScoreError::Length { .. })
        ));
        assert!(matches!(
            ndcg(&[1, 1], &[1.0, 0.0]),
            Err(ScoreError::Index { .. })
        ));
        assert!(matches!(
            ndcg(&[0, 1], &[1.0, 0.0]),
            Err(ScoreError::Index { .. })
        ));
        assert!(matches!(
            ndcg(&[1, 3], &[1.0, 0.0]),
            Err(ScoreError::Index { .. })
        ));
        assert!(matches!(
            ndcg(&[1, 2], &[1.0, f64::NAN]),
            Err(ScoreError::NotFinite { .. })
        ));
        assert_eq!(sparse(&[]), Err(ScoreError::Empty));
    }

    proptest! {
        #[test]
        fn any_order_of_ties_is_within_the_bounds(
            candidates in proptest::collection::vec((0u8..4, 0u8..3), 1..12),
        ) {
            let scores: Vec<f64> = candidates.iter().map(|(score, _)| f64::from(*score)).collect();
            let relevance: Vec<f64> = candidates.iter().map(|(_, value)| f64::from(*value) / 2.0).collect();
            let found = ndcg(&ranks(&scores).expect("finite"), &relevance).expect("ranks");
            let bounds = ndcg_bounds(&scores, &relevance).expect("finite");
            prop_assert_eq!(found.is_some(), bounds.is_some());
            if let (Some(found), Some((least, most))) = (found, bounds) {
                prop_assert!(least - 1e-12 <= found && found <= most + 1e-12);
                prop_assert!((0.0..=1.0 + 1e-12).contains(&most));
            }
        }
    }
}
