//! Decoding step of a layer: attention over its KV cache, and the writes to the cache.
//!
//! B batch, H query heads, G key/value heads (H is a multiple of G), T new positions (one while decoding), E head size.

use burn::backend::Dispatch;
use burn::tensor::{Bool, Device, Tensor};

use crate::cache::{CacheFull, LayerCache};
use crate::ops::attention::{AttentionOptions, attention, fused_attention, runs_in_kernel};
use crate::ops::decode::DecodeBackend;
use crate::rope::RopeTables;
use crate::spec::StepSpec;

/// Attention of the newest T positions over a layer's cache, which already holds them.
///
/// # Shapes
/// - `q`: `[B, H, T, E]`; `mask`: `[B or 1, 1, 1, length]`, true where a cached key is masked
/// - returns `[B, T, H·E]`
pub fn decode_attention(
    q: Tensor<4>,
    cache: &LayerCache,
    mask: Option<Tensor<4, Bool>>,
) -> Tensor<3> {
    let [b, h, t, e] = q.dims();
    let fits = t == 1 && mask.is_none() && has_kernels(&q.device(), e);
    if let Some(newest) = cache.newest().filter(|_| fits) {
        let spec = step_spec(h, cache, cache.len() - 1, newest.table.is_some());
        let table = match newest.table {
            Some(table) => table.into_dispatch(),
            None => newest.kv_len.clone().into_dispatch(),
        };
        return Tensor::from_dispatch(Dispatch::emu_decode_attention(
            q.into_dispatch(),
            newest.keys.into_dispatch(),
            newest.values.into_dispatch(),
            newest.kv_len.into_dispatch(),
            table,
            spec,
        ));
    }
    let options = AttentionOptions {
        causal: true,
        mask,
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

/// Splits a fused QKV projection, rotates queries and keys, writes keys and values to the cache in kv_len, and returns the
/// rotated queries.
///
/// # Shapes
/// - `qkv`: `[B, T, (H + 2 G)·E]`; G and E are the cache's
/// - `tables`: positions from 0 up to at least the cache's capacity
/// - returns `[B, H, T, E]`
///
/// # Errors
/// The cache has no room for the positions.
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
        let written = cache.write(t, |keys, values, kv_len| {
            let (q, keys, values) = Dispatch::emu_rope_append(
                qkv.clone().into_dispatch(),
                tables.halves().into_dispatch(),
                keys.into_dispatch(),
                values.into_dispatch(),
                kv_len.into_dispatch(),
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

/// Whether the kernels of a decoding step support this device and head size.
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
