//! Attention at one position over the cache: loops over heads without intermediate tensors.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use crate::cpu::int8::{Isa, Job, Simd};
use crate::cpu::math::{exp_shifted, max};
use crate::cpu::{contiguous, for_each_soon, integers, tensor, values};
use crate::spec::StepSpec;

/// kv_len times head size, heads and batch, from which heads are computed in parallel.
const WORTH_THREADS: usize = 1 << 14;

/// Attention at one position of each sequence over the cache.
pub fn decode_attention(
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
