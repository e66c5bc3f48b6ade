//! Math functions that compilers vectorize, unlike those of the C library: no calls, no branches, no tables.

/// `e^x` within 2 units in the last place; 0 below -87.3 (where results would be subnormal), at most `e^88`.
///
/// Cody and Waite's reduction to `|r| <= ln 2 / 2`, then a polynomial of degree 6.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0; // 1.5 · 2^23: adding it rounds to an integer, in the lowest bits
    let small = x < -87.3;
    let x = if x > 88.0 { 88.0 } else { x };
    let x = if small { -87.3 } else { x };
    let shifted = x * core::f32::consts::LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if small { 0.0 } else { p * power }
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Error function, absolute error below 3e-7 (Abramowitz and Stegun 7.1.26).
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * a);
    let p = 1.061_405_4 * t - 1.453_152;
    let p = p * t + 1.421_413_7;
    let p = p * t - 0.284_496_74;
    let p = (p * t + 0.254_829_6) * t;
    (1.0 - p * exp(-a * a)).copysign(x)
}

const LANES: usize = 16;

/// Sums of `f` over pairs of elements, in a fixed order that SIMD code of any width can follow.
#[inline(always)]
pub fn sums<const K: usize>(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> [f32; K]) -> [f32; K] {
    let mut lanes = [[0.0f32; LANES]; K];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            let terms = f(a[i], b[i]);
            for k in 0..K {
                lanes[k][i] += terms[k];
            }
        }
    }
    let mut totals = lanes.map(|lanes| lanes.iter().sum::<f32>());
    for (a, b) in a_rest.iter().zip(b_rest) {
        let terms = f(*a, *b);
        for k in 0..K {
            totals[k] += terms[k];
        }
    }
    totals
}

/// Dot product, in a fixed summation order.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    sums(a, b, |a, b| [a * b])[0]
}

/// Maximum; -infinity if empty.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    let mut greatest = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (m, &x) in greatest.iter_mut().zip(chunk) {
            *m = if x > *m { x } else { *m };
        }
    }
    greatest
        .iter()
        .chain(rest)
        .fold(f32::NEG_INFINITY, |m, &x| if x > m { x } else { m })
}

/// `x ← e^(x - shift)`; returns the sum, in a fixed order.
#[inline(always)]
pub fn exp_shifted(x: &mut [f32], shift: f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (chunks, rest) = x.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *x = exp(*x - shift);
            *sum += *x;
        }
    }
    let mut sum: f32 = sums.iter().sum();
    for x in rest {
        *x = exp(*x - shift);
        sum += *x;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_its_kin_are_close() {
        for i in -9000..9000 {
            let x = i as f32 * 0.01;
            let (found, right) = (f64::from(exp(x)), f64::from(x.min(88.0)).exp());
            if x > -87.2 {
                assert!(
                    (found / right - 1.0).abs() < 3e-7,
                    "exp {x}: {found} is not {right}"
                );
            } else {
                assert!(found < 1.5e-38);
            }
            let right = 1.0 / (1.0 + (-f64::from(x)).exp());
            assert!((f64::from(sigmoid(x)) - right).abs() < 2e-7, "sigmoid {x}");
            assert!(
                (f64::from(erf(x)) - libm::erf(f64::from(x))).abs() < 4e-7,
                "erf {x}"
            );
        }
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn sums_cover_every_element() {
        for n in [0, 1, 15, 16, 17, 50] {
            let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
            assert_eq!(dot(&x, &x), x.iter().map(|x| x * x).sum::<f32>());
            assert_eq!(max(&x), x.last().copied().unwrap_or(f32::NEG_INFINITY));
            let mut y = vec![1.0; n];
            assert!((exp_shifted(&mut y, 1.0) - n as f32).abs() < 1e-4);
        }
    }
}
