//! Layer norm of rows.

use burn_wgpu::CubeTensor;

use crate::gpu::kernel::{Kernel, Reduction, kernel};
use crate::gpu::{grid, into_contiguous, output};
use crate::variants;

/// Workgroup size; a workgroup computes one row.
const SHARED: usize = 64;

kernel! {
    /// Layer norm of rows.
    LayerNormKernel, "layer_norm" ["shared/reduce.wgsl", "norm/layer_norm.wgsl"]
    {
        /// D
        width: usize,
        /// How a row is summed.
        reduction: Reduction,
    }
    |key| { invocations: SHARED, }
    /// `[B, T, D]` with any strides, `[D]`, `[D]`; the result, `[B, T, D]`.
    LayerNormBuffers { x, weight, bias, y, }
    uniform info
}

/// Layer norm over the last axis of `[B, T, D]`, which may be a strided view.
pub fn layer_norm(x: CubeTensor, weight: CubeTensor, bias: CubeTensor, eps: f64) -> CubeTensor {
    let x = if x.meta.is_tiled() {
        into_contiguous(x)
    } else {
        x
    };
    let (weight, bias) = (into_contiguous(weight), into_contiguous(bias));
    let [b, t, width] = x.meta.shape().dims::<3>();
    let y = output(&x, x.meta.shape().clone());
    let mut words = vec![(b * t) as u32, t as u32, (eps as f32).to_bits(), 0];
    words.extend(x.meta.strides().iter().map(|&n| n as u32));
    words.push(0);
    let key = LayerNormKernel {
        width,
        reduction: Reduction::by(variants::subgroups()),
    };
    let buffers = LayerNormBuffers {
        x: &x,
        weight: &weight,
        bias: &bias,
        y: &y,
    };
    key.launch(grid(b * t), buffers, &words);
    y
}

/// Keys of every variant.
#[cfg(test)]
pub fn check_all(checked: &mut crate::gpu::tests::Checked) {
    for reduction in crate::gpu::tests::REDUCTIONS {
        checked.check(LayerNormKernel {
            width: 7,
            reduction,
        });
    }
}
