// attention_backward: gradients of attention with respect to q, k, v and the bias. With s = q kᵀ · scale + bias, p = softmax(s)
// and g the gradient of the output y, the gradient of the scores is d = p (g vᵀ - Σ g y); that of q is d k · scale, of k
// dᵀ q · scale, of v pᵀ g, of the bias d, summed over its broadcast axes.
// grid       for q: x queries by 32 · y heads · z sequences; for k and v: x keys by 32 · y groups of heads · z sequences; for
//            the bias: x queries by 32 times keys by 32 · y heads of the bias · z sequences of the bias
// bindings   queries, grads, logsumexp, keys, values: unless in another's buffer, bias, mask: if used, at_q, y: the gradient
//            of q, or at_k, at_v: those of k and v, or at_bias, info {see Info}
// params     vectors: head size in vectors of four; causal; bias, mask; keys, values: have buffers; values_of_keys: values
//            are in the buffer of keys; at_q, at_k, at_bias: what is computed
// shared     8 KiB
// reference  crates/emu-kernels/src/cpu/attention/attention_backward.rs     test  crates/emu-kernels/tests/backward.rs
//
// The scores are recomputed tile by tile from the logsumexp of each row, saved by the forward pass. They never leave the
// workgroup, and nothing is atomic. The launch for q also saves Σ g y for the others.
// Invocations form an 8 x 8 grid, each with four queries by four keys of the scores, then the same four queries or keys by
// every eighth vector of the result. q, k and v may be views of each other's buffers. Offsets are in vectors of four.

struct Info {
    queries: u32,                 // T
    keys: u32,                    // S
    heads: u32,                   // query heads per key/value head: H / G
    scale: f32,
    q: vec4<u32>,                 // first element, strides of batch, head, position
    k: vec4<u32>,
    v: vec4<u32>,
    grad: vec4<u32>,
    y: vec4<u32>,
    bias: vec4<u32>,              // strides of batch, head, query, key; in elements
    mask: vec4<u32>,            // likewise
    sizes: vec4<u32>,             // B, H; of the bias
}

@group(0) @binding({{queries}}) var<storage, read_write> queries: array<vec4<f32>>;
@group(0) @binding({{grads}}) var<storage, read_write> grads: array<vec4<f32>>;
// Per row: its logsumexp, and Σ g y.
@group(0) @binding({{logsumexp}}) var<storage, read_write> logsumexp: array<vec2<f32>>;                // [B, H, T]
//@if keys
@group(0) @binding({{keys}}) var<storage, read_write> keys: array<vec4<f32>>;
//@end
//@if values
@group(0) @binding({{values}}) var<storage, read_write> values: array<vec4<f32>>;
//@end
//@if bias
@group(0) @binding({{bias}}) var<storage, read_write> bias: array<f32>;            // [B or 1, H or 1, T, S]
//@end
//@if mask
@group(0) @binding({{mask}}) var<storage, read_write> mask: array<u32>;        // [B or 1, H or 1, T or 1, S]
//@end
//@if at_q
@group(0) @binding({{at_q}}) var<storage, read_write> at_q: array<vec4<f32>>;       // [B, T, H, E]
@group(0) @binding({{y}}) var<storage, read_write> y: array<vec4<f32>>;
//@end
//@if at_k
@group(0) @binding({{at_k}}) var<storage, read_write> at_k: array<vec4<f32>>;       // [B, S, G, E]
@group(0) @binding({{at_v}}) var<storage, read_write> at_v: array<vec4<f32>>;   // likewise
//@end
//@if at_bias
@group(0) @binding({{at_bias}}) var<storage, read_write> at_bias: array<f32>;          // [B or 1, H or 1, T, S]
//@end
@group(0) @binding({{uniform}}) var<uniform> info: Info;

// Vectors of a head, and of an invocation's part of a row.
const E = {{vectors}}u;
const OUTS = (E + 7u) / 8u;
const TILE = 32u;
const LOWEST = -3.0e38;

// [element][four queries], then weights: [query][four keys]
var<workgroup> rows: array<vec4<f32>, 256>;
// [element][four keys], then score gradients: [key][four queries] or [query][four keys]
var<workgroup> tile: array<vec4<f32>, 256>;

fn key(at: u32) -> vec4<f32> {
    //@if keys
    return keys[at];
    //@else
    return queries[at];
    //@end
}

fn value(at: u32) -> vec4<f32> {
    //@if values
    return values[at];
    //@else
    //@if values_of_keys
    return keys[at];
    //@else
    return queries[at];
    //@end
    //@end
}

// Number of keys that a query sees.
fn limit(row: u32) -> u32 {
    //@if causal
    return min(info.keys, max(row + 1u + info.keys, info.queries) - info.queries);
    //@else
    return info.keys;
    //@end
}

