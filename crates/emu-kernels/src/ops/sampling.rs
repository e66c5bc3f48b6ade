//! From logits to tokens, where the logits are: one step of sampling and one of beam search. [`crate::sample`] and
//! [`crate::beams`] keep what lasts from step to step.

use burn::backend::Dispatch;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};
use burn::tensor::{Int, Tensor};

use crate::spec::SampleSpec;

/// Changes a row of logits, draws a token from it, and appends it to the history. Returns token and history; on a GPU they
/// are the same tensors, written again.
///
/// # Shapes
/// - `logits`: `[1, V]`; `numbers`: temperature, top-p, penalty, then a uniform number for each token
/// - `token`: `[1]`; `history`: `[1 + capacity]`, how many tokens there are, then the tokens
pub fn sample(
    logits: Tensor<2>,
    numbers: Tensor<1>,
    token: Tensor<1, Int>,
    history: Tensor<1, Int>,
    spec: SampleSpec,
) -> (Tensor<1, Int>, Tensor<1, Int>) {
    let (token, history) = Dispatch::emu_sample(
        logits.into_dispatch(),
        numbers.into_dispatch(),
        token.into_dispatch(),
        history.into_dispatch(),
        spec,
    );
    (Tensor::from_dispatch(token), Tensor::from_dispatch(history))
}

/// The `best` greatest continuations of beams by `[B, V]` logits, which may be written over: `[2 best]`, for each its place
/// in the logits and the bits of its sum. `changes` says whether anything but the sums of beams changes scores; `asked` is
/// what [`crate::beams::Ranking`] writes.
pub fn best_beams(
    logits: Tensor<2>,
    asked: Tensor<1, Int>,
    best: usize,
    changes: bool,
) -> Tensor<1, Int> {
    let (logits, asked) = (logits.into_dispatch(), asked.into_dispatch());
    Tensor::from_dispatch(Dispatch::emu_best_beams(logits, asked, best, changes))
}

/// Sampling and beam search, where the logits are; nothing differentiates through them.
#[cfg_attr(not(target_family = "wasm"), backend_extension(Cube, Flex))]
#[cfg_attr(all(target_family = "wasm", feature = "wgpu"), backend_extension(Cube))]
#[cfg_attr(all(target_family = "wasm", feature = "flex"), backend_extension(Flex))]
pub trait SamplingBackend: Backend {
    /// Changes a row of logits (`[1, V]`) and draws a token from it, which is written to `token` (`[1]`) and appended to the
    /// history, both in place. See [`crate::sample::Sampler`] for the tensors. Returns token and history.
    fn emu_sample(
        logits: FloatTensor<Self>,
        numbers: FloatTensor<Self>,
        token: IntTensor<Self>,
        history: IntTensor<Self>,
        spec: SampleSpec,
    ) -> (IntTensor<Self>, IntTensor<Self>);

    /// The `best` greatest continuations of beams by `[B, V]` logits, which may be written over: `[2 best]`, for each its
    /// place in the logits and the bits of its sum. See [`crate::beams`] for what is asked; `changes` says whether anything
    /// but the sums of beams changes scores.
    fn emu_best_beams(
        logits: FloatTensor<Self>,
        asked: IntTensor<Self>,
        best: usize,
        changes: bool,
    ) -> IntTensor<Self>;
}
