//! The operations of the hot paths, and what they are composed of by default.
//!
//! B batch, H heads, G key/value heads (H is a multiple of G), T queries, S keys, E head size, D width.
//!
//! The free functions are what layers and networks call; each asks [`operations`] for the implementation that suits the
//! tensor's device. [`Composed`] is the reference: Burn's own operations, differentiable, on every device.

use core::f64::consts::FRAC_1_SQRT_2;

use burn::backend::Dispatch;
use burn::tensor::activation;
use burn::tensor::module as burn_ops;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Device, Distribution, Int, Tensor};

use crate::backend::{ConvFusion, ConvSpec, EmuBackend, GroupNormSpec};
use crate::cache::{CacheFull, LayerCache};
use crate::count;
use crate::decode::{DecodeBackend, StepSpec};
use crate::fused::{self, AttentionSpec, FusedBackend};
use crate::rope::RopeTables;

/// What attention is masked and shifted by.
#[derive(Clone, Debug, Default)]
pub struct AttentionOptions {
    /// Query `t` of the last T positions sees keys up to its own position.
    pub causal: bool,
    /// Factor of the scores; `1 / sqrt(E)` where absent.
    pub scale: Option<f64>,
    /// `[B or 1, 1, T or 1, S]`, true where a key is hidden.
    pub hidden: Option<Tensor<4, Bool>>,
    /// `[B or 1, H or 1, T, S]`, added to the scores.
    pub bias: Option<Tensor<4>>,
}

/// What is fused with a convolution.
#[derive(Clone, Debug, Default)]
pub struct ConvExtras {
    /// The input is doubled by repeating pixels, then cut to this height and width.
    pub doubled: Option<(usize, usize)>,
    /// `[B, in - C, H, W]`: channels that follow the C of the input, which then is not doubled.
    pub beside: Option<Tensor<4>>,
    /// `[B or 1, out]`, added to the channels.
    pub shift: Option<Tensor<2>>,
    /// Added to the output, in its shape.
    pub residual: Option<Tensor<4>>,
    /// Whether a permutation to `[B, H', W', out]` follows, which then may cost nothing.
    pub channels_last: bool,
}

