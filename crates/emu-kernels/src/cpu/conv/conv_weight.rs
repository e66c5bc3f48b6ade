//! Gradient of a convolution's weights: matrix products over unrolled patches.
//!
//! B images, C input channels, O output channels, k side of the kernel, K = C k², P output pixels of an image.

use burn::backend::flex::FlexTensor;

use super::patches::{Sizes, gather, unroll};
use crate::cpu::matrix::{Matrix, product};
use crate::cpu::{contiguous, for_each, tensor, values};
use crate::spec::ConvSpec;

/// Gradient of the weights, `[O, C, k, k]`.
pub fn conv_weight(
    x: FlexTensor,
    weight: FlexTensor,
    grad: FlexTensor,
    spec: ConvSpec,
) -> FlexTensor {
    let s = Sizes::new(&x, &weight, spec);
    let (x, grad) = (contiguous(x), contiguous(grad));
    let (p, kk) = (s.pixels(), s.patch());
    let (images, grads) = (values(&x), values(&grad));
    // Eight partial sums, added in order at the end: the result does not depend on the number of threads.
    let share = s.b.div_ceil(8).max(1);
    let mut sums: Vec<Vec<f32>> = images
        .chunks(share * s.c * s.h * s.w)
        .map(|_| vec![0.0; s.o * kk])
        .collect();
    let work: Vec<_> = images
        .chunks(share * s.c * s.h * s.w)
        .zip(grads.chunks(share * s.o * p))
        .zip(sums.iter_mut())
        .map(|((images, grads), sum)| (images, grads, sum))
        .collect();
    let g = s.group().min(share);
    for_each(work, |(images, grads, sum)| {
        let mut columns = vec![];
        let mut together = vec![];
        for (images, grads) in images
            .chunks(g * s.c * s.h * s.w)
            .zip(grads.chunks(g * s.o * p))
        {
            let n = grads.len() / (s.o * p);
            columns.resize(kk * n * p, 0.0);
            unroll(&s, images, &mut columns);
            together.resize(grads.len(), 0.0);
            gather(&s, grads, &mut together);
            product(
                (sum.as_mut_slice(), kk),
                [s.o, kk, n * p],
                Matrix::rows(&together, n * p),
                Matrix::rows(&columns, n * p).transposed(),
                1.0,
                true,
            );
        }
    });
    let mut total = vec![0.0; s.o * kk];
    for sum in sums {
        total.iter_mut().zip(&sum).for_each(|(t, v)| *t += v);
    }
    tensor(total, [s.o, s.c, s.k, s.k])
}
