//! A shard under construction.

use std::cmp::{Ordering, Reverse};

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

/// Bytes left in a shard of at most `limit` bytes that has `used` by the bounds above. The constant covers the header's length
/// field, braces and padding.
pub(super) fn room(limit: u64, used: u64) -> u64 {
    limit.saturating_sub(used + 32)
}

/// Order of tensors in a shard: wide types first, so that every tensor is aligned to its element size.
pub(super) fn file_order(a: &TensorInfo, b: &TensorInfo) -> Ordering {
    let key = |info: &TensorInfo| Reverse(info.dtype.size());
    key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
}
