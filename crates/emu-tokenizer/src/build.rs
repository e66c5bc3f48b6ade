//! Builds the parts of an [`EmuTokenizer`](crate::EmuTokenizer) from a `tokenizer.json`.

use std::collections::HashMap;

use emu_pack::FileKind;
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use crate::TokenizerError;
use crate::check::{check, nodes};
use crate::limits::MAX_FILE_BYTES;
use crate::pieces::{Piece, Pieces};
use crate::sentencepiece::WORD_MARK;
use crate::special::{Manner, Roles, SpecialTokens, names};

/// The parts of a tokenizer.
pub(crate) struct Parts {
    /// The special tokens are among its added tokens.
    pub model: Tokenizer,
    pub specials: SpecialTokens,
    pub manner: Manner,
    pub pieces: Pieces,
}

/// How vocabulary pieces encode bytes and spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// SentencePiece: `▁` for a space, `<0xE4>` for a byte.
    WordMarks,
    /// GPT-2's byte-level alphabet: every byte is one printable character.
    ByteLevel,
}

pub(crate) fn from_json(bytes: &[u8], add: Option<Roles>) -> Result<Parts, TokenizerError> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(TokenizerError::FileTooLarge {
            bytes: bytes.len(),
            max_bytes: MAX_FILE_BYTES,
        });
    }
    // Other invalid JSON is reported below with its position.
    TokenizerError::refuse_others(bytes, &[FileKind::Json, FileKind::Text, FileKind::Empty])?;
    let value = serde_json::from_slice(bytes).map_err(|e| TokenizerError::Json {
        reason: e.to_string(),
    })?;
    from_value(value, add)
}

/// `add`: the special tokens to add if they are missing.
pub(crate) fn from_value(mut json: Value, add: Option<Roles>) -> Result<Parts, TokenizerError> {
    let unsupported = |feature: &str| TokenizerError::Unsupported {
        feature: feature.to_owned(),
    };
    let damaged = |reason: &str| TokenizerError::Json {
        reason: reason.to_owned(),
    };
    // old versions omit the type
    if json["model"].get("type").is_some_and(|t| t != "BPE") {
        return Err(unsupported("a model other than BPE"));
    }
    if json["model"].get("dropout").is_some_and(|d| !d.is_null()) {
        return Err(unsupported("random merges (dropout)"));
    }
    let spelling = spelling(&json)
        .ok_or_else(|| unsupported("pieces that are neither LLaMA's nor byte-level"))?;
    let drops_first_space = adds_prefix(&json);

    let vocab = json["model"]["vocab"]
        .as_object()
        .ok_or_else(|| damaged("`model.vocab` is missing"))?;
    let mut ids: HashMap<String, u32> = HashMap::with_capacity(vocab.len());
    for (piece, id) in vocab {
        let id = id
            .as_u64()
            .and_then(|id| u32::try_from(id).ok())
            .filter(|id| (*id as usize) < vocab.len());
        ids.insert(
            piece.clone(),
            id.ok_or_else(|| damaged("an id is outside the vocabulary"))?,
        );
    }
    check(&json, &ids)?;
    let manner = Manner::of(|name| {
        let mut added = json["added_tokens"].as_array().into_iter().flatten();
        ids.contains_key(name) || added.any(|token| token["content"] == name)
    });
    add_specials(&mut json, &ids, add, manner)?;
    // Texts are not truncated, and `EmuTokenizer::pad` pads batches.
    json["truncation"] = Value::Null;
    json["padding"] = Value::Null;
    let bytes = serde_json::to_vec(&json).map_err(|e| TokenizerError::Json {
        reason: e.to_string(),
    })?;
    let model = Tokenizer::from_bytes(bytes).map_err(|e| TokenizerError::Json {
        reason: e.to_string(),
    })?;

    for token in json["added_tokens"].as_array().into_iter().flatten() {
        let content = token["content"].as_str().unwrap_or_default();
        // The library assigns ids itself and ignores those of the file.
        let given = model.token_to_id(content).map(u64::from);
        if !content.is_empty() && given != token["id"].as_u64() {
            return Err(damaged(&format!(
                "the added token {content:?} has the id {} where the next is {}",
                token["id"],
                given.map_or_else(|| "none".to_owned(), |id| id.to_string())
            )));
        }
    }

    let specials = resolve(&model, manner)?;
    let mut pieces = Pieces::default();
    for (piece, id) in &ids {
        pieces.set(*id, spelling.piece(piece, drops_first_space));
    }
    for (id, token) in model.get_added_vocabulary().get_added_tokens_decoder() {
        // The language model's other control tokens decode to nothing, as in `PlainTokenizer`.
        let hidden = manner == Manner::ChatMl && token.special && !specials.contains(*id);
        let bytes = match hidden {
            true => vec![],
            false => token.content.clone().into_bytes(),
        };
        pieces.set(
            *id,
            Piece {
                bytes,
                marked: false,
            },
        );
    }
    Ok(Parts {
        model,
        specials,
        manner,
        pieces,
    })
}

fn spelling(json: &Value) -> Option<Spelling> {
    let decoders = nodes(&json["decoder"], "decoders");
    let word_marks = |node: &&Value| {
        node["type"] == "Metaspace"
            || (node["type"] == "Replace" && node["pattern"]["String"] == WORD_MARK)
    };
    if decoders.iter().any(|d| d["type"] == "ByteLevel") {
        Some(Spelling::ByteLevel)
    } else if decoders.iter().any(word_marks) {
        Some(Spelling::WordMarks)
    } else {
        None
    }
}

