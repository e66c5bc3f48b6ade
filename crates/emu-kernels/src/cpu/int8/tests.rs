use half::f16;

use super::blocks::round;
use super::*;
use crate::random::{Philox, Stream};
use crate::spec::{Activations, Scheme};

const ALL: [Scheme; 3] = [Scheme::Q8, Scheme::Q4, Scheme::Q4_1];
/// Sizes that are no multiple of a vector, a group of blocks or a tile; some are even, for gates.
const SIZES: [[usize; 2]; 7] = [
    [1, 32],
    [2, 64],
    [7, 96],
    [34, 160],
    [66, 288],
    [130, 544],
    [9, 1504],
];
const ROWS: [usize; 9] = [1, 2, 3, 4, 5, 6, 7, 9, 23];

/// A matrix that owns its parts, with its stored integers.
struct Made {
    bytes: Vec<u8>,
    scales: Vec<u16>,
    mins: Vec<u16>,
    spec: PackedSpec,
    stored: Vec<i64>,
}

impl Made {
    fn new(
        scheme: Scheme,
        shape: [usize; 2],
        bytes: Vec<u8>,
        scale: f64,
        random: &mut Philox,
    ) -> Self {
        let blocks = shape[0] * shape[1] / BLOCK;
        // Powers of two of either sign, so that products with them are exact.
        let mut some = |size: f64| -> Vec<u16> {
            let power = |u: f32| [1.0, -1.0, 0.5, 2.0][(u * 4.0) as usize % 4] * size;
            (0..blocks)
                .map(|_| f16::from_f64(power(random.uniform())).to_bits())
                .collect()
        };
        let (scales, mins) = (some(scale), some(scale));
        let stored = match scheme {
            Scheme::Q8 => bytes.iter().map(|b| i64::from(*b as i8)).collect(),
            _ => {
                let less =
                    |n: u8| i64::from(n) - if scheme == Scheme::Q4 && n > 7 { 16 } else { 0 };
                bytes
                    .iter()
                    .flat_map(|b| [less(b & 15), less(b >> 4)])
                    .collect()
            }
        };
        let spec = PackedSpec {
            activations: Activations::Int8,
            ..PackedSpec::plain(scheme, shape)
        };
        Self {
            bytes,
            scales,
            mins: if scheme.has_mins() { mins } else { vec![] },
            spec,
            stored,
        }
    }

    fn random(scheme: Scheme, shape: [usize; 2], scale: f64) -> Self {
        let mut random = Philox::new(shape[0] as u64, Stream::Init, shape[1] as u64);
        let count = shape[0] * shape[1] * scheme.bits() / 8;
        let bytes = (0..count)
            .map(|_| (random.uniform() * 256.0) as u8)
            .collect();
        Self::new(scheme, shape, bytes, scale, &mut random)
    }

    fn matrix(&self) -> Matrix<'_> {
        Matrix {
            bytes: &self.bytes,
            scales: &self.scales,
            mins: &self.mins,
            spec: self.spec,
        }
    }

    fn value(&self, row: usize, column: usize) -> f64 {
        let at = row * self.spec.width + column;
        let of = |halves: &[u16]| f16::from_bits(halves[at / BLOCK]).to_f64();
        let min = if self.mins.is_empty() {
            0.0
        } else {
            of(&self.mins)
        };
        self.stored[at] as f64 * of(&self.scales) + min
    }

    /// Reference product with rows of `x`, in f64.
    fn product(&self, x: &[f64]) -> Vec<f64> {
        let PackedSpec { out, width, .. } = self.spec;
        let element = |x: &[f64], o: usize| -> f64 {
            x.iter()
                .enumerate()
                .map(|(i, x)| x * self.value(o, i))
                .sum()
        };
        { x.chunks(width) }
            .flat_map(|x| (0..out).map(move |o| element(x, o)))
            .collect()
    }
}

fn available() -> impl Iterator<Item = Isa> {
    Isa::ALL.iter().copied().filter(|isa| isa.available())
}

