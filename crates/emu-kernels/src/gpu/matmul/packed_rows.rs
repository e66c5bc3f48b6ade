//! Dequantized rows of a packed matrix.

use burn::tensor::Shape;
use burn_wgpu::CubeTensor;

use crate::gpu::kernel::{Kernel, kernel};
use crate::gpu::{grid, into_contiguous, output};
use crate::spec::{BLOCK, PackedSpec, Scheme};

/// Workgroup size; an invocation dequantizes one word.
const INVOCATIONS: usize = 64;

kernel! {
    /// Dequantized rows of a packed matrix.
    PackedRowsKernel, "packed_rows" ["matmul/packed_rows.wgsl"]
    {
        /// Storage format of the matrix.
        scheme: Scheme,
        /// Rows of the matrix.
        out: usize,
        /// Blocks per row.
        blocks: usize,
    }
    |key| { invocations: INVOCATIONS, }
    /// Row numbers, the packed matrix; the result, `[ids, in]`; scales, minimums.
    PackedRowsBuffers { ids, words, y, scales if key.scheme.has_scales(), mins if key.scheme.has_mins(), }
}

/// Dequantized rows: `[n]` ids to `[n, in]`.
pub fn packed_rows(
    ids: CubeTensor,
    [words, scales, mins]: [CubeTensor; 3],
    spec: PackedSpec,
) -> CubeTensor {
    let ids = into_contiguous(ids);
    let n = ids.meta.shape()[0];
    let y = output(&ids, Shape::new([n, spec.width]));
    let key = PackedRowsKernel {
        scheme: spec.scheme,
        out: spec.out,
        blocks: spec.width / BLOCK,
    };
    let buffers = PackedRowsBuffers {
        ids: &ids,
        words: &words,
        y: &y,
        scales: Some(&scales),
        mins: Some(&mins),
    };
    let all = n * key.blocks * spec.scheme.words();
    key.launch(grid(all.div_ceil(INVOCATIONS)), buffers, &[]);
    y
}

/// Keys of every variant.
#[cfg(test)]
pub fn check_all(checked: &mut crate::gpu::tests::Checked) {
    for scheme in crate::gpu::tests::SCHEMES {
        checked.check(PackedRowsKernel {
            scheme,
            out: 9,
            blocks: 3,
        });
    }
}
