//! Beam search step: the best continuations of each beam.

use burn::tensor::{DType, Shape};
use burn_wgpu::CubeTensor;

use crate::gpu::kernel::{Kernel, kernel};
use crate::gpu::{grid, output_of};
use crate::spec::BEAM_HEADER;

/// Workgroup size; a workgroup computes one beam.
const OF_A_BEAM: usize = 128;

kernel! {
    /// The best continuations of each beam.
    BeamBestKernel, "beam_best" ["shared/order.wgsl", "sampling/beam_best.wgsl"]
    {}
    |key| { invocations: OF_A_BEAM, header: BEAM_HEADER, }
    /// `[B, V]`, what is asked for; the result, `[B, kept, 2]`.
    BeamBestBuffers { logits, asked, best, }
    uniform sizes
}

/// The best continuations of each beam, from contiguous `[B, V]` logits: `[2 B kept]`, each a flat index and the bits of a
/// score.
///
/// `sizes` are those of the uniform buffer: beams, width, kept, best, changes.
pub fn beam_best(logits: &CubeTensor, asked: &CubeTensor, sizes: [u32; 5]) -> CubeTensor {
    let (beams, kept) = (logits.meta.shape()[0], sizes[2] as usize);
    let lists = output_of(logits, Shape::new([2 * beams * kept]), DType::I32);
    let buffers = BeamBestBuffers {
        logits,
        asked,
        best: &lists,
    };
    BeamBestKernel {}.launch(grid(beams), buffers, &sizes);
    lists
}

/// Keys of every variant.
#[cfg(test)]
pub fn check_all(checked: &mut crate::gpu::tests::Checked) {
    checked.check(BeamBestKernel {});
}
