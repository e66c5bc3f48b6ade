//! Token sampling and beam search steps on the device of the logits. [`crate::sample`] and [`crate::beams`] hold the state
//! between steps.

use burn::backend::Dispatch;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};
use burn::tensor::{Int, Tensor};

use crate::spec::SampleSpec;

/// Processes a row of logits, samples a token, and appends it to the history. Returns token and history; on a GPU these are
/// the input tensors, overwritten.
///
/// # Shapes
/// - `logits`: `[1, V]`
/// - `numbers`: temperature, top-p, repetition penalty, logarithm of min-p, presence penalty, frequency penalty, number of
///   biased tokens; for each of those the token and its bias; then one uniform number per token, `<s>` not included
/// - `token`: `[1]`; `history`: `[1 + capacity]`, number of tokens, then the tokens
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

/// The `best` highest-scoring continuations of the beams, from `[B, V]` logits, which may be overwritten: `[2 best]`, for
/// each its flat index into the logits and the bits of its cumulative score. `changes` tells whether anything besides the
/// beams' scores changes scores; `asked` is the buffer that [`crate::beams::Ranking`] uploads.
pub fn best_beams(
    logits: Tensor<2>,
    asked: Tensor<1, Int>,
    best: usize,
    changes: bool,
) -> Tensor<1, Int> {
    let (logits, asked) = (logits.into_dispatch(), asked.into_dispatch());
    Tensor::from_dispatch(Dispatch::emu_best_beams(logits, asked, best, changes))
}

/// Sampling and beam search on the device of the logits, without gradients.
#[cfg_attr(not(target_family = "wasm"), backend_extension(Cube, Flex))]
#[cfg_attr(all(target_family = "wasm", feature = "wgpu"), backend_extension(Cube))]
#[cfg_attr(all(target_family = "wasm", feature = "flex"), backend_extension(Flex))]
pub trait SamplingBackend: Backend {
    /// Processes a row of logits (`[1, V]`) and samples a token, which is written to `token` (`[1]`) and appended to the
    /// history, both in place. See [`crate::sample::Sampler`] for the tensors. Returns token and history.
    fn emu_sample(
        logits: FloatTensor<Self>,
        numbers: FloatTensor<Self>,
        token: IntTensor<Self>,
        history: IntTensor<Self>,
        spec: SampleSpec,
    ) -> (IntTensor<Self>, IntTensor<Self>);

    /// The `best` highest-scoring continuations of the beams, from `[B, V]` logits, which may be overwritten: `[2 best]`, for
    /// each its flat index into the logits and the bits of its cumulative score. See [`crate::beams`] for `asked`; `changes`
    /// tells whether anything besides the beams' scores changes scores.
    fn emu_best_beams(
        logits: FloatTensor<Self>,
        asked: IntTensor<Self>,
        best: usize,
        changes: bool,
    ) -> IntTensor<Self>;
}
