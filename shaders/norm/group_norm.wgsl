// group_norm: y = (x - mean) / sqrt(variance + eps) * weight + bias per group of channels, then SiLU with `silu`. Needs reduce.
// grid       one workgroup per image and group; folded over (x, y) beyond 65535
// bindings   x, weight, bias, y, skip if there is one
// params     batch, channels: of y; first: channels of x; area: height * width; groups; eps: literal; silu;
//            skip: the channels of a second tensor follow those of x; subgroups: reduce by subgroups, else by trees
// shared     that of reduce
// reference  crates/emu-kernels/src/cpu/norm/group_norm.rs     test  crates/emu-kernels/tests/diffusion_kernels.rs
//
// Three passes over a group: mean, variance, result.

@group(0) @binding({{x}}) var<storage, read_write> x: array<f32>;       // [B, FIRST, AREA]
@group(0) @binding({{weight}}) var<storage, read_write> weight: array<f32>;  // [C]
@group(0) @binding({{bias}}) var<storage, read_write> bias: array<f32>;    // [C]
@group(0) @binding({{y}}) var<storage, read_write> y: array<f32>;       // [B, C, AREA]
//@if skip
@group(0) @binding({{skip}}) var<storage, read_write> skip: array<f32>;  // [B, C - FIRST, AREA]
//@end

const B = {{batch}}u;
const C = {{channels}}u;
const FIRST = {{first}}u;
const AREA = {{area}}u;
const G = {{groups}}u;
const SIZE = C / G * AREA;
const INVOCATIONS = {{invocations}}u;
const EPS = {{eps}};

// Element `i` of a group whose first channel is `channel`.
fn value(batch: u32, channel: u32, i: u32) -> f32 {
    //@if skip
    let c = channel + i / AREA;
    if c >= FIRST {
        return skip[(batch * (C - FIRST) + c - FIRST) * AREA + i % AREA];
    }
    //@end
    return x[(batch * FIRST + channel) * AREA + i];
}

@compute @workgroup_size({{invocations}}, 1, 1)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    //@if subgroups
    find_lanes();
    //@end
    let index = workgroup.x + workgroup.y * workgroups.x;
    // The last workgroups of a folded grid may be out of range: their size is 0.
    let size = select(0u, SIZE, index < B * G);
    let batch = index / G;
    let channel = index % G * (C / G);
    var sum = 0.0;
    for (var i = local; i < size; i += INVOCATIONS) {
        sum += value(batch, channel, i);
    }
    let mean = total(local, sum) / f32(SIZE);
    var squares = 0.0;
    for (var i = local; i < size; i += INVOCATIONS) {
        let off = value(batch, channel, i) - mean;
        squares += off * off;
    }
    let scale = inverseSqrt(total(local, squares) / f32(SIZE) + EPS);
    for (var i = local; i < size; i += INVOCATIONS) {
        let c = channel + i / AREA;
        var z = (value(batch, channel, i) - mean) * scale * weight[c] + bias[c];
        //@if silu
        z = z / (1.0 + exp(-z));
        //@end
        y[index * SIZE + i] = z;
    }
}
