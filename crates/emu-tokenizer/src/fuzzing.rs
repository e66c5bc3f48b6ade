//! Body of the fuzz target: it accepts any bytes and must return.

use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::gguf;
use crate::{EmuTokenizer, PlainTokenizer, Roles, expand_pictures};

/// The first byte selects the kind of input: 0 a SentencePiece model, 1 a `tokenizer.json`, 255 the metadata of a GGUF
/// file as JSON, else a text.
pub fn tokenizer(data: &[u8]) {
    match data.split_first() {
        Some((0, file)) => {
            if let Ok(tokenizer) = EmuTokenizer::from_sentencepiece_bytes(file, Roles::Instruct) {
                round_trip(&tokenizer, "a [IMG]<image> [/IMG] \u{4f60}\n");
            }
        }
        Some((1, file)) => {
            for tokenizer in [
                EmuTokenizer::from_json_bytes(file),
                EmuTokenizer::from_base_json_bytes(file, Roles::Pretrain),
            ]
            .into_iter()
            .flatten()
            {
                round_trip(&tokenizer, "a [IMG]<image> [/IMG] \u{4f60}\n");
            }
        }
        Some((255, json)) => {
            let metadata = serde_json::from_slice(json).unwrap_or_default();
            let vocabulary = gguf::vocabulary(&metadata);
            if let Some(Ok(tokenizer)) = vocabulary.ok().map(PlainTokenizer::new) {
                round_trip_plain(
                    &tokenizer,
                    " a  b1234\r\n<whole> It's \u{4f60}\u{2581}<s>\n",
                );
            }
        }
        Some((pictures, text)) => {
            let text = String::from_utf8_lossy(text);
            let _ = expand_pictures(&text, usize::from(*pictures % 4), 3);
            round_trip(sample(), &text);
        }
        None => {}
    }
}

/// Encodes a text, then decodes it as a whole and token by token, which must agree.
fn round_trip(tokenizer: &EmuTokenizer, text: &str) {
    let Ok(ids) = tokenizer.encode(text) else {
        return;
    };
    let whole = tokenizer.decode(&ids, true);
    let mut stream = tokenizer.decode_stream();
    let parts: Result<Vec<String>, _> = ids.iter().map(|id| stream.push(*id)).collect();
    if let (Ok(whole), Ok(parts)) = (whole, parts) {
        assert_eq!(parts.concat() + &stream.finish(), whole);
    }
    let _ = tokenizer.decode(&ids, false);
    // User text never becomes special tokens, whatever it spells.
    if let Ok(ids) = tokenizer.encode_plain(text) {
        let specials = tokenizer.specials();
        let control = |id: &u32| *id != specials.unk && specials.contains(*id);
        assert!(!ids.iter().any(control), "{text:?}");
    }
}

/// As [`round_trip`], with the tokenizer of a text-only language model.
fn round_trip_plain(tokenizer: &PlainTokenizer, text: &str) {
    for ids in [tokenizer.encode(text), tokenizer.encode_marked(text)] {
        let Ok(ids) = ids else {
            continue;
        };
        let whole = tokenizer.decode(&ids);
        let mut stream = tokenizer.decode_stream();
        let parts: Result<Vec<String>, _> = ids.iter().map(|id| stream.push(*id)).collect();
        if let (Ok(whole), Ok(parts)) = (whole, parts) {
            assert_eq!(parts.concat() + &stream.finish(), whole);
        }
    }
}

/// A LLaMA-style tokenizer with few pieces.
fn sample() -> &'static EmuTokenizer {
    static SAMPLE: OnceLock<EmuTokenizer> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let words = ["\u{2581}", "a", "b", "\u{2581}a", "ab", "\u{2581}ab", "\u{e9}"];
        let pieces = ["<unk>", "<s>", "</s>"].map(str::to_owned).into_iter();
        let pieces = pieces.chain((0..=255).map(|byte| format!("<0x{byte:02X}>")));
        let pieces = pieces.chain(words.map(str::to_owned));
        let vocab: serde_json::Map<String, Value> =
            pieces.enumerate().map(|(id, piece)| (piece, json!(id))).collect();
        let json = json!({
            "version": "1.0",
            "added_tokens": [],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "\u{2581}"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
            ]},
            "decoder": {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
            "model": {
                "type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "vocab": vocab,
                "merges": [["\u{2581}", "a"], ["a", "b"], ["\u{2581}a", "b"], ["\u{2581}", "ab"]],
            },
        });
        let tokenizer = EmuTokenizer::from_base_json_bytes(json.to_string().as_bytes(), Roles::Instruct);
        tokenizer.expect("the sample is sound")
    })
}

#[cfg(test)]
#[path = "../../../fuzz/mutate.rs"]
mod mutate;

#[cfg(test)]
mod tests {
    use super::mutate::mutate;

    #[test]
    fn tokenizer() {
        mutate("tokenizer", 200, super::tokenizer);
    }
}
