//! Metadata of GGUF files: checked access to entries, and the vocabulary in them.

use serde_json::{Map, Value};

use crate::plain::{Merging, Role, Vocabulary};
use crate::splitting::Splitting;

/// The metadata of a GGUF file.
pub type Metadata = Map<String, Value>;

/// Why the metadata of a GGUF file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GgufError {
    /// A metadata entry is missing or invalid.
    #[error("The model's metadata `{key}` {reason}. Take a complete file of the model.")]
    Metadata {
        /// Its key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An unsupported kind of model.
    #[error(
        "This model uses {what}, which is not supported. Take a model of the LLaMA family, as LLaMA 3 or SmolLM2."
    )]
    Unsupported {
        /// The unsupported feature.
        what: String,
    },
}

impl GgufError {
    /// An entry that is missing or invalid for this reason.
    pub fn entry(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Metadata {
            key: key.into(),
            reason: reason.into(),
        }
    }

    /// A model that needs this unsupported feature.
    pub fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into() }
    }

    /// Stable error code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Metadata { .. } => "text-metadata",
            Self::Unsupported { .. } => "text-unsupported",
        }
    }
}

/// An entry that must exist.
///
/// # Errors
/// If it is missing.
pub fn entry<'a>(metadata: &'a Metadata, key: &str) -> Result<&'a Value, GgufError> {
    metadata
        .get(key)
        .ok_or_else(|| GgufError::entry(key, "is missing"))
}

/// A text that must exist.
///
/// # Errors
/// If it is missing or no text.
pub fn text<'a>(metadata: &'a Metadata, key: &str) -> Result<&'a str, GgufError> {
    let value = entry(metadata, key)?;
    value
        .as_str()
        .ok_or_else(|| GgufError::entry(key, "is no text"))
}

/// A value for an error message; long ones are not printed.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Object(_) | Value::String(_) => "no number".into(),
        other => other.to_string(),
    }
}

/// Reads the vocabulary of a file.
///
/// # Errors
/// If an entry is missing or invalid, or the tokenizer is of an unsupported kind.
pub fn vocabulary(metadata: &Metadata) -> Result<Vocabulary, GgufError> {
    let tokens = texts(metadata, "tokenizer.ggml.tokens")?;
    if tokens.is_empty() {
        return Err(GgufError::entry("tokenizer.ggml.tokens", "is empty"));
    }
    let roles = match metadata.get("tokenizer.ggml.token_type") {
        None => Vec::new(),
        Some(Value::Array(types)) => types
            .iter()
            .map(|kind| match kind.as_u64() {
                // Unknown and control tokens.
                Some(2 | 3) => Role::Mark,
                // User-defined tokens.
                Some(4) => Role::Whole,
                _ => Role::Text,
            })
            .collect(),
        Some(_) => {
            return Err(GgufError::entry("tokenizer.ggml.token_type", "is no list"));
        }
    };
    let merging = match text(metadata, "tokenizer.ggml.model")? {
        "gpt2" => {
            let name = match metadata.get("tokenizer.ggml.pre") {
                // llama.cpp's default.
                None => "default",
                Some(_) => text(metadata, "tokenizer.ggml.pre")?,
            };
            let splitting = Splitting::by_name(name).ok_or_else(|| {
                GgufError::unsupported(format!("a tokenizer that cuts as {name}"))
            })?;
            Merging::Ranks {
                merges: texts(metadata, "tokenizer.ggml.merges")?,
                splitting,
            }
        }
        "llama" => Merging::Scores {
            scores: scores(metadata, "tokenizer.ggml.scores")?,
            space_first: flag(metadata, "tokenizer.ggml.add_space_prefix", true)?,
        },
        other => {
            return Err(GgufError::unsupported(format!(
                "a tokenizer of the kind {other}"
            )));
        }
    };
    Ok(Vocabulary {
        tokens,
        roles,
        merging,
    })
}

fn texts(metadata: &Metadata, key: &str) -> Result<Vec<String>, GgufError> {
    let list = entry(metadata, key)?.as_array();
    let texts = list.and_then(|list| list.iter().map(|v| v.as_str().map(str::to_owned)).collect());
    texts.ok_or_else(|| GgufError::entry(key, "is no list of texts"))
}

