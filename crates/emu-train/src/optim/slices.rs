//! Optimiser passes over plain slices in host memory. Each reads and writes every element once.

use rayon::prelude::*;

/// Elements per task of the thread pool. Sums are made per chunk and added in order, so that the result does not depend
/// on the number of threads.
const CHUNK: usize = 1 << 14;

/// Coefficients of one AdamW update of one parameter.
#[derive(Clone, Copy, Debug)]
pub struct AdamWUpdate {
    /// Factor on gradients, for clipping.
    pub scale: f64,
    /// Factor on the parameter: `1 - lr · weight decay`.
    pub decay: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// `1 / sqrt(1 - beta2^t)`
    pub root: f64,
    /// `lr / (1 - beta1^t)`
    pub rate: f64,
    /// Added to the square root of the second moment.
    pub eps: f64,
    /// `1 - d` of the EMA, where `d` is its decay at this step.
    pub follow: f64,
}

/// Updates a parameter, its moments and its EMA (if any) in place. An empty EMA is initialised with the old value. If
/// lengths differ, the shortest applies.
pub fn adamw(
    p: &mut [f32],
    g: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    average: Option<&mut Vec<f32>>,
    update: &AdamWUpdate,
) {
    let few = g.len() <= CHUNK;
    match average {
        None if few => part(p, g, m, v, update),
        None => {
            let parts = (
                p.par_chunks_mut(CHUNK),
                g.par_chunks(CHUNK),
                m.par_chunks_mut(CHUNK),
                v.par_chunks_mut(CHUNK),
            );
            parts
                .into_par_iter()
                .for_each(|(p, g, m, v)| part(p, g, m, v, update));
        }
        Some(a) => {
            if a.is_empty() {
                a.extend_from_slice(p);
            }
            if few {
                return part_with_average(p, g, m, v, a, update);
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
                .for_each(|((p, g, m, v), a)| part_with_average(p, g, m, v, a, update));
        }
    }
}

fn part(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], u: &AdamWUpdate) {
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
}

fn part_with_average(
    p: &mut [f32],
    g: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    a: &mut [f32],
    u: &AdamWUpdate,
) {
    part(p, g, m, v, u);
    let follow = u.follow as f32;
    a.iter_mut()
        .zip(p.iter())
        .for_each(|(a, p)| *a += follow * (p - *a));
}

/// The sum of squares, in f64.
pub fn square_sum(x: &[f32]) -> f64 {
    let sums: Vec<f64> = x.par_chunks(CHUNK).map(square_sum_of).collect();
    sums.iter().sum()
}

fn square_sum_of(x: &[f32]) -> f64 {
    // Eight independent sums: a single one would be bound by the latency of each addition.
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
pub fn scale(x: &mut [f32], factor: f32) {
    x.par_chunks_mut(CHUNK)
        .for_each(|x| x.iter_mut().for_each(|x| *x *= factor));
}

/// `x ← old · x + new · y`
pub fn mix(x: &mut [f32], y: &[f32], old: f32, new: f32) {
    x.par_chunks_mut(CHUNK)
        .zip(y.par_chunks(CHUNK))
        .for_each(|(x, y)| {
            x.iter_mut()
                .zip(y)
                .for_each(|(x, y)| *x = old * *x + new * y)
        });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_cover_every_element() {
        for n in [0, 3, CHUNK, CHUNK + 1, 3 * CHUNK + 5] {
            let mut x: Vec<f32> = (0..n).map(|i| (i % 7) as f32).collect();
            let right: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            assert_eq!(square_sum(&x), right);
            scale(&mut x, 2.0);
            let y = x.clone();
            mix(&mut x, &y, 0.25, 0.75);
            assert_eq!(x, y);
        }
    }
}
