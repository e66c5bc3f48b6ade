// attention: y = softmax(q kᵀ · scale + bias) v of many queries, with online softmax: scores never leave the workgroup.
// grid       x queries by 32, times `parts` · y heads · z sequences
// bindings   queries, y, keys, values: unless in another's buffer, bias, mask, logsumexp: if used, info {see Info}
// params     vectors: head size in vectors of four; parts: workgroups that share a head's output; outs: output vectors per
//            invocation; chunks: head size in sixteens; held: vectors of queries in workgroup memory, all if `whole`;
//            causal; bias, mask, logsumexp; keys, values: have buffers; values_of_keys: values are in the buffer of keys;
//            software; quads: the invocations of a quad share loads
// shared     512 bytes times `held`, and 5 KiB: at most 16 KiB; none in `software`
// reference  crates/emu-kernels/src/cpu/attention/attention.rs     test  crates/emu-kernels/tests/attention.rs
//
// A workgroup computes 32 queries of a head, and for wide heads only a part of their output elements. q, k and v may be views
// of each other's buffers; `info` gives their offsets and strides. All offsets and sizes are in vectors of four.
//
// On hardware the invocations form an 8 x 8 grid: each has a tile of four queries by four keys of the scores, then the same
// queries by every eighth vector of the output. In `software` memory is as fast as registers, and a load or a barrier costs
// as much as dozens of products: each of eight invocations computes four queries over all keys, and nothing is shared; in
// `quads` the four invocations of a quad load one vector each and broadcast it.

struct Info {
    queries: u32,                 // T
    keys: u32,                    // S
    heads: u32,                   // query heads per key/value head: H / G
    scale: f32,
    q: vec4<u32>,                 // first element, strides of batch, head, position
    k: vec4<u32>,
    v: vec4<u32>,
    bias: vec4<u32>,              // strides of batch, head, query, key; in elements
    mask: vec4<u32>,            // likewise
}

@group(0) @binding({{queries}}) var<storage, read_write> queries: array<vec4<f32>>;
@group(0) @binding({{y}}) var<storage, read_write> y: array<vec4<f32>>;                   // [B, T, H, E]
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
//@if logsumexp
// Per row: its logsumexp, and space for what the backward pass saves.
@group(0) @binding({{logsumexp}}) var<storage, read_write> logsumexp: array<vec2<f32>>;      // [B, H, T]
//@end
@group(0) @binding({{uniform}}) var<uniform> info: Info;

// Vectors of a head, and of the part that a workgroup computes.
const E = {{vectors}}u;
const PARTS = {{parts}}u;
const PART = (E + PARTS - 1u) / PARTS;
const TILE = 32u;
// Vectors of queries in workgroup memory: all of them if `whole`, else eight at a time.
const KEPT = {{held}}u;
const LOWEST = -3.0e38;

//@if !software
var<workgroup> rows: array<vec4<f32>, KEPT * 32u>;  // [element][four queries]
// [element][four keys], then weights: [key][four queries]
var<workgroup> tile: array<vec4<f32>, 256>;
var<workgroup> shared_rows: array<vec4<f32>, 64>;   // [queries][invocation]: maxima, then totals
//@end

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

// Scores of a query and four keys, LOWEST where a key is masked.
fn masked(products: vec4<f32>, batch: u32, head: u32, row: u32, first: u32) -> vec4<f32> {
    let kv_len = limit(row);
    var scores = products * info.scale;
    //@if bias
    for (var i = 0u; i < 4u; i++) {
        if row < info.queries && first + i < kv_len {
            let at = batch * info.bias.x + head * info.bias.y + row * info.bias.z;
            scores[i] += bias[at + (first + i) * info.bias.w];
        }
    }
    //@end
    //@if mask
    for (var i = 0u; i < 4u; i++) {
        if row < info.queries && first + i < kv_len {
            let at = batch * info.mask.x + head * info.mask.y + row * info.mask.z;
            scores[i] = select(scores[i], LOWEST, mask[at + (first + i) * info.mask.w] != 0u);
        }
    }
    //@end
    let columns = vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u);
    return select(vec4<f32>(LOWEST), scores, columns < vec4<u32>(kv_len));
}

// exp(scores - most), 0 for masked keys, even if all are masked.
fn weigh(scores: vec4<f32>, most: vec4<f32>) -> vec4<f32> {
    return select(exp(scores - most), vec4<f32>(0.0), scores < vec4<f32>(LOWEST / 2.0));
}

// Scales each row by a number.
fn scaled(rows: mat4x4<f32>, by: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(rows[0] * by.x, rows[1] * by.y, rows[2] * by.z, rows[3] * by.w);
}

