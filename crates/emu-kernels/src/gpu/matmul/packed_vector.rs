//! Gemv with a packed matrix: each weight is read once for all rows of x.

use burn_wgpu::CubeTensor;

use crate::gpu::grid;
use crate::gpu::kernel::{Kernel, Reduction, kernel};
use crate::spec::{BLOCK, PackedSpec, Scheme};
use crate::variants;

/// Workgroup size without subgroups.
const INVOCATIONS: usize = 64;

kernel! {
    /// Gemv with a packed matrix.
    PackedVectorKernel, "packed_vector" ["matmul/packed_vector.wgsl"]
    {
        /// Storage format of the matrix.
        scheme: Scheme,
        /// Rows of the matrix, or of each of a pair.
        out: usize,
        /// Blocks per row of the matrix.
        blocks: usize,
        /// Rows of x.
        rows: usize,
        /// Invocations that share a row of the matrix.
        lanes: usize,
        /// Rows of the matrix per invocation.
        per: usize,
        /// Whether the matrix is a pair of gate and factor.
        pair: bool,
        /// Whether a bias is added.
        bias: bool,
        /// Whether a residual is added.
        residual: bool,
        /// How the sums of the lanes are added.
        reduction: Reduction,
    }
    |key| {
        // With subgroups a row has a workgroup of its own, so that the mapping of invocations to subgroups does not matter.
        invocations: if key.reduction == Reduction::Trees { INVOCATIONS } else { key.lanes },
        matrices: if key.pair { 2 } else { 1usize },
    }
    /// `[rows, in]`, the packed matrix; the result, `[rows, out]`; scales, minimums; `[out]`, as the result.
    PackedVectorBuffers {
        x, words, y,
        scales if key.scheme.has_scales(), mins if key.scheme.has_mins(),
        bias if key.bias, residual if key.residual,
    }
}

impl PackedVectorKernel {
    pub fn new(spec: &PackedSpec, rows: usize) -> Self {
        let blocks = spec.width / BLOCK;
        let lanes = match blocks {
            0..16 => 8,
            16..48 => 16,
            _ => 32,
        };
        let out = if spec.pair { spec.out / 2 } else { spec.out };
        Self {
            scheme: spec.scheme,
            out,
            blocks,
            rows,
            lanes,
            per: if out >= 4096 { 4 } else { 2 },
            pair: spec.pair,
            bias: spec.bias,
            residual: spec.residual,
            reduction: Reduction::by(lanes == 32 && variants::wide_subgroups()),
        }
    }

    fn workgroups(&self) -> [usize; 3] {
        grid(
            self.out
                .div_ceil(self.invocations() / self.lanes * self.per),
        )
    }
}

/// `y = x Wᵀ + b + r`, or a gate, for contiguous `x` of a few rows.
pub fn packed_vector(
    x: &CubeTensor,
    [words, scales, mins]: [&CubeTensor; 3],
    [bias, residual]: [&CubeTensor; 2],
    y: &CubeTensor,
    spec: &PackedSpec,
) {
    let key = PackedVectorKernel::new(spec, x.meta.shape()[0]);
    let buffers = PackedVectorBuffers {
        x,
        words,
        y,
        scales: Some(scales),
        mins: Some(mins),
        bias: Some(bias),
        residual: Some(residual),
    };
    key.launch(key.workgroups(), buffers, &[]);
}

/// Keys of every variant.
#[cfg(test)]
pub fn check_all(checked: &mut crate::gpu::tests::Checked) {
    use crate::gpu::tests::{REDUCTIONS, packed_specs};
    for reduction in REDUCTIONS {
        for (width, out, rows) in [(32, 6, 1), (768, 6, 3), (2048, 9000, 8)] {
            for spec in packed_specs([out, width]) {
                let key = PackedVectorKernel::new(&spec, rows);
                // Only the widest has subgroups.
                if key.lanes == 32 || reduction == Reduction::Trees {
                    checked.check(PackedVectorKernel { reduction, ..key });
                }
            }
        }
    }
}