// Probabilities of a query and four keys.
fn weigh(products: vec4<f32>, logarithm: f32, batch: u32, head: u32, row: u32, first: u32) -> vec4<f32> {
    let kv_len = select(0u, limit(row), row < info.queries);
    var scores = products * info.scale;
    for (var i = 0u; i < 4u; i++) {
        if first + i >= kv_len {
            scores[i] = LOWEST;
        } else {
            //@if bias
            scores[i] += bias[batch * info.bias.x + head * info.bias.y + row * info.bias.z + (first + i) * info.bias.w];
            //@end
            //@if mask
            let at = batch * info.mask.x + head * info.mask.y + row * info.mask.z;
            scores[i] = select(scores[i], LOWEST, mask[at + (first + i) * info.mask.w] != 0u);
            //@end
        }
    }
    return select(exp(scores - logarithm), vec4<f32>(0.0), scores < vec4<f32>(LOWEST / 2.0));
}

// q kᵀ, or with `turn` g vᵀ, of this invocation's four queries and four keys, [query][key].
fn products(turn: bool, q: u32, q_step: u32, k: u32, k_step: u32, first_row: u32, first_key: u32, local: u32) -> mat4x4<f32> {
    let line = local / 8u;
    let column = local % 8u;
    var sums = mat4x4<f32>();
    for (var chunk = 0u; chunk < E; chunk += 8u) {
        workgroupBarrier();
        let at = chunk + line;
        if at < E {
            var of_queries = mat4x4<f32>();
            var of_keys = mat4x4<f32>();
            for (var i = 0u; i < 4u; i++) {
                let row = first_row + column * 4u + i;
                if row < info.queries {
                    if turn {
                        of_queries[i] = grads[q + row * q_step + at];
                    } else {
                        of_queries[i] = queries[q + row * q_step + at];
                    }
                }
                let position = first_key + column * 4u + i;
                if position < info.keys {
                    if turn {
                        of_keys[i] = value(k + position * k_step + at);
                    } else {
                        of_keys[i] = key(k + position * k_step + at);
                    }
                }
            }
            of_queries = transpose(of_queries);
            of_keys = transpose(of_keys);
            for (var i = 0u; i < 4u; i++) {
                rows[line * 32u + i * 8u + column] = of_queries[i];
                tile[line * 32u + i * 8u + column] = of_keys[i];
            }
        }
        workgroupBarrier();
        let elements = min(E - chunk, 8u) * 4u;
        for (var e = 0u; e < elements; e++) {
            let four_queries = rows[e * 8u + line];
            let four_keys = tile[e * 8u + column];
            sums[0] += four_queries.x * four_keys;
            sums[1] += four_queries.y * four_keys;
            sums[2] += four_queries.z * four_keys;
            sums[3] += four_queries.w * four_keys;
        }
    }
    return sums;
}

// Probabilities and score gradients (slopes) of this invocation's four queries and four keys, [query][key].
struct Scores {
    weights: mat4x4<f32>,
    slopes: mat4x4<f32>,
}

fn scores(batch: u32, head: u32, first_row: u32, first_key: u32, local: u32) -> Scores {
    let group = head / info.heads;
    let q = info.q.x + batch * info.q.y + head * info.q.z;
    let g = info.grad.x + batch * info.grad.y + head * info.grad.z;
    let k = info.k.x + batch * info.k.y + group * info.k.z;
    let v = info.v.x + batch * info.v.y + group * info.v.z;
    let alike = products(false, q, info.q.w, k, info.k.w, first_row, first_key, local);
    let gains = products(true, g, info.grad.w, v, info.v.w, first_row, first_key, local);
    let first = first_key + local % 8u * 4u;
    var out: Scores;
    for (var i = 0u; i < 4u; i++) {
        let row = first_row + local / 8u * 4u + i;
        let known = logsumexp[(batch * info.sizes.y + head) * info.queries + min(row, info.queries - 1u)];
        out.weights[i] = weigh(alike[i], known.x, batch, head, row, first);
        out.slopes[i] = out.weights[i] * (gains[i] - known.y);
    }
    return out;
}

