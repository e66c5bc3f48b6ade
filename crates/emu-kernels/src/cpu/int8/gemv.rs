//! Gemv, few rows of `x`: each row of the matrix is multiplied as it is unpacked.

use super::blocks::{Matrix, Output, flip, gate, round};
use super::isa::Job;
use super::simd::Simd;
use crate::spec::{BLOCK, PackedSpec, Scheme};

/// Quantized rows of `x`, in the order of the vectors.
pub struct RoundedRows {
    /// `[rows, groups, 2, 16 · GROUP]`: elements for the first vector of the matrix, then for the second.
    bytes: Vec<i8>,
    /// `[rows, groups, LANES]`: correction for the bias of the matrix.
    base: Vec<i32>,
    /// `[rows, groups, LANES]`: scales.
    scales: Vec<f32>,
    /// `[rows, groups, LANES]`: the first lane of a block holds its sum, for minimums.
    sums: Vec<f32>,
    rows: usize,
    groups: usize,
}

/// Bias added to elements of the matrix where they are unpacked as unsigned.
fn bias<S: Simd>(scheme: Scheme) -> i32 {
    match scheme {
        Scheme::Q8 => S::BYTE_BIAS,
        Scheme::Q4 => 8,
        Scheme::F16 | Scheme::Q4_1 => 0,
    }
}

/// Quantizes the rows of a gemv.
pub struct RoundRows<'a> {
    pub x: &'a [f32],
    pub w: Matrix<'a>,
}

impl Job for RoundRows<'_> {
    type Output = RoundedRows;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> RoundedRows {
        let PackedSpec { width, scheme, .. } = self.w.spec;
        let (rows, blocks) = (self.x.len() / width, width / BLOCK);
        let groups = blocks.div_ceil(S::GROUP);
        let half = BLOCK / 2;
        let mut to = RoundedRows {
            bytes: vec![0; rows * groups * BLOCK * S::GROUP],
            base: vec![0; rows * groups * S::LANES],
            scales: vec![0.0; rows * groups * S::LANES],
            sums: vec![0.0; rows * groups * S::LANES],
            rows,
            groups,
        };
        for (at, x) in self.x.as_chunks::<BLOCK>().0.iter().enumerate() {
            let (row, block) = (at / blocks, at % blocks);
            let (group, place) = (block / S::GROUP, block % S::GROUP);
            let (bytes, scale, sum) = round(x);
            let first = ((row * groups + group) * 2 * S::GROUP + place) * half;
            let second = first + S::GROUP * half;
            if scheme == Scheme::Q8 {
                to.bytes[first..first + half].copy_from_slice(&bytes[..half]);
                to.bytes[second..second + half].copy_from_slice(&bytes[half..]);
            } else {
                // Low nibbles are even-indexed elements.
                for i in 0..half {
                    to.bytes[first + i] = bytes[2 * i];
                    to.bytes[second + i] = bytes[2 * i + 1];
                }
            }
            let lane = (row * groups + group) * S::LANES + 4 * place;
            to.base[lane] = -bias::<S>(scheme) * sum;
            to.scales[lane..lane + 4].fill(scale);
            to.sums[lane] = scale * sum as f32;
        }
        to
    }
}

/// A range of columns of a gemv.
pub struct Gemv<'a> {
    pub x: &'a RoundedRows,
    pub w: Matrix<'a>,
    pub part: core::ops::Range<usize>,
    pub to: Output<'a>,
}

impl Job for Gemv<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the instruction set is available.
        unsafe {
            match self.w.spec.scheme {
                Scheme::Q8 => self.columns::<S, 0>(),
                Scheme::Q4 => self.columns::<S, 1>(),
                Scheme::Q4_1 => self.columns::<S, 2>(),
                // Rejected by the caller.
                Scheme::F16 => {}
            }
        }
    }
}

