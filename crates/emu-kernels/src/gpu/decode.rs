//! Decoding step on a GPU: one launch per operation.

use burn::backend::Cube;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::Shape;
use burn_wgpu::CubeTensor;

use super::{Shader, grid, into_contiguous, output, reductions};
use crate::ops::decode::DecodeBackend;
use crate::spec::StepSpec;
use crate::variants;

/// Workgroup size of kernels whose invocations share a row.
const SHARED: usize = 64;

fn advance_shader() -> Shader {
    Shader {
        name: "advance",
        text: include_str!("../../../../shaders/attention/advance.wgsl"),
        constants: vec![],
        invocations: 1,
    }
}

/// Constants shared by all layers and calls of a model. Batch size and cache capacity are in a uniform buffer, bound after
/// `tensors` tensors: as constants, every prompt length would compile kernels of its own.
fn sizes(spec: &StepSpec, tensors: usize) -> Vec<(&'static str, usize)> {
    vec![
        ("heads", spec.heads),
        ("kv_heads", spec.kv_heads),
        ("head_size", spec.head_size),
        ("sizes_at", tensors),
        ("beams", usize::from(spec.beams)),
        ("invocations", SHARED),
    ]
}

fn append_shader(spec: &StepSpec, tensors: usize) -> Shader {
    Shader {
        name: "rope_append",
        text: include_str!("../../../../shaders/attention/rope_append.wgsl"),
        constants: sizes(spec, tensors),
        invocations: 64,
    }
}

fn attention_shader(spec: &StepSpec, tensors: usize) -> Shader {
    let mut constants = sizes(spec, tensors);
    constants.extend(reductions(variants::subgroups()));
    Shader {
        name: "decode",
        text: concat!(
            include_str!("../../../../shaders/shared/reduce.wgsl"),
            include_str!("../../../../shaders/attention/decode.wgsl")
        ),
        constants,
        invocations: SHARED,
    }
}

/// Increments the number of positions.
pub fn advance(kv_len: CubeTensor) -> CubeTensor {
    advance_shader().launch([1, 1, 1], &[&kv_len]);
    kv_len
}

/// Rotates queries and keys, and appends keys and values to the caches.
pub fn rope_append(
    qkv: CubeTensor,
    cos_sin: CubeTensor,
    keys: CubeTensor,
    values: CubeTensor,
    kv_len: CubeTensor,
    spec: StepSpec,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let (qkv, cos_sin) = (into_contiguous(qkv), into_contiguous(cos_sin));
    let (keys, values) = (into_contiguous(keys), into_contiguous(values));
    let (b, t) = (qkv.meta.shape()[0], qkv.meta.shape()[1]);
    let queries = output(&qkv, Shape::new([b, spec.heads, t, spec.head_size]));
    let pairs = qkv.meta.shape().num_elements() / 2;
    let tensors = [&qkv, &cos_sin, &kv_len, &queries, &keys, &values];
    append_shader(&spec, tensors.len()).launch_with(
        grid(pairs.div_ceil(64)),
        &tensors,
        &[b, keys.meta.shape()[2]].map(|n| n as u32),
    );
    (queries, keys, values)
}

/// Attention at one position of each sequence over the cache.
pub fn attention(
    q: CubeTensor,
    keys: CubeTensor,
    values: CubeTensor,
    kv_len: CubeTensor,
    table: CubeTensor,
    spec: StepSpec,
) -> CubeTensor {
    let (q, table) = (into_contiguous(q), into_contiguous(table));
    let b = q.meta.shape()[0];
    let y = output(&q, Shape::new([b, 1, spec.heads * spec.head_size]));
    let mut tensors = vec![&q, &keys, &values, &kv_len, &y];
    if spec.beams {
        tensors.push(&table);
    }
    let sizes = [b, keys.meta.shape()[2]].map(|n| n as u32);
    attention_shader(&spec, tensors.len()).launch_with([spec.heads, b, 1], &tensors, &sizes);
    y
}

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
        attention(q, keys, values, kv_len, table, spec)
    }

    fn emu_advance(kv_len: IntTensor<Self>) -> IntTensor<Self> {
        advance(kv_len)
    }
}
