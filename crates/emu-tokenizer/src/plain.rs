//! The tokenizer of a plain language model, from the vocabulary lists of a model file: byte-level BPE like GPT-2, or
//! SentencePiece BPE like LLaMA.
//!
//! Unlike [`EmuTokenizer`](crate::EmuTokenizer) it has no pictures, adds no tokens and strips no white space around special
//! tokens.

use std::collections::HashSet;
use std::sync::Arc;

use tokenizers::Tokenizer;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::{NormalizerWrapper, Prepend, Replace, Sequence};

use crate::build::Spelling;
use crate::check::merge_fits;
use crate::pieces::{Piece, Pieces, Writer};
use crate::sentencepiece::{MAX_PIECE_BYTES, WORD_MARK, merges as merges_of_scores};
use crate::{DecodeStream, MAX_TEXT_BYTES, Splitting, TokenizerError};

/// The kind of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A piece of text.
    Text,
    /// A control token, which plain text never produces.
    Mark,
    /// A user-defined token, matched as a whole wherever a text spells it.
    Whole,
}

/// The merge algorithm and its data.
#[derive(Debug, Clone)]
pub enum Merging {
    /// Byte-level BPE: pieces are spelled in GPT-2's byte alphabet.
    Ranks {
        /// BPE merges by rank: two pieces separated by a space.
        merges: Vec<String>,
        /// Pre-tokenization.
        splitting: Splitting,
    },
    /// SentencePiece BPE: pieces have a word mark for a space, and the pair with the best score is merged first.
    Scores {
        /// Score per token.
        scores: Vec<f32>,
        /// Whether a space is prepended to a text.
        space_first: bool,
    },
}

/// The vocabulary lists of a tokenizer.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    /// Spellings by id.
    pub tokens: Vec<String>,
    /// Role per token; [`Role::Text`] beyond the end of the list.
    pub roles: Vec<Role>,
    /// The merge algorithm.
    pub merging: Merging,
}

/// A tokenizer without pictures. Clones share their tables.
#[derive(Clone)]
pub struct PlainTokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    model: Tokenizer,
    pieces: Arc<Pieces>,
    /// Tokens that are matched in texts by their spelling, longest first.
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
    /// Builds a tokenizer from vocabulary lists.
    ///
    /// # Errors
    /// A merge is not a pair, or has pieces that the vocabulary lacks; a SentencePiece vocabulary lacks a byte, has a score
    /// count other than its token count, or has an overlong piece.
    pub fn new(vocabulary: Vocabulary) -> Result<Self, TokenizerError> {
        let Vocabulary {
            tokens,
            roles,
            merging,
        } = vocabulary;
        let role = |id: usize| roles.get(id).copied().unwrap_or(Role::Text);
        let model = match &merging {
            Merging::Ranks { merges, splitting } => byte_level(&tokens, role, merges, *splitting)?,
            Merging::Scores {
                scores,
                space_first,
            } => sentencepiece(&tokens, role, scores, *space_first)?,
        };
        let (spelling, drops_first_space) = match merging {
            Merging::Ranks { .. } => (Spelling::ByteLevel, false),
            Merging::Scores { space_first, .. } => (Spelling::WordMarks, space_first),
        };
        let (mut pieces, mut special) = (Pieces::default(), Vec::new());
        for (id, token) in (0..).zip(&tokens) {
            let role = role(id as usize);
            pieces.set(
                id,
                match role {
                    Role::Text => spelling.piece(token, drops_first_space),
                    // Control tokens decode to nothing.
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
        // Stable sort: for equal lengths, lower ids stay first.
        special.sort_by_key(|special| std::cmp::Reverse(special.spelling.len()));
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

    /// The id of a token by its spelling in the vocabulary.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        let special = self.inner.special.iter().find(|s| s.spelling == token);
        special
            .map(|special| special.id)
            .or_else(|| self.inner.model.token_to_id(token))
    }

    /// Encodes user text; spellings of control tokens have no meaning in it.
    ///
    /// # Errors
    /// The text is too long.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.encode_at(text, false)
    }

    /// Encodes a whole prompt as written by a chat template; spellings of control tokens are those tokens.
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

    /// Decodes token ids; control tokens are skipped.
    ///
    /// # Errors
    /// An id is outside the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        let (mut writer, mut text) = (Writer::default(), String::new());
        for id in ids {
            writer.push(self.inner.pieces.get(*id)?, &mut text);
        }
        writer.finish(&mut text);
        Ok(text)
    }

    /// A streaming decoder; control tokens are skipped.
    pub fn decode_stream(&self) -> DecodeStream {
        DecodeStream::new(self.inner.pieces.clone(), None)
    }
}

