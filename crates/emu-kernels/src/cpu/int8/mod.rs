//! Products of packed matrices with activations quantized to 8 bits, in integer arithmetic.
//!
//! In every block of 32 elements of `x` the greatest absolute value maps to 127: `x ≈ d·q`, `d = max / 127`, and no element
//! changes by more than `d / 2`. Sums over a block are exact integers, which the two scales of the block turn into floats.
//! So `|y - x·w| <= Σ over blocks of d / 2 · Σ |w|`, besides the rounding of the sum over blocks in f32.
//!
//! Gemv, few rows of `x` (a token, beams): each row of the matrix is read once and multiplied with all of them, four SIMD
//! lanes per block. Gemm, many rows (a prompt): rows of the matrix are unpacked side by side, one row per lane, and
//! multiplied in register tiles.

// Loops over registers: all arrays have the same small size.
#![allow(clippy::needless_range_loop)]

mod blocks;
mod gemm;
mod gemv;
mod isa;
mod simd;
#[cfg(target_family = "wasm")]
mod wasm;
#[cfg(target_arch = "x86_64")]
mod x86;

use blocks::{Output, VECTORS};
use gemm::{Gemm, Lanes, round_tiles};
use gemv::{Gemv, RoundRows};

use crate::spec::{BLOCK, PackedSpec};

pub use blocks::{Added, Matrix, widened};
pub use isa::{Isa, Job};
pub use simd::Simd;

/// Maximum rows of `x` of a gemv, where every row of the matrix is multiplied as it is unpacked.
const GEMV_ROWS: usize = 6;
/// Multiply-adds worth another thread: about 5 µs.
#[cfg(not(target_family = "wasm"))]
const PART: usize = 1 << 17;

/// `x Wᵀ + b + r`, or a gate: `[rows, in]` to `[rows, out]`, or to half as many columns.
pub fn linear(isa: Isa, x: &[f32], w: Matrix, added: Added) -> Vec<f32> {
    let PackedSpec { out, width, .. } = w.spec;
    let blocks = width / BLOCK;
    let rows = x.len() / width.max(1);
    let made = if w.spec.pair { out / 2 } else { out };
    // f16 weights do not quantize activations. Every access below is within these bounds.
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
    if rows <= GEMV_ROWS {
        let x = isa.run(RoundRows { x, w });
        split(made, rows * width * (out / made.max(1)), 1, &|part| {
            isa.run(Gemv { x: &x, w, part, to });
        });
    } else {
        let x = round_tiles(isa, x, w);
        let lanes = isa.run(Lanes);
        // A gate tile holds one vector of each half.
        let tile = if w.spec.pair { lanes } else { VECTORS * lanes };
        split(made, rows * width * (out / made.max(1)), tile, &|part| {
            isa.run(Gemm { x: &x, w, part, to });
        });
    }
    // SAFETY: the parts cover all columns, and each wrote its columns in every row.
    unsafe { y.set_len(rows * made) };
    y
}

/// Calls `work` for ranges that cover `0..n`, in parallel where that pays. Ranges start at multiples of `unit`.
///
/// `cost`: multiply-adds per element of the range.
#[cfg(not(target_family = "wasm"))]
fn split(n: usize, cost: usize, unit: usize, work: &(dyn Fn(core::ops::Range<usize>) + Sync)) {
    let each = (PART / cost.max(1)).max(1).next_multiple_of(unit);
    super::thread_pool::run(n.div_ceil(each), &|i| work(i * each..n.min((i + 1) * each)));
}

/// Calls `work` for `0..n`.
#[cfg(target_family = "wasm")]
fn split(n: usize, _: usize, _: usize, work: &(dyn Fn(core::ops::Range<usize>) + Sync)) {
    if n > 0 {
        work(0..n);
    }
}

#[cfg(test)]
mod tests;