/// Whether encoding prepends a space to every text, which decoding then drops.
fn adds_prefix(json: &Value) -> bool {
    let normalizers = nodes(&json["normalizer"], "normalizers");
    let pre_tokenizers = nodes(&json["pre_tokenizer"], "pretokenizers");
    normalizers
        .iter()
        .any(|n| n["type"] == "Prepend" && n["prepend"] == WORD_MARK)
        || pre_tokenizers.iter().any(|p| match p["type"].as_str() {
            Some("ByteLevel") => p["add_prefix_space"] != false,
            Some("Metaspace") => p["prepend_scheme"] != "never" && p["add_prefix_space"] != false,
            _ => false,
        })
}

/// Adds the special tokens to the added tokens, with their white-space rule; missing ones get ids at the end.
fn add_specials(
    json: &mut Value,
    ids: &HashMap<String, u32>,
    add: Option<Roles>,
    manner: Manner,
) -> Result<(), TokenizerError> {
    let damaged = |reason: &str| TokenizerError::Json {
        reason: reason.to_owned(),
    };
    let mut added = match json.get_mut("added_tokens").map(Value::take) {
        Some(Value::Array(tokens)) => tokens,
        None | Some(Value::Null) => Vec::new(),
        Some(_) => return Err(damaged("`added_tokens` is not a list")),
    };
    let find = |added: &[Value], name: &str| {
        added
            .iter()
            .find(|t| t["content"] == name)
            .and_then(|t| t["id"].as_u64())
            .or(ids.get(name).map(|id| u64::from(*id)))
    };
    let mut next = ids
        .values()
        .map(|id| u64::from(*id))
        .chain(added.iter().filter_map(|t| t["id"].as_u64()))
        .map(|id| id.saturating_add(1))
        .max()
        .unwrap_or(0);
    let strips = manner.strips();
    for name in names_in_order(manner) {
        let id = match find(&added, name) {
            Some(id) => id,
            None if add.is_some_and(|roles| roles.added().contains(&name)) => {
                let id = next;
                next = next.saturating_add(1);
                id
            }
            None => continue,
        };
        added.retain(|t| t["content"] != name);
        added.push(
            json!({"id": id, "content": name, "single_word": false, "lstrip": strips, "rstrip": strips,
                          "normalized": false, "special": true}),
        );
    }
    added.sort_by_key(|t| t["id"].as_u64());
    json["added_tokens"] = Value::Array(added);
    Ok(())
}

/// All spellings of special tokens; those that may be added are in id order.
fn names_in_order(manner: Manner) -> impl Iterator<Item = &'static str> {
    let [bos, eos, unk] = manner.marks();
    [unk, bos, eos]
        .into_iter()
        .chain(Roles::Instruct.added().iter().copied())
}

fn resolve(model: &Tokenizer, manner: Manner) -> Result<SpecialTokens, TokenizerError> {
    let [bos, eos, unk] = manner.marks();
    let need = |name: &'static str| {
        model
            .token_to_id(name)
            .ok_or(TokenizerError::MissingSpecial { name })
    };
    Ok(SpecialTokens {
        bos: need(bos)?,
        eos: need(eos)?,
        unk: need(unk)?,
        pad: need(names::PAD)?,
        img: need(names::IMG)?,
        end_img: need(names::END_IMG)?,
        image: need(names::IMAGE)?,
        user: model.token_to_id(names::USER),
        assistant: model.token_to_id(names::ASSISTANT),
    })
}

impl Spelling {
    /// Decodes a vocabulary entry to bytes.
    pub(crate) fn piece(self, text: &str, drops_first_space: bool) -> Piece {
        let bytes: Vec<u8> = match self {
            Self::WordMarks => match byte_piece(text) {
                Some(byte) => {
                    return Piece {
                        bytes: vec![byte],
                        marked: false,
                    };
                }
                None => text.replace(WORD_MARK, " ").into_bytes(),
            },
            // characters outside the alphabet occur only in added tokens
            Self::ByteLevel => {
                let mut utf8 = [0; 4];
                text.chars()
                    .flat_map(|c| {
                        byte_of(c).map_or_else(
                            || c.encode_utf8(&mut utf8).as_bytes().to_vec(),
                            |b| vec![b],
                        )
                    })
                    .collect()
            }
        };
        let marked = drops_first_space && bytes.first() == Some(&b' ');
        Piece { bytes, marked }
    }
}

/// The byte of a byte-fallback piece such as `<0xE4>`.
fn byte_piece(text: &str) -> Option<u8> {
    let hex = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if hex.len() == 2 {
        u8::from_str_radix(hex, 16).ok()
    } else {
        None
    }
}

/// The byte encoded by a character of GPT-2's alphabet: printable Latin-1 characters encode themselves, the other 68 bytes
/// are mapped to U+0100 and up.
fn byte_of(c: char) -> Option<u8> {
    let printable = |b: &u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    match u32::from(c) {
        code @ 0..=0xff => Some(code as u8).filter(printable),
        code => (0..=u8::MAX)
            .filter(|b| !printable(b))
            .nth((code - 0x100) as usize),
    }
}
