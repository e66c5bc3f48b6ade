//! Products with packed matrices.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};

use crate::spec::PackedSpec;

/// Packed matrices: `words`, `scales` and `mins` as in [`crate::packed::Packed`]; scales and minimums are placeholders where
/// the scheme has none. Dense ones are multiplied by Burn; unpacking one whole would need the memory that packing saves.
#[cfg_attr(not(target_family = "wasm"), backend_extension(Cube, Flex))]
#[cfg_attr(all(target_family = "wasm", feature = "wgpu"), backend_extension(Cube))]
#[cfg_attr(all(target_family = "wasm", feature = "flex"), backend_extension(Flex))]
pub trait MatmulBackend: Backend {
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
