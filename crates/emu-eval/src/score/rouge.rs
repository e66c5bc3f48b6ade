//! ROUGE-L (Lin 2004) with COCO's choices.

use crate::score::caption::{Caption, Scored, check, mean};
use crate::score::error::ScoreError;

/// Weight of the recall.
const BETA: f64 = 1.2;

/// ROUGE-L of captions that are tokens separated by single spaces, and its mean.
///
/// Precision and recall are the best over the references, each for itself. Words are separated by one space and nothing else:
/// two spaces enclose an empty word, and a text without words is one empty word.
///
/// # Errors
/// No captions, or a caption without reference.
pub fn score(captions: &[Caption]) -> Result<Scored<f64>, ScoreError> {
    check(captions)?;
    let items: Vec<f64> = captions.iter().map(one).collect();
    Ok(Scored {
        corpus: mean(&items),
        items,
    })
}

fn one(caption: &Caption) -> f64 {
    let hypothesis: Vec<&str> = caption.hypothesis.split(' ').collect();
    let (mut precision, mut recall) = (0.0f64, 0.0f64);
    for reference in &caption.references {
        let reference: Vec<&str> = reference.split(' ').collect();
        let common = longest_common_subsequence(&hypothesis, &reference) as f64;
        precision = precision.max(common / hypothesis.len() as f64);
        recall = recall.max(common / reference.len() as f64);
    }
    if precision == 0.0 || recall == 0.0 {
        return 0.0;
    }
    (1.0 + BETA * BETA) * precision * recall / (recall + BETA * BETA * precision)
}

/// Length of the longest common subsequence.
fn longest_common_subsequence<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    // lengths[j]: of the words of `a` so far and the first j of `b`.
    let mut lengths = vec![0; b.len() + 1];
    for x in a {
        let mut diagonal = 0;
        for (j, y) in b.iter().enumerate() {
            let above = lengths[j + 1];
            lengths[j + 1] = if x == y {
                diagonal + 1
            } else {
                above.max(lengths[j])
            };
            diagonal = above;
        }
    }
    lengths[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slow(a: &[char], b: &[char]) -> usize {
        match (a, b) {
            ([x, a_rest @ ..], [y, b_rest @ ..]) if x == y => 1 + slow(a_rest, b_rest),
            ([_, a_rest @ ..], [_, b_rest @ ..]) => slow(a_rest, b).max(slow(a, b_rest)),
            _ => 0,
        }
    }

    proptest! {
        #[test]
        fn the_subsequence_is_the_longest(a in "[abc]{0,7}", b in "[abc]{0,7}") {
            let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
            prop_assert_eq!(longest_common_subsequence(&a, &b), slow(&a, &b));
        }
    }

    #[test]
    fn only_single_spaces_separate() {
        let of = |hypothesis: &str, reference: &str| {
            one(&Caption {
                hypothesis: hypothesis.into(),
                references: vec![reference.into()],
            })
        };
        assert_eq!(of("", ""), 1.0);
        assert_eq!(of("", "a"), 0.0);
        assert!(of("a  b", "a b") < 1.0);
        assert_eq!(of("a\u{a0}b", "a b"), 0.0);
    }
}
