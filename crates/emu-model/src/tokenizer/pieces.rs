//! From pieces of the vocabulary back to text, all at once or while tokens arrive.
//!
//! Every piece is bytes. Word marks are spaces, of which the very first is dropped; what does not form UTF-8 becomes
//! U+FFFD byte by byte, as SentencePiece does it.

use std::sync::Arc;

use super::{SpecialTokens, TokenizerError};

/// Longest UTF-8 sequence.
const MAX_CHAR_BYTES: usize = 4;

/// What an id stands for in the text.
#[derive(Debug, Clone, Default)]
pub(super) struct Piece {
    /// Its bytes, word marks as spaces.
    pub bytes: Vec<u8>,
    /// Whether it starts with a word mark, which vanishes at the start of a text.
    pub marked: bool,
}

/// All pieces by id.
#[derive(Debug, Default)]
pub(super) struct Pieces(Vec<Option<Piece>>);

impl Pieces {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn set(&mut self, id: u32, piece: Piece) {
        let at = id as usize;
        if self.0.len() <= at {
            self.0.resize(at + 1, None);
        }
        self.0[at] = Some(piece);
    }

    pub fn get(&self, id: u32) -> Result<&Piece, TokenizerError> {
        let piece = self.0.get(id as usize).and_then(Option::as_ref);
        piece.ok_or(TokenizerError::UnknownId {
            id,
            size: self.len(),
        })
    }
}

impl Pieces {
    /// For each byte, the last token that stands for it alone, `skipped` ones aside.
    pub fn bytes(&self, skipped: impl Fn(u32) -> bool) -> Vec<Option<u32>> {
        let mut found = vec![None; 1 << u8::BITS];
        for (id, piece) in (0u32..).zip(&self.0) {
            if let Some(Piece { bytes, .. }) = piece
                && let [byte] = bytes[..]
                && !skipped(id)
            {
                found[usize::from(byte)] = Some(id);
            }
        }
        found
    }
}

/// Appends pieces to a text, keeping back bytes that may still become a character.
#[derive(Debug, Clone, Default)]
pub(super) struct Writer {
    pending: Vec<u8>,
    started: bool,
}

impl Writer {
    pub fn push(&mut self, piece: &Piece, text: &mut String) {
        let bytes = match piece.bytes.as_slice() {
            [_, rest @ ..] if piece.marked && !self.started => rest,
            bytes => bytes,
        };
        self.started |= !piece.bytes.is_empty();
        self.pending.extend_from_slice(bytes);
        self.drain(text, false);
    }

    pub fn finish(&mut self, text: &mut String) {
        self.drain(text, true);
    }

    /// Moves complete characters to the text; with `all`, what is left as U+FFFD too.
    fn drain(&mut self, text: &mut String, all: bool) {
        let mut rest = self.pending.as_slice();
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                }
                Err(e) => {
                    let (valid, broken) = rest.split_at(e.valid_up_to());
                    text.push_str(std::str::from_utf8(valid).unwrap_or_default());
                    // `None`: the bytes so far are the start of a character
                    let open = e.error_len().is_none() && broken.len() < MAX_CHAR_BYTES;
                    if open && !all {
                        self.pending = broken.to_vec();
                        return;
                    }
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &broken[1..];
                }
            }
        }
        self.pending.clear();
    }
}

/// Decodes tokens as they come, special tokens left out. The pieces of text, put together, are what
/// [`decode`](super::EmuTokenizer::decode) returns for all the ids at once.
#[derive(Debug, Clone)]
pub struct DecodeStream {
    pieces: Arc<Pieces>,
    /// Tokens that are left out, of tokenizers whose pieces spell them.
    specials: Option<SpecialTokens>,
    writer: Writer,
}

impl DecodeStream {
    pub(super) fn new(pieces: Arc<Pieces>, specials: Option<SpecialTokens>) -> Self {
        Self {
            pieces,
            specials,
            writer: Writer::default(),
        }
    }

    /// Takes one token; returns the text that is now certain, which may be empty.
    pub fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        let mut text = String::new();
        if !self.specials.is_some_and(|specials| specials.contains(id)) {
            self.writer.push(self.pieces.get(id)?, &mut text);
        }
        Ok(text)
    }

    /// The text of bytes that were kept back; the stream then starts afresh.
    pub fn finish(&mut self) -> String {
        let mut text = String::new();
        self.writer.finish(&mut text);
        self.writer = Writer::default();
        text
    }
}
