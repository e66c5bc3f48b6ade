//! Access to tensor values.

use burn::tensor::{Device, Tensor};

/// Whether tensors on this device are slices in host memory.
pub(crate) fn on_host(device: &Device) -> bool {
    *device == Device::flex()
}

/// The elements of a tensor.
pub(crate) fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}
