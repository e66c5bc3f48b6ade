//! Dense matrix products and embedding lookups, and the backend trait of the packed ones in [`crate::packed`].

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};
use burn::tensor::module as burn_ops;
use burn::tensor::{Int, Tensor};

use super::folded;
use crate::count;
use crate::device::on_cpu;
use crate::spec::PackedSpec;

/// `x Wᵀ + b`.
///
/// # Shapes
/// - `x`: `[.., in]`, `weight`: `[out, in]`, `bias`: `[out]`
/// - returns `[.., out]`
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    folded(x, |x| product(x, weight, bias))
}

fn product(x: Tensor<3>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<3> {
    count::weights_read(4 * weight.shape().num_elements() as u64);
    if on_cpu(&x.device()) {
        // One gemm over all rows, and two in the backward pass: Burn's linear does one per batch element.
        let [b, t, d] = x.dims();
        let y = x.reshape([b * t, d]).matmul(weight.transpose());
        let y = match bias {
            Some(bias) => y + bias.unsqueeze(),
            None => y,
        };
        let [_, out] = y.dims();
        return y.reshape([b, t, out]);
    }
    burn_ops::linear(x, weight.transpose(), bias)
}

/// Embedding lookup.
///
/// # Shapes
/// - `weight`: `[rows, D]`, `ids`: `[B, T]`
/// - returns `[B, T, D]`
pub fn embedding(weight: Tensor<2>, ids: Tensor<2, Int>) -> Tensor<3> {
    burn_ops::embedding(weight, ids)
}

/// Packed matrices: `words`, `scales` and `mins` as in [`crate::packed::Packed`]; scales and minimums are placeholders if the
/// scheme has none. Burn multiplies dense ones; dequantizing a whole matrix would need the memory that packing saves.
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

    /// Dequantized rows: `[n]` ids to `[n, in]`.
    fn emu_packed_rows(
        ids: IntTensor<Self>,
        words: IntTensor<Self>,
        scales: IntTensor<Self>,
        mins: IntTensor<Self>,
        spec: PackedSpec,
    ) -> FloatTensor<Self>;
}
