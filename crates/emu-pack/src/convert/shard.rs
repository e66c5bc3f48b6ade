//! A shard that is being filled.

use super::Loss;
use crate::{TensorData, TensorInfo};

/// The shard being filled.
#[derive(Default)]
pub(super) struct Shard {
    /// The component whose tensors it holds.
    pub component: String,
    /// Tensors and their place in the manifest: index of the tensor, first row, last row.
    pub pieces: Vec<(TensorData, usize, [usize; 2])>,
    /// What was lost, by the place of the tensor's outcome.
    pub losses: Vec<(usize, Loss)>,
    /// What it will take at most, header included.
    pub bytes: u64,
}

/// Bytes of a tensor's entry in a header, at most: its name as JSON, the rows of a part, numbers of 20 digits.
pub(super) fn header_cost(info: &TensorInfo) -> u64 {
    let name = serde_json::Value::from(info.name.as_str())
        .to_string()
        .len();
    (name + 42 + 60 + 42 + 21 * info.shape.len().max(1)) as u64
}
