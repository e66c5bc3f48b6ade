//! Attention of many queries on the CPU.

use burn::backend::Flex;
use burn::backend::tensor::{BoolTensor, FloatTensor};

use crate::ops::attention::AttentionBackend;
#[cfg(not(target_family = "wasm"))]
use crate::ops::attention::AttentionGradient;
use crate::spec::AttentionSpec;

// Named as its shader.
#[allow(clippy::module_inception)]
mod attention;
#[cfg(not(target_family = "wasm"))]
mod attention_backward;
mod heads;

use attention::attention;
#[cfg(not(target_family = "wasm"))]
use attention_backward::attention_backward;

impl AttentionBackend for Flex {
    fn emu_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        mask: BoolTensor<Self>,
        bias: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> FloatTensor<Self> {
        attention(q, k, v, mask, bias, spec, false).0
    }
}

#[cfg(not(target_family = "wasm"))]
impl AttentionGradient for Flex {
    fn emu_attention_saving(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        mask: BoolTensor<Self>,
        bias: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        attention(q, k, v, mask, bias, spec, true)
    }

    fn emu_attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        _hidden: BoolTensor<Self>,
        _bias: FloatTensor<Self>,
        _y: FloatTensor<Self>,
        saved: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    ) {
        attention_backward(q, k, v, saved, grad, spec)
    }
}