/// Every hot operation, each with a default composed of Burn's.
#[allow(missing_docs)]
pub trait Operations {
    /// See [`linear`].
    fn linear(&self, x: Tensor<3>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<3> {
        count::weights_read(4 * weight.shape().num_elements() as u64);
        if on_cpu(&x.device()) {
            // One product of all rows, and two in the backward pass: Burn's linear makes one for each batch.
            let [b, t, d] = x.dims();
            let y = x.reshape([b * t, d]).matmul(weight.transpose());
            let y = match bias {
                Some(bias) => y + bias.unsqueeze(),
                None => y,
            };
            let [_, out] = y.dims();
            return y.reshape([b, t, out]);
        }
        burn_ops::linear(x, weight.transpose(), bias)
    }

    /// See [`embedding`].
    fn embedding(&self, weight: Tensor<2>, ids: Tensor<2, Int>) -> Tensor<3> {
        burn_ops::embedding(weight, ids)
    }

    /// See [`attention`].
    fn attention(
        &self,
        q: Tensor<4>,
        k: Tensor<4>,
        v: Tensor<4>,
        options: AttentionOptions,
    ) -> Tensor<4> {
        let ([b, h, t, e], [_, g, s, _]) = (q.dims(), k.dims());
        if fused::on_gpu(&q.device(), e) || fused::learns_on_gpu(&q.device(), e) {
            return fused_attention(q, k, v, options, s);
        }
        let (k, v) = (share_heads(k, h / g), share_heads(v, h / g));
        if on_cpu(&q.device()) {
            return fused_attention(q, k, v, options, s);
        }
        let mask = options.hidden.map(|m| m.expand([b, h, t, s]));
        let bias = options.bias.map(|m| m.expand([b, h, t, s]));
        let options = AttentionModuleOptions {
            scale: options.scale,
            softcap: None,
            is_causal: options.causal,
        };
        burn_ops::attention(q, k, v, mask, bias, options)
    }

    /// See [`decode_attention`].
    fn decode_attention(
        &self,
        q: Tensor<4>,
        cache: &LayerCache,
        hidden: Option<Tensor<4, Bool>>,
    ) -> Tensor<3> {
        let [b, h, t, e] = q.dims();
        let fits = t == 1 && hidden.is_none() && has_kernels(&q.device(), e);
        if let Some(newest) = cache.newest().filter(|_| fits) {
            let spec = step_spec(h, cache, cache.len() - 1, newest.table.is_some());
            let table = match newest.table {
                Some(table) => table.into_dispatch(),
                None => newest.place.clone().into_dispatch(),
            };
            return Tensor::from_dispatch(Dispatch::emu_decode_attention(
                q.into_dispatch(),
                newest.keys.into_dispatch(),
                newest.values.into_dispatch(),
                newest.place.into_dispatch(),
                table,
                spec,
            ));
        }
        let options = AttentionOptions {
            causal: true,
            hidden,
            ..Default::default()
        };
        let whole = cache.whole().filter(|_| fused::on_gpu(&q.device(), e));
        let y = match whole {
            Some((k, v)) => fused_attention(q, k, v, options, cache.len()),
            None => {
                let (k, v) = cache.visible();
                self.attention(q, k, v, options)
            }
        };
        y.swap_dims(1, 2).reshape([b, t, h * e])
    }

    /// See [`rope_append`].
    fn rope_append(
        &self,
        qkv: Tensor<3>,
        tables: &RopeTables,
        cache: &mut LayerCache,
    ) -> Result<Tensor<4>, CacheFull> {
        let ([b, t, width], [_, g, _, e]) = (qkv.dims(), cache.dims());
        let h = width / e - 2 * g;
        let start = cache.len();
        if has_kernels(&qkv.device(), e) {
            let spec = step_spec(h, cache, start, false);
            let written = cache.write(t, |keys, values, place| {
                let (q, keys, values) = Dispatch::emu_rope_append(
                    qkv.clone().into_dispatch(),
                    tables.halves().into_dispatch(),
                    keys.into_dispatch(),
                    values.into_dispatch(),
                    place.into_dispatch(),
                    spec,
                );
                let [keys, values] = [keys, values].map(Tensor::<4>::from_dispatch);
                (Tensor::<4>::from_dispatch(q), keys, values)
            });
            if let Some(q) = written? {
                return Ok(q);
            }
        }
        let part = |from: usize, heads: usize| {
            let part = qkv.clone().narrow(2, from * e, heads * e);
            part.reshape([b, t, heads, e]).swap_dims(1, 2) // [B, heads, T, E]
        };
        cache.append(tables.rotate_at(start, part(h, g)), part(h + g, g))?;
        Ok(tables.rotate_at(start, part(0, h)))
    }

    /// See [`layer_norm`].
    fn layer_norm(&self, x: Tensor<3>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<3> {
        if x.device().is_autodiff() {
            return burn_ops::layer_norm(x, weight, Some(bias), eps);
        }
        Tensor::from_dispatch(Dispatch::emu_layer_norm(
            x.into_dispatch(),
            weight.into_dispatch(),
            bias.into_dispatch(),
            eps,
        ))
    }

    /// See [`rms_norm`].
    fn rms_norm(&self, x: Tensor<3>, weight: Tensor<1>, eps: f64) -> Tensor<3> {
        if !x.device().is_autodiff() {
            let [b, t, d] = x.dims();
            let y = Dispatch::emu_rms_norm(
                x.reshape([b * t, d]).into_dispatch(),
                weight.into_dispatch(),
                eps,
            );
            return Tensor::<2>::from_dispatch(y).reshape([b, t, d]);
        }
        let rms = sqrt(x.clone().square().mean_dim(2).add_scalar(eps));
        x.div(rms).mul(weight.unsqueeze())
    }

    /// See [`silu_gate`].
    fn silu_gate(&self, gate: Tensor<3>, up: Tensor<3>) -> Tensor<3> {
        if on_cpu(&gate.device()) {
            return Tensor::from_dispatch(Dispatch::emu_silu_gate(
                gate.into_dispatch(),
                up.into_dispatch(),
            ));
        }
        activation::silu(gate).mul(up)
    }

    /// See [`silu_pair`].
    fn silu_pair(&self, x: Tensor<3>) -> Tensor<3> {
        let [b, t, both] = x.dims();
        if x.device().is_autodiff() {
            let gate = x.clone().narrow(2, 0, both / 2);
            return self.silu_gate(gate, x.narrow(2, both / 2, both / 2));
        }
        let y = Dispatch::emu_silu_pair(x.reshape([b * t, both]).into_dispatch());
        Tensor::<2>::from_dispatch(y).reshape([b, t, both / 2])
    }

    /// See [`gelu`].
    fn gelu(&self, x: Tensor<3>) -> Tensor<3> {
        if on_cpu(&x.device()) {
            return Tensor::from_dispatch(Dispatch::emu_gelu(x.into_dispatch()));
        }
        if !x.device().is_autodiff() {
            return gelu_rows(x, false);
        }
        // Burn's own gradient on GPUs is that of the tanh approximation, right to three digits only.
        let share = x.clone().mul_scalar(FRAC_1_SQRT_2).erf().add_scalar(1.0);
        x.mul(share.mul_scalar(0.5))
    }

    /// See [`geglu`].
    fn geglu(&self, x: Tensor<3>) -> Tensor<3> {
        let device = x.device();
        if !device.is_autodiff() && !on_cpu(&device) {
            return gelu_rows(x, true);
        }
        let [_, _, d] = x.dims();
        let value = x.clone().narrow(2, 0, d / 2);
        value.mul(self.gelu(x.narrow(2, d / 2, d / 2)))
    }

    /// See [`group_norm`].
    fn group_norm(
        &self,
        x: Tensor<4>,
        weight: Tensor<1>,
        bias: Tensor<1>,
        beside: Option<Tensor<4>>,
        spec: GroupNormSpec,
    ) -> Tensor<4> {
        let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
        let bias = bias.into_dispatch();
        let y = match beside {
            None => Dispatch::emu_group_norm(x, weight, bias, spec),
            Some(beside) => {
                Dispatch::emu_group_norm_beside(x, beside.into_dispatch(), weight, bias, spec)
            }
        };
        Tensor::from_dispatch(y)
    }

    /// See [`conv2d_with`].
    fn conv2d(
        &self,
        x: Tensor<4>,
        weight: Tensor<4>,
        bias: Tensor<1>,
        spec: ConvSpec,
        extras: ConvExtras,
    ) -> Tensor<4> {
        let fusion = ConvFusion {
            doubled: extras.doubled,
            beside: extras.beside.is_some(),
            shift: extras.shift.is_some(),
            residual: extras.residual.is_some(),
            channels_last: extras.channels_last,
        };
        let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
        let bias = bias.into_dispatch();
        if fusion == ConvFusion::default() {
            return Tensor::from_dispatch(Dispatch::emu_conv2d(x, weight, bias, spec));
        }
        let or_x = |tensor: Option<Tensor<4>>| match tensor {
            Some(tensor) => tensor.into_dispatch(),
            None => x.clone(),
        };
        let (beside, residual) = (or_x(extras.beside), or_x(extras.residual));
        let shift = match extras.shift {
            Some(shift) => shift.into_dispatch(),
            None => x.clone(),
        };
        Tensor::from_dispatch(Dispatch::emu_conv2d_fused(
            x, weight, bias, beside, shift, residual, spec, fusion,
        ))
    }
}

/// The operations composed of Burn's own.
#[derive(Clone, Copy, Debug)]
pub struct Composed;

impl Operations for Composed {}

/// The implementation for tensors of this device.
pub fn operations(_device: &Device) -> &'static dyn Operations {
    &Composed
}

/// Whether the kernels of a decoding step serve a device and heads of this size.
fn has_kernels(device: &Device, head_size: usize) -> bool {
    !device.is_autodiff() && head_size.is_multiple_of(4) && head_size <= 256
}

fn step_spec(heads: usize, cache: &LayerCache, start: usize, beams: bool) -> StepSpec {
    let [_, kv_heads, _, head_size] = cache.dims();
    StepSpec {
        heads,
        kv_heads,
        head_size,
        start,
        beams,
    }
}

/// Attention below the tensor, over the first `seen` keys.
fn fused_attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    options: AttentionOptions,
    seen: usize,
) -> Tensor<4> {
    let (device, [.., e]) = (q.device(), q.dims());
    let spec = AttentionSpec {
        causal: options.causal,
        scale: options.scale.unwrap_or_else(|| 1.0 / (e as f64).sqrt()),
        seen,
        hidden: options.hidden.is_some(),
        bias: options.bias.is_some(),
        score_gradient: false,
    };
    // Placeholders that nobody reads cost no launch and no upload.
    let hidden = { options.hidden }.unwrap_or_else(|| Tensor::empty([1; 4], &device));
    let bias = { options.bias }.unwrap_or_else(|| Tensor::empty([1; 4], &device));
    Tensor::from_dispatch(Dispatch::emu_attention(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        hidden.into_dispatch(),
        bias.into_dispatch(),
        spec,
    ))
}

