//! Gradients of attention, one head at a time.
//!
//! B batch, H heads, T queries, S keys, E head size.

use burn::backend::flex::FlexTensor;

use super::heads::{BLOCK, Heads, Sizes, usable};
use crate::cpu::math::dot;
use crate::cpu::matrix::{Matrix, product};
use crate::cpu::{contiguous, for_each, tensor, values};
use crate::spec::AttentionSpec;

/// Gradients of queries, keys and values, and, if `spec.score_gradient`, of the scores, `[B, H, T, S]`.
pub fn attention_backward(
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
