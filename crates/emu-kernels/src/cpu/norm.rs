//! CPU norms of rows; group norm has its own file.

use burn::backend::flex::FlexTensor;
use burn::backend::ops::ModuleOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};

use super::math::dot;
use super::{contiguous, group_norm, tensor, values};
use crate::ops::norm::NormBackend;
#[cfg(not(target_family = "wasm"))]
use crate::ops::norm::NormGradient;
use crate::spec::GroupNormSpec;

/// RMS norm of rows.
fn rms_norm(x: FlexTensor, weight: FlexTensor, eps: f64) -> FlexTensor {
    let (x, weight) = (contiguous(x), contiguous(weight));
    let [rows, d] = x.shape().dims::<2>();
    let w = values(&weight);
    let mut y = Vec::with_capacity(rows * d);
    for row in values(&x).chunks_exact(d.max(1)) {
        let mean = f64::from(dot(row, row)) / d as f64;
        let scale = (1.0 / (mean + eps).sqrt()) as f32;
        y.extend(row.iter().zip(w).map(|(x, w)| x * scale * w));
    }
    tensor(y, [rows, d])
}

impl NormBackend for Flex {
    fn emu_layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        <Self as ModuleOps<Self>>::layer_norm(x, weight, Some(bias), eps)
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
        group_norm::forward(x, weight, bias, spec)
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
        group_norm::x_backward(x, weight, bias, grad, spec)
    }

    fn emu_group_norm_affine_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self> {
        group_norm::affine_backward(x, weight, bias, grad, spec)
    }
}
