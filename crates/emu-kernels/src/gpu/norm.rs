//! Norms on a GPU.

use burn::backend::Cube;
use burn::backend::tensor::FloatTensor;

use crate::ops::norm::NormBackend;
#[cfg(not(target_family = "wasm"))]
use crate::ops::norm::NormGradient;
use crate::spec::GroupNormSpec;

mod group_norm;
#[cfg(not(target_family = "wasm"))]
mod group_norm_backward;
mod layer_norm;
pub mod rms_norm;

use group_norm::group_norm;
#[cfg(not(target_family = "wasm"))]
use group_norm_backward::group_norm_backward;
use layer_norm::layer_norm;
use rms_norm::rms_norm;

impl NormBackend for Cube {
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
        group_norm(x, None, weight, bias, spec)
    }

    fn emu_group_norm_with_skip(
        x: FloatTensor<Self>,
        skip: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self> {
        group_norm(x, Some(skip), weight, bias, spec)
    }
}

#[cfg(not(target_family = "wasm"))]
impl NormGradient for Cube {
    fn emu_group_norm_x_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self> {
        group_norm_backward([x, weight, bias, grad], false, spec)
    }

    fn emu_group_norm_affine_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self> {
        group_norm_backward([x, weight, bias, grad], true, spec)
    }
}

/// Keys of every variant.
#[cfg(test)]
pub fn check_all(checked: &mut super::tests::Checked) {
    group_norm::check_all(checked);
    group_norm_backward::check_all(checked);
    layer_norm::check_all(checked);
    rms_norm::check_all(checked);
}
