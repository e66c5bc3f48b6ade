// layer_norm: y = (x - mean) / sqrt(variance + eps) * weight + bias of rows. Needs reduce.
// grid       one workgroup per row; folded over (x, y) beyond 65535
// bindings   x, weight, bias, y, info {rows, rows per image, eps, strides of x}
// params     width: D; subgroups: reduce by subgroups, else by trees
// shared     that of reduce
// reference  crates/emu-kernels/src/cpu/norm/layer_norm.rs     test  crates/emu-kernels/tests/layer_norm.rs
//
// Two-pass variance: the mean of squares minus the squared mean would cancel if the mean is large.

struct Info {
    rows: u32,         // B T
    per: u32,          // T
    eps: f32,
    unused: u32,
    strides: vec4<u32> // of x
}

@group(0) @binding({{x}}) var<storage, read_write> x: array<f32>;       // [B, T, D], strided
@group(0) @binding({{weight}}) var<storage, read_write> weight: array<f32>;  // [D]
@group(0) @binding({{bias}}) var<storage, read_write> bias: array<f32>;    // [D]
@group(0) @binding({{y}}) var<storage, read_write> y: array<f32>;       // [B, T, D]
@group(0) @binding({{uniform}}) var<uniform> info: Info;

const D = {{width}}u;
const INVOCATIONS = {{invocations}}u;

@compute @workgroup_size({{invocations}}, 1, 1)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    //@if subgroups
    find_lanes();
    //@end
    let row = workgroup.x + workgroup.y * workgroups.x;
    if row >= info.rows {
        return;
    }
    let first = row / info.per * info.strides.x + row % info.per * info.strides.y;
    let step = info.strides.z;
    var sum = 0.0;
    for (var i = local; i < D; i += INVOCATIONS) {
        sum += x[first + i * step];
    }
    let mean = total(local, sum) / f32(D);
    var squares = 0.0;
    for (var i = local; i < D; i += INVOCATIONS) {
        let value = x[first + i * step] - mean;
        squares += value * value;
    }
    let scale = inverseSqrt(total(local, squares) / f32(D) + info.eps);
    for (var i = local; i < D; i += INVOCATIONS) {
        y[row * D + i] = (x[first + i * step] - mean) * scale * weight[i] + bias[i];
    }
}
