//! Reads sizes, tokenizer and chat template from GGUF metadata.

use emu_tokenizer::gguf::{GgufError, Metadata, entry, shown, text, vocabulary};
use emu_tokenizer::{Merging, Role, Vocabulary};
use serde_json::Value;

use super::chat::ChatMl;
use super::config::{TextConfig, keep_from_people};
use crate::config::LmConfig;

/// Larger sizes are invalid.
const MAX_SIZE: u64 = 1 << 24;
/// Names of end tokens that are used if a model has them.
const ENDS: [&str; 3] = ["<|im_end|>", "<|endoftext|>", "<|eot_id|>"];

/// Reads everything but the weights.
pub(super) fn read(metadata: &Metadata) -> Result<(TextConfig, Vocabulary), GgufError> {
    match text(metadata, "general.architecture")? {
        "llama" => {}
        other => return Err(GgufError::unsupported(format!("the architecture {other}"))),
    }
    let mut vocabulary = vocabulary(metadata)?;
    let lm = sizes(metadata, vocabulary.tokens.len())?;
    let id = |spelling: &str| {
        let found = vocabulary.tokens.iter().position(|t| t == spelling);
        found.and_then(|id| u32::try_from(id).ok())
    };

    // Default ids of SentencePiece, if the file has none.
    let spm = matches!(vocabulary.merging, Merging::Scores { .. });
    let token = |role: &str, usual: u32| match metadata.contains_key(&token_key(role)) {
        false if spm && (usual as usize) < lm.vocab => Ok(usual),
        _ => token(metadata, role, lm.vocab),
    };
    let mut ends = vec![token("eos", 2)?];
    let mut add = |end: u32| {
        if !ends.contains(&end) {
            ends.push(end);
        }
    };
    for role in ["eot", "eom"] {
        if metadata.contains_key(&token_key(role)) {
            add(token(role, u32::MAX)?);
        }
    }
    for end in ENDS.into_iter().filter_map(id) {
        if vocabulary.roles.get(end as usize) == Some(&Role::Mark) {
            add(end);
        }
    }
    let wanted = metadata
        .get("tokenizer.ggml.add_bos_token")
        .and_then(Value::as_bool);
    let has_bos = spm || metadata.contains_key(&token_key("bos"));
    let bos = match has_bos || wanted == Some(true) {
        true => Some(token("bos", 1)?),
        false => None,
    };
    let usually = match &vocabulary.merging {
        Merging::Scores { .. } => true,
        Merging::Ranks { splitting, .. } => splitting.begins_with_bos(),
    };
    let chat = match metadata.get("tokenizer.chat_template") {
        Some(Value::String(template)) => ChatMl::from_template(template, id),
        _ => None,
    };
    let config = TextConfig {
        bos,
        bos_in_prompts: bos.is_some() && wanted.unwrap_or(usually),
        position_factor: position_factor(metadata)?,
        lm,
        ends,
        chat,
    };
    keep_from_people(&mut vocabulary, &config);
    Ok((config, vocabulary))
}

