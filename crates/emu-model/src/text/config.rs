//! Configuration of a language model, and the errors of loading it.

use emu_pack::{PackError, TensorSource};
use emu_tokenizer::gguf::GgufError;
use emu_tokenizer::{Role, TokenizerError, Vocabulary};

use super::chat::ChatMl;
use super::keys;
use crate::config::LmConfig;

/// Configuration of a language model, without weights and tokenizer.
#[derive(Clone, Debug, PartialEq)]
pub struct TextConfig {
    /// Sizes.
    pub lm: LmConfig,
    /// The begin-of-sequence token, if the model has one.
    pub bos: Option<u32>,
    /// Whether prompts start with it.
    pub bos_in_prompts: bool,
    /// Divisor of the positions, in models with linear RoPE scaling.
    pub position_factor: f64,
    /// End tokens, the usual one first.
    pub ends: Vec<u32>,
    /// Chat template; `None` for a model that is not tuned for conversations.
    pub chat: Option<ChatMl>,
}

/// Why a language model cannot be loaded or prompted.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// An invalid or unsupported GGUF file.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The model has no supported chat template.
    #[error(
        "This model has no chat template that is understood here. Take an instruction-tuned one whose template is ChatML."
    )]
    NoChat,
    /// An error of the tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// An error of the weights.
    #[error(transparent)]
    Pack(#[from] PackError),
}

impl TextError {
    /// Stable error code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Gguf(error) => error.code(),
            Self::NoChat => "text-no-chat",
            Self::Tokenizer(error) => error.code(),
            Self::Pack(error) => error.code(),
        }
    }
}

/// Makes turn and end tokens special, whatever type the file gives them. Some files list them as user-defined tokens
/// that are matched anywhere in text, so user text could forge turns.
pub(super) fn keep_from_people(vocabulary: &mut Vocabulary, config: &TextConfig) {
    let turns = config.chat.iter().flat_map(ChatMl::marks);
    for id in config.ends.iter().copied().chain(config.bos).chain(turns) {
        let at = id as usize;
        if vocabulary.roles.len() <= at {
            vocabulary.roles.resize(at + 1, Role::Text);
        }
        vocabulary.roles[at] = Role::Mark;
    }
}

/// Divisors of the rotary frequencies: LLaMA 3's factors times the linear RoPE scaling. Empty without either.
pub(super) fn rope_divisors<S: TensorSource + ?Sized>(
    source: &S,
    config: &TextConfig,
) -> Result<Vec<f64>, TextError> {
    let half = config.lm.head_size / 2;
    let factors = match source.info(keys::ROPE_FACTORS) {
        None if config.position_factor == 1.0 => return Ok(vec![]),
        None => vec![1.0; half],
        Some(_) => source.read(keys::ROPE_FACTORS)?.to_f32()?,
    };
    // As in llama.cpp, any finite factor other than 0 is accepted.
    let sound = |factor: &f32| factor.is_finite() && *factor != 0.0;
    if factors.len() != half || !factors.iter().all(sound) {
        let reason = format!("is not {half} numbers other than zero");
        return Err(GgufError::entry(keys::ROPE_FACTORS, reason).into());
    }
    let divisors = factors.into_iter().map(f64::from);
    Ok(divisors.map(|f| f * config.position_factor).collect())
}
