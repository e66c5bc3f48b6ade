//! Normalization layers, which own their weights.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use crate::init::{Init, param};
use crate::ops;

/// `(x - mean) / sqrt(var + eps) * weight + bias` over the last axis.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// `[width]`
    pub weight: Param<Tensor<1>>,
    /// `[width]`
    pub bias: Param<Tensor<1>>,
    /// Added to the variance.
    pub eps: f64,
}

impl LayerNorm {
    /// Weight one, bias zero.
    pub fn new(width: usize, eps: f64, device: &Device) -> Self {
        Self {
            weight: param([width], Init::Ones, device),
            bias: param([width], Init::Zeros, device),
            eps,
        }
    }

    /// # Shapes
    /// - `x`: `[.., width]`, returned in the same shape
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::layer_norm(x, self.weight.val(), self.bias.val(), self.eps)
    }
}

/// `x / sqrt(mean(x²) + eps) * weight` over the last axis (Zhang and Sennrich, 2019).
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// `[width]`
    pub weight: Param<Tensor<1>>,
    /// Added to the mean square.
    pub eps: f64,
}

impl RmsNorm {
    /// Weight one.
    pub fn new(width: usize, eps: f64, device: &Device) -> Self {
        Self {
            weight: param([width], Init::Ones, device),
            eps,
        }
    }

    /// # Shapes
    /// - `x`: `[.., width]`, returned in the same shape
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::rms_norm(x, self.weight.val(), self.eps)
    }
}

/// Group norm over `[B, C, H, W]` (Wu and He, 2018).
#[derive(Module, Debug)]
pub struct GroupNorm {
    /// `[channels]`
    pub weight: Param<Tensor<1>>,
    /// `[channels]`
    pub bias: Param<Tensor<1>>,
    /// Number of groups.
    pub groups: usize,
    /// Added to the variance: 1e-5 in UNet resnets, 1e-6 in its transformers and in the VAE.
    pub eps: f64,
}

impl GroupNorm {
    /// Weight one, bias zero.
    pub fn new(groups: usize, channels: usize, eps: f64, device: &Device) -> Self {
        Self {
            weight: param([channels], Init::Ones, device),
            bias: param([channels], Init::Zeros, device),
            groups,
            eps,
        }
    }

    /// # Shapes
    /// - `x`: `[B, C, H, W]`, returned in the same shape
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        ops::group_norm(x, self.weight.val(), self.bias.val(), self.groups, self.eps)
    }

    /// Group norm and SiLU, fused in the kernels.
    pub fn forward_silu(&self, x: Tensor<4>) -> Tensor<4> {
        self.forward_silu_with_skip(x, None)
    }

    /// Like [`GroupNorm::forward_silu`], over the concatenated channels of `x` and `skip`.
    pub fn forward_silu_with_skip(&self, x: Tensor<4>, skip: Option<Tensor<4>>) -> Tensor<4> {
        let (weight, bias) = (self.weight.val(), self.bias.val());
        ops::group_norm_silu(x, weight, bias, skip, self.groups, self.eps)
    }
}
