//! WUPS, the metric of NExT-QA's open-ended questions: how near the words of an answer are to those of the reference, in WordNet.
//!
//! The original program brings words to their base forms with a tagger of parts of speech, which is a trained model of its own.
//! Here [`lemma`] decides by the word alone. So the numbers are near those of the original, and not equal to them.

use std::collections::HashSet;

use crate::score::wordnet::{Pos, WordNet};

/// Words that do not count, where no other list is given: articles, forms of "be", pronouns and the like. The original has a list
/// of its own, `stopwords.txt`.
const STOP: &str = "a an the this that these those he she it they his her its their him them is are was were be been being am do \
                    does did has have had of to in on at by for with from and or as so";

/// Scores answers.
pub struct Wups {
    wordnet: WordNet,
    stop: HashSet<String>,
}

/// The words of a text that count, as base forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words(Vec<String>);

impl Wups {
    /// With the words of `stop`, one a line, left out; with a list of our own if there is none.
    pub fn new(wordnet: WordNet, stop: Option<&str>) -> Self {
        let stop = stop.unwrap_or(STOP).split_whitespace();
        Self {
            wordnet,
            stop: stop.map(str::to_lowercase).collect(),
        }
    }

    /// The words of a text.
    pub fn words(&self, text: &str) -> Words {
        let text = text.to_lowercase();
        let words = text.split(|c: char| !c.is_alphanumeric() && !matches!(c, '-' | '\''));
        let lemmas = words
            .map(|word| word.trim_matches(['-', '\'']))
            .filter(|word| !word.is_empty())
            .map(|word| lemma(&self.wordnet, word))
            .filter(|word| !self.stop.contains(word));
        Words(lemmas.collect())
    }

    /// The WUPS of an answer and a reference at threshold 0, from 0 to 1: for each word the nearest one of the other text; the
    /// product of those that are not 0; the smaller of both directions.
    pub fn score(&self, answer: &Words, reference: &Words) -> f64 {
        let one_way = |from: &Words, to: &Words| {
            let nearest = |word: &String| {
                let each = to.0.iter().map(|other| self.nearness(word, other));
                each.fold(0.0, f64::max)
            };
            let product = { from.0.iter() }
                .map(nearest)
                .filter(|near| *near > 0.0)
                .reduce(|product, near| product * near);
            product.unwrap_or(0.0)
        };
        one_way(answer, reference).min(one_way(reference, answer))
    }

    /// Of two words: 1 if they are equal, 0 if one is not in WordNet.
    fn nearness(&self, a: &str, b: &str) -> f64 {
        if a == b {
            return 1.0;
        }
        let near = || {
            let (a, b) = (self.wordnet.first(a)?, self.wordnet.first(b)?);
            self.wordnet.similarity(a, b)
        };
        near().unwrap_or(0.0)
    }
}

/// The base form of a word: forms in -ing and -ed as verbs, all others as the first part of speech that has them. The shortest of
/// several, as NLTK takes it. A word that is in no index stays as it is.
fn lemma(wordnet: &WordNet, word: &str) -> String {
    const VERBS_FIRST: [Pos; 4] = [Pos::Verb, Pos::Noun, Pos::Adjective, Pos::Adverb];
    let order = match word.ends_with("ing") || word.ends_with("ed") {
        true => VERBS_FIRST,
        false => Pos::ALL,
    };
    let forms = order.into_iter().map(|pos| wordnet.forms(word, pos));
    let first = forms.into_iter().find(|forms| !forms.is_empty());
    let shortest = first
        .unwrap_or_default()
        .into_iter()
        .min_by_key(String::len);
    shortest.unwrap_or_else(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::wordnet::tests::small;

    #[test]
    fn inflected_words_are_brought_to_their_base_form() {
        let wordnet = small();
        for (word, base) in [
            ("dogs", "dog"),
            ("walking", "walk"),
            ("walked", "walk"),
            ("geese", "goose"),
            ("glorp", "glorp"),
            ("glorps", "glorps"),
        ] {
            assert_eq!(lemma(&wordnet, word), base);
        }
    }

    #[test]
    fn answers_are_compared_word_by_word_in_both_directions() {
        let wups = Wups::new(small(), None);
        let score = |a: &str, b: &str| wups.score(&wups.words(a), &wups.words(b));
        assert_eq!(
            wups.words("The dogs, they're \"walking\" ."),
            Words(vec!["dog".into(), "they're".into(), "walk".into()])
        );
        assert_eq!(score("the dog", "Dogs!"), 1.0);
        // Under animal, which is one below the root: 2 * 2 / (3 + 3).
        let near = 2.0 / 3.0;
        assert!((score("dog", "goose") - near).abs() < 1e-12);
        // The direction from two words to one is the smaller.
        assert!((score("dog goose", "dog") - near).abs() < 1e-12);
        assert_eq!(score("dog glorp", "dog"), 1.0);
        assert_eq!(score("glorp", "dog"), 0.0);
        assert_eq!(score("", "dog"), 0.0);
        assert_eq!(score("the", "the"), 0.0);
        let other = Wups::new(small(), Some("dog\n"));
        assert_eq!(other.words("the dog"), Words(vec!["the".into()]));
    }
}
