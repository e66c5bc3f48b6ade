//! What a backend does with packed matrices. There is no default: unpacking a matrix whole would need the memory that
//! packing saves.

#[cfg(feature = "flex")]
use burn::backend::Flex;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};

use super::{Inputs, Scheme};

/// A packed matrix, and what is done with its product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PackedSpec {
    /// How its values are stored.
    pub scheme: Scheme,
    /// Rows.
    pub out: usize,
    /// Columns.
    pub width: usize,
    /// Whether the tensor `bias` counts; where not, it is a placeholder.
    pub bias: bool,
    /// Whether the tensor `residual`, `[rows, out]`, is added; where not, it is a placeholder.
    pub residual: bool,
    /// Whether the matrix is a gate above what it gates: `silu(x Gᵀ) * x Uᵀ`, of half as many rows. Without bias and
    /// residual.
    pub pair: bool,
    /// What products may do with their inputs.
    pub inputs: Inputs,
}

impl PackedSpec {
    /// A matrix `[out, width]` and nothing besides.
    pub fn plain(scheme: Scheme, [out, width]: [usize; 2]) -> Self {
        Self {
            scheme,
            out,
            width,
            bias: false,
            residual: false,
            pair: false,
            inputs: Inputs::Exact,
        }
    }
}

/// The extension of Burn's backends. `words`, `scales` and `mins` as in [`super::Packed`]; scales and minimums are
/// placeholders where the scheme has none.
#[allow(missing_docs)]
#[cfg_attr(not(target_family = "wasm"), backend_extension(Cube, Flex))]
#[cfg_attr(all(target_family = "wasm", feature = "wgpu"), backend_extension(Cube))]
#[cfg_attr(all(target_family = "wasm", feature = "flex"), backend_extension(Flex))]
pub trait PackedBackend: Backend {
    /// `x Wᵀ + b + r`, or a gate: `[rows, in]` to `[rows, out]`.
    fn emu_packed_linear(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: IntTensor<Self>,
        mins: IntTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        spec: PackedSpec,
    ) -> FloatTensor<Self>;

    /// Rows, unpacked: `[n]` ids to `[n, in]`.
    fn emu_packed_rows(
        ids: IntTensor<Self>,
        words: IntTensor<Self>,
        scales: IntTensor<Self>,
        mins: IntTensor<Self>,
        spec: PackedSpec,
    ) -> FloatTensor<Self>;
}

#[cfg(feature = "wgpu")]
impl PackedBackend for burn::backend::Cube {
    fn emu_packed_linear(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: IntTensor<Self>,
        mins: IntTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        spec: PackedSpec,
    ) -> FloatTensor<Self> {
        crate::gpu::packed::linear(x, [words, scales, mins], [bias, residual], spec)
    }

    fn emu_packed_rows(
        ids: IntTensor<Self>,
        words: IntTensor<Self>,
        scales: IntTensor<Self>,
        mins: IntTensor<Self>,
        spec: PackedSpec,
    ) -> FloatTensor<Self> {
        crate::gpu::packed::rows(ids, [words, scales, mins], spec)
    }
}

#[cfg(feature = "flex")]
impl PackedBackend for Flex {
    fn emu_packed_linear(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: IntTensor<Self>,
        mins: IntTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        spec: PackedSpec,
    ) -> FloatTensor<Self> {
        crate::cpu::packed::linear(x, [words, scales, mins], [bias, residual], spec)
    }

    fn emu_packed_rows(
        ids: IntTensor<Self>,
        words: IntTensor<Self>,
        scales: IntTensor<Self>,
        mins: IntTensor<Self>,
        spec: PackedSpec,
    ) -> FloatTensor<Self> {
        crate::cpu::packed::rows(ids, [words, scales, mins], spec)
    }
}
