//! CPU convolution: matrix products over unrolled patches (im2col), a few images at a time.
//!
//! B images, C input channels, O output channels, k side of the kernel, K = C k², P output pixels of an image.

use burn::backend::Flex;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;

use super::matrix::{Matrix, product};
use super::{contiguous, for_each, tensor, values};
use crate::ops::conv::ConvBackend;
#[cfg(not(target_family = "wasm"))]
use crate::ops::conv::ConvGradient;
use crate::spec::ConvSpec;

#[derive(Clone, Copy, Debug)]
struct Sizes {
    b: usize,
    c: usize,
    h: usize,
    w: usize,
    o: usize,
    k: usize,
    ho: usize,
    wo: usize,
    stride: usize,
    before: usize,
}

impl Sizes {
    fn new(x: &FlexTensor, weight: &FlexTensor, spec: ConvSpec) -> Self {
        let [b, c, h, w] = x.shape().dims::<4>();
        let [o, _, k, _] = weight.shape().dims::<4>();
        let out = |n: usize| (n + spec.padding.0 + spec.padding.1 - k) / spec.stride + 1;
        Self {
            b,
            c,
            h,
            w,
            o,
            k,
            ho: out(h),
            wo: out(w),
            stride: spec.stride,
            before: spec.padding.0,
        }
    }

    fn patch(&self) -> usize {
        self.c * self.k * self.k
    }

    fn pixels(&self) -> usize {
        self.ho * self.wo
    }

    /// Images per matrix product: enough pixels for an efficient gemm, at least two groups in a batch.
    fn group(&self) -> usize {
        (512 / self.pixels()).clamp(1, self.b.div_ceil(2).max(1))
    }

    /// Whether im2col is the identity: a 1x1 kernel with stride 1 and no padding.
    fn pointwise(&self) -> bool {
        self.k == 1
            && self.stride == 1
            && self.before == 0
            && self.ho == self.h
            && self.wo == self.w
    }

    /// Range of output columns whose input column `ox · stride + kx - before` is inside the row.
    fn inside(&self, kx: usize) -> (usize, usize) {
        let first = self.before.saturating_sub(kx).div_ceil(self.stride);
        let last = (self.w + self.before)
            .saturating_sub(kx)
            .div_ceil(self.stride);
        (first.min(self.wo), last.min(self.wo))
    }
}

/// im2col: unrolls images into `[K, n P]`.
fn unroll(s: &Sizes, images: &[f32], columns: &mut [f32]) {
    let (area, p) = (s.h * s.w, s.pixels());
    let n = images.len() / (s.c * area);
    for (row, out) in columns.chunks_exact_mut(n * p).enumerate() {
        let (c, ky, kx) = (row / (s.k * s.k), row / s.k % s.k, row % s.k);
        let (first, last) = s.inside(kx);
        for (image, out) in out.chunks_exact_mut(p).enumerate() {
            let plane = &images[(image * s.c + c) * area..][..area];
            for (oy, out) in out.chunks_exact_mut(s.wo).enumerate() {
                let y = oy * s.stride + ky;
                if y < s.before || y >= s.h + s.before || first >= last {
                    out.fill(0.0);
                    continue;
                }
                let line = &plane[(y - s.before) * s.w..][..s.w];
                out[..first].fill(0.0);
                out[last..].fill(0.0);
                let from = first * s.stride + kx - s.before;
                if s.stride == 1 {
                    out[first..last].copy_from_slice(&line[from..from + last - first]);
                } else {
                    for (out, value) in out[first..last]
                        .iter_mut()
                        .zip(line[from..].iter().step_by(s.stride))
                    {
                        *out = *value;
                    }
                }
            }
        }
    }
}

/// col2im: adds `[K, n P]` to the pixels it was unrolled from.
fn roll_add(s: &Sizes, columns: &[f32], images: &mut [f32]) {
    let (area, p) = (s.h * s.w, s.pixels());
    let n = images.len() / (s.c * area);
    for (row, grad) in columns.chunks_exact(n * p).enumerate() {
        let (c, ky, kx) = (row / (s.k * s.k), row / s.k % s.k, row % s.k);
        let (first, last) = s.inside(kx);
        if first >= last {
            continue;
        }
        for (image, grad) in grad.chunks_exact(p).enumerate() {
            let plane = &mut images[(image * s.c + c) * area..][..area];
            for (oy, grad) in grad.chunks_exact(s.wo).enumerate() {
                let y = oy * s.stride + ky;
                if y < s.before || y >= s.h + s.before {
                    continue;
                }
                let line = &mut plane[(y - s.before) * s.w..][..s.w];
                let from = first * s.stride + kx - s.before;
                if s.stride == 1 {
                    for (out, value) in line[from..].iter_mut().zip(&grad[first..last]) {
                        *out += *value;
                    }
                } else {
                    for (out, value) in line[from..]
                        .iter_mut()
                        .step_by(s.stride)
                        .zip(&grad[first..last])
                    {
                        *out += *value;
                    }
                }
            }
        }
    }
}

/// Transposes `[n, O, P]` to `[O, n P]`.
fn gather(s: &Sizes, grads: &[f32], out: &mut [f32]) {
    let p = s.pixels();
    let n = grads.len() / (s.o * p);
    for (i, line) in grads.chunks_exact(p).enumerate() {
        let (image, channel) = (i / s.o, i % s.o);
        out[(channel * n + image) * p..][..p].copy_from_slice(line);
    }
}

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

/// Gradient of the weights, `[O, C, k, k]`.
pub fn weight_backward(
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

impl ConvBackend for Flex {
    fn emu_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> FloatTensor<Self> {
        forward(x, weight, bias, spec)
    }
}

#[cfg(not(target_family = "wasm"))]
impl ConvGradient for Flex {
    fn emu_conv2d_x_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> FloatTensor<Self> {
        x_backward(x, weight, grad, spec)
    }

    fn emu_conv2d_parameters_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        use burn::backend::ops::ModuleOps;
        let at_bias =
            <Self as ModuleOps<Self>>::conv2d_bias_backward(x.clone(), bias, grad.clone());
        (weight_backward(x, weight, grad, spec), at_bias)
    }
}
