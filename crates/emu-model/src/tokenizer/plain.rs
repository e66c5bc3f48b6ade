//! The tokenizer of a language model alone: byte-level BPE as GPT-2's, from the lists that a model file holds.
//!
//! Unlike [`EmuTokenizer`](super::EmuTokenizer) it knows no pictures, adds no token of its own and strips no white
//! space around special tokens.

use std::sync::Arc;

use tokenizers::Tokenizer;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;

use super::build::Spelling;
use super::pieces::{Piece, Pieces, Writer};
use super::{DecodeStream, MAX_TEXT_BYTES, TokenizerError};

/// How a text is cut before merges apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Splitting {
    /// At words, numbers and white space.
    Gpt2,
    /// The same, and every digit by itself.
    Digits,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A piece of text.
    Text,
    /// A mark between texts, which no text spells.
    Mark,
    /// Taken as a whole wherever a text spells it.
    Whole,
}

/// The lists that make a tokenizer.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    /// Spellings by id, in GPT-2's alphabet of bytes.
    pub tokens: Vec<String>,
    /// What each token is; [`Role::Text`] for those beyond the list.
    pub roles: Vec<Role>,
    /// Pairs of pieces with a space between them, the first to apply first.
    pub merges: Vec<String>,
    /// How a text is cut.
    pub splitting: Splitting,
}

/// A tokenizer without pictures. Clones share their tables.
#[derive(Clone)]
pub struct PlainTokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    model: Tokenizer,
    pieces: Arc<Pieces>,
    /// Spellings that are looked for in texts, the longest first.
    special: Vec<Special>,
}

struct Special {
    spelling: String,
    id: u32,
    role: Role,
}

impl std::fmt::Debug for PlainTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlainTokenizer")
            .field("tokens", &self.vocab_size())
            .finish_non_exhaustive()
    }
}

impl PlainTokenizer {
    /// A tokenizer of these lists.
    ///
    /// # Errors
    /// Where a merge is no pair, or one of pieces that the vocabulary lacks.
    pub fn new(vocabulary: Vocabulary) -> Result<Self, TokenizerError> {
        let Vocabulary {
            tokens,
            roles,
            merges,
            splitting,
        } = vocabulary;
        let vocab: Vocab = tokens.iter().cloned().zip(0u32..).collect();
        let merges = merges
            .into_iter()
            .map(|merge| pair(&merge, &vocab))
            .collect::<Result<Vec<_>, _>>()?;
        let (mut pieces, mut special) = (Pieces::default(), Vec::new());
        for (id, token) in (0..).zip(&tokens) {
            let role = roles.get(id as usize).copied().unwrap_or(Role::Text);
            pieces.set(
                id,
                match role {
                    Role::Text => Spelling::ByteLevel.piece(token, false),
                    // Not for people.
                    Role::Mark => Piece::default(),
                    Role::Whole => Piece {
                        bytes: token.clone().into_bytes(),
                        marked: false,
                    },
                },
            );
            if role != Role::Text && !token.is_empty() {
                special.push(Special {
                    spelling: token.clone(),
                    id,
                    role,
                });
            }
        }
        // Stable: of equally long ones, the lower id stays in front.
        special.sort_by_key(|special| std::cmp::Reverse(special.spelling.len()));

        let failed = |e: tokenizers::Error| TokenizerError::Model {
            reason: e.to_string(),
        };
        let bpe = BPE::builder().vocab_and_merges(vocab, merges).build();
        let mut model = Tokenizer::new(bpe.map_err(failed)?);
        let words: PreTokenizerWrapper = ByteLevel::new(false, false, true).into();
        model.with_pre_tokenizer(Some(match splitting {
            Splitting::Gpt2 => words,
            Splitting::Digits => Sequence::new(vec![Digits::new(true).into(), words]).into(),
        }));
        Ok(Self {
            inner: Arc::new(Inner {
                model,
                pieces: Arc::new(pieces),
                special,
            }),
        })
    }

    /// Number of ids.
    pub fn vocab_size(&self) -> usize {
        self.inner.pieces.len()
    }

