//! What is known of a language model beside its weights, and what can be wrong with it.

use emu_pack::{PackError, TensorSource};

use super::chat::ChatMl;
use super::keys;
use crate::config::LmConfig;
use crate::tokenizer::{Role, TokenizerError, Vocabulary};

/// Everything about a language model but its weights and its tokenizer.
#[derive(Clone, Debug, PartialEq)]
pub struct TextConfig {
    /// Sizes.
    pub lm: LmConfig,
    /// What a sequence begins with, in models that have such a token.
    pub bos: Option<u32>,
    /// Whether prompts begin with it.
    pub bos_in_prompts: bool,
    /// What positions are divided by, in models that were stretched to a longer context.
    pub position_factor: f64,
    /// Tokens that end an answer, the usual one first.
    pub ends: Vec<u32>,
    /// How turns are written; none where the model was not made for conversations.
    pub chat: Option<ChatMl>,
}

/// Why a language model cannot be loaded or asked.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// An entry of the file's metadata is absent or wrong.
    #[error("The model's metadata `{key}` {reason}. Take a complete file of the model.")]
    Metadata {
        /// The entry.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A model of another kind.
    #[error(
        "This model uses {what}, which is not supported. Take a model of the LLaMA family, as LLaMA 3 or SmolLM2."
    )]
    Unsupported {
        /// What it uses.
        what: String,
    },
    /// Not made for conversations.
    #[error(
        "This model has no chat template that is understood here. Take an instruction-tuned one whose template is ChatML."
    )]
    NoChat,
    /// Its tokenizer, or a text.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Its weights.
    #[error(transparent)]
    Pack(#[from] PackError),
}

impl TextError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Metadata { .. } => "text-metadata",
            Self::Unsupported { .. } => "text-unsupported",
            Self::NoChat => "text-no-chat",
            Self::Tokenizer(error) => error.code(),
            Self::Pack(error) => error.code(),
        }
    }
}

/// Makes marks of the tokens that begin and end turns, whatever the file calls them: some list them as text that is taken
/// whole wherever it is spelled, and people could write turns of others.
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

/// What the frequencies of the rotary embedding are divided by, none where it is 1: LLaMA 3's factors and a linear one.
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
    // As llama.cpp, which takes any number here: only what no division gives a number for is refused.
    let sound = |factor: &f32| factor.is_finite() && *factor != 0.0;
    if factors.len() != half || !factors.iter().all(sound) {
        return Err(TextError::Metadata {
            key: keys::ROPE_FACTORS.into(),
            reason: format!("is not {half} numbers other than zero"),
        });
    }
    let divisors = factors.into_iter().map(f64::from);
    Ok(divisors.map(|f| f * config.position_factor).collect())
}
