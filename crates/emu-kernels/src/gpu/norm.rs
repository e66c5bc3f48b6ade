//! GPU norms of rows.

use burn::backend::Cube;
use burn::backend::tensor::FloatTensor;
use burn::tensor::Shape;
use burn_wgpu::CubeTensor;

use super::{Shader, bits, grid, group_norm, into_contiguous, output, reductions};
use crate::ops::norm::NormBackend;
#[cfg(not(target_family = "wasm"))]
use crate::ops::norm::NormGradient;
use crate::spec::GroupNormSpec;
use crate::variants;

/// Workgroup size; a workgroup computes one row.
const SHARED: usize = 64;

fn layer_shader(width: usize) -> Shader {
    let mut constants = vec![("width", width), ("invocations", SHARED)];
    constants.extend(reductions(variants::subgroups()));
    Shader {
        name: "layer_norm",
        text: concat!(
            include_str!("../../../../shaders/shared/reduce.wgsl"),
            include_str!("../../../../shaders/norm/layer_norm.wgsl")
        ),
        constants,
        invocations: SHARED,
    }
}

/// Layer norm over the last axis of `[B, T, D]`, which may be a strided view.
fn layer_norm(x: CubeTensor, weight: CubeTensor, bias: CubeTensor, eps: f64) -> CubeTensor {
    let x = if x.meta.is_tiled() {
        into_contiguous(x)
    } else {
        x
    };
    let (weight, bias) = (into_contiguous(weight), into_contiguous(bias));
    let [b, t, d] = x.meta.shape().dims::<3>();
    let y = output(&x, x.meta.shape().clone());
    let mut words = vec![(b * t) as u32, t as u32, (eps as f32).to_bits(), 0];
    words.extend(x.meta.strides().iter().map(|&n| n as u32));
    words.push(0);
    layer_shader(d).launch_with(grid(b * t), &[&x, &weight, &bias, &y], &words);
    y
}

fn rms_shader(width: usize, eps: f64) -> Shader {
    let mut constants = vec![
        ("width", width),
        ("invocations", SHARED),
        ("eps_bits", bits(eps)),
    ];
    constants.extend(reductions(variants::subgroups()));
    Shader {
        name: "rms_norm",
        text: concat!(
            include_str!("../../../../shaders/shared/reduce.wgsl"),
            include_str!("../../../../shaders/norm/rms_norm.wgsl")
        ),
        constants,
        invocations: SHARED,
    }
}

/// RMS norm of rows.
fn rms_norm(x: CubeTensor, weight: CubeTensor, eps: f64) -> CubeTensor {
    let (x, weight) = (into_contiguous(x), into_contiguous(weight));
    let (rows, width) = (x.meta.shape()[0], x.meta.shape()[1]);
    let y = output(&x, Shape::new([rows, width]));
    rms_shader(width, eps).launch(grid(rows), &[&x, &weight, &y]);
    y
}

impl NormBackend for Cube {
    fn emu_layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        layer_norm(x, weight, bias, eps)
    }

    fn emu_rms_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        rms_norm(x, weight, eps)
    }

    fn emu_group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self> {
        group_norm::forward(x, None, weight, bias, spec)
    }

    fn emu_group_norm_with_skip(
        x: FloatTensor<Self>,
        skip: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self> {
        group_norm::forward(x, Some(skip), weight, bias, spec)
    }
}

#[cfg(not(target_family = "wasm"))]
impl NormGradient for Cube {
    fn emu_group_norm_x_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self> {
        group_norm::backward([x, weight, bias, grad], false, spec)
    }

    fn emu_group_norm_affine_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self> {
        group_norm::backward([x, weight, bias, grad], true, spec)
    }
}
