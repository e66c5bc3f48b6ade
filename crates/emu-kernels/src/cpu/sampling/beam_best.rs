//! Beam search step: the scores of each beam's continuations.

use burn::backend::flex::FlexTensor;

use crate::cpu::{contiguous, values};
use crate::sample::{Processors, log_softmax};
use crate::spec::BEAM_HEADER;

/// Cumulative scores of all continuations of each beam, from `[B, V]` logits: `[B V]`. A GPU computes only the best of them.
pub fn beam_best(logits: FlexTensor, asked: FlexTensor) -> Vec<f32> {
    let beams = logits.layout().shape()[0];
    let (logits, asked) = (contiguous(logits), contiguous(asked));
    let mut scores = values(&logits).to_vec();
    let (head, rest) = { asked.as_slice::<i32>().unwrap_or_default() }.split_at(BEAM_HEADER);
    let (sums, histories) = rest.split_at(beams);
    let processors = Processors {
        repetition_penalty: f32::from_bits(head[0] as u32),
        no_repeat_ngram: head[1].max(0) as usize,
        ..Processors::default()
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
    scores
}
