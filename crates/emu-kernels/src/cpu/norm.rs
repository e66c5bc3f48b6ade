//! Norms on the CPU.

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;

use crate::ops::norm::NormBackend;
#[cfg(not(target_family = "wasm"))]
use crate::ops::norm::NormGradient;
use crate::spec::GroupNormSpec;

mod group_norm;
#[cfg(not(target_family = "wasm"))]
mod group_norm_backward;
mod groups;
mod layer_norm;
mod rms_norm;

use group_norm::group_norm;
#[cfg(not(target_family = "wasm"))]
use group_norm_backward::{affine_backward, x_backward};
use layer_norm::layer_norm;
use rms_norm::rms_norm;

impl NormBackend for Flex {
    fn emu_layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        layer_norm(x, weight, bias, eps)
    }

    fn emu_rms_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        rms_norm(x, weight, eps)
    }

    fn emu_group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self> {
        group_norm(x, weight, bias, spec)
    }
}

#[cfg(not(target_family = "wasm"))]
impl NormGradient for Flex {
    fn emu_group_norm_x_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self> {
        x_backward(x, weight, bias, grad, spec)
    }

    fn emu_group_norm_affine_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self> {
        affine_backward(x, weight, bias, grad, spec)
    }
}
