//! Shared by gemv and gemm: the matrix, its blocks, and the output.

use super::super::math::sigmoid;
use crate::spec::{BLOCK, PackedSpec, Scheme};

/// Rows of `x` in a register tile.
pub const COLUMNS: usize = 4;
/// Vectors of matrix rows in a register tile.
pub const VECTORS: usize = 2;

/// Slices of a packed matrix: bytes of its words, f16 bits of scales and minimums.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// 32 or 16 bytes per block.
    pub bytes: &'a [u8],
    /// One per block.
    pub scales: &'a [u16],
    /// One per block if the scheme has them.
    pub mins: &'a [u16],
    /// Its sizes, and whether it is a gate.
    pub spec: PackedSpec,
}

/// Terms added to a product.
#[derive(Clone, Copy, Debug, Default)]
pub struct Added<'a> {
    /// `[out]`
    pub bias: Option<&'a [f32]>,
    /// `[rows, out]`
    pub residual: Option<&'a [f32]>,
}

/// Destination of a product.
#[derive(Clone, Copy)]
pub struct Output<'a> {
    /// `[rows, made]`, uninitialized.
    pub y: *mut f32,
    pub made: usize,
    pub rows: usize,
    pub added: Added<'a>,
}

// SAFETY: parts of a product write to disjoint columns.
unsafe impl Sync for Output<'_> {}
// SAFETY: as above.
unsafe impl Send for Output<'_> {}

impl Output<'_> {
    /// Writes an element, with bias and residual added.
    ///
    /// # Safety
    /// No other thread writes to this column.
    #[inline(always)]
    pub unsafe fn write(&self, row: usize, column: usize, value: f32) {
        assert!(row < self.rows && column < self.made);
        let at = row * self.made + column;
        let bias = self.added.bias.map_or(0.0, |bias| bias[column]);
        let residual = self.added.residual.map_or(0.0, |residual| residual[at]);
        // SAFETY: the assertion above, and the caller's guarantee.
        unsafe { self.y.add(at).write(value + bias + residual) };
    }
}

/// `silu(g) * u`
#[inline(always)]
pub fn gate(g: f32, u: f32) -> f32 {
    g * sigmoid(g) * u
}

/// Converts f16 bits to f32.
#[inline(always)]
pub fn widened(half: u16) -> f32 {
    let half = u32::from(half);
    // The exponent is rebased by 112 with a multiplication, which is exact for subnormals too.
    let size = f32::from_bits((half & 0x7fff) << 13) * f32::from_bits(239 << 23);
    let bits = match half & 0x7c00 {
        0x7c00 => 0x7f80_0000 | (half & 0x3ff) << 13,
        _ => size.to_bits(),
    };
    f32::from_bits(bits | (half & 0x8000) << 16)
}

/// Quantizes a block to 8 bits; returns the bytes, the scale and the sum of the bytes. The scale is NaN if a value is not
/// finite.
#[inline(always)]
pub fn round(x: &[f32; BLOCK]) -> ([i8; BLOCK], f32, i32) {
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
    // Not for subnormals, whose reciprocal is infinite.
    let factor = if most > 1e-35 { 127.0 / most } else { 0.0 };
    let mut bytes = [0i8; BLOCK];
    let mut sum = 0;
    for (byte, x) in bytes.iter_mut().zip(x) {
        *byte = (x * factor + SHIFT).to_bits() as i8;
        sum += i32::from(*byte);
    }
    (bytes, most / 127.0 + poison, sum)
}

/// XOR mask that maps stored nibbles to 0 to 15.
pub fn flip(scheme: Scheme) -> u8 {
    match scheme {
        Scheme::Q4 => 0x88,
        _ => 0,
    }
}
