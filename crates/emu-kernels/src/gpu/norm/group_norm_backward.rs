//! Gradients of group norm.

use burn::backend::TensorMetadata;
use burn::tensor::Shape;
use burn_wgpu::CubeTensor;

use crate::gpu::kernel::{Kernel, Real, kernel};
use crate::gpu::{grid, into_contiguous, output};
use crate::spec::GroupNormSpec;

kernel! {
    /// Gradients of group norm.
    GroupNormBackwardKernel, "group_norm_backward" ["norm/group_norm_backward.wgsl"]
    {
        /// B
        batch: usize,
        /// C
        channels: usize,
        /// Height times width.
        area: usize,
        /// G
        groups: usize,
        /// Added to the variance.
        eps: Real,
        /// Whether SiLU follows.
        silu: bool,
        /// Whether the gradients are those of weight and bias; else that of the input.
        affine: bool,
    }
    |key| { invocations: 256, }
    /// `[B, C, area]`, the same; the gradient of the input, or `[2, C]`; `[C]`, `[C]`.
    GroupNormBackwardBuffers { x, grad, y, weight if key.silu || !key.affine, bias if key.silu, }
}

/// Gradient of the input, or with `affine` those of weight and bias, `[2, C]`.
pub fn group_norm_backward(
    [x, weight, bias, grad]: [CubeTensor; 4],
    affine: bool,
    spec: GroupNormSpec,
) -> CubeTensor {
    let [x, weight, bias, grad] = [x, weight, bias, grad].map(into_contiguous);
    let dims @ [batch, channels, h, w] = x.shape().dims::<4>();
    let y = match affine {
        true => output(&x, Shape::new([2, channels])),
        false => output(&x, Shape::new(dims)),
    };
    let key = GroupNormBackwardKernel {
        batch,
        channels,
        area: h * w,
        groups: spec.groups,
        eps: Real::new(spec.eps),
        silu: spec.silu,
        affine,
    };
    let buffers = GroupNormBackwardBuffers {
        x: &x,
        grad: &grad,
        y: &y,
        weight: Some(&weight),
        bias: Some(&bias),
    };
    let groups = if affine { 1 } else { batch } * spec.groups;
    key.launch(grid(groups), buffers, &[]);
    y
}

/// Keys of every variant.
#[cfg(test)]
pub fn check_all(checked: &mut crate::gpu::tests::Checked) {
    use crate::gpu::tests::BOTH;
    let eps = Real::new(1e-6);
    for [silu, affine] in BOTH.map(|silu| BOTH.map(|affine| [silu, affine])).concat() {
        checked.check(GroupNormBackwardKernel {
            batch: 2,
            channels: 12,
            area: 9,
            groups: 2,
            eps,
            silu,
            affine,
        });
    }
}
