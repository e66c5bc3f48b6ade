//! Activations and gates.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

/// Activations and gates. Shapes as in [`crate::ops::activation`].
#[cfg_attr(not(target_family = "wasm"), backend_extension(Cube, Flex, Autodiff))]
#[cfg_attr(all(target_family = "wasm", feature = "wgpu"), backend_extension(Cube))]
#[cfg_attr(all(target_family = "wasm", feature = "flex"), backend_extension(Flex))]
pub trait ActivationBackend: Backend {
    /// `silu(gate) * up`, of one shape.
    fn emu_silu_gate(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `silu(x[.., :D]) * x[.., D:]`: `[rows, 2 D]` to `[rows, D]`.
    fn emu_silu_pair(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `x · Φ(x)`, exact.
    fn emu_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `x[.., :D] * gelu(x[.., D:])`: `[rows, 2 D]` to `[rows, D]`.
    fn emu_geglu(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Their backward passes.
#[cfg(not(target_family = "wasm"))]
pub trait ActivationGradient: ActivationBackend {
    /// The gradients at gate and up.
    fn emu_silu_gate_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The gradient at `x` of the exact GELU.
    fn emu_gelu_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self>;
}
