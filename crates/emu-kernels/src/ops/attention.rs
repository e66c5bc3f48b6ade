//! Attention, and the operations on a layer's KV cache.

use burn::backend::Dispatch;
use burn::tensor::module as burn_ops;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Device, Tensor};

use crate::backend::{AttentionBackend, DecodeBackend};
use crate::cache::{CacheFull, LayerCache};
use crate::device::on_cpu;
use crate::rope::RopeTables;
use crate::spec::{AttentionSpec, StepSpec};

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

/// `softmax(q kᵀ · scale + bias) v`. Rows whose keys are all hidden give zeros.
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
    let mask = options.hidden.map(|m| m.expand([b, h, t, s]));
    let bias = options.bias.map(|m| m.expand([b, h, t, s]));
    let options = AttentionModuleOptions {
        scale: options.scale,
        softcap: None,
        is_causal: options.causal,
    };
    burn_ops::attention(q, k, v, mask, bias, options)
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
    let whole = cache.whole().filter(|_| runs_in_kernel(&q.device(), e));
    let y = match whole {
        Some((k, v)) => fused_attention(q, k, v, options, cache.len()),
        None => {
            let (k, v) = cache.visible();
            attention(q, k, v, options)
        }
    };
    y.swap_dims(1, 2).reshape([b, t, h * e])
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

/// Whether a kernel computes attention of heads of this size on this device: in one launch, with keys and values that
/// query heads share, from buffers that may be longer.
pub(crate) fn runs_in_kernel(device: &Device, head_size: usize) -> bool {
    cfg!(feature = "wgpu")
        && !on_cpu(device)
        && !device.is_autodiff()
        && AttentionSpec::fits(head_size)
}

/// Whether a kernel computes the backward pass of attention of heads of this size: with keys and values that query heads
/// share.
fn learns_in_kernel(device: &Device, head_size: usize) -> bool {
    cfg!(all(feature = "wgpu", not(target_family = "wasm")))
        && !on_cpu(device)
        && device.is_autodiff()
        && AttentionSpec::fits_backward(head_size)
}

/// Whether the kernels of a decoding step serve a device and heads of this size.
fn has_kernels(device: &Device, head_size: usize) -> bool {
    !device.is_autodiff() && StepSpec::fits(head_size)
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
