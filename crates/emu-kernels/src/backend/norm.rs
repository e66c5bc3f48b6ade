//! Norms.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

use crate::spec::GroupNormSpec;

/// Norms. Shapes as in [`crate::ops::norm`].
#[cfg_attr(not(target_family = "wasm"), backend_extension(Cube, Flex, Autodiff))]
#[cfg_attr(all(target_family = "wasm", feature = "wgpu"), backend_extension(Cube))]
#[cfg_attr(all(target_family = "wasm", feature = "flex"), backend_extension(Flex))]
pub trait NormBackend: Backend {
    /// `(x - mean) / sqrt(var + eps) * weight + bias` over the last axis of `[B, T, D]`.
    fn emu_layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self>;

    /// `x / sqrt(mean(x²) + eps) * weight` of rows: `[rows, D]`, `[D]`.
    fn emu_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64)
    -> FloatTensor<Self>;

    /// Group norm of `[B, C, H, W]`, and SiLU where the spec says so.
    fn emu_group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self>;

    /// Group norm of the channels of `x` and then those of `beside`.
    fn emu_group_norm_beside(
        x: FloatTensor<Self>,
        beside: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self> {
        Self::emu_group_norm(Self::float_cat(vec![x, beside], 1), weight, bias, spec)
    }
}

/// Their backward passes.
#[cfg(not(target_family = "wasm"))]
pub trait NormGradient: NormBackend {
    /// The gradient at `x` of a group norm.
    fn emu_group_norm_x_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self>;

    /// The gradients at its weight and bias, `[2, C]`.
    fn emu_group_norm_affine_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self>;
}
