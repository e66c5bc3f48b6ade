//! The tokenizer of a multimodal model, with Emu's special tokens.
//!
//! The released code uses the slow `LlamaTokenizer` of transformers 4.31, and the model was trained with its treatment of
//! special tokens: white space, newlines included, is stripped on both sides of a special token, every segment in between
//! starts with a fresh word mark, and decoding joins segments with a space. [`EmuTokenizer`] implements that around a
//! Hugging Face `tokenizers` model, which encodes the segments.

use std::sync::Arc;

use tokenizers::Tokenizer;

use crate::build::{self, Parts};
use crate::error::TokenizerError;
use crate::limits::MAX_TEXT_BYTES;
use crate::pieces::{DecodeStream, Pieces, Writer};
use crate::prompt::{PromptText, Span};
use crate::sentencepiece;
use crate::special::{Control, Controls, Cutter, Manner, Roles, Segment, SpecialTokens};

/// The padding side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Before the tokens, for generation.
    Left,
    /// After the tokens, for training.
    Right,
}

/// A padded batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Padded {
    /// Token ids, `[B][T]`.
    pub ids: Vec<Vec<u32>>,
    /// Attention mask, `[B][T]`: 1 for a token, 0 for padding.
    pub mask: Vec<Vec<u8>>,
}

/// A tokenizer with Emu's special tokens. Clones share their tables.
#[derive(Clone)]
pub struct EmuTokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    /// Encodes text segments only: special tokens are matched here, not by the library.
    model: Tokenizer,
    specials: SpecialTokens,
    manner: Manner,
    controls: Controls,
    pieces: Arc<Pieces>,
    /// For each byte, a token that consists of it alone.
    bytes: Vec<Option<u32>>,
}

impl std::fmt::Debug for EmuTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmuTokenizer")
            .field("specials", &self.inner.specials)
            .finish_non_exhaustive()
    }
}

impl EmuTokenizer {
    /// The special tokens must be among the model's added tokens.
    fn assemble(parts: Parts) -> Self {
        let Parts {
            mut model,
            specials,
            manner,
            pieces,
        } = parts;
        model.set_encode_special_tokens(true);
        let added = model.get_added_vocabulary().get_added_tokens_decoder();
        let others = added.iter().filter(|(_, token)| token.special);
        let others = others.map(|(id, token)| Control {
            spelling: token.content.clone(),
            id: *id,
            strips: (token.lstrip, token.rstrip),
        });
        let controls = Controls::new(&specials, manner, others);
        let bytes = pieces.bytes(|id| added.contains_key(&id));
        Self {
            inner: Arc::new(Inner {
                model,
                specials,
                manner,
                controls,
                pieces: Arc::new(pieces),
                bytes,
            }),
        }
    }

    /// Reads a `tokenizer.json` that already contains Emu's special tokens: LLaMA style (word marks, byte fallback) or
    /// byte-level BPE.
    pub fn from_json_bytes(bytes: &[u8]) -> Result<Self, TokenizerError> {
        build::from_json(bytes, None).map(Self::assemble)
    }

    /// Reads the `tokenizer.json` of a plain language model and appends missing special tokens to the vocabulary, in the order
    /// of the released code: `[PAD] [IMG] [/IMG] <image>`, and for [`Roles::Instruct`] `[USER] [ASSISTANT]`.
    pub fn from_base_json_bytes(bytes: &[u8], roles: Roles) -> Result<Self, TokenizerError> {
        build::from_json(bytes, Some(roles)).map(Self::assemble)
    }

    /// Reads a SentencePiece `tokenizer.model` (BPE, like LLaMA's) and adds the special tokens as
    /// [`EmuTokenizer::from_base_json_bytes`] does.
    pub fn from_sentencepiece_bytes(bytes: &[u8], roles: Roles) -> Result<Self, TokenizerError> {
        let json = sentencepiece::to_tokenizer_json(bytes)?;
        build::from_value(json, Some(roles)).map(Self::assemble)
    }

    /// The equivalent `tokenizer.json`, with the special tokens and their white-space rule as `lstrip` and `rstrip`.
    pub fn to_json(&self) -> Result<String, TokenizerError> {
        self.inner
            .model
            .to_string(false)
            .map_err(|e| TokenizerError::Model {
                reason: e.to_string(),
            })
    }

