//! Beam search step: the best continuations of all beams.

use burn::tensor::{DType, Shape};
use burn_wgpu::CubeTensor;

use crate::gpu::kernel::{Kernel, kernel};
use crate::gpu::{grid, output_of};

/// Workgroup size; an invocation ranks one candidate.
const MERGING: usize = 64;

kernel! {
    /// The best continuations of all beams.
    BeamMergeKernel, "beam_merge" ["shared/order.wgsl", "sampling/beam_merge.wgsl"]
    {}
    |key| { invocations: MERGING, }
    /// `[B, kept, 2]`; the result, `[best, 2]`.
    BeamMergeBuffers { lists, best, }
    uniform sizes
}

/// The best continuations of all beams, from those of each: `[2 best]`.
///
/// `sizes` are those of the uniform buffer: beams, width, kept, best, changes.
pub fn beam_merge(lists: &CubeTensor, sizes: [u32; 5]) -> CubeTensor {
    let [beams, _, kept, best, _] = sizes.map(|n| n as usize);
    let merged = output_of(lists, Shape::new([2 * best]), DType::I32);
    let workgroups = grid((beams * kept).div_ceil(MERGING));
    let buffers = BeamMergeBuffers {
        lists,
        best: &merged,
    };
    BeamMergeKernel {}.launch(workgroups, buffers, &sizes);
    merged
}

/// Keys of every variant.
#[cfg(test)]
pub fn check_all(checked: &mut crate::gpu::tests::Checked) {
    checked.check(BeamMergeKernel {});
}
