//! The text of the training splits.

use std::collections::{BTreeSet, HashMap};

use super::compose::Composer;
use crate::DataError;

/// The distinct training texts in order of first appearance, with their counts.
#[derive(Default)]
pub(super) struct Corpus {
    seen: HashMap<String, usize>,
    lines: Vec<(String, u64)>,
}

/// Maximum number of copies of a text in the corpus.
const MOST_COPIES: u64 = 32;

impl Corpus {
    pub(super) fn add(&mut self, text: String) {
        match self.seen.get(&text) {
            Some(&line) => self.lines[line].1 += 1,
            None => {
                self.seen.insert(text.clone(), self.lines.len());
                self.lines.push((text, 1));
            }
        }
    }

    /// The texts for training the tokenizer. Each is repeated by the square root of its count, at most 32 times, so
    /// that frequent short answers ("one", "yes") neither dominate the captions nor vanish among them.
    pub(super) fn weighted(&self) -> Vec<String> {
        let copies = |count: u64| count.isqrt().clamp(1, MOST_COPIES) as usize;
        self.lines
            .iter()
            .flat_map(|(text, count)| std::iter::repeat_n(text.clone(), copies(*count)))
            .collect()
    }

    /// Fails if a training text names an unseen concept.
    pub(super) fn refuse_words(&self, composer: &Composer<'_>) -> Result<(), DataError> {
        let forbidden: BTreeSet<String> = composer
            .unseen
            .iter()
            .flat_map(|&i| {
                [
                    composer.concept(i).name.clone(),
                    composer.concept(i).plural(),
                ]
            })
            .collect();
        for (line, _) in &self.lines {
            let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric()).collect();
            let names = |name: &&String| {
                let name: Vec<&str> = name.split(' ').collect();
                words.windows(name.len()).any(|window| window == name)
            };
            if let Some(word) = forbidden.iter().find(names) {
                return Err(DataError::Concepts(format!(
                    "{word} is unseen, but the training text {line:?} names it"
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_texts_weigh_more_but_not_all_the_more() {
        let mut corpus = Corpus::default();
        for _ in 0..9 {
            corpus.add("yes".into());
        }
        for _ in 0..5000 {
            corpus.add("one".into());
        }
        corpus.add("a dog".into());
        let lines = corpus.weighted();
        let count = |text: &str| lines.iter().filter(|line| *line == text).count();
        assert_eq!([count("yes"), count("one"), count("a dog")], [3, 32, 1]);
        assert_eq!(lines[0], "yes", "in order of first appearance");
    }
}