@compute @workgroup_size({{invocations}}, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let line = local / 8u;
    let column = local % 8u;

    //@if at_q
    let head = workgroup.y;
    let batch = workgroup.z;
    let first_row = workgroup.x * TILE;
    let k = info.k.x + batch * info.k.y + head / info.heads * info.k.z;
    // 1. Σ g y of each query, by two invocations
    let mine = first_row + local / 2u;
    var sum = 0.0;
    if mine < info.queries {
        let g = info.grad.x + batch * info.grad.y + head * info.grad.z + mine * info.grad.w;
        let at = info.y.x + batch * info.y.y + head * info.y.z + mine * info.y.w;
        for (var i = local % 2u; i < E; i += 2u) {
            sum += dot(grads[g + i], y[at + i]);
        }
    }
    rows[local].x = sum;
    workgroupBarrier();
    if local % 2u == 0u && mine < info.queries {
        logsumexp[(batch * info.sizes.y + head) * info.queries + mine].y = sum + rows[local + 1u].x;
    }
    storageBarrier();
    // 2. d k
    var sums: array<vec4<f32>, 4u * OUTS>;
    for (var i = 0u; i < 4u * OUTS; i++) {
        sums[i] = vec4<f32>(0.0);
    }
    let kv_len = limit(min(first_row + TILE, info.queries) - 1u);
    for (var first = 0u; first < kv_len; first += TILE) {
        let by_key = transpose(scores(batch, head, first_row, first, local).slopes);
        workgroupBarrier();
        for (var i = 0u; i < 4u; i++) {
            tile[column * 32u + i * 8u + line] = by_key[i];
        }
        workgroupBarrier();
        let count = min(TILE, kv_len - first);
        for (var i = 0u; i < count; i++) {
            let slope = tile[i * 8u + line];
            let at = k + (first + i) * info.k.w;
            for (var j = 0u; j < OUTS; j++) {
                // Clamped; elements beyond the row are not written.
                let x = key(at + min(column + j * 8u, E - 1u));
                sums[j * 4u] += slope.x * x;
                sums[j * 4u + 1u] += slope.y * x;
                sums[j * 4u + 2u] += slope.z * x;
                sums[j * 4u + 3u] += slope.w * x;
            }
        }
    }
    for (var i = 0u; i < 4u; i++) {
        let row = first_row + line * 4u + i;
        for (var j = 0u; j < OUTS; j++) {
            let element = column + j * 8u;
            if row < info.queries && element < E {
                at_q[((batch * info.queries + row) * info.sizes.y + head) * E + element] = sums[j * 4u + i] * info.scale;
            }
        }
    }
    //@end

    //@if at_k
    let group = workgroup.y;
    let batch = workgroup.z;
    let first_key = workgroup.x * TILE;
    var sums_k: array<vec4<f32>, 4u * OUTS>;
    var sums_v: array<vec4<f32>, 4u * OUTS>;
    for (var i = 0u; i < 4u * OUTS; i++) {
        sums_k[i] = vec4<f32>(0.0);
        sums_v[i] = vec4<f32>(0.0);
    }
    for (var head = group * info.heads; head < (group + 1u) * info.heads; head++) {
        let q = info.q.x + batch * info.q.y + head * info.q.z;
        let g = info.grad.x + batch * info.grad.y + head * info.grad.z;
        for (var first = 0u; first < info.queries; first += TILE) {
            let count = min(TILE, info.queries - first);
            // Skip queries that see none of these keys.
            if limit(first + count - 1u) <= first_key {
                continue;
            }
            let found = scores(batch, head, first, first_key, local);
            workgroupBarrier();
            for (var i = 0u; i < 4u; i++) {
                rows[(line * 4u + i) * 8u + column] = found.weights[i];
                tile[(line * 4u + i) * 8u + column] = found.slopes[i];
            }
            workgroupBarrier();
            for (var i = 0u; i < count; i++) {
                let weight = rows[i * 8u + line];
                let slope = tile[i * 8u + line];
                for (var j = 0u; j < OUTS; j++) {
                    let element = min(column + j * 8u, E - 1u);
                    let grad = grads[g + (first + i) * info.grad.w + element];
                    let x = queries[q + (first + i) * info.q.w + element];
                    sums_k[j * 4u] += slope.x * x;
                    sums_k[j * 4u + 1u] += slope.y * x;
                    sums_k[j * 4u + 2u] += slope.z * x;
                    sums_k[j * 4u + 3u] += slope.w * x;
                    sums_v[j * 4u] += weight.x * grad;
                    sums_v[j * 4u + 1u] += weight.y * grad;
                    sums_v[j * 4u + 2u] += weight.z * grad;
                    sums_v[j * 4u + 3u] += weight.w * grad;
                }
            }
        }
    }
    let groups = info.sizes.y / info.heads;
    for (var i = 0u; i < 4u; i++) {
        let position = first_key + line * 4u + i;
        for (var j = 0u; j < OUTS; j++) {
            let element = column + j * 8u;
            if position < info.keys && element < E {
                let at = ((batch * info.keys + position) * groups + group) * E + element;
                at_k[at] = sums_k[j * 4u + i] * info.scale;
                at_v[at] = sums_v[j * 4u + i];
            }
        }
    }
    //@end

    //@if at_bias
    let tiles = (info.keys + TILE - 1u) / TILE;
    let first_row = workgroup.x / tiles * TILE;
    let first_key = workgroup.x % tiles * TILE;
    let batches = select(workgroup.z + 1u, info.sizes.x, info.sizes.z == 1u);
    let heads = select(workgroup.y + 1u, info.sizes.y, info.sizes.w == 1u);
    var sums = mat4x4<f32>();
    for (var batch = workgroup.z; batch < batches; batch++) {
        for (var head = workgroup.y; head < heads; head++) {
            sums += scores(batch, head, first_row, first_key, local).slopes;
        }
    }
    for (var i = 0u; i < 4u; i++) {
        let row = first_row + line * 4u + i;
        for (var j = 0u; j < 4u; j++) {
            let position = first_key + column * 4u + j;
            if row < info.queries && position < info.keys {
                let at = (workgroup.z * info.sizes.w + workgroup.y) * info.queries + row;
                at_bias[at * info.keys + position] = sums[i][j];
            }
        }
    }
    //@end
}
