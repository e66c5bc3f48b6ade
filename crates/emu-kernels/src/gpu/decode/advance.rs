//! The number of positions in the cache.

use burn_wgpu::CubeTensor;

use crate::gpu::kernel::{Kernel, kernel};

kernel! {
    /// Increments the number of positions.
    AdvanceKernel, "advance" ["decode/advance.wgsl"]
    {}
    |key| { invocations: 1, }
    /// Number of positions, and of new ones.
    AdvanceBuffers { place, }
}

/// Increments the number of positions.
pub fn advance(kv_len: CubeTensor) -> CubeTensor {
    AdvanceKernel {}.launch([1, 1, 1], AdvanceBuffers { place: &kv_len }, &[]);
    kv_len
}

/// Keys of every variant.
#[cfg(test)]
pub fn check_all(checked: &mut crate::gpu::tests::Checked) {
    checked.check(AdvanceKernel {});
}
