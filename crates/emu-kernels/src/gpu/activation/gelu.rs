//! GELU of rows, and its gate.

use burn::tensor::Shape;
use burn_wgpu::CubeTensor;

use crate::gpu::kernel::{Kernel, kernel};
use crate::gpu::{grid, into_contiguous, output};

/// Workgroup size; an invocation computes one element.
const SINGLE: usize = 64;

kernel! {
    /// `x · Φ(x)`, or a gate.
    GeluKernel, "gelu" ["activation/gelu.wgsl"]
    {
        /// Rows.
        rows: usize,
        /// D
        width: usize,
        /// Whether the result is the first half of each row times that of its second half.
        gated: bool,
    }
    |key| { invocations: SINGLE, }
    /// `[rows, D]`, gated `[rows, 2 D]`; the result, `[rows, D]`.
    GeluBuffers { x, y, }
}

/// `x · Φ(x)` of rows; if `gated`, the first half of each row times that of its second half.
pub fn gelu(x: CubeTensor, gated: bool) -> CubeTensor {
    let x = into_contiguous(x);
    let (rows, width) = (x.meta.shape()[0], x.meta.shape()[1]);
    let width = if gated { width / 2 } else { width };
    let y = output(&x, Shape::new([rows, width]));
    let workgroups = grid((rows * width).div_ceil(SINGLE));
    let key = GeluKernel { rows, width, gated };
    key.launch(workgroups, GeluBuffers { x: &x, y: &y }, &[]);
    y
}

/// Keys of every variant.
#[cfg(test)]
pub fn check_all(checked: &mut crate::gpu::tests::Checked) {
    for gated in crate::gpu::tests::BOTH {
        checked.check(GeluKernel {
            rows: 3,
            width: 7,
            gated,
        });
    }
}
