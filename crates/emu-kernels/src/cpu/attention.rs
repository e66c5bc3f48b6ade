//! CPU attention, one head at a time: scores, softmax and output stay in the cache, and causal rows stop at the diagonal.
//!
//! B batch, H heads, T queries, S keys, E head size.

use burn::backend::Flex;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::{BoolTensor, FloatTensor};

use super::math::{dot, exp_shifted, max};
use super::matrix::{Matrix, product};
use super::{contiguous, for_each, tensor, values};
use crate::ops::attention::AttentionBackend;
#[cfg(not(target_family = "wasm"))]
use crate::ops::attention::AttentionGradient;
use crate::spec::AttentionSpec;

/// Queries per matrix product; under a causal mask each block skips the keys after it.
const BLOCK: usize = 32;

#[derive(Clone, Copy)]
struct Sizes {
    b: usize,
    h: usize,
    t: usize,
    s: usize,
    e: usize,
    causal: bool,
}

impl Sizes {
    fn new(q: &FlexTensor, k: &FlexTensor, spec: AttentionSpec) -> Self {
        let ([b, h, t, e], [_, _, s, _]) = (q.shape().dims::<4>(), k.shape().dims::<4>());
        Self {
            b,
            h,
            t,
            s,
            e,
            causal: spec.causal,
        }
    }

    /// Number of keys that query `row` sees.
    fn limit(&self, row: usize) -> usize {
        if self.causal {
            (row + 1 + self.s).saturating_sub(self.t).min(self.s)
        } else {
            self.s
        }
    }

    /// First row, number of rows and number of keys of each block of queries.
    fn blocks(self) -> impl Iterator<Item = (usize, usize, usize)> {
        (0..self.t).step_by(BLOCK).map(move |first| {
            let rows = BLOCK.min(self.t - first);
            (first, rows, self.limit(first + rows - 1))
        })
    }
}

/// The matrices `[rows, E]` of a tensor `[B, H, rows, E]` with any strides.
struct Heads<'a> {
    values: &'a [f32],
    strides: [usize; 4],
}

/// The tensor itself if its strides are positive, else a contiguous copy.
fn usable(x: FlexTensor) -> FlexTensor {
    if x.layout().has_positive_strides() {
        x
    } else {
        x.to_contiguous()
    }
}

impl<'a> Heads<'a> {
    fn new(x: &'a FlexTensor) -> Self {
        let all = x.storage::<f32>();
        let mut strides = [0; 4];
        for (to, from) in strides.iter_mut().zip(x.layout().strides()) {
            *to = from.unsigned_abs();
        }
        Self {
            values: all.get(x.layout().start_offset()..).unwrap_or_default(),
            strides,
        }
    }

    fn matrix(&self, b: usize, h: usize) -> Matrix<'a> {
        let [batch, head, row, column] = self.strides;
        Matrix {
            values: self.values.get(b * batch + h * head..).unwrap_or_default(),
            row,
            column,
        }
    }
}

/// Bias or mask, `[B or 1, H or 1, T or 1, S]`.
struct Rows<'a, V> {
    values: &'a [V],
    dims: [usize; 4],
}

impl<'a, V> Rows<'a, V> {
    fn row(&self, b: usize, h: usize, t: usize) -> &'a [V] {
        let [bs, hs, ts, s] = self.dims;
        let at = |i: usize, n: usize| if n == 1 { 0 } else { i };
        let start = ((at(b, bs) * hs + at(h, hs)) * ts + at(t, ts)) * s;
        self.values.get(start..start + s).unwrap_or_default()
    }
}

/// Softmax of the first `limit` scores; the rest become 0. If all are masked, the whole row becomes 0.
fn softmax(row: &mut [f32], limit: usize, bias: Option<&[f32]>, mask: Option<&[u8]>) {
    let (seen, unseen) = row.split_at_mut(limit);
    unseen.fill(0.0);
    if let Some(bias) = bias {
        seen.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
    }
    if let Some(mask) = mask {
        seen.iter_mut()
            .zip(mask)
            .for_each(|(x, &h)| *x = if h != 0 { f32::NEG_INFINITY } else { *x });
    }
    let greatest = max(seen);
    if greatest == f32::NEG_INFINITY {
        return seen.fill(0.0);
    }
    let factor = 1.0 / exp_shifted(seen, greatest);
    seen.iter_mut().for_each(|x| *x *= factor);
}

