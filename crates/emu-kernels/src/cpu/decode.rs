//! Decoding step on the CPU.

use burn::backend::Flex;
use burn::backend::tensor::{FloatTensor, IntTensor};

use crate::ops::decode::DecodeBackend;
use crate::spec::StepSpec;

mod advance;
mod decode_attention;
mod rope_append;

use advance::advance;
use decode_attention::decode_attention;
use rope_append::rope_append;

impl DecodeBackend for Flex {
    fn emu_rope_append(
        qkv: FloatTensor<Self>,
        cos_sin: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        kv_len: IntTensor<Self>,
        spec: StepSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let _ = kv_len;
        rope_append(qkv, cos_sin, keys, values, spec)
    }

    fn emu_decode_attention(
        q: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        kv_len: IntTensor<Self>,
        table: IntTensor<Self>,
        spec: StepSpec,
    ) -> FloatTensor<Self> {
        let _ = kv_len;
        decode_attention(q, keys, values, table, spec)
    }

    fn emu_advance(kv_len: IntTensor<Self>) -> IntTensor<Self> {
        advance(kv_len)
    }
}
