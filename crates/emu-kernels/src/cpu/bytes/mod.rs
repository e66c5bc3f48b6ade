//! Products of packed matrices with rows that are rounded to bytes, so that integers are multiplied with integers.
//!
//! Of every block of 32 of `x` the greatest absolute value becomes 127: `x ≈ d·q`, `d = max / 127`, and no element moves by
//! more than `d / 2`. Sums over a block are exact integers; they become floats with the two scales of the block. So
//! `|y - x·w| <= Σ over blocks of d / 2 · Σ |w|`, besides the rounding of the sum over blocks in f32.
//!
//! Few rows of `x` (a token, beams): each row of the matrix is read once and multiplied with all of them, four lanes of a
//! vector for each block. Many rows (a prompt): rows of the matrix are unpacked side by side, so that a lane is a row, and
//! multiplied in tiles of registers.

// Loops over registers: all arrays have the same small size.
#![allow(clippy::needless_range_loop)]

mod few;
mod many;
mod simd;
#[cfg(target_family = "wasm")]
mod wasm;
#[cfg(target_arch = "x86_64")]
mod x86;

use few::{Few, RoundFew};
use many::{Lanes, Many, round_many};
use simd::Portable;
pub use simd::Simd;

use super::math::sigmoid;
use crate::packed::{BLOCK, PackedSpec, Scheme};

/// Up to so many rows of `x` every row of the matrix is multiplied as it is unpacked.
const FEW: usize = 6;
/// Rows of `x` in a tile of registers.
const COLUMNS: usize = 4;
/// Vectors of rows of the matrix in a tile.
const VECTORS: usize = 2;
/// Products that are worth another thread: about 5 µs.
#[cfg(not(target_family = "wasm"))]
const PART: usize = 1 << 17;

/// An instruction set that products of bytes are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// None in particular.
    Portable,
    /// AVX-512 with VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 with AVX-VNNI.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// WebAssembly's.
    #[cfg(target_family = "wasm")]
    Simd128,
}

impl Isa {
    /// All of them, the fastest first.
    pub const ALL: &[Self] = &[
        #[cfg(target_arch = "x86_64")]
        Self::Avx512,
        #[cfg(target_arch = "x86_64")]
        Self::AvxVnni,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        #[cfg(target_family = "wasm")]
        Self::Simd128,
        Self::Portable,
    ];

    /// Whether this machine has it.
    pub fn available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => is_x86_feature_detected!("avxvnni") && Self::Avx2.available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_family = "wasm")]
            Self::Simd128 => true,
        }
    }

    /// The fastest that this machine has.
    pub fn best() -> Self {
        let mut all = Self::ALL.iter().copied();
        all.find(|isa| isa.available()).unwrap_or(Self::Portable)
    }

    /// Runs a job, compiled for this instruction set.
    pub fn run<J: Job>(self, job: J) -> J::Output {
        assert!(self.available(), "{self:?} is not there");
        match self {
            // SAFETY: no instructions in particular.
            Self::Portable => unsafe { job.run::<Portable>() },
            // SAFETY: available, as for the others.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { avx512(job) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::AvxVnni => unsafe { avx_vnni(job) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx2 => unsafe { avx2(job) },
            #[cfg(target_family = "wasm")]
            // SAFETY: the module is compiled for it.
            Self::Simd128 => unsafe { job.run::<wasm::Simd128>() },
        }
    }
}

/// What is compiled once for each instruction set. Implementations are inlined into the functions below.
pub trait Job {
    /// What comes of it.
    type Output;
    /// Does it.
    ///
    /// # Safety
    /// The instruction set must be there.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

/// # Safety
/// The features must be there.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn avx512<J: Job>(job: J) -> J::Output {
    // SAFETY: the caller's.
    unsafe { job.run::<x86::Avx512>() }
}

/// # Safety
/// The features must be there.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avxvnni,avx2,fma,f16c")]
unsafe fn avx_vnni<J: Job>(job: J) -> J::Output {
    // SAFETY: the caller's.
    unsafe { job.run::<x86::Avx2<true>>() }
}

/// # Safety
/// The features must be there.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<J: Job>(job: J) -> J::Output {
    // SAFETY: the caller's.
    unsafe { job.run::<x86::Avx2<false>>() }
}

/// A packed matrix in slices: bytes of its words, the bits of scales and minimums in f16.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// 32 or 16 to a block.
    pub bytes: &'a [u8],
    /// One of a block.
    pub scales: &'a [u16],
    /// One of a block where the scheme has them.
    pub mins: &'a [u16],
    /// Its sizes, and whether it is a gate.
    pub spec: PackedSpec,
}

/// What is added to a product.
#[derive(Clone, Copy, Debug, Default)]
pub struct Added<'a> {
    /// `[out]`
    pub bias: Option<&'a [f32]>,
    /// `[rows, out]`
    pub residual: Option<&'a [f32]>,
}

