//! RMS norm of rows.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use crate::cpu::math::dot;
use crate::cpu::{contiguous, tensor, values};

/// RMS norm of rows.
pub fn rms_norm(x: FlexTensor, weight: FlexTensor, eps: f64) -> FlexTensor {
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
