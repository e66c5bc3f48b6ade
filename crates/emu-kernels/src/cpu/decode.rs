//! Decoding step on the CPU: loops over rows and heads without intermediate tensors.

use burn::backend::Flex;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::{FloatTensor, IntTensor};

use super::int8::{Isa, Job, Simd};
use super::math::{exp_shifted, max};
use super::{contiguous, for_each_soon, integers, tensor, values};
use crate::ops::decode::DecodeBackend;
use crate::spec::StepSpec;

/// kv_len times head size, heads and batch, from which heads are computed in parallel.
const WORTH_THREADS: usize = 1 << 14;

/// Increments the first element of `kv_len`.
pub fn advance(kv_len: FlexTensor) -> FlexTensor {
    let mut kv_len = contiguous(kv_len);
    if let Some(length) = kv_len.storage_mut::<i32>().first_mut() {
        *length += 1;
    }
    kv_len
}

/// Rotates queries and keys, and appends keys and values to the caches.
pub fn rope_append(
    qkv: FlexTensor,
    cos_sin: FlexTensor,
    keys: FlexTensor,
    cached: FlexTensor,
    spec: StepSpec,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    let (qkv, cos_sin) = (contiguous(qkv), contiguous(cos_sin));
    let (mut keys, mut cached) = (contiguous(keys), contiguous(cached));
    let [b, t, width] = qkv.shape().dims::<3>();
    let [_, g, capacity, e] = keys.shape().dims::<4>();
    // Positions beyond the capacity would overwrite the next head.
    assert!(spec.start + t <= capacity, "the cache has room");
    let (h, half) = (spec.heads, e / 2);
    let (from, cos_sin) = (values(&qkv), values(&cos_sin));
    let rotate = |to: &mut [f32], x: &[f32], turn: &[f32]| {
        let ((low, high), (cos, sin)) = (x.split_at(half), turn.split_at(half));
        let (first, second) = to.split_at_mut(half);
        for i in 0..half {
            first[i] = low[i] * cos[i] - high[i] * sin[i];
            second[i] = high[i] * cos[i] + low[i] * sin[i];
        }
    };
    let mut queries = vec![0.0f32; b * h * t * e];
    // Copied only if the cache is shared.
    let (all_keys, all_values) = (keys.storage_mut::<f32>(), cached.storage_mut::<f32>());
    for (i, row) in from.chunks_exact(width.max(1)).enumerate() {
        let (batch, step) = (i / t, i % t);
        let turn = &cos_sin[(spec.start + step) * e..][..e];
        for (head, x) in row.chunks_exact(e).enumerate() {
            if head < h {
                rotate(
                    &mut queries[((batch * h + head) * t + step) * e..][..e],
                    x,
                    turn,
                );
                continue;
            }
            let group = (head - h) % g;
            let at = ((batch * g + group) * capacity + spec.start + step) * e;
            if head < h + g {
                rotate(&mut all_keys[at..at + e], x, turn);
            } else {
                all_values[at..at + e].copy_from_slice(x);
            }
        }
    }
    (tensor(queries, [b, h, t, e]), keys, cached)
}

/// Attention at one position of each sequence over the cache.
pub fn attention(
    q: FlexTensor,
    keys: FlexTensor,
    cached: FlexTensor,
    table: FlexTensor,
    spec: StepSpec,
) -> FlexTensor {
    let (q, keys, cached) = (contiguous(q), contiguous(keys), contiguous(cached));
    let [b, h, _, e] = q.shape().dims::<4>();
    let [_, g, capacity, _] = keys.shape().dims::<4>();
    let kv_len = spec.start + 1;
    let table = spec.beams.then(|| integers(&contiguous(table)));
    let (q, keys, cached) = (values(&q), values(&keys), values(&cached));
    let mut y = vec![0.0f32; b * h * e];
    let isa = Isa::best();
    let one = |(at, y): (usize, &mut [f32])| {
        let (batch, head) = (at / h, at % h);
        isa.run(Attend {
            query: &q[at * e..][..e],
            keys,
            values: cached,
            rows: table
                .as_ref()
                .map(|table| &table[batch * kv_len..][..kv_len]),
            row: batch,
            group: (head / (h / g), g),
            capacity,
            kv_len,
            y,
        });
    };
    let heads = y.chunks_exact_mut(e).enumerate();
    if kv_len * e * h * b < WORTH_THREADS {
        heads.for_each(one);
    } else {
        for_each_soon(heads.collect(), one);
    }
    tensor(y, [b, 1, h * e])
}

/// Attention of one head at one position.
struct Attend<'a> {
    query: &'a [f32],
    /// The whole cache, `[B, G, C, E]`.
    keys: &'a [f32],
    values: &'a [f32],
    /// Cache row of each position; if absent, `row` holds all.
    rows: Option<&'a [usize]>,
    row: usize,
    /// Key/value head, and number of key/value heads.
    group: (usize, usize),
    capacity: usize,
    kv_len: usize,
    y: &'a mut [f32],
}

impl Attend<'_> {
    /// Offset of a position in the cache.
    #[inline(always)]
    fn offset(&self, position: usize) -> usize {
        let row = self.rows.map_or(self.row, |rows| rows[position]);
        let (group, groups) = self.group;
        ((row * groups + group) * self.capacity + position) * self.query.len()
    }
}

impl Job for Attend<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let e = self.query.len();
        let scale = 1.0 / (e as f32).sqrt();
        let mut scores = vec![0.0f32; self.kv_len];
        for (position, score) in scores.iter_mut().enumerate() {
            *score = dot_of_head(self.query, &self.keys[self.offset(position)..][..e]) * scale;
        }
        let most = max(&scores);
        let sum = exp_shifted(&mut scores, most);
        let factor = 1.0 / sum;
        for (position, weight) in scores.iter().enumerate() {
            let weight = weight * factor;
            let value = &self.values[self.offset(position)..][..e];
            for (y, v) in self.y.iter_mut().zip(value) {
                *y += weight * v;
            }
        }
    }
}

/// Dot product whose lanes are reduced by halving: with short heads, a serial reduction would dominate.
#[inline(always)]
fn dot_of_head(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [0.0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            lanes[i] += a[i] * b[i];
        }
    }
    for (i, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[i] += a * b;
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}

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
        attention(q, keys, values, table, spec)
    }

    fn emu_advance(kv_len: IntTensor<Self>) -> IntTensor<Self> {
        advance(kv_len)
    }
}
