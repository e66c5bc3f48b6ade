//! Rotary embedding of a fused projection, and its place in the cache.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use crate::cpu::{contiguous, tensor, values};
use crate::spec::StepSpec;

/// Rotates queries and keys, and appends keys and values to the caches.
pub fn rope_append(
    qkv: FlexTensor,
    cos_sin: FlexTensor,
    keys: FlexTensor,
    cached: FlexTensor,
    spec: StepSpec,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    let (qkv, cos_sin) = (contiguous(qkv), contiguous(cos_sin));
    let (mut keys, mut cached) = (contiguous(keys), contiguous(cached));
    let [b, t, width] = qkv.shape().dims::<3>();
    let [_, g, capacity, e] = keys.shape().dims::<4>();
    // Positions beyond the capacity would overwrite the next head.
    assert!(spec.start + t <= capacity, "the cache has room");
    let (h, half) = (spec.heads, e / 2);
    let (from, cos_sin) = (values(&qkv), values(&cos_sin));
    let rotate = |to: &mut [f32], x: &[f32], turn: &[f32]| {
        let ((low, high), (cos, sin)) = (x.split_at(half), turn.split_at(half));
        let (first, second) = to.split_at_mut(half);
        for i in 0..half {
            first[i] = low[i] * cos[i] - high[i] * sin[i];
            second[i] = high[i] * cos[i] + low[i] * sin[i];
        }
    };
    let mut queries = vec![0.0f32; b * h * t * e];
    // Copied only if the cache is shared.
    let (all_keys, all_values) = (keys.storage_mut::<f32>(), cached.storage_mut::<f32>());
    for (i, row) in from.chunks_exact(width.max(1)).enumerate() {
        let (batch, step) = (i / t, i % t);
        let turn = &cos_sin[(spec.start + step) * e..][..e];
        for (head, x) in row.chunks_exact(e).enumerate() {
            if head < h {
                rotate(
                    &mut queries[((batch * h + head) * t + step) * e..][..e],
                    x,
                    turn,
                );
                continue;
            }
            let group = (head - h) % g;
            let at = ((batch * g + group) * capacity + spec.start + step) * e;
            if head < h + g {
                rotate(&mut all_keys[at..at + e], x, turn);
            } else {
                all_values[at..at + e].copy_from_slice(x);
            }
        }
    }
    (tensor(queries, [b, h, t, e]), keys, cached)
}