/// A list of numbers.
fn scores(metadata: &Metadata, key: &str) -> Result<Vec<f32>, GgufError> {
    let list = entry(metadata, key)?.as_array();
    let number = |value: &Value| value.as_f64().map(|number| number as f32);
    list.and_then(|list| list.iter().map(number).collect())
        .ok_or_else(|| GgufError::entry(key, "is no list of numbers"))
}

fn flag(metadata: &Metadata, key: &str, usual: bool) -> Result<bool, GgufError> {
    match metadata.get(key) {
        None => Ok(usual),
        Some(value) => value
            .as_bool()
            .ok_or_else(|| GgufError::entry(key, format!("is {}", shown(value)))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ranks() -> Metadata {
        let value = json!({
            "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm",
            "tokenizer.ggml.tokens": ["<|endoftext|>", "<s>", "a", "b", "ab"],
            "tokenizer.ggml.token_type": [3, 4, 1, 1], "tokenizer.ggml.merges": ["a b"],
        });
        value.as_object().cloned().expect("an object")
    }

    fn pieces() -> Metadata {
        let value = json!({
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": ["<unk>", "<s>", "a"],
            "tokenizer.ggml.scores": [0, 0, -1.5],
        });
        value.as_object().cloned().expect("an object")
    }

    fn with(mut metadata: Metadata, key: &str, value: Value) -> Result<Vocabulary, GgufError> {
        match value {
            Value::Null => metadata.remove(key),
            value => metadata.insert(key.into(), value),
        };
        vocabulary(&metadata)
    }

    #[test]
    fn byte_level_lists_are_read() {
        let read = vocabulary(&ranks()).expect("a vocabulary");
        assert_eq!(read.tokens.len(), 5);
        let roles = [Role::Mark, Role::Whole, Role::Text, Role::Text];
        assert_eq!(read.roles, roles);
        let Merging::Ranks { merges, splitting } = read.merging else {
            panic!("ranks");
        };
        assert_eq!(
            (merges, splitting),
            (vec!["a b".to_owned()], Splitting::Digits)
        );

        let unnamed = with(ranks(), "tokenizer.ggml.pre", Value::Null).expect("a vocabulary");
        let Merging::Ranks { splitting, .. } = unnamed.merging else {
            panic!("ranks");
        };
        assert_eq!(splitting, Splitting::Default);
    }

    #[test]
    fn sentencepiece_lists_are_read() {
        for (flag, expected) in [
            (Value::Null, true),
            (json!(true), true),
            (json!(false), false),
        ] {
            let read = with(pieces(), "tokenizer.ggml.add_space_prefix", flag);
            let Merging::Scores {
                scores,
                space_first,
            } = read.expect("a vocabulary").merging
            else {
                panic!("scores");
            };
            assert_eq!((scores, space_first), (vec![0.0, 0.0, -1.5], expected));
        }
    }

    #[test]
    fn what_is_not_covered_is_named() {
        for (metadata, key, value, words) in [
            (ranks(), "model", json!("bert"), "kind bert"),
            (ranks(), "model", json!("llama"), "scores"),
            (ranks(), "model", json!(1), "is no text"),
            (ranks(), "model", Value::Null, "is missing"),
            (ranks(), "pre", json!("gpt-4o"), "gpt-4o"),
            (ranks(), "pre", json!(3), "tokenizer.ggml.pre"),
            (ranks(), "tokens", json!([1]), "list of texts"),
            (ranks(), "tokens", json!([]), "is empty"),
            (ranks(), "token_type", json!(1), "token_type"),
            (ranks(), "merges", Value::Null, "merges"),
            (pieces(), "scores", Value::Null, "scores"),
            (pieces(), "scores", json!([0, "a"]), "list of numbers"),
            (pieces(), "scores", json!([null]), "list of numbers"),
            (pieces(), "add_space_prefix", json!(2), "is 2"),
            (pieces(), "add_space_prefix", json!("x"), "no number"),
        ] {
            let error = with(metadata, &format!("tokenizer.ggml.{key}"), value).expect_err(key);
            assert!(error.to_string().contains(words), "{key}: {error}");
        }
    }
}
