//! Attention of many queries.

use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::backend::{Backend, backend_extension};

use crate::spec::AttentionSpec;

/// Attention. Shapes as in [`crate::ops::attention`]; masks and biases may have 1 where they repeat.
#[cfg_attr(not(target_family = "wasm"), backend_extension(Cube, Flex, Autodiff))]
#[cfg_attr(all(target_family = "wasm", feature = "wgpu"), backend_extension(Cube))]
#[cfg_attr(all(target_family = "wasm", feature = "flex"), backend_extension(Flex))]
pub trait AttentionBackend: Backend {
    /// `softmax(q kᵀ · scale + bias) v`: `[B, H, T, E]`, `[B, G, S, E]` twice, to `[B, H, T, E]`.
    fn emu_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        hidden: BoolTensor<Self>,
        bias: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> FloatTensor<Self>;
}

/// Its backward pass.
#[cfg(not(target_family = "wasm"))]
pub trait AttentionGradient: AttentionBackend {
    /// The result, and what the backward pass needs of it: the probabilities `[B, H, T, S]`, or what a backend keeps in
    /// their place.
    fn emu_attention_keeping(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        hidden: BoolTensor<Self>,
        bias: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The gradients at q, k and v, and where the spec wants it that at the scores, `[B, H, T, S]` or already summed where
    /// the bias has 1. `y` is the result, `kept` what [`AttentionGradient::emu_attention_keeping`] gave beside it.
    #[allow(clippy::too_many_arguments)]
    fn emu_attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        hidden: BoolTensor<Self>,
        bias: FloatTensor<Self>,
        y: FloatTensor<Self>,
        kept: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    );
}
