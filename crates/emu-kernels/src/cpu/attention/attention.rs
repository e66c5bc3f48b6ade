//! Attention, one head at a time: scores, softmax and output stay in the cache, and causal rows stop at the diagonal.
//!
//! B batch, H heads, T queries, S keys, E head size.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use super::heads::{BLOCK, Heads, Sizes, usable};
use crate::cpu::math::{exp_shifted, max};
use crate::cpu::matrix::{Matrix, product};
use crate::cpu::{contiguous, for_each, tensor, values};
use crate::spec::AttentionSpec;

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
pub fn attention(
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
