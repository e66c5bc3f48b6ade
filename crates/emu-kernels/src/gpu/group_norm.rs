//! GPU group norm: one launch, for any group size.

use burn::backend::TensorMetadata;
use burn::tensor::Shape;
use burn_wgpu::CubeTensor;

use super::{Shader, apart, bits, grid, into_contiguous, output, reductions};
use crate::spec::GroupNormSpec;
use crate::variants;

/// Group norm over the channels of `x`, or over the concatenated channels of `x` and `skip`.
pub fn forward(
    x: CubeTensor,
    skip: Option<CubeTensor>,
    weight: CubeTensor,
    bias: CubeTensor,
    spec: GroupNormSpec,
) -> CubeTensor {
    let x = into_contiguous(x);
    let skip = skip.map(|skip| apart(into_contiguous(skip), &x));
    let (weight, bias) = (into_contiguous(weight), into_contiguous(bias));
    let [b, first, h, w] = x.shape().dims::<4>();
    let channels = first + skip.as_ref().map_or(0, |skip| skip.meta.shape()[1]);
    let y = output(&x, Shape::new([b, channels, h, w]));
    let mut tensors = vec![&x, &weight, &bias, &y];
    tensors.extend(&skip);
    let size = channels / spec.groups * h * w;
    let invocations = if size < 512 { 64 } else { 256 };
    let mut constants = vec![
        ("batch", b),
        ("channels", channels),
        ("first", first),
        ("area", h * w),
        ("groups", spec.groups),
        ("invocations", invocations),
        ("eps_bits", bits(spec.eps)),
        ("silu", usize::from(spec.silu)),
        ("skip", usize::from(skip.is_some())),
    ];
    constants.extend(reductions(variants::subgroups()));
    let shader = Shader {
        name: "group_norm",
        text: concat!(
            include_str!("../../../../shaders/shared/reduce.wgsl"),
            include_str!("../../../../shaders/norm/group_norm.wgsl")
        ),
        constants,
        invocations,
    };
    shader.launch(grid(b * spec.groups), &tensors);
    y
}

/// Gradient of the input, or with `affine` those of weight and bias, `[2, C]`.
pub fn backward(
    [x, weight, bias, grad]: [CubeTensor; 4],
    affine: bool,
    spec: GroupNormSpec,
) -> CubeTensor {
    let [x, weight, bias, grad] = [x, weight, bias, grad].map(into_contiguous);
    let dims @ [b, channels, h, w] = x.shape().dims::<4>();
    let y = match affine {
        true => output(&x, Shape::new([2, channels])),
        false => output(&x, Shape::new(dims)),
    };
    let shader = Shader {
        name: "group_norm_backward",
        text: include_str!("../../../../shaders/norm/group_norm_backward.wgsl"),
        constants: vec![
            ("batch", b),
            ("channels", channels),
            ("area", h * w),
            ("groups", spec.groups),
            ("invocations", 256),
            ("eps_bits", bits(spec.eps)),
            ("silu", usize::from(spec.silu)),
            ("plain", usize::from(!spec.silu)),
            ("affine", usize::from(affine)),
            ("input", usize::from(!affine)),
            ("weighted", usize::from(!affine || spec.silu)),
        ],
        invocations: 256,
    };
    let workgroups = if affine { spec.groups } else { b * spec.groups };
    let mut tensors = vec![&x, &grad, &y];
    if !affine || spec.silu {
        tensors.push(&weight);
    }
    if spec.silu {
        tensors.push(&bias);
    }
    shader.launch(grid(workgroups), &tensors);
    y
}
