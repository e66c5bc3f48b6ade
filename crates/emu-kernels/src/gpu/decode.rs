//! Decoding step on a GPU: one launch per operation.

use burn::backend::Cube;
use burn::backend::tensor::{FloatTensor, IntTensor};

use crate::ops::decode::DecodeBackend;
use crate::spec::StepSpec;

mod advance;
mod decode_attention;
mod rope_append;

use advance::advance;
use decode_attention::decode_attention;
use rope_append::rope_append;

impl DecodeBackend for Cube {
    fn emu_rope_append(
        qkv: FloatTensor<Self>,
        cos_sin: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        kv_len: IntTensor<Self>,
        spec: StepSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        rope_append(qkv, cos_sin, keys, values, kv_len, spec)
    }

    fn emu_decode_attention(
        q: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        kv_len: IntTensor<Self>,
        table: IntTensor<Self>,
        spec: StepSpec,
    ) -> FloatTensor<Self> {
        decode_attention(q, keys, values, kv_len, table, spec)
    }

    fn emu_advance(kv_len: IntTensor<Self>) -> IntTensor<Self> {
        advance(kv_len)
    }
}

/// Keys of every variant.
#[cfg(test)]
pub fn check_all(checked: &mut super::tests::Checked) {
    advance::check_all(checked);
    decode_attention::check_all(checked);
    rope_append::check_all(checked);
}
