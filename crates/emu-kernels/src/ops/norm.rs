//! Normalization: layer norm, RMS norm, group norm.

use burn::backend::Dispatch;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};
use burn::tensor::Tensor;

use super::{folded, of_rows};
use crate::spec::GroupNormSpec;

/// `(x - mean) / sqrt(var + eps) * weight + bias` over the last axis.
///
/// # Shapes
/// - `x`: `[.., D]`, `weight` and `bias`: `[D]`
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    folded(x, |x| {
        Tensor::from_dispatch(Dispatch::emu_layer_norm(
            x.into_dispatch(),
            weight.into_dispatch(),
            bias.into_dispatch(),
            eps,
        ))
    })
}

/// RMS norm over the last axis: `x / sqrt(mean(x²) + eps) * weight` (Zhang and Sennrich, 2019).
///
/// # Shapes
/// - `x`: `[.., D]`, `weight`: `[D]`
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, eps: f64) -> Tensor<D> {
    of_rows(x, |x| {
        let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
        Tensor::from_dispatch(Dispatch::emu_rms_norm(x, weight, eps))
    })
}

/// Group norm of `[B, C, H, W]`.
pub fn group_norm(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    groups: usize,
    eps: f64,
) -> Tensor<4> {
    let silu = false;
    let spec = GroupNormSpec { groups, eps, silu };
    normalise(x, weight, bias, None, spec)
}

/// Group norm and SiLU over the concatenated channels of `x` and `skip`.
///
/// # Shapes
/// - `x`: `[B, C, H, W]`, `skip`: `[B, C', H, W]`, `weight` and `bias`: `[C + C']`
/// - returns `[B, C + C', H, W]`
pub fn group_norm_silu(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    skip: Option<Tensor<4>>,
    groups: usize,
    eps: f64,
) -> Tensor<4> {
    let silu = true;
    let spec = GroupNormSpec { groups, eps, silu };
    normalise(x, weight, bias, skip, spec)
}

fn normalise(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    skip: Option<Tensor<4>>,
    spec: GroupNormSpec,
) -> Tensor<4> {
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    let bias = bias.into_dispatch();
    let y = match skip {
        None => Dispatch::emu_group_norm(x, weight, bias, spec),
        Some(skip) => {
            Dispatch::emu_group_norm_with_skip(x, skip.into_dispatch(), weight, bias, spec)
        }
    };
    Tensor::from_dispatch(y)
}

/// Norms. Shapes as above.
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

    /// `x / sqrt(mean(x²) + eps) * weight` per row: `[rows, D]`, `[D]`.
    fn emu_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64)
    -> FloatTensor<Self>;

    /// Group norm of `[B, C, H, W]`, followed by SiLU if `spec.silu`.
    fn emu_group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self>;

    /// Group norm over the concatenated channels of `x` and `skip`.
    fn emu_group_norm_with_skip(
        x: FloatTensor<Self>,
        skip: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self> {
        Self::emu_group_norm(Self::float_cat(vec![x, skip], 1), weight, bias, spec)
    }
}

/// Backward passes of norms.
#[cfg(not(target_family = "wasm"))]
pub trait NormGradient: NormBackend {
    /// Gradient of `x` for group norm.
    fn emu_group_norm_x_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self>;

    /// Gradients of weight and bias for group norm, `[2, C]`.
    fn emu_group_norm_affine_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self>;
}
