//! Converts a SentencePiece `tokenizer.model` to a `tokenizer.json`.
//!
//! SentencePiece BPE keeps a score per piece and always merges the adjacent pair whose piece has the highest score.
//! Hugging Face BPE keeps a ranked list of merges. The list is derived from the scores: for every piece, all ways to
//! split it into two pieces, best score first. On ties SentencePiece merges the leftmost pair, which a list cannot express
//! in general; ties are ordered as in transformers. For LLaMA the result is the same: its only ties are runs of spaces.

use std::collections::HashMap;

use emu_pack::FileKind;
use serde_json::{Map, Value as Json, json};

use crate::limits::MAX_FILE_BYTES;
use crate::protobuf::{Fields, Malformed, Value};
use crate::{TokenizerError, names};

/// Maximum number of pieces; more than any real vocabulary has.
const MAX_PIECES: usize = 1 << 20;
/// Maximum length of a piece in bytes.
pub(crate) const MAX_PIECE_BYTES: usize = 1 << 10;
/// The word mark, SentencePiece's replacement for a space.
pub(crate) const WORD_MARK: &str = "\u{2581}";

/// `ModelProto.SentencePiece.Type`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Unknown,
    Control,
    Byte,
}

#[derive(Debug)]
struct Piece {
    text: String,
    score: f32,
    kind: Kind,
}

/// A merge: score of the result, ids of the parts, the parts.
type Merge<'a> = (f32, (usize, usize), (&'a str, &'a str));

/// The fields of the file, with SentencePiece's defaults for missing ones.
#[derive(Debug)]
struct Model {
    pieces: Vec<Piece>,
    model_type: u64,
    byte_fallback: bool,
    suffix_marks: bool,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    escape_whitespaces: bool,
    charsmap: bool,
    normalizer: String,
}

fn damaged(reason: impl Into<String>) -> TokenizerError {
    TokenizerError::SentencePiece {
        reason: reason.into(),
    }
}

fn unsupported(feature: impl Into<String>) -> TokenizerError {
    TokenizerError::Unsupported {
        feature: feature.into(),
    }
}

impl From<Malformed> for TokenizerError {
    fn from(_: Malformed) -> Self {
        damaged("it is cut short or not a protobuf message")
    }
}

/// Reads the model and returns the equivalent `tokenizer.json`, without Emu's own tokens.
pub(crate) fn to_tokenizer_json(bytes: &[u8]) -> Result<Json, TokenizerError> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(TokenizerError::FileTooLarge {
            bytes: bytes.len(),
            max_bytes: MAX_FILE_BYTES,
        });
    }
    TokenizerError::refuse_others(bytes, &[FileKind::Text, FileKind::Empty])?;
    let model = read_model(bytes)?;
    model.check()?;
    model.to_json()
}

/// Merges by rank, as pairs of pieces, for text pieces given as (id, text, score).
pub(crate) fn merges<'a>(
    pieces: impl Iterator<Item = (usize, &'a str, f32)> + Clone,
) -> Vec<(&'a str, &'a str)> {
    let ids: HashMap<&str, usize> = pieces.clone().map(|(id, text, _)| (text, id)).collect();
    let mut merges: Vec<Merge<'_>> = Vec::new();
    for (_, text, score) in pieces {
        for (at, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(at);
            if let (Some(left_id), Some(right_id)) = (ids.get(left), ids.get(right)) {
                merges.push((score, (*left_id, *right_id), (left, right)));
            }
        }
    }
    // ties are ordered by ids, as in files written by transformers
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    merges.into_iter().map(|merge| merge.2).collect()
}

