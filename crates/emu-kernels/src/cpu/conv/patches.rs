//! Patches of images as matrices (im2col): what a convolution and its gradients share.
//!
//! B images, C input channels, O output channels, k side of the kernel, K = C k², P output pixels of an image.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use crate::spec::ConvSpec;

/// Sizes of a call.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub b: usize,
    pub c: usize,
    pub h: usize,
    pub w: usize,
    pub o: usize,
    pub k: usize,
    pub ho: usize,
    pub wo: usize,
    stride: usize,
    before: usize,
}

impl Sizes {
    pub fn new(x: &FlexTensor, weight: &FlexTensor, spec: ConvSpec) -> Self {
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

    pub fn patch(&self) -> usize {
        self.c * self.k * self.k
    }

    pub fn pixels(&self) -> usize {
        self.ho * self.wo
    }

    /// Images per matrix product: enough pixels for an efficient gemm, at least two groups in a batch.
    pub fn group(&self) -> usize {
        (512 / self.pixels()).clamp(1, self.b.div_ceil(2).max(1))
    }

    /// Whether im2col is the identity: a 1x1 kernel with stride 1 and no padding.
    pub fn pointwise(&self) -> bool {
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
pub fn unroll(s: &Sizes, images: &[f32], columns: &mut [f32]) {
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
pub fn roll_add(s: &Sizes, columns: &[f32], images: &mut [f32]) {
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
pub fn gather(s: &Sizes, grads: &[f32], out: &mut [f32]) {
    let p = s.pixels();
    let n = grads.len() / (s.o * p);
    for (i, line) in grads.chunks_exact(p).enumerate() {
        let (image, channel) = (i / s.o, i % s.o);
        out[(channel * n + image) * p..][..p].copy_from_slice(line);
    }
}
