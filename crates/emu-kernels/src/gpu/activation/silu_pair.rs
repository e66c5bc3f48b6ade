//! The SiLU gate of both halves of each row.

use burn::tensor::Shape;
use burn_wgpu::CubeTensor;

use crate::gpu::kernel::{Kernel, kernel};
use crate::gpu::{grid, into_contiguous, output};

/// Workgroup size; an invocation computes one element.
const SINGLE: usize = 64;

kernel! {
    /// `silu(x[.., :D]) * x[.., D:]`.
    SiluPairKernel, "silu_pair" ["activation/silu_pair.wgsl"]
    {
        /// D
        width: usize,
    }
    |key| { invocations: SINGLE, }
    /// `[rows, 2 D]`; the result, `[rows, D]`.
    SiluPairBuffers { x, y, }
}

/// `silu(x[.., :D]) * x[.., D:]`.
pub fn silu_pair(x: CubeTensor) -> CubeTensor {
    let x = into_contiguous(x);
    let (rows, width) = (x.meta.shape()[0], x.meta.shape()[1] / 2);
    let y = output(&x, Shape::new([rows, width]));
    let workgroups = grid((rows * width).div_ceil(SINGLE));
    SiluPairKernel { width }.launch(workgroups, SiluPairBuffers { x: &x, y: &y }, &[]);
    y
}

/// Keys of every variant.
#[cfg(test)]
pub fn check_all(checked: &mut crate::gpu::tests::Checked) {
    checked.check(SiluPairKernel { width: 7 });
}
