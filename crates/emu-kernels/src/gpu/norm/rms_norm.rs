//! RMS norm of rows.

use burn::tensor::Shape;
use burn_wgpu::CubeTensor;

use crate::gpu::kernel::{Kernel, Real, Reduction, kernel};
use crate::gpu::{grid, into_contiguous, output};
use crate::variants;

/// Workgroup size; a workgroup computes one row.
const SHARED: usize = 64;

kernel! {
    /// RMS norm of rows.
    RmsNormKernel, "rms_norm" ["shared/reduce.wgsl", "norm/rms_norm.wgsl"]
    {
        /// D
        width: usize,
        /// Added to the mean of squares.
        eps: Real,
        /// How a row is summed.
        reduction: Reduction,
    }
    |key| { invocations: SHARED, }
    /// `[rows, D]`, `[D]`; the result, `[rows, D]`.
    RmsNormBuffers { x, weight, y, }
}

/// RMS norm of rows.
pub fn rms_norm(x: CubeTensor, weight: CubeTensor, eps: f64) -> CubeTensor {
    let (x, weight) = (into_contiguous(x), into_contiguous(weight));
    let (rows, width) = (x.meta.shape()[0], x.meta.shape()[1]);
    let y = output(&x, Shape::new([rows, width]));
    let key = RmsNormKernel {
        width,
        eps: Real::new(eps),
        reduction: Reduction::by(variants::subgroups()),
    };
    let buffers = RmsNormBuffers {
        x: &x,
        weight: &weight,
        y: &y,
    };
    key.launch(grid(rows), buffers, &[]);
    y
}

/// Keys of every variant.
#[cfg(test)]
pub fn check_all(checked: &mut crate::gpu::tests::Checked) {
    let eps = Real::new(1e-6);
    for reduction in crate::gpu::tests::REDUCTIONS {
        checked.check(RmsNormKernel {
            width: 7,
            eps,
            reduction,
        });
    }
}