fn read_model(bytes: &[u8]) -> Result<Model, TokenizerError> {
    let mut model = Model {
        pieces: Vec::new(),
        model_type: 1,
        byte_fallback: false,
        suffix_marks: false,
        add_dummy_prefix: true,
        remove_extra_whitespaces: true,
        escape_whitespaces: true,
        charsmap: false,
        normalizer: String::new(),
    };
    for field in Fields(bytes) {
        match field? {
            (1, Value::Bytes(piece)) => {
                if model.pieces.len() == MAX_PIECES {
                    return Err(damaged(format!("it has more than {MAX_PIECES} pieces")));
                }
                model.pieces.push(read_piece(piece)?);
            }
            (2, Value::Bytes(trainer)) => {
                for field in Fields(trainer) {
                    match field? {
                        (3, value) => model.model_type = value.varint().ok_or(Malformed)?,
                        (24, value) => model.suffix_marks = value.varint().ok_or(Malformed)? != 0,
                        (35, value) => model.byte_fallback = value.varint().ok_or(Malformed)? != 0,
                        _ => {}
                    }
                }
            }
            (3, Value::Bytes(normalizer)) => {
                for field in Fields(normalizer) {
                    match field? {
                        (1, value) => model.normalizer = value.text().ok_or(Malformed)?.to_owned(),
                        (2, value) => model.charsmap = !value.bytes().ok_or(Malformed)?.is_empty(),
                        (3, value) => {
                            model.add_dummy_prefix = value.varint().ok_or(Malformed)? != 0
                        }
                        (4, value) => {
                            model.remove_extra_whitespaces = value.varint().ok_or(Malformed)? != 0
                        }
                        (5, value) => {
                            model.escape_whitespaces = value.varint().ok_or(Malformed)? != 0
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok(model)
}

fn read_piece(bytes: &[u8]) -> Result<Piece, TokenizerError> {
    let mut piece = Piece {
        text: String::new(),
        score: 0.0,
        kind: Kind::Normal,
    };
    for field in Fields(bytes) {
        match field? {
            (1, value) => {
                piece.text = value
                    .text()
                    .ok_or_else(|| damaged("a piece is not UTF-8"))?
                    .to_owned()
            }
            (2, value) => piece.score = value.float().ok_or(Malformed)?,
            (3, value) => {
                piece.kind = match value.varint().ok_or(Malformed)? {
                    1 => Kind::Normal,
                    2 => Kind::Unknown,
                    3 => Kind::Control,
                    4 => {
                        return Err(unsupported(format!(
                            "the user-defined piece {:?}",
                            piece.text
                        )));
                    }
                    5 => return Err(unsupported(format!("the unused piece {:?}", piece.text))),
                    6 => Kind::Byte,
                    _ => return Err(damaged("a piece is of an unknown kind")),
                }
            }
            _ => {}
        }
    }
    if piece.text.is_empty() || piece.text.len() > MAX_PIECE_BYTES {
        return Err(damaged(format!("a piece has {} bytes", piece.text.len())));
    }
    if !piece.score.is_finite() {
        return Err(damaged(format!(
            "the score of {:?} is not a number",
            piece.text
        )));
    }
    Ok(piece)
}

impl Model {
    /// Rejects models that would tokenize differently here.
    fn check(&self) -> Result<(), TokenizerError> {
        if self.pieces.is_empty() {
            return Err(damaged("it has no pieces"));
        }
        match self.model_type {
            2 => {}
            1 => return Err(unsupported("SentencePiece's unigram model")),
            3 => return Err(unsupported("SentencePiece's word model")),
            4 => return Err(unsupported("SentencePiece's character model")),
            _ => return Err(damaged("its model type is unknown")),
        }
        if self.charsmap {
            return Err(unsupported(format!(
                "the character map of the normalizer {:?}",
                self.normalizer
            )));
        }
        if self.remove_extra_whitespaces {
            return Err(unsupported("the removal of extra white space"));
        }
        if !self.escape_whitespaces {
            return Err(unsupported("spaces that are not escaped"));
        }
        if self.suffix_marks {
            return Err(unsupported("word marks at the end of words"));
        }
        let bytes = self.pieces.iter().filter(|p| p.kind == Kind::Byte).count();
        if self.byte_fallback && bytes != 256 {
            return Err(damaged(format!(
                "it has {bytes} byte pieces instead of 256"
            )));
        }
        Ok(())
    }

    /// Merges by rank, as pairs of pieces.
    fn merges(&self) -> Vec<(&str, &str)> {
        let pieces = self.pieces.iter().enumerate();
        merges(
            pieces
                .filter(|(_, p)| p.kind == Kind::Normal)
                .map(|(id, p)| (id, p.text.as_str(), p.score)),
        )
    }

    fn to_json(&self) -> Result<Json, TokenizerError> {
        let mut vocab = Map::new();
        for (id, piece) in self.pieces.iter().enumerate() {
            if vocab.insert(piece.text.clone(), json!(id)).is_some() {
                return Err(damaged(format!("the piece {:?} occurs twice", piece.text)));
            }
        }
        let unknown = self
            .pieces
            .iter()
            .find(|p| p.kind == Kind::Unknown)
            .map(|p| p.text.as_str());
        let own = |piece: &&Piece| matches!(piece.kind, Kind::Unknown | Kind::Control);
        let added: Vec<Json> = self.pieces.iter().filter(own).filter_map(|p| {
            let id = vocab.get(&p.text)?;
            Some(json!({"id": id, "content": p.text, "single_word": false, "lstrip": false, "rstrip": false,
                        "normalized": false, "special": true}))
        }).collect();

        let escape = json!({"type": "Replace", "pattern": {"String": " "}, "content": WORD_MARK});
        let prefix = json!({"type": "Prepend", "prepend": WORD_MARK});
        let normalizers = if self.add_dummy_prefix {
            vec![prefix, escape]
        } else {
            vec![escape]
        };
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": WORD_MARK}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if self.add_dummy_prefix {
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        let bos = vocab.get(names::BOS).cloned();
        let post_processor = bos.map(|id| json!({
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": names::BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": names::BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                     {"SpecialToken": {"id": names::BOS, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {names::BOS: {"id": names::BOS, "ids": [id], "tokens": [names::BOS]}},
        }));
        Ok(json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": {"type": "Sequence", "normalizers": normalizers},
            "pre_tokenizer": null,
            "post_processor": post_processor,
            "decoder": {"type": "Sequence", "decoders": decoders},
            "model": {
                "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": self.byte_fallback,
                "ignore_merges": false, "vocab": vocab, "merges": self.merges(),
            },
        }))
    }
}
