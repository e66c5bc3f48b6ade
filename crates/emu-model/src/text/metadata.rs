//! From the metadata of a GGUF file to sizes, tokenizer and template.

use serde_json::{Map, Value};

use super::{ChatMl, TextConfig, TextError};
use crate::config::LmConfig;
use crate::tokenizer::{Role, Splitting, Vocabulary};

/// Sizes beyond this are mistakes.
const MAX_SIZE: u64 = 1 << 24;
/// Spellings of tokens that end an answer, in whatever model has them.
const ENDS: [&str; 3] = ["<|im_end|>", "<|endoftext|>", "<|eot_id|>"];

type Metadata = Map<String, Value>;

/// Everything but the weights.
pub(super) fn read(metadata: &Metadata) -> Result<(TextConfig, Vocabulary), TextError> {
    let unsupported = |what: String| TextError::Unsupported { what };
    match text(metadata, "general.architecture")? {
        "llama" => {}
        other => return Err(unsupported(format!("the architecture {other}"))),
    }
    let vocabulary = vocabulary(metadata)?;
    let lm = sizes(metadata, vocabulary.tokens.len())?;
    let id = |spelling: &str| {
        let found = vocabulary.tokens.iter().position(|t| t == spelling);
        found.and_then(|id| u32::try_from(id).ok())
    };

    let mut ends = vec![token(metadata, "eos", lm.vocab)?];
    for end in ENDS.into_iter().filter_map(id) {
        let mark = vocabulary.roles.get(end as usize) == Some(&Role::Mark);
        if mark && !ends.contains(&end) {
            ends.push(end);
        }
    }
    let chat = match metadata.get("tokenizer.chat_template") {
        Some(Value::String(template)) => ChatMl::from_template(template, id),
        _ => None,
    };
    let config = TextConfig {
        bos: token(metadata, "bos", lm.vocab)?,
        bos_in_prompts: flag(metadata, "tokenizer.ggml.add_bos_token"),
        lm,
        ends,
        chat,
    };
    Ok((config, vocabulary))
}

fn sizes(metadata: &Metadata, vocab: usize) -> Result<LmConfig, TextError> {
    let size = |key: &str| size(metadata, &format!("llama.{key}"));
    let or = |key: &str, default: usize| match metadata.contains_key(&format!("llama.{key}")) {
        true => size(key),
        false => Ok(default),
    };
    let unsupported = |what: String| Err(TextError::Unsupported { what });
    let (width, heads) = (size("embedding_length")?, size("attention.head_count")?);
    let head_size = or("rope.dimension_count", width / heads)?;
    let config = LmConfig {
        vocab,
        width,
        ffn: size("feed_forward_length")?,
        layers: size("block_count")?,
        heads,
        kv_heads: or("attention.head_count_kv", heads)?,
        head_size: or("attention.key_length", head_size)?,
        context: size("context_length")?,
        rope_base: match metadata.get("llama.rope.freq_base") {
            Some(_) => positive(metadata, "llama.rope.freq_base")?,
            None => 10_000.0,
        },
        norm_eps: positive(metadata, "llama.attention.layer_norm_rms_epsilon")?,
        tied: false,
    };
    if !config.heads.is_multiple_of(config.kv_heads) {
        return unsupported(format!(
            "{heads} query heads over {} key heads",
            config.kv_heads
        ));
    }
    if !config.head_size.is_multiple_of(2)
        || head_size != config.head_size
        || or("attention.value_length", head_size)? != head_size
    {
        return unsupported("a rotary embedding of a part of each head".into());
    }
    match metadata
        .get("llama.rope.scaling.type")
        .and_then(Value::as_str)
    {
        None | Some("none") => {}
        Some(kind) => return unsupported(format!("rotary positions scaled as {kind}")),
    }
    if or("expert_count", 1)? > 1 {
        return unsupported("a mixture of experts".into());
    }
    Ok(config)
}

fn vocabulary(metadata: &Metadata) -> Result<Vocabulary, TextError> {
    let unsupported = |what: String| TextError::Unsupported { what };
    match text(metadata, "tokenizer.ggml.model")? {
        "gpt2" => {}
        other => return Err(unsupported(format!("a tokenizer of the kind {other}"))),
    }
    let splitting = match metadata.get("tokenizer.ggml.pre").and_then(Value::as_str) {
        // Those that llama.cpp cuts alike.
        Some("smollm" | "starcoder" | "refact" | "command-r" | "codeshell") => Splitting::Digits,
        None | Some("gpt-2") => Splitting::Gpt2,
        Some(other) => return Err(unsupported(format!("a tokenizer that cuts as {other}"))),
    };
    let tokens = texts(metadata, "tokenizer.ggml.tokens")?;
    if tokens.is_empty() {
        return Err(wrong("tokenizer.ggml.tokens", "is empty"));
    }
    let roles = match metadata.get("tokenizer.ggml.token_type") {
        None => Vec::new(),
        Some(Value::Array(types)) => types
            .iter()
            .map(|kind| match kind.as_u64() {
                // Unknown and control.
                Some(2 | 3) => Role::Mark,
                // Defined by the user.
                Some(4) => Role::Whole,
                _ => Role::Text,
            })
            .collect(),
        Some(_) => return Err(wrong("tokenizer.ggml.token_type", "is no list")),
    };
    Ok(Vocabulary {
        merges: texts(metadata, "tokenizer.ggml.merges")?,
        tokens,
        roles,
        splitting,
    })
}

