//! Validates a `tokenizer.json`. The `tokenizers` library trusts its files: it panics or exhausts memory on inconsistent
//! ones. Only components on the allow lists below are passed to it.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::TokenizerError;

/// Allowed normalizers.
const NORMALIZERS: [&str; 10] = [
    "Sequence",
    "Prepend",
    "Replace",
    "NFC",
    "NFD",
    "NFKC",
    "NFKD",
    "Lowercase",
    "Strip",
    "StripAccents",
];
/// Allowed pre-tokenizers.
const PRE_TOKENIZERS: [&str; 8] = [
    "Sequence",
    "ByteLevel",
    "Metaspace",
    "Digits",
    "Split",
    "Punctuation",
    "Whitespace",
    "WhitespaceSplit",
];
/// Allowed post-processors; only their effects that keep ids unchanged are used.
const POST_PROCESSORS: [&str; 3] = ["Sequence", "ByteLevel", "TemplateProcessing"];
/// Allowed decoders; only their type is used.
const DECODERS: [&str; 7] = [
    "Sequence",
    "ByteLevel",
    "Metaspace",
    "Replace",
    "ByteFallback",
    "Fuse",
    "Strip",
];
/// Maximum nodes per component; real files have less than ten.
const MAX_NODES: usize = 64;
/// Maximum factor by which all normalizers together may lengthen a text.
const MAX_GROWTH: usize = 1 << 12;
/// Maximum length of a pattern or a replacement, in bytes.
const MAX_PATTERN: usize = 4 << 10;

/// The nodes of a component, with a sequence expanded.
pub(crate) fn nodes<'a>(component: &'a Value, list: &str) -> Vec<&'a Value> {
    match component.get(list).and_then(Value::as_array) {
        Some(inner) => inner.iter().collect(),
        None => vec![component],
    }
}

fn unsupported(feature: String) -> TokenizerError {
    TokenizerError::Unsupported { feature }
}

fn damaged(reason: String) -> TokenizerError {
    TokenizerError::Json { reason }
}

/// Rejects files on which the library would fail without an error.
pub(crate) fn check(json: &Value, ids: &HashMap<String, u32>) -> Result<(), TokenizerError> {
    let normalizers = listed(json, "normalizer", "normalizers", &NORMALIZERS)?;
    let pre_tokenizers = listed(json, "pre_tokenizer", "pretokenizers", &PRE_TOKENIZERS)?;
    let processors = listed(json, "post_processor", "processors", &POST_PROCESSORS)?;
    listed(json, "decoder", "decoders", &DECODERS)?;
    patterns(normalizers.iter().chain(&pre_tokenizers))?;
    growth(&normalizers)?;
    processors.into_iter().try_for_each(template)?;
    model(&json["model"], ids)
}

/// All nodes of a component; an error if one is not on the allow list.
fn listed<'a>(
    json: &'a Value,
    component: &str,
    list: &str,
    kinds: &[&str],
) -> Result<Vec<&'a Value>, TokenizerError> {
    let mut open = match &json[component] {
        Value::Null => vec![],
        node => vec![node],
    };
    let mut found = Vec::new();
    while let Some(node) = open.pop() {
        let kind = node.get("type").and_then(Value::as_str);
        let Some(kind) = kind.filter(|kind| kinds.contains(kind)) else {
            let kind = kind.unwrap_or("without a type");
            let kind: String = kind.chars().take(40).collect();
            return Err(unsupported(format!("the {component} {kind}")));
        };
        if kind == "Sequence" {
            open.extend(nodes(node, list).into_iter().rev());
        }
        found.push(node);
        if found.len() + open.len() > MAX_NODES {
            return Err(unsupported(format!("more than {MAX_NODES} of {list}")));
        }
    }
    Ok(found)
}

/// Rejects overlong patterns and replacements.
fn patterns<'a>(nodes: impl Iterator<Item = &'a &'a Value>) -> Result<(), TokenizerError> {
    for node in nodes {
        let pattern = &node["pattern"];
        let texts = [
            &pattern["String"],
            &pattern["Regex"],
            &node["content"],
            &node["prepend"],
        ];
        if texts
            .into_iter()
            .any(|text| text.as_str().is_some_and(|t| t.len() > MAX_PATTERN))
        {
            return Err(unsupported("a pattern of thousands of characters".into()));
        }
    }
    Ok(())
}

/// Rejects normalizers that could lengthen a text too much.
fn growth(normalizers: &[&Value]) -> Result<(), TokenizerError> {
    let mut most = 1usize;
    for node in normalizers {
        let length = |key: &str| node[key].as_str().map_or(0, str::len);
        let times = match node["type"].as_str() {
            // An empty match inserts the replacement between any two bytes.
            Some("Replace") => match node["pattern"]["String"].as_str() {
                Some(pattern) => length("content").div_ceil(pattern.len().max(1)).max(1),
                None => 1 + length("content"),
            },
            Some("Prepend") => 1 + length("prepend") / 64,
            _ => 1,
        };
        most = most.saturating_mul(times);
    }
    match most > MAX_GROWTH {
        true => Err(unsupported(format!(
            "normalizers that make a text up to {most} times as long"
        ))),
        false => Ok(()),
    }
}

