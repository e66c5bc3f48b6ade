//! Beam search step: the best continuations of all beams.

use crate::sample::top;

/// Indices of the `n` greatest scores, in descending order, the lower index first among equals.
pub fn beam_merge(scores: &[f32], n: usize) -> Vec<u32> {
    top(scores, n)
}