fn failed(reason: impl std::fmt::Display) -> TokenizerError {
    TokenizerError::Model {
        reason: reason.to_string(),
    }
}

/// The vocabulary for text, without control tokens, so that user text cannot produce one.
fn texts(tokens: &[String], role: impl Fn(usize) -> Role) -> Vocab {
    let ids = tokens.iter().cloned().zip(0u32..);
    ids.filter(|(_, id)| role(*id as usize) != Role::Mark)
        .collect()
}

/// Byte-level BPE (GPT-2).
fn byte_level(
    tokens: &[String],
    role: impl Fn(usize) -> Role,
    merges: &[String],
    splitting: Splitting,
) -> Result<Tokenizer, TokenizerError> {
    let (vocab, all) = (
        texts(tokens, role),
        tokens.iter().map(String::as_str).collect::<HashSet<_>>(),
    );
    let mut pairs = Vec::with_capacity(merges.len());
    for merge in merges {
        let pair = merge.split_once(' ');
        let pair = pair.filter(|pair| merge_fits(*pair, |piece| all.contains(piece)).is_ok());
        let (left, right) = pair.ok_or_else(|| {
            failed(format!(
                "the merge {merge:?} is no pair of its tokens that makes a third"
            ))
        })?;
        // Merges that involve a control token are dropped with it.
        if merge_fits((left, right), |piece| vocab.contains_key(piece)).is_ok() {
            pairs.push((left.to_owned(), right.to_owned()));
        }
    }
    let bpe = BPE::builder()
        .vocab_and_merges(vocab, pairs)
        .ignore_merges(splitting.takes_whole_words());
    let mut model = Tokenizer::new(bpe.build().map_err(failed)?);
    model.with_pre_tokenizer(Some(splitting.pre_tokenizer()?));
    Ok(model)
}