// Outer product.
fn outer(by: vec4<f32>, x: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(by.x * x, by.y * x, by.z * x, by.w * x);
}

//@if !software
// The nth output vector of an invocation; clamped to the last.
fn element(part: u32, column: u32, nth: u32) -> u32 {
    return min(part + column + nth * 8u, E - 1u);
}
//@end

// Writes an output vector of four queries. `place`: [row of y, heads, query].
fn store(place: vec3<u32>, part: u32, element: u32, results: mat4x4<f32>) {
    if element < PART && part + element < E {
        for (var i = 0u; i < 4u; i++) {
            if place.z + i < info.queries {
                y[(place.x + i * place.y) * E + part + element] = results[i];
            }
        }
    }
}

//@if logsumexp
// Writes the logsumexp of a row. If no key is visible, every probability is 0.
fn keep(head: u32, row: u32, most: f32, total: f32) {
    if row < info.queries {
        let logarithm = select(most + log(total), -LOWEST, total == 0.0);
        logsumexp[head * info.queries + row] = vec2<f32>(logarithm, 0.0);
    }
}
//@end

// Offset of a head of a sequence.
fn start(place: vec4<u32>, batch: u32, head: u32) -> u32 {
    return place.x + batch * place.y + head * place.z;
}

// A vector of a query, 0 if out of range.
fn query_of(first: u32, row: u32) -> vec4<f32> {
    if row < info.queries {
        return queries[first + row * info.q.w];
    }
    return vec4<f32>(0.0);
}

//@if !software
// A vector of a key, 0 if out of range.
fn key_of(first: u32, position: u32, kv_len: u32) -> vec4<f32> {
    if position < kv_len {
        return key(first + position * info.k.w);
    }
    return vec4<f32>(0.0);
}

// Loads eight vectors of 32 queries, from the given vector on, transposed into workgroup memory.
fn keep_queries(q: u32, first: u32, vector: u32, to: u32, local: u32) {
    let at = vector + local / 8u;
    if at < E {
        let row = first + local % 8u * 4u;
        let turned = transpose(mat4x4<f32>(
            query_of(q + at, row),
            query_of(q + at, row + 1u),
            query_of(q + at, row + 2u),
            query_of(q + at, row + 3u),
        ));
        let first = (to + local / 8u) * 32u + local % 8u;
        rows[first] = turned[0];
        rows[first + 8u] = turned[1];
        rows[first + 16u] = turned[2];
        rows[first + 24u] = turned[3];
    }
}

