//! Errors of tokenizer files, texts and prompts.

use emu_pack::{FileKind, WrongKind};

/// An error of the tokenizer, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The file is longer than any real tokenizer.
    #[error(
        "The tokenizer file has {bytes} bytes, which is over the limit of {max_bytes}. Check that it is the right file."
    )]
    FileTooLarge {
        /// Length of the file.
        bytes: usize,
        /// The limit in force.
        max_bytes: usize,
    },
    /// A file of another format.
    #[error("The tokenizer file {kind}.")]
    WrongFile {
        /// The detected format.
        kind: WrongKind,
    },
    /// Not a `tokenizer.json`.
    #[error("The tokenizer.json cannot be read: {reason}. Use the file that came with the model.")]
    Json {
        /// What is wrong, and where.
        reason: String,
    },
    /// Not a SentencePiece model.
    #[error(
        "The SentencePiece model cannot be read: {reason}. Use the tokenizer.model that came with the weights."
    )]
    SentencePiece {
        /// What is wrong, and where.
        reason: String,
    },
    /// A valid file with an unsupported feature.
    #[error(
        "This tokenizer uses {feature}, which is not supported. Convert it to a BPE tokenizer.json as LLaMA's or GPT-2's."
    )]
    Unsupported {
        /// The unsupported feature.
        feature: String,
    },
    /// A special token is missing.
    #[error(
        "The tokenizer lacks the special token {name}. Use the tokenizer that came with the Emu weights."
    )]
    MissingSpecial {
        /// Its spelling.
        name: &'static str,
    },
    /// The `tokenizers` library returned an error.
    #[error("The tokenizer failed: {reason}. Use the tokenizer file that came with the model.")]
    Model {
        /// The library's message.
        reason: String,
    },
    /// The text is longer than allowed.
    #[error(
        "The text has {bytes} bytes, which is over the limit of {max_bytes}. Shorten it or encode it in parts."
    )]
    TextTooLong {
        /// Length of the text.
        bytes: usize,
        /// The limit in force.
        max_bytes: usize,
    },
    /// An id outside the vocabulary.
    #[error(
        "Token {id} is not in the vocabulary of {size} tokens. Use the tokenizer that belongs to the model."
    )]
    UnknownId {
        /// The id.
        id: u32,
        /// Number of ids.
        size: usize,
    },
    /// The number of picture marks differs from the number of pictures.
    #[error(
        "The prompt has {marks} picture marks, but {pictures} pictures were given. Write one <image> for each picture, or none to put the pictures first."
    )]
    MarksMismatch {
        /// Marks in the prompt.
        marks: usize,
        /// Pictures given.
        pictures: usize,
    },
    /// A picture block spelled out in the prompt has the wrong length.
    #[error(
        "A picture block in the prompt holds {found} <image> tokens, but this model takes {expected}. Write a single <image> mark instead."
    )]
    BlockLength {
        /// `<image>` tokens in the block.
        found: usize,
        /// Tokens per picture.
        expected: usize,
    },
    /// The prompt exceeds the context length.
    #[error(
        "The prompt has {tokens} tokens, but the context holds {context}. Shorten the text or use fewer pictures."
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// The model's context length.
        context: usize,
    },
}

impl TokenizerError {
    /// Rejects a file of a known kind that is not in `wanted`.
    pub(crate) fn refuse_others(bytes: &[u8], wanted: &[FileKind]) -> Result<(), Self> {
        match FileKind::of(bytes) {
            FileKind::Unknown => Ok(()),
            kind if wanted.contains(&kind) => Ok(()),
            kind => Err(Self::WrongFile {
                kind: kind.refused(),
            }),
        }
    }

    /// A short error code that is stable between versions.
    pub fn code(&self) -> &'static str {
        match self {
            Self::FileTooLarge { .. } => "tokenizer-too-large",
            Self::WrongFile { kind } => kind.code(),
            Self::Json { .. } | Self::SentencePiece { .. } => "tokenizer-damaged",
            Self::Unsupported { .. } => "tokenizer-unsupported",
            Self::MissingSpecial { .. } => "tokenizer-special",
            Self::Model { .. } => "tokenizer-failed",
            Self::TextTooLong { .. } => "text-too-long",
            Self::UnknownId { .. } => "token-unknown",
            Self::MarksMismatch { .. } => "prompt-pictures",
            Self::BlockLength { .. } => "prompt-block",
            Self::PromptTooLong { .. } => "prompt-too-long",
        }
    }
}
