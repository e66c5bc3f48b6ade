//! Attention of many queries on a GPU.

use burn::backend::Cube;
use burn::backend::tensor::{BoolTensor, FloatTensor};

use crate::ops::attention::AttentionBackend;
#[cfg(not(target_family = "wasm"))]
use crate::ops::attention::AttentionGradient;
use crate::spec::AttentionSpec;

// Named as its shader.
#[allow(clippy::module_inception)]
pub mod attention;
#[cfg(not(target_family = "wasm"))]
mod attention_backward;

use attention::{attention, words};
#[cfg(not(target_family = "wasm"))]
use attention_backward::{Known, attention_backward, masked};

impl AttentionBackend for Cube {
    fn emu_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        mask: BoolTensor<Self>,
        bias: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> FloatTensor<Self> {
        let mask = words(mask, spec);
        attention([q, k, v], mask, bias, spec, false).0
    }
}

#[cfg(not(target_family = "wasm"))]
impl AttentionGradient for Cube {
    fn emu_attention_saving(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        mask: BoolTensor<Self>,
        bias: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let mask = words(mask, spec);
        let (y, logsumexp) = attention([q, k, v], mask, bias, spec, true);
        let logsumexp = logsumexp.unwrap_or_else(|| y.clone());
        (y, logsumexp)
    }

    fn emu_attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        mask: BoolTensor<Self>,
        bias: FloatTensor<Self>,
        y: FloatTensor<Self>,
        logsumexp: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    ) {
        let masked_bias = { spec.bias && spec.mask }.then(|| masked(bias.clone(), mask.clone()));
        let known = Known {
            mask: words(mask, spec),
            bias,
            masked_bias,
            y,
            logsumexp: logsumexp.clone(),
            grad,
            qkv: [q, k, v],
        };
        let ([q, k, v], at_bias) = attention_backward(known, spec);
        (q, k, v, at_bias.unwrap_or(logsumexp))
    }
}

/// Keys of every variant.
#[cfg(test)]
pub fn check_all(checked: &mut super::tests::Checked) {
    attention::check_all(checked);
    attention_backward::check_all(checked);
}
