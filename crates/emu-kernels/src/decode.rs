//! The operations of a decoding step, below the tensor: each is one launch on a GPU and one pass on the CPU.
//!
//! B sequences or beams, T positions (one while decoding), H heads, G key/value heads, E head size, C capacity of the cache.

#[cfg(feature = "flex")]
use burn::backend::Flex;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};

use crate::sample::ChooseSpec;

/// Sizes of a step's attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepSpec {
    /// H
    pub heads: usize,
    /// G
    pub kv_heads: usize,
    /// E
    pub head_size: usize,
    /// Positions in the cache before this step.
    pub start: usize,
    /// Whether a table says which beam wrote each position; where not, the tensor is a placeholder.
    pub beams: bool,
}

/// The extension of Burn's backends. There is no default: the operations of [`crate::ops`] compose one.
#[allow(missing_docs)]
#[cfg_attr(not(target_family = "wasm"), backend_extension(Cube, Flex))]
#[cfg_attr(all(target_family = "wasm", feature = "wgpu"), backend_extension(Cube))]
#[cfg_attr(all(target_family = "wasm", feature = "flex"), backend_extension(Flex))]
pub trait DecodeBackend: Backend {
    /// `x / sqrt(mean(x²) + eps) * weight` of rows: `[rows, D]`, `[D]`.
    fn emu_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64)
    -> FloatTensor<Self>;

    /// `silu(x[.., :D]) * x[.., D:]`: `[rows, 2 D]` to `[rows, D]`.
    fn emu_silu_pair(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Splits `qkv` (`[B, T, (H + 2 G) E]`), rotates queries and keys by `turns` (`[positions, E]`: cosines, then sines),
    /// and writes keys and values to the caches (`[B, G, C, E]`) from position `place[0]` on, in place; `place[1]` is T.
    /// Returns the queries `[B, H, T, E]` and the caches.
    fn emu_rope_append(
        qkv: FloatTensor<Self>,
        turns: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        place: IntTensor<Self>,
        spec: StepSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// Attention of one position of each sequence over positions `0 ..= place[0]` of the caches: `[B, H, 1, E]` to
    /// `[B, 1, H E]`. `table` (`[B, place[0] + 1]`) has the row that wrote each position.
    fn emu_decode_attention(
        q: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        place: IntTensor<Self>,
        table: IntTensor<Self>,
        spec: StepSpec,
    ) -> FloatTensor<Self>;

    /// Adds one to `place[0]`, in place.
    fn emu_advance(place: IntTensor<Self>) -> IntTensor<Self>;

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

#[cfg(feature = "wgpu")]
impl DecodeBackend for burn::backend::Cube {
    fn emu_rms_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        crate::gpu::decode::rms_norm(x, weight, eps)
    }

    fn emu_silu_pair(x: FloatTensor<Self>) -> FloatTensor<Self> {
        crate::gpu::decode::silu_pair(x)
    }

    fn emu_rope_append(
        qkv: FloatTensor<Self>,
        turns: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        place: IntTensor<Self>,
        spec: StepSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        crate::gpu::decode::rope_append(qkv, turns, keys, values, place, spec)
    }

    fn emu_decode_attention(
        q: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        place: IntTensor<Self>,
        table: IntTensor<Self>,
        spec: StepSpec,
    ) -> FloatTensor<Self> {
        crate::gpu::decode::attention(q, keys, values, place, table, spec)
    }

    fn emu_advance(place: IntTensor<Self>) -> IntTensor<Self> {
        crate::gpu::decode::advance(place)
    }

    fn emu_choose(
        logits: FloatTensor<Self>,
        numbers: FloatTensor<Self>,
        token: IntTensor<Self>,
        history: IntTensor<Self>,
        spec: ChooseSpec,
    ) -> (IntTensor<Self>, IntTensor<Self>) {
        crate::gpu::decode::choose(logits, numbers, token, history, spec)
    }

    fn emu_best_beams(
        logits: FloatTensor<Self>,
        asked: IntTensor<Self>,
        best: usize,
        changes: bool,
    ) -> IntTensor<Self> {
        crate::gpu::beams::best(logits, asked, best, changes)
    }
}

#[cfg(feature = "flex")]
impl DecodeBackend for Flex {
    fn emu_rms_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        crate::cpu::decode::rms_norm(x, weight, eps)
    }

    fn emu_silu_pair(x: FloatTensor<Self>) -> FloatTensor<Self> {
        crate::cpu::decode::silu_pair(x)
    }

    fn emu_rope_append(
        qkv: FloatTensor<Self>,
        turns: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        place: IntTensor<Self>,
        spec: StepSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let _ = place;
        crate::cpu::decode::rope_append(qkv, turns, keys, values, spec)
    }

    fn emu_decode_attention(
        q: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        place: IntTensor<Self>,
        table: IntTensor<Self>,
        spec: StepSpec,
    ) -> FloatTensor<Self> {
        let _ = place;
        crate::cpu::decode::attention(q, keys, values, table, spec)
    }

    fn emu_advance(place: IntTensor<Self>) -> IntTensor<Self> {
        crate::cpu::decode::advance(place)
    }

    fn emu_choose(
        logits: FloatTensor<Self>,
        numbers: FloatTensor<Self>,
        token: IntTensor<Self>,
        history: IntTensor<Self>,
        spec: ChooseSpec,
    ) -> (IntTensor<Self>, IntTensor<Self>) {
        let _ = token;
        crate::cpu::sample::choose(logits, numbers, history, spec)
    }

    fn emu_best_beams(
        logits: FloatTensor<Self>,
        asked: IntTensor<Self>,
        best: usize,
        changes: bool,
    ) -> IntTensor<Self> {
        let _ = changes;
        crate::cpu::beams::best(logits, asked, best)
    }
}

#[cfg(test)]
mod tests;