@compute @workgroup_size({{invocations}}, 1, 1)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let head = workgroup.y;
    let batch = workgroup.z;
    let first_row = workgroup.x / PARTS * TILE;
    let part = workgroup.x % PARTS * PART;
    let line = local / 8u;
    let column = local % 8u;
    let row = first_row + line * 4u;
    let group = head / info.heads;
    let q = start(info.q, batch, head);
    let k = start(info.k, batch, group);
    let v = start(info.v, batch, group);
    // Upper bound of the keys that queries of this workgroup see.
    let kv_len = limit(min(first_row + TILE, info.queries) - 1u);

    //@if whole
    for (var i = 0u; i < E; i += 8u) {
        keep_queries(q, first_row, i, i, local);
    }
    //@end
    var most = vec4<f32>(LOWEST);
    // Sums of weights over this invocation's keys.
    var totals = vec4<f32>(0.0);
    // [query][element] of every eighth vector, as separate variables, which compilers keep in registers.
    //@each outs
    var sums_{{nth}} = mat4x4<f32>();
    //@end
    for (var first = 0u; first < kv_len; first += TILE) {
        // 1. scores, eight vectors of the heads at a time
        var scores = mat4x4<f32>();  // [query][key]
        for (var chunk = 0u; chunk < E; chunk += 8u) {
            workgroupBarrier();
            var kept = chunk * 32u;
            //@if !whole
            kept = 0u;
            keep_queries(q, first_row, chunk, 0u, local);
            //@end
            let at = chunk + local / 8u;
            if at < E {
                let position = first + local % 8u * 4u;
                let turned = transpose(mat4x4<f32>(
                    key_of(k + at, position, kv_len),
                    key_of(k + at, position + 1u, kv_len),
                    key_of(k + at, position + 2u, kv_len),
                    key_of(k + at, position + 3u, kv_len),
                ));
                let to = local / 8u * 32u + local % 8u;
                tile[to] = turned[0];
                tile[to + 8u] = turned[1];
                tile[to + 16u] = turned[2];
                tile[to + 24u] = turned[3];
            }
            workgroupBarrier();
            let elements = min(E - chunk, 8u) * 4u;
            for (var e = 0u; e < elements; e++) {
                let four_queries = rows[kept + e * 8u + line];
                let four_keys = tile[e * 8u + column];
                scores[0] += four_queries.x * four_keys;
                scores[1] += four_queries.y * four_keys;
                scores[2] += four_queries.z * four_keys;
                scores[3] += four_queries.w * four_keys;
            }
        }
        let four = first + column * 4u;
        let by_key = transpose(mat4x4<f32>(
            masked(scores[0], batch, head, row, four),
            masked(scores[1], batch, head, row + 1u, four),
            masked(scores[2], batch, head, row + 2u, four),
            masked(scores[3], batch, head, row + 3u, four),
        ));

        // 2. weights
        shared_rows[local] = max(max(by_key[0], by_key[1]), max(by_key[2], by_key[3]));
        workgroupBarrier();
        let before = most;
        for (var i = 0u; i < 8u; i++) {
            most = max(most, shared_rows[line * 8u + i]);
        }
        let shrink = exp(before - most);
        let weights = mat4x4<f32>(
            weigh(by_key[0], most),
            weigh(by_key[1], most),
            weigh(by_key[2], most),
            weigh(by_key[3], most),
        );
        totals = totals * shrink + weights[0] + weights[1] + weights[2] + weights[3];
        tile[column * 32u + line] = weights[0];
        tile[column * 32u + 8u + line] = weights[1];
        tile[column * 32u + 16u + line] = weights[2];
        tile[column * 32u + 24u + line] = weights[3];
        //@each outs
        sums_{{nth}} = scaled(sums_{{nth}}, shrink);
        //@end
        workgroupBarrier();

        // 3. values
        let count = min(TILE, kv_len - first);
        for (var i = 0u; i < count; i++) {
            let weight = tile[i * 8u + line];
            let at = v + (first + i) * info.v.w;
            //@each outs
            sums_{{nth}} += outer(weight, value(at + element(part, column, {{nth}}u)));
            //@end
        }
    }
    workgroupBarrier();
    shared_rows[local] = totals;
    workgroupBarrier();
    var total = vec4<f32>(0.0);
    for (var i = 0u; i < 8u; i++) {
        total += shared_rows[line * 8u + i];
    }
    //@if logsumexp
    if column == 0u && part == 0u {
        for (var i = 0u; i < 4u; i++) {
            keep(batch * workgroups.y + head, row + i, most[i], total[i]);
        }
    }
    //@end
    let share = select(1.0 / total, vec4<f32>(0.0), total == vec4<f32>(0.0));
    let place = vec3<u32>((batch * info.queries + row) * workgroups.y + head, workgroups.y, row);
    //@each outs
    store(place, part, column + {{nth}}u * 8u, scaled(sums_{{nth}}, share));
    //@end
}
//@end
//@if software
// Four vectors of four queries or of their outputs: [query][element] each.
struct Chunk {
    a: mat4x4<f32>,
    b: mat4x4<f32>,
    c: mat4x4<f32>,
    d: mat4x4<f32>,
}

// A vector of four queries, 0 if out of range.
fn four_queries(q: u32, row: u32, vector: u32) -> mat4x4<f32> {
    if vector < E {
        let at = q + vector;
        return mat4x4<f32>(
            query_of(at, row),
            query_of(at, row + 1u),
            query_of(at, row + 2u),
            query_of(at, row + 3u),
        );
    }
    return mat4x4<f32>();
}

fn queries_of(q: u32, row: u32, vector: u32) -> Chunk {
    return Chunk(
        four_queries(q, row, vector),
        four_queries(q, row, vector + 1u),
        four_queries(q, row, vector + 2u),
        four_queries(q, row, vector + 3u),
    );
}

// Four vectors of a key, clamped to the last.
fn key_chunk(at: u32, vector: u32, lane: u32) -> mat4x4<f32> {
    //@if quads
    return of_quad(key(at + min(vector + lane, E - 1u)));
    //@else
    let last = at + E - 1u;
    let first = at + vector;
    return mat4x4<f32>(key(first), key(min(first + 1u, last)), key(min(first + 2u, last)), key(min(first + 3u, last)));
    //@end
}

// Four vectors of a value, clamped to the last.
fn value_chunk(at: u32, vector: u32, lane: u32) -> mat4x4<f32> {
    //@if quads
    return of_quad(value(at + min(vector + lane, E - 1u)));
    //@else
    let last = at + E - 1u;
    let first = at + vector;
    return mat4x4<f32>(value(first), value(min(first + 1u, last)), value(min(first + 2u, last)), value(min(first + 3u, last)));
    //@end
}

