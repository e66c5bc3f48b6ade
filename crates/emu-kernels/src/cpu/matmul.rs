//! Products with packed matrices on the CPU.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::{FloatTensor, IntTensor};

use super::activation::silu_pair::silu_pair;
use super::int8::{self, Isa};
use super::{contiguous, tensor, values};
use crate::ops::matmul::MatmulBackend;
use crate::spec::{Activations, PackedSpec};

mod packed_blocks;
mod packed_matrix;
mod packed_rows;
mod packed_vector;

use packed_blocks::Blocks;
use packed_matrix::packed_matrix;
use packed_rows::packed_rows;
use packed_vector::packed_vector;

/// Up to this many rows of `x`, weights are dequantized on the fly (gemv); beyond, tiles are dequantized and multiplied by
/// gemm.
const GEMV_ROWS: usize = 4;

/// `x Wᵀ + b + r`, or a gate, for `x` of `[rows, in]`.
fn linear(
    x: FlexTensor,
    [words, scales, mins]: [FlexTensor; 3],
    [bias, residual]: [FlexTensor; 2],
    spec: PackedSpec,
) -> FlexTensor {
    if spec.activations == Activations::Int8 && spec.scheme.bits() <= 8 {
        return of_bytes(x, [words, scales, mins], [bias, residual], spec);
    }
    if spec.pair {
        let spec = PackedSpec {
            pair: false,
            ..spec
        };
        return silu_pair(linear(x, [words, scales, mins], [bias, residual], spec));
    }
    let x = contiguous(x);
    let bias = spec.bias.then(|| contiguous(bias));
    let residual = spec.residual.then(|| contiguous(residual));
    let blocks = Blocks::new(&words, &scales, &mins, spec);
    let (x, out) = (values(&x), spec.out);
    let rows = x.len() / spec.width;
    // Computed transposed, `[out, rows]`, so that each task writes a contiguous range.
    let mut y = vec![0.0f32; rows * out];
    match rows <= GEMV_ROWS {
        true => packed_vector(x, &blocks, &mut y),
        false => packed_matrix(x, &blocks, &mut y),
    }
    let mut turned = y;
    if rows > 1 {
        let y = turned;
        turned = vec![0.0f32; rows * out];
        for (r, row) in turned.chunks_exact_mut(out).enumerate() {
            row.iter_mut()
                .zip(y.iter().skip(r).step_by(rows))
                .for_each(|(to, y)| *to = *y);
        }
    }
    let add = |to: &mut [f32], x: &[f32]| to.iter_mut().zip(x).for_each(|(to, x)| *to += x);
    if let Some(bias) = bias {
        { turned.chunks_exact_mut(out) }.for_each(|row| add(row, values(&bias)));
    }
    if let Some(residual) = residual {
        add(&mut turned, values(&residual));
    }
    tensor(turned, [rows, out])
}

/// Same, with `x` quantized to 8 bits.
fn of_bytes(
    x: FlexTensor,
    [words, scales, mins]: [FlexTensor; 3],
    [bias, residual]: [FlexTensor; 2],
    spec: PackedSpec,
) -> FlexTensor {
    let x = contiguous(x);
    let bias = spec.bias.then(|| contiguous(bias));
    let residual = spec.residual.then(|| contiguous(residual));
    let blocks = Blocks::new(&words, &scales, &mins, spec);
    let matrix = int8::Matrix {
        bytes: bytemuck::cast_slice(blocks.words),
        scales: bytemuck::cast_slice(blocks.scales),
        mins: bytemuck::cast_slice(blocks.mins),
        spec,
    };
    let added = int8::Added {
        bias: bias.as_ref().map(values),
        residual: residual.as_ref().map(values),
    };
    let (x, made) = (values(&x), if spec.pair { spec.out / 2 } else { spec.out });
    let y = int8::linear(Isa::best(), x, matrix, added);
    tensor(y, [x.len() / spec.width, made])
}

impl MatmulBackend for Flex {
    fn emu_packed_linear(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: IntTensor<Self>,
        mins: IntTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        spec: PackedSpec,
    ) -> FloatTensor<Self> {
        linear(x, [words, scales, mins], [bias, residual], spec)
    }

    fn emu_packed_rows(
        ids: IntTensor<Self>,
        words: IntTensor<Self>,
        scales: IntTensor<Self>,
        mins: IntTensor<Self>,
        spec: PackedSpec,
    ) -> FloatTensor<Self> {
        packed_rows(ids, [words, scales, mins], spec)
    }
}
