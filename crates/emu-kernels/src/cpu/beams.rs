//! Beam search step on the CPU.

use burn::backend::flex::FlexTensor;
use burn::tensor::TensorData;

use super::{contiguous, values};
use crate::sample::{Processors, log_softmax};
use crate::spec::BEAM_HEADER;

/// The best continuations of the beams, from `[B, V]` logits: `[2 best]`, for each its flat index into the logits and the bits
/// of its cumulative score.
pub fn best(logits: FlexTensor, asked: FlexTensor, best: usize) -> FlexTensor {
    let beams = logits.layout().shape()[0];
    let (logits, asked) = (contiguous(logits), contiguous(asked));
    let mut scores = values(&logits).to_vec();
    let (head, rest) = { asked.as_slice::<i32>().unwrap_or_default() }.split_at(BEAM_HEADER);
    let (sums, histories) = rest.split_at(beams);
    let processors = Processors {
        repetition_penalty: f32::from_bits(head[0] as u32),
        no_repeat_ngram: head[1].max(0) as usize,
        min_length: 0,
    };
    let (made, banned) = (head[2].max(0) as usize, &head[3..]);
    let width = scores.len() / beams.max(1);
    for (beam, row) in scores.chunks_mut(width.max(1)).enumerate() {
        let history = &histories[beam * made..][..made];
        let history: Vec<u32> = history.iter().map(|&token| token as u32).collect();
        let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if !greatest.is_finite() || row.iter().any(|logit| logit.is_nan()) {
            // No distribution: NaN scores, which sort before all others.
            row.fill(f32::NAN);
            continue;
        }
        log_softmax(row);
        if made > 0 {
            processors.apply(&history, u32::MAX, row);
        }
        for &token in banned {
            let token = usize::try_from(token).ok();
            if let Some(score) = token.and_then(|token| row.get_mut(token)) {
                *score = f32::NEG_INFINITY;
            }
        }
        let sum = f32::from_bits(sums[beam] as u32);
        row.iter_mut().for_each(|score| *score += sum);
    }
    let numbers: Vec<i32> = { top(&scores, best).into_iter() }
        .flat_map(|index| [index as i32, scores[index as usize].to_bits() as i32])
        .collect();
    let length = numbers.len();
    FlexTensor::from_data(TensorData::new(numbers, [length]))
}

/// Indices of the `n` greatest scores, in descending order, the lower index first among equals.
fn top(scores: &[f32], n: usize) -> Vec<u32> {
    let order = |a: &u32, b: &u32| {
        let [left, right] = [a, b].map(|index| scores[*index as usize]);
        right.total_cmp(&left).then(a.cmp(b))
    };
    let mut all: Vec<u32> = (0..scores.len() as u32).collect();
    if all.len() > n {
        all.select_nth_unstable_by(n, order);
        all.truncate(n);
    }
    all.sort_unstable_by(order);
    all
}