fn sizes(metadata: &Metadata, vocab: usize) -> Result<LmConfig, GgufError> {
    let size = |key: &str| size(metadata, &format!("llama.{key}"));
    let or = |key: &str, default: usize| match metadata.contains_key(&format!("llama.{key}")) {
        true => size(key),
        false => Ok(default),
    };
    let unsupported = |what: String| Err(GgufError::unsupported(what));
    let (width, heads) = (size("embedding_length")?, size("attention.head_count")?);
    let own = match metadata.contains_key("llama.attention.key_length") {
        true => size("attention.key_length")?,
        false => match width / heads {
            size if size > 0 && width.is_multiple_of(heads) => size,
            _ => {
                let heads_in_width =
                    format!("is {heads}, which the width of {width} does not divide into");
                return Err(GgufError::entry(
                    "llama.attention.head_count",
                    heads_in_width,
                ));
            }
        },
    };
    let head_size = or("rope.dimension_count", own)?;
    let config = LmConfig {
        vocab,
        width,
        ffn: size("feed_forward_length")?,
        layers: size("block_count")?,
        heads,
        kv_heads: or("attention.head_count_kv", heads)?,
        head_size: own,
        context: size("context_length")?,
        rope_base: match metadata.get("llama.rope.freq_base") {
            Some(_) => within(metadata, "llama.rope.freq_base", 1.0, 1e12)?,
            None => 10_000.0,
        },
        norm_eps: within(
            metadata,
            "llama.attention.layer_norm_rms_epsilon",
            1e-30,
            1.0,
        )?,
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
    if or("expert_count", 1)? > 1 {
        return unsupported("a mixture of experts".into());
    }
    Ok(config)
}

/// Divisor of the positions: linear RoPE scaling.
fn position_factor(metadata: &Metadata) -> Result<f64, GgufError> {
    let kind = metadata.get("llama.rope.scaling.type");
    match kind.map(|kind| kind.as_str().unwrap_or_default()) {
        Some("none") => return Ok(1.0),
        // llama.cpp's default.
        None | Some("linear") => {}
        Some(kind) => {
            return Err(GgufError::unsupported(format!(
                "rotary positions scaled as {kind}"
            )));
        }
    }
    let keys = ["llama.rope.scaling.factor", "llama.rope.scale_linear"];
    let Some(key) = keys.into_iter().find(|key| metadata.contains_key(*key)) else {
        return Ok(1.0);
    };
    match entry(metadata, key)?.as_f64() {
        // No scaling, as in llama.cpp.
        Some(0.0) => Ok(1.0),
        _ => within(metadata, key, 1e-3, 1e6),
    }
}

/// A whole number from 1 to [`MAX_SIZE`].
fn size(metadata: &Metadata, key: &str) -> Result<usize, GgufError> {
    let value = entry(metadata, key)?;
    match value.as_u64() {
        Some(size @ 1..=MAX_SIZE) => Ok(size as usize),
        _ => Err(GgufError::entry(key, format!("is {}", shown(value)))),
    }
}

/// A number in the range.
fn within(metadata: &Metadata, key: &str, least: f64, most: f64) -> Result<f64, GgufError> {
    let value = entry(metadata, key)?;
    match value.as_f64() {
        Some(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(GgufError::entry(key, format!("is {}", shown(value)))),
    }
}

fn token_key(role: &str) -> String {
    format!("tokenizer.ggml.{role}_token_id")
}

/// Id of the token with this role.
fn token(metadata: &Metadata, role: &str, vocab: usize) -> Result<u32, GgufError> {
    let key = token_key(role);
    let value = entry(metadata, &key)?;
    match value.as_u64().and_then(|id| u32::try_from(id).ok()) {
        Some(id) if (id as usize) < vocab => Ok(id),
        _ => Err(GgufError::entry(&key, format!("is {}", shown(value)))),
    }
}

#[cfg(test)]
mod tests {
    use emu_tokenizer::Splitting;
    use serde_json::json;

    use super::*;

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
        assert_eq!((config.bos, config.ends), (Some(1), vec![2, 0]));
        assert!(!config.bos_in_prompts && config.chat.is_none());
        assert_eq!(config.position_factor, 1.0);
        let Merging::Ranks { splitting, .. } = vocabulary.merging else {
            panic!("ranks");
        };
        assert_eq!(splitting, Splitting::Digits);
    }

    fn with(entries: &[(&str, Value)]) -> Result<(TextConfig, Vocabulary), GgufError> {
        let mut metadata = metadata();
        for (key, value) in entries {
            match value {
                Value::Null => metadata.remove(*key),
                value => metadata.insert((*key).into(), value.clone()),
            };
        }
        read(&metadata)
    }

    #[test]
    fn the_first_token_is_needed_only_where_it_is_asked_for() {
        let bos = "tokenizer.ggml.bos_token_id";
        let add = "tokenizer.ggml.add_bos_token";
        let (config, _) = with(&[(bos, Value::Null)]).expect("a model");
        assert_eq!((config.bos, config.bos_in_prompts), (None, false));
        let (config, _) = with(&[(add, json!(true))]).expect("a model");
        assert_eq!((config.bos, config.bos_in_prompts), (Some(1), true));
        let error = with(&[(bos, Value::Null), (add, json!(true))]).expect_err("no token");
        assert!(error.to_string().contains(bos), "{error}");
        // LLaMA 3 prompts start with it unless the file says otherwise.
        let pre = ("tokenizer.ggml.pre", json!("llama-bpe"));
        let (config, _) = with(std::slice::from_ref(&pre)).expect("a model");
        assert!(config.bos_in_prompts);
        let (config, _) = with(&[pre.clone(), (add, json!(false))]).expect("a model");
        assert!(!config.bos_in_prompts);
        let (config, _) = with(&[pre, (bos, Value::Null)]).expect("a model");
        assert_eq!((config.bos, config.bos_in_prompts), (None, false));
    }

    #[test]
    fn sentencepiece_lists_are_read() {
        let spm = [
            ("tokenizer.ggml.model", json!("llama")),
            ("tokenizer.ggml.scores", json!([0, 0, 0, -1.5, -2, -3])),
            ("tokenizer.ggml.bos_token_id", Value::Null),
            ("tokenizer.ggml.eos_token_id", Value::Null),
            ("tokenizer.ggml.merges", Value::Null),
            ("tokenizer.ggml.pre", Value::Null),
        ];
        let (config, vocabulary) = with(&spm).expect("a model");
        assert_eq!((config.bos, config.bos_in_prompts), (Some(1), true));
        assert_eq!(config.ends.first(), Some(&2));
        let Merging::Scores {
            scores,
            space_first,
        } = vocabulary.merging
        else {
            panic!("scores");
        };
        assert!(space_first && scores[3] == -1.5);
        for wrong in [Value::Null, json!([0, "a"]), json!([null])] {
            let mut spm = spm.clone();
            spm[1].1 = wrong;
            let error = with(&spm).expect_err("no scores");
            assert!(error.to_string().contains("scores"), "{error}");
        }
    }

    #[test]
    fn heads_need_not_fill_the_width() {
        let entries = ["key_length", "value_length"].map(|key| format!("llama.attention.{key}"));
        let [key, value] = &entries;
        let (config, _) = with(&[(key, json!(16)), (value, json!(16))]).expect("a model");
        assert_eq!((config.lm.head_size, config.lm.heads), (16, 4));
        assert!(with(&[(key, json!(16)), (value, json!(8))]).is_err());
    }

    #[test]
    fn positions_are_scaled_linearly() {
        let factor = |entries: &[(&str, Value)]| with(entries).expect("a model").0.position_factor;
        let kind = "llama.rope.scaling.type";
        let four = ("llama.rope.scaling.factor", json!(4.0));
        assert_eq!(factor(&[(kind, json!("linear")), four.clone()]), 4.0);
        assert_eq!(factor(std::slice::from_ref(&four)), 4.0);
        assert_eq!(factor(&[("llama.rope.scale_linear", json!(2.0))]), 2.0);
        assert_eq!(factor(&[(kind, json!("none")), four]), 1.0);
        for wrong in [json!(-1.0), json!("a"), json!(1e9)] {
            assert!(with(&[("llama.rope.scaling.factor", wrong)]).is_err());
        }
    }

    #[test]
    fn what_is_not_covered_is_named() {
        for (key, value, words) in [
            ("general.architecture", json!("gemma"), "gemma"),
            ("general.architecture", json!(1), "general.architecture"),
            ("tokenizer.ggml.model", json!("bert"), "kind bert"),
            ("tokenizer.ggml.model", json!("llama"), "scores"),
            ("tokenizer.ggml.pre", json!("gpt-4o"), "gpt-4o"),
            ("tokenizer.ggml.pre", json!(3), "tokenizer.ggml.pre"),
            ("tokenizer.ggml.tokens", json!([1]), "list of texts"),
            ("tokenizer.ggml.tokens", json!([]), "is empty"),
            ("tokenizer.ggml.token_type", json!(1), "token_type"),
            ("tokenizer.ggml.bos_token_id", json!(6), "is 6"),
            ("tokenizer.ggml.eos_token_id", json!(-1), "is -1"),
            ("tokenizer.ggml.eot_token_id", json!(60), "is 60"),
            // More heads than width: their size would be 0.
            ("llama.attention.head_count", json!(64), "width of 32"),
            ("llama.attention.head_count", json!(5), "width of 32"),
            ("llama.attention.head_count", json!(0), "is 0"),
            ("llama.attention.key_length", json!(0), "is 0"),
            ("llama.rope.dimension_count", json!(0), "is 0"),
            (
                "llama.attention.layer_norm_rms_epsilon",
                json!(1e9),
                "epsilon",
            ),
            ("llama.rope.freq_base", json!(1e30), "freq_base"),
            ("llama.block_count", json!(0), "is 0"),
            ("llama.block_count", json!(1u64 << 40), "block_count"),
            ("llama.attention.head_count", json!([4, 4]), "no number"),
            ("llama.attention.head_count_kv", json!(3), "over 3 key"),
            ("llama.rope.dimension_count", json!(7), "rotary"),
            ("llama.attention.value_length", json!(16), "rotary"),
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
        let optional = [
            "head_count_kv",
            "freq_base",
            "pre",
            "token_type",
            "bos_token_id",
        ];
        for key in keys {
            let mut wrong = metadata();
            wrong.remove(&key);
            let needed = !optional.iter().any(|name| key.ends_with(name));
            assert_eq!(read(&wrong).is_err(), needed, "{key}");
        }
    }
}
