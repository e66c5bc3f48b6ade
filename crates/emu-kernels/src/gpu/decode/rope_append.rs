//! Rotary embedding of a fused projection, and its place in the cache.

use burn::tensor::Shape;
use burn_wgpu::CubeTensor;

use crate::gpu::kernel::{Kernel, kernel};
use crate::gpu::{grid, into_contiguous, output};
use crate::spec::StepSpec;

/// Workgroup size.
const SHARED: usize = 64;

// Batch size and cache capacity are words of the uniform buffer: as constants, every prompt length would compile kernels of
// its own.

kernel! {
    /// Splits a fused projection, rotates, and appends to the cache.
    RopeAppendKernel, "rope_append" ["decode/rope_append.wgsl"]
    {
        /// H
        heads: usize,
        /// G
        kv_heads: usize,
        /// E
        head_size: usize,
    }
    |key| { invocations: SHARED, }
    /// `[B, T, (H + 2 G) E]`, `[C, E]`, `[2]`; the rotated queries, `[B, H, T, E]`; the caches, `[B, G, C, E]`.
    RopeAppendBuffers { qkv, cos_sin, place, queries, keys, values, }
    uniform sizes
}

/// Rotates queries and keys, and appends keys and values to the caches.
pub fn rope_append(
    qkv: CubeTensor,
    cos_sin: CubeTensor,
    keys: CubeTensor,
    values: CubeTensor,
    kv_len: CubeTensor,
    spec: StepSpec,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let (qkv, cos_sin) = (into_contiguous(qkv), into_contiguous(cos_sin));
    let (keys, values) = (into_contiguous(keys), into_contiguous(values));
    let (b, t) = (qkv.meta.shape()[0], qkv.meta.shape()[1]);
    let queries = output(&qkv, Shape::new([b, spec.heads, t, spec.head_size]));
    let pairs = qkv.meta.shape().num_elements() / 2;
    let key = RopeAppendKernel {
        heads: spec.heads,
        kv_heads: spec.kv_heads,
        head_size: spec.head_size,
    };
    let buffers = RopeAppendBuffers {
        qkv: &qkv,
        cos_sin: &cos_sin,
        place: &kv_len,
        queries: &queries,
        keys: &keys,
        values: &values,
    };
    let sizes = [b, keys.meta.shape()[2]].map(|n| n as u32);
    key.launch(grid(pairs.div_ceil(SHARED)), buffers, &sizes);
    (queries, keys, values)
}

/// Keys of every variant.
#[cfg(test)]
pub fn check_all(checked: &mut crate::gpu::tests::Checked) {
    for head_size in [4, 32, 100, 256] {
        checked.check(RopeAppendKernel {
            heads: 6,
            kv_heads: 2,
            head_size,
        });
    }
}
