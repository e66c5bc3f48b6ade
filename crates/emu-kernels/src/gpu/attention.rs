//! GPU attention of many queries, in one launch.

use burn::backend::Cube;
use burn::backend::ops::BoolTensorOps;
use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::tensor::IntDType;
use burn::tensor::{BoolStore, DType, Shape};
use burn_wgpu::CubeTensor;

use super::{Shader, adapters, into_contiguous, output};
use crate::ops::attention::AttentionBackend;
use crate::spec::AttentionSpec;
use crate::variants;

/// Queries and keys per tile.
pub(super) const TILE: usize = 32;
/// Largest head size whose queries stay in workgroup memory: 12, 4 and 1 KiB are used.
const KEPT: usize = 88;
/// Largest head size whose output one workgroup computes; larger ones are split into parts of [`PART`] elements.
const WHOLE: usize = 160;
/// See [`WHOLE`].
const PART: usize = 128;
/// Largest head size whose queries and outputs stay in registers on software adapters.
const SOFTWARE: usize = 96;

/// Whether the kernel can read a mask directly: one word per flag.
pub fn reads(mask: &CubeTensor, spec: AttentionSpec) -> bool {
    !spec.mask || mask.dtype == DType::Bool(BoolStore::U32)
}

/// Strides in multiples of `unit`, 0 for broadcast axes.
pub(super) fn strides(x: &CubeTensor, unit: usize) -> [u32; 4] {
    let mut strides = [0; 4];
    let axes = x.meta.shape().iter().zip(x.meta.strides().iter());
    for (to, (n, stride)) in strides.iter_mut().zip(axes) {
        *to = if *n == 1 { 0 } else { (stride / unit) as u32 };
    }
    strides
}

/// The tensor, copied if its last axis cannot be read as aligned vectors of four.
pub(super) fn vectors(x: CubeTensor) -> CubeTensor {
    let whole = |n: usize| n.is_multiple_of(4);
    let strides = x.meta.strides();
    let fits = !x.meta.is_tiled()
        && strides[3] == 1
        && strides[..3].iter().all(|&n| whole(n))
        && whole(x.handle.offset_start.unwrap_or(0) as usize / 4);
    if fits { x } else { into_contiguous(x) }
}

/// The tensor in a strided layout, copied if tiled.
pub(super) fn rows(x: CubeTensor) -> CubeTensor {
    if x.meta.is_tiled() {
        into_contiguous(x)
    } else {
        x
    }
}

/// Location in vectors of four: index of the first in the whole buffer, and strides of the three leading axes.
pub(super) fn offsets(x: &CubeTensor) -> [u32; 4] {
    let [batch, head, position, _] = strides(x, 4);
    let first = x.handle.offset_start.unwrap_or(0) / 16;
    [first as u32, batch, head, position]
}

/// A tensor over the whole buffer. Two views of one buffer must not be bound together.
pub(super) fn buffer(mut x: CubeTensor) -> CubeTensor {
    (x.handle.offset_start, x.handle.offset_end) = (None, None);
    x
}

pub(super) fn same(a: &CubeTensor, b: &CubeTensor) -> bool {
    a.handle.memory.descriptor() == b.handle.memory.descriptor()
}

