//! GELU and its gradient.

use burn::backend::flex::FlexTensor;

use super::elementwise::{binary, unary};
use crate::cpu::math::{erf, exp};

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
