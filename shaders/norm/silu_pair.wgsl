// silu_pair: y = silu(first half of x) * second half, per row.
// reference  crates/emu-kernels/src/cpu/activation.rs     test  crates/emu-kernels/src/ops/tests.rs

@group(0) @binding(0) var<storage, read_write> x: array<f32>;  // [rows, 2 D]
@group(0) @binding(1) var<storage, read_write> y: array<f32>;  // [rows, D]

const D = {{width}}u;

@compute @workgroup_size(64, 1, 1)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = (workgroup.x + workgroup.y * workgroups.x) * 64u + local;
    let row = index / D;
    if (row + 1u) * 2u * D > arrayLength(&x) || index >= arrayLength(&y) {
        return;
    }
    let gate = x[row * 2u * D + index % D];
    let up = x[row * 2u * D + D + index % D];
    y[index] = gate / (1.0 + exp(-gate)) * up;
}
