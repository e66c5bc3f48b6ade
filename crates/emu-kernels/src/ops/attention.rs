//! Attention of many queries (prefill, encoders, diffusion); [`super::decode`] has that of a decoding step.

use burn::backend::Dispatch;
use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::backend::{Backend, backend_extension};
use burn::tensor::module as burn_ops;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Device, Tensor};

use crate::device::on_cpu;
use crate::spec::AttentionSpec;

/// Scale, mask and bias of attention.
#[derive(Clone, Debug, Default)]
pub struct AttentionOptions {
    /// Causal mask: the queries are the last T positions, and each sees keys up to its own.
    pub causal: bool,
    /// Scale of the scores; `1 / sqrt(E)` if absent.
    pub scale: Option<f64>,
    /// `[B or 1, 1, T or 1, S]`, true where a key is masked.
    pub mask: Option<Tensor<4, Bool>>,
    /// `[B or 1, H or 1, T, S]`, added to the scores.
    pub bias: Option<Tensor<4>>,
}

/// `softmax(q kᵀ · scale + bias) v`. Rows whose keys are all masked give zeros.
///
/// # Shapes
/// - `q`: `[B, H, T, E]`; `k`, `v`: `[B, G, S, E]`
/// - returns `[B, H, T, E]`
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, options: AttentionOptions) -> Tensor<4> {
    let ([b, h, t, e], [_, g, s, _]) = (q.dims(), k.dims());
    if runs_in_kernel(&q.device(), e) || learns_in_kernel(&q.device(), e) {
        return fused_attention(q, k, v, options, s);
    }
    let (k, v) = (share_heads(k, h / g), share_heads(v, h / g));
    if on_cpu(&q.device()) {
        return fused_attention(q, k, v, options, s);
    }
    let mask = options.mask.map(|m| m.expand([b, h, t, s]));
    let bias = options.bias.map(|m| m.expand([b, h, t, s]));
    let options = AttentionModuleOptions {
        scale: options.scale,
        softcap: None,
        is_causal: options.causal,
    };
    burn_ops::attention(q, k, v, mask, bias, options)
}

/// Whether the fused attention kernel supports this device and head size: one launch, grouped-query heads, key/value buffers
/// with spare capacity.
pub(crate) fn runs_in_kernel(device: &Device, head_size: usize) -> bool {
    cfg!(feature = "wgpu")
        && !on_cpu(device)
        && !device.is_autodiff()
        && AttentionSpec::fits(head_size)
}

/// Whether the fused backward kernel supports this device and head size; it supports grouped-query heads.
fn learns_in_kernel(device: &Device, head_size: usize) -> bool {
    cfg!(all(feature = "wgpu", not(target_family = "wasm")))
        && !on_cpu(device)
        && device.is_autodiff()
        && AttentionSpec::fits_backward(head_size)
}

/// Fused attention of the backend, over the first `kv_len` keys.
pub(crate) fn fused_attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    options: AttentionOptions,
    kv_len: usize,
) -> Tensor<4> {
    let (device, [.., e]) = (q.device(), q.dims());
    let spec = AttentionSpec {
        causal: options.causal,
        scale: options.scale.unwrap_or_else(|| 1.0 / (e as f64).sqrt()),
        kv_len,
        mask: options.mask.is_some(),
        bias: options.bias.is_some(),
        score_gradient: false,
    };
    // Uninitialized placeholders need neither launch nor upload.
    let mask = { options.mask }.unwrap_or_else(|| Tensor::empty([1; 4], &device));
    let bias = { options.bias }.unwrap_or_else(|| Tensor::empty([1; 4], &device));
    Tensor::from_dispatch(Dispatch::emu_attention(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        mask.into_dispatch(),
        bias.into_dispatch(),
        spec,
    ))
}

/// Repeats each key/value head for the query heads that share it: `[B, G, S, E]` to `[B, G·times, S, E]`.
fn share_heads(x: Tensor<4>, times: usize) -> Tensor<4> {
    if times == 1 {
        return x;
    }
    let [b, g, s, e] = x.dims();
    x.reshape([b, g, 1, s * e])
        .expand([b, g, times, s * e])
        .reshape([b, g * times, s, e])
}

/// Attention. Shapes as above; masks and biases broadcast along axes of size 1.
#[cfg_attr(not(target_family = "wasm"), backend_extension(Cube, Flex, Autodiff))]
#[cfg_attr(all(target_family = "wasm", feature = "wgpu"), backend_extension(Cube))]
#[cfg_attr(all(target_family = "wasm", feature = "flex"), backend_extension(Flex))]
pub trait AttentionBackend: Backend {
    /// `softmax(q kᵀ · scale + bias) v`: `[B, H, T, E]`, `[B, G, S, E]` twice, to `[B, H, T, E]`.
    fn emu_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        mask: BoolTensor<Self>,
        bias: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> FloatTensor<Self>;
}

/// Backward pass of attention.
#[cfg(not(target_family = "wasm"))]
pub trait AttentionGradient: AttentionBackend {
    /// Forward pass that also returns what the backward pass needs: the probabilities `[B, H, T, S]`, or what the backend saves
    /// instead.
    fn emu_attention_saving(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        mask: BoolTensor<Self>,
        bias: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Gradients of q, k and v, and, if `spec.score_gradient`, of the scores: `[B, H, T, S]`, or already summed over the
    /// bias's axes of size 1. `y` and `saved` are the results of [`AttentionGradient::emu_attention_saving`].
    #[allow(clippy::too_many_arguments)]
    fn emu_attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        mask: BoolTensor<Self>,
        bias: FloatTensor<Self>,
        y: FloatTensor<Self>,
        saved: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    );
}
