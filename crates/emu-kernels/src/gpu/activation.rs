//! Activations and gates on a GPU.

use burn::backend::Cube;
use burn::backend::ops::{ActivationOps, FloatTensorOps};
use burn::backend::tensor::FloatTensor;

use crate::ops::activation::ActivationBackend;
#[cfg(not(target_family = "wasm"))]
use crate::ops::activation::ActivationGradient;

mod gelu;
mod silu_pair;

use gelu::gelu;
use silu_pair::silu_pair;

impl ActivationBackend for Cube {
    // Burn fuses these into one kernel.
    fn emu_silu_gate(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let open = <Self as ActivationOps<Self>>::sigmoid(gate.clone());
        Self::float_mul(Self::float_mul(gate, open), up)
    }

    fn emu_silu_pair(x: FloatTensor<Self>) -> FloatTensor<Self> {
        silu_pair(x)
    }

    fn emu_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        gelu(x, false)
    }

    fn emu_geglu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        gelu(x, true)
    }
}

#[cfg(not(target_family = "wasm"))]
impl ActivationGradient for Cube {
    fn emu_silu_gate_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        // d/dz (z s(z)) = s (1 + z (1 - s))
        let s = <Self as ActivationOps<Self>>::sigmoid(gate.clone());
        let at_up = Self::float_mul(grad.clone(), Self::float_mul(gate.clone(), s.clone()));
        let rest = Self::float_add_scalar(Self::float_neg(s.clone()), 1.0.into());
        let slope = Self::float_add_scalar(Self::float_mul(gate, rest), 1.0.into());
        let slope = Self::float_mul(s, slope);
        (Self::float_mul(Self::float_mul(grad, up), slope), at_up)
    }

    /// `Φ(x) + x φ(x)`. Burn's own gradient is that of the tanh approximation, accurate to three digits only.
    fn emu_gelu_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        use core::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};
        let scaled = Self::float_mul_scalar(x.clone(), FRAC_1_SQRT_2.into());
        let share = Self::float_add_scalar(Self::float_erf(scaled.clone()), 1.0.into());
        let bell = Self::float_exp(Self::float_neg(Self::float_mul(
            scaled.clone(),
            scaled.clone(),
        )));
        let bell = Self::float_mul_scalar(Self::float_mul(scaled, bell), FRAC_2_SQRT_PI.into());
        let slope = Self::float_mul_scalar(Self::float_add(share, bell), 0.5.into());
        Self::float_mul(grad, slope)
    }
}

/// Keys of every variant.
#[cfg(test)]
pub fn check_all(checked: &mut super::tests::Checked) {
    gelu::check_all(checked);
    silu_pair::check_all(checked);
}
