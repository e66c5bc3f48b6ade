//! Group norm with optional SiLU, in two passes over each group.
//!
//! B images, C channels, G groups, R = C/G · H · W values per group.

use burn::backend::flex::FlexTensor;

use super::groups::{Sizes, moments};
use crate::cpu::math::sigmoid;
use crate::cpu::{contiguous, for_each, tensor, values};
use crate::spec::GroupNormSpec;

/// `[B, C, H, W]` to the same shape.
pub fn group_norm(
    x: FlexTensor,
    weight: FlexTensor,
    bias: FlexTensor,
    spec: GroupNormSpec,
) -> FlexTensor {
    let (x, weight, bias) = (contiguous(x), contiguous(weight), contiguous(bias));
    let s = Sizes::new(&x, spec);
    let (inputs, weights, biases) = (values(&x), values(&weight), values(&bias));
    let mut out = vec![0.0; inputs.len()];
    let work: Vec<_> = inputs
        .chunks(s.row())
        .zip(out.chunks_mut(s.row()))
        .enumerate()
        .collect();
    for_each(work, |(i, (row, out))| {
        let first = i % spec.groups * s.channels;
        let (mean, scale) = moments(row, s.area, spec.eps);
        for (c, (line, out)) in row
            .chunks_exact(s.area)
            .zip(out.chunks_exact_mut(s.area))
            .enumerate()
        {
            let (a, b) = (scale * weights[first + c], biases[first + c]);
            let shift = b - mean * a;
            if spec.silu {
                out.iter_mut().zip(line).for_each(|(out, &v)| {
                    let z = v * a + shift;
                    *out = z * sigmoid(z);
                });
            } else {
                out.iter_mut()
                    .zip(line)
                    .for_each(|(out, &v)| *out = v * a + shift);
            }
        }
    });
    tensor(out, s.dims)
}