fn wrong(key: &str, reason: impl Into<String>) -> TextError {
    TextError::Metadata {
        key: key.into(),
        reason: reason.into(),
    }
}

fn entry<'a>(metadata: &'a Metadata, key: &str) -> Result<&'a Value, TextError> {
    metadata.get(key).ok_or_else(|| wrong(key, "is missing"))
}

fn text<'a>(metadata: &'a Metadata, key: &str) -> Result<&'a str, TextError> {
    let value = entry(metadata, key)?;
    value.as_str().ok_or_else(|| wrong(key, "is no text"))
}

fn texts(metadata: &Metadata, key: &str) -> Result<Vec<String>, TextError> {
    let list = entry(metadata, key)?.as_array();
    let texts = list.and_then(|list| list.iter().map(|v| v.as_str().map(str::to_owned)).collect());
    texts.ok_or_else(|| wrong(key, "is no list of texts"))
}

/// A number from 1 on.
fn size(metadata: &Metadata, key: &str) -> Result<usize, TextError> {
    let value = entry(metadata, key)?;
    match value.as_u64() {
        Some(size @ 1..=MAX_SIZE) => Ok(size as usize),
        _ => Err(wrong(key, format!("is {}", shown(value)))),
    }
}

fn positive(metadata: &Metadata, key: &str) -> Result<f64, TextError> {
    let value = entry(metadata, key)?;
    match value.as_f64() {
        Some(number) if number > 0.0 => Ok(number),
        _ => Err(wrong(key, format!("is {}", shown(value)))),
    }
}

/// A value for people: long ones are not printed.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Object(_) | Value::String(_) => "no number".into(),
        other => other.to_string(),
    }
}

fn flag(metadata: &Metadata, key: &str) -> bool {
    metadata.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// The id of the token with this role.
fn token(metadata: &Metadata, role: &str, vocab: usize) -> Result<u32, TextError> {
    let key = format!("tokenizer.ggml.{role}_token_id");
    let value = entry(metadata, &key)?;
    match value.as_u64().and_then(|id| u32::try_from(id).ok()) {
        Some(id) if (id as usize) < vocab => Ok(id),
        _ => Err(wrong(&key, format!("is {}", shown(value)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metadata() -> Metadata {
        let value = json!({
            "general.architecture": "llama",
            "llama.block_count": 2, "llama.context_length": 64, "llama.embedding_length": 32,
            "llama.feed_forward_length": 48, "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2,
            "llama.rope.freq_base": 1e5, "llama.attention.layer_norm_rms_epsilon": 1e-5,
            "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm",
            "tokenizer.ggml.tokens": ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "ab"],
            "tokenizer.ggml.token_type": [3, 3, 3, 1, 1, 1], "tokenizer.ggml.merges": ["a b"],
            "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
        });
        value.as_object().cloned().expect("an object")
    }

    #[test]
    fn sizes_and_marks_are_read() {
        let (config, vocabulary) = read(&metadata()).expect("a model");
        let lm = &config.lm;
        assert_eq!((lm.vocab, lm.width, lm.layers, lm.head_size), (6, 32, 2, 8));
        assert_eq!((lm.heads, lm.kv_heads, lm.context), (4, 2, 64));
        assert_eq!((config.bos, config.ends), (1, vec![2, 0]));
        assert!(!config.bos_in_prompts && config.chat.is_none());
        assert_eq!(vocabulary.splitting, Splitting::Digits);
    }

    #[test]
    fn what_is_not_covered_is_named() {
        for (key, value, words) in [
            ("general.architecture", json!("gemma"), "gemma"),
            ("general.architecture", json!(1), "general.architecture"),
            ("tokenizer.ggml.model", json!("llama"), "kind llama"),
            ("tokenizer.ggml.pre", json!("llama-bpe"), "llama-bpe"),
            ("tokenizer.ggml.tokens", json!([1]), "list of texts"),
            ("tokenizer.ggml.tokens", json!([]), "is empty"),
            ("tokenizer.ggml.token_type", json!(1), "token_type"),
            ("tokenizer.ggml.bos_token_id", json!(6), "is 6"),
            ("tokenizer.ggml.eos_token_id", json!(-1), "is -1"),
            ("llama.block_count", json!(0), "is 0"),
            ("llama.block_count", json!(1u64 << 40), "block_count"),
            ("llama.attention.head_count", json!([4, 4]), "no number"),
            ("llama.attention.head_count_kv", json!(3), "over 3 key"),
            ("llama.rope.dimension_count", json!(7), "rotary"),
            ("llama.attention.key_length", json!(16), "rotary"),
            ("llama.rope.freq_base", json!(0), "freq_base"),
            ("llama.rope.scaling.type", json!("yarn"), "yarn"),
            ("llama.expert_count", json!(8), "experts"),
        ] {
            let mut wrong = metadata();
            wrong.insert(key.into(), value.clone());
            let message = read(&wrong).expect_err(key).to_string();
            assert!(message.contains(words), "{key} {value}: {message}");
        }
        let keys: Vec<String> = metadata().keys().cloned().collect();
        let optional = ["head_count_kv", "freq_base", "pre", "token_type"];
        for key in keys {
            let mut wrong = metadata();
            wrong.remove(&key);
            let needed = !optional.iter().any(|name| key.ends_with(name));
            assert_eq!(read(&wrong).is_err(), needed, "{key}");
        }
    }
}