/// Output `[B, H, T, E]`, and the probabilities `[B, H, T, S]` if `keep`.
pub fn forward(
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    mask: FlexTensor,
    bias: FlexTensor,
    spec: AttentionSpec,
    keep: bool,
) -> (FlexTensor, FlexTensor) {
    let (q, k, v) = (usable(q), usable(k), usable(v));
    let (mask, bias) = (contiguous(mask), contiguous(bias));
    let z = Sizes::new(&q, &k, spec);
    let (queries, keys, contents) = (Heads::new(&q), Heads::new(&k), Heads::new(&v));
    let mask = spec.mask.then(|| Rows {
        values: mask.bytes(),
        dims: mask.shape().dims::<4>(),
    });
    let bias = spec.bias.then(|| Rows {
        values: values(&bias),
        dims: bias.shape().dims::<4>(),
    });
    let mut out = vec![0.0; z.b * z.h * z.t * z.e];
    let mut saved = vec![0.0; if keep { z.b * z.h * z.t * z.s } else { 0 }];
    let mut saved_parts = saved.chunks_mut((z.t * z.s).max(1));
    let work: Vec<_> = out
        .chunks_mut((z.t * z.e).max(1))
        .enumerate()
        .map(|(i, out)| (i, out, saved_parts.next()))
        .collect();
    for_each(work, |(i, out, saved)| {
        let (b, h) = (i / z.h, i % z.h);
        let (q, k, v) = (
            queries.matrix(b, h),
            keys.matrix(b, h),
            contents.matrix(b, h),
        );
        let mut scratch = vec![0.0; if keep { 0 } else { BLOCK.min(z.t) * z.s }];
        let mut saved = saved;
        for (first, rows, n) in z.blocks() {
            let scores: &mut [f32] = match &mut saved {
                Some(saved) => &mut saved[first * z.s..][..rows * z.s],
                None => &mut scratch[..rows * z.s],
            };
            product(
                (scores, z.s),
                [rows, n, z.e],
                q.skipping(first),
                k.transposed(),
                spec.scale as f32,
                false,
            );
            for (row, scores) in scores.chunks_exact_mut(z.s).enumerate() {
                let t = first + row;
                let (bias, mask) = (
                    bias.as_ref().map(|x| x.row(b, h, t)),
                    mask.as_ref().map(|x| x.row(b, h, t)),
                );
                softmax(scores, z.limit(t), bias, mask);
            }
            let out = &mut out[first * z.e..][..rows * z.e];
            product(
                (out, z.e),
                [rows, z.e, n],
                Matrix::rows(scores, z.s),
                v,
                1.0,
                false,
            );
        }
    });
    let saved = if keep {
        tensor(saved, [z.b, z.h, z.t, z.s])
    } else {
        tensor(vec![], [0])
    };
    (tensor(out, [z.b, z.h, z.t, z.e]), saved)
}

