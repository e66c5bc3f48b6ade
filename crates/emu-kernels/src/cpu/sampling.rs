//! Sampling and beam search on the CPU.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::TensorData;

use crate::ops::sampling::SamplingBackend;
use crate::spec::SampleSpec;

mod beam_best;
mod beam_merge;
mod sample;

use beam_best::beam_best;
use beam_merge::beam_merge;
use sample::sample;

/// The best continuations of the beams, from `[B, V]` logits: `[2 best]`, for each its flat index into the logits and the bits
/// of its cumulative score.
fn best_beams(logits: FlexTensor, asked: FlexTensor, best: usize) -> FlexTensor {
    let scores = beam_best(logits, asked);
    let numbers: Vec<i32> = { beam_merge(&scores, best).into_iter() }
        .flat_map(|index| [index as i32, scores[index as usize].to_bits() as i32])
        .collect();
    let length = numbers.len();
    FlexTensor::from_data(TensorData::new(numbers, [length]))
}

impl SamplingBackend for Flex {
    fn emu_sample(
        logits: FloatTensor<Self>,
        numbers: FloatTensor<Self>,
        token: IntTensor<Self>,
        history: IntTensor<Self>,
        spec: SampleSpec,
    ) -> (IntTensor<Self>, IntTensor<Self>) {
        let _ = token;
        sample(logits, numbers, history, spec)
    }

    fn emu_best_beams(
        logits: FloatTensor<Self>,
        asked: IntTensor<Self>,
        best: usize,
        changes: bool,
    ) -> IntTensor<Self> {
        let _ = changes;
        best_beams(logits, asked, best)
    }
}
