//! Activations, gates and dropout.

use burn::backend::Dispatch;
use burn::tensor::{Distribution, Tensor, activation};

use super::of_rows;
use crate::backend::ActivationBackend;

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

/// Zeroes each element with this probability and scales the rest to keep the mean. Draws from the device's generator,
/// which training reseeds at every step.
pub fn dropout<const D: usize>(x: Tensor<D>, probability: f64) -> Tensor<D> {
    let keep = x.random_like(Distribution::Bernoulli(1.0 - probability));
    x.mul(keep).div_scalar(1.0 - probability)
}