    /// The ids of the special tokens.
    pub fn specials(&self) -> &SpecialTokens {
        &self.inner.specials
    }

    /// Vocabulary size including special tokens: the largest id plus one.
    pub fn vocab_size(&self) -> usize {
        self.inner.pieces.len()
    }

    /// The id of a token by its spelling in the vocabulary.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.model.token_to_id(token)
    }

    /// Encodes template text: the spelling of a special token is that token, as in the prompts of templates and of the released
    /// code. Starts with `<s>` if the model has it; ChatML templates write their first token themselves. For user text use
    /// [`EmuTokenizer::encode_plain`].
    ///
    /// # Errors
    /// The text is too long.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids: Vec<u32> = self.first().into_iter().collect();
        ids.extend(self.encode_without_bos(text)?);
        Ok(ids)
    }

    /// The token that begins every prompt, if the convention has one.
    fn first(&self) -> Option<u32> {
        (self.inner.manner == Manner::Llama).then_some(self.inner.specials.bos)
    }

    /// As [`EmuTokenizer::encode`], without a leading `<s>`.
    ///
    /// # Errors
    /// As [`EmuTokenizer::encode`].
    pub fn encode_without_bos(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        fits(text.len())?;
        let mut cutter = Cutter::new(&self.inner.controls);
        cutter.template(text);
        self.encode_segments(cutter.finish())
    }

    /// Encodes user text: plain text, whatever it spells. No control token can result, and no white space is stripped. No
    /// leading `<s>`.
    ///
    /// # Errors
    /// As [`EmuTokenizer::encode`].
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        fits(text.len())?;
        let mut ids = Vec::new();
        self.encode_text(text, &mut ids)?;
        Ok(ids)
    }

    /// Encodes a whole prompt of template text, user text and pictures: a block of `tokens_per_picture` for each picture, a
    /// leading `<s>` if the model has it. It must fit into `context` tokens.
    ///
    /// # Errors
    /// The text is too long, or the prompt exceeds the context.
    pub fn encode_prompt(
        &self,
        prompt: &PromptText,
        tokens_per_picture: usize,
        context: usize,
    ) -> Result<Vec<u32>, TokenizerError> {
        fits(prompt.spans().iter().map(Span::bytes).sum())?;
        let specials = &self.inner.specials;
        let mut cutter = Cutter::new(&self.inner.controls);
        if let Some(first) = self.first() {
            cutter.special(first);
        }
        for span in prompt.spans() {
            match span {
                Span::Template(text) => cutter.template(text),
                Span::Plain(text) => cutter.plain(text),
                Span::Picture => {
                    cutter.special(specials.img);
                    (0..tokens_per_picture).for_each(|_| cutter.special(specials.image));
                    cutter.special(specials.end_img);
                }
            }
        }
        let ids = self.encode_segments(cutter.finish())?;
        if ids.len() > context {
            return Err(TokenizerError::PromptTooLong {
                tokens: ids.len(),
                context,
            });
        }
        Ok(ids)
    }

    fn encode_segments(&self, segments: Vec<Segment>) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::new();
        for segment in segments {
            match segment {
                Segment::Special(id) => ids.push(id),
                Segment::Text(text) => self.encode_text(&text, &mut ids)?,
            }
        }
        Ok(ids)
    }

    /// Appends the tokens of a text segment.
    fn encode_text(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let Inner {
            model,
            specials,
            controls,
            bytes,
            ..
        } = &*self.inner;
        let encoding = model.encode_fast(text, false);
        let encoding = encoding.map_err(|e| TokenizerError::Model {
            reason: e.to_string(),
        })?;
        // <unk> stands for what the vocabulary cannot express, unless the text spells it.
        let [_, _, unk] = self.inner.manner.marks();
        let spelled = |id: u32| id != specials.unk || text.contains(unk);
        for &id in encoding.get_ids() {
            match controls.get(id).filter(|_| spelled(id)) {
                None => ids.push(id),
                // BPE merges produced a control token from its letters: emit the letters instead.
                Some(control) => {
                    let letter = |byte: u8| bytes.get(usize::from(byte)).copied().flatten();
                    let letters = control.spelling.bytes();
                    ids.extend(letters.map(|byte| letter(byte).unwrap_or(specials.unk)));
                }
            }
        }
        Ok(())
    }

    /// Decodes token ids. With `skip_special`, special tokens are dropped first, and the rest is decoded as one run. Otherwise
    /// they appear in the text; `[PAD]`, `[IMG]`, `[/IMG]`, `<image>` and the role tokens are separated by spaces, except in
    /// ChatML, which adds none.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        if skip_special {
            let kept: Vec<u32> = ids
                .iter()
                .copied()
                .filter(|id| !self.inner.specials.contains(*id))
                .collect();
            return self.decode_run(&kept);
        }
        if self.inner.manner == Manner::ChatMl {
            return self.decode_run(ids);
        }
        let mut parts: Vec<String> = Vec::new();
        for run in ids.chunk_by(|a, b| !self.stands_apart(*a) && !self.stands_apart(*b)) {
            parts.push(match run {
                [id] if self.stands_apart(*id) => self.special_text(*id),
                run => self.decode_with_marks(run)?,
            });
        }
        Ok(parts.join(" "))
    }

    /// Whether `id` is a special token outside the language model's own vocabulary.
    fn stands_apart(&self, id: u32) -> bool {
        let specials = &self.inner.specials;
        specials.contains(id) && ![specials.bos, specials.eos, specials.unk].contains(&id)
    }

    fn special_text(&self, id: u32) -> String {
        self.inner.model.id_to_token(id).unwrap_or_default()
    }

    /// Decodes a run whose only special tokens are `<s>`, `</s>` and `<unk>`. Text before a special token gets a leading space;
    /// nothing follows the token, and the text after it is decoded afresh.
    fn decode_with_marks(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        let mut text = String::new();
        let mut rest = ids;
        while let Some(at) = rest.iter().position(|id| self.inner.specials.contains(*id)) {
            let (before, from) = rest.split_at(at);
            if !before.is_empty() {
                text.push(' ');
                text.push_str(&self.decode_run(before)?);
            }
            let Some((special, after)) = from.split_first() else {
                break;
            };
            text.push_str(&self.special_text(*special));
            rest = after;
        }
        text.push_str(&self.decode_run(rest)?);
        Ok(text)
    }

    /// Decodes text tokens.
    fn decode_run(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        let mut writer = Writer::default();
        let mut text = String::new();
        for id in ids {
            writer.push(self.inner.pieces.get(*id)?, &mut text);
        }
        writer.finish(&mut text);
        Ok(text)
    }

    /// A streaming decoder; see [`DecodeStream`].
    pub fn decode_stream(&self) -> DecodeStream {
        DecodeStream::new(self.inner.pieces.clone(), Some(self.inner.specials))
    }

    /// Pads all rows to the same length with `[PAD]`.
    pub fn pad(&self, batch: &[Vec<u32>], side: Side) -> Padded {
        let longest = batch.iter().map(Vec::len).max().unwrap_or(0);
        let fill = |row: &[u32], value: &dyn Fn(u32) -> u32, empty: u32| -> Vec<u32> {
            let padding = std::iter::repeat_n(empty, longest - row.len());
            let real = row.iter().map(|id| value(*id));
            match side {
                Side::Left => padding.chain(real).collect(),
                Side::Right => real.chain(padding).collect(),
            }
        };
        let pad = self.inner.specials.pad;
        Padded {
            ids: batch.iter().map(|row| fill(row, &|id| id, pad)).collect(),
            mask: batch
                .iter()
                .map(|row| fill(row, &|_| 1, 0).into_iter().map(|m| m as u8).collect())
                .collect(),
        }
    }
}

/// Checks the length of a text against [`MAX_TEXT_BYTES`].
fn fits(bytes: usize) -> Result<(), TokenizerError> {
    match bytes {
        0..=MAX_TEXT_BYTES => Ok(()),
        _ => Err(TokenizerError::TextTooLong {
            bytes,
            max_bytes: MAX_TEXT_BYTES,
        }),
    }
}