/// Integers whose greatest absolute value in every block is 127, so that quantization is exact.
fn whole(rows: usize, width: usize) -> Vec<f32> {
    let mut random = Philox::new(rows as u64, Stream::Init, 7);
    let mut x: Vec<f32> = (0..rows * width)
        .map(|_| (random.uniform() * 255.0).floor() - 127.0)
        .collect();
    for (i, block) in x.chunks_mut(BLOCK).enumerate() {
        block[i * 5 % BLOCK] = if i % 2 == 0 { 127.0 } else { -127.0 };
    }
    x
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Where quantization is exact, every instruction set matches the reference bit for bit.
#[test]
fn whole_numbers_are_exact() {
    println!("{:?}", available().collect::<Vec<_>>());
    for scheme in ALL {
        for shape in SIZES {
            let w = Made::random(scheme, shape, 1.0);
            for rows in ROWS {
                let x = whole(rows, shape[1]);
                let want = w.product(&wide(&x));
                // Results are multiples of 1/2, and twice their size is below 2^24: every partial sum is exact in f32.
                if want.iter().any(|y| 2.0 * y.abs() > 8e6) {
                    continue;
                }
                for isa in available() {
                    let got = linear(isa, &x, w.matrix(), Added::default());
                    assert_eq!(
                        wide(&got),
                        want,
                        "{isa:?} {scheme:?} {shape:?}, {rows} rows"
                    );
                }
            }
        }
    }
}

/// Extreme values, which give the greatest sums.
#[test]
fn nothing_overflows() {
    for scheme in ALL {
        for byte in [0x80u8, 0x7f, 0xff, 0x00, 0x88, 0x77] {
            let shape = [34, 96];
            let bytes = vec![byte; shape[0] * shape[1] * scheme.bits() / 8];
            let mut random = Philox::new(3, Stream::Init, 0);
            let w = Made::new(scheme, shape, bytes, 1.0, &mut random);
            for (rows, sign) in [(1, 1.0), (2, -1.0), (9, 1.0), (9, -1.0)] {
                let x = vec![127.0 * sign; rows * shape[1]];
                let want = w.product(&wide(&x));
                for isa in available() {
                    let got = linear(isa, &x, w.matrix(), Added::default());
                    assert_eq!(wide(&got), want, "{isa:?} {scheme:?} {byte:x}, {rows} rows");
                }
            }
        }
    }
}

/// Error bounds of products: quantization of `x`, and f32 summation.
fn bounds(w: &Made, x: &[f32]) -> Vec<f64> {
    let PackedSpec { out, width, .. } = w.spec;
    let mut bounds = vec![];
    for x in x.chunks(width) {
        for o in 0..out {
            let blocks = x.chunks(BLOCK).enumerate().map(|(block, x)| {
                let most = x.iter().fold(0.0f64, |a, b| a.max(f64::from(b.abs())));
                let size: f64 = (0..BLOCK)
                    .map(|i| w.value(o, block * BLOCK + i).abs())
                    .sum();
                most * size
            });
            // Half of a step of 1/127, plus at most a few hundred roundings of partial sums, each below the sum of magnitudes.
            bounds.push(blocks.sum::<f64>() * (0.5 / 127.0 + 1e-5));
        }
    }
    bounds
}

/// Greatest error relative to its bound; infinite if a value is not finite or the lengths differ.
fn excess(got: &[f32], want: &[f64], bounds: &[f64]) -> f64 {
    if got.len() != want.len() || got.iter().any(|g| !g.is_finite()) {
        return f64::INFINITY;
    }
    let each = got.iter().zip(want).zip(bounds);
    each.map(|((g, w), b)| (f64::from(*g) - w).abs() / b.max(1e-30))
        .fold(0.0, f64::max)
}

#[test]
fn products_are_as_close_as_rounding_allows() {
    for scheme in ALL {
        for shape @ [out, width] in SIZES {
            let w = Made::random(scheme, shape, 1.0 / 256.0);
            for rows in ROWS {
                let mut random = Philox::new(11, Stream::Init, rows as u64);
                let (x, bias, residual) = (
                    random.normals(rows * width),
                    random.normals(out),
                    random.normals(rows * out),
                );
                let (plain, bounds) = (w.product(&wide(&x)), bounds(&w, &x));
                let sum: Vec<f64> = (0..rows * out)
                    .map(|i| plain[i] + f64::from(bias[i % out]) + f64::from(residual[i]))
                    .collect();
                let added = Added {
                    bias: Some(&bias),
                    residual: Some(&residual),
                };
                for isa in available() {
                    let (x, w) = (&x, w.matrix());
                    let got = linear(isa, x, w, Added::default());
                    let context = format!("{isa:?} {scheme:?} {shape:?}, {rows} rows");
                    assert!(excess(&got, &plain, &bounds) < 1.0, "{context}");
                    let bounds: Vec<f64> = bounds.iter().map(|b| b + 1e-6).collect();
                    assert!(
                        excess(&linear(isa, x, w, added), &sum, &bounds) < 1.0,
                        "{context}, added"
                    );
                }
            }
        }
    }
}

/// A gate equals SiLU and product of its two plain products.
#[test]
fn gates_are_those_of_their_products() {
    for scheme in ALL {
        for shape @ [out, width] in SIZES.into_iter().filter(|[out, _]| out % 2 == 0) {
            let mut w = Made::random(scheme, shape, 1.0 / 512.0);
            for rows in ROWS {
                let x = Philox::new(12, Stream::Init, rows as u64).normals(rows * width);
                for isa in available() {
                    w.spec.pair = false;
                    let both = linear(isa, &x, w.matrix(), Added::default());
                    let want: Vec<f64> = (0..rows * out / 2)
                        .map(|i| (i / (out / 2) * out + i % (out / 2), out / 2))
                        .map(|(at, half)| (f64::from(both[at]), f64::from(both[at + half])))
                        .map(|(g, u)| g / (1.0 + (-g).exp()) * u)
                        .collect();
                    w.spec.pair = true;
                    let got = linear(isa, &x, w.matrix(), Added::default());
                    let bounds: Vec<f64> = want.iter().map(|w| 1e-6 * (1.0 + w.abs())).collect();
                    let excess = excess(&got, &want, &bounds);
                    assert!(
                        excess < 1.0,
                        "{isa:?} {scheme:?} {shape:?}, {rows} rows: {excess}"
                    );
                }
            }
        }
    }
}

/// A non-finite value makes its own row NaN and no other; zeros and tiny values give zero.
#[test]
fn what_is_not_finite_is_seen() {
    let w = Made::random(Scheme::Q4_1, [18, 96], 1.0);
    for rows in [1, 3, 9] {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = whole(rows, 96);
            x[96 * (rows - 1) + 40] = wrong;
            for isa in available() {
                let y = linear(isa, &x, w.matrix(), Added::default());
                let (right, last) = y.split_at(18 * (rows - 1));
                assert!(right.iter().all(|y| y.is_finite()), "{isa:?}");
                assert!(last.iter().all(|y| y.is_nan()), "{isa:?}");
            }
        }
        for small in [0.0, 1e-40, -1e-38] {
            let x = vec![small; rows * 96];
            for isa in available() {
                let y = linear(isa, &x, w.matrix(), Added::default());
                assert!(y.iter().all(|y| y.abs() < 1e-30), "{isa:?} {small}: {y:?}");
            }
        }
    }
}

