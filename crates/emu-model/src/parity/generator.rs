//! A model that generates from the texts and pictures of the goldens.

use burn::tensor::Tensor;

use super::core::Subject;
use crate::tokenizer::EmuTokenizer;

/// A model with what it needs to generate from texts.
#[derive(Clone, Copy)]
pub struct Generator<'a> {
    /// Networks, sizes, device.
    pub subject: Subject<'a>,
    /// Texts to ids and back.
    pub tokenizer: &'a EmuTokenizer,
    /// `[B, Q, D]`, of the goldens' pictures in order.
    pub visual: &'a Tensor<3>,
}
