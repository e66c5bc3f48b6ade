//! Convolutions on a GPU.

use burn::backend::Cube;
#[cfg(not(target_family = "wasm"))]
use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;

use crate::ops::conv::ConvBackend;
#[cfg(not(target_family = "wasm"))]
use crate::ops::conv::ConvGradient;
use crate::spec::{ConvFusion, ConvSpec};

// Named as its shader.
#[allow(clippy::module_inception)]
mod conv;
#[cfg(not(target_family = "wasm"))]
mod conv_weight;

use conv::forward;
#[cfg(not(target_family = "wasm"))]
use conv::x_backward;
#[cfg(not(target_family = "wasm"))]
use conv_weight::conv_weight;

impl ConvBackend for Cube {
    fn emu_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> FloatTensor<Self> {
        let none = [(); 3].map(|()| x.clone());
        forward(x, weight, bias, none, spec, ConvFusion::default())
    }

    fn emu_conv2d_fused(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        skip: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        spec: ConvSpec,
        fusion: ConvFusion,
    ) -> FloatTensor<Self> {
        forward(x, weight, bias, [skip, shift, residual], spec, fusion)
    }
}

#[cfg(not(target_family = "wasm"))]
impl ConvGradient for Cube {
    fn emu_conv2d_x_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> FloatTensor<Self> {
        // Padding beyond the kernel's reach.
        if spec.padding.0 >= weight.shape()[2] {
            use burn::backend::ops::ModuleOps;
            return <Self as ModuleOps<Self>>::conv2d_x_backward(x, weight, grad, spec.options());
        }
        x_backward(x.shape().dims(), weight, grad, spec)
    }

    fn emu_conv2d_parameters_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        _bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        conv_weight(x, weight.shape().dims(), grad, spec).into()
    }
}

/// Keys of every variant.
#[cfg(test)]
pub fn check_all(checked: &mut super::tests::Checked) {
    conv::check_all(checked);
    conv_weight::check_all(checked);
}
