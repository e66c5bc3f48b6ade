//! Convolutions on the CPU.

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;

use crate::ops::conv::ConvBackend;
#[cfg(not(target_family = "wasm"))]
use crate::ops::conv::ConvGradient;
use crate::spec::ConvSpec;

// Named as its shader.
#[allow(clippy::module_inception)]
mod conv;
#[cfg(not(target_family = "wasm"))]
mod conv_weight;
mod patches;

use conv::forward;
#[cfg(not(target_family = "wasm"))]
use conv::x_backward;
#[cfg(not(target_family = "wasm"))]
use conv_weight::conv_weight;

impl ConvBackend for Flex {
    fn emu_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> FloatTensor<Self> {
        forward(x, weight, bias, spec)
    }
}

#[cfg(not(target_family = "wasm"))]
impl ConvGradient for Flex {
    fn emu_conv2d_x_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> FloatTensor<Self> {
        x_backward(x, weight, grad, spec)
    }

    fn emu_conv2d_parameters_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        use burn::backend::ops::ModuleOps;
        let at_bias =
            <Self as ModuleOps<Self>>::conv2d_bias_backward(x.clone(), bias, grad.clone());
        (conv_weight(x, weight, grad, spec), at_bias)
    }
}
