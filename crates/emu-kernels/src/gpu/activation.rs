//! GPU activations and gates, row-wise.

use burn::backend::Cube;
use burn::backend::ops::{ActivationOps, FloatTensorOps};
use burn::backend::tensor::FloatTensor;
use burn::tensor::Shape;
use burn_wgpu::CubeTensor;

use super::{Shader, grid, into_contiguous, output};
use crate::ops::activation::ActivationBackend;
#[cfg(not(target_family = "wasm"))]
use crate::ops::activation::ActivationGradient;

fn pair_shader(width: usize) -> Shader {
    Shader {
        name: "silu_pair",
        text: include_str!("../../../../shaders/norm/silu_pair.wgsl"),
        constants: vec![("width", width)],
        invocations: 64,
    }
}

/// `silu(x[.., :D]) * x[.., D:]`.
fn silu_pair(x: CubeTensor) -> CubeTensor {
    let x = into_contiguous(x);
    let (rows, width) = (x.meta.shape()[0], x.meta.shape()[1] / 2);
    let y = output(&x, Shape::new([rows, width]));
    pair_shader(width).launch(grid((rows * width).div_ceil(64)), &[&x, &y]);
    y
}

/// `x · Φ(x)` of rows; if `gated`, the first half of each row times that of its second half.
fn gelu(x: CubeTensor, gated: bool) -> CubeTensor {
    let x = into_contiguous(x);
    let (rows, width) = (x.meta.shape()[0], x.meta.shape()[1]);
    let width = if gated { width / 2 } else { width };
    let y = output(&x, Shape::new([rows, width]));
    let shader = Shader {
        name: "gelu",
        text: include_str!("../../../../shaders/norm/gelu.wgsl"),
        constants: vec![
            ("rows", rows),
            ("width", width),
            ("gated", usize::from(gated)),
        ],
        invocations: 64,
    };
    shader.launch(grid((rows * width).div_ceil(64)), &[&x, &y]);
    y
}

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
