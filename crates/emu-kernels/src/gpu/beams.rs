//! Beam search step on a GPU: the best continuations of each beam, then of all.

use burn::tensor::{DType, Shape};
use burn_wgpu::CubeTensor;

use super::{Shader, grid, into_contiguous, output_of};
use crate::spec::BEAM_HEADER;

/// Workgroup size of the per-beam kernel.
const OF_A_BEAM: usize = 128;
/// Workgroup size of the merge kernel.
const MERGING: usize = 64;

fn best_shader() -> Shader {
    Shader {
        name: "beam_best",
        text: concat!(
            include_str!("../../../../shaders/shared/order.wgsl"),
            include_str!("../../../../shaders/sample/beam_best.wgsl")
        ),
        constants: vec![("invocations", OF_A_BEAM), ("header", BEAM_HEADER)],
        invocations: OF_A_BEAM,
    }
}

fn merge_shader() -> Shader {
    Shader {
        name: "beam_merge",
        text: concat!(
            include_str!("../../../../shaders/shared/order.wgsl"),
            include_str!("../../../../shaders/sample/beam_merge.wgsl")
        ),
        constants: vec![("invocations", MERGING)],
        invocations: MERGING,
    }
}

/// The best continuations of the beams, from `[B, V]` logits: `[2 best]`, for each its flat index into the logits and the bits
/// of its cumulative score.
///
/// Sizes are in a uniform buffer, so that all models and numbers of beams share two pipelines.
pub fn best(logits: CubeTensor, asked: CubeTensor, best: usize, changes: bool) -> CubeTensor {
    let (logits, asked) = (into_contiguous(logits), into_contiguous(asked));
    let (beams, width) = (logits.meta.shape()[0], logits.meta.shape()[1]);
    let kept = best.min(width);
    let sizes = [beams, width, kept, best, usize::from(changes)].map(|n| n as u32);
    let numbers = |n: usize| output_of(&logits, Shape::new([2 * n]), DType::I32);
    let lists = numbers(beams * kept);
    best_shader().launch_with(grid(beams), &[&logits, &asked, &lists], &sizes);
    if beams == 1 {
        return lists;
    }
    let merged = numbers(best);
    let workgroups = grid((beams * kept).div_ceil(MERGING));
    merge_shader().launch_with(workgroups, &[&lists, &merged], &sizes);
    merged
}
