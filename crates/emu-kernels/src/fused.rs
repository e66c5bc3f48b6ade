//! Operations of transformers below the tensor: attention and gates with backward passes of their own.
//!
//! As in [`crate::backend`]: every method has a default of Burn's operations, Flex has its own in [`crate::cpu`].

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "wgpu")]
use burn::backend::ops::BoolTensorOps;
use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::backend::{Backend, TensorMetadata, backend_extension};
#[cfg(feature = "wgpu")]
use burn::tensor::IntDType;
use burn::tensor::{Device, Shape};

#[cfg(feature = "flex")]
use crate::cpu;

#[cfg(not(target_family = "wasm"))]
mod autodiff;

/// What attention does to its scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Query `t` of the last T positions sees keys up to its own position.
    pub causal: bool,
    /// Factor of the scores.
    pub scale: f64,
    /// Keys that count, from the first on: all, except that [a GPU's kernel](on_gpu) takes buffers with room for more.
    pub seen: usize,
    /// Whether the tensor `hidden` counts; where not, it is a placeholder.
    pub hidden: bool,
    /// Whether the tensor `bias` counts; where not, it is a placeholder.
    pub bias: bool,
    /// Whether the backward pass returns the gradient at the scores, for a bias that learns.
    pub score_gradient: bool,
}

/// The extension of Burn's backends. Shapes as in [`crate::ops`]; masks and biases may have 1 where they repeat.
#[allow(missing_docs)]
#[cfg_attr(not(target_family = "wasm"), backend_extension(Cube, Flex, Autodiff))]
#[cfg_attr(all(target_family = "wasm", feature = "wgpu"), backend_extension(Cube))]
#[cfg_attr(all(target_family = "wasm", feature = "flex"), backend_extension(Flex))]
pub trait FusedBackend: Backend {
    fn emu_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        hidden: BoolTensor<Self>,
        bias: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> FloatTensor<Self> {
        let probabilities = composed::probabilities::<Self>(q, k, hidden, bias, spec);
        Self::float_matmul(probabilities, v)
    }

    /// The result, and what the backward pass needs of it: the probabilities `[B, H, T, S]`, or what a backend keeps in
    /// their place.
    fn emu_attention_keeping(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        hidden: BoolTensor<Self>,
        bias: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let probabilities = composed::probabilities::<Self>(q, k, hidden, bias, spec);
        (Self::float_matmul(probabilities.clone(), v), probabilities)
    }

    /// The gradients at q, k and v, and where the spec wants it that at the scores, `[B, H, T, S]` or already summed where
    /// the bias has 1. `y` is the result, `kept` what [`FusedBackend::emu_attention_keeping`] gave beside it.
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
    ) {
        let _ = (hidden, bias, y);
        composed::attention_backward::<Self>(q, k, v, kept, grad, spec)
    }

    /// Layer norm over the last axis of `[B, T, D]`.
    fn emu_layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        Self::layer_norm(x, weight, Some(bias), eps)
    }

    fn emu_silu_gate(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let s = Self::sigmoid(gate.clone());
        Self::float_mul(Self::float_mul(gate, s), up)
    }

    /// The gradients at gate and up.
    fn emu_silu_gate_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::silu_gate_backward::<Self>(gate, up, grad)
    }

    fn emu_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::gelu(x)
    }

    fn emu_gelu_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::gelu_backward(x, grad)
    }
}

/// Whether a kernel computes attention of heads of this size on this device: in one launch, with keys and values that
/// query heads share, from buffers that may be longer.
pub fn on_gpu(device: &Device, head_size: usize) -> bool {
    let _ = head_size;
    #[cfg(feature = "wgpu")]
    if !crate::ops::on_cpu(device) && !device.is_autodiff() {
        return crate::gpu::attention::fits(head_size);
    }
    let _ = device;
    false
}

/// Whether a kernel computes the backward pass of attention of heads of this size: with keys and values that query heads
/// share.
pub fn learns_on_gpu(device: &Device, head_size: usize) -> bool {
    let _ = head_size;
    #[cfg(all(feature = "wgpu", not(target_family = "wasm")))]
    if !crate::ops::on_cpu(device) && device.is_autodiff() {
        return crate::gpu::attention_backward::fits(head_size);
    }
    let _ = device;
    false
}

/// A mask as the kernels read it.
#[cfg(feature = "wgpu")]
fn words(
    hidden: BoolTensor<burn::backend::Cube>,
    spec: AttentionSpec,
) -> BoolTensor<burn::backend::Cube> {
    type Ops = burn::backend::Cube;
    match crate::gpu::attention::reads(&hidden, spec) {
        true => hidden,
        false => <Ops as BoolTensorOps<Ops>>::bool_into_int(hidden, IntDType::I32),
    }
}

#[cfg(feature = "wgpu")]
impl FusedBackend for burn::backend::Cube {
    fn emu_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        hidden: BoolTensor<Self>,
        bias: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> FloatTensor<Self> {
        let hidden = words(hidden, spec);
        crate::gpu::attention::attention([q, k, v], hidden, bias, spec, false).0
    }

    #[cfg(not(target_family = "wasm"))]
    fn emu_attention_keeping(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        hidden: BoolTensor<Self>,
        bias: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let hidden = words(hidden, spec);
        let (y, kept) = crate::gpu::attention::attention([q, k, v], hidden, bias, spec, true);
        let kept = kept.unwrap_or_else(|| y.clone());
        (y, kept)
    }