/// A template must use the text exactly once. The library would read a second text that is absent, and does not implement
/// chains of templates that give another number of pieces.
fn template(node: &Value) -> Result<(), TokenizerError> {
    if node["type"] != "TemplateProcessing" {
        return Ok(());
    }
    let pieces = node["single"].as_array().map_or(&[][..], Vec::as_slice);
    let mut texts = pieces.iter().filter_map(|piece| piece.get("Sequence"));
    match (texts.next(), texts.next()) {
        (Some(text), None) if text["id"] == "A" => Ok(()),
        _ => Err(damaged(
            "its template for one text does not take the text once".into(),
        )),
    }
}

fn model(model: &Value, ids: &HashMap<String, u32>) -> Result<(), TokenizerError> {
    for affix in ["continuing_subword_prefix", "end_of_word_suffix"] {
        match &model[affix] {
            Value::Null => {}
            Value::String(text) if text.is_empty() => {}
            _ => return Err(unsupported(format!("pieces with a {affix}"))),
        }
    }
    let mut seen = HashSet::with_capacity(ids.len());
    if let Some((piece, id)) = ids.iter().find(|(_, id)| !seen.insert(**id)) {
        return Err(damaged(format!(
            "{piece:?} has the id {id} of another piece"
        )));
    }
    let merges = match &model["merges"] {
        Value::Array(merges) => merges.as_slice(),
        _ => return Err(damaged("`model.merges` is not a list".into())),
    };
    for (rank, merge) in merges.iter().enumerate() {
        let pair = match merge {
            Value::String(text) if text.starts_with("#version") => continue,
            Value::String(text) => text.split_once(' '),
            Value::Array(pair) => match pair.as_slice() {
                [left, right] => left.as_str().zip(right.as_str()),
                _ => None,
            },
            _ => None,
        };
        let pair = pair.ok_or_else(|| damaged(format!("merge {rank} is no pair of pieces")))?;
        merge_fits(pair, |piece| ids.contains_key(piece)).map_err(|lacking| {
            damaged(format!("merge {rank} needs {lacking:?}, which is no piece"))
        })?;
    }
    Ok(())
}