impl Gemv<'_> {
    /// SCHEME: index into [`SCHEMES`].
    #[inline(always)]
    unsafe fn columns<S: Simd, const SCHEME: u8>(&self) {
        let (w, to) = (self.w, self.to);
        let mut values = [0.0f32; 4];
        for column in self.part.clone() {
            let mut from = 0;
            // Four, two or one rows at a time.
            while from < self.x.rows {
                // SAFETY: the instruction set is available.
                let count = unsafe { self.some::<S, SCHEME>(column, from, &mut values) };
                if w.spec.pair {
                    let mut up = [0.0; 4];
                    // SAFETY: as above.
                    unsafe { self.some::<S, SCHEME>(column + to.made, from, &mut up) };
                    for (v, u) in values.iter_mut().zip(up) {
                        *v = gate(*v, u);
                    }
                }
                for (i, v) in values.iter().enumerate().take(count) {
                    // SAFETY: the column belongs to this part.
                    unsafe { to.write(from + i, column, *v) };
                }
                from += count;
            }
        }
    }

    /// A row of the matrix times the next four, two or one rows of `x`. Returns how many.
    #[inline(always)]
    unsafe fn some<S: Simd, const SCHEME: u8>(
        &self,
        row: usize,
        from: usize,
        out: &mut [f32; 4],
    ) -> usize {
        // SAFETY: the caller's guarantee; the rows of `x` exist.
        unsafe {
            match self.x.rows - from {
                4.. => self.dot::<S, SCHEME, 4>(row, from, out),
                2.. => self.dot::<S, SCHEME, 2>(row, from, out),
                _ => self.dot::<S, SCHEME, 1>(row, from, out),
            }
        }
    }

    /// A row of the matrix times C rows of `x`. Returns C.
    #[inline(always)]
    unsafe fn dot<S: Simd, const SCHEME: u8, const C: usize>(
        &self,
        row: usize,
        from: usize,
        out: &mut [f32; 4],
    ) -> usize {
        let scheme = SCHEMES[usize::from(SCHEME)];
        let blocks = self.w.spec.width / BLOCK;
        let (size, first) = (4 * scheme.words(), row * blocks);
        let mins = if scheme.has_mins() {
            self.w.mins
        } else {
            self.w.scales
        };
        let row = Row {
            bytes: self.w.bytes[first * size..][..blocks * size].as_ptr(),
            scales: self.w.scales[first..][..blocks].as_ptr(),
            mins: mins[first..][..blocks].as_ptr(),
        };
        // Rows of `x` are padded to groups by `RoundRows`.
        let padded = (from + C) * self.x.groups;
        debug_assert!(self.x.groups * S::GROUP >= blocks && from + C <= self.x.rows);
        debug_assert!(self.x.bytes.len() >= padded * BLOCK * S::GROUP);
        for lanes in [self.x.base.len(), self.x.scales.len(), self.x.sums.len()] {
            debug_assert!(lanes >= padded * S::LANES);
        }
        // SAFETY: all groups but the last are whole, and of the last only existing blocks are read from the matrix; rows of
        // `x` are padded as above.
        unsafe {
            let mut total = [S::zero(); C];
            let whole = blocks / S::GROUP;
            for group in 0..whole {
                self.group::<S, SCHEME, C>(row, from, group, S::GROUP, &mut total);
            }
            if blocks > whole * S::GROUP {
                let left = blocks - whole * S::GROUP;
                self.group::<S, SCHEME, C>(row, from, whole, left, &mut total);
            }
            for (out, total) in out.iter_mut().zip(total) {
                *out = S::sum(total);
            }
        }
        C
    }

    /// Adds the products of a group that has `left` blocks.
    #[inline(always)]
    unsafe fn group<S: Simd, const SCHEME: u8, const C: usize>(
        &self,
        row: Row,
        from: usize,
        group: usize,
        left: usize,
        total: &mut [S::Floats; C],
    ) {
        let scheme = SCHEMES[usize::from(SCHEME)];
        let (vector, size, first) = (16 * S::GROUP, 4 * scheme.words(), group * S::GROUP);
        debug_assert!((1..=S::GROUP).contains(&left) && group < self.x.groups);
        debug_assert!(first + left <= self.w.spec.width / BLOCK);
        // SAFETY: the caller's guarantee.
        unsafe {
            let at = row.bytes.add(first * size);
            let w = if scheme == Scheme::Q8 {
                let there = left * BLOCK;
                let (a, b) = (there.min(vector), there.saturating_sub(vector));
                S::halves([S::load(at, a), S::load(at.add(a), b)])
            } else {
                S::nibbles(S::load(at, left * BLOCK / 2), flip(scheme))
            };
            let scale = S::widen(row.scales.add(first), left);
            let min = match scheme.has_mins() {
                true => S::widen(row.mins.add(first), left),
                false => S::zero(),
            };
            for c in 0..C {
                let place = (from + c) * self.x.groups + group;
                let x = self.x.bytes.as_ptr().add(place * 2 * vector).cast::<u8>();
                let x = [S::load(x, vector), S::load(x.add(vector), vector)];
                let lane = place * S::LANES;
                let base = match scheme {
                    Scheme::Q8 if S::BYTE_BIAS == 0 => S::splat_ints(0),
                    Scheme::Q4_1 => S::splat_ints(0),
                    _ => S::load_ints(self.x.base.as_ptr().add(lane)),
                };
                let sum = match scheme {
                    Scheme::Q8 => S::dot_bytes(base, w, x),
                    _ => S::dot_nibbles(base, w, x),
                };
                let d = S::load_floats(self.x.scales.as_ptr().add(lane));
                total[c] = S::mul_add(S::floats(sum), S::mul(scale, d), total[c]);
                if scheme.has_mins() {
                    let sum = S::load_floats(self.x.sums.as_ptr().add(lane));
                    total[c] = S::mul_add(min, sum, total[c]);
                }
            }
        }
    }
}

/// Schemes by index, for const generics.
const SCHEMES: [Scheme; 3] = [Scheme::Q8, Scheme::Q4, Scheme::Q4_1];

/// Start of a row of the matrix.
#[derive(Clone, Copy)]
struct Row {
    bytes: *const u8,
    scales: *const u16,
    mins: *const u16,
}