    #[cfg(not(target_family = "wasm"))]
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
    ) {
        let masked_bias = { spec.bias && spec.hidden }
            .then(|| crate::gpu::attention_backward::masked(bias.clone(), hidden.clone()));
        let known = crate::gpu::attention_backward::Known {
            hidden: words(hidden, spec),
            bias,
            masked_bias,
            y,
            kept: kept.clone(),
            grad,
            qkv: [q, k, v],
        };
        let ([q, k, v], at_bias) = crate::gpu::attention_backward::backward(known, spec);
        (q, k, v, at_bias.unwrap_or(kept))
    }

    fn emu_layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        crate::gpu::norm::layer_norm(x, weight, bias, eps)
    }
}

#[cfg(feature = "flex")]
impl FusedBackend for Flex {
    fn emu_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        hidden: BoolTensor<Self>,
        bias: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> FloatTensor<Self> {
        cpu::attention::forward(q, k, v, hidden, bias, spec, false).0
    }

    fn emu_attention_keeping(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        hidden: BoolTensor<Self>,
        bias: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        cpu::attention::forward(q, k, v, hidden, bias, spec, true)
    }

    fn emu_attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        _hidden: BoolTensor<Self>,
        _bias: FloatTensor<Self>,
        _y: FloatTensor<Self>,
        kept: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    ) {
        cpu::attention::backward(q, k, v, kept, grad, spec)
    }

    fn emu_silu_gate(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        cpu::elementwise::silu_gate(gate, up)
    }

    fn emu_silu_gate_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        cpu::elementwise::silu_gate_backward(gate, up, grad)
    }

    fn emu_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        cpu::elementwise::gelu(x)
    }

    fn emu_gelu_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        cpu::elementwise::gelu_backward(x, grad)
    }
}

/// The same of Burn's operations.
mod composed {
    use super::*;

    /// Softmax of the scores, 0 where every key is hidden.
    pub fn probabilities<B: Backend>(
        q: FloatTensor<B>,
        k: FloatTensor<B>,
        hidden: BoolTensor<B>,
        bias: FloatTensor<B>,
        spec: AttentionSpec,
    ) -> FloatTensor<B> {
        let ([b, h, t, _], [_, _, s, _]) = (q.shape().dims::<4>(), k.shape().dims::<4>());
        let full = Shape::new([b, h, t, s]);
        let mut scores = B::float_matmul(
            B::float_mul_scalar(q, spec.scale.into()),
            B::float_transpose(k),
        );
        if spec.bias {
            scores = B::float_add(scores, bias);
        }
        if spec.hidden {
            scores =
                B::float_mask_fill(scores, B::bool_expand(hidden, full.clone()), LOWEST.into());
        }
        if spec.causal {
            let device = scores.device();
            let later = |(row, column): (usize, usize)| column + t > row + s;
            let flags: Vec<bool> = (0..t)
                .flat_map(|row| (0..s).map(move |c| later((row, c))))
                .collect();
            let data = burn::tensor::TensorData::new(flags, [1, 1, t, s]);
            let mask = B::bool_expand(B::bool_from_data(data, &device), full);
            scores = B::float_mask_fill(scores, mask, LOWEST.into());
        }
        let greatest = B::float_max_dim(scores.clone(), 3);
        let shown = B::float_greater_elem(
            scores.clone(),
            (LOWEST * 0.5).into(),
            burn::tensor::BoolDType::Native,
        );
        let exps = B::float_exp(B::float_sub(scores, greatest));
        let exps = B::float_mul(
            exps,
            B::bool_into_float(shown, burn::tensor::FloatDType::F32),
        );
        let sum = B::float_clamp_min(B::float_sum_dim(exps.clone(), 3), f32::MIN_POSITIVE.into());
        B::float_div(exps, sum)
    }

    /// What hidden scores become; finite, so that a row of them gives no NaN.
    const LOWEST: f32 = -1e30;

    pub fn attention_backward<B: Backend>(
        q: FloatTensor<B>,
        k: FloatTensor<B>,
        v: FloatTensor<B>,
        p: FloatTensor<B>,
        grad: FloatTensor<B>,
        spec: AttentionSpec,
    ) -> (
        FloatTensor<B>,
        FloatTensor<B>,
        FloatTensor<B>,
        FloatTensor<B>,
    ) {
        let at_v = B::float_matmul(B::float_transpose(p.clone()), grad.clone());
        let at_p = B::float_matmul(grad, B::float_transpose(v));
        let mean = B::float_sum_dim(B::float_mul(at_p.clone(), p.clone()), 3);
        let at_scores = B::float_mul(p, B::float_sub(at_p, mean));
        let scaled = B::float_mul_scalar(at_scores.clone(), spec.scale.into());
        let at_q = B::float_matmul(scaled.clone(), k);
        let at_k = B::float_matmul(B::float_transpose(scaled), q);
        (at_q, at_k, at_v, at_scores)
    }

    pub fn silu_gate_backward<B: Backend>(
        gate: FloatTensor<B>,
        up: FloatTensor<B>,
        grad: FloatTensor<B>,
    ) -> (FloatTensor<B>, FloatTensor<B>) {
        let s = B::sigmoid(gate.clone());
        let at_up = B::float_mul(grad.clone(), B::float_mul(gate.clone(), s.clone()));
        let rest = B::float_add_scalar(B::float_neg(s.clone()), 1.0.into());
        let slope = B::float_mul(s, B::float_add_scalar(B::float_mul(gate, rest), 1.0.into()));
        (B::float_mul(B::float_mul(grad, up), slope), at_up)
    }
}

#[cfg(test)]
#[path = "fused_tests.rs"]
mod tests;