    /// The id of a token as the vocabulary spells it.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.model.token_to_id(token)
    }

    /// Token ids of a text in which marks mean nothing: what a user wrote.
    ///
    /// # Errors
    /// Where the text is too long.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.encode_at(text, false)
    }

    /// Token ids of a text in which a mark's spelling is the mark: a whole prompt, as templates write it.
    ///
    /// # Errors
    /// As [`PlainTokenizer::encode`].
    pub fn encode_marked(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.encode_at(text, true)
    }

    fn encode_at(&self, text: &str, marks: bool) -> Result<Vec<u32>, TokenizerError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(TokenizerError::TextTooLong {
                bytes: text.len(),
                max_bytes: MAX_TEXT_BYTES,
            });
        }
        let looked_for: Vec<&Special> = self
            .inner
            .special
            .iter()
            .filter(|special| marks || special.role == Role::Whole)
            .collect();
        let mut ids = Vec::new();
        let (mut from, mut at) = (0, 0);
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            match looked_for.iter().find(|s| rest.starts_with(&s.spelling)) {
                Some(special) => {
                    self.encode_text(text.get(from..at).unwrap_or_default(), &mut ids)?;
                    ids.push(special.id);
                    at += special.spelling.len();
                    from = at;
                }
                None => at += rest.chars().next().map_or(1, char::len_utf8),
            }
        }
        self.encode_text(text.get(from..).unwrap_or_default(), &mut ids)?;
        Ok(ids)
    }

    fn encode_text(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        if text.is_empty() {
            return Ok(());
        }
        let encoding = self.inner.model.encode_fast(text, false);
        let encoding = encoding.map_err(|e| TokenizerError::Model {
            reason: e.to_string(),
        })?;
        ids.extend_from_slice(encoding.get_ids());
        Ok(())
    }

    /// The text of token ids, marks left out.
    ///
    /// # Errors
    /// Where an id is outside the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        let (mut writer, mut text) = (Writer::default(), String::new());
        for id in ids {
            writer.push(self.inner.pieces.get(*id)?, &mut text);
        }
        writer.finish(&mut text);
        Ok(text)
    }

    /// A decoder for tokens as they are generated, marks left out.
    pub fn decode_stream(&self) -> DecodeStream {
        DecodeStream::new(self.inner.pieces.clone(), None)
    }
}

/// The two pieces of a merge. The library would panic where what they make is longer than any token.
fn pair(merge: &str, vocab: &Vocab) -> Result<(String, String), TokenizerError> {
    let found = merge.split_once(' ').filter(|(left, right)| {
        let made = format!("{left}{right}");
        [left, right, made.as_str()]
            .iter()
            .all(|piece| vocab.contains_key(*piece))
    });
    match found {
        Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
        None => Err(TokenizerError::Model {
            reason: format!("the merge {merge:?} is no pair of its tokens that makes a third"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes, two merges, a mark and a whole token.
    fn vocabulary(splitting: Splitting) -> Vocabulary {
        let bytes = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ');
        let bytes = bytes.chain('\u{100}'..='\u{143}').map(String::from);
        let tokens: Vec<String> = bytes
            .chain(["12", "\u{120}a", "<|end|>", "<|", "end"].map(str::to_owned))
            .collect();
        assert_eq!(tokens.len(), 256 + 5);
        let mut roles = vec![Role::Text; tokens.len()];
        roles[258] = Role::Mark;
        roles[259] = Role::Whole;
        Vocabulary {
            tokens,
            roles,
            merges: ["1 2", "\u{120} a"].map(str::to_owned).to_vec(),
            splitting,
        }
    }

    #[test]
    fn digits_are_split_where_the_model_wants_it() {
        let whole = PlainTokenizer::new(vocabulary(Splitting::Gpt2)).expect("a tokenizer");
        let split = PlainTokenizer::new(vocabulary(Splitting::Digits)).expect("a tokenizer");
        let id = |token: &str| whole.token_to_id(token).expect("a token");
        assert_eq!(
            whole.encode("12 a").expect("ids"),
            [id("12"), id("\u{120}a")]
        );
        assert_eq!(
            split.encode("12 a").expect("ids"),
            [id("1"), id("2"), id("\u{120}a")]
        );
    }

    #[test]
    fn marks_are_marks_only_where_they_may_be() {
        let tokenizer = PlainTokenizer::new(vocabulary(Splitting::Gpt2)).expect("a tokenizer");
        let marked = tokenizer.encode_marked("x<|end|>\n<|").expect("ids");
        let id = |token: &str| tokenizer.token_to_id(token).expect("a token");
        assert_eq!(marked, [id("x"), 258, id("\u{10a}"), 259]);
        assert_eq!(tokenizer.decode(&marked).expect("a text"), "x\n<|");
        let said = tokenizer.encode("<|end|>").expect("ids");
        assert_eq!((said.first(), said.contains(&258)), (Some(&259), false));
        assert_eq!(tokenizer.decode(&said).expect("a text"), "<|end|>");
        assert!(tokenizer.encode("").expect("ids").is_empty());
        let code = tokenizer.decode(&[261]).expect_err("no such id").code();
        assert_eq!(code, "token-unknown");
    }

    #[test]
    fn any_text_comes_back_whole_and_by_tokens() {
        let tokenizer = PlainTokenizer::new(vocabulary(Splitting::Digits)).expect("a tokenizer");
        for text in ["", " a  b\n\n\tc ", "x²½ ٣", "🦀é\u{301}\u{0}", "<|end|><|"] {
            let ids = tokenizer.encode(text).expect("ids");
            assert_eq!(tokenizer.decode(&ids).expect("a text"), text);
            let mut stream = tokenizer.decode_stream();
            let parts: Vec<String> = ids
                .iter()
                .map(|id| stream.push(*id).expect("known"))
                .collect();
            assert_eq!(parts.concat() + &stream.finish(), text);
        }
    }

    #[test]
    fn lists_that_do_not_fit_are_refused() {
        for merge in ["12", " a", "a ", "zz a", "<|end|> <|end|>"] {
            let mut wrong = vocabulary(Splitting::Gpt2);
            wrong.merges.push(merge.into());
            let error = PlainTokenizer::new(wrong).expect_err(merge);
            assert_eq!(error.code(), "tokenizer-failed", "{merge}: {error}");
        }
    }
}
