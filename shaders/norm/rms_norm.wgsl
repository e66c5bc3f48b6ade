// rms_norm: y = x / sqrt(mean(x²) + eps) * weight of rows. Needs reduce.
// grid       one workgroup per row; folded over (x, y) beyond 65535
// bindings   x, weight, y
// params     width: D; eps: literal; subgroups: reduce by subgroups, else by trees
// shared     that of reduce
// reference  crates/emu-kernels/src/cpu/norm/rms_norm.rs     test  crates/emu-kernels/src/ops/tests.rs

@group(0) @binding({{x}}) var<storage, read_write> x: array<f32>;       // [rows, D]
@group(0) @binding({{weight}}) var<storage, read_write> weight: array<f32>;  // [D]
@group(0) @binding({{y}}) var<storage, read_write> y: array<f32>;       // [rows, D]

const D = {{width}}u;
const INVOCATIONS = {{invocations}}u;
const EPS = {{eps}};

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
    let inside = (row + 1u) * D <= arrayLength(&y);
    var sum = 0.0;
    if inside {
        for (var i = local; i < D; i += INVOCATIONS) {
            let value = x[row * D + i];
            sum += value * value;
        }
    }
    let scale = inverseSqrt(total(local, sum) / f32(D) + EPS);
    if inside {
        for (var i = local; i < D; i += INVOCATIONS) {
            y[row * D + i] = x[row * D + i] * scale * weight[i];
        }
    }
}
