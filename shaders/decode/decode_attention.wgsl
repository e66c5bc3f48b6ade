// decode_attention: y = softmax(q kᵀ / sqrt(E)) v at one position over the cache, with online softmax. Needs reduce.
// grid       x heads · y sequences
// bindings   queries, keys, values, place, y, table with `beams`, sizes {batch, capacity}
// params     heads: H; kv_heads: G; head_size: E; beams: a table gives the cache row of each position;
//            subgroups: reduce by subgroups, else by scans and trees
// shared     20 bytes per invocation, 4 E and 4, another 4 per invocation without subgroups, and that of reduce
// reference  crates/emu-kernels/src/cpu/decode/decode_attention.rs     test  crates/emu-kernels/src/ops/tests.rs
//
// Keys are read in chunks of one per invocation. For the values, invocations are split into LANES for each vector of four
// elements.

@group(0) @binding({{queries}}) var<storage, read_write> queries: array<vec4<f32>>;  // [B, H, E]
@group(0) @binding({{keys}}) var<storage, read_write> keys: array<vec4<f32>>;     // [B, G, C, E]
@group(0) @binding({{values}}) var<storage, read_write> values: array<vec4<f32>>;   // [B, G, C, E]
@group(0) @binding({{place}}) var<storage, read_write> place: array<i32>;          // offset: positions before this one
@group(0) @binding({{y}}) var<storage, read_write> y: array<vec4<f32>>;        // [B, H, E]
//@if beams
@group(0) @binding({{table}}) var<storage, read_write> table: array<i32>;          // [B, positions]: cache row of each
//@end
@group(0) @binding({{uniform}}) var<uniform> sizes: Sizes;

struct Sizes {
    batch: u32,     // B
    capacity: u32,  // C
}

const H = {{heads}}u;
const G = {{kv_heads}}u;
// Head size in vectors of four.
const E = {{head_size}}u / 4u;
const INVOCATIONS = {{invocations}}u;
const LANES = INVOCATIONS / E;
const SCALE = inverseSqrt({{head_size}}.0);

// Uniform across the workgroup, so that all invocations reach every barrier.
var<workgroup> shared_kv_len: u32;
var<workgroup> query: array<vec4<f32>, E>;
//@if !subgroups
var<workgroup> scores: array<f32, INVOCATIONS>;
//@end
var<workgroup> weights: array<f32, INVOCATIONS>;
var<workgroup> sums: array<vec4<f32>, INVOCATIONS>;

@compute @workgroup_size({{invocations}}, 1, 1)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    //@if subgroups
    find_lanes();
    //@end
    let head = workgroup.x;
    let batch = workgroup.y;
    let group = head / (H / G);
    if local == 0u {
        shared_kv_len = min(u32(place[0]) + 1u, sizes.capacity);
    }
    let kv_len = workgroupUniformLoad(&shared_kv_len);
    for (var i = local; i < E; i += INVOCATIONS) {
        query[i] = queries[(batch * H + head) * E + i];
    }
    workgroupBarrier();

    let element = local % E;
    let lane = local / E;
    var greatest = -3.0e38;
    // Sum of weights of this invocation's positions.
    var mass = 0.0;
    var sum = vec4<f32>(0.0);
    for (var first = 0u; first < kv_len; first += INVOCATIONS) {
        let position = first + local;
        var score = -3.0e38;
        if position < kv_len {
            var row = batch;
            //@if beams
            row = u32(table[batch * kv_len + position]);
            //@end
            let at = ((row * G + group) * sizes.capacity + position) * E;
            var products = vec4<f32>(0.0);
            for (var i = 0u; i < E; i++) {
                products += query[i] * keys[at + i];
            }
            score = (products.x + products.y + products.z + products.w) * SCALE;
        }
        let count = min(INVOCATIONS, kv_len - first);
        //@if subgroups
        let top = max(greatest, most(local, score));
        //@else
        // Each invocation scans all scores: one barrier instead of a tree's.
        scores[local] = score;
        workgroupBarrier();
        var top = greatest;
        for (var i = 0u; i < count; i++) {
            top = max(top, scores[i]);
        }
        //@end
        let shrink = exp(greatest - top);
        greatest = top;
        let weight = select(0.0, exp(score - top), position < kv_len);
        // An invocation that gets here again has passed the barrier above, after the last read of the weights.
        weights[local] = weight;
        mass = mass * shrink + weight;
        sum *= shrink;
        workgroupBarrier();
        if lane < LANES {
            for (var i = lane; i < count; i += LANES) {
                let position = first + i;
                var row = batch;
                //@if beams
                row = u32(table[batch * kv_len + position]);
                //@end
                sum += weights[i] * values[((row * G + group) * sizes.capacity + position) * E + element];
            }
        }
    }
    let masses = total(local, mass);
    sums[local] = sum;
    workgroupBarrier();
    if local < E {
        var all = sums[local];
        for (var i = 1u; i < LANES; i++) {
            all += sums[i * E + local];
        }
        y[(batch * H + head) * E + local] = all / masses;
    }
}
