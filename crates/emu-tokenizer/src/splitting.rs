//! Pre-tokenization: splitting of texts before BPE merges, by llama.cpp's names.

use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;

use crate::TokenizerError;

/// LLaMA 3: digits in groups of up to three.
const LLAMA3: &str = concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])",
    r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// Qwen 2: like LLaMA 3, but every digit by itself.
const QWEN2: &str = concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])",
    r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// Mistral NeMo: words also end where a capital follows small letters.
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?(?:(?=\p{L})[^a-z])*(?:(?=\p{L})[^A-Z])+",
    r"|[^\r\n\p{L}\p{N}]?(?:(?=\p{L})[^a-z])+(?:(?=\p{L})[^A-Z])*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// GPT-2: words, numbers and white space, as in [`ByteLevel`].
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Punctuation; applied before [`GPT2`] in [`Splitting::Default`].
const PUNCTUATION: &str = r"[\p{P}$+<=>^~|]+";

/// The pre-tokenization: how a text is split before BPE merges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Splitting {
    /// GPT-2: at words, numbers and white space.
    Gpt2,
    /// GPT-2, and every digit by itself.
    Digits,
    /// llama.cpp's default for files without a name: punctuation separated, numbers in groups of three.
    Default,
    /// LLaMA 3.
    Llama3,
    /// Qwen 2.
    Qwen2,
    /// Mistral NeMo.
    Tekken,
}

impl Splitting {
    /// By its name in a GGUF file (`tokenizer.ggml.pre`).
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "gpt-2" | "phi-2" | "jina-es" | "jina-de" | "gigachat" | "mellum" => Self::Gpt2,
            "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" => Self::Digits,
            "default" => Self::Default,
            "llama3" | "llama-v3" | "llama-bpe" | "falcon3" => Self::Llama3,
            "qwen2" | "deepseek-r1-qwen" | "megrez" => Self::Qwen2,
            "tekken" => Self::Tekken,
            _ => return None,
        })
    }

    /// Whether a word that is a token is taken whole, without merges (`ignore_merges`).
    pub const fn takes_whole_words(self) -> bool {
        matches!(self, Self::Llama3 | Self::Tekken)
    }

    /// Whether prompts begin with BOS if the file does not say.
    pub const fn begins_with_bos(self) -> bool {
        matches!(self, Self::Llama3 | Self::Tekken)
    }

    /// The library's pre-tokenizer, which also maps bytes to GPT-2's alphabet.
    pub(crate) fn pre_tokenizer(self) -> Result<PreTokenizerWrapper, TokenizerError> {
        let at = |pattern: &str| {
            let pattern = SplitPattern::Regex(pattern.into());
            Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
                .map(PreTokenizerWrapper::from)
                .map_err(|e| TokenizerError::Model {
                    reason: e.to_string(),
                })
        };
        let words: PreTokenizerWrapper = ByteLevel::new(false, false, true).into();
        let bytes: PreTokenizerWrapper = ByteLevel::new(false, false, false).into();
        Ok(match self {
            Self::Gpt2 => words,
            Self::Digits => Sequence::new(vec![Digits::new(true).into(), words]).into(),
            Self::Default => Sequence::new(vec![
                at(PUNCTUATION)?,
                at(GPT2)?,
                at(r"\p{N}+")?,
                at("[0-9][0-9][0-9]")?,
                bytes,
            ])
            .into(),
            Self::Llama3 => Sequence::new(vec![at(LLAMA3)?, bytes]).into(),
            Self::Qwen2 => Sequence::new(vec![at(QWEN2)?, bytes]).into(),
            Self::Tekken => Sequence::new(vec![at(TEKKEN)?, bytes]).into(),
        })
    }
}