#[test]
fn rounding_moves_nothing_by_more_than_half_a_step() {
    let x = Philox::new(5, Stream::Init, 0).normals(BLOCK * 500);
    for (i, block) in x.as_chunks::<BLOCK>().0.iter().enumerate() {
        let size = 10f32.powi(i as i32 % 40 - 20);
        let block = block.map(|x| x * size);
        let (bytes, scale, sum) = round(&block);
        let most = block.iter().fold(0.0, |a: f32, b| a.max(b.abs()));
        assert_eq!(scale, most / 127.0);
        assert_eq!(sum, bytes.iter().map(|&b| i32::from(b)).sum::<i32>());
        assert!(bytes.iter().any(|b| b.abs() == 127));
        for (x, b) in block.iter().zip(bytes) {
            let off = (f64::from(*x) - f64::from(b) * f64::from(scale)).abs();
            assert!(off <= f64::from(scale) * 0.50001, "{x} as {b}");
        }
    }
}

#[test]
fn halves_widen_exactly() {
    for bits in 0..=u16::MAX {
        let (got, want) = (widened(bits), f16::from_bits(bits).to_f32());
        assert!(
            got == want || got.is_nan() && want.is_nan(),
            "{bits:x}: {got}"
        );
    }
}

#[test]
fn the_comparison_sees_a_wrong_result() {
    assert!(excess(&[1.0, 2.0], &[1.0, 2.0], &[0.1, 0.1]) < 1.0);
    assert!(excess(&[1.0, 2.2], &[1.0, 2.0], &[0.1, 0.1]) > 1.0);
    assert!(excess(&[1.0], &[1.0, 2.0], &[0.1, 0.1]) > 1.0);
    assert!(excess(&[f32::NAN], &[1.0], &[0.1]) > 1.0);
}
