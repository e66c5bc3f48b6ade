//! BLEU (Papineni et al. 2002) with the constants and the choice of reference lengths of COCO's evaluation.

use std::ops::AddAssign;

use crate::score::caption::{Caption, Scored, check};
use crate::score::error::ScoreError;
use crate::score::ngrams::{Counts as Counted, MAX_N, Vocabulary, total};

/// Added to numerators, so that a precision is never 0.
const TINY: f64 = 1e-15;
/// Added to denominators.
const SMALL: f64 = 1e-9;

/// What BLEU is computed from. The counts of a set are the sums of those of its captions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// n-grams of the caption, n = 1 to 4.
    pub guessed: [u64; MAX_N],
    /// Those that occur in a reference, each at most as often as in the reference that has most of it.
    pub correct: [u64; MAX_N],
    /// Words of the caption.
    pub words: u64,
    /// Words of the reference whose length is closest; the shorter one of two.
    pub reference_words: u64,
}

impl Counts {
    /// The counts of one caption.
    pub fn of(caption: &Caption) -> Self {
        let mut vocabulary = Vocabulary::default();
        let hypothesis = vocabulary.counts(&caption.hypothesis);
        let words = total(&hypothesis[0]);

        let mut most: [Counted; MAX_N] = Default::default();
        let mut lengths = Vec::new();
        for reference in &caption.references {
            let counts = vocabulary.counts(reference);
            lengths.push(total(&counts[0]));
            for (most, counts) in most.iter_mut().zip(counts) {
                for (gram, count) in counts {
                    let entry = most.entry(gram).or_default();
                    *entry = count.max(*entry);
                }
            }
        }

        let correct = |k: usize| -> u64 {
            let most = |gram| most[k].get(gram).copied().unwrap_or(0);
            let clipped = hypothesis[k]
                .iter()
                .map(|(gram, count)| most(gram).min(*count));
            clipped.map(u64::from).sum()
        };
        let closest = lengths
            .into_iter()
            .min_by_key(|length| (length.abs_diff(words), *length));
        Self {
            guessed: hypothesis.each_ref().map(|counts| u64::from(total(counts))),
            correct: std::array::from_fn(correct),
            words: u64::from(words),
            reference_words: u64::from(closest.unwrap_or(0)),
        }
    }

    /// BLEU-1 to BLEU-4: geometric means of the precisions, times the brevity penalty.
    pub fn score(&self) -> [f64; MAX_N] {
        let ratio = (self.words as f64 + TINY) / (self.reference_words as f64 + SMALL);
        let penalty = if ratio < 1.0 {
            (1.0 - 1.0 / ratio).exp()
        } else {
            1.0
        };
        let mut product = 1.0;
        std::array::from_fn(|k| {
            product *= (self.correct[k] as f64 + TINY) / (self.guessed[k] as f64 + SMALL);
            product.powf(1.0 / (k + 1) as f64) * penalty
        })
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        for k in 0..MAX_N {
            self.guessed[k] += other.guessed[k];
            self.correct[k] += other.correct[k];
        }
        self.words += other.words;
        self.reference_words += other.reference_words;
    }
}

/// BLEU-1 to BLEU-4 of captions that are tokens separated by white space.
///
/// # Errors
/// No captions, or a caption without reference.
pub fn score(captions: &[Caption]) -> Result<Scored<[f64; MAX_N]>, ScoreError> {
    check(captions)?;
    let mut total = Counts::default();
    let mut items = Vec::with_capacity(captions.len());
    for caption in captions {
        let counts = Counts::of(caption);
        items.push(counts.score());
        total += counts;
    }
    Ok(Scored {
        corpus: total.score(),
        items,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(hypothesis: &str, references: &[&str]) -> Counts {
        Counts::of(&Caption {
            hypothesis: hypothesis.into(),
            references: references.iter().map(|text| text.to_string()).collect(),
        })
    }

    #[test]
    fn counts_are_clipped_by_the_best_reference() {
        let found = counts("a a a b b c", &["a b c", "a a b"]);
        assert_eq!(found.guessed, [6, 5, 4, 3]);
        // a twice, b once, c once; `a a`, `a b`, `b c`; `a a b`.
        assert_eq!(found.correct, [4, 3, 1, 0]);
    }

    #[test]
    fn of_two_lengths_equally_close_the_shorter_counts() {
        assert_eq!(counts("a b c", &["a b c d", "a b"]).reference_words, 2);
        assert_eq!(counts("a b c", &["a b c d", "a"]).reference_words, 4);
    }

    #[test]
    fn short_captions_are_penalized() {
        let full = counts("a b c d", &["a b c d"]).score();
        let half = counts("a b", &["a b c d"]).score();
        assert!((full[0] - 1.0).abs() < 1e-8);
        assert!((half[0] - (-1.0f64).exp()).abs() < 1e-8, "{half:?}");
    }
}
