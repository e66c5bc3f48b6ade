//! Attention of many queries, in one launch.

use burn::backend::Cube;
use burn::backend::ops::BoolTensorOps;
use burn::tensor::IntDType;
use burn::tensor::{BoolStore, DType, Shape};
use burn_wgpu::CubeTensor;

use crate::gpu::kernel::{Adapter, Field, Kernel, kernel};
use crate::gpu::template::Constants;
use crate::gpu::{into_contiguous, output};
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

/// Workgroup size on hardware.
pub(super) const INVOCATIONS: usize = 64;

/// The buffers of keys and values. Those of queries have one of their own; a buffer must not be bound twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Views {
    /// One each.
    Separate,
    /// Values are in the buffer of the keys.
    ValuesOfKeys,
    /// Values are in the buffer of the queries.
    ValuesOfQueries,
    /// Keys are in the buffer of the queries.
    KeysOfQueries,
    /// All are in one buffer.
    AllOfQueries,
}

impl Views {
    pub fn of(q: &CubeTensor, k: &CubeTensor, v: &CubeTensor) -> Self {
        match (same(k, q), same(v, q)) {
            (true, true) => Self::AllOfQueries,
            (true, false) => Self::KeysOfQueries,
            (false, true) => Self::ValuesOfQueries,
            (false, false) if same(v, k) => Self::ValuesOfKeys,
            (false, false) => Self::Separate,
        }
    }

    /// Whether keys have a buffer of their own.
    pub fn own_keys(self) -> bool {
        !matches!(self, Self::KeysOfQueries | Self::AllOfQueries)
    }

    /// Whether values have a buffer of their own.
    pub fn own_values(self) -> bool {
        matches!(self, Self::Separate | Self::KeysOfQueries)
    }
}

/// Switch `values_of_keys`. Values and keys without a buffer are in that of the queries otherwise.
impl Field for Views {
    fn define(&self, _: &'static str, constants: &mut Constants) {
        constants.switch("values_of_keys", *self == Self::ValuesOfKeys);
    }
}

kernel! {
    /// Attention of many queries.
    AttentionKernel, "attention" ["shared/quads.wgsl", "attention/attention.wgsl"]
    {
        /// E
        head_size: usize,
        /// Causal mask.
        causal: bool,
        /// Whether a bias is added to the scores.
        bias: bool,
        /// Whether keys are masked.
        mask: bool,
        /// Whether the logsumexp of each row is written.
        logsumexp: bool,
        /// The buffers of keys and values.
        views: Views,
        /// Hardware or software adapters.
        adapter: Adapter,
    }
    |key| {
        invocations: if key.adapter.is_software() { TILE / 4 } else { INVOCATIONS },
        vectors: key.head_size / 4,
        parts: key.parts(),
        // Vectors of a part per invocation, every eighth.
        outs: (key.head_size / 4).div_ceil(key.parts()).div_ceil(8),
        chunks: key.head_size.div_ceil(16),
        whole: key.head_size <= KEPT,
        held: if key.head_size <= KEPT { key.head_size / 4 } else { 8 },
    }
    /// `[B, H, T, E]`; the result, `[B, T, H, E]`; `[B, G, S, E]`, `[B, G, S, E]`; `[B or 1, H or 1, T, S]`,
    /// `[B or 1, H or 1, T or 1, S]`, `[B, H, T, 2]`.
    AttentionBuffers {
        queries, y, keys if key.views.own_keys(), values if key.views.own_values(),
        bias if key.bias, mask if key.mask, logsumexp if key.logsumexp,
    }
    uniform info
}

impl AttentionKernel {
    /// Workgroups that share the output elements of a head.
    fn parts(&self) -> usize {
        match self.head_size {
            0..=WHOLE => 1,
            wide => wide.div_ceil(PART),
        }
    }
}

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

    let key = AttentionKernel {
        head_size: e,
        causal: spec.causal,
        bias: spec.bias,
        mask: spec.mask,
        logsumexp: keep,
        views: Views::of(&q, &k, &v),
        adapter: Adapter::of(variants::software() && e <= SOFTWARE),
    };
    let mut info = [t, spec.kv_len, h / g]
        .iter()
        .map(|&n| n as u32)
        .collect::<Vec<_>>();
    info.push((spec.scale as f32).to_bits());
    for x in [&q, &k, &v] {
        info.extend(offsets(x));
    }
    info.extend(if spec.bias { strides(&bias, 1) } else { [0; 4] });
    info.extend(if spec.mask { strides(&mask, 1) } else { [0; 4] });
    let logsumexp = keep.then(|| output(&y, Shape::new([b, h, t, 2])));
    let [q, k, v] = [q, k, v].map(buffer);
    let buffers = AttentionBuffers {
        queries: &q,
        y: &y,
        keys: Some(&k),
        values: Some(&v),
        bias: Some(&bias),
        mask: Some(&mask),
        logsumexp: logsumexp.as_ref(),
    };
    key.launch([t.div_ceil(TILE) * key.parts(), h, b], buffers, &info);
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

/// Keys of every variant.
#[cfg(test)]
pub fn check_all(checked: &mut crate::gpu::tests::Checked) {
    use crate::gpu::tests::{ADAPTERS, VIEWS};
    for views in VIEWS {
        for flags in 0..8 {
            let [causal, bias, mask] = [0, 1, 2].map(|bit| flags >> bit & 1 == 1);
            for head_size in [4, 40, 88, 96, 160, 512] {
                for adapter in ADAPTERS {
                    // Heads wider than those of the variant for software adapters.
                    if head_size > 96 && adapter.is_software() {
                        continue;
                    }
                    checked.check(AttentionKernel {
                        head_size,
                        causal,
                        bias,
                        mask,
                        logsumexp: causal != bias,
                        views,
                        adapter,
                    });
                }
            }
        }
    }
}
