// rms_norm: rows divided by their root mean square, times a weight; one workgroup per row. Needs reduce.
// reference  crates/emu-kernels/src/cpu/norm.rs     test  crates/emu-kernels/src/ops/tests.rs

@group(0) @binding(0) var<storage, read_write> x: array<f32>;       // [rows, D]
@group(0) @binding(1) var<storage, read_write> weight: array<f32>;  // [D]
@group(0) @binding(2) var<storage, read_write> y: array<f32>;       // [rows, D]

const D = {{width}}u;
const INVOCATIONS = {{invocations}}u;
// eps, as f32 bits
const EPS_BITS = {{eps_bits}}u;

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
    let scale = inverseSqrt(total(local, sum) / f32(D) + bitcast<f32>(EPS_BITS));
    if inside {
        for (var i = local; i < D; i += INVOCATIONS) {
            y[row * D + i] = x[row * D + i] * scale * weight[i];
        }
    }
}
