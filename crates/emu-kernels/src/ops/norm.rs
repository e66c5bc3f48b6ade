//! Norms.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::{folded, of_rows};
use crate::backend::NormBackend;
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

/// Root-mean-square norm over the last axis: `x / sqrt(mean(x²) + eps) * weight` (Zhang and Sennrich, 2019).
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

/// Group norm followed by SiLU, of the channels of `x` and then those of `beside`.
///
/// # Shapes
/// - `x`: `[B, C, H, W]`, `beside`: `[B, C', H, W]`, `weight` and `bias`: `[C + C']`
/// - returns `[B, C + C', H, W]`
pub fn group_norm_silu(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    beside: Option<Tensor<4>>,
    groups: usize,
    eps: f64,
) -> Tensor<4> {
    let silu = true;
    let spec = GroupNormSpec { groups, eps, silu };
    normalise(x, weight, bias, beside, spec)
}

fn normalise(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    beside: Option<Tensor<4>>,
    spec: GroupNormSpec,
) -> Tensor<4> {
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    let bias = bias.into_dispatch();
    let y = match beside {
        None => Dispatch::emu_group_norm(x, weight, bias, spec),
        Some(beside) => {
            Dispatch::emu_group_norm_beside(x, beside.into_dispatch(), weight, bias, spec)
        }
    };
    Tensor::from_dispatch(y)
}
