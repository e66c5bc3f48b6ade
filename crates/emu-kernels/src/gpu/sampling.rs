//! Sampling and beam search on a GPU.

use burn::backend::Cube;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn_wgpu::CubeTensor;

use super::into_contiguous;
use crate::ops::sampling::SamplingBackend;
use crate::spec::SampleSpec;

mod beam_best;
mod beam_merge;
pub mod sample;

use beam_best::beam_best;
use beam_merge::beam_merge;
use sample::sample;

/// The best continuations of the beams, from `[B, V]` logits: `[2 best]`, for each its flat index into the logits and the bits
/// of its cumulative score.
///
/// Sizes are in a uniform buffer, so that all models and numbers of beams share two pipelines.
fn best_beams(logits: CubeTensor, asked: CubeTensor, best: usize, changes: bool) -> CubeTensor {
    let (logits, asked) = (into_contiguous(logits), into_contiguous(asked));
    let (beams, width) = (logits.meta.shape()[0], logits.meta.shape()[1]);
    let kept = best.min(width);
    let sizes = [beams, width, kept, best, usize::from(changes)].map(|n| n as u32);
    let lists = beam_best(&logits, &asked, sizes);
    if beams == 1 {
        return lists;
    }
    beam_merge(&lists, sizes)
}

impl SamplingBackend for Cube {
    fn emu_sample(
        logits: FloatTensor<Self>,
        numbers: FloatTensor<Self>,
        token: IntTensor<Self>,
        history: IntTensor<Self>,
        spec: SampleSpec,
    ) -> (IntTensor<Self>, IntTensor<Self>) {
        sample(logits, numbers, token, history, spec)
    }

    fn emu_best_beams(
        logits: FloatTensor<Self>,
        asked: IntTensor<Self>,
        best: usize,
        changes: bool,
    ) -> IntTensor<Self> {
        best_beams(logits, asked, best, changes)
    }
}

/// Keys of every variant.
#[cfg(test)]
pub fn check_all(checked: &mut super::tests::Checked) {
    beam_best::check_all(checked);
    beam_merge::check_all(checked);
    sample::check_all(checked);
}