/// `softmax(q kᵀ · scale + bias) v` for `[B, H, T, E]`, `[B, G, S, E]` and `[B, G, S, E]`. The result is a view of
/// `[B, T, H, E]`. With `keep` also the logsumexp of each row for the backward pass, `[B, H, T, 2]`.
pub fn attention(
    [q, k, v]: [CubeTensor; 3],
    mask: CubeTensor,
    bias: CubeTensor,
    spec: AttentionSpec,
    keep: bool,
) -> (CubeTensor, Option<CubeTensor>) {
    let [q, k, v] = [q, k, v].map(vectors);
    let [mask, bias] = [mask, bias].map(rows);
    let [b, h, t, e] = q.meta.shape().dims::<4>();
    let [_, g, ..] = k.meta.shape().dims::<4>();
    let y = output(&q, Shape::new([b, t, h, e]));

    let keys_of_queries = same(&k, &q);
    let values_of_queries = same(&v, &q);
    let values_of_keys = !values_of_queries && !keys_of_queries && same(&v, &k);
    let (own_keys, own_values) = (!keys_of_queries, !values_of_queries && !values_of_keys);
    let mut info = [t, spec.kv_len, h / g]
        .iter()
        .map(|&n| n as u32)
        .collect::<Vec<_>>();
    info.push((spec.scale as f32).to_bits());
    for x in [&q, &k, &v] {
        info.extend(offsets(x));
    }
    let mut tensors = vec![buffer(q), y.clone()];
    let mut binding = |tensor: Option<CubeTensor>| {
        let at = tensors.len();
        tensors.extend(tensor);
        at
    };
    let keys_at = binding(own_keys.then(|| buffer(k)));
    let values_at = binding(own_values.then(|| buffer(v)));
    info.extend(if spec.bias { strides(&bias, 1) } else { [0; 4] });
    info.extend(if spec.mask { strides(&mask, 1) } else { [0; 4] });
    let bias_at = binding(spec.bias.then_some(bias));
    let mask_at = binding(spec.mask.then_some(mask));
    let logsumexp = keep.then(|| output(&y, Shape::new([b, h, t, 2])));
    let logsumexp_at = binding(logsumexp.clone());
    let parts = if e <= WHOLE { 1 } else { e.div_ceil(PART) };
    let flag = usize::from;
    // Vectors of a part per invocation, every eighth.
    let outs = (e / 4).div_ceil(parts).div_ceil(8);
    let software = variants::software() && e <= SOFTWARE;
    let mut constants = adapters(software);
    constants.extend([
        ("vectors", e / 4),
        ("parts", parts),
        ("outs", outs),
        ("chunks", e.div_ceil(16)),
        ("held", if e <= KEPT { e / 4 } else { 8 }),
        ("whole", flag(e <= KEPT)),
        ("in_turns", flag(e > KEPT)),
        ("causal", flag(spec.causal)),
        ("full", flag(!spec.causal)),
        ("bias", flag(spec.bias)),
        ("mask", flag(spec.mask)),
        ("own_keys", flag(own_keys)),
        ("own_values", flag(own_values)),
        ("keys_of_queries", flag(keys_of_queries)),
        ("values_of_queries", flag(values_of_queries)),
        ("values_of_keys", flag(values_of_keys)),
        ("keys_at", keys_at),
        ("values_at", values_at),
        ("bias_at", bias_at),
        ("mask_at", mask_at),
        ("logsumexp", flag(keep)),
        ("logsumexp_at", logsumexp_at),
        ("info_at", tensors.len()),
    ]);
    let shader = Shader {
        name: "attention",
        text: concat!(
            include_str!("../../../../shaders/shared/quads.wgsl"),
            include_str!("../../../../shaders/attention/attention.wgsl")
        ),
        constants,
        invocations: if software { TILE / 4 } else { 64 },
    };
    let tensors: Vec<&CubeTensor> = tensors.iter().collect();
    shader.launch_with([t.div_ceil(TILE) * parts, h, b], &tensors, &info);
    let mut y = y;
    y.meta.swap(1, 2);
    (y, logsumexp)
}

/// Converts a mask to one word per flag.
pub(super) fn words(mask: CubeTensor, spec: AttentionSpec) -> CubeTensor {
    match reads(&mask, spec) {
        true => mask,
        false => <Cube as BoolTensorOps<Cube>>::bool_into_int(mask, IntDType::I32),
    }
}

impl AttentionBackend for Cube {
    fn emu_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        mask: BoolTensor<Self>,
        bias: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> FloatTensor<Self> {
        let mask = words(mask, spec);
        attention([q, k, v], mask, bias, spec, false).0
    }
}
