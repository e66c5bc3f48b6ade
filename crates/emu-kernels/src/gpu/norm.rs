//! Norms of rows on a GPU.

use burn_wgpu::CubeTensor;

use super::{Shader, grid, into_contiguous, output, reductions};
use crate::variants;

/// Invocations of a workgroup, which share a row.
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

/// Layer norm over the last axis of `[B, T, D]`, a view or not.
pub fn layer_norm(x: CubeTensor, weight: CubeTensor, bias: CubeTensor, eps: f64) -> CubeTensor {
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
