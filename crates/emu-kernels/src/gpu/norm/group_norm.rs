//! Group norm: one launch, for any group size.

use burn::backend::TensorMetadata;
use burn::tensor::Shape;
use burn_wgpu::CubeTensor;

use crate::gpu::kernel::{Kernel, Real, Reduction, kernel};
use crate::gpu::{apart, grid, into_contiguous, output};
use crate::spec::GroupNormSpec;
use crate::variants;

/// Elements of a group from which a workgroup is large.
const LARGE: usize = 512;

kernel! {
    /// Group norm, and SiLU if enabled.
    GroupNormKernel, "group_norm" ["shared/reduce.wgsl", "norm/group_norm.wgsl"]
    {
        /// B
        batch: usize,
        /// C, of x and `skip` together
        channels: usize,
        /// Channels of x.
        first: usize,
        /// Height times width.
        area: usize,
        /// G
        groups: usize,
        /// Added to the variance.
        eps: Real,
        /// Whether SiLU follows.
        silu: bool,
        /// Whether the channels of `skip` follow those of x.
        skip: bool,
        /// How a group is summed.
        reduction: Reduction,
    }
    |key| { invocations: if key.channels / key.groups * key.area < LARGE { 64 } else { 256 }, }
    /// `[B, first, area]`, `[C]`, `[C]`; the result, `[B, C, area]`; `[B, C - first, area]`.
    GroupNormBuffers { x, weight, bias, y, skip if key.skip, }
}

/// Group norm over the channels of `x`, or over the concatenated channels of `x` and `skip`.
pub fn group_norm(
    x: CubeTensor,
    skip: Option<CubeTensor>,
    weight: CubeTensor,
    bias: CubeTensor,
    spec: GroupNormSpec,
) -> CubeTensor {
    let x = into_contiguous(x);
    let skip = skip.map(|skip| apart(into_contiguous(skip), &x));
    let (weight, bias) = (into_contiguous(weight), into_contiguous(bias));
    let [batch, first, h, w] = x.shape().dims::<4>();
    let channels = first + skip.as_ref().map_or(0, |skip| skip.meta.shape()[1]);
    let y = output(&x, Shape::new([batch, channels, h, w]));
    let key = GroupNormKernel {
        batch,
        channels,
        first,
        area: h * w,
        groups: spec.groups,
        eps: Real::new(spec.eps),
        silu: spec.silu,
        skip: skip.is_some(),
        reduction: Reduction::by(variants::subgroups()),
    };
    let buffers = GroupNormBuffers {
        x: &x,
        weight: &weight,
        bias: &bias,
        y: &y,
        skip: skip.as_ref(),
    };
    key.launch(grid(batch * spec.groups), buffers, &[]);
    y
}

/// Keys of every variant.
#[cfg(test)]
pub fn check_all(checked: &mut crate::gpu::tests::Checked) {
    use crate::gpu::tests::{BOTH, REDUCTIONS};
    let eps = Real::new(1e-6);
    for reduction in REDUCTIONS {
        for [silu, skip] in BOTH.map(|silu| BOTH.map(|skip| [silu, skip])).concat() {
            for area in [1, 100] {
                checked.check(GroupNormKernel {
                    batch: 2,
                    channels: 12,
                    first: if skip { 5 } else { 12 },
                    area,
                    groups: 2,
                    eps,
                    silu,
                    skip,
                    reduction,
                });
            }
        }
    }
}
