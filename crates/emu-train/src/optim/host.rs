//! The passes over tensors that live in host memory: each reads and writes every element once.

use burn::tensor::TensorData;
use rayon::prelude::*;

use super::Update;

/// Elements that a thread takes at a time. Sums are made by chunk and added in order: the result does not depend on the
/// number of threads.
const CHUNK: usize = 1 << 14;

/// One update of a parameter, in place. An empty `average` starts from the old value.
///
/// A length that does not match is a mistake of this crate: the shorter one decides.
pub(super) fn step(
    data: &mut TensorData,
    gradient: &TensorData,
    m: &mut [f32],
    v: &mut [f32],
    average: Option<&mut Vec<f32>>,
    update: &Update,
) {
    let (Ok(p), Ok(g)) = (data.as_mut_slice::<f32>(), gradient.as_slice::<f32>()) else {
        debug_assert!(false, "parameters and gradients are f32");
        return;
    };
    let parts = (
        p.par_chunks_mut(CHUNK),
        g.par_chunks(CHUNK),
        m.par_chunks_mut(CHUNK),
        v.par_chunks_mut(CHUNK),
    );
    let few = g.len() <= CHUNK;
    match average {
        None if few => adamw(p, g, m, v, &mut [], update),
        None => parts
            .into_par_iter()
            .for_each(|(p, g, m, v)| adamw(p, g, m, v, &mut [], update)),
        Some(a) => {
            if a.is_empty() {
                a.extend_from_slice(p);
            }
            if few {
                return adamw(p, g, m, v, a, update);
            }
            let parts = (
                p.par_chunks_mut(CHUNK),
                g.par_chunks(CHUNK),
                m.par_chunks_mut(CHUNK),
                v.par_chunks_mut(CHUNK),
            );
            parts
                .into_par_iter()
                .zip(a.par_chunks_mut(CHUNK))
                .for_each(|((p, g, m, v), a)| adamw(p, g, m, v, a, update));
        }
    }
}

fn adamw(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], a: &mut [f32], u: &Update) {
    let (scale, decay, root, rate, eps) = (
        u.scale as f32,
        u.decay as f32,
        u.root as f32,
        u.rate as f32,
        u.eps as f32,
    );
    let (beta1, other1) = (u.beta1 as f32, (1.0 - u.beta1) as f32);
    let (beta2, other2) = (u.beta2 as f32, (1.0 - u.beta2) as f32);
    for (((p, g), m), v) in p.iter_mut().zip(g).zip(m.iter_mut()).zip(v.iter_mut()) {
        let g = g * scale;
        let new_m = beta1 * *m + other1 * g;
        let new_v = beta2 * *v + other2 * g * g;
        *p = decay * *p - rate * new_m / (new_v.sqrt() * root + eps);
        *m = new_m;
        *v = new_v;
    }
    let follow = u.follow as f32;
    for (a, p) in a.iter_mut().zip(p.iter()) {
        *a += follow * (p - *a);
    }
}

/// The sum of squares, in f64.
pub(super) fn square_sum(data: &TensorData) -> f64 {
    let Ok(x) = data.as_slice::<f32>() else {
        return f64::NAN;
    };
    let sums: Vec<f64> = x.par_chunks(CHUNK).map(square_sum_of).collect();
    sums.iter().sum()
}

fn square_sum_of(x: &[f32]) -> f64 {
    // Eight sums side by side: one sum would wait for each addition.
    let (chunks, rest) = x.as_chunks::<8>();
    let mut sums = [0f64; 8];
    for chunk in chunks {
        for (sum, &x) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(x) * f64::from(x);
        }
    }
    sums.iter().sum::<f64>()
        + rest
            .iter()
            .map(|&x| f64::from(x) * f64::from(x))
            .sum::<f64>()
}

/// `x ← factor · x`
pub(super) fn scale(data: &mut TensorData, factor: f64) {
    if factor == 1.0 {
        return;
    }
    if let Ok(x) = data.as_mut_slice::<f32>() {
        let factor = factor as f32;
        x.par_chunks_mut(CHUNK)
            .for_each(|x| x.iter_mut().for_each(|x| *x *= factor));
    }
}

/// `x ← (1 − share) · x + share · y`
pub(super) fn mix(data: &mut TensorData, other: &TensorData, share: f64) {
    if let (Ok(x), Ok(y)) = (data.as_mut_slice::<f32>(), other.as_slice::<f32>()) {
        let (old, new) = ((1.0 - share) as f32, share as f32);
        x.par_chunks_mut(CHUNK)
            .zip(y.par_chunks(CHUNK))
            .for_each(|(x, y)| {
                x.iter_mut()
                    .zip(y)
                    .for_each(|(x, y)| *x = old * *x + new * y)
            });
    }
}
