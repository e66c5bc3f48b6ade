//! The bandwidth of copies on a device.

use std::time::Instant;

use anyhow::Result;
use emu_kernels::burn::tensor::{Device, Distribution, Tensor};

/// Bytes of the copied tensor. Each byte is read and written once.
const COPY: usize = 1 << 27;
/// Number of repeated copies; the fastest counts.
const COPIES: usize = 5;

/// Copy bandwidth in bytes per second: the fastest of several copies of a large tensor, read and written bytes counted.
pub(super) fn copy_bandwidth(device: &Device) -> Result<f64> {
    let x = Tensor::<1>::random([COPY / 4], Distribution::Default, device);
    let mut best = f64::INFINITY;
    for _ in 0..COPIES {
        device.sync().ok();
        let start = Instant::now();
        let y = x.clone().add_scalar(1.0);
        device.sync().ok();
        best = best.min(start.elapsed().as_secs_f64());
        drop(y);
    }
    Ok(2.0 * COPY as f64 / best)
}
