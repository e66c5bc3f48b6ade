// rope_append: splits a fused QKV projection, rotates queries and keys, and writes keys and values to the cache:
// (a, b) of a pair becomes (a cos - b sin, b cos + a sin).
// grid       one invocation per pair of elements, `i` and `i + E / 2` of a head; workgroups folded over (x, y) beyond 65535
// bindings   qkv, cos_sin, place, queries, keys, values, sizes {batch, capacity}
// params     heads: H; kv_heads: G; head_size: E
// shared     none
// reference  crates/emu-kernels/src/cpu/decode/rope_append.rs     test  crates/emu-kernels/src/ops/tests.rs

@group(0) @binding({{qkv}}) var<storage, read_write> qkv: array<f32>;     // [B, T, (H + 2 G) E]
@group(0) @binding({{cos_sin}}) var<storage, read_write> cos_sin: array<f32>;   // [C, E]: cosines, then sines
@group(0) @binding({{place}}) var<storage, read_write> place: array<i32>;   // [2]: offset in the cache, and T
@group(0) @binding({{queries}}) var<storage, read_write> queries: array<f32>; // [B, H, T, E]
@group(0) @binding({{keys}}) var<storage, read_write> keys: array<f32>;    // [B, G, C, E]
@group(0) @binding({{values}}) var<storage, read_write> values: array<f32>;  // [B, G, C, E]
@group(0) @binding({{uniform}}) var<uniform> sizes: Sizes;

struct Sizes {
    batch: u32,     // B
    capacity: u32,  // C
}

const H = {{heads}}u;
const G = {{kv_heads}}u;
const E = {{head_size}}u;
const HALF = E / 2u;
const WIDTH = (H + 2u * G) * E;

@compute @workgroup_size({{invocations}}, 1, 1)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = (workgroup.x + workgroup.y * workgroups.x) * 64u + local;
    let i = index % HALF;
    let head = index / HALF % (H + 2u * G);
    let row = index / (WIDTH / 2u);
    // Bounded by the size of the queries.
    let steps = min(u32(place[1]), arrayLength(&queries) / (sizes.batch * H * E));
    if row >= sizes.batch * steps {
        return;
    }
    let batch = row / steps;
    let step = row % steps;
    let position = u32(place[0]) + step;
    if position >= sizes.capacity {
        return;
    }
    let low = qkv[row * WIDTH + head * E + i];
    let high = qkv[row * WIDTH + head * E + HALF + i];
    if head >= H + G {
        let at = ((batch * G + head - H - G) * sizes.capacity + position) * E + i;
        values[at] = low;
        values[at + HALF] = high;
        return;
    }
    let cosine = cos_sin[position * E + i];
    let sine = cos_sin[position * E + HALF + i];
    let first = low * cosine - high * sine;
    let second = high * cosine + low * sine;
    if head < H {
        let at = ((batch * H + head) * steps + step) * E + i;
        queries[at] = first;
        queries[at + HALF] = second;
    } else {
        let at = ((batch * G + head - H) * sizes.capacity + position) * E + i;
        keys[at] = first;
        keys[at + HALF] = second;
    }
}
