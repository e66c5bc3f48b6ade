//! Tokenizers: text to token ids and back.
//!
//! | item | contents |
//! | --- | --- |
//! | [`EmuTokenizer`] | The tokenizer of a multimodal model, with Emu's special tokens; from a `tokenizer.json` or a SentencePiece model |
//! | [`PlainTokenizer`] | The tokenizer of a text-only language model; from a [`Vocabulary`] |
//! | [`gguf`] | Metadata of a GGUF file: checked access, and the vocabulary in it |
//! | [`english`] | Words that generated texts share |
//! | [`PromptText`] | A prompt of template text, user text and pictures. User text never becomes special tokens |
//! | [`StopStream`] | A generated text, cut at the first stop string |
//!
//! Bytes and texts go in, ids come out: no module here touches files, the network, clocks, threads or JavaScript, and none
//! needs Burn. Files are checked before the `tokenizers` library sees them.

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_macros,
        clippy::disallowed_methods,
        clippy::disallowed_types
    )
)]

mod build;
mod check;
pub mod english;
mod error;
mod export;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod gguf;
mod limits;
mod multimodal;
mod pieces;
mod plain;
mod prompt;
mod protobuf;
mod sentencepiece;
mod special;
mod splitting;
mod stop;

#[cfg(test)]
mod tests;

pub use error::TokenizerError;
pub use limits::{MAX_FILE_BYTES, MAX_TEXT_BYTES};
pub use multimodal::{EmuTokenizer, Padded, Side};
pub use pieces::DecodeStream;
pub use plain::{Merging, PlainTokenizer, Role, Vocabulary};
pub use prompt::{
    IMAGE_MARK, PromptText, RELEASED_MARK, Span, expand_pictures, instruct_prompt, picture_block,
};
pub use special::{Roles, SpecialTokens, names};
pub use splitting::Splitting;
pub use stop::{Delivered, StopStream};
