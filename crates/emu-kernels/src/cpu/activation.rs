//! Activations on the CPU in one pass, forward and backward.

use burn::backend::Flex;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;

use super::math::sigmoid;
use super::{contiguous, for_each, values};
use crate::ops::activation::ActivationBackend;
#[cfg(not(target_family = "wasm"))]
use crate::ops::activation::ActivationGradient;

mod elementwise;
mod gelu;
pub mod silu_pair;

use elementwise::{CHUNK, binary, of};
use gelu::gelu;
#[cfg(not(target_family = "wasm"))]
use gelu::gelu_backward;
use silu_pair::silu_pair;

/// `gate · sigmoid(gate) · up`
pub fn silu_gate(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
    binary(gate, up, |g, u| g * sigmoid(g) * u)
}

/// Gradients of `gate` and `up`.
pub fn silu_gate_backward(
    gate: FlexTensor,
    up: FlexTensor,
    grad: FlexTensor,
) -> (FlexTensor, FlexTensor) {
    let (shape, gate, up, grad) = (
        gate.shape(),
        contiguous(gate),
        contiguous(up),
        contiguous(grad),
    );
    let n = values(&gate).len();
    let (mut at_gate, mut at_up) = (vec![0.0; n], vec![0.0; n]);
    let inputs = values(&gate)
        .chunks(CHUNK)
        .zip(values(&up).chunks(CHUNK))
        .zip(values(&grad).chunks(CHUNK));
    let work = at_gate
        .chunks_mut(CHUNK)
        .zip(at_up.chunks_mut(CHUNK))
        .zip(inputs)
        .collect();
    for_each(work, |((at_gate, at_up), ((gate, up), grad))| {
        for ((((at_gate, at_up), &g), &u), &d) in
            at_gate.iter_mut().zip(at_up).zip(gate).zip(up).zip(grad)
        {
            let s = sigmoid(g);
            *at_up = d * g * s;
            *at_gate = d * u * s * (1.0 + g * (1.0 - s));
        }
    });
    (of(at_gate, shape.clone()), of(at_up, shape))
}

impl ActivationBackend for Flex {
    fn emu_silu_gate(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        silu_gate(gate, up)
    }

    fn emu_silu_pair(x: FloatTensor<Self>) -> FloatTensor<Self> {
        silu_pair(x)
    }

    fn emu_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        gelu(x)
    }
}

#[cfg(not(target_family = "wasm"))]
impl ActivationGradient for Flex {
    fn emu_silu_gate_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        silu_gate_backward(gate, up, grad)
    }

    fn emu_gelu_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        gelu_backward(x, grad)
    }
}