/// Gradients of queries, keys and values, and, if `spec.score_gradient`, of the scores, `[B, H, T, S]`.
pub fn backward(
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    probabilities: FlexTensor,
    grad: FlexTensor,
    spec: AttentionSpec,
) -> (FlexTensor, FlexTensor, FlexTensor, FlexTensor) {
    let (q, k, v, grad) = (usable(q), usable(k), usable(v), usable(grad));
    let probabilities = contiguous(probabilities);
    let z = Sizes::new(&q, &k, spec);
    let (queries, keys, contents, grads) = (
        Heads::new(&q),
        Heads::new(&k),
        Heads::new(&v),
        Heads::new(&grad),
    );
    let probabilities = values(&probabilities);
    let zeros = |rows: usize| vec![0.0; z.b * z.h * rows * z.e];
    let (mut at_q, mut at_k, mut at_v) = (zeros(z.t), zeros(z.s), zeros(z.s));
    let mut at_scores = vec![
        0.0;
        if spec.score_gradient {
            z.b * z.h * z.t * z.s
        } else {
            0
        }
    ];
    let mut score_parts = at_scores.chunks_mut((z.t * z.s).max(1));
    let (query_size, key_size) = ((z.t * z.e).max(1), (z.s * z.e).max(1));
    let work: Vec<_> = at_q
        .chunks_mut(query_size)
        .zip(at_k.chunks_mut(key_size).zip(at_v.chunks_mut(key_size)))
        .enumerate()
        .map(|(i, (at_q, (at_k, at_v)))| (i, at_q, at_k, at_v, score_parts.next()))
        .collect();
    for_each(work, |(i, at_q, at_k, at_v, at_scores)| {
        let (b, h) = (i / z.h, i % z.h);
        let (q, k, v) = (
            queries.matrix(b, h),
            keys.matrix(b, h),
            contents.matrix(b, h),
        );
        let grad = grads.matrix(b, h);
        let p = &probabilities[i * z.t * z.s..][..z.t * z.s];
        let mut scratch = vec![
            0.0;
            if spec.score_gradient {
                0
            } else {
                BLOCK.min(z.t) * z.s
            }
        ];
        let mut at_scores = at_scores;
        let scale = spec.scale as f32;
        for (first, rows, n) in z.blocks() {
            let p = &p[first * z.s..][..rows * z.s];
            let slopes: &mut [f32] = match &mut at_scores {
                Some(all) => &mut all[first * z.s..][..rows * z.s],
                None => &mut scratch[..rows * z.s],
            };
            let grad = grad.skipping(first);
            // 1. gradient of the probabilities, then of the scores through the softmax
            product(
                (slopes, z.s),
                [rows, n, z.e],
                grad,
                v.transposed(),
                1.0,
                false,
            );
            for (slopes, p) in slopes.chunks_exact_mut(z.s).zip(p.chunks_exact(z.s)) {
                let (slopes, p) = (&mut slopes[..n], &p[..n]);
                let mean = dot(slopes, p);
                slopes
                    .iter_mut()
                    .zip(p)
                    .for_each(|(d, p)| *d = p * (*d - mean));
            }
            // 2. gradients of queries, keys and values
            let slopes = Matrix::rows(slopes, z.s);
            let out = &mut at_q[first * z.e..][..rows * z.e];
            product((out, z.e), [rows, z.e, n], slopes, k, scale, false);
            product(
                (at_k, z.e),
                [n, z.e, rows],
                slopes.transposed(),
                q.skipping(first),
                scale,
                true,
            );
            product(
                (at_v, z.e),
                [n, z.e, rows],
                Matrix::rows(p, z.s).transposed(),
                grad,
                1.0,
                true,
            );
        }
    });
    let at_scores = if spec.score_gradient {
        tensor(at_scores, [z.b, z.h, z.t, z.s])
    } else {
        tensor(vec![], [0])
    };
    let of = |values: Vec<f32>, rows: usize| tensor(values, [z.b, z.h, rows, z.e]);
    (of(at_q, z.t), of(at_k, z.s), of(at_v, z.s), at_scores)
}

impl AttentionBackend for Flex {
    fn emu_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        mask: BoolTensor<Self>,
        bias: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> FloatTensor<Self> {
        forward(q, k, v, mask, bias, spec, false).0
    }
}

#[cfg(not(target_family = "wasm"))]
impl AttentionGradient for Flex {
    fn emu_attention_saving(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        mask: BoolTensor<Self>,
        bias: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        forward(q, k, v, mask, bias, spec, true)
    }

    fn emu_attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        _hidden: BoolTensor<Self>,
        _bias: FloatTensor<Self>,
        _y: FloatTensor<Self>,
        saved: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    ) {
        backward(q, k, v, saved, grad, spec)
    }
}