/// Checks that both parts of a merge and its result are pieces; the error is the missing one. The library would panic on a
/// result longer than any piece.
pub(crate) fn merge_fits(
    (left, right): (&str, &str),
    is_piece: impl Fn(&str) -> bool,
) -> Result<(), String> {
    let made = format!("{left}{right}");
    let lacking = [left, right, &made]
        .into_iter()
        .find(|piece| !is_piece(piece));
    lacking.map_or(Ok(()), |piece| Err(piece.chars().take(40).collect()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::{EmuTokenizer, Roles, TokenizerError};

    /// A small valid byte-level tokenizer.
    fn sound() -> Value {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/fixtures/tokenizer/byte-level.json"
        );
        serde_json::from_slice(&std::fs::read(path).expect("the fixture")).expect("JSON")
    }

    /// Reads it with both constructors, and encodes with it if it is valid.
    fn read(json: &Value) -> Result<(), TokenizerError> {
        let bytes = json.to_string();
        let base = EmuTokenizer::from_base_json_bytes(bytes.as_bytes(), Roles::Instruct);
        let tokenizer = EmuTokenizer::from_json_bytes(bytes.as_bytes())?;
        for tokenizer in [tokenizer, base?] {
            for text in ["a b", " [IMG]  x<image>", "\u{4f60}\n"] {
                let ids = tokenizer.encode(text)?;
                tokenizer.decode(&ids, false)?;
            }
        }
        Ok(())
    }

    fn changed(change: impl FnOnce(&mut Value)) -> Result<(), TokenizerError> {
        let mut json = sound();
        change(&mut json);
        read(&json)
    }

    #[test]
    fn merges_beyond_every_piece_are_refused() {
        read(&sound()).expect("a sound file");
        // The first panicked in the library: its result is longer than any piece.
        for merge in [
            json!(["[ASSISTANT]", "[ASSISTANT]"]),
            json!("[ASSISTANT] [ASSISTANT]"),
            json!(["gone", "a"]),
            json!(["a"]),
            json!("ab"),
            json!(7),
        ] {
            let error = changed(|json| {
                let vocab = json["model"]["vocab"].as_object_mut().expect("pieces");
                let next = vocab.len();
                vocab.entry("[ASSISTANT]").or_insert(next.into());
                json["model"]["merges"]
                    .as_array_mut()
                    .expect("merges")
                    .push(merge.clone());
            });
            let error = error.expect_err("a wrong merge");
            assert_eq!(error.code(), "tokenizer-damaged", "{merge}: {error}");
        }
    }

    #[test]
    fn affixes_of_pieces_are_refused() {
        for affix in ["continuing_subword_prefix", "end_of_word_suffix"] {
            let error = changed(|json| json["model"][affix] = "longer than a piece".into());
            assert_eq!(error.expect_err(affix).code(), "tokenizer-unsupported");
            changed(|json| json["model"][affix] = "".into()).expect("none");
        }
    }

    #[test]
    fn ids_that_contradict_each_other_are_refused() {
        let token = |id: Value, content: &str| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        };
        for added in [
            token(u64::MAX.into(), "[NEW]"),
            token(u32::MAX.into(), "[NEW]"),
            token(5_000.into(), "[NEW]"),
            token(0.into(), "[NEW]"),
            token((-1).into(), "[NEW]"),
            token("3".into(), "[NEW]"),
        ] {
            let error = changed(|json| {
                json["added_tokens"]
                    .as_array_mut()
                    .expect("a list")
                    .push(added.clone());
            });
            let error = error.expect_err("a wrong id");
            assert_eq!(error.code(), "tokenizer-damaged", "{added}: {error}");
        }
        let twice = changed(|json| {
            let vocab = json["model"]["vocab"].as_object_mut().expect("pieces");
            let first = vocab.values().next().cloned().expect("a piece");
            vocab.insert("\u{101}\u{102}".into(), first);
        });
        assert_eq!(twice.expect_err("twice").code(), "tokenizer-damaged");
        // An added token without text is ignored.
        let empty = token(0.into(), "");
        changed(|json| {
            json["added_tokens"]
                .as_array_mut()
                .expect("a list")
                .push(empty)
        })
        .expect("ignored");
    }

    #[test]
    fn what_the_library_would_fail_on_is_refused() {
        let split = |pattern: Value| json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false});
        let template = |pieces: Value| json!({"type": "TemplateProcessing", "single": pieces, "pair": [], "special_tokens": {}});
        let text = json!({"Sequence": {"id": "A", "type_id": 0}});
        let second = json!({"Sequence": {"id": "B", "type_id": 0}});
        let long =
            json!({"type": "Replace", "pattern": {"String": "a"}, "content": "a".repeat(100)});
        let damaged = "tokenizer-damaged";
        let unsupported = "tokenizer-unsupported";
        for (component, value, code) in [
            (
                "normalizer",
                json!({"type": "Precompiled", "precompiled_charsmap": "AA=="}),
                unsupported,
            ),
            (
                "normalizer",
                json!({"type": "Sequence", "normalizers": [long, long, long]}),
                unsupported,
            ),
            ("normalizer", json!("NFC"), unsupported),
            (
                "normalizer",
                json!({"strip_left": true, "strip_right": true}),
                unsupported,
            ),
            (
                "pre_tokenizer",
                json!({"type": "FixedLength", "length": 0}),
                unsupported,
            ),
            ("pre_tokenizer", split(json!({"Regex": "("})), damaged),
            (
                "pre_tokenizer",
                split(json!({"Regex": "a".repeat(5000)})),
                unsupported,
            ),
            ("pre_tokenizer", split(json!(3)), damaged),
            ("pre_tokenizer", json!([]), unsupported),
            ("post_processor", template(json!([second])), damaged),
            ("post_processor", template(json!([])), damaged),
            (
                "post_processor",
                template(json!([text, text, text])),
                damaged,
            ),
            (
                "post_processor",
                json!({"type": "BertProcessing"}),
                unsupported,
            ),
            (
                "decoder",
                json!({"type": "Sequence", "decoders": [{"type": "ByteLevel"}, {"type": "CTC"}]}),
                unsupported,
            ),
        ] {
            let error = changed(|json| json[component] = value.clone());
            let error = error.expect_err(component);
            assert_eq!(error.code(), code, "{component} {value}: {error}");
        }
        changed(|json| json["post_processor"] = template(json!([text]))).expect("a template");
        changed(|json| {
            json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
            split(json!({"Regex": "\\d"})), json!({"type": "ByteLevel", "add_prefix_space": true,
            "trim_offsets": true, "use_regex": false})]})
        })
        .expect("a sequence");
    }

    #[test]
    fn texts_are_neither_cut_nor_padded_by_the_file() {
        let plain = EmuTokenizer::from_json_bytes(sound().to_string().as_bytes()).expect("sound");
        let mut json = sound();
        json["truncation"] =
            json!({"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 5});
        json["padding"] = json!({"strategy": {"Fixed": 1u64 << 40}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"});
        let tokenizer = EmuTokenizer::from_json_bytes(json.to_string().as_bytes()).expect("sound");
        let ids = tokenizer.encode("a b a b").expect("ids");
        assert_eq!(ids, plain.encode("a b a b").expect("ids"));
    }

    #[test]
    fn files_of_other_kinds_are_named() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
        let page = b"<!DOCTYPE html><html><body>Sign in</body></html>";
        for (bytes, code) in [(&pointer[..], "lfs-pointer"), (page, "web-page")] {
            let json = EmuTokenizer::from_json_bytes(bytes).expect_err("no JSON");
            let model = EmuTokenizer::from_sentencepiece_bytes(bytes, Roles::Pretrain);
            assert_eq!(
                (json.code(), model.expect_err("no model").code()),
                (code, code)
            );
        }
    }
}
