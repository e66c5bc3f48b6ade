//! A decoding step on a GPU: one launch for each operation.

use burn::tensor::Shape;
use burn_wgpu::CubeTensor;

use super::{Shader, bits, grid, into_contiguous, output, reductions};
use crate::decode::StepSpec;
use crate::sample::ChooseSpec;
use crate::variants;

/// Invocations of a workgroup where they share a row.
const SHARED: usize = 64;

fn rms_shader(width: usize, eps: f64) -> Shader {
    let mut constants = vec![
        ("width", width),
        ("invocations", SHARED),
        ("eps_bits", bits(eps)),
    ];
    constants.extend(reductions(variants::subgroups()));
    Shader {
        name: "rms_norm",
        text: concat!(
            include_str!("../../../../shaders/shared/reduce.wgsl"),
            include_str!("../../../../shaders/norm/rms_norm.wgsl")
        ),
        constants,
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

fn choose_shader(width: usize, spec: &ChooseSpec) -> Shader {
    let banned = spec.banned.filter(|token| *token < width);
    let mut constants = vec![
        ("width", width),
        ("forbids", usize::from(banned.is_some())),
        ("banned", banned.unwrap_or(0)),
        ("end", spec.end.min(width - 1)),
        // Without an end token there is nothing to ban.
        (
            "min_length",
            if spec.end < width { spec.min_length } else { 0 },
        ),
        ("ngram", spec.ngram),
        ("penalty", usize::from(spec.penalty)),
        ("sample", usize::from(spec.sample)),
        ("top_k", spec.top_k),
        ("top_p", usize::from(spec.top_p)),
        ("numbered", usize::from(spec.sample || spec.penalty)),
        ("invocations", 256),
    ];
    constants.extend(reductions(variants::wide_subgroups()));
    Shader {
        name: "choose",
        text: concat!(
            include_str!("../../../../shaders/shared/reduce.wgsl"),
            include_str!("../../../../shaders/shared/order.wgsl"),
            include_str!("../../../../shaders/sample/choose.wgsl")
        ),
        constants,
        invocations: 256,
    }
}

fn advance_shader() -> Shader {
    Shader {
        name: "advance",
        text: include_str!("../../../../shaders/attention/advance.wgsl"),
        constants: vec![],
        invocations: 1,
    }
}

/// What layers and calls of a model have in common. How many sequences there are and how long the cache is goes into a
/// uniform buffer behind so many tensors: a kernel for each length would be compiled for each prompt.
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

/// Changes logits, draws a token, appends it to the history.
pub fn choose(
    logits: CubeTensor,
    numbers: CubeTensor,
    token: CubeTensor,
    history: CubeTensor,
    spec: ChooseSpec,
) -> (CubeTensor, CubeTensor) {
    let logits = into_contiguous(logits);
    let mut tensors = vec![&logits, &token, &history];
    if spec.sample || spec.penalty {
        tensors.push(&numbers);
    }
    choose_shader(logits.meta.shape()[1], &spec).launch([1, 1, 1], &tensors);
    (token, history)
}

/// Counts one more position.
pub fn advance(place: CubeTensor) -> CubeTensor {
    advance_shader().launch([1, 1, 1], &[&place]);
    place
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
    let tensors = [&qkv, &turns, &place, &queries, &keys, &values];
    append_shader(&spec, tensors.len()).launch_with(
        grid(pairs.div_ceil(64)),
        &tensors,
        &[b, keys.meta.shape()[2]].map(|n| n as u32),
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
    let sizes = [b, keys.meta.shape()[2]].map(|n| n as u32);
    attention_shader(&spec, tensors.len()).launch_with([spec.heads, b, 1], &tensors, &sizes);
    y
}
