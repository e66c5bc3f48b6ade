//! Contrastive scores between a picture's embeddings and word embeddings, for training an encoder from scratch.
//!
//! B pictures, Q embeddings per picture, N words, width D.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData};

/// The logsumexp over axis 1: `log Σ_q exp(x_q)`, `[B, Q, N]` to `[B, N]`.
fn log_sum_exp(x: Tensor<3>) -> Tensor<2> {
    let [b, _, n] = x.dims();
    let max = x.clone().detach().max_dim(1); // [B, 1, N]
    let sum = (x - max.clone()).exp().sum_dim(1);
    (sum.log() + max).reshape([b, n])
}

/// Scores of words for whole pictures. Each embedding scores each word; the picture's score is their logsumexp, so that
/// one embedding of the object is enough. (The mean learns half as well, because most embeddings show background.)
///
/// # Shapes
/// - `embeddings`: `[B, Q, D]`, `words`: `[N, D]`
/// - returns per embedding `[B, Q, N]` and per picture `[B, N]`
pub fn scores(embeddings: Tensor<3>, words: Tensor<2>) -> (Tensor<3>, Tensor<2>) {
    let [b, q, d] = embeddings.dims();
    let [n, _] = words.dims();
    let each = embeddings
        .reshape([b * q, d])
        .matmul(words.transpose())
        .reshape([b, q, n]);
    (each.clone(), log_sum_exp(each))
}

/// Cross-entropy with several correct answers per row: the mean of `-log p` over all (row, answer) pairs.
///
/// # Shapes
/// - `scores`: `[R, N]`; `answers`: (row, word) pairs, not empty
pub fn multi_cross_entropy(scores: Tensor<2>, answers: &[(usize, usize)]) -> Tensor<1> {
    let [_, n] = scores.dims();
    let flat: Vec<i32> = answers
        .iter()
        .map(|&(row, word)| (row * n + word) as i32)
        .collect();
    let count = flat.len();
    let index: Tensor<1, Int> = Tensor::from_data(TensorData::new(flat, [count]), &scores.device());
    log_softmax(scores, 1)
        .flatten::<1>(0, 1)
        .select(0, index)
        .mean()
        .neg()
}
