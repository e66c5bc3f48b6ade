//! CPU activations in one pass, forward and backward.

use burn::backend::Flex;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType, Shape};

use super::math::{erf, exp, sigmoid};
use super::{contiguous, for_each, values};
use crate::ops::activation::ActivationBackend;
#[cfg(not(target_family = "wasm"))]
use crate::ops::activation::ActivationGradient;

/// Elements per task.
const CHUNK: usize = 1 << 14;

fn of(values: Vec<f32>, shape: Shape) -> FlexTensor {
    use burn::backend::flex::Layout;
    FlexTensor::new(
        burn::tensor::Bytes::from_elems(values),
        Layout::contiguous(shape),
        DType::F32,
    )
}

/// Applies `f` to each element.
fn unary(x: FlexTensor, f: impl Fn(f32) -> f32 + Sync + Send) -> FlexTensor {
    let (shape, x) = (x.shape(), contiguous(x));
    let mut out = vec![0.0; values(&x).len()];
    for_each(
        out.chunks_mut(CHUNK)
            .zip(values(&x).chunks(CHUNK))
            .collect(),
        |(out, x)| {
            out.iter_mut().zip(x).for_each(|(out, &x)| *out = f(x));
        },
    );
    of(out, shape)
}

/// Applies `f` to the elements of two tensors of the same shape.
fn binary(x: FlexTensor, y: FlexTensor, f: impl Fn(f32, f32) -> f32 + Sync + Send) -> FlexTensor {
    let (shape, x, y) = (x.shape(), contiguous(x), contiguous(y));
    let mut out = vec![0.0; values(&x).len()];
    let work = out
        .chunks_mut(CHUNK)
        .zip(values(&x).chunks(CHUNK))
        .zip(values(&y).chunks(CHUNK))
        .collect();
    for_each(work, |((out, x), y)| {
        out.iter_mut()
            .zip(x)
            .zip(y)
            .for_each(|((out, &x), &y)| *out = f(x, y));
    });
    of(out, shape)
}

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

/// `x · Φ(x)`
pub fn gelu(x: FlexTensor) -> FlexTensor {
    unary(x, |x| {
        0.5 * x * (1.0 + erf(x * core::f32::consts::FRAC_1_SQRT_2))
    })
}

/// Input gradient: `Φ(x) + x φ(x)` times the output gradient.
pub fn gelu_backward(x: FlexTensor, grad: FlexTensor) -> FlexTensor {
    const DENSITY: f32 = 0.398_942_3; // 1 / sqrt(2 π)
    binary(x, grad, |x, d| {
        d * (0.5 * (1.0 + erf(x * core::f32::consts::FRAC_1_SQRT_2))
            + x * DENSITY * exp(-0.5 * x * x))
    })
}

/// `silu(x[.., :D]) * x[.., D:]`.
pub fn silu_pair(x: FlexTensor) -> FlexTensor {
    let x = contiguous(x);
    let [rows, both] = x.shape().dims::<2>();
    let mut y = Vec::with_capacity(rows * both / 2);
    for row in values(&x).chunks_exact(both.max(1)) {
        let (gate, up) = row.split_at(both / 2);
        y.extend(gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u));
    }
    of(y, Shape::new([rows, both / 2]))
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
