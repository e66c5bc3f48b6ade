//! From logits to tokens.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};

use crate::spec::ChooseSpec;

/// Sampling and beam search, where the logits are; nothing differentiates through them.
#[cfg_attr(not(target_family = "wasm"), backend_extension(Cube, Flex))]
#[cfg_attr(all(target_family = "wasm", feature = "wgpu"), backend_extension(Cube))]
#[cfg_attr(all(target_family = "wasm", feature = "flex"), backend_extension(Flex))]
pub trait SamplingBackend: Backend {
    /// Changes a row of logits (`[1, V]`) and draws a token from it, which is written to `token` (`[1]`) and appended to the
    /// history, both in place. See [`crate::sample::Chooser`] for the tensors. Returns token and history.
    fn emu_choose(
        logits: FloatTensor<Self>,
        numbers: FloatTensor<Self>,
        token: IntTensor<Self>,
        history: IntTensor<Self>,
        spec: ChooseSpec,
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
