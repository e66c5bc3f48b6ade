//! Inputs of generation from the goldens.

use burn::tensor::Tensor;
use emu_tokenizer::EmuTokenizer;

use super::core::Subject;

/// A model with its inputs for generation from texts.
#[derive(Clone, Copy)]
pub struct Generator<'a> {
    /// Networks, configuration, device.
    pub subject: Subject<'a>,
    /// Tokenizer.
    pub tokenizer: &'a EmuTokenizer,
    /// Visual embeddings of the goldens' images in order, `[B, Q, D]`.
    pub visual: &'a Tensor<3>,
}