/// `x Wᵀ + b + r`, or a gate: `[rows, in]` to `[rows, out]`, or to half as many columns.
pub fn linear(isa: Isa, x: &[f32], w: Matrix, added: Added) -> Vec<f32> {
    let PackedSpec { out, width, .. } = w.spec;
    let blocks = width / BLOCK;
    let rows = x.len() / width.max(1);
    let made = if w.spec.pair { out / 2 } else { out };
    // Halves take inputs as they are. Every access below lies within these.
    assert!(w.spec.scheme.has_scales());
    assert_eq!(width, blocks * BLOCK);
    assert_eq!(x.len(), rows * width);
    assert!(w.bytes.len() >= out * blocks * 4 * w.spec.scheme.words());
    assert!(w.scales.len() >= out * blocks);
    assert!(!w.spec.scheme.has_mins() || w.mins.len() >= out * blocks);
    assert!(added.bias.is_none_or(|bias| bias.len() == made));
    assert!(added.residual.is_none_or(|r| r.len() == rows * made));
    assert!(!w.spec.pair || out.is_multiple_of(2));

    let mut y: Vec<f32> = Vec::with_capacity(rows * made);
    let to = Output {
        y: y.as_mut_ptr(),
        made,
        rows,
        added,
    };
    if rows <= FEW {
        let x = isa.run(RoundFew { x, w });
        split(made, rows * width * (out / made.max(1)), 1, &|part| {
            isa.run(Few { x: &x, w, part, to });
        });
    } else {
        let x = round_many(isa, x, w);
        let lanes = isa.run(Lanes);
        // A gate takes a vector of each of its halves.
        let tile = if w.spec.pair { lanes } else { VECTORS * lanes };
        split(made, rows * width * (out / made.max(1)), tile, &|part| {
            isa.run(Many { x: &x, w, part, to });
        });
    }
    // SAFETY: the parts cover all columns, and each wrote its own in every row.
    unsafe { y.set_len(rows * made) };
    y
}

/// Calls `work` for ranges that cover `0..n`, on threads where that pays. Ranges begin at multiples of `unit`.
///
/// `cost`: products of each.
#[cfg(not(target_family = "wasm"))]
fn split(n: usize, cost: usize, unit: usize, work: &(dyn Fn(core::ops::Range<usize>) + Sync)) {
    let each = (PART / cost.max(1)).max(1).next_multiple_of(unit);
    super::team::run(n.div_ceil(each), &|i| work(i * each..n.min((i + 1) * each)));
}

/// Calls `work` for `0..n`.
#[cfg(target_family = "wasm")]
fn split(n: usize, _: usize, _: usize, work: &(dyn Fn(core::ops::Range<usize>) + Sync)) {
    if n > 0 {
        work(0..n);
    }
}

/// Where a product goes.
#[derive(Clone, Copy)]
struct Output<'a> {
    /// `[rows, made]`, not yet written.
    y: *mut f32,
    made: usize,
    rows: usize,
    added: Added<'a>,
}

// SAFETY: parts of a product write to different columns.
unsafe impl Sync for Output<'_> {}
// SAFETY: as above.
unsafe impl Send for Output<'_> {}

impl Output<'_> {
    /// Writes an element, with what is added to it.
    ///
    /// # Safety
    /// No other thread writes to this column.
    #[inline(always)]
    unsafe fn write(&self, row: usize, column: usize, value: f32) {
        assert!(row < self.rows && column < self.made);
        let at = row * self.made + column;
        let bias = self.added.bias.map_or(0.0, |bias| bias[column]);
        let residual = self.added.residual.map_or(0.0, |residual| residual[at]);
        // SAFETY: the assertion, and the caller's.
        unsafe { self.y.add(at).write(value + bias + residual) };
    }
}

/// `silu(g) * u`
#[inline(always)]
fn gate(g: f32, u: f32) -> f32 {
    g * sigmoid(g) * u
}

/// f16 by its bits.
#[inline(always)]
pub fn widened(half: u16) -> f32 {
    let half = u32::from(half);
    // The exponent moves by 112, which is exact for what is denormal too.
    let size = f32::from_bits((half & 0x7fff) << 13) * f32::from_bits(239 << 23);
    let bits = match half & 0x7c00 {
        0x7c00 => 0x7f80_0000 | (half & 0x3ff) << 13,
        _ => size.to_bits(),
    };
    f32::from_bits(bits | (half & 0x8000) << 16)
}

/// A block in bytes: its scale and the sum of the bytes. The scale of what is not finite is not a number.
#[inline(always)]
fn round(x: &[f32; BLOCK]) -> ([i8; BLOCK], f32, i32) {
    const SHIFT: f32 = 12_582_912.0; // 1.5 · 2^23: adding it rounds to an integer, in the lowest bits
    let (mut most, mut poison) = ([0.0f32; 16], [0.0f32; 16]);
    for half in x.as_chunks::<16>().0 {
        for i in 0..16 {
            let size = half[i].abs();
            most[i] = if size > most[i] { size } else { most[i] };
            poison[i] += half[i] * 0.0;
        }
    }
    let most = most
        .iter()
        .fold(0.0, |a: f32, &b| if b > a { b } else { a });
    let poison: f32 = poison.iter().sum();
    // Not of a denormal, whose inverse is infinite.
    let factor = if most > 1e-35 { 127.0 / most } else { 0.0 };
    let mut bytes = [0i8; BLOCK];
    let mut sum = 0;
    for (byte, x) in bytes.iter_mut().zip(x) {
        *byte = (x * factor + SHIFT).to_bits() as i8;
        sum += i32::from(*byte);
    }
    (bytes, most / 127.0 + poison, sum)
}

/// What turns stored nibbles into 0 to 15.
fn flip(scheme: Scheme) -> u8 {
    match scheme {
        Scheme::Q4 => 0x88,
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