// Dot products of four queries and a key, over the vectors of a chunk.
fn products(q: Chunk, k: mat4x4<f32>) -> vec4<f32> {
    return k[0] * q.a + k[1] * q.b + k[2] * q.c + k[3] * q.d;
}

// Outputs of four queries with a weighted value added.
fn added(y: Chunk, weights: vec4<f32>, v: mat4x4<f32>) -> Chunk {
    return Chunk(
        y.a + outer(weights, v[0]),
        y.b + outer(weights, v[1]),
        y.c + outer(weights, v[2]),
        y.d + outer(weights, v[3]),
    );
}

fn chunk_scaled(y: Chunk, by: vec4<f32>) -> Chunk {
    return Chunk(scaled(y.a, by), scaled(y.b, by), scaled(y.c, by), scaled(y.d, by));
}

@compute @workgroup_size({{invocations}}, 1, 1)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    //@if quads
    @builtin(subgroup_invocation_id) invocation: u32,
    //@end
) {
    let head = workgroup.y;
    let batch = workgroup.z;
    let first_row = workgroup.x * TILE;
    let row = first_row + local * 4u;
    let group = head / info.heads;
    let q = start(info.q, batch, head);
    let k = start(info.k, batch, group);
    let v = start(info.v, batch, group);
    let kv_len = limit(min(first_row + TILE, info.queries) - 1u);
    var lane = 0u;
    //@if quads
    lane = invocation % 4u;
    //@end

    var most = vec4<f32>(LOWEST);
    var totals = vec4<f32>(0.0);
    // Separate variables, which compilers keep in registers.
    //@each chunks
    let q_{{nth}} = queries_of(q, row, {{nth}}u * 4u);
    var y_{{nth}} = Chunk();
    //@end
    for (var first = 0u; first < kv_len; first += 4u) {
        var scores = mat4x4<f32>();  // [key][query]
        for (var i = 0u; i < 4u; i++) {
            let at = k + min(first + i, kv_len - 1u) * info.k.w;
            var sums = vec4<f32>(0.0);
            //@each chunks
            sums += products(q_{{nth}}, key_chunk(at, {{nth}}u * 4u, lane));
            //@end
            scores = mat4x4<f32>(scores[1], scores[2], scores[3], sums);
        }
        let by_query = transpose(scores);
        scores = transpose(mat4x4<f32>(
            masked(by_query[0], batch, head, row, first),
            masked(by_query[1], batch, head, row + 1u, first),
            masked(by_query[2], batch, head, row + 2u, first),
            masked(by_query[3], batch, head, row + 3u, first),
        ));

        let before = most;
        most = max(max(most, max(scores[0], scores[1])), max(scores[2], scores[3]));
        let shrink = exp(before - most);
        let w_0 = weigh(scores[0], most);
        let w_1 = weigh(scores[1], most);
        let w_2 = weigh(scores[2], most);
        let w_3 = weigh(scores[3], most);
        totals = totals * shrink + w_0 + w_1 + w_2 + w_3;
        let at_0 = v + first * info.v.w;
        let at_1 = v + min(first + 1u, kv_len - 1u) * info.v.w;
        let at_2 = v + min(first + 2u, kv_len - 1u) * info.v.w;
        let at_3 = v + min(first + 3u, kv_len - 1u) * info.v.w;
        //@each chunks
        y_{{nth}} = chunk_scaled(y_{{nth}}, shrink);
        y_{{nth}} = added(y_{{nth}}, w_0, value_chunk(at_0, {{nth}}u * 4u, lane));
        y_{{nth}} = added(y_{{nth}}, w_1, value_chunk(at_1, {{nth}}u * 4u, lane));
        y_{{nth}} = added(y_{{nth}}, w_2, value_chunk(at_2, {{nth}}u * 4u, lane));
        y_{{nth}} = added(y_{{nth}}, w_3, value_chunk(at_3, {{nth}}u * 4u, lane));
        //@end
    }
    //@if logsumexp
    for (var i = 0u; i < 4u; i++) {
        keep(batch * workgroups.y + head, row + i, most[i], totals[i]);
    }
    //@end
    let share = select(1.0 / totals, vec4<f32>(0.0), totals == vec4<f32>(0.0));
    let place = vec3<u32>((batch * info.queries + row) * workgroups.y + head, workgroups.y, row);
    //@each chunks
    y_{{nth}} = chunk_scaled(y_{{nth}}, share);
    store(place, 0u, {{nth}}u * 4u, y_{{nth}}.a);
    store(place, 0u, {{nth}}u * 4u + 1u, y_{{nth}}.b);
    store(place, 0u, {{nth}}u * 4u + 2u, y_{{nth}}.c);
    store(place, 0u, {{nth}}u * 4u + 3u, y_{{nth}}.d);
    //@end
}
//@end