/// Whether tensors of this device are computed by Flex.
#[cfg(feature = "flex")]
pub(crate) fn on_cpu(device: &Device) -> bool {
    *device == Device::flex()
}

/// Whether tensors of this device are computed by Flex, which is not there.
#[cfg(not(feature = "flex"))]
pub(crate) fn on_cpu(_device: &Device) -> bool {
    false
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

/// The exact GELU, or with `gated` the first half of each row times that of the second, below the tensor.
fn gelu_rows(x: Tensor<3>, gated: bool) -> Tensor<3> {
    let [b, t, width] = x.dims();
    let y = Dispatch::emu_gelu_rows(x.reshape([b * t, width]).into_dispatch(), gated);
    let y = Tensor::<2>::from_dispatch(y);
    y.reshape([b, t, if gated { width / 2 } else { width }])
}

/// Square root whose gradient is as precise as its value. Burn's own gradient takes a power, which software GPUs give to
/// four digits only; a step of Newton's rule from the root, held constant, is the root again and has the root's slope.
fn sqrt<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if !x.device().is_autodiff() {
        return x.sqrt();
    }
    let root = x.clone().detach().sqrt();
    x.div(root.clone()).add(root).mul_scalar(0.5)
}

/// Runs a rank-3 operation over a tensor of any rank by folding the leading axes.
fn folded<const D: usize>(x: Tensor<D>, f: impl FnOnce(Tensor<3>) -> Tensor<3>) -> Tensor<D> {
    let mut dims = x.dims();
    let width = dims[D - 1];
    let rows = dims[..D - 1].iter().product();
    let y = if D == 3 {
        f(x.reshape([dims[0] as i64, -1, width as i64]))
    } else {
        f(x.reshape([1, rows, width]))
    };
    dims[D - 1] = y.dims()[2];
    y.reshape(dims)
}

