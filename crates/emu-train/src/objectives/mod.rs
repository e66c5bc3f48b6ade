//! Loss functions. They are pure functions of tensors and token ids: no data sets, files or randomness.

pub mod collapse;
pub mod contrast;
pub mod diffusion;
pub mod unified;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData};

/// Mean cross-entropy of rows of logits.
///
/// # Shapes
/// - `logits`: `[N, classes]`, `targets`: N classes
pub fn cross_entropy(logits: Tensor<2>, targets: &[u32]) -> Tensor<1> {
    let n = targets.len();
    let device = logits.device();
    let targets: Tensor<2, Int> = Tensor::from_data(
        TensorData::new(targets.iter().map(|&t| t as i32).collect(), [n, 1]),
        &device,
    );
    log_softmax(logits, 1).gather(1, targets).mean().neg()
}

/// Rows of `[B, T, D]` by flat index, `[N, D]`.
pub fn rows(x: Tensor<3>, index: &[usize]) -> Tensor<2> {
    let [b, t, d] = x.dims();
    let index: Tensor<1, Int> = Tensor::from_data(
        TensorData::new(index.iter().map(|&i| i as i32).collect(), [index.len()]),
        &x.device(),
    );
    x.reshape([b * t, d]).select(0, index)
}
