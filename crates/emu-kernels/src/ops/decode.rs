//! KV cache operations of a decoding step. Each is one launch on a GPU and one pass on the CPU.
//!
//! B sequences or beams, T new positions (one while decoding), H query heads, G key/value heads, E head size, C capacity.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};

use crate::spec::StepSpec;

/// Operations on the KV cache, without gradients.
#[cfg_attr(not(target_family = "wasm"), backend_extension(Cube, Flex))]
#[cfg_attr(all(target_family = "wasm", feature = "wgpu"), backend_extension(Cube))]
#[cfg_attr(all(target_family = "wasm", feature = "flex"), backend_extension(Flex))]
pub trait DecodeBackend: Backend {
    /// Splits the fused `qkv` (`[B, T, (H + 2 G) E]`), rotates queries and keys by `cos_sin` (`[positions, E]`: cosines, then
    /// sines), and writes keys and values in kv_len to the caches (`[B, G, C, E]`) at offset `kv_len[0]`; `kv_len[1]` is T.
    /// Returns the queries `[B, H, T, E]` and the caches.
    fn emu_rope_append(
        qkv: FloatTensor<Self>,
        cos_sin: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        kv_len: IntTensor<Self>,
        spec: StepSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// Attention at one position of each sequence over positions `0 ..= kv_len[0]` of the caches: `[B, H, 1, E]` to
    /// `[B, 1, H E]`. `table` (`[B, kv_len[0] + 1]`) is the beam table: the cache row of each position.
    fn emu_decode_attention(
        q: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        kv_len: IntTensor<Self>,
        table: IntTensor<Self>,
        spec: StepSpec,
    ) -> FloatTensor<Self>;

    /// Increments `kv_len[0]`, in kv_len.
    fn emu_advance(kv_len: IntTensor<Self>) -> IntTensor<Self>;
}
