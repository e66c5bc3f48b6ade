//! Attention at one position over the cache.

use burn::tensor::Shape;
use burn_wgpu::CubeTensor;

use crate::gpu::kernel::{Kernel, Reduction, kernel};
use crate::gpu::{into_contiguous, output};
use crate::spec::StepSpec;
use crate::variants;

/// Workgroup size.
const SHARED: usize = 64;

// Batch size and cache capacity are words of the uniform buffer: as constants, every prompt length would compile kernels of
// its own.

kernel! {
    /// Attention at one position over the cache.
    DecodeAttentionKernel, "decode_attention" ["shared/reduce.wgsl", "decode/decode_attention.wgsl"]
    {
        /// H
        heads: usize,
        /// G
        kv_heads: usize,
        /// E
        head_size: usize,
        /// Whether a table gives the cache row of each position.
        beams: bool,
        /// How a workgroup reduces.
        reduction: Reduction,
    }
    |key| { invocations: SHARED, }
    /// `[B, H, E]`, `[B, G, C, E]`, `[B, G, C, E]`, `[2]`; the result, `[B, H, E]`; `[B, positions]`.
    DecodeAttentionBuffers { queries, keys, values, place, y, table if key.beams, }
    uniform sizes
}

/// Attention at one position of each sequence over the cache.
pub fn decode_attention(
    q: CubeTensor,
    keys: CubeTensor,
    values: CubeTensor,
    kv_len: CubeTensor,
    table: CubeTensor,
    spec: StepSpec,
) -> CubeTensor {
    let (q, table) = (into_contiguous(q), into_contiguous(table));
    let b = q.meta.shape()[0];
    let y = output(&q, Shape::new([b, 1, spec.heads * spec.head_size]));
    let key = DecodeAttentionKernel {
        heads: spec.heads,
        kv_heads: spec.kv_heads,
        head_size: spec.head_size,
        beams: spec.beams,
        reduction: Reduction::by(variants::subgroups()),
    };
    let sizes = [b, keys.meta.shape()[2]].map(|n| n as u32);
    let buffers = DecodeAttentionBuffers {
        queries: &q,
        keys: &keys,
        values: &values,
        place: &kv_len,
        y: &y,
        table: Some(&table),
    };
    key.launch([spec.heads, b, 1], buffers, &sizes);
    y
}

/// Keys of every variant.
#[cfg(test)]
pub fn check_all(checked: &mut crate::gpu::tests::Checked) {
    use crate::gpu::tests::{BOTH, REDUCTIONS};
    for head_size in [4, 32, 100, 256] {
        for reduction in REDUCTIONS {
            for beams in BOTH {
                checked.check(DecodeAttentionKernel {
                    heads: 6,
                    kv_heads: 2,
                    head_size,
                    beams,
                    reduction,
                });
            }
        }
    }
}
