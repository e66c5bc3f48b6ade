//! The number of positions in the cache.

use burn::backend::flex::FlexTensor;

use crate::cpu::contiguous;

/// Increments the first element of `kv_len`.
pub fn advance(kv_len: FlexTensor) -> FlexTensor {
    let mut kv_len = contiguous(kv_len);
    if let Some(length) = kv_len.storage_mut::<i32>().first_mut() {
        *length += 1;
    }
    kv_len
}
