//! A decoding step on a GPU: one launch for each operation.

use burn::tensor::{DType, Shape};
use burn_wgpu::CubeTensor;

use super::{Shader, grid, into_contiguous, output};
use crate::decode::StepSpec;

/// Invocations of a workgroup where they share a row.
const SHARED: usize = 64;

fn rms_shader(width: usize, eps: f64) -> Shader {
    Shader {
        name: "rms_norm",
        text: include_str!("../../../../shaders/norm/rms_norm.wgsl"),
        constants: vec![
            ("width", width),
            ("invocations", SHARED),
            // Constants are whole numbers; those in use (1e-5, 1e-6) have whole inverses.
            ("inverse_eps", (1.0 / eps).round() as usize),
        ],
        invocations: SHARED,
    }
}

fn pair_shader(width: usize) -> Shader {
    Shader {
        name: "silu_pair",
        text: include_str!("../../../../shaders/norm/silu_pair.wgsl"),
        constants: vec![("width", width)],
        invocations: 64,
    }
}

fn best_shader(width: usize, banned: Option<usize>) -> Shader {
    Shader {
        name: "best",
        text: include_str!("../../../../shaders/sample/best.wgsl"),
        constants: vec![
            ("width", width),
            ("banned", banned.map_or(0, |index| index + 1)),
            ("invocations", 256),
        ],
        invocations: 256,
    }
}

fn sizes(spec: &StepSpec, batch: usize, capacity: usize) -> Vec<(&'static str, usize)> {
    vec![
        ("heads", spec.heads),
        ("kv_heads", spec.kv_heads),
        ("head_size", spec.head_size),
        ("capacity", capacity),
        ("batch", batch),
        ("beams", usize::from(spec.beams)),
        ("invocations", SHARED),
    ]
}

fn append_shader(spec: &StepSpec, batch: usize, capacity: usize) -> Shader {
    Shader {
        name: "rope_append",
        text: include_str!("../../../../shaders/attention/rope_append.wgsl"),
        constants: sizes(spec, batch, capacity),
        invocations: 64,
    }
}

fn attention_shader(spec: &StepSpec, batch: usize, capacity: usize) -> Shader {
    Shader {
        name: "decode_attention",
        text: include_str!("../../../../shaders/attention/decode.wgsl"),
        constants: sizes(spec, batch, capacity),
        invocations: SHARED,
    }
}

/// Root-mean-square norm of rows.
pub fn rms_norm(x: CubeTensor, weight: CubeTensor, eps: f64) -> CubeTensor {
    let (x, weight) = (into_contiguous(x), into_contiguous(weight));
    let (rows, width) = (x.meta.shape()[0], x.meta.shape()[1]);
    let y = output(&x, Shape::new([rows, width]));
    rms_shader(width, eps).launch(grid(rows), &[&x, &weight, &y]);
    y
}

/// `silu(x[.., :D]) * x[.., D:]`.
pub fn silu_pair(x: CubeTensor) -> CubeTensor {
    let x = into_contiguous(x);
    let (rows, width) = (x.meta.shape()[0], x.meta.shape()[1] / 2);
    let y = output(&x, Shape::new([rows, width]));
    pair_shader(width).launch(grid((rows * width).div_ceil(64)), &[&x, &y]);
    y
}

/// The index of the greatest of each row.
pub fn best(logits: CubeTensor, banned: Option<usize>) -> CubeTensor {
    let logits = into_contiguous(logits);
    let (rows, width) = (logits.meta.shape()[0], logits.meta.shape()[1]);
    let best = super::output_of(&logits, Shape::new([rows]), DType::I32);
    best_shader(width, banned).launch([rows, 1, 1], &[&logits, &best]);
    best
}

/// Rotates queries and keys, appends keys and values to the caches.
pub fn rope_append(
    qkv: CubeTensor,
    turns: CubeTensor,
    keys: CubeTensor,
    values: CubeTensor,
    place: CubeTensor,
    spec: StepSpec,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let (qkv, turns) = (into_contiguous(qkv), into_contiguous(turns));
    let (keys, values) = (into_contiguous(keys), into_contiguous(values));
    let (b, t) = (qkv.meta.shape()[0], qkv.meta.shape()[1]);
    let queries = output(&qkv, Shape::new([b, spec.heads, t, spec.head_size]));
    let pairs = qkv.meta.shape().num_elements() / 2;
    append_shader(&spec, b, keys.meta.shape()[2]).launch(
        grid(pairs.div_ceil(64)),
        &[&qkv, &turns, &place, &queries, &keys, &values],
    );
    (queries, keys, values)
}

/// Attention of one position of each sequence over the cache.
pub fn attention(
    q: CubeTensor,
    keys: CubeTensor,
    values: CubeTensor,
    place: CubeTensor,
    table: CubeTensor,
    spec: StepSpec,
) -> CubeTensor {
    let (q, table) = (into_contiguous(q), into_contiguous(table));
    let b = q.meta.shape()[0];
    let y = output(&q, Shape::new([b, 1, spec.heads * spec.head_size]));
    let mut tensors = vec![&q, &keys, &values, &place, &y];
    if spec.beams {
        tensors.push(&table);
    }
    attention_shader(&spec, b, keys.meta.shape()[2]).launch([spec.heads, b, 1], &tensors);
    y
}
