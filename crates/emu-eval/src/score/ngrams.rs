//! n-grams of words, for n from 1 to 4.

use std::collections::{BTreeMap, HashMap};

use crate::score::python;

/// The longest n-gram that is counted.
pub const MAX_N: usize = 4;

/// The words of an n-gram as numbers, padded with `u32::MAX`.
pub type Gram = [u32; MAX_N];

/// Occurrences of the n-grams of one text. Ordered, so that sums over them do not depend on the run.
pub type Counts = BTreeMap<Gram, u32>;

/// Numbers for words, in the order in which they are first seen.
#[derive(Default)]
pub struct Vocabulary<'a> {
    ids: HashMap<&'a str, u32>,
}

impl<'a> Vocabulary<'a> {
    /// The n-grams of a text whose words are separated by white space, for n = 1, 2, 3, 4.
    pub fn counts(&mut self, text: &'a str) -> [Counts; MAX_N] {
        let ids: Vec<u32> = python::words(text).map(|word| self.id(word)).collect();
        std::array::from_fn(|k| {
            let mut counts = Counts::new();
            for window in ids.windows(k + 1) {
                let mut gram = [u32::MAX; MAX_N];
                gram[..=k].copy_from_slice(window);
                *counts.entry(gram).or_default() += 1;
            }
            counts
        })
    }

    fn id(&mut self, word: &'a str) -> u32 {
        let next = self.ids.len() as u32;
        *self.ids.entry(word).or_insert(next)
    }
}

/// The length of a text in n-grams.
pub fn total(counts: &Counts) -> u32 {
    counts.values().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_a_short_text() {
        let mut vocabulary = Vocabulary::default();
        let counts = vocabulary.counts("a b  a\tb");
        let sizes = counts
            .each_ref()
            .map(|counts| (counts.len(), total(counts)));
        assert_eq!(sizes, [(2, 4), (2, 3), (2, 2), (1, 1)]);
        assert!(vocabulary.counts("").iter().all(Counts::is_empty));
        // The same words are the same n-gram in another text.
        let again = vocabulary.counts("b a");
        assert!(again[1].keys().all(|gram| counts[1].contains_key(gram)));
    }
}