/// SentencePiece BPE (LLaMA).
fn sentencepiece(
    tokens: &[String],
    role: impl Fn(usize) -> Role + Clone,
    scores: &[f32],
    space_first: bool,
) -> Result<Tokenizer, TokenizerError> {
    if scores.len() != tokens.len() {
        return Err(failed(format!(
            "it has {} scores for {} tokens",
            scores.len(),
            tokens.len()
        )));
    }
    let longest = tokens.iter().map(String::len).max().unwrap_or(0);
    if longest > MAX_PIECE_BYTES {
        return Err(failed(format!("a piece has {longest} bytes")));
    }
    let vocab = texts(tokens, &role);
    let bytes: Vec<String> = (0..=u8::MAX)
        .map(|byte| format!("<0x{byte:02X}>"))
        .collect();
    if let Some(lacking) = bytes.iter().find(|byte| !vocab.contains_key(*byte)) {
        return Err(TokenizerError::Unsupported {
            feature: format!("a SentencePiece vocabulary without the byte {lacking}"),
        });
    }
    let scored = tokens.iter().zip(scores).enumerate();
    let scored = scored.filter(|(id, (token, _))| {
        let byte = token.starts_with("<0x") && bytes.contains(token);
        role(*id) == Role::Text && !token.is_empty() && !byte
    });
    let merges = merges_of_scores(scored.map(|(id, (token, score))| (id, token.as_str(), *score)));
    let merges = merges
        .into_iter()
        .map(|(left, right)| (left.to_owned(), right.to_owned()))
        .collect();
    let bpe = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .byte_fallback(true);
    let mut model = Tokenizer::new(bpe.build().map_err(failed)?);
    let escape: NormalizerWrapper = Replace::new(" ", WORD_MARK).map_err(failed)?.into();
    let normalizer: NormalizerWrapper = match space_first {
        true => Sequence::new(vec![Prepend::new(WORD_MARK.into()).into(), escape]).into(),
        false => escape,
    };
    model.with_normalizer(Some(normalizer)).map_err(failed)?;
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes, two merges, a control token and a user-defined token.
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
        let merges = ["1 2", "\u{120} a"].map(str::to_owned).to_vec();
        Vocabulary {
            tokens,
            roles,
            merging: Merging::Ranks { merges, splitting },
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
            // A token by itself may be a part of a character.
            let bytes = ids.iter().map(|id| stream.bytes(*id).expect("known"));
            assert_eq!(bytes.collect::<Vec<_>>().concat(), text.as_bytes());
            assert!(stream.bytes(99_999).is_err());
        }
    }

    #[test]
    fn lists_that_do_not_fit_are_refused() {
        for merge in ["12", " a", "a ", "zz a", "<|end|> <|end|>"] {
            let mut wrong = vocabulary(Splitting::Gpt2);
            let Merging::Ranks { merges, .. } = &mut wrong.merging else {
                panic!("ranks");
            };
            merges.push(merge.into());
            let error = PlainTokenizer::new(wrong).expect_err(merge);
            assert_eq!(error.code(), "tokenizer-failed", "{merge}: {error}");
        }
    }

    /// Compares with ids from llama.cpp, for vocabularies whose merges cross every pre-tokenization boundary.
    #[test]
    fn every_kind_gives_the_ids_of_llama_cpp() {
        #[derive(serde::Deserialize)]
        struct Lists {
            tokens: Vec<String>,
            types: Vec<u8>,
            #[serde(default)]
            merges: Vec<String>,
            #[serde(default)]
            scores: Vec<f32>,
            ids: std::collections::BTreeMap<String, Vec<Vec<u32>>>,
        }
        #[derive(serde::Deserialize)]
        struct Fixture {
            texts: Vec<String>,
            bpe: Lists,
            spm: Lists,
        }
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/fixtures/gguf/tokenizers.json"
        );
        let fixture = std::fs::read(path).expect("the fixture");
        let Fixture { texts, bpe, spm } = serde_json::from_slice(&fixture).expect("lists");
        let mut kinds = 0;
        for (lists, is_bpe) in [(&bpe, true), (&spm, false)] {
            let role = |kind: &u8| match kind {
                2 | 3 => Role::Mark,
                4 => Role::Whole,
                _ => Role::Text,
            };
            for (kind, ids) in &lists.ids {
                let merging = match is_bpe {
                    true => Merging::Ranks {
                        merges: lists.merges.clone(),
                        splitting: Splitting::by_name(kind).expect("a kind"),
                    },
                    false => Merging::Scores {
                        scores: lists.scores.clone(),
                        space_first: kind == "prefix",
                    },
                };
                let tokenizer = PlainTokenizer::new(Vocabulary {
                    tokens: lists.tokens.clone(),
                    roles: lists.types.iter().map(role).collect(),
                    merging,
                });
                let tokenizer = tokenizer.expect("a tokenizer");
                assert_eq!(ids.len(), texts.len());
                for (text, ids) in texts.iter().zip(ids) {
                    assert_eq!(
                        &tokenizer.encode(text).expect("ids"),
                        ids,
                        "{kind}: {text:?}"
                    );
                    // After a user-defined token, a space is prepended as at the start of a text.
                    let spaced = kind == "prefix" && text.contains("<whole>");
                    let decoded = tokenizer.decode(ids).expect("a text");
                    assert_eq!(decoded == *text, !spaced, "{kind}: {decoded:?}");
                }
                kinds += 1;
            }
        }
        assert_eq!(kinds, 8);
    }

    #[test]
    fn whole_words_and_merges_make_no_marks() {
        // A control token spelled like a word, and one that a merge would produce.
        for (spelling, merge) in [("stop", None), ("no", Some("n o")), ("\u{120}no", None)] {
            for splitting in [Splitting::Llama3, Splitting::Gpt2] {
                let mut vocabulary = vocabulary(splitting);
                vocabulary.tokens[258] = spelling.into();
                let Merging::Ranks { merges, .. } = &mut vocabulary.merging else {
                    panic!("ranks");
                };
                merges.extend(merge.map(str::to_owned));
                let tokenizer = PlainTokenizer::new(vocabulary).expect("a tokenizer");
                let ids = tokenizer.encode("stop no no").expect("ids");
                assert!(!ids.contains(&258), "{spelling}: {ids:?}");
                assert_eq!(tokenizer.decode(&ids).expect("a text"), "stop no no");
                assert_eq!(tokenizer.token_to_id(spelling), Some(258));
            }
        }
    }

    #[test]
    fn sentencepiece_lists_that_do_not_fit_are_refused() {
        let bytes = (0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>"));
        let tokens: Vec<String> = ["<unk>", "<s>", "s>", "<", "\u{2581}"]
            .map(str::to_owned)
            .into_iter()
            .chain(bytes)
            .collect();
        let vocabulary = |tokens: Vec<String>, scores: usize| Vocabulary {
            roles: vec![Role::Mark, Role::Mark],
            tokens,
            merging: Merging::Scores {
                scores: vec![0.0; scores],
                space_first: true,
            },
        };
        let count = tokens.len();
        let tokenizer = PlainTokenizer::new(vocabulary(tokens.clone(), count)).expect("sound");
        // User text produces no control token, although its parts are pieces.
        assert!(!tokenizer.encode("<s>").expect("ids").contains(&1));
        for (tokens, scores) in [
            (tokens.clone(), count - 1),
            (tokens[..count - 1].to_vec(), count - 1),
            ([&tokens[..], &["x".repeat(2000)]].concat(), count + 1),
        ] {
            assert!(PlainTokenizer::new(vocabulary(tokens, scores)).is_err());
        }
    }
}
