//! Ranking of candidate answers by their loss.

use emu_kernels::sample::log_softmax;

use super::{GenerateError, Prompt, read};
use crate::Emu;
use crate::config::EmuConfig;
use crate::lm::Visibility;

/// Loss of each candidate after the prompt. Smaller is better.
///
/// As in the released code, the sum over the candidate's tokens is divided by **all** predicting positions of the
/// padded batch, including prompt and padding. Losses of one call are comparable; losses of different calls are not.
///
/// # Arguments
/// - `candidates`: token ids without `<s>`
///
/// # Errors
/// If prompt and candidate exceed the context, or the device fails.
pub async fn rank_losses(
    emu: &Emu,
    config: &EmuConfig,
    prompt: &Prompt,
    candidates: &[Vec<u32>],
) -> Result<Vec<f32>, GenerateError> {
    let longest = candidates.iter().map(Vec::len).max().unwrap_or(0);
    let start = prompt.ids.len();
    if start == 0 {
        return Err(GenerateError::Empty);
    }
    let total = start + longest;
    if total > config.lm.context {
        return Err(GenerateError::TooLong {
            prompt: start,
            wanted: longest,
            context: config.lm.context,
        });
    }
    let mut losses = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        let mut ids = prompt.ids.clone();
        ids.extend(candidate);
        let n = ids.len();
        let embeds = emu.splice(&[ids], prompt.visual.clone(), config.special.image)?;
        let hidden = emu
            .lm
            .forward(embeds, &[(0..n).collect()], &Visibility::All);
        // Position start-1+i predicts candidate token i.
        let logits = emu
            .lm
            .logits(hidden.narrow(1, start - 1, candidate.len().max(1)));
        let [_, _, vocab] = logits.dims();
        let flat = read(logits).await?;
        let sum: f32 = flat
            .chunks(vocab)
            .zip(candidate)
            .map(|(row, &token)| {
                let mut row = row.to_vec();
                log_softmax(&mut row);
                -row.get(token as usize)
                    .copied()
                    .unwrap_or(f32::NEG_INFINITY)
            })
            .sum();
        losses.push(sum / (total - 1).max(1) as f32);
    }
    Ok(losses)
}
