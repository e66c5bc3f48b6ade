//! The SiLU gate of both halves of each row.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use crate::cpu::{contiguous, tensor, values};

/// `silu(x[.., :D]) * x[.., D:]`.
pub fn silu_pair(x: FlexTensor) -> FlexTensor {
    let x = contiguous(x);
    let [rows, both] = x.shape().dims::<2>();
    let mut y = Vec::with_capacity(rows * both / 2);
    for row in values(&x).chunks_exact(both.max(1)) {
        let (gate, up) = row.split_at(both / 2);
        y.extend(gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u));
    }
    tensor(y, [rows, both / 2])
}
