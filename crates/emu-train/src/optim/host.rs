//! Slice operations on tensors in host memory.

use super::slices::{self, AdamWUpdate};
use burn::tensor::TensorData;

/// Updates a parameter in place. An empty `average` is initialised with the old value.
pub(super) fn step(
    data: &mut TensorData,
    gradient: &TensorData,
    m: &mut [f32],
    v: &mut [f32],
    average: Option<&mut Vec<f32>>,
    update: &AdamWUpdate,
) {
    let (Ok(p), Ok(g)) = (data.as_mut_slice::<f32>(), gradient.as_slice::<f32>()) else {
        debug_assert!(false, "parameters and gradients are f32");
        return;
    };
    slices::adamw(p, g, m, v, average, update);
}

/// The sum of squares; NaN for any type but f32.
pub(super) fn square_sum(data: &TensorData) -> f64 {
    data.as_slice::<f32>().map_or(f64::NAN, slices::square_sum)
}

/// `x ← factor · x`
pub(super) fn scale(data: &mut TensorData, factor: f64) {
    if factor != 1.0
        && let Ok(x) = data.as_mut_slice::<f32>()
    {
        slices::scale(x, factor as f32);
    }
}

/// `x ← (1 − share) · x + share · y`
pub(super) fn mix(data: &mut TensorData, other: &TensorData, share: f64) {
    if let (Ok(x), Ok(y)) = (data.as_mut_slice::<f32>(), other.as_slice::<f32>()) {
        slices::mix(x, y, (1.0 - share) as f32, share as f32);
    }
}
