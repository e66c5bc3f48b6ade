//! CIDEr (Vedantam et al. 2015) as COCO's evaluation computes it: the paper's CIDEr-D, without stemming.

use std::collections::BTreeMap;

use crate::score::caption::{Caption, Scored, check, mean};
use crate::score::error::ScoreError;
use crate::score::ngrams::{Counts, Gram, MAX_N, Vocabulary, total};

/// Width of the penalty on a difference in length.
const SIGMA: f64 = 6.0;
/// The paper's scale.
const SCALE: f64 = 10.0;

/// CIDEr of captions that are tokens separated by white space, and its mean.
///
/// The weight of an n-gram is its count times ln(N / df): N is the number of captions, df the number of those with it in a
/// reference. So one caption alone has the score 0.
///
/// # Errors
/// No captions, or a caption without reference.
pub fn score(captions: &[Caption]) -> Result<Scored<f64>, ScoreError> {
    check(captions)?;
    let mut vocabulary = Vocabulary::default();

    // 1. count
    let mut counted = Vec::with_capacity(captions.len());
    for caption in captions {
        let references = caption
            .references
            .iter()
            .map(|text| vocabulary.counts(text));
        let references: Vec<_> = references.collect();
        counted.push((vocabulary.counts(&caption.hypothesis), references));
    }

    // 2. document frequencies
    let mut frequencies = Frequencies::default();
    for (_, references) in &counted {
        frequencies.add(references);
    }

    // 3. compare
    let items: Vec<f64> = counted
        .iter()
        .map(|(hypothesis, references)| {
            let hypothesis = frequencies.weigh(hypothesis);
            let similar = references
                .iter()
                .map(|reference| similarity(&hypothesis, &frequencies.weigh(reference)));
            SCALE * similar.sum::<f64>() / references.len() as f64
        })
        .collect();
    Ok(Scored {
        corpus: mean(&items),
        items,
    })
}

/// Number of captions whose references contain an n-gram.
#[derive(Default)]
struct Frequencies {
    captions: u32,
    of: BTreeMap<Gram, u32>,
}

impl Frequencies {
    fn add(&mut self, references: &[[Counts; MAX_N]]) {
        let mut seen: Vec<&Gram> = references.iter().flatten().flat_map(Counts::keys).collect();
        seen.sort_unstable();
        seen.dedup();
        for gram in seen {
            *self.of.entry(*gram).or_default() += 1;
        }
        self.captions += 1;
    }

    fn weigh(&self, counts: &[Counts; MAX_N]) -> Weighted {
        let all = f64::from(self.captions).ln();
        let weight = |(gram, count): (&Gram, &u32)| {
            let frequency = self.of.get(gram).map_or(1, |found| *found);
            (*gram, f64::from(*count) * (all - f64::from(frequency).ln()))
        };
        let weights: [Vec<_>; MAX_N] = counts
            .each_ref()
            .map(|counts| counts.iter().map(weight).collect());
        Weighted {
            norms: weights
                .each_ref()
                .map(|weights| weights.iter().map(|(_, w)| w * w).sum::<f64>().sqrt()),
            weights,
            bigrams: total(&counts[1]),
        }
    }
}

/// The vector of a text, in the order of its n-grams.
struct Weighted {
    weights: [Vec<(Gram, f64)>; MAX_N],
    norms: [f64; MAX_N],
    /// Length of the text: its number of bigrams, as in the original.
    bigrams: u32,
}

/// The mean over n of the clipped cosine, times the penalty on the difference in length.
fn similarity(hypothesis: &Weighted, reference: &Weighted) -> f64 {
    let difference = f64::from(hypothesis.bigrams) - f64::from(reference.bigrams);
    let penalty = (-difference * difference / (2.0 * SIGMA * SIGMA)).exp();
    let cosines = (0..MAX_N).map(|k| {
        let product: f64 = hypothesis.weights[k]
            .iter()
            .filter_map(|(gram, h)| {
                let at = reference.weights[k]
                    .binary_search_by_key(gram, |(gram, _)| *gram)
                    .ok()?;
                let r = reference.weights[k][at].1;
                Some(h.min(r) * r)
            })
            .sum();
        let norms = hypothesis.norms[k] * reference.norms[k];
        if norms == 0.0 {
            product
        } else {
            product / norms
        }
    });
    cosines.sum::<f64>() * penalty / MAX_N as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(set: &[(&str, &[&str])]) -> Vec<f64> {
        let captions: Vec<Caption> = set
            .iter()
            .map(|(hypothesis, references)| Caption {
                hypothesis: hypothesis.to_string(),
                references: references.iter().map(|text| text.to_string()).collect(),
            })
            .collect();
        score(&captions).expect("scores").items
    }

    #[test]
    fn alone_nothing_is_rare() {
        assert_eq!(items(&[("a b c d", &["a b c d"])]), [0.0]);
    }

    #[test]
    fn the_same_words_give_ten() {
        let found = items(&[("a b c d", &["a b c d"]), ("e f", &["e f"])]);
        assert!((found[0] - 10.0).abs() < 1e-12, "{found:?}");
        // Two words have no 3-grams and no 4-grams.
        assert!((found[1] - 5.0).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn length_is_counted_in_bigrams() {
        // No word and one word have the same number of bigrams: no penalty from 1 to 0 words, one from 2 to 1.
        let found = items(&[("a", &["a b"]), ("c", &["d"])]);
        let expected = 10.0 * (-1.0f64 / 72.0).exp() * 0.5f64.sqrt() / 4.0;
        assert!((found[0] - expected).abs() < 1e-12, "{found:?} {expected}");
    }
}