/// `x Wᵀ + b`.
///
/// # Shapes
/// - `x`: `[.., in]`, `weight`: `[out, in]`, `bias`: `[out]`
/// - returns `[.., out]`
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let operations = operations(&x.device());
    folded(x, |x| operations.linear(x, weight, bias))
}

/// Rows of a table.
///
/// # Shapes
/// - `weight`: `[rows, D]`, `ids`: `[B, T]`
/// - returns `[B, T, D]`
pub fn embedding(weight: Tensor<2>, ids: Tensor<2, Int>) -> Tensor<3> {
    operations(&weight.device()).embedding(weight, ids)
}

/// `softmax(q kᵀ · scale + bias) v`. Rows whose keys are all hidden give zeros.
///
/// # Shapes
/// - `q`: `[B, H, T, E]`; `k`, `v`: `[B, G, S, E]`
/// - returns `[B, H, T, E]`
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, options: AttentionOptions) -> Tensor<4> {
    operations(&q.device()).attention(q, k, v, options)
}

/// Attention of the newest T positions over a layer's cache, which already holds them.
///
/// # Shapes
/// - `q`: `[B, H, T, E]`; `hidden`: `[B or 1, 1, 1, length]`, true where a cached key is hidden
/// - returns `[B, T, H·E]`
pub fn decode_attention(
    q: Tensor<4>,
    cache: &LayerCache,
    hidden: Option<Tensor<4, Bool>>,
) -> Tensor<3> {
    operations(&q.device()).decode_attention(q, cache, hidden)
}

/// Splits queries, keys and values, rotates the first two, writes keys and values to the cache in place, returns the
/// rotated queries.
///
/// # Shapes
/// - `qkv`: `[B, T, (H + 2 G)·E]`; G and E are the cache's
/// - `tables`: of the positions from 0 on, the cache's capacity at least
/// - returns `[B, H, T, E]`
///
/// # Errors
/// Where the cache has no room for them.
pub fn rope_append(
    qkv: Tensor<3>,
    tables: &RopeTables,
    cache: &mut LayerCache,
) -> Result<Tensor<4>, CacheFull> {
    operations(&qkv.device()).rope_append(qkv, tables, cache)
}

/// Layer norm over the last axis.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    let operations = operations(&x.device());
    folded(x, |x| operations.layer_norm(x, weight, bias, eps))
}

