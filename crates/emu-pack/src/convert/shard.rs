//! A shard under construction.

use super::Loss;
use crate::{TensorData, TensorInfo};

/// A shard under construction.
#[derive(Default)]
pub(super) struct Shard {
    /// Component of its tensors.
    pub component: String,
    /// Tensors with their manifest entry: index of the tensor, and row range `[first, end]`.
    pub pieces: Vec<(TensorData, usize, [usize; 2])>,
    /// Losses, by index of the tensor's outcome.
    pub losses: Vec<(usize, Loss)>,
    /// Upper bound of its size in bytes, header included.
    pub bytes: u64,
}

/// Upper bound of a tensor's header entry in bytes: name as JSON, row range, numbers of up to 20 digits.
pub(super) fn header_cost(info: &TensorInfo) -> u64 {
    let name = serde_json::Value::from(info.name.as_str())
        .to_string()
        .len();
    (name + 42 + 60 + 42 + 21 * info.shape.len().max(1)) as u64
}
