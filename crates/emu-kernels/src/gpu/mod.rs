//! WGSL kernels: a file for each, with its key and its launch, in the place of its shader and its CPU reference. A topic's
//! file implements the topic's trait with them. [`kernel`] is what a kernel is, [`template`] how its text is put together.
//!
//! Natively a raw shader runs without bounds checks and with uninitialized workgroup memory: every shader guards its indices
//! and writes workgroup memory before it reads it.

use burn::tensor::{DType, Shape};
use burn_wgpu::CubeTensor;

mod activation;
mod attention;
mod conv;
mod decode;
mod kernel;
pub mod matmul;
mod norm;
mod sampling;
mod template;
#[cfg(not(target_family = "wasm"))]
mod texts;

#[cfg(test)]
mod emulated;

pub use burn_wgpu::into_contiguous;

/// Limit of workgroups per dispatch axis on every adapter.
const MOST_WORKGROUPS: usize = 65_535;

/// Workgroups that keep a large GPU busy. Below this, convolutions have smaller tiles and split their depth.
const MANY_WORKGROUPS: usize = 64;

/// A grid of `n` workgroups within every adapter's limits; a shader computes `x + y * width` and skips indices from `n` on.
pub fn grid(n: usize) -> [usize; 3] {
    let rows = n.div_ceil(MOST_WORKGROUPS).max(1);
    [n.div_ceil(rows), rows, 1]
}

/// Copies `tensor` if it shares its buffer with `other`: a buffer must not be bound twice in one dispatch.
pub fn apart(tensor: CubeTensor, other: &CubeTensor) -> CubeTensor {
    let same = tensor.handle.memory.descriptor() == other.handle.memory.descriptor();
    if same { tensor.copy() } else { tensor }
}

/// A new uninitialized f32 tensor on the device of `like`.
pub fn output(like: &CubeTensor, shape: Shape) -> CubeTensor {
    output_of(like, shape, DType::F32)
}

/// A new uninitialized tensor on the device of `like`.
pub fn output_of(like: &CubeTensor, shape: Shape, dtype: DType) -> CubeTensor {
    let (client, device) = (like.client.clone(), like.device.clone());
    let handle = client.empty(shape.num_elements() * dtype.size());
    CubeTensor::new_contiguous(client, device, shape, handle, dtype)
}

#[cfg(test)]
mod tests;
