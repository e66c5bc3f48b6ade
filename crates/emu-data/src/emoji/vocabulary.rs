//! A byte-level BPE tokenizer trained on the data set's own text.

use std::collections::HashSet;

use tokenizers::models::bpe::{BPE, BpeTrainer, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    AddedToken, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Tokenizer, Trainer,
};

use crate::DataError;

/// Special tokens, in the order of their ids after the base vocabulary.
pub const SPECIAL_TOKENS: [&str; 9] = [
    "<s>",
    "</s>",
    "<unk>",
    "[PAD]",
    "[IMG]",
    "[/IMG]",
    "<image>",
    "[USER]",
    "[ASSISTANT]",
];

/// Range of base vocabulary sizes to try.
const SIZES: std::ops::RangeInclusive<usize> = 1000..=2400;
const SIZE_STEP: usize = 50;

/// A trained tokenizer.
pub struct Vocabulary {
    /// The tokenizer as `tokenizer.json` holds it.
    pub json: String,
    /// Size of the vocabulary without special tokens.
    pub base: usize,
}

/// Trains the smallest vocabulary, in steps of 50 from 1000, in which each of `words` is a single token after a space.
///
/// Deterministic: the trainer breaks ties between merges by token id.
///
/// # Errors
/// If 2400 tokens do not suffice, or the trainer rejects the corpus.
pub fn train(corpus: &[String], words: &[&str]) -> Result<Vocabulary, DataError> {
    let fail = |error: tokenizers::Error| DataError::Tokenizer(error.to_string());
    let counted = count_words(corpus).map_err(fail)?;
    let mut missing = String::new();
    for size in SIZES.step_by(SIZE_STEP) {
        let tokenizer = train_sized(&counted, size).map_err(fail)?;
        let single = |word: &&&str| {
            tokenizer
                .encode(**word, false)
                .is_ok_and(|encoding| encoding.len() == 1)
        };
        match words.iter().find(|word| !single(word)) {
            Some(word) => missing = (*word).to_string(),
            None => {
                return Ok(Vocabulary {
                    json: tokenizer.to_string(true).map_err(fail)?,
                    base: tokenizer.get_vocab_size(false),
                });
            }
        }
    }
    Err(DataError::Tokenizer(format!(
        "{missing:?} is not one token in a vocabulary of {}",
        SIZES.end()
    )))
}

/// Counts the words of the corpus once, for all vocabulary sizes.
fn count_words(corpus: &[String]) -> tokenizers::Result<BpeTrainer> {
    let byte_level = byte_level();
    let mut trainer = BpeTrainerBuilder::new()
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect::<HashSet<char>>())
        .build();
    trainer.feed(corpus.iter(), |line| {
        let mut text = PreTokenizedString::from(line);
        byte_level.pre_tokenize(&mut text)?;
        let words = text.get_splits(OffsetReferential::Original, OffsetType::Byte);
        Ok(words
            .into_iter()
            .map(|(word, _, _)| word.to_string())
            .collect())
    })?;
    Ok(trainer)
}

/// Words include the preceding space, and a text starts as if after a space, so that each word has one spelling.
fn byte_level() -> ByteLevel {
    ByteLevel::new(true, true, true)
}

fn train_sized(counted: &BpeTrainer, size: usize) -> tokenizers::Result<Tokenizer> {
    let mut trainer = counted.clone();
    trainer.vocab_size = size;
    let mut bpe = BPE::default();
    trainer.train(&mut bpe)?;
    let mut tokenizer = Tokenizer::new(bpe);
    tokenizer.with_pre_tokenizer(Some(byte_level()));
    tokenizer.with_decoder(Some(byte_level()));
    let special = SPECIAL_TOKENS.map(|token| AddedToken::from(token, true).normalized(false));
    tokenizer.add_special_tokens(special)?;
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus() -> Vec<String> {
        let names = ["dog", "rocket", "owl", "banana"];
        names
            .iter()
            .flat_map(|a| names.map(|b| format!("a {a} to the left of a {b} on a red background")))
            .collect()
    }

    #[test]
    fn words_are_single_tokens_and_special_tokens_follow() {
        let vocabulary = train(&corpus(), &["rocket", "banana", "red"]).expect("trains");
        let tokenizer = Tokenizer::from_bytes(vocabulary.json.as_bytes()).expect("loads");
        let ids = |text: &str| {
            tokenizer
                .encode(text, false)
                .expect("encodes")
                .get_ids()
                .to_vec()
        };
        assert_eq!(ids("a rocket").len(), 2);
        assert_eq!(
            ids("rocket"),
            ids("a rocket")[1..],
            "a word has one spelling"
        );
        for (i, token) in SPECIAL_TOKENS.iter().enumerate() {
            assert_eq!(ids(token), [(vocabulary.base + i) as u32], "{token}");
        }
        let text = "a b\u{e9}b\u{e9} \u{1f436}?";
        let back = tokenizer.decode(&ids(text), true).expect("decodes");
        assert_eq!(back.trim_start(), text, "any text survives");
    }

    #[test]
    fn is_deterministic_and_refuses_what_it_cannot_promise() {
        let json = || train(&corpus(), &["rocket"]).expect("trains").json;
        assert_eq!(json(), json());
        assert!(
            matches!(train(&corpus(), &["zebra"]), Err(DataError::Tokenizer(m)) if m.contains("zebra"))
        );
    }
}
