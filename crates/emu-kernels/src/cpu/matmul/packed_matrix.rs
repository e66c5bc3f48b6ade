//! Gemm with a packed matrix: tiles are dequantized, never the whole matrix.

use super::packed_blocks::Blocks;
use crate::cpu::for_each;
use crate::cpu::matrix::{Matrix, product};

/// Rows of the matrix per task: enough to amortize reading `x` again for each.
const TILE: usize = 192;

/// `y = W xᵀ` for `x` of many rows: `[rows, in]` to `[out, rows]`.
pub fn packed_matrix(x: &[f32], blocks: &Blocks, y: &mut [f32]) {
    let width = blocks.spec.width;
    let rows = x.len() / width;
    let tiles: Vec<_> = y.chunks_mut(TILE * rows).enumerate().collect();
    for_each(tiles, |(tile, y)| {
        let count = y.len() / rows;
        let mut dense = vec![0.0f32; count * width];
        for (o, dense) in dense.chunks_exact_mut(width).enumerate() {
            blocks.unpack(tile * TILE + o, dense);
        }
        let (w, x) = (Matrix::rows(&dense, width), Matrix::rows(x, width));
        product(
            (y, rows),
            [count, rows, width],
            w,
            x.transposed(),
            1.0,
            false,
        );
    });
}
