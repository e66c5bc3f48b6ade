//! Gradients of group norm with optional SiLU, in two passes over each group.
//!
//! B images, C channels, G groups, R = C/G · H · W values per group.

use burn::backend::flex::FlexTensor;

use super::groups::{Sizes, moments};
use crate::cpu::math::{sigmoid, sums};
use crate::cpu::{contiguous, for_each, tensor, values};
use crate::spec::GroupNormSpec;

/// Derivative of SiLU.
#[inline(always)]
fn slope(z: f32) -> f32 {
    let s = sigmoid(z);
    s * (1.0 + z * (1.0 - s))
}

/// Gradient of the input.
pub fn x_backward(
    x: FlexTensor,
    weight: FlexTensor,
    bias: FlexTensor,
    grad: FlexTensor,
    spec: GroupNormSpec,
) -> FlexTensor {
    let (x, weight, bias, grad) = (
        contiguous(x),
        contiguous(weight),
        contiguous(bias),
        contiguous(grad),
    );
    let s = Sizes::new(&x, spec);
    let (inputs, grads, weights, biases) =
        (values(&x), values(&grad), values(&weight), values(&bias));
    let mut out = vec![0.0; inputs.len()];
    let work: Vec<_> = inputs
        .chunks(s.row())
        .zip(grads.chunks(s.row()))
        .zip(out.chunks_mut(s.row()))
        .enumerate()
        .collect();
    for_each(work, |(i, ((row, grads), out))| {
        let first = i % spec.groups * s.channels;
        let (mean, scale) = moments(row, s.area, spec.eps);
        // 1. gradients of the normalized values, their mean, and their mean product with the normalized values
        let (mut sum, mut along) = (0.0f64, 0.0f64);
        for (c, ((line, grads), out)) in row
            .chunks_exact(s.area)
            .zip(grads.chunks_exact(s.area))
            .zip(out.chunks_exact_mut(s.area))
            .enumerate()
        {
            let (w, b) = (weights[first + c], biases[first + c]);
            for ((out, &v), &g) in out.iter_mut().zip(line).zip(grads) {
                let n = (v - mean) * scale;
                *out = if spec.silu { g * slope(n * w + b) } else { g } * w;
            }
            let [line_sum, line_along] = sums(out, line, |g, v| [g, g * ((v - mean) * scale)]);
            sum += f64::from(line_sum);
            along += f64::from(line_along);
        }
        let (sum, along) = (
            (sum / row.len() as f64) as f32,
            (along / row.len() as f64) as f32,
        );
        // 2. project out the components along mean and variance
        for (out, &v) in out.iter_mut().zip(row) {
            let n = (v - mean) * scale;
            *out = (*out - sum - n * along) * scale;
        }
    });
    tensor(out, s.dims)
}

/// Gradients of weight and bias, `[2, C]`.
pub fn affine_backward(
    x: FlexTensor,
    weight: FlexTensor,
    bias: FlexTensor,
    grad: FlexTensor,
    spec: GroupNormSpec,
) -> FlexTensor {
    let (x, weight, bias, grad) = (
        contiguous(x),
        contiguous(weight),
        contiguous(bias),
        contiguous(grad),
    );
    let s = Sizes::new(&x, spec);
    let (inputs, grads, weights, biases) =
        (values(&x), values(&grad), values(&weight), values(&bias));
    // [B, C, 2], summed over B in order at the end
    let mut parts = vec![0.0f32; s.b * s.c * 2];
    let work: Vec<_> = inputs
        .chunks(s.row())
        .zip(grads.chunks(s.row()))
        .zip(parts.chunks_mut(s.channels * 2))
        .enumerate()
        .collect();
    for_each(work, |(i, ((row, grads), part))| {
        let first = i % spec.groups * s.channels;
        let (mean, scale) = moments(row, s.area, spec.eps);
        for (c, (line, grads)) in row
            .chunks_exact(s.area)
            .zip(grads.chunks_exact(s.area))
            .enumerate()
        {
            let (w, b) = (weights[first + c], biases[first + c]);
            let [at_weight, at_bias] = sums(line, grads, |v, g| {
                let n = (v - mean) * scale;
                let g = if spec.silu { g * slope(n * w + b) } else { g };
                [g * n, g]
            });
            part[2 * c] = at_weight;
            part[2 * c + 1] = at_bias;
        }
    });
    let mut out = vec![0.0; 2 * s.c];
    for image in parts.chunks_exact(2 * s.c) {
        for c in 0..s.c {
            out[c] += image[2 * c];
            out[s.c + c] += image[2 * c + 1];
        }
    }
    tensor(out, [2, s.c])
}
