//! Activations, gates and dropout.

use burn::backend::Dispatch;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata, backend_extension};
use burn::tensor::{Distribution, Tensor, activation};

use super::of_rows;

/// `silu(gate) * up`, both `[B, T, D]`.
pub fn silu_gate(gate: Tensor<3>, up: Tensor<3>) -> Tensor<3> {
    let (gate, up) = (gate.into_dispatch(), up.into_dispatch());
    Tensor::from_dispatch(Dispatch::emu_silu_gate(gate, up))
}

/// `silu(x[.., :D]) * x[.., D:]`: `[B, T, 2D]` to `[B, T, D]`.
pub fn silu_pair(x: Tensor<3>) -> Tensor<3> {
    of_rows(x, |x| {
        Tensor::from_dispatch(Dispatch::emu_silu_pair(x.into_dispatch()))
    })
}

/// `x · Φ(x)`, exact (not the tanh approximation).
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    of_rows(x, |x| {
        Tensor::from_dispatch(Dispatch::emu_gelu(x.into_dispatch()))
    })
}

/// `x[.., :D] * gelu(x[.., D:])` with the exact GELU: `[B, T, 2D]` to `[B, T, D]`.
pub fn geglu(x: Tensor<3>) -> Tensor<3> {
    of_rows(x, |x| {
        Tensor::from_dispatch(Dispatch::emu_geglu(x.into_dispatch()))
    })
}

/// `x · sigmoid(1.702 x)`, CLIP's approximation of GELU.
pub fn quick_gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.clone().mul(activation::sigmoid(x.mul_scalar(1.702)))
}

/// Inverted dropout: zeroes each element with this probability and rescales the rest to keep the mean. Uses the device's
/// random generator, which training reseeds at every step.
pub fn dropout<const D: usize>(x: Tensor<D>, probability: f64) -> Tensor<D> {
    let keep = x.random_like(Distribution::Bernoulli(1.0 - probability));
    x.mul(keep).div_scalar(1.0 - probability)
}

/// Activations and gates. Shapes as above.
#[cfg_attr(not(target_family = "wasm"), backend_extension(Cube, Flex, Autodiff))]
#[cfg_attr(all(target_family = "wasm", feature = "wgpu"), backend_extension(Cube))]
#[cfg_attr(all(target_family = "wasm", feature = "flex"), backend_extension(Flex))]
pub trait ActivationBackend: Backend {
    /// `silu(gate) * up`, both of the same shape.
    fn emu_silu_gate(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `silu(x[.., :D]) * x[.., D:]`: `[rows, 2 D]` to `[rows, D]`.
    fn emu_silu_pair(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let [gate, up] = halves::<Self>(x);
        Self::emu_silu_gate(gate, up)
    }

    /// `x · Φ(x)`, exact.
    fn emu_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `x[.., :D] * gelu(x[.., D:])`: `[rows, 2 D]` to `[rows, D]`.
    fn emu_geglu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let [value, gate] = halves::<Self>(x);
        Self::float_mul(value, Self::emu_gelu(gate))
    }
}

/// Splits each row of `[rows, 2 D]` in halves.
fn halves<B: Backend>(x: FloatTensor<B>) -> [FloatTensor<B>; 2] {
    let [rows, both] = x.shape().dims::<2>();
    [0..both / 2, both / 2..both]
        .map(|columns| B::float_slice(x.clone(), &[(0..rows).into(), columns.into()]))
}

/// Backward passes of activations and gates.
#[cfg(not(target_family = "wasm"))]
pub trait ActivationGradient: ActivationBackend {
    /// Gradients of `gate` and `up`.
    fn emu_silu_gate_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Gradient of `x` for the exact GELU.
    fn emu_gelu_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self>;
}
