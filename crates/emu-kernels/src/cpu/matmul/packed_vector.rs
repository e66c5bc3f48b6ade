//! Gemv with a packed matrix: weights are dequantized in registers.

use super::packed_blocks::Blocks;
use crate::cpu::for_each;
use crate::cpu::int8;
use crate::spec::{BLOCK, Scheme};

/// Rows of the matrix per task.
const TILE: usize = 32;

/// A row of `x` in the order of packed nibbles: of each block of 32 elements, first the even-indexed (low nibbles), then the
/// odd-indexed (high nibbles); and the sum of every block.
struct Split {
    values: Vec<f32>,
    sums: Vec<f32>,
}

impl Split {
    fn new(x: &[f32], nibbles: bool) -> Self {
        let blocks = x.as_chunks::<BLOCK>().0;
        let sums = blocks.iter().map(|block| block.iter().sum()).collect();
        if !nibbles {
            let values = x.to_vec();
            return Self { values, sums };
        }
        let mut values = Vec::with_capacity(x.len());
        for block in blocks {
            values.extend(block.iter().step_by(2));
            values.extend(block.iter().skip(1).step_by(2));
        }
        Self { values, sums }
    }
}

/// `y = W xᵀ` for `x` of a few rows: `[rows, in]` to `[out, rows]`.
pub fn packed_vector(x: &[f32], blocks: &Blocks, y: &mut [f32]) {
    let (width, scheme) = (blocks.spec.width, blocks.spec.scheme);
    let rows = x.len() / width;
    let split: Vec<Split> = x
        .chunks_exact(width)
        .map(|row| Split::new(row, scheme.bits() == 4))
        .collect();
    let tiles: Vec<_> = y.chunks_mut(TILE * rows).enumerate().collect();
    for_each(tiles, |(tile, y)| {
        for (o, y) in y.chunks_exact_mut(rows).enumerate() {
            let row = tile * TILE + o;
            for (y, x) in y.iter_mut().zip(&split) {
                *y = match scheme {
                    Scheme::F16 => dot_halves(blocks, row, x),
                    Scheme::Q8 => dot_bytes(blocks, row, x),
                    Scheme::Q4 | Scheme::Q4_1 => dot_nibbles(blocks, row, x),
                };
            }
        }
    });
}

/// Dot product of a 4-bit row and `x`. Sixteen partial sums, so that the compiler vectorizes.
#[inline(always)]
fn dot_nibbles(blocks: &Blocks, row: usize, x: &Split) -> f32 {
    const HALF: usize = BLOCK / 2;
    let flip = blocks.flip();
    let (mut total, mut offsets) = ([0.0f32; HALF], 0.0);
    let halves = x.values.as_chunks::<HALF>().0.as_chunks::<2>().0;
    for (at, ([even, odd], sum)) in halves.iter().zip(&x.sums).enumerate() {
        let (bytes, scale, offset) = blocks.block::<HALF>(row * blocks.blocks() + at);
        let mut part = [0.0f32; HALF];
        for i in 0..HALF {
            let b = bytes[i];
            part[i] = f32::from((b & 15) ^ flip) * even[i] + f32::from((b >> 4) ^ flip) * odd[i];
        }
        for i in 0..HALF {
            total[i] += part[i] * scale;
        }
        offsets += offset * sum;
    }
    total.iter().sum::<f32>() + offsets
}

/// Dot product of an 8-bit row and `x`.
#[inline(always)]
fn dot_bytes(blocks: &Blocks, row: usize, x: &Split) -> f32 {
    const HALF: usize = BLOCK / 2;
    let mut total = [0.0f32; HALF];
    for (at, x) in x.values.as_chunks::<BLOCK>().0.iter().enumerate() {
        let (bytes, scale, _) = blocks.block::<BLOCK>(row * blocks.blocks() + at);
        let mut part = [0.0f32; HALF];
        for i in 0..HALF {
            part[i] =
                f32::from(bytes[i] as i8) * x[i] + f32::from(bytes[i + HALF] as i8) * x[i + HALF];
        }
        for i in 0..HALF {
            total[i] += part[i] * scale;
        }
    }
    total.iter().sum()
}

/// Dot product of an f16 row and `x`.
#[inline(always)]
fn dot_halves(blocks: &Blocks, row: usize, x: &Split) -> f32 {
    let mut total = [0.0f32; BLOCK];
    let halves = blocks.halves(row).as_chunks::<BLOCK>().0;
    for (halves, x) in halves.iter().zip(x.values.as_chunks::<BLOCK>().0) {
        for i in 0..BLOCK {
            total[i] += int8::widened(halves[i]) * x[i];
        }
    }
    total.iter().sum()
}
