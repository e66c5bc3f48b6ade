//! Products with packed matrices on a GPU.

use burn::backend::Cube;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::Shape;
use burn_wgpu::CubeTensor;

use super::{into_contiguous, output};
use crate::ops::matmul::MatmulBackend;
use crate::spec::PackedSpec;
use crate::variants;

pub mod packed_matrix;
mod packed_rows;
mod packed_vector;

use packed_matrix::packed_matrix;
use packed_rows::packed_rows;
use packed_vector::packed_vector;

/// Maximum rows of `x` of a gemv, which reads each weight once for all of them.
const GEMV_ROWS: usize = 8;

/// Whether a product with this many rows runs as a gemv, which reads each weight once for all rows. Software adapters have a
/// single kernel for any number of rows.
pub fn is_gemv(rows: usize) -> bool {
    rows <= GEMV_ROWS && !variants::software()
}

/// `x Wᵀ + b + r`, or a gate: `[rows, in]` to `[rows, out]`.
fn linear(
    x: CubeTensor,
    [words, scales, mins]: [CubeTensor; 3],
    [bias, residual]: [CubeTensor; 2],
    spec: PackedSpec,
) -> CubeTensor {
    let x = into_contiguous(x);
    let rows = x.meta.shape()[0];
    let out = if spec.pair { spec.out / 2 } else { spec.out };
    let y = output(&x, Shape::new([rows, out]));
    let (bias, residual) = (into_contiguous(bias), into_contiguous(residual));
    let (matrix, added) = ([&words, &scales, &mins], [&bias, &residual]);
    if is_gemv(rows) {
        packed_vector(&x, matrix, added, &y, &spec);
    } else {
        packed_matrix(&x, matrix, added, &y, &spec);
    }
    y
}

impl MatmulBackend for Cube {
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

/// Keys of every variant.
#[cfg(test)]
pub fn check_all(checked: &mut super::tests::Checked) {
    packed_matrix::check_all(checked);
    packed_rows::check_all(checked);
    packed_vector::check_all(checked);
}
