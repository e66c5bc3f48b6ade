//! Convolution and its input gradient: matrix products over unrolled patches (im2col), a few images at a time.
//!
//! B images, C input channels, O output channels, k side of the kernel, K = C k², P output pixels of an image.

use burn::backend::flex::FlexTensor;

use super::patches::{Sizes, gather, roll_add, unroll};
use crate::cpu::matrix::{Matrix, product};
use crate::cpu::{contiguous, for_each, tensor, values};
use crate::spec::ConvSpec;

/// `[B, C, H, W]`, `[O, C, k, k]`, `[O]` to `[B, O, H', W']`.
pub fn forward(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, spec: ConvSpec) -> FlexTensor {
    let (x, weight, bias) = (contiguous(x), contiguous(weight), contiguous(bias));
    let s = Sizes::new(&x, &weight, spec);
    let (p, kk, g) = (s.pixels(), s.patch(), s.group());
    let (images, weights, biases) = (values(&x), values(&weight), values(&bias));
    let mut out = vec![0.0; s.b * s.o * p];
    let work: Vec<_> = images
        .chunks(g * s.c * s.h * s.w)
        .zip(out.chunks_mut(g * s.o * p))
        .collect();
    for_each(work, |(images, out)| {
        let n = out.len() / (s.o * p);
        let unrolled;
        let columns = if s.pointwise() && n == 1 {
            images
        } else {
            let mut columns = vec![0.0; kk * n * p];
            unroll(&s, images, &mut columns);
            unrolled = columns;
            &unrolled
        };
        let product_of = |out: &mut [f32]| {
            for (line, bias) in out.chunks_exact_mut(n * p).zip(biases) {
                line.fill(*bias);
            }
            product(
                (out, n * p),
                [s.o, n * p, kk],
                Matrix::rows(weights, kk),
                Matrix::rows(columns, n * p),
                1.0,
                true,
            );
        };
        if n == 1 {
            product_of(out);
        } else {
            let mut together = vec![0.0; s.o * n * p];
            product_of(&mut together);
            for (i, line) in out.chunks_exact_mut(p).enumerate() {
                let (image, channel) = (i / s.o, i % s.o);
                line.copy_from_slice(&together[(channel * n + image) * p..][..p]);
            }
        }
    });
    tensor(out, [s.b, s.o, s.ho, s.wo])
}

/// Gradient of the input, `[B, C, H, W]`.
pub fn x_backward(
    x: FlexTensor,
    weight: FlexTensor,
    grad: FlexTensor,
    spec: ConvSpec,
) -> FlexTensor {
    let s = Sizes::new(&x, &weight, spec);
    let (weight, grad) = (contiguous(weight), contiguous(grad));
    let (p, kk, g) = (s.pixels(), s.patch(), s.group());
    let (weights, grads) = (values(&weight), values(&grad));
    let mut out = vec![0.0; s.b * s.c * s.h * s.w];
    let work: Vec<_> = grads
        .chunks(g * s.o * p)
        .zip(out.chunks_mut(g * s.c * s.h * s.w))
        .collect();
    for_each(work, |(grads, out)| {
        let n = grads.len() / (s.o * p);
        let mut together = vec![0.0; grads.len()];
        gather(&s, grads, &mut together);
        let mut columns = vec![0.0; kk * n * p];
        product(
            (&mut columns, n * p),
            [kk, n * p, s.o],
            Matrix::rows(weights, kk).transposed(),
            Matrix::rows(&together, n * p),
            1.0,
            false,
        );
        roll_add(&s, &columns, out);
    });
    tensor(out, [s.b, s.c, s.h, s.w])
}