/// Root-mean-square norm over the last axis.
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, eps: f64) -> Tensor<D> {
    let operations = operations(&x.device());
    folded(x, |x| operations.rms_norm(x, weight, eps))
}

/// `silu(gate) * up`, both `[B, T, D]`.
pub fn silu_gate(gate: Tensor<3>, up: Tensor<3>) -> Tensor<3> {
    operations(&gate.device()).silu_gate(gate, up)
}

/// `silu(x[.., :D]) * x[.., D:]`: `[B, T, 2D]` to `[B, T, D]`.
pub fn silu_pair(x: Tensor<3>) -> Tensor<3> {
    operations(&x.device()).silu_pair(x)
}

/// `x[.., :D] * gelu(x[.., D:])` with the exact GELU: `[B, T, 2D]` to `[B, T, D]`.
pub fn geglu(x: Tensor<3>) -> Tensor<3> {
    operations(&x.device()).geglu(x)
}

/// Group norm of `[B, C, H, W]`.
pub fn group_norm(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    groups: usize,
    eps: f64,
) -> Tensor<4> {
    let silu = false;
    let spec = GroupNormSpec { groups, eps, silu };
    operations(&x.device()).group_norm(x, weight, bias, None, spec)
}

/// Group norm followed by SiLU, of the channels of `x` and then those of `beside`.
///
/// # Shapes
/// - `x`: `[B, C, H, W]`, `beside`: `[B, C', H, W]`, `weight` and `bias`: `[C + C']`
/// - returns `[B, C + C', H, W]`
pub fn group_norm_silu(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    beside: Option<Tensor<4>>,
    groups: usize,
    eps: f64,
) -> Tensor<4> {
    let silu = true;
    let spec = GroupNormSpec { groups, eps, silu };
    operations(&x.device()).group_norm(x, weight, bias, beside, spec)
}

/// Convolution with square kernels; `padding` is `(before, after)` on both axes.
///
/// # Shapes
/// - `x`: `[B, in, H, W]`, `weight`: `[out, in, k, k]`, `bias`: `[out]`
pub fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: (usize, usize),
) -> Tensor<4> {
    conv2d_with(x, weight, bias, stride, padding, ConvExtras::default())
}

/// [`conv2d`], and what comes before and after it.
pub fn conv2d_with(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: (usize, usize),
    extras: ConvExtras,
) -> Tensor<4> {
    let bias = bias.unwrap_or_else(|| Tensor::zeros([weight.dims()[0]], &weight.device()));
    let spec = ConvSpec { stride, padding };
    operations(&x.device()).conv2d(x, weight, bias, spec, extras)
}

/// Channels of `x` and then those of `skip`, for operations that take the second as `beside`: apart where they read both,
/// in one tensor where they would join them each for itself.
pub fn beside(x: Tensor<4>, skip: Tensor<4>) -> (Tensor<4>, Option<Tensor<4>>) {
    let device = x.device();
    if on_cpu(&device) || device.is_autodiff() {
        return (Tensor::cat(vec![x, skip], 1), None);
    }
    (x, Some(skip))
}

/// Doubles height and width by repeating pixels: `[B, C, H, W]` to `[B, C, 2H, 2W]`.
pub fn upsample_nearest2(x: Tensor<4>) -> Tensor<4> {
    let [b, c, h, w] = x.dims();
    let wide = x
        .reshape([b, c * h, w, 1])
        .expand([b, c * h, w, 2])
        .reshape([b, c * h, 1, w * 2]);
    wide.expand([b, c * h, 2, w * 2])
        .reshape([b, c, h * 2, w * 2])
}

/// `x · Φ(x)`, exact (not the tanh approximation).
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let operations = operations(&x.device());
    folded(x, |x| operations.gelu(x))
}

/// `x · sigmoid(1.702 x)`, CLIP's approximation of GELU.
pub fn quick_gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.clone().mul(activation::sigmoid(x.mul_scalar(1.702)))
}

/// Zeroes each element with this probability and scales the rest to keep the mean. Draws from the device's generator,
/// which training reseeds at every step.
pub fn dropout<const D: usize>(x: Tensor<D>, probability: f64) -> Tensor<D> {
    let keep = x.random_like(Distribution::Bernoulli(1.0 - probability));
    x.mul(keep).div_scalar(1.0 - probability)
}
