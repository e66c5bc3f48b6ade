//! Dequantized rows of a packed matrix.

use burn::backend::flex::FlexTensor;

use super::packed_blocks::Blocks;
use crate::cpu::{contiguous, integers, tensor};
use crate::spec::PackedSpec;

/// Dequantized rows of the matrix: `[n, in]`.
pub fn packed_rows(
    ids: FlexTensor,
    [words, scales, mins]: [FlexTensor; 3],
    spec: PackedSpec,
) -> FlexTensor {
    let ids: Vec<usize> = integers(&contiguous(ids));
    let blocks = Blocks::new(&words, &scales, &mins, spec);
    let mut y = vec![0.0f32; ids.len() * spec.width];
    for (&id, y) in ids.iter().zip(y.chunks_exact_mut(spec.width)) {
        // Clamped to the last row, like an out-of-bounds gather on a GPU.
        blocks.unpack(id.min(spec.out - 1), y);
    }
    tensor(y, [ids.len(), spec.width])
}
