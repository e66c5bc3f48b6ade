//! Decoding of vocabulary pieces to text, at once or as a stream.
//!
//! Every piece is a byte string. Word marks are spaces; the very first one is dropped. Invalid UTF-8 becomes U+FFFD byte by
//! byte, as in SentencePiece.

use std::sync::Arc;

use crate::{SpecialTokens, TokenizerError};

/// Length of the longest UTF-8 sequence.
const MAX_CHAR_BYTES: usize = 4;

/// The text of a token.
#[derive(Debug, Clone, Default)]
pub(crate) struct Piece {
    /// Bytes, with word marks as spaces.
    pub bytes: Vec<u8>,
    /// Whether it starts with a word mark, which is dropped at the start of a text.
    pub marked: bool,
}

/// All pieces by id.
#[derive(Debug, Default)]
pub(crate) struct Pieces(Vec<Option<Piece>>);

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
    /// For each byte, the last token that consists of it alone, except `skipped` ones.
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

/// Appends pieces to a text; holds back bytes that may be the start of a UTF-8 sequence.
#[derive(Debug, Clone, Default)]
pub(crate) struct Writer {
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

    /// Moves complete characters to the text; with `all`, also the rest as U+FFFD.
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
                    // `None`: the bytes so far are the start of a UTF-8 sequence
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

/// Streaming decoder; special tokens are skipped. The concatenated output equals that of
/// [`decode`](crate::EmuTokenizer::decode) for all ids at once.
#[derive(Debug, Clone)]
pub struct DecodeStream {
    pieces: Arc<Pieces>,
    /// Tokens to skip, for tokenizers whose pieces spell them.
    specials: Option<SpecialTokens>,
    writer: Writer,
}

impl DecodeStream {
    pub(crate) fn new(pieces: Arc<Pieces>, specials: Option<SpecialTokens>) -> Self {
        Self {
            pieces,
            specials,
            writer: Writer::default(),
        }
    }

    /// Pushes one token; returns the text that is now complete, possibly empty.
    pub fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        let mut text = String::new();
        if !self.specials.is_some_and(|specials| specials.contains(id)) {
            self.writer.push(self.pieces.get(id)?, &mut text);
        }
        Ok(text)
    }

    /// The bytes of one token by itself, with word marks as spaces. They may be a part of a character.
    pub fn bytes(&self, id: u32) -> Result<&[u8], TokenizerError> {
        self.pieces.get(id).map(|piece| piece.bytes.as_slice())
    }

    /// Flushes the bytes held back and resets the stream.
    pub fn finish(&mut self) -> String {
        let mut text = String::new();
        self.writer.finish(&mut text);
        self.writer = Writer::default();
        text
    }
}
